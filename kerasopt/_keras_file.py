""".keras files that anyone may have written: checked first, then loaded without running code."""

import contextlib
import functools
import math
import os
import pathlib
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt import _weights_check as program
from kerasopt._backend import keras

_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_MORE, _SPARE_NUMBERS = 2, 2**24
"""How many more numbers than the file holds its layers may ask for: generators of random numbers
and the like have some that are not saved."""
_SECONDS, _BYTES_A_SECOND = 8.0, 2**24
_LOADING = threading.RLock()


def load_keras(path: str | os.PathLike[str], *, name: str = "path") -> Any:
    """Loads a model from a `.keras` file, for inference.

    The zip is checked before anything is unpacked, the weights are read once in a process of
    their own, and Keras loads the rest in its safe mode, which runs no code from a file. Layers
    get no more memory than the weights in the file need.

    Args:
        path: of the file.
        name: the argument's name, for errors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.keras` file, is damaged, or cannot be loaded safely.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"The path must be that of a file. Received: {os.fspath(path)!r}.")
    fault = _fault_of_zip(file)
    counted = "" if fault else _read_weights(file)
    fault = fault or ("" if counted.isdecimal() else counted)
    if fault:
        raise ValueError(
            f"`{name}` must be a whole .keras file. Received: {os.fspath(path)!r}: {fault}. "
            "Save the model again with model.save('NAME.keras')."
        )
    try:
        with _at_most(_MORE * int(counted) + _SPARE_NUMBERS):
            return keras.saving.load_model(file, compile=False, safe_mode=True)
    # Layers raise whatever a wrong config makes them stumble over, and each of these means the
    # same to the user: this file cannot be loaded.
    except Exception as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise ValueError(
            f"`{name}` must be a .keras file that Keras can load. "
            f"Received: {os.fspath(path)!r}: {reason}"
        ) from error


def _fault_of_zip(file: pathlib.Path) -> str:
    """Returns what is wrong with the archive, or nothing."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            unsafe = [n for n in names if "\\" in n or ":" in n or ".." in n or n.startswith("/")]
            if unsafe:
                return f"it holds {unsafe[0]!r}, a path that leads out of a folder"
            missing = sorted(_MEMBERS - set(names))
            if missing or len(set(names)) < len(names):
                return f"it has no {missing[0]!r}" if missing else "it holds a file twice"
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > program.FACTOR * file.stat().st_size + program.SPARE:
                return f"it unpacks to {unpacked:,} bytes"
            damaged = archive.testzip()
            return f"its {damaged!r} is damaged" if damaged else ""
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        return f"it is no whole zip ({' '.join(str(error).split()) or type(error).__name__})"
    except NotImplementedError as error:
        return f"it is a zip of an unknown kind ({error})"


def _read_weights(file: pathlib.Path) -> str:
    """Returns how many numbers the weights are, in digits, or what is wrong with them."""
    limit = _SECONDS + file.stat().st_size / _BYTES_A_SECOND
    try:
        done = subprocess.run(
            [sys.executable, program.__file__, file],
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its weights take longer than {limit:.0f} seconds to read"
    if done.returncode:
        return "its weights ended the process that read them"
    return done.stdout.decode("utf-8", "replace")[:400] or "its weights were not read"


@contextlib.contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Lets the layers that this thread builds have so many numbers in their weights.

    A config of a few bytes can ask for any number of units, and Keras builds the layers before it
    looks at the weights. All of them call the public `Layer.add_weight`, which counts for the time
    of loading.

    Raises:
        ValueError: they ask for more.
    """
    layer, owner = keras.layers.Layer, threading.get_ident()
    with _LOADING:
        plain, left = layer.add_weight, numbers

        @functools.wraps(plain)
        def add_weight(self: Any, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if threading.get_ident() == owner:
                left -= math.prod(np.ravel(() if shape is None else shape).tolist())
                if left < 0:
                    raise ValueError("its layers ask for more weights than the file holds")
            return plain(self, shape, *args, **kwargs)

        layer.add_weight = add_weight
        try:
            yield
        finally:
            layer.add_weight = plain
