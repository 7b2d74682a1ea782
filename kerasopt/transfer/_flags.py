"""What trains: the flags of layers and variables, set, remembered and given back."""

import math
from collections.abc import Iterable
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers

BATCH_NORM = ("frozen", "affine", "train")


class Flags:
    """The `trainable` flags of a model's layers and variables as they are now.

    Args:
        model: a built Keras model.
    """

    def __init__(self, model: Any) -> None:
        layers = [model, *_containers(model)]
        layers += [inner for layer in leaves(model) for inner in inner_layers(layer)]
        self._layers = [(layer, layer.trainable) for layer in layers]
        self._variables = [(variable, variable.trainable) for variable in model.variables]

    def restore(self) -> None:
        """Sets every flag back."""
        # From the outside in: a flag set on a container is set on all it holds.
        for layer, flag in self._layers:
            layer.trainable = flag
        for variable, flag in self._variables:
            variable.trainable = flag


def leaves(model: Any) -> list[Any]:
    """Lists a model's layers, nested models opened."""
    return [layer for _, layer in walk_layers(model)]


def open_containers(model: Any) -> None:
    """Makes a model and the models in it trainable, their layers left as they are."""
    # A frozen container hides the flags of its layers; opening it opens them all.
    layers = leaves(model)
    flags = [layer.trainable for layer in layers]
    for container in (model, *_containers(model)):
        container.trainable = True
    for layer, flag in zip(layers, flags, strict=True):
        layer.trainable = flag


def open_layers(layers: Iterable[Any], batch_norm: str) -> None:
    """Makes layers trainable; BatchNormalization, also inside other layers, by its policy."""
    for layer in layers:
        norms = [inner for inner in inner_layers(layer) if is_batch_norm(inner)]
        if not is_batch_norm(layer):
            layer.trainable = True
        for norm in norms:
            norm.trainable = batch_norm == "train"
            if batch_norm == "affine":
                # A frozen layer uses its moving statistics; its variables may train all the same.
                for weight in (norm.gamma, norm.beta):
                    if weight is not None:
                        weight.trainable = True


def close_layers(layers: Iterable[Any]) -> None:
    """Freezes layers and all their variables."""
    for layer in layers:
        layer.trainable = False


def is_batch_norm(layer: Any) -> bool:
    """Tells whether a layer is a BatchNormalization."""
    return isinstance(layer, keras.layers.BatchNormalization)


def trainable_fraction(model: Any) -> float:
    """Returns the share of a model's weights that train now."""
    training = sum(_size(variable) for variable in model.trainable_variables)
    return training / max(1, sum(_size(variable) for variable in model.weights))


def _size(variable: Any) -> int:
    return math.prod(variable.shape)


def _containers(model: Any) -> list[Any]:
    """Lists the models nested in a model, outer ones first."""
    nested = [layer for layer in model.layers if getattr(layer, "layers", None)]
    return nested + [inner for layer in nested for inner in _containers(layer)]


def inner_layers(layer: Any) -> list[Any]:
    """Lists a layer and the layers that it is made of."""
    found: dict[int, Any] = {}

    def visit(value: Any) -> None:
        if isinstance(value, keras.layers.Layer):
            if id(value) not in found:
                found[id(value)] = value
                for inner in vars(value).values():
                    visit(inner)
        elif isinstance(value, list | tuple | set):
            for part in value:
                visit(part)
        elif isinstance(value, dict):
            for part in value.values():
                visit(part)

    visit(layer)
    return list(found.values())
