"""A look at the first batch: pixels that were scaled before, for a model that scales itself."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers
from kerasopt.transfer._preprocessing import Preprocess


def warn_if_scaled(model: Any, first_batch: Callable[[], Any], *, name: str) -> None:
    """Warns when images that seem scaled go into a model that scales raw pixels itself.

    Args:
        model: a built model.
        first_batch: gives the first `(x, y)`, or `None` for data that can be read only once;
            asked only when the model scales.
        name: the argument that holds the data, for the message.
    """
    scaling = _scaling_layer(model)
    batch = None if scaling is None else first_batch()
    if batch is None:
        return
    images = np.asarray(batch[0], "float32")
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
