"""`Metadata`: what a TFLite file says of itself, so that an app need not be told."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

from kerasopt._validation import check_choice
from kerasopt.export._metadata_file import Described, damaged, read_described
from kerasopt.export._metadata_tables import (
    Byte,
    Fields,
    File,
    Float,
    Model,
    Reader,
    Subgraph,
    Tensor,
    Union,
    pack,
)

LABELS_FILE, CALIBRATION_FILE = "labels.txt", "score_calibration.txt"
_TRANSFORMATIONS = ("identity", "log", "inverse_logistic")
_TEXTS = ("name", "description", "version", "author", "license")
_PARSER = "1.0.0"
"""The first version of the schema; nothing that is written here came later."""

PerChannel = float | Sequence[float]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a TFLite file says of itself: TFLite Metadata, which MediaPipe Tasks reads.

    An input is `(pixel − mean) / std` for a pixel in 0–255. A calibrated score is
    `scale / (1 + exp(−(slope · g(x) + offset)))`, where `g` is the transformation; a class whose
    score stays under `min_score`, or that has no numbers at all, scores 0.

    Args:
        name: of the model. Default: the name of the Keras model.
        description: a sentence or two.
        version: of the model.
        author: who made it.
        license: its licence, in words or as an identifier such as `"Apache-2.0"`.
        mean: what is taken from each pixel, one number or one per channel. `None` for a model of
            images is 0.
        std: what is then divided by, > 0, likewise. `None` for a model of images is 1: the model
            takes raw pixels.
        labels: class names in the order of the outputs.
        score_calibration: for each class `(scale, slope, offset)`, `(scale, slope, offset,
            min_score)` or `()`. `None` leaves scores as the model gives them.
        score_transformation: `"identity"`, `"log"` or `"inverse_logistic"`, `g` above.

    Raises:
        TypeError: a text is not text.
        ValueError: a number is not finite, `std` is not positive, a label is empty or has a line
            break, or a line of the calibration has a wrong length.

    Example:
        >>> Metadata(name="flowers", license="Apache-2.0", labels=["daisy", "tulip"]).labels
        ('daisy', 'tulip')
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    mean: PerChannel | None = None
    std: PerChannel | None = None
    labels: Sequence[str] | None = None
    score_calibration: Sequence[Sequence[float]] | None = None
    score_transformation: str = "identity"

    def __post_init__(self) -> None:
        for field in _TEXTS:
            value = getattr(self, field)
            if not isinstance(value, str):
                raise TypeError(f"`{field}` must be text. Received: {field}={value!r}.")
        self._set("mean", _numbers("mean", self.mean, low=-math.inf))
        self._set("std", _numbers("std", self.std, low=0.0))
        lengths = {len(x) for x in (_tuple(self.mean), _tuple(self.std)) if len(x) > 1}
        if len(lengths) > 1:
            raise ValueError(
                "`mean` and `std` must have as many numbers as each other, or one. "
                f"Received: mean={self.mean!r}, std={self.std!r}."
            )
        self._set("labels", None if self.labels is None else check_names(self.labels))
        check_choice("score_transformation", self.score_transformation, _TRANSFORMATIONS)
        if self.score_calibration is not None:
            self._set("score_calibration", _check_calibration(self.score_calibration))

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)  # tuples from lists, once, in a frozen class

    @property
    def normalization(self) -> tuple[tuple[float, float], ...]:
        """`(mean, std)` of each channel, or one pair for all; () where it is not known."""
        mean, std = _tuple(self.mean), _tuple(self.std)
        if not mean or not std:
            return ()
        count = max(len(mean), len(std))
        return tuple(zip(_spread(mean, count), _spread(std, count), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields in values that JSON holds."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def read_metadata(path_or_bytes: str | os.PathLike[str] | bytes) -> Metadata | None:
    """Reads the metadata of a TFLite file; the file is not run.

    Args:
        path_or_bytes: path of a `.tflite` file, or its content.

    Returns:
        The `Metadata`, labels included, or `None` when the file has none. Several label files are
        told apart by their languages; the first one counts.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: the argument is neither a path nor bytes.
        ValueError: it is not a TFLite file, or its metadata are damaged.

    Example:
        >>> import keras
        >>> from kerasopt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> read_metadata(to_tflite(model, labels=["cat", "dog"]).content).labels
        ('cat', 'dog')
    """
    described = read_described(path_or_bytes)
    if described is None:
        return None
    with damaged():
        return _read(described)


def _read(described: Described) -> Metadata:
    model = Reader.root(described.metadata)
    graphs = model.children(Model.SUBGRAPHS)
    inputs = graphs[0].children(Subgraph.INPUTS) if graphs else ()
    outputs = graphs[0].children(Subgraph.OUTPUTS) if graphs else ()
    normalization = _unit(inputs, Union.NORMALIZATION)
    calibration = _unit(outputs, Union.CALIBRATION)
    labels = _file(outputs, File.AXIS_LABELS, described)
    lines = None if calibration is None else _file(outputs, File.SCORE_CALIBRATION, described)
    return Metadata(
        name=model.text(Model.NAME),
        description=model.text(Model.DESCRIPTION),
        version=model.text(Model.VERSION),
        author=model.text(Model.AUTHOR),
        license=model.text(Model.LICENSE),
        mean=None if normalization is None else _one_or_all(normalization.numbers(0)),
        std=None if normalization is None else _one_or_all(normalization.numbers(1)),
        labels=None if labels is None else [line for line in labels if line],
        score_calibration=None
        if lines is None
        else [[float(part) for part in line.split(",") if part.strip()] for line in lines],
        score_transformation=_TRANSFORMATIONS[0 if calibration is None else calibration.byte(0)],
    )


def _unit(tensors: Sequence[Reader], kind: int) -> Reader | None:
    for tensor in tensors:
        for unit in tensor.children(Tensor.PROCESS_UNITS):
            if unit.byte(Union.TYPE) == kind:
                return unit.child(Union.VALUE)
    return None


def _file(tensors: Sequence[Reader], kind: int, described: Described) -> list[str] | None:
    for tensor in tensors:
        for file in tensor.children(Tensor.FILES):
            if file.byte(File.TYPE) == kind:
                return (
                    described.read(file.text(File.NAME))
                    .decode("utf-8")
                    .replace("\r", "")
                    .split("\n")
                )
    return None


def write_tables(
    metadata: Metadata,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    channels: int | None,
    output_description: str,
) -> tuple[bytes, dict[str, bytes]]:
    """Returns the flatbuffer of the metadata, and the files that go with it.

    Args:
        metadata: what is said.
        inputs: names of the inputs; the first one is the image.
        outputs: names of the outputs; the first one has the classes.
        channels: 1 or 3 for a model of images, else `None`.
        output_description: what the first output is.
    """
    files: dict[str, bytes] = {}
    first = {
        **_tensor(outputs[0], output_description),
        Tensor.FILES: _output_files(metadata, files),
        Tensor.PROCESS_UNITS: _calibration(metadata),
    }
    image = _tensor(inputs[0], "") if channels is None else _image(metadata, inputs[0], channels)
    graph: Fields = {
        Subgraph.INPUTS: [image, *(_tensor(name, "") for name in inputs[1:])],
        Subgraph.OUTPUTS: [first, *(_tensor(name, "") for name in outputs[1:])],
    }
    model: Fields = {
        Model.NAME: metadata.name,
        Model.DESCRIPTION: metadata.description or None,
        Model.VERSION: metadata.version or None,
        Model.SUBGRAPHS: [graph],
        Model.AUTHOR: metadata.author or None,
        Model.LICENSE: metadata.license or None,
        Model.MIN_PARSER_VERSION: _PARSER,
    }
    return pack(model), files


def _tensor(name: str, description: str) -> Fields:
    content = {Union.TYPE: Byte(Union.FEATURE), Union.VALUE: {}}
    return {
        Tensor.NAME: name,
        Tensor.DESCRIPTION: description or None,
        Tensor.CONTENT: content,
    }


def _image(metadata: Metadata, name: str, channels: int) -> Fields:
    colour = Byte(1 if channels == 3 else 2)  # RGB or GRAYSCALE
    pairs = metadata.normalization
    return {
        Tensor.NAME: name,
        Tensor.DESCRIPTION: "The image to classify, pixels 0 to 255 before normalization.",
        Tensor.CONTENT: {Union.TYPE: Byte(Union.IMAGE), Union.VALUE: {0: colour}},
        Tensor.PROCESS_UNITS: [
            {
                Union.TYPE: Byte(Union.NORMALIZATION),
                Union.VALUE: {0: [m for m, _ in pairs], 1: [s for _, s in pairs]},
            }
        ],
        Tensor.STATS: {
            0: [(255.0 - m) / s for m, s in pairs],
            1: [(0.0 - m) / s for m, s in pairs],
        },
    }


def _output_files(metadata: Metadata, files: dict[str, bytes]) -> list[Fields] | None:
    entries: list[Fields] = []
    if metadata.labels is not None:
        files[LABELS_FILE] = "\n".join(metadata.labels).encode()
        entries.append(
            {
                File.NAME: LABELS_FILE,
                File.DESCRIPTION: "Names of the classes, in the order of the outputs.",
                File.TYPE: Byte(File.AXIS_LABELS),
            }
        )
    if metadata.score_calibration is not None:
        lines = (",".join(f"{x:.9g}" for x in line) for line in metadata.score_calibration)
        files[CALIBRATION_FILE] = "\n".join(lines).encode()
        entries.append(
            {
                File.NAME: CALIBRATION_FILE,
                File.DESCRIPTION: "Sigmoid calibration of the scores, a line for each class.",
                File.TYPE: Byte(File.SCORE_CALIBRATION),
            }
        )
    return entries or None


def _calibration(metadata: Metadata) -> list[Fields] | None:
    if metadata.score_calibration is None:
        return None
    transformation = Byte(_TRANSFORMATIONS.index(metadata.score_transformation))
    options = {0: transformation, 1: Float(0.0)}
    return [{Union.TYPE: Byte(Union.CALIBRATION), Union.VALUE: options}]


def check_names(labels: Any) -> tuple[str, ...]:
    """Returns class names as a tuple, after checking that each fits on a line of its own."""
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    wrong = [n for n in names if not isinstance(n, str) or not n.strip() or len(n.splitlines()) > 1]
    if isinstance(labels, str) or wrong:
        raise ValueError(
            "`labels` must be a list of class names, each some text on one line. "
            f"Received: {wrong[:3] or names!r}."
        )
    return names


def _check_calibration(lines: Any) -> tuple[tuple[float, ...], ...]:
    checked = tuple(tuple(float(x) for x in line) for line in lines)
    for line in checked:
        negative = bool(line) and line[0] < 0.0
        if len(line) not in (0, 3, 4) or negative or not all(map(math.isfinite, line)):
            raise ValueError(
                "`score_calibration` must have (scale, slope, offset), (scale, slope, offset, "
                "min_score) or () for each class, finite and the scale not negative. "
                f"Received: {line!r} among them."
            )
    return checked


def _numbers(name: str, value: Any, *, low: float) -> Any:
    if value is None:
        return None
    numbers = (value,) if isinstance(value, int | float) else tuple(value)
    fits = all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and x > low
        for x in numbers
    )
    if not numbers or not fits:
        kind = "a positive number" if low == 0.0 else "a finite number"
        raise ValueError(
            f"`{name}` must be {kind}, or one for each channel. Received: {name}={value!r}."
        )
    return float(value) if isinstance(value, int | float) else tuple(float(x) for x in numbers)


def _tuple(value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, float) else tuple(value)


def _spread(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values * count if len(values) == 1 else values


def _one_or_all(values: tuple[float, ...]) -> Any:
    return (values[0] if len(values) == 1 else values) if values else None
