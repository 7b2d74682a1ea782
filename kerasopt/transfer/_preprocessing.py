"""The input scaling of each `keras.applications` family, as a layer."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt._validation import check_choice

# `imagenet_utils` is the common helper and `resnet50` a second name of `resnet`.
FAMILIES = tuple(
    module
    for module in dir(keras.applications)
    if hasattr(getattr(keras.applications, module), "preprocess_input")
    and module not in ("imagenet_utils", "resnet50")
)


# What families divide by, subtract, and divide by again, channel by channel.
_DIVISIONS = (
    (127.5, (1.0, 1.0, 1.0), None),  # to [-1, 1]
    (255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # to ImageNet's mean and deviation
)


def family_of(name: str) -> str:
    """Returns the module of `keras.applications` whose `preprocess_input` a model needs."""
    if name.startswith("MobileNetV3"):  # the one family whose module does not list its models
        return "mobilenet_v3"
    return next(f for f in FAMILIES if hasattr(getattr(keras.applications, f), name))


def is_identity(family: str) -> bool:
    """Tells whether a family's `preprocess_input` returns its input (the model scales inside)."""
    # Three different values: no scale, shift or channel flip leaves all of them in place.
    pixel = np.array([[[[1.0, 100.0, 250.0]]]], "float32")
    scaled = getattr(keras.applications, family).preprocess_input(pixel.copy())
    return bool(np.array_equal(scaled, pixel))


@functools.cache
def _scaling(family: str) -> Callable[[Any], Any]:
    """Returns the family's `preprocess_input`, in a form that a compiled graph leaves alone.

    TensorFlow replaces a division by a constant with a multiplication by its reciprocal, which
    rounds differently. The divisors here are no constants to it. Only what agrees with the
    family's own function for every pixel value is used in its place.
    """
    own: Callable[[Any], Any] = getattr(keras.applications, family).preprocess_input
    values = np.arange(256, dtype="float32").reshape(1, 16, 16, 1).repeat(3, axis=-1)
    with tf.init_scope():  # the first call may come from inside a graph
        for steps in _DIVISIONS:
            scale = functools.partial(_divide, steps=steps)
            if np.array_equal(scale(values), own(values.copy())):
                return scale
    return own


def _divide(pixels: Any, steps: Any) -> Any:
    divisor, mean, deviation = steps
    dtype = keras.backend.standardize_dtype(pixels.dtype)
    scaled = pixels / _no_constant(divisor, dtype) - tf.constant(mean, dtype)
    return scaled if deviation is None else scaled / _no_constant(deviation, dtype)


def _no_constant(value: Any, dtype: str) -> Any:
    constant = tf.constant(value, dtype)
    return tf.raw_ops.PlaceholderWithDefault(input=constant, shape=constant.shape)


@serializable
class Preprocess(keras.layers.Layer):
    """Scales raw RGB pixels as a family of `keras.applications` expects them.

    Equal to the family's own `preprocess_input` to the last bit, also in a compiled graph (with
    `jit_compile=True` XLA rounds a division differently, by one unit in the last place). It is an
    affine map of every pixel, preceded by a flip from RGB to BGR for ResNet and VGG, and stands
    inside the model, so that the model takes raw pixels in training, in prediction and on the
    device.

    Args:
        family: a module of `keras.applications` with a `preprocess_input`, such as
            `"mobilenet_v2"` or `"resnet"`.
        **kwargs: `name` and `dtype` of every Keras layer.

    Inputs: raw 0–255 pixels, shape `(batch, height, width, 3)`. Outputs: the same shape.

    Raises:
        ValueError: the family is unknown (the nearest names are offered), or the input does not
            have three channels.

    Example:
        >>> import numpy as np
        >>> float(Preprocess("mobilenet_v2")(np.full((1, 1, 1, 3), 255.0))[0, 0, 0, 0])
        1.0
    """

    kerasopt_pixel_affine = True  # what the quantization room needs to know

    def __init__(self, family: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("family", family, FAMILIES)
        self.family = family

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Checks the number of channels."""
        if input_shape[-1] != 3:
            raise ValueError(
                "`Preprocess` must get RGB images with 3 channels. "
                f"Received: input_shape={tuple(input_shape)}. "
                "Use keras.layers.Rescaling for other images."
            )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Scales a batch of images."""
        pixels = keras.ops.cast(inputs, self.compute_dtype)
        return _scaling(self.family)(pixels)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "family": self.family}
