"""The time and the memory that one inference takes."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._machine import processor
from kerasopt._validation import check_int
from kerasopt.export._child import Bench, Sample


@dataclasses.dataclass(frozen=True)
class Timing:
    """Time of one inference of one batch on this machine.

    Attributes:
        threads: interpreter threads.
        median_ms: median over the runs, milliseconds.
        p90_ms: the time that nine of ten runs stay under, milliseconds.
        runs: how many runs were measured.
        file: the name that the file has in the measurement.
        peak_bytes: most memory that loading and running took beside the file itself, with the
            largest number of threads; `None` where the system does not tell (only Linux does).
        operators: number of operators in the file.
        delegated: how many of them XNNPACK ran, -1 when the interpreter does not tell.
        processor: its name.
    """

    threads: int
    median_ms: float
    p90_ms: float
    runs: int
    file: str = ""
    peak_bytes: int | None = None
    operators: int = 0
    delegated: int = -1
    processor: str = ""

    @property
    def delegate(self) -> str | None:
        """`"XNNPACK"` if it ran an operator at least, else `None`."""
        return "XNNPACK" if self.delegated > 0 else None


def measure(
    files: dict[str, Any], *, threads: Any, runs: Any, warmup: Any, xnnpack: bool = True
) -> tuple[Timing, ...]:
    """Measures several files in turns, all in one process that does nothing else.

    Args:
        files: a `TFLiteModel` for each name.
        threads: numbers of interpreter threads.
        runs: measured inferences for each, >= 1.
        warmup: inferences before, >= 0.
        xnnpack: whether XNNPACK runs what it can.

    Returns:
        A `Timing` for each file and number of threads, file by file.
    """
    counts = check_measurement(threads, runs, warmup, xnnpack)
    samples = [random_sample(model) for model in files.values()]
    limit = max(model.time_limit for model in files.values())
    with contextlib.ExitStack() as stack:
        weighed = []
        for sample in samples:  # a process each, for a peak is one of the whole process
            bench = Bench(limit)
            stack.callback(bench.close)
            weighed.append(bench.weigh(sample, threads=max(counts), xnnpack=xnnpack))
        times = bench.turns(samples, threads=counts, warmup=warmup, runs=runs, xnnpack=xnnpack)
    rows = [(file, at, count) for at, file in enumerate(files) for count in counts]
    return tuple(
        timing_of(
            found,
            threads=count,
            sample=samples[at],
            peak=weighed[at][0],
            delegated=weighed[at][1],
            file=file,
        )
        for (file, at, count), found in zip(rows, times, strict=True)
    )


def timing_of(
    found: np.ndarray,
    *,
    threads: int,
    sample: Sample,
    peak: int | None,
    delegated: tuple[int, ...] | None,
    file: str = "",
) -> Timing:
    """Sums up the milliseconds of the runs of a file."""
    return Timing(
        threads,
        float(np.median(found)),
        float(np.percentile(found, 90)),
        len(found),
        file=file,
        peak_bytes=peak,
        operators=len(sample.operators),
        delegated=-1 if delegated is None else len(delegated),
        processor=processor(),
    )


def check_measurement(threads: Any, runs: Any, warmup: Any, xnnpack: Any) -> list[int]:
    """Checks the arguments of a measurement; returns the numbers of threads."""
    counts = [threads] if isinstance(threads, int) else threads
    if isinstance(counts, str) or not isinstance(counts, Sequence) or not counts:
        raise ValueError(
            f"`threads` must be numbers of threads, such as (1, 2). Received: threads={threads!r}."
        )
    check_int("runs", runs, low=1)
    check_int("warmup", warmup, low=0)
    if not isinstance(xnnpack, bool):
        raise TypeError(f"`xnnpack` must be True or False. Received: xnnpack={xnnpack!r}.")
    return [check_int("threads", count, low=1) for count in counts]


def random_sample(model: Any) -> Sample:
    """Returns the file with random inputs, the same ones each time."""
    rng = np.random.default_rng(0)
    # Whole numbers that are no pixels, such as token ids, are zeros: others may be too large.
    inputs = [
        rng.integers(
            0,
            255 if t.scale or t.dtype == "float32" else 1,
            [size or 1 for size in t.shape],
            dtype="uint8",  # an input may be large, and the default takes eight bytes for each
        ).astype(t.dtype, copy=False)
        for t in model.inputs
    ]
    return Sample(model.content, inputs, model.operators)
