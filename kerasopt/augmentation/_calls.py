"""How a layer is called on a batch, so that the images draw for themselves and in order."""

import inspect
from typing import Any

from kerasopt._backend import tf
from kerasopt.augmentation._layer_rules import draws_per_image, is_keras_cv, unwrapped


def apply(layer: Any, inputs: Any) -> Any:
    """Calls a layer in training mode, on one image after another where it needs that.

    Args:
        layer: a layer of the container's chain.
        inputs: images `(batch, height, width, channels)`, or a dictionary with such images and
            what goes with them, all of it float32.
    """
    if isinstance(inputs, dict):
        # KerasCV's own loop knows what shape its boxes have; of Keras's they are dense.
        in_order = draws_per_image(layer) and not is_keras_cv(unwrapped(layer))
        signature = tf.nest.map_structure(lambda _: tf.float32, inputs)
    else:
        in_order = draws_per_image(layer)
        # A layer that makes images of different sizes says so by its signature.
        own = getattr(unwrapped(layer), "compute_image_signature", None)
        signature = own(inputs) if own else tf.float32
    if in_order:
        return tf.map_fn(layer.call, inputs, parallel_iterations=1, fn_output_signature=signature)
    accepts = inspect.signature(layer.call).parameters
    return layer(inputs, training=True) if "training" in accepts else layer(inputs)
