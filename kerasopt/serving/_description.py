"""What the page must know of a file: read here, once, from the file itself."""

import dataclasses
import os
import pathlib
from typing import Any

from kerasopt.export import Metadata, TFLiteModel, TFLiteTensor, read_metadata

_MODEL, _LABELS = "model.tflite", "labels.txt"
_OUTER = ("DEQUANTIZE", "QUANTIZE")
"""Operators behind the last one that computes."""


@dataclasses.dataclass(frozen=True)
class Description:
    """A classifier of photos, as the page knows it.

    Attributes:
        title: name of the model.
        file: name of the file.
        size: bytes of the file.
        height: of the input, pixels.
        width: likewise.
        channels: 3 for RGB, 1 for grey.
        input_dtype: `"uint8"` or `"float32"`.
        mean: taken from each pixel of a float input, one number for each channel.
        std: what is then divided by, likewise.
        output_dtype: `"uint8"` or `"float32"`.
        scale: what one step of a uint8 output stands for.
        zero_point: the integer that stands for 0.
        labels: class names in the order of the outputs.
        named: whether they were found, and are not just numbers.
        activation: what makes probabilities of the outputs: `"none"`, `"softmax"`, `"sigmoid"`,
            or `"calibration"`.
        calibration: for each class `(scale, slope, offset[, min_score])` or `()`.
        transformation: of the calibration: `"identity"`, `"log"` or `"inverse_logistic"`.
    """

    title: str
    file: str
    size: int
    height: int
    width: int
    channels: int
    input_dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output_dtype: str
    scale: float
    zero_point: int
    labels: tuple[str, ...]
    named: bool
    activation: str
    calibration: tuple[tuple[float, ...], ...]
    transformation: str


def find_file(run: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the TFLite file of a run: the folder of a run, or the file itself.

    Raises:
        ValueError: there is none.
    """
    path = pathlib.Path(run)
    file = path / _MODEL if path.is_dir() else path
    if not file.is_file() or file.suffix != ".tflite":
        raise ValueError(
            f"`run` must be a .tflite file, or the folder of a run with {_MODEL} in it. "
            f"Received: run={str(path)!r}. Export a model with ko.export.to_tflite first."
        )
    return file


def describe(file: pathlib.Path) -> tuple[Description, bytes]:
    """Loads a file once and returns what the page must know of it, and its bytes.

    Raises:
        ValueError: it is not a TFLite file, or no classifier of photos that LiteRT.js runs.
    """
    lite = TFLiteModel(file)
    try:
        taken, given = lite.inputs, lite.outputs
        operators, content = lite.operators, lite.content
    finally:
        lite.close()
    _check(taken, given)
    shape, output = taken[0].shape, given[0]
    metadata = read_metadata(content) or Metadata()
    classes = int(output.shape[-1] or 1)
    labels = _labels(metadata, file, classes)
    mean, std = _normalization(metadata, channels := int(shape[3] or 1))
    calibration = tuple(tuple(line) for line in metadata.score_calibration or ())
    described = Description(
        title=metadata.name or (file.parent.name if file.name == _MODEL else file.stem),
        file=file.name,
        size=len(content),
        height=int(shape[1] or 0),
        width=int(shape[2] or 0),
        channels=channels,
        input_dtype=taken[0].dtype,
        mean=mean,
        std=std,
        output_dtype=output.dtype,
        scale=output.scale,
        zero_point=output.zero_point,
        labels=labels or tuple(f"class {index}" for index in range(classes)),
        named=bool(labels),
        activation="calibration" if calibration else _activation(operators, classes),
        calibration=calibration,
        transformation=metadata.score_transformation,
    )
    return described, content


def to_json(described: Description) -> dict[str, Any]:
    """Returns everything in values that JSON holds."""
    return dataclasses.asdict(described)


def _check(taken: tuple[TFLiteTensor, ...], given: tuple[TFLiteTensor, ...]) -> None:
    shape, output = taken[0].shape, given[0].shape
    photos = len(shape) == 4 and shape[0] in (None, 1) and shape[3] in (1, 3)
    if len(taken) > 1 or len(given) > 1 or not photos or len(output) != 2:
        raise ValueError(
            "`run` must hold a classifier of photos: one input of shape (1, height, width, 3) or "
            "(1, height, width, 1), one output of shape (1, classes). Received: inputs "
            f"{[t.shape for t in taken]}, outputs {[t.shape for t in given]}. "
            "Export it with batch_size=1 and one output."
        )
    for name, tensor in (("input_dtype", taken[0]), ("output_dtype", given[0])):
        if tensor.dtype not in ("uint8", "float32"):
            raise ValueError(
                "`run` must take and give uint8 or float32, which is what LiteRT.js can pass. "
                f"Received: {name}={tensor.dtype!r}. Export it with {name}='uint8'."
            )


def _labels(metadata: Metadata, file: pathlib.Path, classes: int) -> tuple[str, ...]:
    """Returns the class names: of the file, else of the labels beside it, else none."""
    names: list[str] = list(metadata.labels or ())
    for beside in (file.with_suffix(".labels.txt"), file.with_name(_LABELS)):
        if not names and beside.is_file():
            names = [line for line in beside.read_text(encoding="utf-8").splitlines() if line]
    if names and len(names) != classes:
        raise ValueError(
            "`run` must have a class name for each output. "
            f"Received: {len(names)} names, {classes} outputs. Put the right labels into the file: "
            "to_tflite(..., labels=[...])."
        )
    return tuple(names)


def _normalization(
    metadata: Metadata, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation for each channel: raw pixels where the file says nothing."""
    pairs = metadata.normalization or ((0.0, 1.0),)
    pairs = pairs * channels if len(pairs) == 1 else pairs
    if len(pairs) != channels:
        raise ValueError(
            "`run` must have a normalization for each channel of its input. "
            f"Received: {len(pairs)} in the metadata, {channels} channels."
        )
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _activation(operators: tuple[str, ...], classes: int) -> str:
    """Returns what is still to be done to the outputs, by the operator that made them."""
    last = next((name for name in reversed(operators) if name not in _OUTER), "")
    if last in ("SOFTMAX", "LOGISTIC"):
        return "none"
    return "sigmoid" if classes == 1 else "softmax"
