"""Which metadata a file gets, and whether they are true of it."""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt._data import batches
from kerasopt.export._convert import output_names
from kerasopt.export._metadata import Metadata, write_tables
from kerasopt.export._metadata_file import attach
from kerasopt.export._probabilities import ends_in_probabilities

_TIMES = 10
"""How much wider the range of one data set is than of another that is not of its kind."""
_RAW = "pixels from 0 to 255"
_PROBABILITIES = "Probabilities of the classes, 0 to 1."
_SCORES = "A score for each class: the highest is the most likely one. These are no probabilities."


class Observed:
    """The range of all inputs that pass through; inputs and labels are checked.

    Args:
        model: that takes the inputs.
        name: of the argument that gives them, for errors.

    Attributes:
        low: smallest value.
        high: largest value.
        first: inputs of the first batch.
    """

    def __init__(self, model: Any, name: str = "verify") -> None:
        self.low, self.high = np.inf, -np.inf
        self.first: Any = None
        self._model, self._name = model, name
        self._classes = _classes_of(model)

    def watch(self, data: Any) -> Iterator[Any]:
        """Yields the batches of data, and remembers their smallest and largest value.

        Raises:
            ValueError: inputs are not those of the model, or labels not its classes.
        """
        several = len(self._model.outputs) > 1
        for x, y in batches(data, name=self._name, several_labels=several):
            inputs_by_name(x, self._model, self._name)
            if self.first is None:
                self.first = x
            if isinstance(x, np.ndarray) and x.size:
                self.low = min(self.low, float(x.min()))
                self.high = max(self.high, float(x.max()))
            self._check_labels(y)
            yield x, y

    def _check_labels(self, labels: Any) -> None:
        if self._classes is None or labels is None or not len(labels):
            return
        one_hot = labels.ndim == 2 and labels.shape[-1] > 1
        top = labels.shape[-1] - 1 if one_hot else int(labels.max())
        low = 0 if one_hot else int(labels.min())
        if low < 0 or top >= max(2, self._classes) or (one_hot and top != self._classes - 1):
            raise ValueError(
                f"`{self._name}` must have labels for the {self._classes} outputs of the model, "
                f"0 to {max(2, self._classes) - 1}. Received: labels from {low} to {top}. "
                "The classes of the data are not those of the model."
            )


def _classes_of(model: Any) -> int | None:
    """Returns how many classes the outputs name, `None` where labels mean something else.

    A single output that is no probability may be any number that is predicted.
    """
    shape = model.outputs[0].shape
    if len(model.outputs) > 1 or len(shape) != 2:
        return None
    return int(shape[-1]) if shape[-1] > 1 or ends_in_probabilities(model) else None


def inputs_by_name(x: Any, model: Any, argument: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a batch by the names of the inputs, after checking them.

    Raises:
        ValueError: they are not the inputs of the model, or not finite.
    """
    names = [tensor.name for tensor in model.inputs]
    if not isinstance(x, dict):
        if len(names) > 1:
            raise ValueError(
                f"`{argument}` must give each of several inputs by name: "
                f"{', '.join(map(repr, names))}. Received: a batch of type {type(x).__name__}."
            )
        x = {names[0]: x}
    if set(x) != set(names):
        raise ValueError(
            f"`{argument}` must have the inputs {', '.join(map(repr, names))}. "
            f"Received: {', '.join(map(repr, x))}."
        )
    for tensor in model.inputs:
        array, expected = x[tensor.name], tuple(tensor.shape[1:])
        kinds = "OSU" if tensor.dtype == "string" else "biuf"
        # Half precision of TensorFlow is of a kind that NumPy does not know.
        real = array.dtype.kind in kinds or array.dtype.name == "bfloat16"
        if array.shape[1:] != expected or not real:
            raise ValueError(
                f"`{argument}` must have the shape (batch, "
                f"{', '.join(map(str, expected))}) and be numbers. "
                f"Received: shape {array.shape} of {array.dtype}."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"`{argument}` must be finite. Received: NaN or infinity.")
    return x


def plan_metadata(metadata: Any, labels: Any, model: Any) -> Metadata | None:
    """Returns the metadata to write, complete, or `None`.

    Raises:
        TypeError: `metadata` is neither a `Metadata` nor a bool.
        ValueError: the labels are said twice and differ, or numbers do not fit the model.
    """
    if metadata is None:
        metadata = labels is not None
    if metadata is False:
        return None
    if metadata is True:
        metadata = Metadata()
    if not isinstance(metadata, Metadata):
        raise TypeError(
            "`metadata` must be a Metadata, True, False or None. "
            f"Received: {type(metadata).__name__}."
        )
    if None not in (labels, metadata.labels) and tuple(labels) != metadata.labels:
        raise ValueError(
            "`labels` must be said once, in `labels` or in `metadata`. "
            f"Received: labels={labels!r}, metadata.labels={metadata.labels!r}."
        )
    channels = image_channels(model)
    planned = dataclasses.replace(
        metadata,
        name=metadata.name or model.name,
        labels=labels if labels is not None else metadata.labels,
        mean=_filled("mean", metadata.mean, 0.0, channels),
        std=_filled("std", metadata.std, 1.0, channels),
    )
    _check_calibration(planned, model)
    return planned


def image_channels(model: Any) -> int | None:
    """Returns the channels of a model of images; `None` if its first input is none."""
    shape = tuple(model.inputs[0].shape)
    return shape[-1] if len(shape) == 4 and shape[-1] in (1, 3) else None


def describe_file(content: bytes, metadata: Metadata, model: Any, lite: Any) -> bytes:
    """Returns the file with its metadata in it.

    Raises:
        ValueError: an app that hands over bytes as the metadata say would hand over wrong ones.
    """
    channels = image_channels(model)
    if channels is not None and lite.input_dtype == "uint8":
        _check_bytes(metadata, *lite.input_quantization)
    tables, files = write_tables(
        metadata,
        inputs=[tensor.name for tensor in model.inputs],
        outputs=output_names(model),
        channels=channels,
        output_description=_PROBABILITIES if ends_in_probabilities(model) else _SCORES,
    )
    return attach(content, tables, files)


def check_range(metadata: Metadata | None, data: Observed, name: str) -> None:
    """Checks that data can be what pixels become by the normalization in the metadata.

    Raises:
        ValueError: they reach outside of it, or leave most of it empty.
    """
    pixels, low, high = pixel_range(metadata), data.low, data.high
    if metadata is None or pixels is None or not np.isfinite(low):
        return
    black, white = pixels
    margin, third = 0.02 * (white - black), (white - black) / 3
    inside = low >= black - margin and high <= white + margin
    # Some pixel of many photos is dark, and some one is not.
    if inside and low <= black + third and high - low >= third:
        return
    raise ValueError(
        f"`metadata` must say how {_RAW} become the model's inputs: with "
        f"mean={metadata.mean!r} and std={metadata.std!r} they are {black:.4g} to {white:.4g}. "
        f"Received: `{name}` from {low:.4g} to {high:.4g}. Pass metadata=Metadata(mean=..., "
        "std=...): 0 and 255 for a model that takes 0 to 1, 127.5 and 127.5 for −1 to 1; or "
        "metadata=False for a file without."
    )


def warn_of_other_range(ranges: Observed, data: Observed) -> None:
    """Warns when data are of another order of magnitude than those that ranges come from."""
    spans = [each.high - each.low for each in (ranges, data)]
    if not np.isfinite(spans).all() or min(spans) * _TIMES > max(spans):
        return
    warnings.warn(
        "`representative_data` and `verify` should be data of one kind. Received: "
        f"`representative_data` from {ranges.low:.4g} to {ranges.high:.4g} and `verify` from "
        f"{data.low:.4g} to {data.high:.4g}. Scale both as the model takes them.",
        UserWarning,
        stacklevel=4,
    )


def pixel_range(metadata: Metadata | None) -> tuple[float, float] | None:
    """Returns what a black and a white pixel become, the widest of the channels."""
    pairs = () if metadata is None else metadata.normalization
    if not pairs:
        return None
    return min((0.0 - m) / s for m, s in pairs), max((255.0 - m) / s for m, s in pairs)


def _filled(name: str, value: Any, default: float, channels: int | None) -> Any:
    if channels is None:
        return None
    if isinstance(value, tuple) and len(value) != channels:
        raise ValueError(
            f"`{name}` must be one number, or {channels}, one for each channel. "
            f"Received: {name}={value!r}."
        )
    if value is None:
        return default
    return value


def _check_calibration(metadata: Metadata, model: Any) -> None:
    lines, classes = metadata.score_calibration, model.outputs[0].shape[-1]
    if lines is not None and len(lines) != classes:
        raise ValueError(
            f"`score_calibration` must have a line for each of the {classes} outputs. "
            f"Received: {len(lines)} lines."
        )


def _check_bytes(metadata: Metadata, scale: float, zero: int) -> None:
    """An app hands over the bytes of its bitmap, and normalizes nothing.

    An input that is bytes in Keras too has no scale: a byte stands for itself.
    """
    scale = scale or 1.0
    pairs = metadata.normalization
    taken = [(-zero * scale, (255 - zero) * scale) for _ in pairs]
    meant = [(-m / s, (255.0 - m) / s) for m, s in pairs]
    if np.allclose(taken, meant, rtol=0.01, atol=1.01 * scale):
        return
    raise ValueError(
        "`metadata` must be true of a uint8 input, where a byte is a pixel: "
        f"mean={metadata.mean!r} and std={metadata.std!r} make the range {meant[0][0]:.4g} to "
        f"{meant[0][1]:.4g}. Received: a file whose bytes stand for {taken[0][0]:.4g} to "
        f"{taken[0][1]:.4g}. Scale inside the model, or pass input_dtype='float32'."
    )
