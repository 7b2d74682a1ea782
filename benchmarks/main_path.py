"""The main job from one command, measured: `kerasopt demo` and `kerasopt train` on flowers17.

    python benchmarks/main_path.py demo
    python benchmarks/main_path.py flowers17 [SEED ...]

Writes `results/demo.json` and `results/flowers17.json`: accuracy in Keras and in the int8 file,
agreement, sizes and minutes, from installation on, on the machine it names.
"""

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from _record import SHARED, record

BARS = {
    "demo": {"minutes": 4, "loss_points": 1.0, "agreement": 0.98},
    "flowers17": {"minutes": 25, "keras_accuracy": 0.935, "loss_points": 1.0},
}


def run(*arguments: str) -> dict[str, Any]:
    """Runs one command in a fresh folder and returns its figures."""
    folder = pathlib.Path(tempfile.mkdtemp())
    out = folder / "run"
    start = time.perf_counter()
    command = shutil.which("kerasopt", path=str(pathlib.Path(sys.executable).parent))
    subprocess.run([str(command), *arguments, "--out", str(out)], check=True)
    minutes = (time.perf_counter() - start) / 60
    metrics = json.loads((out / "metrics.json").read_text())
    accuracy = metrics["test_accuracy"]
    figures = {
        "minutes": round(minutes, 2),
        "keras_accuracy": accuracy["keras"],
        "keras_quantization_aware_accuracy": accuracy["keras_quantization_aware"],
        "int8_accuracy": accuracy["file"],
        "loss_points": round(100 * (accuracy["keras"] - accuracy["file"]), 2),
        "agreement": metrics["agreement"],
        "sparsity": metrics["sparsity"],
        "test_photos": metrics["files"]["int8"]["samples"],
        "bytes": {kind: row["size"] for kind, row in metrics["files"].items()},
        "gzip_bytes": {kind: row["gzip_size"] for kind, row in metrics["files"].items()},
        "milliseconds": {kind: row["milliseconds"] for kind, row in metrics["files"].items()},
    }
    shutil.rmtree(folder)
    return figures


def main() -> None:
    """Measures what the command line names."""
    name, *seeds = sys.argv[1:] or ["demo"]
    if name == "demo":
        record("demo", {"bars": BARS["demo"], "run": run("demo")})
        return
    runs = {
        seed: run(
            "train",
            str(SHARED / "data" / "flowers17"),
            "--backbone",
            str(SHARED / "weights" / "efficientnet_lite0_imagenet.keras"),
            "--seed",
            seed,
        )
        for seed in seeds or ["0"]
    }
    means = {
        key: statistics.mean(figures[key] for figures in runs.values())
        for key in ("minutes", "keras_accuracy", "int8_accuracy", "loss_points", "agreement")
    }
    record("flowers17", {"bars": BARS["flowers17"], "mean": means, "seeds": runs})


if __name__ == "__main__":
    main()
