"""Scripts in a process of their own, for what has to be set up before TensorFlow starts."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run_alone(script: str, *, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
    """Runs a script from the root of the project and returns what it printed and its code."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
