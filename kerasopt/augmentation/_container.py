"""The layer that runs augmentation layers in training only."""

import copy
import inspect
import json
import random
import types
from collections.abc import Sequence
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt._validation import check_int
from kerasopt.augmentation._keras_cv import keras_cv
from kerasopt.augmentation._rebuild import deserialize, rebuild, seed_stream, serialize


@serializable
class Augmentation(keras.layers.Layer):
    """Runs augmentation layers in training; outside of it the images pass unchanged.

    A KerasCV layer has no `training` argument and would augment at inference too. This container
    is the gate: `fit` sees augmented images, `evaluate` and `predict` see the images as they are,
    and a TFLite file holds none of the random operators. The layers run one after another inside
    one `tf.function` with autograph, so that `Equalization`, `RandAugment` and `AugMix`, whose
    code has Python branches on tensors, work in a compiled training step too.

    The container works on copies: each layer is rebuilt from its config in float32, whatever the
    global dtype policy, and with a seed where its own is `None`. The caller's objects are left
    alone. A layer with weights, such as an adapted `Normalization`, is used as it is.

    Image warps have no XLA kernel, so `supports_jit` is False: with `jit_compile="auto"`, the
    default of `compile`, the model trains without XLA, and `jit_compile=True` makes Keras warn
    and do the same. What runs in a loop of one's own under XLA can apply the container in
    `tf.data` instead.

    Input: images of shape `(batch, height, width, channels)` in the range that the layers expect
    (0–255 for most), integers or floats. Output: the same shape, in the layer's compute dtype.

    Args:
        layers: list of KerasCV layers and Keras preprocessing layers, at least one, applied in
            this order. None may change the size of the images or the number of channels.
        fuse: bool; whether neighbouring layers may be computed together. Layers are run one after
            another so far; a fused computation keeps the distribution of the results, not the
            results of a seed.
        seed: int >= 0 or `None`. The same seed gives the same stream of images in two fresh
            containers. `None` draws one from Python's `random`, which
            `keras.utils.set_random_seed` governs. Layers that come with a seed keep it. Two
            things are outside of its reach: `tf.data` with several parallel calls, and `AugMix`,
            which draws for the images of a batch in no fixed order.
        name: name of the layer, or `None`.
        **kwargs: `dtype` and `trainable`, as for every Keras layer.

    Raises:
        TypeError: `layers` is not a list, or holds something that is not a Keras layer.
        ValueError: `layers` is empty, a layer cannot be rebuilt from its config, `seed` is
            negative, a layer has trainable weights or changes the shape of the images.

    Example:
        >>> import keras
        >>> import kerasopt as ko
        >>> augmentation = ko.augmentation.Augmentation(
        ...     [keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.05)], seed=1
        ... )
        >>> images = keras.ops.ones((2, 32, 32, 3)) * 128
        >>> augmentation(images, training=True).shape
        TensorShape([2, 32, 32, 3])
        >>> bool(keras.ops.all(augmentation(images) == images))
        True
    """

    kerasopt_training_only = True  # what the quantization room needs to know

    def __init__(
        self,
        layers: Sequence[Any],
        *,
        fuse: bool = True,
        seed: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Without autocast: float16 would round the pixels before the first layer sees them.
        super().__init__(name=name, **{**kwargs, "autocast": False})
        _check_layers(layers)
        if not isinstance(fuse, bool):
            raise TypeError(f"`fuse` must be True or False. Received: fuse={fuse!r}.")
        if seed is not None:
            check_int("seed", seed, low=0)
        self.fuse = fuse
        self.seed = seed
        self.supports_jit = False
        self._layer_configs = [serialize(layer) for layer in layers]
        # Like Keras's own seed generators; nothing here is secret.
        seeds = seed_stream(random.getrandbits(31) if seed is None else seed)
        self._chain = [rebuild(layer, seeds) for layer in layers]
        self._seeds = tuple(next(seeds) for _ in self._chain)
        # In a namespace, for TensorFlow exports every tf.function that is an attribute of a layer.
        self._gate = types.SimpleNamespace(
            run=tf.function(self._run_chain, autograph=True, reduce_retracing=True)
        )

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers that run in training: the container's own copies."""
        return tuple(self._chain)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Checks the shape of the images and builds the layers that have something to build."""
        shape = tuple(input_shape)
        if len(shape) != 4:
            raise ValueError(
                "`images` must have the shape (batch, height, width, channels). "
                f"Received: shape={shape}. Add a batch axis to a single image with images[None]."
            )
        for layer in self._chain:
            if _overrides(layer, "compute_output_shape"):
                _check_shape(layer, shape, tuple(layer.compute_output_shape(shape)))
            if _overrides(layer, "build") and not layer.built:
                layer.build(shape)
        if self.trainable_weights:
            names = sorted({weight.path for weight in self.trainable_weights})
            raise ValueError(
                "`layers` must have no trainable weights, for they do not run at inference. "
                f"Received: weights {names}. Put such layers into the model itself."
            )

    def call(self, images: Any, training: bool | None = False) -> Any:
        """Returns the images, augmented when `training` is true."""
        if training:
            images = self._gate.run(tf.cast(images, tf.float32))
        return tf.cast(images, self.compute_dtype)

    def _run_chain(self, images: Any) -> Any:
        shape = images.shape
        for layer, seed in zip(self._chain, self._seeds, strict=True):
            # Several KerasCV layers draw without their own seed: the seed of the graph reaches
            # them. Inside a tf.function this sets the seed of this graph and of no other.
            tf.compat.v1.set_random_seed(seed)
            accepts = inspect.signature(layer.call).parameters
            images = layer(images, training=True) if "training" in accepts else layer(images)
            _check_shape(layer, tuple(shape), tuple(images.shape), static=True)
            images = tf.ensure_shape(tf.cast(images, tf.float32), shape)
        return images

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, the layers as the caller gave them."""
        config: dict[str, Any] = super().get_config()
        config |= {
            "layers": copy.deepcopy(self._layer_configs),
            "fuse": self.fuse,
            "seed": self.seed,
        }
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Augmentation":
        """Builds the container from `get_config`, and imports KerasCV if it holds such layers."""
        if '"module": "keras_cv' in json.dumps(config["layers"]):
            keras_cv()
        layers = [deserialize(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})


def _check_layers(layers: Any) -> None:
    if not isinstance(layers, list | tuple):
        raise TypeError(
            f"`layers` must be a list of Keras layers. Received: layers={layers!r}. "
            "Put a single layer in brackets: [layer]."
        )
    if not layers:
        raise ValueError(
            "`layers` must hold at least one layer. Received: layers=[]. "
            "For a model without augmentation leave the container out."
        )
    for index, layer in enumerate(layers):
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "`layers` must be a list of Keras 3 layers. "
                f"Received: layers[{index}]={layer!r}. Wrap a function in a class "
                "that derives from keras.layers.Layer."
            )


def _check_shape(
    layer: Any, before: tuple[Any, ...], after: tuple[Any, ...], *, static: bool = False
) -> None:
    """Refuses a layer that changes the shape; unknown sizes of a trace are checked when it runs."""
    same = len(before) == len(after) and all(
        a == b or (static and None in (a, b)) for a, b in zip(before, after, strict=True)
    )
    if not same:
        raise ValueError(
            "`layers` must keep the shape of the images, for they do not run at inference. "
            f"Received: layer {layer.name!r} of class {type(layer).__name__}, which makes "
            f"{after} of {before}. Put it into the model, before the augmentation."
        )


def _overrides(layer: Any, method: str) -> bool:
    return getattr(type(layer), method) is not getattr(keras.layers.Layer, method)
