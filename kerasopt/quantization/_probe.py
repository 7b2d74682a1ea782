"""What the ranges of a quantization-aware model would see, measured outside of training."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt.quantization._decomposed import DecomposedLayer
from kerasopt.quantization._flat import flat_functional
from kerasopt.quantization._layers import FakeQuantize
from kerasopt.quantization._observers import BINS

Batch = list[np.ndarray]
"""One array for each input of a model."""


@dataclasses.dataclass
class Place:
    """A call site of a range: where in the graph a tensor is watched."""

    layer: FakeQuantize
    site: int


class Probe:
    """The graph of a quantization-aware model with its activations left float, and its tensors.

    Kernels are rounded, since they hold their levels already. BatchNormalization uses its moving
    statistics, dropout and augmentation are off.

    Args:
        model: a quantization-aware model.

    Attributes:
        places: the places, in the order of all results.
    """

    def __init__(self, model: Any) -> None:
        self.places: list[Place] = []
        self._tensors: list[Any] = []
        copy = keras.models.clone_model(
            flat_functional(model), clone_function=lambda op: op, call_function=self._record
        )
        if not self.places:  # weights alone are quantized
            return
        self._function = keras.Model(copy.inputs, self._tensors)
        shapes = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in copy.inputs]
        self._ends = tf.function(self._measure_ends, input_signature=[shapes])
        ranges = tf.TensorSpec((len(self.places), 2), "float32")
        self._counts = tf.function(self._count, input_signature=[shapes, ranges])
        self._noise = tf.function(self._measure_noise, input_signature=[shapes])
        self._outside = tf.function(self._measure_outside, input_signature=[shapes, ranges])

    def _record(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, DecomposedLayer):
            return op.probe(self._note, *args, **kwargs)
        if not isinstance(op, FakeQuantize):
            return op(*args, **kwargs)
        self._note(op, kwargs.get("site", args[1] if len(args) > 1 else 0), args[0])
        return args[0]

    def _note(self, layer: FakeQuantize, site: int, tensor: Any) -> None:
        if layer.fixed_range is None and site >= 0:
            self.places.append(Place(layer, site))
            self._tensors.append(tensor)

    def ends(self, batch: Batch) -> np.ndarray:
        """Returns the smallest and the largest value of each place, (places, 2)."""
        found: np.ndarray = self._ends(_as_tensors(batch, self._function)).numpy()
        for (low, high), place in zip(found, self.places, strict=True):
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError(
                    "Calibration needs activations that are finite. Received: NaN or infinity "
                    f"where {place.layer.name!r} watches. Look for weights that grew too large."
                )
        return found

    def histograms(self, batches: Iterable[Batch], ranges: np.ndarray) -> np.ndarray:
        """Counts the values of each place between its ends, (places, bins)."""
        counts = np.zeros((len(self.places), BINS))
        for batch in batches:
            counts += self._counts(_as_tensors(batch, self._function), _float(ranges)).numpy()
        return counts

    def outside(self, batches: Iterable[Batch], ranges: np.ndarray) -> np.ndarray:
        """Returns the fraction of the values of each place that lie outside of a range."""
        shares, total = np.zeros(len(self.places)), 0
        for batch in batches:
            found = self._outside(_as_tensors(batch, self._function), _float(ranges)).numpy()
            shares += len(batch[0]) * found
            total += len(batch[0])
        return shares / max(1, total)

    def noise(self, batches: Iterable[Batch]) -> np.ndarray:
        """Returns what the present range of each place changes, relative to the values' size."""
        if not self.places:
            return np.zeros(0)
        sums = np.zeros((len(self.places), 2))
        for batch in batches:
            sums += self._noise(_as_tensors(batch, self._function)).numpy()
        size = np.where(sums[:, 1] > 0, sums[:, 1], 1.0)
        return np.sqrt(sums[:, 0] / size)

    def _values(self, inputs: Any) -> list[Any]:
        values = self._function(inputs, training=False)
        return [tf.cast(v, "float32") for v in (values if isinstance(values, list) else [values])]

    def _measure_ends(self, inputs: Any) -> Any:
        return tf.stack(
            [tf.stack([tf.reduce_min(v), tf.reduce_max(v)]) for v in self._values(inputs)]
        )

    def _count(self, inputs: Any, ranges: Any) -> Any:
        values = self._values(inputs)
        return tf.stack(
            [tf.histogram_fixed_width(v, ranges[i], BINS) for i, v in enumerate(values)]
        )

    def _measure_outside(self, inputs: Any, ranges: Any) -> Any:
        return tf.stack(
            [
                tf.reduce_mean(tf.cast((v < ranges[i, 0]) | (v > ranges[i, 1]), "float32"))
                for i, v in enumerate(self._values(inputs))
            ]
        )

    def _measure_noise(self, inputs: Any) -> Any:
        sums = []
        for place, v in zip(self.places, self._values(inputs), strict=True):
            error = place.layer(v, site=-1, training=False) - v
            sums.append(tf.stack([tf.reduce_sum(error**2), tf.reduce_sum(v**2)]))
        return tf.stack(sums)


def _as_tensors(batch: Batch, model: Any) -> list[Any]:
    return [tf.cast(x, t.dtype) for x, t in zip(batch, model.inputs, strict=True)]


def _float(ranges: np.ndarray) -> Any:
    return tf.constant(ranges, "float32")
