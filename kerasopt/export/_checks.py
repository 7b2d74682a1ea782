"""What every export asks of a model before it begins."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.export._metadata import check_names
from kerasopt.training import settle


def check_model(model: Any) -> None:
    """Raises unless a model can be exported: built, of a fixed input size, with finite weights.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it cannot be exported as it is.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    settle(model)
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"`model` must be built on known inputs. Received: {model.name!r}. "
            "Give it a keras.Input, or wrap a subclassed model: keras.Model(x, model(x))."
        )
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                "`model` must have a fixed input size. "
                f"Received: input shape {tuple(tensor.shape)}. Build it on a fixed shape."
            )
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
