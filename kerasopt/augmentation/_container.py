"""The layer that runs augmentation layers in training only."""

import contextlib
import json
import random
import types
from collections.abc import Iterator, Sequence
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt._validation import check_int
from kerasopt.augmentation._calls import apply
from kerasopt.augmentation._checks import (
    agree_on_boxes,
    check_layers,
    check_same_shape,
    check_shape,
    refuse_images_alone,
)
from kerasopt.augmentation._dictionary import (
    box_count,
    check_dictionary,
    check_keys,
    prepare,
    restore,
    run_layer,
    run_segment,
)
from kerasopt.augmentation._fusion import Fusion
from kerasopt.augmentation._keras_cv import keras_cv
from kerasopt.augmentation._layer_rules import (
    at_inference,
    boxes_layer,
    flat,
    makes_ragged,
    mixing_layer,
    output_shape,
    repeating_layer,
    unwrapped,
)
from kerasopt.augmentation._rebuild import (
    deserialize,
    float32_policy,
    rebuild,
    seed_stream,
    serialize,
)
from kerasopt.augmentation._value_range import RangeCheck, agree


@serializable
class Augmentation(keras.layers.Layer):
    """Runs augmentation layers in training; outside of it the images pass unchanged.

    A KerasCV layer has no `training` argument and would augment at inference too. This container
    is the gate: `fit` sees augmented images, `evaluate` and `predict` see the images as they are,
    and a TFLite file holds none of the random operators. The layers run one after another inside
    one `tf.function` with autograph, so that `Equalization`, `RandAugment` and `AugMix`, whose
    code has Python branches on tensors, work in a compiled training step too. With `fuse`,
    neighbouring geometric layers become one warp, neighbouring colour layers one pass.

    Layers that change the size of the images may stand in it. At inference they alone run, each
    in its deterministic form: `Resizing` and `CenterCrop` as they are, a random crop or resize as
    `keras.layers.Resizing(height, width, crop_to_aspect_ratio=True)`, which takes the largest
    centred window of the new aspect ratio. So the output has one shape in training and at
    inference. Layers that prepare the values (`Rescaling`, `Normalization`) are refused: a model
    needs them at inference too.

    The container works on copies: each layer is rebuilt from its config in float32, whatever the
    global dtype policy, and with a seed where its own is `None`. The caller's objects are left
    alone. A layer with weights is used as it is.

    Image warps have no XLA kernel, so `supports_jit` is False: with `jit_compile="auto"`, the
    default of `compile`, the model trains without XLA, and `jit_compile=True` makes Keras warn
    and do the same. What runs in a loop of one's own under XLA can apply the container in
    `tf.data` instead.

    Input: images of shape `(batch, height, width, channels)`, integers or floats, in
    `value_range`. Output: images in the layer's compute dtype, of the same shape unless a layer
    changes it. In `tf.data`, or called eagerly, also a dictionary in KerasCV's format:
    `"images"` and any of `"labels"`, `"bounding_boxes"` (`{"boxes": (batch, boxes, 4),
    "classes": (batch, boxes)}`, dense with class -1 for padding, or ragged),
    `"segmentation_masks"` `(batch, height, width, 1)`, `"keypoints"`. Boxes and masks are moved
    with their image. Labels and every other key pass, unless a layer mixes labels.

    Args:
        layers: list of KerasCV layers and Keras preprocessing layers, at least one, applied in
            this order. None may change the number of channels.
        value_range: `(low, high)` of the pixels, passed down to every layer that has one, or
            `None`: that of the layers, `(0, 255)` where they name no other. The first batch that
            does not fit, such as photos of 0 to 1, raises a warning that names the layer.
        bounding_box_format: one of KerasCV's formats, such as `"xyxy"` or `"rel_xywh"`, for
            dictionaries with boxes; `None` takes that of the layers.
        fuse: bool; whether neighbouring layers may be computed together. A fused computation
            keeps the distribution of the results, not the results of a seed.
        seed: int >= 0 or `None`. The same seed gives the same stream of images in two fresh
            containers. `None` draws one from Python's `random`, which
            `keras.utils.set_random_seed` governs. Layers that come with a seed keep it. Two
            things are outside of its reach: `tf.data` with several parallel calls, and KerasCV's
            `AugMix`, whose loops draw in no fixed order.
        name: name of the layer, or `None`.
        **kwargs: `dtype` and `trainable`, as for every Keras layer.

    Raises:
        TypeError: `layers` is not a list, or holds something that is not a Keras layer.
        ValueError: `layers` is empty, a layer cannot be rebuilt from its config, `seed` is
            negative, a layer has trainable weights, changes the number of channels or does not
            belong here; two layers name different ranges. When called: wrong rank, channels
            first, a layer that needs labels or boxes and does not get them.

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

    def __init__(
        self,
        layers: Sequence[Any],
        *,
        value_range: tuple[float, float] | None = None,
        bounding_box_format: str | None = None,
        fuse: bool = True,
        seed: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Without autocast: float16 would round the pixels before the first layer sees them.
        super().__init__(name=name, **{**kwargs, "autocast": False})
        check_layers(layers)
        if not isinstance(fuse, bool):
            raise TypeError(f"`fuse` must be True or False. Received: fuse={fuse!r}.")
        if seed is not None:
            check_int("seed", seed, low=0)
        self.fuse = fuse
        self.seed = seed
        self.value_range = agree(value_range, layers)
        self.bounding_box_format = agree_on_boxes(bounding_box_format, layers)
        self.supports_jit = False
        # As text: a list would be tracked by Keras, and copied with all that hangs on it.
        self._layer_configs = json.dumps([serialize(layer) for layer in layers])
        # Like Keras's own seed generators; nothing here is secret.
        seeds = seed_stream(random.getrandbits(31) if seed is None else seed)
        boxes = self.bounding_box_format is not None
        self._chain = [
            rebuild(layer, seeds, value_range=self.value_range, takes_boxes=boxes)
            for layer in flat(layers)
        ]
        self._seeds = tuple(next(seeds) for _ in self._chain)
        self._resizers: list[Any] = []
        # In a namespace, for TensorFlow exports every tf.function that is an attribute of a layer.
        self._gate = types.SimpleNamespace(
            run=tf.function(self._run_images, autograph=True, reduce_retracing=True),
            run_dictionary=tf.function(self._run_dictionary, autograph=True, reduce_retracing=True),
            fusion=Fusion(self._chain, self._seeds) if fuse else None,
            check=RangeCheck(self.name, self.value_range, self._chain),
            needs=self._needs_of_layers(),
        )

    @property
    def kerasopt_training_only(self) -> bool:
        """Whether the built layer is the identity at inference; the quantization room asks."""
        return not self._resizers

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers that run in training: the container's own copies, a `Pipeline` opened."""
        return tuple(unwrapped(layer) for layer in self._chain)

    def build(self, input_shape: Any) -> None:
        """Checks the shape of the images and builds the layers that have something to build."""
        shape = _images_shape(input_shape)
        check_shape(shape)
        self._resizers = []
        for layer in self._chain:
            after = output_shape(layer, shape)
            check_same_shape(layer, (shape[0], shape[3]), (after[0], after[3]))
            if _overrides(layer, "build") and not layer.built:
                layer.build(shape)
            twin = at_inference(layer, shape, after)
            if twin is not None:
                self._resizers.append(twin)
            shape = after
        self._check_end(shape)
        if self.trainable_weights:
            names = sorted({weight.path for weight in self.trainable_weights})
            raise ValueError(
                "`layers` must have no trainable weights, for they do not run at inference. "
                f"Received: weights {names}. Put such layers into the model itself."
            )

    def call(self, images: Any, training: bool | None = False) -> Any:
        """Returns the images, or the dictionary, augmented when `training` is true."""
        if isinstance(images, dict):
            return self._call_dictionary(images, training)
        for layer, needed in self._gate.needs:
            refuse_images_alone(layer, needed)
        if training:
            # Bytes stay bytes until the first layer: a fused warp reads them as they are.
            is_bytes = tf.is_tensor(images) and images.dtype == tf.uint8
            images = self._gate.run(images if is_bytes else tf.cast(images, tf.float32))
        for layer in () if training else self._resizers:
            images = layer(tf.cast(images, tf.float32))
        return tf.cast(images, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape behind the layers, the same in training and at inference."""
        if isinstance(input_shape, dict):
            raise TypeError(
                "A dictionary must hold tensors or arrays, not inputs of a functional model. "
                f"Received: keys {sorted(input_shape)}. Call the layer in tf.data, with .map()."
            )
        shape = _images_shape(input_shape)
        for layer in self._chain:
            shape = output_shape(layer, shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, the layers as the caller gave them."""
        config: dict[str, Any] = super().get_config()
        config |= {
            "layers": json.loads(self._layer_configs),
            "value_range": list(self.value_range),
            "bounding_box_format": self.bounding_box_format,
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

    def _needs_of_layers(self) -> list[tuple[Any, str]]:
        """Lists layers that images alone do not do for, with what each needs."""
        finders = {
            boxes_layer: "bounding boxes",
            mixing_layer: "labels",
            repeating_layer: "labels",
        }
        found = [(find(self._chain), needed) for find, needed in finders.items()]
        return [(layer, needed) for layer, needed in found if layer is not None]

    def _check_end(self, shape: tuple[Any, ...]) -> None:
        ragged = [layer for layer in self._chain if makes_ragged(layer)]
        if ragged and None in shape[1:3]:
            raise ValueError(
                "`layers` must end with images of one size. "
                f"Received: layer {ragged[-1].name!r} of class {type(ragged[-1]).__name__}, which "
                "gives each image its own. Put a layer behind it that makes one size, such as "
                "keras_cv.layers.Resizing(224, 224, pad_to_aspect_ratio=True)."
            )

    def _run_images(self, images: Any) -> Any:
        """Runs the chain on a batch; traced."""
        self._gate.check(images)
        start = 0
        with float32_policy():
            while start < len(self._chain):
                segment = self._segment(start, images)
                if segment is None:
                    images = self._run_layer(start, tf.cast(images, tf.float32))
                    start += 1
                else:
                    images = segment(images)
                    start += segment.num_layers
        return images

    def _call_dictionary(self, inputs: dict[str, Any], training: bool | None) -> dict[str, Any]:
        check_dictionary(inputs, self._chain, self.bounding_box_format)
        if training:
            data = self._gate.run_dictionary(inputs)
        else:
            data = prepare(inputs, self.bounding_box_format) if self._resizers else inputs
            for layer in self._resizers:
                data = run_layer(layer, data, layer)
            if self._resizers:
                count = box_count(inputs, self._resizers)
                data = restore(data, inputs, self.bounding_box_format, count)
        return {**data, "images": tf.cast(data["images"], self.compute_dtype)}

    def _run_dictionary(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Runs the chain on a dictionary; traced."""
        data = prepare(inputs, self.bounding_box_format)
        self._gate.check(data["images"])
        start = 0
        with float32_policy():
            while start < len(self._chain):
                segment = None if "keypoints" in data else self._segment(start, data["images"])
                if segment is None:
                    data = self._run_layer_on_dictionary(start, data)
                    start += 1
                else:
                    data = run_segment(segment, data)
                    start += segment.num_layers
        return restore(data, inputs, self.bounding_box_format, box_count(inputs, self._chain))

    def _segment(self, start: int, images: Any) -> Any:
        """Returns the fused segment that begins at a layer, or `None`."""
        if self._gate.fusion is None or isinstance(images, tf.RaggedTensor):
            return None
        segment = self._gate.fusion.segment(start, tuple(images.shape[1:]))
        return None if segment.kind == "layer" else segment

    def _run_layer(self, index: int, images: Any) -> Any:
        layer = self._chain[index]
        before = tuple(images.shape)
        with _seeded(self._seeds[index]):
            images = apply(layer, images)
        expected = output_shape(layer, before)
        check_same_shape(layer, expected, tuple(images.shape), static=True)
        if isinstance(images, tf.RaggedTensor):
            return images
        return tf.ensure_shape(tf.cast(images, tf.float32), expected)

    def _run_layer_on_dictionary(self, index: int, data: dict[str, Any]) -> dict[str, Any]:
        layer = self._chain[index]
        with _seeded(self._seeds[index]):
            return run_layer(layer, data, lambda inputs: apply(layer, inputs))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds what is traced within, where a layer draws without a seed of its own.

    Several KerasCV layers do: the seed of the graph reaches them. Inside a `tf.function` it is
    the seed of this graph and of no other. Keras's `AugMix` draws from Python's `random`.
    """
    tf.compat.v1.set_random_seed(seed)
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _images_shape(input_shape: Any) -> tuple[Any, ...]:
    if isinstance(input_shape, dict):
        check_keys(input_shape)
        input_shape = input_shape["images"]
    return tuple(input_shape)


def _overrides(layer: Any, method: str) -> bool:
    return getattr(type(layer), method) is not getattr(keras.layers.Layer, method)
