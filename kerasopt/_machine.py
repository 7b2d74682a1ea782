"""What a measurement was made on."""

import pathlib
import platform


def processor() -> str:
    """Returns the name of the processor; `"unknown"` where the system does not tell."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware") and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown"
