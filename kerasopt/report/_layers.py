"""The table of layers: bytes, zeros and error of each, with their bars."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kerasopt.report import _format as fmt


def layers(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what the template draws; a bar is a share of the largest value, or of all weights."""
    largest = max((int(row.get("bytes") or 0) for row in rows), default=0)
    errors = [float(row["error"]) for row in rows if row.get("error") is not None]
    worst = max((error for error in errors if math.isfinite(error)), default=0.0)
    return {
        "rows": [
            {
                "layer": row,
                "zero_share": _zero_share(row),
                "byte_bar": int(row.get("bytes") or 0) / largest if largest else 0.0,
                "error_bar": _bar(row.get("error"), worst),
                "error_text": _text(row.get("error")),
            }
            for row in rows
        ],
        "totals": {
            key: sum(int(row.get(key) or 0) for row in rows)
            for key in ("parameters", "zeros", "bytes")
        },
        "errors": len(errors),
    }


def _zero_share(row: Mapping[str, Any]) -> float | None:
    zeros, weights = row.get("zeros"), row.get("kernel_parameters", row.get("parameters"))
    return zeros / weights if zeros is not None and weights else None


def _bar(error: float | None, worst: float) -> float:
    if error is None:
        return 0.0
    return min(error / worst, 1.0) if worst else float(error > 0)


def _text(error: float | None) -> str:
    return "∞" if error == math.inf else fmt.percent(error)
