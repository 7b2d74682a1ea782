"""What every export asks of a model before it begins."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.export._metadata import check_names
from kerasopt.training import settle

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*")
"""Names that TensorFlow takes for a tensor."""
_FAILURES = (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a `call` that takes arrays alone may end in on symbolic inputs."""
_RANDOM = ("RANDOM", "MULTINOMIAL", "RNG")
"""What the names of operators that draw have in them, in all formats."""


def checked_model(model: Any) -> Any:
    """Returns a model to export, after checks: built, of a fixed input size, with finite weights.

    A subclassed model, whose inputs Keras does not keep, is wrapped in a functional one.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it cannot be exported as it is.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    settle(model)
    if model.built and not getattr(model, "inputs", None):
        model = _wrapped(model)
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"`model` must be built on known inputs. Received: {model.name!r}. "
            "Give it a keras.Input, or wrap a subclassed model: keras.Model(x, model(x))."
        )
    _check_tensors(model)
    _check_weights(model)
    return model


def _wrapped(model: Any) -> Any:
    """Returns a functional model around a subclassed one, on the shapes it was built on."""
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        return model
    # A shape is a tuple of sizes; several are in a dict or in a list.
    inputs: Any
    try:
        if isinstance(shapes, dict):
            inputs = {name: keras.Input(shape[1:], name=name) for name, shape in shapes.items()}
        elif isinstance(shapes[0], tuple | list):
            inputs = [keras.Input(s[1:], name=f"input_{i}") for i, s in enumerate(shapes)]
        else:
            inputs = keras.Input(shapes[1:], name="input")
        return keras.Model(inputs, model(inputs), name=model.name)
    except _FAILURES as error:
        raise ValueError(
            "`model` must run on symbolic inputs of the shape on which it was built. "
            f"Received: {model.name!r}, a {type(model).__name__} built on {shapes}, which does "
            f"not ({_reason(error)}). Wrap it on inputs of its own types: "
            "keras.Model(x, model(x))."
        ) from error


def _reason(error: Exception) -> str:
    """Returns the line of an error of Keras that says what happened."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception encountered")]
    return (telling or lines or [type(error).__name__])[0][:300]


def _check_tensors(model: Any) -> None:
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                "`model` must have a fixed input size. "
                f"Received: input shape {tuple(tensor.shape)}. Build it on a fixed shape."
            )
        if not _NAME.fullmatch(tensor.name):
            raise ValueError(
                "`model` must have inputs with names of the letters a to z, digits, and behind the "
                f"first one _ . - too, which stand in the file. Received: {tensor.name!r}. "
                "Give it a keras.Input(..., name=...) of these alone."
            )
    if len({id(tensor) for tensor in model.outputs}) < len(model.outputs):
        raise ValueError(
            "`model` must have outputs that are different tensors. Received: "
            f"{len(model.outputs)} outputs of {model.name!r}, some of them the same tensor. "
            "Give it once."
        )


def _check_weights(model: Any) -> None:
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(
                f"`model` must have finite weights. Received: NaN or infinity in {weight.path!r}. "
                "Lower the learning rate or clip gradients."
            )


def check_labels(labels: Sequence[str] | None, model: Any) -> tuple[str, ...] | None:
    """Returns the class names of a model, after checking that there is one for each output."""
    if labels is None:
        return None
    if len(model.outputs) > 1:
        raise ValueError(
            "`labels` must name the classes of a model with one output. "
            f"Received: labels={labels!r} for {len(model.outputs)} outputs."
        )
    outputs = model.outputs[0].shape[-1]
    if isinstance(labels, str) or len(labels) != outputs:
        raise ValueError(
            f"`labels` must be a list of {outputs} class names, one for each output. "
            f"Received: {labels!r}."
        )
    return check_names(labels)


def check_operators(operators: Sequence[str]) -> None:
    """Raises ValueError when a file draws at random: augmentation that is never off."""
    drawn = sorted({name for name in operators if any(word in name.upper() for word in _RANDOM)})
    if drawn:
        raise ValueError(
            "`model` must compute the same for the same input. Received: a file that draws "
            f"random numbers ({', '.join(drawn)}). Put augmentation layers into "
            "ko.augmentation.Augmentation, which is gone from every file."
        )
