"""`load_float_weights`: a float checkpoint into a quantization-aware model."""

import os
import warnings
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.quantization._flat import flat_functional
from kerasopt.quantization._renamed import copy_model, original
from kerasopt.quantization._twin import (
    check_quantization_aware,
    is_quantization_aware,
    strip_ranges,
)
from kerasopt.quantization._variables import WithVariables
from kerasopt.training import settle


def load_float_weights(model: Any, source: Any) -> None:
    """Gives a quantization-aware model the weights of the float model it was made from.

    Layers are found by their names. Ranges stay as they are: calibrate or train the model behind
    it, where the activations of these weights are others.

    Args:
        model: what `quantize_aware` returned, a reloaded one too. Its weights are set.
        source: a float model with the layers of that from which `model` was made, or the path of
            its weights as `save_weights` writes them. Weights of a model that has nested models
            fit that model alone, so load them there and pass the model.

    Raises:
        TypeError: `source` is neither a model nor a path.
        ValueError: `model` is not quantization-aware, `source` is, or its layers or their shapes
            are others; nothing is changed then.

    Example:
        >>> import keras, kerasopt as ko
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, name="dense")])
        >>> aware = ko.quantization.quantize_aware(model)
        >>> model.set_weights([w + 1.0 for w in model.get_weights()])
        >>> load_float_weights(aware, model)
        >>> bool((aware.get_layer("dense").layer.bias == 1.0).numpy().all())
        True
    """
    check_quantization_aware(model)
    settle(model)
    bare = strip_ranges(model)
    mine = _weighted(bare)
    theirs = _weighted(_read(bare, source))
    if set(mine) != set(theirs):
        other = sorted(set(mine) ^ set(theirs))[0]
        where = "missing in `source`" if other in mine else f"unknown to {model.name!r}"
        raise ValueError(
            "`source` must have the layers of the model that was quantized. "
            f"Received: the layer {other!r}, which is {where}."
        )
    values = {name: layer.get_weights() for name, layer in theirs.items()}
    for name, layer in mine.items():
        shapes = [tuple(v.shape) for v in layer.weights]
        found = [np.shape(value) for value in values[name]]
        if shapes != found:
            raise ValueError(
                f"`source` must have weights of the shapes {shapes} in {name!r}. Received: {found}."
            )
    for name, layer in mine.items():
        layer.set_weights(values[name])


def _weighted(model: Any) -> dict[str, Any]:
    """Lists layers by name, and operations with weights, whose names Keras counts, in order."""
    found: dict[str, Any] = {}
    count = 0
    for layer in model.layers:
        if isinstance(original(layer), WithVariables):
            found[f"operation {count} with weights"] = layer
            count += 1
        elif layer.weights:
            found[layer.name] = layer
    return found


def _read(bare: Any, source: Any) -> Any:
    """Returns a flat float model with the weights of a model or file."""
    if isinstance(source, keras.Model):
        if is_quantization_aware(source):
            raise ValueError(
                f"`source` must be a float model. Received: {source.name!r}, which is "
                "quantization-aware. Pass ko.quantization.strip of it."
            )
        return flat_functional(source, own_layers=True)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "`source` must be a float model, or the path of its weights. "
            f"Received: source of type {type(source).__name__}."
        )
    copy = copy_model(bare)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Keras goes on without what a file does not hold
            copy.load_weights(source)
    except (KeyError, UserWarning, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            "`source` must hold the weights of the float model, without nested models. "
            f"Received: {os.fspath(source)!r} ({reason}). "
            "Load them into the float model, and pass that."
        ) from error
    return copy
