"""Where every benchmark writes what it saw."""

import json
import pathlib
from typing import Any

from kerasopt import report

RESULTS = pathlib.Path(__file__).parent / "results"
RUNS = pathlib.Path(__file__).parent / "runs"  # models one benchmark leaves for another
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def record(name: str, figures: dict[str, Any]) -> None:
    """Writes `results/NAME.json` with the figures, the versions and the processor."""
    RESULTS.mkdir(exist_ok=True)
    content = {"figures": figures, "environment": report.environment()}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content, indent=2))


def recorded(name: str) -> dict[str, Any]:
    """Returns the figures in `results/NAME.json`, empty when there are none yet."""
    path = RESULTS / f"{name}.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    return figures


def record_part(name: str, part: str, figures: dict[str, Any]) -> None:
    """Writes one part of `results/NAME.json`; the other parts stay as they are."""
    record(name, {**recorded(name), part: figures})
