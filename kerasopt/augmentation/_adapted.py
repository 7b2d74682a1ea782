"""Layers of KerasCV that fail, or do something else, as they are called in a container."""

import types
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt.augmentation._layer_rules import kinds

Range = tuple[float, float]

# They index a table with the pixels, or cast them to 8 bits.
_CLIPPED = frozenset({"keras_cv.AugMix", "keras_cv.Equalization", "keras_cv.Posterization"})
# TensorFlow's JPEG codec takes floats of 0 to 1 and nothing else.
_UNIT = frozenset({"keras_cv.RandomJpegQuality"})
# A branch on a tensor, which the layers around it hide from autograph.
_BRANCHES = frozenset({"keras_cv.RandomApply"})


def adapt(layer: Any, value_range: Range) -> Any:
    """Returns the layer, or the layer in an `Adapted` where it needs one."""
    if kinds(layer) & _UNIT:
        return Adapted(layer, value_range, (0.0, 1.0))
    if kinds(layer) & _CLIPPED:
        return Adapted(layer, value_range, value_range)
    if kinds(layer) & _BRANCHES:
        return Adapted(layer)
    return layer


class Adapted(keras.layers.Layer):
    """Runs a layer in a `tf.function` of its own, with the images in the range that it takes.

    Args:
        layer: a layer of KerasCV.
        outer: `(low, high)` of the images, which are clipped to it; `None` leaves them alone.
        inner: `(low, high)` of what the layer takes and returns.
    """

    def __init__(self, layer: Any, outer: Range | None = None, inner: Range | None = None) -> None:
        super().__init__(name=layer.name, dtype="float32")
        self.adapted = layer
        self.outer = outer
        self.inner = inner
        self.built = True
        # In a namespace, for TensorFlow exports every tf.function that is an attribute of a layer.
        self._traced = types.SimpleNamespace(call=tf.function(layer.call, autograph=True))

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layer."""
        return (self.adapted,)

    @property
    def seed(self) -> Any:
        """The seed of the layer."""
        return getattr(self.adapted, "seed", None)

    def call(self, inputs: Any) -> Any:
        """Returns images, or a dictionary with images, behind the layer."""
        if not isinstance(inputs, dict):
            return self._scale(self._traced.call(self._scale(inputs)), back=True)
        scaled = self._traced.call({**inputs, "images": self._scale(inputs["images"])})
        return {**scaled, "images": self._scale(scaled["images"], back=True)}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def _scale(self, images: Any, *, back: bool = False) -> Any:
        images = tf.cast(images, tf.float32)
        if self.outer is None or self.inner is None:
            return images
        if not back:
            images = tf.clip_by_value(images, *self.outer)
        if self.inner == self.outer:
            return images
        low, high = self.inner if back else self.outer
        new_low, new_high = self.outer if back else self.inner
        return (images - low) * ((new_high - new_low) / (high - low)) + new_low
