"""Code that loads the shipped file: in Python, Kotlin, Swift and the browser."""

import pathlib
from typing import Any

from kerasopt import _litert_js
from kerasopt.report._data import FileRow, Signature
from kerasopt.report._page import text

_LANGUAGES = (
    ("Python", "LiteRT's interpreter, without kerasopt", "load.py.j2"),
    ("Python with kerasopt", "photos prepared as in training", "load_kerasopt.py.j2"),
    ("Kotlin", "Android, LiteRT's interpreter", "load.kt.j2"),
    ("Swift", "iOS, TensorFlowLiteSwift", "load.swift.j2"),
    ("Browser", "LiteRT.js", "load.js.j2"),
)


def snippets(file: FileRow, signature: Signature, classes: int) -> list[dict[str, str]]:
    """Returns title, detail and text of each, with the file's name, shapes and dtypes in it."""
    path = pathlib.PurePath(file.name)
    height, width, channels = signature.input_shape
    facts: dict[str, Any] = {
        "name": file.name,
        "stem": path.stem,
        "suffix": path.suffix.removeprefix("."),
        "height": height,
        "width": width,
        "channels": channels,
        "shape": (1, height, width, channels),
        "classes": classes,
        "input_dtype": signature.input_dtype,
        "output_dtype": signature.output_dtype,
        "scale": signature.output_scale,
        "zero_point": signature.output_zero_point,
        "logits": signature.logits,
        "litert_js": _litert_js.VERSION,
    }
    return [
        {"title": title, "detail": detail, "text": text(template, **facts)}
        for title, detail, template in _LANGUAGES
    ]


def taken(signature: Signature) -> str:
    """Returns what the file takes in words."""
    height, width, channels = signature.input_shape
    colours = "RGB" if channels == 3 else "grey"
    return f"one photo of {height} × {width} {colours} pixels as {signature.input_dtype}"
