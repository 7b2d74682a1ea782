"""The range of the pixels: declared once, passed down, compared with the first batch."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._validation import check_number
from kerasopt.augmentation._layer_rules import walk

DEFAULT = (0.0, 255.0)
_SLACK = 0.25  # of the width: bicubic resizing and a layer before may overshoot


def check_value_range(value_range: Any) -> tuple[float, float]:
    """Returns `value_range` as two floats.

    Raises:
        TypeError: it is not a pair of numbers.
        ValueError: it is not increasing.
    """
    if not isinstance(value_range, list | tuple) or len(value_range) != 2:
        raise TypeError(
            "`value_range` must be a pair (low, high). "
            f"Received: value_range={value_range!r}. Pixels as they come are (0, 255)."
        )
    low, high = (check_number("value_range", end) for end in value_range)
    if low >= high:
        raise ValueError(
            "`value_range` must be increasing. "
            f"Received: value_range={value_range!r}. Pixels as they come are (0, 255)."
        )
    return low, high


def agree(declared: Any, layers: Sequence[Any]) -> tuple[float, float]:
    """Returns the one range of a container and its layers.

    Args:
        declared: the argument of the container, or `None`.
        layers: the caller's layers. A range of (0, 255), the default of Keras's layers, gives
            way to another one.

    Raises:
        ValueError: two ranges contradict each other.
        TypeError: `declared` is not a pair of numbers.
    """
    chosen = None if declared is None else check_value_range(declared)
    for layer in layers:
        for inner in walk(layer):
            own = _own_range(inner)
            if own in (None, DEFAULT, chosen):
                continue
            if chosen is not None:
                raise ValueError(
                    "`value_range` must be one for all layers. "
                    f"Received: value_range={chosen}, and layer {inner.name!r} of class "
                    f"{type(inner).__name__} with {own}. Give them the same range."
                )
            chosen = own
    return chosen or DEFAULT


class RangeCheck:
    """Warns at the first batch whose values do not fit the range; later steps skip the look.

    The flag is a variable of TensorFlow outside of the saved weights, so the check works in a
    compiled step and in `tf.data`, and costs the reading of one bool afterwards.

    Args:
        name: name of the container.
        value_range: `(low, high)`.
        layers: the container's layers; without one that has a `value_range` nothing is checked.
    """

    def __init__(self, name: str, value_range: tuple[float, float], layers: Sequence[Any]) -> None:
        every = (inner for layer in layers for inner in walk(layer))
        layer = next((inner for inner in every if _own_range(inner) is not None), None)
        self._warn = None
        if layer is not None:
            title = f"{layer.name!r} of class {type(layer).__name__}"
            self._warn = functools.partial(_compare, name, value_range, title)
            self._done = tf.Variable(False, trainable=False)

    def __call__(self, images: Any) -> None:
        """Adds the check to the graph. `images` are `(batch, height, width, channels)`."""
        if self._warn is not None:
            tf.cond(self._done, lambda: True, lambda: self._look(tf.cast(images, tf.float32)))

    def _look(self, images: Any) -> Any:
        self._done.assign(True)
        flat = images.flat_values if isinstance(images, tf.RaggedTensor) else images
        flat = tf.cast(flat, tf.float32)
        inside = tf.reduce_any(tf.logical_and(flat > 0.0, flat < 1.0))
        ends = (tf.reduce_min(flat), tf.reduce_max(flat), inside)
        return tf.numpy_function(self._warn, ends, tf.bool)


def _compare(
    name: str, value_range: tuple[float, float], layer: str, low: Any, high: Any, inside: Any
) -> Any:
    width = value_range[1] - value_range[0]
    beyond = low < value_range[0] - _SLACK * width or high > value_range[1] + _SLACK * width
    # A dark photo may end at 1, but only pixels that were scaled lie between 0 and 1.
    scaled = value_range[1] > 2.0 and low >= 0.0 and high <= 1.0 and bool(inside)
    if beyond or scaled:
        warnings.warn(
            f"`value_range` of {name!r} must be the range of the images. "
            f"Received: value_range={value_range}, and images from {low:.3g} to {high:.3g}, for "
            f"layer {layer}. Pass the range that the images have, such as value_range=(0, 1).",
            UserWarning,
            stacklevel=2,
        )
    return np.True_


def _own_range(layer: Any) -> tuple[float, float] | None:
    try:
        own = layer.get_config().get("value_range")
    except (NotImplementedError, AttributeError, TypeError):
        return None  # `rebuild` says what is wrong
    if own is None or len(own) != 2:
        return None
    return float(own[0]), float(own[1])
