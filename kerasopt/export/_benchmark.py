"""Several files, measured in turns."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from kerasopt.export._interpreter import TFLiteModel
from kerasopt.export._timing import Timing, measure

_HEADINGS = ("file", "threads", "median ms", "p90 ms", "peak MiB", "XNNPACK")


@dataclasses.dataclass(frozen=True)
class BenchmarkReport:
    """Times of several files that took turns; `print` shows a table.

    Attributes:
        timings: a `Timing` for each file and number of threads, file by file.
    """

    timings: tuple[Timing, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything in values that JSON holds."""
        return {"timings": [dataclasses.asdict(timing) for timing in self.timings]}

    def table(self) -> str:
        """Returns the times as aligned text."""
        rows = [_HEADINGS, *map(_cells, self.timings)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        first = self.timings[0]
        return "\n".join([*lines, f"{first.runs} runs of each in turns on {first.processor}."])

    def __str__(self) -> str:
        return self.table()


def benchmark(
    files: Any,
    *,
    threads: Sequence[int] = (1, 2),
    runs: int = 50,
    warmup: int = 5,
    xnnpack: bool = True,
) -> BenchmarkReport:
    """Measures the time and memory of one inference of several files, run by run in turns.

    Each round runs every file once with every number of threads, in an order drawn anew, so that
    whatever else the machine does meets all of them alike: ratios are steadier than times. The
    files run in one process without TensorFlow, the peak of memory is taken in a process of its
    own for each. Inputs are random pixels.

    Args:
        files: files to compare: paths, bytes or `TFLiteModel`, in a list, or in a dict by the
            names that the table shows. A list takes the names of the paths.
        threads: numbers of interpreter threads.
        runs: measured inferences for each, >= 1.
        warmup: rounds before, >= 0.
        xnnpack: whether XNNPACK runs what it can, as in most apps; `False` for TFLite's own
            kernels.

    Returns:
        A `BenchmarkReport`. Times hold for this machine and its load.

    Raises:
        TypeError: `files` holds something else.
        ValueError: there is no file, or one cannot be run.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras, kerasopt as ko
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> small = {
        ...     str(kind): ko.export.to_tflite(model, quantize=kind).content
        ...     for kind in (None, "float16")
        ... }
        >>> report = ko.export.benchmark(small, threads=[1], runs=3)
        >>> [timing.file for timing in report.timings]
        ['None', 'float16']
    """
    opened = {name: _opened(file) for name, file in _named(files).items()}
    return BenchmarkReport(
        measure(opened, threads=threads, runs=runs, warmup=warmup, xnnpack=xnnpack)
    )


def _named(files: Any) -> dict[str, Any]:
    """Returns the files by name; two of the same name are told apart by a number."""
    if isinstance(files, Mapping):
        named = {str(name): file for name, file in files.items()}
    elif isinstance(files, list | tuple):
        named = {}
        for index, file in enumerate(files):
            is_path = isinstance(file, str | os.PathLike)
            name = os.path.basename(os.fspath(file)) if is_path else f"file {index + 1}"
            named[name if name not in named else f"{name} ({index + 1})"] = file
    else:
        raise TypeError(
            "`files` must be a list of TFLite files, or a dict of them by name. "
            f"Received: files of type {type(files).__name__}. For one file, use "
            "kerasopt.export.TFLiteModel(file).benchmark()."
        )
    if not named:
        raise ValueError(f"`files` must hold at least one TFLite file. Received: files={files!r}.")
    return named


def _opened(file: Any) -> TFLiteModel:
    return file if isinstance(file, TFLiteModel) else TFLiteModel(file)


def _cells(timing: Timing) -> tuple[str, ...]:
    peak = "?" if timing.peak_bytes is None else f"{timing.peak_bytes / 2**20:.1f}"
    delegated = "?" if timing.delegated < 0 else f"{timing.delegated} of {timing.operators}"
    times = f"{timing.median_ms:.3f}", f"{timing.p90_ms:.3f}"
    return (timing.file, str(timing.threads), *times, peak, delegated)
