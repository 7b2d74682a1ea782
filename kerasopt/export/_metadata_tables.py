"""The tables of TFLite Metadata, written and read by their field numbers.

The public schema is `metadata_schema.fbs` of MediaPipe (namespace `tflite`, identifier `M001`). A
union takes two fields, its type and its value. The packages that generate code from the schema have
no wheels for current Pythons, so what is needed of it stands here.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

IDENTIFIER = b"M001"
_MOST_TABLES = 100_000


class Model:
    """Fields of `ModelMetadata`."""

    NAME, DESCRIPTION, VERSION, SUBGRAPHS, AUTHOR, LICENSE = range(6)
    MIN_PARSER_VERSION = 7


class Subgraph:
    """Fields of `SubGraphMetadata`."""

    INPUTS, OUTPUTS = 2, 3


class Tensor:
    """Fields of `TensorMetadata`."""

    NAME, DESCRIPTION = 0, 1
    CONTENT, PROCESS_UNITS, STATS, FILES = 3, 4, 5, 6


class File:
    """Fields of `AssociatedFile`, and the values of its type."""

    NAME, DESCRIPTION, TYPE, LOCALE = range(4)
    AXIS_LABELS, SCORE_CALIBRATION = 2, 4


class Union:
    """Fields of `Content` and of `ProcessUnit`, which hold a union, and the values of its type."""

    TYPE, VALUE = 0, 1
    FEATURE, IMAGE = 1, 2
    NORMALIZATION, CALIBRATION = 1, 2


class Byte(int):
    """A field of one byte: an enumeration, or the type of a union."""


class Float(float):
    """A field of four bytes."""


Fields = dict[int, Any]
"""A table: field number to text, `Byte`, `Float`, list of floats, table, or list of tables."""


def pack(fields: Fields) -> bytes:
    """Returns the flatbuffer whose root is the table."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, fields), IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: Any, fields: Fields) -> int:
    # What a table points to is written before it.
    filled = {field: value for field, value in fields.items() if value is not None}
    offsets = {
        field: _child(builder, value)
        for field, value in filled.items()
        if not isinstance(value, Byte | Float)
    }
    builder.StartObject(max(filled, default=0) + 1)
    for field, value in filled.items():
        if isinstance(value, Byte):
            builder.PrependInt8Slot(field, int(value), 0)
        elif isinstance(value, Float):
            builder.PrependFloat32Slot(field, float(value), 0.0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, offsets[field], 0)
    return int(builder.EndObject())


def _child(builder: Any, value: Any) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, dict):
        return _table(builder, value)
    if value and isinstance(value[0], dict):
        tables = [_table(builder, item) for item in value]
        builder.StartVector(4, len(tables), 4)
        for offset in reversed(tables):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    builder.StartVector(4, len(value), 4)
    for number in reversed(value):
        builder.PrependFloat32(number)
    return int(builder.EndVector())


class _Left:
    """How many tables may still be read: lists can name one of them any number of times."""

    def __init__(self, count: int) -> None:
        self._count = count

    def take(self, count: int) -> None:
        """Takes some, or raises ValueError."""
        self._count -= count
        if self._count < 0:
            raise ValueError("their lists are longer than they are themselves")


class Reader(NamedTuple):
    """A table that is read. What the file leaves out is empty text, 0, or an empty list.

    Offsets are checked against the buffer, for a damaged file must end in an error:
    `IndexError`, `struct.error` or `ValueError`.
    """

    table: Table
    left: _Left

    @staticmethod
    def root(content: bytes) -> "Reader":
        """Returns the root table.

        Raises:
            ValueError: the bytes are not TFLite Metadata.
        """
        if content[4:8] != IDENTIFIER:
            raise ValueError(f"the metadata do not begin with {IDENTIFIER.decode()}")
        left = _Left(min(len(content), _MOST_TABLES))
        return Reader(Table(content, struct.unpack_from("<I", content)[0]), left)

    def text(self, field: int) -> str:
        """Returns a text."""
        offset = self._offset(field)
        if not offset:
            return ""
        value: bytes = self.table.String(offset + self.table.Pos)
        return value.decode("utf-8")

    def byte(self, field: int) -> int:
        """Returns a value of one byte."""
        offset = self._offset(field)
        return int(self.table.Bytes[offset + self.table.Pos]) if offset else 0

    def number(self, field: int) -> float:
        """Returns a floating-point number."""
        offset = self._offset(field)
        if not offset:
            return 0.0
        return float(self.table.Get(number_types.Float32Flags, offset + self.table.Pos))

    def numbers(self, field: int) -> tuple[float, ...]:
        """Returns a list of floating-point numbers."""
        start, length = self._vector(field)
        return struct.unpack_from(f"<{length}f", self.table.Bytes, start)

    def child(self, field: int) -> "Reader | None":
        """Returns a table, or `None`."""
        offset = self._offset(field)
        if not offset:
            return None
        place = self.table.Indirect(offset + self.table.Pos)
        return Reader(Table(self.table.Bytes, place), self.left)

    def children(self, field: int) -> Sequence["Reader"]:
        """Returns a list of tables."""
        start, length = self._vector(field)
        self.left.take(length)
        places = map(self.table.Indirect, range(start, start + 4 * length, 4))
        return [Reader(Table(self.table.Bytes, place), self.left) for place in places]

    def _offset(self, field: int) -> int:
        return int(self.table.Offset(4 + 2 * field))

    def _vector(self, field: int) -> tuple[int, int]:
        offset = self._offset(field)
        if not offset:
            return 0, 0
        length = int(self.table.VectorLen(offset))
        if length > len(self.table.Bytes) // 4:  # an entry takes four bytes
            raise ValueError(f"a list of {length} entries")
        return int(self.table.Vector(offset)), length
