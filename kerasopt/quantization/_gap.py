"""`QuantizationGap`: the TFLite file beside the Keras model, while it trains."""

import dataclasses
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._data import batches, class_indices, count_of, top_class
from kerasopt._validation import check_int
from kerasopt.quantization._calibrate import calibrate
from kerasopt.quantization._callback import QuantizeAware
from kerasopt.quantization._graph import is_graph
from kerasopt.quantization._probe import Batch, Probe
from kerasopt.quantization._twin import is_quantization_aware, quantize_aware, scheme_of
from kerasopt.training import TrainingCallback


@dataclasses.dataclass(frozen=True)
class Gap:
    """How the int8 file compared with the Keras model at the end of an epoch.

    Attributes:
        epoch: counted from 0.
        agreement: fraction of the inputs with the same top class in both, in [0, 1].
        accuracy: of the file, in [0, 1]; `None` without labels.
        keras_accuracy: of the quantization-aware model on the same inputs.
        widest: name of the range that is widest for what it holds; `None` without ranges.
        noise: there, the root mean square of what rounding and clipping change, divided by that
            of the values; 0.01 is 40 dB.
        ranges: name of each range that is learned -> `(low, high)`, in the order of the model.
        trained: whether quantization-aware training had begun; before, a copy was calibrated.
    """

    epoch: int
    agreement: float
    accuracy: float | None
    keras_accuracy: float | None
    widest: str | None
    noise: float
    ranges: dict[str, tuple[float, float]]
    trained: bool


class QuantizationGap(TrainingCallback):
    """Makes the int8 file during `fit`, runs it and logs how far it is from the Keras model.

    At the end of every `every`-th epoch the file of the quantization-aware model is made and run
    on `data`. Before `QuantizeAware` begins, or without it, this is the file of a copy that is
    calibrated on `data`: what quantization after training would give. The history gets

        gap_agreement       fraction of the inputs with the same top class
        gap_accuracy        of the file, with labelled data
        gap_keras_accuracy  of the quantization-aware model on the same data
        gap_noise           of the widest range: rounding error by values, root mean square

    Which range is the widest stands in `results`, beside the ends of all of them; one that is wide
    for what it holds is where outliers or a bad start cost most levels.

    Making the file takes seconds to a minute, running it about a second for 100 images of
    224 x 224 pixels; a few hundred inputs are enough. Needs `ko.export`.

    Args:
        data: inputs, best `(x, y)` with labels: arrays, a `tf.data.Dataset` or an iterable of
            batches; for a model of several inputs `x` is a dict by name. They are read once and
            kept.
        every: epochs from one measurement to the next, >= 1; the first epoch is measured.
        verbose: 1 prints a line at each measurement.

    Attributes:
        results: list of `Gap`, one for each measurement of the last `fit`.

    Raises:
        TypeError: `every` is not an integer.
        ValueError: it is out of range; before the first batch when `data` are empty or not for the
            inputs of the model, or it has several outputs; at a measurement when the scheme has
            no file.

    Example:
        >>> QuantizationGap((None, None), every=5).every
        5
    """

    def __init__(self, data: Any, *, every: int = 1, verbose: int = 0) -> None:
        super().__init__()
        self.data = data
        self.every = check_int("every", every, low=1)
        self.verbose = verbose
        self.results: list[Gap] = []
        self._batches: list[tuple[Any, np.ndarray | None]] = []

    def begin(self) -> None:
        """Reads the data."""
        self.results = []
        self._batches = list(batches(self.data, name="data"))
        if is_graph(self.model) and self.model.built:
            self._check_fit()

    def _check_fit(self) -> None:
        if len(self.model.outputs) > 1:
            raise ValueError(
                "A model must have one output to have one top class. "
                f"Received: {self.model.name!r} with {len(self.model.outputs)}."
            )
        names = sorted(tensor.name for tensor in self.model.inputs)
        needed = f"a dict of {names}" if len(names) > 1 else "an array"
        for x, _ in self._batches:
            found = f"a dict of {sorted(x)}" if isinstance(x, dict) else "an array"
            if found != needed:
                raise ValueError(
                    f"`data` must have {needed} as inputs, as the model has. Received: {found}."
                )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, and logs what was found."""
        if epoch % self.every:
            return
        aware, trained = self._quantized()
        gap = self._measure(epoch, aware, trained)
        self.results.append(gap)
        text = f"file and Keras agree on {gap.agreement:.1%}, widest range {gap.widest}"
        self.mark("quantize", text)
        if self.verbose:
            print(f"\nQuantizationGap: {text} (noise {gap.noise:.4f})")  # noqa: T201
        if logs is not None:
            logs |= {
                f"gap_{key}": value
                for key, value in dataclasses.asdict(gap).items()
                if key in ("agreement", "accuracy", "keras_accuracy", "noise") and value is not None
            }

    def _quantized(self) -> tuple[Any, bool]:
        """Returns the quantization-aware model, and whether it is the one that trains."""
        if is_quantization_aware(self.model):
            return self.model, True
        callback = next((o for o in self.session.owners if isinstance(o, QuantizeAware)), None)
        if callback is not None and callback.begun:
            return callback.quantized_model, True
        scheme, layers = ("int8", None) if callback is None else (callback.scheme, callback.layers)
        copy = quantize_aware(self.model, scheme, layers=layers)
        calibrate(copy, (_by_input(copy, x) for x, _ in self._batches))
        return copy, False

    def _measure(self, epoch: int, aware: Any, trained: bool) -> Gap:
        # The one place where quantization uses the room above it, by its public name as a user
        # does: the file is made from a model of ours, so `export` imports us.
        import kerasopt as ko

        name = scheme_of(aware).name
        result = ko.export.to_tflite(
            aware,
            quantize="dynamic" if name == "int8_weights" else name,
            representative_data=[x for x, _ in self._batches],
            verify=False,
        )
        lite = ko.export.TFLiteModel(result.content)

        # Not `predict_on_batch`, which under a strategy answers once for each replica.
        def call(inputs: list[Any]) -> Any:
            return aware(keras.tree.pack_sequence_as(aware.input, inputs), training=False)

        forward = tf.function(call, reduce_retracing=True)
        same, hits, keras_hits, labelled, total = 0, 0, 0, 0, 0
        for x, y in self._batches:
            expected = top_class(np.asarray(forward(_by_input(aware, x)), "float32"))
            found = top_class(lite.predict(x))
            same += int(np.sum(found == expected))
            total += count_of(x)
            if y is not None:
                truth = class_indices(y)
                hits += int(np.sum(found == truth))
                keras_hits += int(np.sum(expected == truth))
                labelled += count_of(x)
        probe = Probe(aware)
        noise = probe.noise(_by_input(aware, x) for x, _ in self._batches)
        widest = int(np.argmax(noise)) if len(noise) else None
        return Gap(
            epoch=epoch,
            agreement=same / total,
            accuracy=hits / labelled if labelled else None,
            keras_accuracy=keras_hits / labelled if labelled else None,
            widest=None if widest is None else probe.places[widest].layer.name,
            noise=0.0 if widest is None else float(noise[widest]),
            ranges={place.layer.name: place.layer.range_value() for place in probe.places},
            trained=trained,
        )


def _by_input(model: Any, x: Any) -> Batch:
    return [x[tensor.name] for tensor in model.inputs] if isinstance(x, dict) else [x]
