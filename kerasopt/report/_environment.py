"""What a measurement was made with: versions and processor, nothing about the person."""

import importlib.metadata
import os
import platform

from kerasopt._machine import processor
from kerasopt._version import __version__

# The same library under the names it is published by, the first one found counts.
_LIBRARIES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos"),
    "keras": ("keras",),
    "ai-edge-litert": ("ai-edge-litert",),
}


def environment() -> dict[str, str]:
    """Returns the versions and the processor that a report states beside its times.

    Read from package metadata, so neither TensorFlow nor Keras is imported. No user name, host
    name, path or kernel release is in it.

    Returns:
        A dict with the keys `"python"`, `"kerasopt"`, `"tensorflow"`, `"keras"`,
        `"ai-edge-litert"` (versions, or `"not installed"`), `"processor"`, `"logical cores"` and
        `"platform"`.

    Example:
    >>> sorted(environment())[:3]
    ['ai-edge-litert', 'keras', 'kerasopt']
    """
    found = {"python": platform.python_version(), "kerasopt": __version__}
    found.update({name: _version(names) for name, names in _LIBRARIES.items()})
    found["processor"] = processor()
    found["logical cores"] = str(os.cpu_count() or "unknown")
    found["platform"] = f"{platform.system()} {platform.machine()}".strip()
    return found


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        for found in importlib.metadata.distributions(name=name):
            return found.version
    return "not installed"
