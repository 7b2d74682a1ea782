"""Several runs on one page: what they were started with, what they reached, what it costs."""

import math
import os
import pathlib
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kerasopt._files import check_target, write_atomic
from kerasopt.report import _format as fmt
from kerasopt.report._curves import Curve, Panel, geometry, is_accuracy, panels
from kerasopt.report._data import FILE_KINDS, FileRow
from kerasopt.report._page import page
from kerasopt.report._pareto import TradeOff, pareto
from kerasopt.report._run_file import Run, read_run

_MOST = 8  # runs that can be told apart by colour
_Take = Callable[[Run], float | None]
_Tell = Callable[[float, float], str]


def write_comparison(
    runs: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> pathlib.Path:
    """Writes a page that compares runs, whole or not at all.

    The first run is what the others are compared with. Read is the `metrics.json` of each, and
    nothing is executed. The page loads nothing, as that of `write_report`.

    Args:
        runs: Folders that `kerasopt train` or `kerasopt demo` wrote, or their `metrics.json`;
            2 to 8 of them.
        path: File to write; its folder must exist. An older file is replaced.

    Returns:
        The path of the file.

    Raises:
        ValueError: There are too few or too many runs, one has no `metrics.json`, it is damaged or
            not that of a run, or the folder of `path` does not exist.

    Example:
    ```python
    ko.report.write_comparison(["run1", "run2"], "comparison.html")
    ```
    """
    if isinstance(runs, str | os.PathLike) or not 2 <= len(runs) <= _MOST:
        count = 1 if isinstance(runs, str | os.PathLike) else len(runs)
        raise ValueError(
            f"`runs` must be 2 to {_MOST} folders of runs. Received: {count}. "
            "The page of a single run is its report.html."
        )
    check_target(path)
    read = [read_run(run) for run in runs]
    return write_atomic(path, page("comparison.html.j2", **_context(read)))


def _context(runs: Sequence[Run]) -> dict[str, Any]:
    names = _names(runs)
    error = max((e for e in map(_standard_error, runs) if e is not None), default=None)
    return {
        "runs": [_row(run, runs[0], i, names[i]) for i, run in enumerate(runs)],
        "settings": _settings(runs),
        "files": _files(runs, names),
        "pareto": pareto(_trade_offs(runs, names), error),
        "curves": _curves(runs, names),
        "warnings": _warnings(runs),
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """Returns the names of the folders, with those above them where they are the same."""
    folders = [run.path.absolute().parent for run in runs]
    short = [folder.name for folder in folders]
    counts = Counter(short)
    return [
        name if counts[name] == 1 else f"{folder.parent.name}/{name}"
        for name, folder in zip(short, folders, strict=True)
    ]


def _letter(index: int) -> str:
    return string.ascii_uppercase[index]


def _standard_error(run: Run) -> float | None:
    if run.shipped is None or run.shipped.accuracy is None or not run.samples:
        return None
    return math.sqrt(run.shipped.accuracy * (1 - run.shipped.accuracy) / run.samples)


def _row(run: Run, first: Run, index: int, name: str) -> dict[str, Any]:
    """The figures of one run with their differences from the first one."""
    figures: tuple[tuple[str, _Take, Callable[[Any], str], _Tell, str], ...] = (
        ("Keras", lambda r: r.keras_accuracy, fmt.percent, _points, "better"),
        ("File", _of_file(lambda f: f.accuracy), fmt.percent, _points, "better"),
        ("Size", _of_file(lambda f: f.size), fmt.size, fmt.change, "worse"),
        (
            "ms, 1 thread",
            _of_file(lambda f: f.milliseconds.get(1)),
            fmt.milliseconds,
            fmt.change,
            "worse",
        ),
        ("Zeros", lambda r: r.sparsity, fmt.percent, _points, ""),
        ("Training", lambda r: r.seconds, fmt.duration, fmt.change, ""),
    )
    cells = {}
    for title, take, text, tell, more_is in figures:
        value, base = take(run), take(first)
        cell = {"value": value, "text": text(value), "difference": "", "tone": ""}
        if index > 0 and value is not None and base is not None:
            cell["difference"] = tell(value, base)
            if value != base and more_is:
                cell["tone"] = _tone(value > base, more_is)
        cells[title] = cell
    backbone = run.settings.get("backbone", fmt.MISSING)
    facts = {"letter": _letter(index), "index": index, "name": name}
    return {**facts, "backbone": backbone, "cells": cells}


def _of_file(take: Callable[[FileRow], float | None]) -> _Take:
    """Returns what reads a figure of the shipped file of a run."""
    return lambda run: None if run.shipped is None else take(run.shipped)


def _tone(is_more: bool, more_is: str) -> str:
    return more_is if is_more else {"better": "worse", "worse": "better"}[more_is]


def _points(value: float, base: float) -> str:
    return fmt.points(value - base)


def _settings(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the settings that differ, one row each, and those that all runs share."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = [(key, [run.settings.get(key, fmt.MISSING) for run in runs]) for key in keys]
    return {
        "different": [
            (key, [(value, value != values[0]) for value in values])
            for key, values in rows
            if len(set(values)) > 1
        ],
        "same": [(key, values[0]) for key, values in rows if len(set(values)) == 1],
    }


def _files(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"letter": _letter(index), "index": index, "run": names[index], "row": run.files[kind]}
        for kind in reversed(FILE_KINDS)
        for index, run in enumerate(runs)
        if kind in run.files
    ]


def _trade_offs(runs: Sequence[Run], names: Sequence[str]) -> list[TradeOff]:
    return [
        TradeOff(
            label=f"{_letter(index)} {kind}",
            size=row.size,
            milliseconds=row.milliseconds.get(1),
            accuracy=row.accuracy,
            shipped=row.shipped,
            group=index,
            name=f"{_letter(index)} {names[index]}: {kind}",
        )
        for index, run in enumerate(runs)
        for kind, row in run.files.items()
    ]


def _curves(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the validation accuracy and the validation loss of all runs over each other."""
    end = float(max((len(v) for run in runs for v in run.history.values()), default=1))
    found = []
    for title, is_wanted in (
        ("Validation accuracy", is_accuracy),
        ("Validation loss", lambda key: key == "loss"),
    ):
        curves = []
        for index, run in enumerate(runs):
            panel = next((p for p in panels(run.history) if is_wanted(p.key)), None)
            drawn = [c for c in panel.curves if c.role == "validation"] if panel else []
            curves += [
                Curve(f"run{index}", c.epochs, c.values, f"{_letter(index)} {names[index]}")
                for c in drawn
            ]
        if curves:
            panel = Panel(title, title, is_wanted is is_accuracy, tuple(curves))
            found.append({**geometry(panel, max(end, 1.0)), "best": ""})
    return found


def _warnings(runs: Sequence[Run]) -> list[str]:
    """Returns what forbids to compare them."""
    found = []
    if len({run.class_names for run in runs}) > 1:
        found.append("The runs have different classes: their accuracies say little of each other.")
    if len({run.samples for run in runs}) > 1:
        counts = ", ".join(fmt.integer(run.samples) for run in runs)
        found.append(f"The runs were tested on different numbers of photos: {counts}.")
    processors = dict.fromkeys(run.processor for run in runs)
    if len(processors) > 1:
        names = ", ".join(name or "unknown" for name in processors)
        found.append(f"The times were measured on different processors: {names}.")
    missing = [_letter(i) for i, run in enumerate(runs) if run.shipped is None]
    if missing:
        found.append(f"No int8 file has been measured in {', '.join(missing)}.")
    return found
