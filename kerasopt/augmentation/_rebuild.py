"""Copies of the caller's layers: float32 whatever the policy, every open seed filled."""

import contextlib
import inspect
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt.augmentation._adapted import adapt
from kerasopt.augmentation._layer_rules import box_format, is_keras_cv, kinds

_LARGEST_SEED = 2**31 - 1
DEFAULT_RANGE = (0.0, 255.0)


def seed_stream(seed: int) -> Iterator[int]:
    """Yields distinct-by-design seeds of `[1, 2**31)`, the same ones for the same `seed`.

    Never 0: KerasCV reads a seed of 0 as no seed.
    """
    generator = np.random.default_rng(seed)
    while True:
        yield int(generator.integers(1, _LARGEST_SEED))


@contextlib.contextmanager
def float32_policy() -> Iterator[None]:
    """Lets layers that are made inside of other layers work in float32 too."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def rebuild(
    layer: Any,
    seeds: Iterator[int],
    *,
    value_range: tuple[float, float] = DEFAULT_RANGE,
    takes_boxes: bool = False,
) -> Any:
    """Returns a copy of a layer in float32 with seeds where it had none.

    A layer with weights is returned as it is, for its values are not in its config.

    Args:
        layer: a Keras layer.
        seeds: where missing seeds come from.
        value_range: what the copy's own `value_range` is set to, and that of layers within it.
        takes_boxes: whether the copy is given a format of boxes, see `box_format`.

    Raises:
        ValueError: the layer cannot be rebuilt from its config.
    """
    if layer.weights:
        return layer
    passed_down = {"value_range": value_range, "takes_boxes": takes_boxes}
    with _needs_config(layer), float32_policy(), _own_generator(layer, next(seeds)):
        config = _fill(config_of(layer), seeds, passed_down)
        if "dtype" in config:
            config["dtype"] = "float32"
        if "auto_vectorize" in config:
            config["auto_vectorize"] = False  # KerasCV's RandomApply branches on a tensor
        copy = type(layer)(**config) if _is_pipeline(layer) else type(layer).from_config(config)
    copy.dtype_policy = "float32"
    if takes_boxes and hasattr(copy, "bounding_box_format"):
        copy.bounding_box_format = box_format(copy)
    return adapt(copy, value_range)


def config_of(layer: Any) -> dict[str, Any]:
    """Returns the config of a layer, with what Keras and KerasCV leave out of it or misstate."""
    config: dict[str, Any] = layer.get_config()
    hosts = kinds(layer)
    if _is_pipeline(layer):
        return {**config, "layers": list(layer.layers)}
    if type(layer).__module__.split(".")[0] in ("keras", "keras_cv"):
        # Keras's RandomGrayscale forgets its seed, its MaxNumBoundingBoxes the fill value.
        for name in inspect.signature(type(layer).__init__).parameters:
            if name not in ("self", "kwargs") and name not in config and hasattr(layer, name):
                config[name] = getattr(layer, name)
    if "keras.RandomCrop" in hosts:
        # It makes up a seed where it was given none; its generator knows.
        config["seed"] = layer.generator.get_config()["seed"]
    if "keras.RandomShear" in hosts:
        # The constructor takes 0.2 and keeps (-0.2, 0.2), which it does not take.
        for name in ("x_factor", "y_factor"):
            config[name] = config[name][1] if config[name][0] < 0 else config[name]
    return config


def serialize(layer: Any) -> dict[str, Any]:
    """Returns the serialized layer, in values that JSON holds.

    Raises:
        ValueError: the layer has no config.
    """
    with _needs_config(layer):
        serialized = {**keras.saving.serialize_keras_object(layer)}
        serialized["config"] = {key: _encode(value) for key, value in config_of(layer).items()}
        serialized.pop("build_config", None)
        plain: dict[str, Any] = json.loads(json.dumps(serialized), object_hook=_without_id)
    return plain


def deserialize(config: dict[str, Any]) -> Any:
    """Builds a layer from what `serialize` returned.

    KerasCV's `RandomApply` and `RandomChoice` do not open the layers in their own config, and
    its `JitteredResize` takes no list for a size, so for KerasCV this is done before.
    """
    host, name = config["module"].split(".")[0], config["class_name"]
    if host == "keras_cv":
        inner = {key: _open(item) for key, item in config["config"].items() if key != "dtype"}
        for key in ("target_size", "crop_size"):
            if isinstance(inner.get(key), list):
                inner[key] = tuple(inner[key])
        config = {**config, "config": {**config["config"], **inner}}
    elif (host, name) == ("keras", "Pipeline"):
        return keras.layers.Pipeline(
            _open(config["config"]["layers"]), name=config["config"]["name"]
        )
    return keras.saving.deserialize_keras_object(config)


def _without_id(value: dict[str, Any]) -> dict[str, Any]:
    """Drops the id of a policy that layers share: it is another one in every process."""
    return {key: item for key, item in value.items() if key != "shared_object_id"}


def _encode(value: Any) -> Any:
    if isinstance(value, keras.layers.Layer):
        return serialize(value)
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    return keras.saving.serialize_keras_object(value)


def _open(value: Any) -> Any:
    if isinstance(value, list):
        return [_open(item) for item in value]
    is_object = isinstance(value, dict) and {"module", "class_name", "config"} <= set(value)
    return deserialize(value) if is_object else value


def _is_pipeline(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Pipeline)


@contextlib.contextmanager
def _needs_config(layer: Any) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        if "`layers` must" in str(error):  # a layer within said it already
            raise
        raise ValueError(
            "`layers` must hold layers that can be rebuilt from their config. "
            f"Received: {layer.name!r} of class {type(layer).__name__}. "
            "Give the class a get_config() that returns every argument of its constructor."
        ) from error


@contextlib.contextmanager
def _own_generator(layer: Any, seed: int) -> Iterator[None]:
    """Seeds the generator of KerasCV's layers that do not hand their seed to their base class.

    Such a layer, `JitteredResize` for one, takes TensorFlow's global generator, which no seed
    reaches. While its copy is made, the global generator is one of its own.
    """
    if not is_keras_cv(layer):
        yield
        return
    before = tf.random.get_global_generator()
    tf.random.set_global_generator(tf.random.Generator.from_seed(seed))
    try:
        yield
    finally:
        tf.random.set_global_generator(before)


def _fill(value: Any, seeds: Iterator[int], passed_down: dict[str, Any]) -> Any:
    """Copies a config, fills `"seed": None`, passes the range down, rebuilds layers within."""
    if isinstance(value, dict):
        filled = {key: _fill(item, seeds, passed_down) for key, item in value.items()}
        if "seed" in filled and filled["seed"] is None:
            filled["seed"] = next(seeds)
        if filled.get("value_range") is not None:
            filled["value_range"] = passed_down["value_range"]
        # A nested layer, serialized: its dtype is the policy of the day it was made.
        if "class_name" in filled and "dtype" in (inner := filled.get("config") or {}):
            inner["dtype"] = "float32"
        return filled
    if isinstance(value, list | tuple):
        return type(value)(_fill(item, seeds, passed_down) for item in value)
    if isinstance(value, keras.layers.Layer):
        return rebuild(value, seeds, **passed_down)
    if hasattr(value, "get_config") and hasattr(type(value), "from_config"):
        # KerasCV hands out its factor samplers as objects. One without a seed stays without:
        # the seed of the graph reaches it, and several draws in one layer stay independent.
        return type(value).from_config(value.get_config())
    return value
