"""What a file computes beside what its model computes, on the same data."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kerasopt._backend import keras
from kerasopt._data import batches, border_of, class_indices, predict_batch, top_class
from kerasopt.export._convert import output_names
from kerasopt.export._interpreter import TFLiteModel
from kerasopt.profiling import diff

_LAYER_ERROR = 0.2
"""Relative error from which a layer counts as parted, as `diff` has it."""
_FEW = 16
"""Inputs that run under every setting of the interpreter."""


@dataclasses.dataclass(frozen=True)
class InterpreterRun:
    """The file beside its model, under one setting of the interpreter.

    Attributes:
        xnnpack: whether XNNPACK ran what it can, or TFLite's own kernels all of it.
        threads: of the interpreter.
        samples: inputs compared.
        agreement: fraction of them with the same top class.
        max_error: largest difference of an output, in the unit of the outputs.
        relative_error: norm of the difference over the norm of the model's outputs.
    """

    xnnpack: bool
    threads: int
    samples: int
    agreement: float
    max_error: float
    relative_error: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Outputs of a Keras model and a file on the same inputs."""

    samples: int
    agreement: float
    max_error: float
    relative_error: float
    accuracy: float | None
    keras_accuracy: float | None


def compare(
    model: Any,
    lite: Any,
    data: Any,
    *,
    max_relative_error: float,
    predict: Callable[[Any], Any] | None = None,
) -> Comparison:
    """Runs a Keras model and a file on the same data.

    With several outputs the errors are the largest of all, and an input agrees when all outputs
    do; accuracy is known for a single output of classes. Errors are infinite where the file gives
    what is not finite and the model does not.

    Args:
        model: the Keras model.
        lite: the file, with a method `predict`.
        data: inputs, with or without labels.
        max_relative_error: how far an output that names no class may be off to agree.
        predict: returns the model's outputs for a batch, where they are known already.

    Raises:
        ValueError: the model itself gives NaN.
    """
    names = output_names(model)
    expected: list[list[np.ndarray]] = [[] for _ in names]
    found: list[list[np.ndarray]] = [[] for _ in names]
    labels = []
    for x, y in batches(data, name="verify", several_labels=len(names) > 1):
        outputs = predict_batch(model, x) if predict is None else predict(x)
        given = lite.predict(x)
        for index, name in enumerate(names):
            expected[index].append(_numbers(outputs[index]))
            found[index].append(np.asarray(given[name] if len(names) > 1 else given))
        if y is not None:
            labels.append(y)
    pairs = [
        _Pair(name, np.concatenate(a), np.concatenate(b))
        for name, a, b in zip(names, expected, found, strict=True)
    ]
    accuracies = pairs[0].accuracies(labels) if len(names) == 1 and labels else (None, None)
    return Comparison(
        samples=len(pairs[0].keras),
        agreement=float(np.mean(np.all([p.agree(max_relative_error) for p in pairs], axis=0))),
        max_error=max(pair.max_error() for pair in pairs),
        relative_error=max(pair.relative_error() for pair in pairs),
        accuracy=accuracies[0],
        keras_accuracy=accuracies[1],
    )


def every_setting(
    model: Any, content: bytes, x: Any, *, max_relative_error: float
) -> tuple[InterpreterRun, ...]:
    """Runs the file on the first inputs with XNNPACK and without, on one thread and on all.

    A phone may lack the delegate, or choose another number of threads; each takes other kernels.
    """
    few = keras.tree.map_structure(lambda values: values[:_FEW], x)
    outputs = predict_batch(model, few)
    runs = []
    for xnnpack in (True, False):
        for threads in sorted({1, max(2, os.cpu_count() or 1)}):
            lite = TFLiteModel(content, num_threads=threads, xnnpack=xnnpack)
            found = compare(
                model,
                lite,
                [(few, None)],
                max_relative_error=max_relative_error,
                predict=lambda _: outputs,
            )
            figures = (found.samples, found.agreement, found.max_error, found.relative_error)
            runs.append(InterpreterRun(xnnpack, threads, *figures))
    return tuple(runs)


class Parting(NamedTuple):
    """Where a file and its model part first."""

    layer: str | None
    text: str


def find_parting(model: Any, lite: TFLiteModel, x: Any, max_relative_error: float) -> Parting:
    """Looks for the first layer where a file and its model part, each from its own values.

    Args:
        model: the Keras model.
        lite: the file.
        x: some inputs, of which the first run through all layers.
        max_relative_error: how far the outputs may be off; layers up to 0.2.
    """
    if len(model.outputs) > 1:
        return Parting(None, "")  # `diff` knows models of one output
    few = keras.tree.map_structure(lambda values: values[:_FEW], x)
    tolerance = min(_LAYER_ERROR, max_relative_error)
    try:
        found = diff(model, lite, [few], samples=_FEW, tolerance=tolerance).parting
    except ValueError:  # a layer that does not run by itself; the figures are known all the same
        return Parting(None, "")
    if found is None:
        name = output_names(model)[0]
        return Parting(name, f" The layers inside agree: they first part at the output {name!r}.")
    text = f"the layer {found.name!r} (relative error {found.relative_error:.2g})"
    return Parting(found.name, f" Running on, each from its own values, they first part at {text}.")


def _numbers(outputs: Any) -> np.ndarray:
    """Returns integers as they are, and whatever is real as float32, also half precision."""
    array = np.asarray(outputs)
    return array if array.dtype.kind in "biu" else array.astype("float32")


class _Pair:
    """One output of both, all inputs together."""

    def __init__(self, name: str, expected: np.ndarray, found: np.ndarray) -> None:
        if np.isnan(expected).any():
            raise ValueError(
                "`verify` must be data for which the model gives numbers. "
                f"Received: data for which its output {name!r} is NaN. "
                "Look at the data, or at the layers that divide or take a root or logarithm."
            )
        self.keras, self._file = expected, found
        # What is infinite in both is equal, and has no difference.
        self._same = (expected == found) | (np.isfinite(expected) & np.isfinite(found))
        difference = found.astype("float64") - np.where(self._same, expected, found)
        both = np.isfinite(expected) & np.isfinite(found)
        self._difference = np.where(both, difference, 0.0)

    def max_error(self) -> float:
        return float(np.max(np.abs(self._difference))) if self._same.all() else math.inf

    def relative_error(self) -> float:
        if not self._same.all():
            return math.inf
        # All zeros on one side: the other is wholly another.
        base = _norm(self.keras) or _norm(self._file)
        return _norm(self._difference) / base if base else 0.0

    def agree(self, max_relative_error: float) -> np.ndarray:
        """Tells for each input whether both name the same class, or say the same."""
        count = len(self.keras)
        if self.keras.dtype.kind in "biu":
            same: np.ndarray = (self.keras == self._file).reshape(count, -1).all(axis=1)
            return same
        if self.keras.ndim <= 2:
            border = border_of(self.keras)
            classes = top_class(self.keras, border=border), top_class(self._file, border=border)
            return np.asarray(classes[0] == classes[1])
        # An image has no class: the mean squared difference beside that of all values.
        errors = np.sqrt(np.mean(self._difference.reshape(count, -1) ** 2, axis=1))
        usual = _norm(self.keras) / math.sqrt(self.keras.size)
        near = errors <= max_relative_error * usual
        return near & self._same.reshape(count, -1).all(axis=1)

    def accuracies(self, labels: list[np.ndarray]) -> tuple[float | None, float | None]:
        """Returns the accuracy of the file and of the model, `None` where there are no classes."""
        truth = np.concatenate(labels)
        if self.keras.ndim != 2 or self.keras.dtype.kind in "biu" or truth.ndim > 2:
            return None, None
        if self.keras.shape[1] == 1 and not np.isin(truth, (0, 1)).all():
            return None, None  # a number that is predicted, not a class
        border, classes = border_of(self.keras), class_indices(truth)
        return (
            float(np.mean(top_class(self._file, border=border) == classes)),
            float(np.mean(top_class(self.keras, border=border) == classes)),
        )


def _norm(values: np.ndarray) -> float:
    real = np.where(np.isfinite(values), values, 0.0).astype("float64")
    return float(np.linalg.norm(real.ravel()))
