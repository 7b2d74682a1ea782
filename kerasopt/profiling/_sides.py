"""A model or a file as one side of a comparison: what it predicts, and what its layers make."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

# Files are run in `export`, which builds on this room; it is called as a user does.
import kerasopt as ko
from kerasopt._backend import keras
from kerasopt._data import predict_batch
from kerasopt._keras_file import load_keras
from kerasopt._layer_filter import walk_layers
from kerasopt.profiling._keras_model import replaced_calls

Pairs = tuple[tuple[float, float], ...]
"""`(mean, std)` of each channel, or one pair for all; () where nobody says."""
_RAW: Pairs = ((0.0, 1.0),)


class Made(NamedTuple):
    """What a layer or an operator makes of a batch."""

    name: str
    values: np.ndarray


class KerasSide:
    """A Keras model."""

    is_file = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self.name = model.name
        self.input_shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]

    def normalization(self) -> Pairs:
        """Returns what nobody says of a model."""
        return ()

    def predict(self, x: Any) -> np.ndarray:
        """Returns the outputs (batch, ...)."""
        (outputs,) = predict_batch(self._model, x)
        return outputs.astype("float32")

    def layers(self, x: Any) -> list[Made]:
        """Returns what each layer makes of a batch, in the order of their last calls.

        The layer that makes the output is left out.
        """
        paths = {id(layer): path for path, layer in walk_layers(self._model)}
        layers = [
            layer
            for _, layer in walk_layers(self._model)
            if not isinstance(layer, keras.layers.InputLayer)
        ]
        found: dict[str, np.ndarray] = {}

        def watch(layer: Any, call: Any) -> Any:
            def watched_call(*args: Any, **kwargs: Any) -> Any:
                outputs = call(*args, **kwargs)
                first = keras.tree.flatten(outputs)[0]
                if hasattr(first, "numpy"):  # inside of a graph there are no values
                    found.pop(paths[id(layer)], None)
                    found[paths[id(layer)]] = np.asarray(first, "float32")
                return outputs

            watched_call.__name__ = f"watched_{layer.name}"
            return watched_call

        with replaced_calls(layers, watch):
            output = np.asarray(self._model(x, training=False), "float32")
        return _inside([Made(name, values) for name, values in found.items()], output)


class FileSide:
    """A TFLite file."""

    is_file = True

    def __init__(self, lite: Any, name: str) -> None:
        self._lite = lite
        self.name = name
        self.input_shapes = [tuple(tensor.shape[1:]) for tensor in lite.inputs]

    def normalization(self) -> Pairs:
        """Returns what the metadata say."""
        metadata = ko.export.read_metadata(self._lite.content)
        return () if metadata is None else metadata.normalization

    def predict(self, x: Any) -> np.ndarray:
        """Returns the outputs (batch, ...)."""
        return np.asarray(self._lite.predict(x))

    def layers(self, x: Any) -> list[Made]:
        """Returns what each operator makes of a batch, in their order, but for the output."""
        size = self._lite.inputs[0].shape[0] or 1
        count = len(next(iter(x.values()))) if isinstance(x, dict) else len(x)
        rows = np.minimum(np.arange(count + -count % size), count - 1)
        filled = {k: v[rows] for k, v in x.items()} if isinstance(x, dict) else x[rows]
        # A tensor that does not have the batch in front is none that can be compared.
        made = [
            Made(each.name, each.values[:count])
            for each in ko.export.activations(self._lite, filled)
            if each.values.ndim and len(each.values) == len(rows)
        ]
        return _inside(made, self.predict(x))


def _inside(made: list[Made], output: np.ndarray) -> list[Made]:
    """Leaves out what is the output, which files give a name of its own.

    A softmax that is part of a Dense layer in Keras is an operator in a file, and the one before
    it has the layer's name: the two outputs are compared by themselves.
    """
    return [each for each in made if not np.array_equal(each.values, output)]


def open_side(argument: str, model: Any) -> KerasSide | FileSide:
    """Opens a model, a file, its bytes or a `TFLiteModel`.

    Raises:
        TypeError: it is none of these.
        ValueError: it is not built, damaged, or has several outputs.
        FileNotFoundError: there is no such file.
    """
    side: KerasSide | FileSide
    if isinstance(model, ko.export.ExportResult):
        model = model.content
    if isinstance(model, str | os.PathLike) and os.fspath(model).endswith(".keras"):
        model = load_keras(model, name=argument)
    if isinstance(model, keras.Model):
        if not getattr(model, "inputs", None):
            raise ValueError(
                f"`{argument}` must be a built model with known inputs. Received: {model.name!r}. "
                "Give its first layer keras.Input(shape)."
            )
        outputs, side = len(model.outputs), KerasSide(model)
    elif isinstance(model, str | os.PathLike | bytes | bytearray | ko.export.TFLiteModel):
        name = "TFLite file"
        if isinstance(model, str | os.PathLike):
            name = os.path.basename(os.fspath(model))
        lite = model if isinstance(model, ko.export.TFLiteModel) else ko.export.TFLiteModel(model)
        outputs, side = len(lite.outputs), FileSide(lite, name)
    else:
        raise TypeError(
            f"`{argument}` must be a Keras 3 model, the path of a .keras or .tflite file, the "
            "bytes of a TFLite file or a TFLiteModel. "
            f"Received: {argument} of type {type(model).__name__}."
        )
    if outputs != 1:
        raise ValueError(f"`{argument}` must have one output. Received: {outputs} outputs.")
    return side


def photos_of(
    folder: Any, sides: Sequence[KerasSide | FileSide]
) -> tuple[list[str], Iterator[np.ndarray]]:
    """Returns the paths of the photos in a folder, and batches of them as both sides take them.

    Raises:
        ValueError: there are none, the first side takes no image of a fixed size, or two files
            name different normalizations.
    """
    shape = sides[0].input_shapes[0]
    if len(shape) != 3 or shape[-1] not in (1, 3) or None in shape:
        raise ValueError(
            "`data` may be a folder of photos for a model of one image of a fixed size. "
            f"Received: {os.fspath(folder)!r}, for inputs of shape {shape}. Pass arrays."
        )
    height, width, channels = (int(size or 0) for size in shape)
    said = filter(None, (side.normalization() for side in sides))
    named = {pairs * channels if len(pairs) == 1 else pairs for pairs in said}
    if len(named) > 1:
        raise ValueError(
            "`data` may be a folder of photos for files that normalize them alike. "
            f"Received: (mean, std) of {' and of '.join(map(str, sorted(named)))}. Pass arrays."
        )
    mean, std = (np.array(x, "float32") for x in zip(*(*named, _RAW)[0], strict=True))
    photos = ko.datasets.list_photos(folder)

    def load() -> Iterator[np.ndarray]:
        for start in range(0, len(photos), 32):
            chosen = photos[start : start + 32]
            pixels = [ko.datasets.load_image(p, (height, width), channels=channels) for p in chosen]
            yield (np.stack(pixels).astype("float32") - mean) / std

    return [os.fspath(photo) for photo in photos], load()
