"""Where metadata lie in a TFLite file: a buffer of the model, and a zip behind it."""

import contextlib
import io
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from kerasopt.profiling import tflite_operators

_NAME = "TFLITE_METADATA"
_LONGEST = 16 * 2**20
"""Bytes of an associated file, unpacked: more than any list of labels, less than a zip bomb."""


class Described(NamedTuple):
    """The metadata of a file, and the archive of the files that they name."""

    metadata: bytes
    content: bytes

    def read(self, name: str) -> bytes:
        """Returns an associated file; nothing is unpacked to the disk.

        Raises:
            ValueError: there is no such file, it is too large, or its name leads out of a folder.
        """
        if pathlib.PurePosixPath(name).name != name or "\\" in name or ":" in name:
            raise ValueError(f"they name the file {name!r}, which is a path")
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive, archive.open(name) as file:
                data = file.read(_LONGEST + 1)
        except KeyError as error:
            raise ValueError(f"they name the file {name!r}, which is not there") from error
        if len(data) > _LONGEST:
            raise ValueError(f"the file {name!r} in it is longer than {_LONGEST} bytes")
        return data


def attach(content: bytes, metadata: bytes, files: Mapping[str, bytes]) -> bytes:
    """Returns a TFLite file with metadata in it; older ones are replaced.

    Signatures and everything else stay. The files follow as a zip, stored and not deflated, so
    that an app can map them into memory, and without a time, so that equal models give equal files.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer = schema.BufferT()
    buffer.data = list(metadata)
    model.metadata = [m for m in model.metadata or [] if _text(m.name) != _NAME]
    entry = schema.MetadataT()
    entry.name, entry.buffer = _NAME, len(model.buffers)
    model.metadata.append(entry)
    model.buffers.append(buffer)
    builder = flatbuffers.Builder(len(content) + len(metadata) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    packed = io.BytesIO()
    packed.write(builder.Output())
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()


def read_described(path_or_bytes: str | os.PathLike[str] | bytes) -> Described | None:
    """Returns the metadata of a file as bytes, or `None` when it has none."""
    tflite_operators(path_or_bytes)  # raises in the voice of all errors if it is no TFLite file
    content = (
        bytes(path_or_bytes)
        if isinstance(path_or_bytes, bytes | bytearray | memoryview)
        else pathlib.Path(path_or_bytes).read_bytes()
    )
    with damaged():
        model = schema.Model.GetRootAs(content, 0)
        for index in range(model.MetadataLength()):  # as many as `tflite_operators` let through
            entry = model.Metadata(index)
            if _text(entry.Name()) == _NAME and entry.Buffer() < model.BuffersLength():
                data: Any = model.Buffers(entry.Buffer()).DataAsNumpy()
                return Described(data.tobytes(), content)
    return None


@contextlib.contextmanager
def damaged() -> Iterator[None]:
    """Turns what damage leads to into one ValueError."""
    try:
        yield
    except (
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        NotImplementedError,
        OverflowError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            "The metadata of the TFLite file must be whole. "
            f"Received: damaged ones ({error}). Convert the model again."
        ) from error


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
