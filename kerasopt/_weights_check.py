"""Reads the weights of a .keras file once, in a process that may die of it.

Run as a program with the path of the file; nothing of kerasopt is imported. HDF5 is a large format,
whose library trusts what it reads: what it survives here, Keras can read as well.
"""

import contextlib
import io
import sys
import zipfile
from typing import Any

_MEMORY = 8 * 2**30
_WEIGHTS = "model.weights.h5"


def check(path: str) -> str:
    """Returns what is wrong with the weights, or nothing."""
    import h5py

    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_WEIGHTS)
        with h5py.File(io.BytesIO(content), "r") as file:
            return _check_group(file)
    # Whatever it is, the file is not one of weights.
    except Exception as error:
        return f"its weights cannot be read ({type(error).__name__})"


def _check_group(group: Any) -> str:
    import h5py

    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            return f"its weights lead to another file, at {name!r}"
        item = group[name]
        if isinstance(item, h5py.Group):
            found = _check_group(item)
            if found:
                return found
        elif item.external or item.is_virtual:
            return f"its weights lead to another file, at {name!r}"
        else:
            item[()]
    return ""


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    sys.stdout.write(check(sys.argv[1]))
