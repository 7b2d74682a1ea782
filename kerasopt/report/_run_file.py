"""The `metrics.json` of a run, read and checked: anyone may have written it."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from kerasopt.report._data import FILE_KINDS, FileRow

_METRICS = "metrics.json"
_LARGEST = 64 * 2**20  # bytes; those of a run have some ten thousand


@dataclass(frozen=True)
class Run:
    """What a comparison tells of one run.

    Attributes:
        path: of its `metrics.json`.
        settings: what it was started with.
        class_names: in the order of the outputs.
        keras_accuracy: of the float32 Keras model on the test split, 0-1, or `None`.
        sparsity: fraction of zeros in the kernels, 0-1.
        seconds: that the training took.
        samples: photos its files were tested on, 0 where it is not said.
        history: metric name to one float per epoch.
        files: by kind, with the int8 file shipped.
        processor: that measured the times, `""` where it is not said.
    """

    path: pathlib.Path
    settings: dict[str, str]
    class_names: tuple[str, ...]
    keras_accuracy: float | None
    sparsity: float
    seconds: float
    samples: int
    history: dict[str, list[float]]
    files: dict[str, FileRow]
    processor: str

    @property
    def shipped(self) -> FileRow | None:
        """The int8 file."""
        return self.files.get("int8")


def read_run(run: str | os.PathLike[str]) -> Run:
    """Reads a run from its folder, or from its `metrics.json`; nothing of it is executed.

    Raises:
        ValueError: there is none, it is damaged, or it is not that of a run.
    """
    path = pathlib.Path(run)
    path = path / _METRICS if path.is_dir() else path
    values = _Values(path, _load(path))
    accuracy = values.part("test_accuracy")
    return Run(
        path=path,
        settings={name: str(value) for name, value in values.mapping("settings").items()},
        class_names=tuple(str(name) for name in values.items("class_names")),
        keras_accuracy=accuracy.number("keras", high=1.0, optional=True),
        sparsity=values.number("sparsity", high=1.0) or 0.0,
        seconds=values.number("training_seconds") or 0.0,
        samples=max(
            (int(f.number("samples", optional=True) or 0) for f in _files(values)), default=0
        ),
        history={name: values.part("history").floats(name) for name in values.mapping("history")},
        files={file.where[-1]: _row(file) for file in _files(values)},
        processor=str(values.mapping("environment").get("processor", "")),
    )


def _load(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise ValueError(
            f"`runs` must be folders of runs, each with a {_METRICS}. "
            f"Received: {str(path)!r}, no such file. `kerasopt train` writes it."
        )
    if path.stat().st_size > _LARGEST:
        _refuse(path, f"more than {_LARGEST:,} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of JSON, or of UTF-8
        _refuse(path, f"no JSON: {error}", error)


def _files(values: "_Values") -> list["_Values"]:
    files = values.part("files")
    unknown = sorted(set(files.values) - set(FILE_KINDS))
    if unknown:
        _refuse(values.path, f"unknown kinds of files: {', '.join(unknown)}")
    return [files.part(kind) for kind in files.values]


def _row(file: "_Values") -> FileRow:
    kind = file.where[-1]
    times = file.part("milliseconds")
    if not all(count.isdigit() for count in times.values):
        _refuse(file.path, f"`{times.name()}` has other keys than numbers of threads")
    try:
        return FileRow(
            name="model.tflite" if kind == "int8" else kind,
            kind=kind,
            size=file.integer("size"),
            gzip_size=file.integer("gzip_size"),
            accuracy=file.number("accuracy", high=1.0, optional=True),
            keras_accuracy=file.number("keras_accuracy", high=1.0, optional=True),
            agreement=file.number("agreement", high=1.0, optional=True),
            milliseconds={int(count): times.number(count) or 0.0 for count in times.values},
            shipped=kind == "int8",
        )
    except ValueError as error:
        _refuse(file.path, f"`{file.name()}`: {error}", error)


def _refuse(path: pathlib.Path, what: str, cause: BaseException | None = None) -> NoReturn:
    raise ValueError(
        f"`runs` must be folders with the {_METRICS} that `kerasopt train` writes. "
        f"Received: {str(path)!r}, {what}. Write the run again, or leave it out."
    ) from cause


@dataclass(frozen=True)
class _Values:
    """A mapping inside of the file; each reader checks what it returns."""

    path: pathlib.Path
    values: Any
    where: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            self._refuse("is no object", type(self.values).__name__)

    def name(self, key: str = "") -> str:
        return ".".join((*self.where, key) if key else self.where) or "the whole"

    def part(self, key: str) -> "_Values":
        return _Values(self.path, self._take(key), (*self.where, key))

    def mapping(self, key: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.part(key).values
        return found

    def items(self, key: str) -> list[Any]:
        found = self._take(key)
        if not isinstance(found, list):
            self._refuse("is no list", type(found).__name__, key)
        return found

    def floats(self, key: str) -> list[float]:
        found = self.items(key)
        if not all(_is_number(value) for value in found):
            self._refuse("has other values than numbers", repr(found)[:60], key)
        return [float(value) for value in found]

    def number(self, key: str, *, high: float = math.inf, optional: bool = False) -> float | None:
        if optional and self.values.get(key) is None:
            return None
        found = self._take(key)
        if not (_is_number(found) and 0.0 <= found <= high and math.isfinite(found)):
            self._refuse(f"is no number in [0, {high:g}]", repr(found)[:60], key)
        return float(found)

    def integer(self, key: str) -> int:
        found = self.number(key)
        if found is None or found != int(found):
            self._refuse("is no whole number", repr(found), key)
        return int(found)

    def _take(self, key: str) -> Any:
        if key not in self.values:
            _refuse(self.path, f"`{self.name(key)}` is missing")
        return self.values[key]

    def _refuse(self, what: str, found: str, key: str = "") -> NoReturn:
        _refuse(self.path, f"`{self.name(key)}` {what}: {found}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
