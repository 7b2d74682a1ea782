"""From uniform numbers to the parameters that a layer would have drawn."""

from collections.abc import Callable
from typing import Any

from kerasopt._backend import tf

Draw = Callable[[Any], Any]
"""Maps numbers uniform in [0, 1) to numbers of the wanted distribution, elementwise."""


def kind_of(layer: Any) -> tuple[str, str]:
    """Returns the library and the class of a layer; a subclass is of no library.

    >>> from kerasopt._backend import keras
    >>> kind_of(keras.layers.RandomFlip())
    ('keras', 'RandomFlip')
    """
    cls = type(layer)
    library = cls.__module__.partition(".")[0]
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        library = ""
    return library, cls.__name__


def between(low: float, high: float) -> Draw:
    """Returns the draw that is uniform in `[low, high)`."""
    return lambda uniform: low + uniform * (high - low)


def sign(uniform: Any) -> Any:
    """Returns -1 or 1, each with probability 1/2."""
    return tf.where(uniform > 0.5, -1.0, 1.0)


def factor_draw(factor: Any) -> Draw | None:
    """Returns the draw of one of KerasCV's factor samplers, or `None` if it is of another kind."""
    kind = kind_of(factor)
    if kind == ("keras_cv", "UniformFactorSampler"):
        return between(factor.lower, factor.upper)
    if kind == ("keras_cv", "ConstantFactorSampler"):
        return lambda uniform: tf.zeros_like(uniform) + factor.value
    if kind == ("keras_cv", "NormalFactorSampler"):
        return lambda uniform: tf.clip_by_value(
            factor.mean + factor.stddev * tf.math.ndtri(uniform),
            factor.min_value,
            factor.max_value,
        )
    return None
