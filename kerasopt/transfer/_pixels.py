"""A look at the first batch: pixels that were scaled before, for a model that scales itself."""

import warnings
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._data import batches
from kerasopt._layer_filter import walk_layers
from kerasopt.transfer._preprocessing import Preprocess


def warn_if_scaled(model: Any, data: Any, *, name: str) -> None:
    """Warns when images that seem scaled go into a model that scales raw pixels itself.

    Looks at one batch, and at nothing that can be read only once.

    Args:
        model: a built model.
        data: what `fit` is given.
        name: the argument that holds the data, for the message.
    """
    scaling = _scaling_layer(model)
    if scaling is None or hasattr(data, "__next__"):
        return
    images, _ = next(batches(data, name=name))
    images = np.asarray(images, "float32")
    if images.ndim == 4 and images.size and images.max() <= 1.0 and images.max() > images.min():
        warnings.warn(
            f"The model scales raw pixels (0 to 255) itself, in its layer {scaling!r}, but the "
            f"images of `{name}` lie between {images.min():.2f} and {images.max():.2f}: they seem "
            "scaled already, and would be scaled twice. Remove the scaling from the data.",
            stacklevel=3,
        )


def _scaling_layer(model: Any) -> str | None:
    """Returns the name of the layer that makes 0 to 255 small, if there is one."""
    for _, layer in walk_layers(model):
        small = isinstance(layer, keras.layers.Rescaling) and np.max(np.abs(layer.scale)) < 0.02
        if small or isinstance(layer, Preprocess):
            return str(layer.name)
    return None
