"""Whose fault it is that a model cannot be converted: the Keras layer, and what to use instead."""

import re
from collections.abc import Iterable
from typing import Any

from kerasopt._layer_filter import walk_layers

_PLACE = re.compile(r'fused\["(\w+):", "([^"@]+)@')
_NEEDED = re.compile(r"^(TF Select|Custom) ops: (.+)$", re.MULTILINE)

_INSTEAD: tuple[tuple[str, str], ...] = (
    ("Erf", "the tanh form of GELU, or keras.ops.tanh"),
    ("PyFunc|EagerPyFunc", "keras.ops: Python code cannot run inside a file"),
    (
        r"\w*Random\w*|ImageProjectiveTransform\w*|Adjust(Hue|Saturation|Contrast)\w*",
        "ko.augmentation, which is not in the file, or augment in the data pipeline",
    ),
    (r"R?I?FFT\w*", "a Dense layer with the transform as its kernel, or the data pipeline"),
    (
        "Svd|Qr|MatrixInverse|MatrixSolve|Cholesky|SelfAdjointEigV2",
        "a constant that is computed beforehand",
    ),
    (r"StridedSlice|Shape|Reshape", "fixed sizes: batch_size=1"),
    (
        r"\w*Lookup\w*|String\w*|Regex\w*|StaticRegex\w*",
        "the data pipeline, and whole numbers here",
    ),
    ("ResizeBicubic|ResizeArea|ScaleAndTranslate", 'interpolation="bilinear" or "nearest"'),
    ("(Avg|Max)Pool3D", "a Conv3D with strides"),
    ("DenseBincount|Bincount", "keras.ops.one_hot and keras.ops.sum over its result"),
    (
        "BitwiseAnd",
        "the scores as the output, and their argmax in the app (keras.ops.argmax is made of it)",
    ),
    ("CropAndResize", "a slice of fixed size and keras.layers.Resizing"),
)


def explain(error: Exception, model: Any) -> str:
    """Returns what is wrong with a model, in the voice of all errors.

    Args:
        error: of the converter, whose text names operators and places in the graph.
        model: what was converted.
    """
    text = str(error)
    needed = {kind: names.split(", ") for kind, names in _NEEDED.findall(text)}
    operators = [name.strip() for names in needed.values() for name in names]
    if not operators:
        return (
            f"The model {model.name!r} cannot become a TFLite file of builtin operators. "
            f"Received from the converter: {_reason(text, error)}"
        )
    places = dict.fromkeys(place for place in _PLACE.findall(text) if place[0] in operators)
    # What is converted is the model with a batch size, inside which the user's model stands.
    own = f"{model.name}/"
    layers = [path.removeprefix(own) for path, _ in walk_layers(model)]
    blamed = [f"{kind} in {_layer(scope, layers)}" for kind, scope in places] or operators
    return (
        f"The model {model.name!r} must consist of what TFLite has as builtin operators. "
        f"Received: {'; '.join(dict.fromkeys(blamed))}. {_advice(operators, 'Custom' in needed)}"
    )


def _layer(scope: str, layers: Iterable[str]) -> str:
    """Finds the innermost layer whose name is a part of a place in the graph.

    TensorFlow numbers names that it has met before: `dense` may be `dense_1` there.
    """
    parts = scope.split("/")[:-1]
    known = {path.split("/")[-1]: path for path in layers}
    for part in reversed(parts):
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in known:
                return f"the layer {known[name]!r}"
    return "an operation of the model itself, outside of its layers"


def _advice(operators: list[str], custom: bool) -> str:
    found = [
        f"for {name} {instead}"
        for name in operators
        for pattern, instead in _INSTEAD
        if re.fullmatch(pattern, name)
    ]
    text = f"Use {'; '.join(found)}. " if found else "Build it from other operations of keras.ops. "
    if custom:
        return text.rstrip()
    return f"{text}Or pass allow_flex=True for a file that needs the Flex delegate."


def _reason(text: str, error: Exception) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line or "not supported" in line]
    return (telling or lines or [type(error).__name__])[0][:400]
