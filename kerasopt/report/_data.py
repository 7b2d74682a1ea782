"""What a report is made from. Everything is checked here, before a page is begun."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasopt._events import Event
from kerasopt._validation import check_choice, check_int, check_number
from kerasopt.report._environment import environment
from kerasopt.report._metrics import check_labels
from kerasopt.report._pictures import check_picture

_DTYPES = ("uint8", "float32")
FILE_KINDS = ("float32", "float16", "dynamic", "int8")


@dataclass(frozen=True, eq=False)
class Mistake:
    """A test photo that the shipped file got wrong.

    Args:
        image: uint8 array of shape `(height, width, 1 or 3)`.
        actual: Name of the true class.
        predicted: Name of the predicted class.
        confidence: Float in [0, 1], probability the file gave to `predicted`.

    Raises:
        TypeError: The image is not a uint8 array.
        ValueError: The image has another shape, or the confidence is outside [0, 1].
    """

    image: np.ndarray
    actual: str
    predicted: str
    confidence: float

    def __post_init__(self) -> None:
        check_picture("image", self.image)
        check_number("confidence", float(self.confidence), low=0.0, high=1.0)


@dataclass(frozen=True, eq=False)
class Flip:
    """A test photo that compression made wrong, or right: lost or won.

    Args:
        image: uint8 array of shape `(height, width, 1 or 3)`.
        actual: Name of the true class.
        before: Name of the class that the float32 Keras model named.
        after: Name of the class that the shipped file named.
        confidence: Float in [0, 1], probability the file gave to `after`.

    Raises:
        TypeError: The image is not a uint8 array.
        ValueError: The image has another shape, the confidence is outside [0, 1], or not exactly
            one of both named the true class.
    """

    image: np.ndarray
    actual: str
    before: str
    after: str
    confidence: float

    def __post_init__(self) -> None:
        check_picture("image", self.image)
        check_number("confidence", float(self.confidence), low=0.0, high=1.0)
        if (self.before == self.actual) == (self.after == self.actual):
            raise ValueError(
                "Exactly one of `before` and `after` must be the true class. Received: "
                f"actual={self.actual!r}, before={self.before!r}, after={self.after!r}. "
                "Photos that stayed right or wrong are no flips."
            )

    @property
    def is_lost(self) -> bool:
        """Whether the model was right and the file is wrong; the reverse is won."""
        return self.before == self.actual


@dataclass(frozen=True)
class FileRow:
    """One file of the run, shipped or made for comparison.

    Args:
        name: File name, such as `"model.tflite"`.
        kind: `"float32"`, `"float16"`, `"dynamic"` or `"int8"`.
        size: Int >= 0, bytes.
        gzip_size: Int >= 0, bytes after gzip.
        accuracy: Float in [0, 1] of the file on the test split, or `None` when not measured.
        keras_accuracy: The same for the Keras model the file was made from.
        agreement: Float in [0, 1], fraction of inputs on which both name the same class, or
            `None`.
        milliseconds: Median milliseconds per image by number of threads.
        shipped: Whether this is the file the run ships. Defaults to `False`.

    Raises:
        TypeError: A size is not an int.
        ValueError: A value is outside its range, or the kind is unknown.
    """

    name: str
    kind: str
    size: int
    gzip_size: int
    accuracy: float | None
    keras_accuracy: float | None
    agreement: float | None
    milliseconds: dict[int, float] = field(default_factory=dict)
    shipped: bool = False

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, FILE_KINDS)
        check_int("size", self.size, low=0)
        check_int("gzip_size", self.gzip_size, low=0)
        for name in ("accuracy", "keras_accuracy", "agreement"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, float(value), low=0.0, high=1.0)
        for threads, value in self.milliseconds.items():
            check_int("milliseconds key", threads, low=1)
            check_number(f"milliseconds[{threads}]", float(value), low=0.0)


@dataclass(frozen=True)
class Signature:
    """What the shipped file takes and gives, for the code that loads it.

    The file takes one photo of raw pixels, 0-255, and gives one number for each class.

    Args:
        input_shape: Ints `(height, width, channels)`, each >= 1; channels 1 (grey) or 3 (RGB).
        input_dtype: `"uint8"` or `"float32"`.
        output_dtype: `"uint8"` or `"float32"`.
        output_scale: Float > 0, what one step of a uint8 output stands for. Defaults to 1.
        output_zero_point: Int in [0, 255], the uint8 output that stands for 0. Defaults to 0.
        logits: Whether a softmax must still make probabilities of the outputs. Defaults to `True`.

    Raises:
        TypeError: A size or the zero point is not an int.
        ValueError: A value is outside its range, or a dtype is another one.
    """

    input_shape: tuple[int, int, int]
    input_dtype: str
    output_dtype: str
    output_scale: float = 1.0
    output_zero_point: int = 0
    logits: bool = True

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or self.input_shape[2] not in (1, 3):
            raise ValueError(
                "`input_shape` must be (height, width, channels) with 1 or 3 channels. "
                f"Received: input_shape={self.input_shape!r}. Leave the batch out."
            )
        for index, size in enumerate(self.input_shape):
            check_int(f"input_shape[{index}]", size, low=1)
        check_choice("input_dtype", self.input_dtype, _DTYPES)
        check_choice("output_dtype", self.output_dtype, _DTYPES)
        check_number("output_scale", float(self.output_scale), low=0.0, low_open=True)
        check_int("output_zero_point", self.output_zero_point, low=0, high=255)


@dataclass(frozen=True, eq=False)
class RunReport:
    """Everything that one page tells.

    Args:
        title: Heading of the page.
        summary: What was done, one sentence each.
        settings: What the run was started with: backbone, epochs, image size, ...
        class_names: Names in the order of the class indices, at least one.
        counts: Number of photos as `{split: {class name: number}}`.
        history: `History.history` of Keras: metric name to one float per epoch. NaN is allowed
            and leaves a gap in its curve.
        events: Moments to mark in the curves.
        augmented: One array per row of the grid, uint8 of shape
            `(count, height, width, 1 or 3)`; the original first, then augmented versions of it.
        labels: Integer array of shape `(n,)`, true classes of the test split.
        predictions: Integer array of shape `(n,)`, classes the shipped file named.
        confidences: Float array of shape `(n,)` in [0, 1], probabilities of these.
        mistakes: Pictures of wrong answers, worst first.
        files: The files, in the order of the table; at most one is shipped.
        layers: Rows of the layer table; dicts with `name`, `kind`, `parameters`, `zeros`,
            `distinct`, `bytes`, and `kernel_parameters` (of which `zeros` is a part; all
            `parameters` by default), `layer` (the Keras layer it belongs to) and `error` (relative
            error beside the float Keras model, >= 0), of which any may be missing. Defaults to
            none.
        notes: What a reader must know, such as operations that stayed float and why.
        environment: Versions and processor. Defaults to those of this machine.
        keras_predictions: Integer array of shape `(n,)`, classes the float32 Keras model named;
            with it the page tells what compression lost and won. Defaults to `None`, not known.
        flips: Pictures of photos that compression made wrong or right, most telling first.
            Defaults to none.
        signature: What the shipped file takes and gives; with it the page has code that loads the
            file. Defaults to `None`, no code.

    Raises:
        TypeError: Labels or predictions are not integers, or pictures are not uint8.
        ValueError: Lengths differ, a class is outside `class_names`, a value outside its range,
            or more than one file is shipped.
    """

    title: str
    summary: tuple[str, ...]
    settings: dict[str, str]
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    history: dict[str, list[float]]
    events: tuple[Event, ...]
    augmented: tuple[np.ndarray, ...]
    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    mistakes: tuple[Mistake, ...]
    files: tuple[FileRow, ...]
    layers: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=environment)
    keras_predictions: np.ndarray | None = None
    flips: tuple[Flip, ...] = ()
    signature: Signature | None = None

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError(
                "`class_names` must name at least one class. "
                f"Received: class_names={self.class_names!r}. Pass them in index order."
            )
        _check_answers(self)
        _check_layers(self.layers)
        for index, row in enumerate(self.augmented):
            check_picture(f"augmented[{index}]", row, ndim=4)
        shipped = [row.name for row in self.files if row.shipped]
        if len(shipped) > 1:
            raise ValueError(
                "`files` must have at most one shipped file. "
                f"Received: shipped={shipped}. Set `shipped=True` on one of them."
            )
        if self.signature is not None and not shipped:
            raise ValueError(
                "`signature` must be that of a shipped file. Received: a signature, and no file "
                "with shipped=True. Set `shipped=True` on the file it belongs to."
            )


def _check_answers(report: RunReport) -> None:
    count = len(report.class_names)
    check_labels("labels", report.labels, count)
    check_labels("predictions", report.predictions, count)
    confidences = np.asarray(report.confidences)
    lengths = [np.size(report.labels), np.size(report.predictions), confidences.size]
    if report.keras_predictions is not None:
        check_labels("keras_predictions", report.keras_predictions, count)
        lengths.append(np.size(report.keras_predictions))
    if len(set(lengths)) > 1:
        raise ValueError(
            "`labels`, `predictions`, `confidences` and, where they are given, `keras_predictions` "
            "must have the same length. "
            f"Received: lengths={lengths}. Pass one value of each for every test photo."
        )
    for value in (confidences.min(), confidences.max()) if confidences.size else ():
        if not (math.isfinite(value) and -1e-6 <= value <= 1 + 1e-6):
            raise ValueError(
                "`confidences` must be probabilities in [0, 1]. "
                f"Received: {float(value):.4g} in confidences. Apply a softmax to the logits."
            )


def _check_layers(layers: tuple[dict[str, Any], ...]) -> None:
    for index, layer in enumerate(layers):
        error = layer.get("error")
        if error is not None and not (isinstance(error, int | float) and error >= 0):
            raise ValueError(
                f"`error` of layers[{index}] must be a number >= 0, or None. "
                f"Received: error={error!r}. Pass a relative error of ko.profiling.diff."
            )
