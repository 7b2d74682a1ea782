"""What commands print as tables."""

import pathlib
from typing import Any

from rich.table import Table
from rich.text import Text

from kerasopt._text import printable

_SHOWN_LABELS = 20


def run_table(metrics: dict[str, Any], folder: pathlib.Path) -> Table:
    """Returns the files of a run with their figures."""
    table = Table(title=Text(f"{folder}: {len(metrics['class_names'])} classes"))
    for heading in ("file", "KiB", "gzip KiB", "accuracy", "Keras", "agreement", "ms, 1 thread"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    for kind, row in metrics["files"].items():
        table.add_row(
            "model.tflite (int8)" if kind == "int8" else kind,
            f"{row['size'] / 1024:,.0f}",
            f"{row['gzip_size'] / 1024:,.0f}",
            f"{row['accuracy']:.1%}",
            f"{row['keras_accuracy']:.1%}",
            f"{row['agreement']:.1%}",
            f"{row['milliseconds'][1]:.2f}",
        )
    return table


def metadata_table(metadata: Any) -> Table:
    """Returns what a file says of itself."""
    table = Table(title="metadata", title_justify="left", show_header=False)
    for name in ("name", "description", "version", "author", "license"):
        if getattr(metadata, name):
            table.add_row(name, Text(printable(getattr(metadata, name))))
    if metadata.normalization:
        table.add_row("normalization", f"(pixel - {metadata.mean}) / {metadata.std}")
    if metadata.score_calibration is not None:
        table.add_row("scores", f"calibrated, {metadata.score_transformation}")
    if metadata.labels is not None:
        names = list(metadata.labels[:_SHOWN_LABELS])
        names += ["..."] if len(metadata.labels) > _SHOWN_LABELS else []
        shown = printable(", ".join(names))
        table.add_row("labels", Text(f"{len(metadata.labels)}: {shown}"))
    return table


def export_rows(result: Any) -> list[tuple[str, str]]:
    """Returns the figures of an export with their names."""
    rows = [
        ("size", f"{result.size:,} bytes, {result.gzip_size:,} gzipped"),
        ("input", result.input_dtype),
        ("output", result.output_dtype),
        ("operators", f"{len(result.operators)}: {', '.join(sorted(set(result.operators)))}"),
    ]
    if result.quantize in ("dynamic", "int8", "int16x8") and result.float_operators:
        rows.append(("in float", ", ".join(sorted(set(result.float_operators)))))
    if result.samples:
        rows.append(("agreement", f"{result.agreement:.2%} of {result.samples} inputs"))
        rows.append(("largest difference", f"{result.max_error:.4g}"))
        rows.append(("relative error", f"{result.relative_error:.2g}"))
    else:
        rows.append(("verified", "no: pass --data with photos"))
    if result.accuracy is not None:
        rows.append(("accuracy", f"{result.accuracy:.2%}, {result.keras_accuracy:.2%} in Keras"))
    return rows
