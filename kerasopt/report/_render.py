"""From a `RunReport` to one HTML file."""

import math
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kerasopt._files import write_atomic
from kerasopt.report import _format as fmt
from kerasopt.report._answers import answers, compression, mistakes
from kerasopt.report._curves import axis_end, geometry, panels, pins
from kerasopt.report._data import FileRow, RunReport
from kerasopt.report._layers import layers
from kerasopt.report._metrics import confusion_matrix
from kerasopt.report._page import page
from kerasopt.report._pareto import TradeOff, pareto
from kerasopt.report._pictures import data_uri, is_small
from kerasopt.report._snippets import snippets, taken

_MAX_ROWS = 8
_MAX_COLUMNS = 9
_MAX_PANELS = 8  # loss, accuracy and six more


def write_report(report: RunReport, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the page of a run, whole or not at all.

    The page loads nothing: style, pictures and one script, which sorts, filters and copies, are
    inside it, and a content security policy in its head forbids the rest. It is written under a
    temporary name in the same folder and renamed, so a reader never sees half of it.

    Args:
        report: What to tell.
        path: File to write; its folder must exist. An older file is replaced.

    Returns:
        The path of the file.

    Raises:
        ValueError: The folder does not exist, or the path is a folder.

    Example:
    ```python
    ko.report.write_report(report, "run/report.html")
    ```
    """
    return write_atomic(path, render(report))


def render(report: RunReport) -> str:
    """Returns the page of a run as HTML; the same report gives the same text.

    Args:
        report: What to tell.

    Returns:
        A complete HTML document. Every text of the report is escaped.
    """
    return page("report.html.j2", **_context(report))


def _context(report: RunReport) -> dict[str, Any]:
    shipped = next((row for row in report.files if row.shipped), None)
    error = _standard_error(shipped, len(report.labels))
    return {
        "report": report,
        "figures": _figures(report, shipped),
        "splits": _splits(report),
        "curves": _curves(report),
        "augmented": _augmented(report),
        "answers": answers(report),
        "mistakes": mistakes(report),
        "compression": compression(report),
        "files": _files(report),
        "pareto": pareto(_trade_offs(report.files), error),
        "standard_error": error,
        **_snippets(report, shipped),
        "layers": layers(report.layers),
    }


def _snippets(report: RunReport, shipped: FileRow | None) -> dict[str, Any]:
    if report.signature is None or shipped is None:
        return {"snippets": []}
    return {
        "takes": taken(report.signature),
        "snippets": snippets(shipped, report.signature, len(report.class_names)),
    }


def _figures(report: RunReport, shipped: FileRow | None) -> list[dict[str, str]]:
    """The big numbers of the headline: value, what it is, and one line to judge it by."""
    accuracy = _accuracy(report, shipped)
    if shipped is None:
        return [_figure(fmt.percent(accuracy), "Test accuracy", _tested(report), "lead")]
    keras = shipped.keras_accuracy
    known = accuracy is not None and keras is not None
    tiles = [
        _figure(fmt.percent(accuracy), "Test accuracy, shipped file", _tested(report), tone="lead"),
        _figure(
            fmt.percent(keras),
            "Keras model",
            f"file: {fmt.points(accuracy - keras)}" if known else "",  # type: ignore[operator]
        ),
        _figure(fmt.percent(shipped.agreement), "Agreement", "file and model, same class"),
        _figure(fmt.size(shipped.size), "Size", _smaller(report, shipped)),
    ]
    if shipped.milliseconds:
        threads, best = min(shipped.milliseconds.items(), key=lambda item: (item[1], item[0]))
        plural = "thread" if threads == 1 else "threads"
        value = f"{fmt.milliseconds(best)}{fmt.NARROW}ms"
        tiles.append(_figure(value, "Time per image", f"median, {threads} {plural}"))
    return tiles


def _figure(value: str, label: str, detail: str = "", tone: str = "") -> dict[str, str]:
    number, _, unit = value.partition(fmt.NARROW)
    return {"number": number, "unit": unit, "label": label, "detail": detail, "tone": tone}


def _accuracy(report: RunReport, shipped: FileRow | None) -> float | None:
    if shipped is not None and shipped.accuracy is not None:
        return shipped.accuracy
    if len(report.labels) == 0:
        return None
    matrix = confusion_matrix(report.labels, report.predictions, len(report.class_names))
    return float(matrix.trace() / matrix.sum())


def _tested(report: RunReport) -> str:
    count, classes = len(report.labels), len(report.class_names)
    return f"{fmt.integer(count)} test photos, {classes} classes" if count else "not measured"


def _smaller(report: RunReport, row: FileRow) -> str:
    float32 = next((other for other in report.files if other.kind == "float32"), None)
    if float32 is None or float32 is row or not row.size:
        return f"{fmt.size(row.gzip_size)} after gzip"
    return f"{fmt.times(float32.size / row.size)} smaller than float32"


def _splits(report: RunReport) -> dict[str, Any]:
    names = list(report.counts)
    listed = [name for split in report.counts.values() for name in split]
    classes = dict.fromkeys([*(n for n in report.class_names if n in listed), *listed])
    return {
        "names": names,
        "totals": [sum(report.counts[name].values()) for name in names],
        "rows": [(c, [report.counts[name].get(c) for name in names]) for c in classes],
    }


def _curves(report: RunReport) -> dict[str, Any]:
    end = axis_end(report.history, report.events)
    shown = panels(report.history)[:_MAX_PANELS]
    main = [panel for panel in shown if panel.key == "loss" or panel.title == "Accuracy"]
    rest = [panel for panel in shown if panel not in main]
    marks = pins(report.events, end)
    return {
        "main": [geometry(panel, end) for panel in main],
        "rest": [geometry(panel, end, max_ticks=3) for panel in rest],
        "pins": marks,
        "levels": 1 + max((pin["level"] for pin in marks), default=-1),
    }


def _augmented(report: RunReport) -> dict[str, Any]:
    rows = [[data_uri(image) for image in row[:_MAX_COLUMNS]] for row in report.augmented]
    rows = rows[:_MAX_ROWS]
    return {
        "rows": rows,
        "columns": max((len(row) for row in rows), default=0),
        "pixelated": bool(rows) and is_small(report.augmented[0][0]),
    }


def _files(report: RunReport) -> dict[str, Any]:
    largest = max((row.size for row in report.files), default=0) or 1
    threads = sorted({count for row in report.files for count in row.milliseconds})
    float32 = next((row.size for row in report.files if row.kind == "float32"), None)
    rows = []
    for row in report.files:
        ratio = fmt.times(float32 / row.size) if float32 and row.size else fmt.MISSING
        times = [row.milliseconds.get(count) for count in threads]
        rows.append({"row": row, "share": row.size / largest, "ratio": ratio, "times": times})
    return {"rows": rows, "threads": threads}


def _trade_offs(files: Sequence[FileRow]) -> list[TradeOff]:
    kinds = Counter(row.kind for row in files)
    return [
        TradeOff(
            label=row.kind if kinds[row.kind] == 1 else row.name,
            size=row.size,
            milliseconds=row.milliseconds.get(1),
            accuracy=row.accuracy,
            shipped=row.shipped,
        )
        for row in files
    ]


def _standard_error(shipped: FileRow | None, count: int) -> float | None:
    """Returns the standard error of the accuracy, or `None` where it is not known."""
    if shipped is None or shipped.accuracy is None or count == 0:
        return None
    return math.sqrt(shipped.accuracy * (1.0 - shipped.accuracy) / count)
