"""Where two models or files part, layer by layer and photo by photo."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerasopt._data import batches, class_indices, count_of, top_class
from kerasopt._validation import check_int, check_number
from kerasopt.profiling._diff_report import Disagreement, LayerDifference, ModelDiff
from kerasopt.profiling._names import Points, match_points
from kerasopt.profiling._sides import Made, open_side, photos_of

_CHUNK = 8
"""Inputs whose activations are in memory at once."""


def diff(
    a: Any,
    b: Any,
    data: Any,
    *,
    samples: int = 16,
    tolerance: float = 0.2,
    class_names: Sequence[str] | None = None,
) -> ModelDiff:
    """Shows where two models part: layer by layer, and on which inputs they choose other classes.

    Both run on the same data. The first `samples` inputs go through every layer and operator, and
    those of the same name and size are compared; the converter keeps the names of layers, and
    joins those that it fuses, so that a convolution with its BatchNormalization and ReLU is
    compared behind the ReLU. With `d` the differences and `x` the values of `a`, the relative
    error of a layer is `sqrt(sum(d^2) / sum(x^2))`. It grows from layer to layer in a quantized
    file; where it jumps, something is wrong.

    A layer that runs several times is compared at its last call. What a layer computes in a
    `tf.function` of its own is not seen inside.

    Args:
        a: a Keras model, the path of a `.keras` or `.tflite` file, the bytes of a TFLite file, a
            `TFLiteModel` or an `ExportResult`; of one output.
        b: another one, which takes the same inputs and has outputs of the same shape.
        data: `x`, `(x, y)`, a `tf.data.Dataset`, an iterable of batches, or a folder of photos,
            which both get normalized as the metadata of a file say, else as raw 0-255 pixels.
        samples: inputs on which the layers are compared, >= 1.
        tolerance: relative error from which a layer counts as parted, >= 0.
        class_names: names of the classes for the table.

    Returns:
        A `ModelDiff`; `print` shows it as a table.

    Raises:
        TypeError: a model or the data are none of these.
        ValueError: inputs or outputs have other shapes, there are several outputs, or no data.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras, kerasopt as ko, numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="logits")])
        >>> x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
        >>> found = ko.profiling.diff(model, ko.export.to_tflite(model).content, x)
        >>> found.agreement, found.parting
        (1.0, None)
    """
    check_int("samples", samples, low=1)
    check_number("tolerance", tolerance, low=0.0)
    sides = open_side("a", a), open_side("b", b)
    photos: list[str] = []
    if isinstance(data, str | os.PathLike):
        photos, data = photos_of(data, sides)
    outputs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    labels: list[np.ndarray] = []
    layers = _Layers(sides)
    for x, y in batches(data, name="data"):
        _check_inputs(x, sides)
        for side, found in zip(sides, outputs, strict=True):
            found.append(side.predict(x))
        _check_outputs([found[-1] for found in outputs])
        if y is not None:
            labels.append(class_indices(y))
        for part in _chunks(x, samples - layers.count):
            layers.add(part)
    first, second = (np.concatenate(found) for found in outputs)
    truth = np.concatenate(labels) if labels else None
    total = _Sums()
    total.add(first, second)
    return ModelDiff(
        names=(sides[0].name, sides[1].name),
        samples=len(first),
        layer_samples=layers.count,
        layers=layers.differences(),
        output=total.difference("output", "output"),
        disagreements=_disagreements(first, second, truth, photos),
        tolerance=float(tolerance),
        accuracy=_accuracies(first, second, truth),
        class_names=None if class_names is None else tuple(map(str, class_names)),
    )


def _check_inputs(x: Any, sides: Sequence[Any]) -> None:
    found = [tuple(v.shape[1:]) for v in (x.values() if isinstance(x, dict) else (x,))]
    for name, side in zip("ab", sides, strict=True):
        expected = side.input_shapes
        fits = len(found) == len(expected) and (isinstance(x, dict) or _fits(found[0], expected[0]))
        if not fits:
            shapes = ", ".join(map(str, expected))
            raise ValueError(
                f"`data` must have the shape {shapes} behind the batch, which `{name}` takes. "
                f"Received: {', '.join(map(str, found))}."
            )


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        size is None or size == found for found, size in zip(shape, expected, strict=True)
    )


def _check_outputs(outputs: Sequence[np.ndarray]) -> None:
    if outputs[0].shape != outputs[1].shape:
        raise ValueError(
            "`a` and `b` must have outputs of the same shape. "
            f"Received: {outputs[0].shape} and {outputs[1].shape}."
        )


def _chunks(x: Any, limit: int) -> Iterator[Any]:
    for start in range(0, min(limit, count_of(x)), _CHUNK):
        stop = min(start + _CHUNK, limit)
        if isinstance(x, dict):
            yield {name: values[start:stop] for name, values in x.items()}
        else:
            yield x[start:stop]


class _Sums:
    """What a difference is computed from, added up over batches."""

    def __init__(self) -> None:
        self._squares, self._of_a, self._of_b, self._product = 0.0, 0.0, 0.0, 0.0
        self._largest = 0.0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        x, y = a.ravel().astype("float64"), b.ravel().astype("float64")
        self._squares += float(np.sum((x - y) ** 2))
        self._of_a += float(x @ x)
        self._of_b += float(y @ y)
        self._product += float(x @ y)
        self._largest = max(self._largest, float(np.max(np.abs(x - y), initial=0.0)))

    def difference(self, name: str, other: str) -> LayerDifference:
        if not math.isfinite(self._squares):
            return LayerDifference(name, other, math.inf, math.inf, 0.0)
        base = self._of_a or self._of_b  # all zeros on one side: the other is wholly another
        relative = math.sqrt(self._squares / base) if base else 0.0
        both = math.sqrt(self._of_a * self._of_b)
        cosine = self._product / both if both else float(self._of_a == self._of_b)
        return LayerDifference(name, other, relative, self._largest, cosine)


class _Layers:
    """The layers of both sides, paired by the first batch."""

    def __init__(self, sides: Sequence[Any]) -> None:
        self._sides = sides
        self._pairs: list[tuple[int, int]] = []
        self._names: list[tuple[str, str]] = []
        self._sums: list[_Sums] = []
        self.count = 0

    def add(self, x: Any) -> None:
        a, b = (side.layers(x) for side in self._sides)
        if not self.count:
            self._pairs = match_points(
                *(self._points(m, s) for m, s in zip((a, b), self._sides, strict=True))
            )
            self._names = [(a[i].name, b[j].name) for i, j in self._pairs]
            self._sums = [_Sums() for _ in self._pairs]
        for (i, j), sums in zip(self._pairs, self._sums, strict=True):
            sums.add(a[i].values, b[j].values)
        self.count += count_of(x)

    def differences(self) -> tuple[LayerDifference, ...]:
        pairs = zip(self._names, self._sums, strict=True)
        return tuple(sums.difference(*names) for names, sums in pairs)

    def _points(self, made: Sequence[Made], side: Any) -> Points:
        sizes = [math.prod(each.values.shape[1:]) for each in made]
        return Points([each.name for each in made], sizes, side.is_file)


def _disagreements(
    a: np.ndarray, b: np.ndarray, truth: np.ndarray | None, photos: Sequence[str]
) -> tuple[Disagreement, ...]:
    classes = top_class(a), top_class(b)
    confidences = _confidence(a, classes[0]), _confidence(b, classes[1])
    return tuple(
        Disagreement(
            i,
            (int(classes[0][i]), int(classes[1][i])),
            (float(confidences[0][i]), float(confidences[1][i])),
            None if truth is None else int(truth[i]),
            photos[i] if photos else None,
        )
        for i in np.flatnonzero(classes[0] != classes[1]).tolist()
    )


def _confidence(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the probability of the chosen classes; logits go through softmax or sigmoid."""
    flat = outputs.reshape(len(outputs), -1).astype("float64")
    in_range = bool(np.all((flat >= 0.0) & (flat <= 1.0)))
    if flat.shape[1] == 1:
        p = flat[:, 0] if in_range else 1.0 / (1.0 + np.exp(-flat[:, 0]))
        return np.where(classes == 1, p, 1.0 - p)
    # An int8 softmax rounds each class by up to half of 1/256.
    off = np.abs(flat.sum(axis=1) - 1.0).max()
    if not (in_range and off <= 0.01 + flat.shape[1] / 512):
        powers = np.exp(flat - flat.max(axis=1, keepdims=True))
        flat = powers / powers.sum(axis=1, keepdims=True)
    chosen: np.ndarray = flat[np.arange(len(flat)), classes]
    return chosen


def _accuracies(
    a: np.ndarray, b: np.ndarray, truth: np.ndarray | None
) -> tuple[float, float] | None:
    if truth is None:
        return None
    return float(np.mean(top_class(a) == truth)), float(np.mean(top_class(b) == truth))
