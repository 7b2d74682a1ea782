"""Reads the weights of a .keras file once, in a process that may die of it.

Run as a program with the path of the file; nothing of kerasopt is imported. HDF5 is a large format,
whose library trusts what it reads: what it survives here, Keras can read as well. The program
prints how many numbers the weights are, or what is wrong with them.
"""

import contextlib
import io
import os
import sys
import zipfile
from typing import Any

FACTOR, SPARE = 100, 64 * 2**20
"""How much longer a file may become when it is unpacked: weights hardly shrink."""
_MEMORY = 8 * 2**30
_WEIGHTS = "model.weights.h5"


def check(path: str) -> str:
    """Returns how many numbers the weights are, in digits, or what is wrong with them."""
    import h5py

    reader = _Reader(FACTOR * os.stat(path).st_size + SPARE)
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_WEIGHTS)
        with h5py.File(io.BytesIO(content), "r") as file:
            return reader.read(file) or str(reader.numbers)
    # Whatever it is, the file is not one of weights.
    except Exception as error:
        return f"its weights cannot be read ({type(error).__name__})"


class _Reader:
    """Reads all weights.

    Args:
        limit: bytes that they may be; HDF5 has a compression of its own.
    """

    def __init__(self, limit: int) -> None:
        self.numbers, self._left = 0, limit

    def read(self, group: Any) -> str:
        """Reads a group; returns what is wrong with it, or nothing."""
        import h5py

        for name in group:
            if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                return f"its weights lead to another file, at {name!r}"
            item = group[name]
            if isinstance(item, h5py.Group):
                found = self.read(item)
                if found:
                    return found
            elif item.external or item.is_virtual:
                return f"its weights lead to another file, at {name!r}"
            else:
                self.numbers += item.size
                self._left -= item.nbytes
                if self._left < 0:
                    return f"its weights unpack to {item.nbytes:,} bytes and more"
                item[()]
        return ""


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    sys.stdout.write(check(sys.argv[1]))
