"""A TFLite file as a C array, for a board without a file system."""

import os
import pathlib
import re
from typing import Any

from kerasopt._files import write_atomic
from kerasopt.profiling import arena_bytes, tflite_operators

_KEYWORDS = frozenset(
    [
        "alignas",
        "auto",
        "bool",
        "break",
        "case",
        "char",
        "class",
        "const",
        "continue",
        "default",
        "delete",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "namespace",
        "new",
        "register",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "try",
        "typedef",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
    ]
)
_IN_A_LINE = 12


def to_c_array(
    path_or_bytes: Any, path: str | os.PathLike[str], *, name: str = "model"
) -> pathlib.Path:
    """Writes a TFLite file as a C and C++ header, for TFLite Micro.

    The header holds `NAME_data`, aligned to 16 bytes, `NAME_size`, the operators that the resolver
    needs, and `NAME_ARENA_BYTES`, the estimate of `ko.profiling.arena_bytes`.

    Args:
        path_or_bytes: path of a `.tflite` file, or its content.
        path: the header to write, atomically.
        name: how the C names begin; an identifier of C.

    Returns:
        The path of the header.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: there is no room or no permission to write the header.
        TypeError: `path_or_bytes` is neither a path nor bytes.
        ValueError: it is not a TFLite file, or the name is no identifier of C.

    Example:
        >>> to_c_array("model.tflite", "model.h")  # doctest: +SKIP
        PosixPath('model.h')
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"`name` must be an identifier of C. Received: name={name!r}.")
    if name in _KEYWORDS:
        raise ValueError(f"`name` must not be a word of C or C++. Received: name={name!r}.")
    operators = sorted(set(tflite_operators(path_or_bytes)))
    arena = arena_bytes(path_or_bytes)
    content = (
        bytes(path_or_bytes)
        if isinstance(path_or_bytes, bytes | bytearray | memoryview)
        else pathlib.Path(path_or_bytes).read_bytes()
    )
    starts = range(0, len(content), _IN_A_LINE)
    rows = [", ".join(f"0x{b:02x}" for b in content[i : i + _IN_A_LINE]) for i in starts]
    guard = f"{name.upper()}_H_"
    listed = "\n".join(f"//   {_comment(operator)}" for operator in operators)
    text = (
        f"// {len(content):,} bytes. Operators for the resolver:\n{listed}\n"
        f"#ifndef {guard}\n#define {guard}\n\n"
        "#ifdef __cplusplus\n#define KERASOPT_ALIGN alignas(16)\n"
        "#else\n#define KERASOPT_ALIGN _Alignas(16)\n#endif\n\n"
        "// Activations alone; the runtime adds its own structures and scratch buffers.\n"
        f"#define {name.upper()}_ARENA_BYTES {arena}\n\n"
        f"static const unsigned int {name}_size = {len(content)};\n"
        f"KERASOPT_ALIGN static const unsigned char {name}_data[] = {{\n  "
        + ",\n  ".join(rows)
        + f"}};\n\n#undef KERASOPT_ALIGN\n#endif  // {guard}\n"
    )
    return write_atomic(path, text)


def _comment(operator: str) -> str:
    """A custom operator has whatever name its file gives it; a comment must stay one."""
    return re.sub(r"[^\w.-]", "?", operator)
