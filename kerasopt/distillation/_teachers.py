"""Everything that can teach, as one kind of thing: a function from photos to logits."""

import contextlib
import hashlib
import os
import pathlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt.distillation._outputs import output_kind
from kerasopt.distillation._photos import adapter
from kerasopt.distillation._taps import NamedTaps
from kerasopt.training import settle

_FORMS = (
    "`teacher` must be a keras.Model, a ko.export.TFLiteModel, the path of a .keras or .tflite "
    "file, a list of these, or 'ema' for the student's own moving average."
)


class ModelTeacher:
    """A Keras model, called in inference mode.

    Args:
        model: the teacher.
        kind: what its outputs are, or `None` to read it from its graph.
        preprocessing: what happens to the photo before it is resized, or `None`.
    """

    host = False
    """Whether it leaves the compiled step."""

    def __init__(self, model: Any, kind: str | None, preprocessing: Any) -> None:
        settle(model)
        if not model.built:
            raise ValueError(
                "`teacher` must be a trained model. Received: model "
                f"{model.name!r} with built=False. Load its weights first."
            )
        self.model, self.name = model, model.name
        inputs, outputs = (
            getattr(model, "inputs", None) or (),
            getattr(model, "outputs", None) or (),
        )
        if inputs or outputs:
            _check_ends(model.name, len(inputs), len(outputs))
        self.kind = output_kind(model, kind, "teacher_outputs")
        self.num_classes = int(model.output_shape[-1]) if outputs else None
        shape = tuple(inputs[0].shape[1:]) if inputs else None
        self.adapt = adapter(
            shape, inputs[0].dtype if inputs else "float32", preprocessing, self.name
        )

    def __call__(self, photo: Any) -> Any:
        """Returns the outputs (batch, classes) for photos in the student's range."""
        return tf.stop_gradient(self.model(self.adapt(photo), training=False))

    def watch(self, names: Sequence[str]) -> dict[str, Any]:
        """Notes features from now on, in `noting`; returns their shapes."""
        self._taps = NamedTaps(self.model, names, "teacher")
        return self._taps.shapes()

    def noting(self, store: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
        """Notes the features while the teacher is called."""
        return self._taps.noting(store)

    def fingerprint(self) -> str:
        """Returns a digest of the weights."""
        digest = hashlib.sha256()
        for weight in self.model.weights:
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
        return digest.hexdigest()


class TFLiteTeacher:
    """A TFLite file, run by its interpreter on the host, one photo at a time."""

    host = True

    def __init__(self, file: Any, name: str, kind: str | None, preprocessing: Any) -> None:
        self.name = name
        _check_ends(name, len(file.inputs), len(file.outputs))
        self._file, self._lock = file, threading.Lock()
        operators = [o for o in file.operators if o not in ("DEQUANTIZE", "QUANTIZE", "RESHAPE")]
        ends = operators[-1] if operators else ""
        found = "probabilities" if ends in ("SOFTMAX", "LOGISTIC") else "logits"
        self.kind = kind or found
        self.num_classes = int(file.output_shape[-1])
        self.adapt = adapter(file.input_shape[1:], "float32", preprocessing, name)

    def __call__(self, photo: Any) -> Any:
        """Returns the outputs (batch, classes) for photos in the student's range."""
        outputs = tf.numpy_function(self._predict, [self.adapt(photo)], tf.float32, stateful=False)
        return tf.ensure_shape(outputs, [photo.shape[0], *self._file.output_shape[1:]])

    def _predict(self, photos: Any) -> Any:
        with self._lock:  # an interpreter runs one photo at a time
            return self._file.predict(photos)

    def fingerprint(self) -> str:
        """Returns a digest of the file."""
        return hashlib.sha256(self._file.content).hexdigest()


class AverageTeacher:
    """The student's own moving average: the same layers with other weights.

    Args:
        momentum: share of the old average that a step keeps, in the long run.
    """

    host = False
    name = "ema"

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self._steps = 0
        self._pairs: list[tuple[Any, Any]] = []
        self._model: Any = None
        self.kind = ""
        self.num_classes: int | None = None
        self.adapt: Callable[[Any], Any] = tf.identity

    def begin(self, model: Any, kind: str) -> None:
        """Makes a second set of the student's weights."""
        self._model, self.kind = model, kind
        inputs = getattr(model, "inputs", None)
        if inputs:
            self.num_classes = int(model.output_shape[-1])
            self.adapt = adapter(tuple(inputs[0].shape[1:]), inputs[0].dtype, None, self.name)
        weights = [w for w in model.weights if keras.backend.is_float_dtype(w.dtype)]
        with model.distribute_strategy.scope():
            self._pairs = [(w, keras.Variable(w, trainable=False)) for w in weights]
        self._move = tf.function(self._move_all)
        self.start()

    def start(self) -> None:
        """Begins the average with the weights as they are."""
        self._steps = 0
        self._move(tf.constant(0.0))

    def move(self, steps: int) -> None:
        """Moves the average after `steps` steps; at first it follows faster."""
        kept = 1.0
        for _ in range(steps):
            self._steps += 1
            kept *= min(self._momentum, (1 + self._steps) / (10 + self._steps))
        self._move(tf.constant(kept, "float32"))

    def watch(self, names: Sequence[str]) -> dict[str, Any]:
        """Notes features from now on, in `noting`; returns their shapes."""
        self._taps = NamedTaps(self._model, names, "teacher")
        return self._taps.shapes()

    def noting(self, store: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
        """Notes the features while the teacher is called."""
        return self._taps.noting(store)

    def _move_all(self, momentum: Any) -> None:
        for weight, average in self._pairs:
            average.assign(average + tf.cast(1.0 - momentum, average.dtype) * (weight - average))

    def __call__(self, photo: Any) -> Any:
        """Returns the outputs of the student's own graph with the averaged weights."""
        swaps = [(weight, tf.convert_to_tensor(average)) for weight, average in self._pairs]
        # The class's own `call`: the average teaches in float what may be trained quantized.
        with keras.StatelessScope(state_mapping=swaps):
            outputs = type(self._model).call(self._model, self.adapt(photo), training=False)
        return tf.stop_gradient(outputs)


def make_teachers(
    given: Any, kind: str | None, preprocessing: Any, *, ema_momentum: float
) -> list[Any]:
    """Returns what can teach, from what the user gave.

    Raises:
        TypeError: it is none of the forms.
        ValueError: a file or its name is not one, or a teacher does not fit.
        FileNotFoundError: there is no such file.
    """
    if isinstance(given, list | tuple):
        if not given or any(isinstance(one, list | tuple) or one == "ema" for one in given):
            raise ValueError(f"{_FORMS} Received: teacher={given!r}.")
        steps = preprocessing if isinstance(preprocessing, list | tuple) else None
        if steps is not None and len(steps) != len(given):
            raise ValueError(
                "`preprocessing` must be one function, or one for each teacher. "
                f"Received: {len(steps)} for {len(given)} teachers."
            )
        each = steps or [preprocessing] * len(given)
        return [_one(*pair, kind) for pair in zip(given, each, strict=True)]
    if isinstance(given, str) and given == "ema":
        return [AverageTeacher(ema_momentum)]
    return [_one(given, preprocessing, kind)]


def _one(given: Any, preprocessing: Any, kind: str | None) -> Any:
    if preprocessing is not None and not callable(preprocessing):
        raise TypeError(
            "`preprocessing` must be a function of a batch of photos, or a Keras layer. "
            f"Received: preprocessing={preprocessing!r}."
        )
    if isinstance(given, keras.Model):
        return ModelTeacher(given, kind, preprocessing)
    if isinstance(given, str | os.PathLike):
        path = pathlib.Path(given)
        if path.suffix not in (".keras", ".tflite"):
            raise ValueError(f"{_FORMS} Received: teacher={str(given)!r}.")
        if not path.is_file():
            raise FileNotFoundError(
                f"`teacher` must be a file that exists. Received: teacher={str(path)!r}."
            )
        if path.suffix == ".keras":
            with _same_random_numbers():
                model = keras.saving.load_model(path, compile=False)
            return ModelTeacher(model, kind, preprocessing)
        return _lite(path, path.name, kind, preprocessing)
    from kerasopt.export import TFLiteModel

    if isinstance(given, TFLiteModel):
        return _lite(given, "TFLite file", kind, preprocessing)
    raise TypeError(f"{_FORMS} Received: teacher of type {type(given).__name__}.")


def _lite(file: Any, name: str, kind: str | None, preprocessing: Any) -> TFLiteTeacher:
    from kerasopt.export import TFLiteModel

    file = file if isinstance(file, TFLiteModel) else TFLiteModel(file)
    return TFLiteTeacher(file, name, kind, preprocessing)


def _check_ends(name: str, inputs: int, outputs: int) -> None:
    if inputs != 1 or outputs != 1:
        raise ValueError(
            "`teacher` must have one input and one output. "
            f"Received: {name!r} with {inputs} inputs and {outputs} outputs."
        )


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Keeps Python's random numbers, of which every layer that is made draws some."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
