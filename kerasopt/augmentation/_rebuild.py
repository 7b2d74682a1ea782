"""Copies of the caller's layers: float32 whatever the policy, every open seed filled."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt._backend import keras

_LARGEST_SEED = 2**31 - 1


def seed_stream(seed: int) -> Iterator[int]:
    """Yields distinct-by-design seeds of `[1, 2**31)`, the same ones for the same `seed`.

    Never 0: KerasCV reads a seed of 0 as no seed.
    """
    generator = np.random.default_rng(seed)
    while True:
        yield int(generator.integers(1, _LARGEST_SEED))


def rebuild(layer: Any, seeds: Iterator[int]) -> Any:
    """Returns a copy of a layer in float32 with seeds where it had none.

    A layer with weights (an adapted `Normalization`, say) is returned as it is, for its values
    are not in its config.

    Raises:
        ValueError: the layer cannot be rebuilt from its config.
    """
    if layer.weights:
        return layer
    with _needs_config(layer):
        config = _fill(layer.get_config(), seeds)
        if "dtype" in config:
            config["dtype"] = "float32"
        copy = type(layer).from_config(config)
    copy.dtype_policy = "float32"
    return copy


def serialize(layer: Any) -> dict[str, Any]:
    """Returns the serialized layer, in values that JSON holds.

    Raises:
        ValueError: the layer has no config.
    """
    with _needs_config(layer):
        config: dict[str, Any] = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    return config


def deserialize(config: dict[str, Any]) -> Any:
    """Builds a layer from what `serialize` returned.

    KerasCV's `RandomApply` and `RandomChoice` do not open the layers in their own config, so for
    KerasCV this is done before.
    """
    if config["module"].startswith("keras_cv"):
        inner = {key: _open(item) for key, item in config["config"].items() if key != "dtype"}
        config = {**config, "config": {**config["config"], **inner}}
    return keras.saving.deserialize_keras_object(config)


def _open(value: Any) -> Any:
    if isinstance(value, list):
        return [_open(item) for item in value]
    is_object = isinstance(value, dict) and {"module", "class_name", "config"} <= set(value)
    return deserialize(value) if is_object else value


@contextlib.contextmanager
def _needs_config(layer: Any) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "`layers` must hold layers that can be rebuilt from their config. "
            f"Received: {layer.name!r} of class {type(layer).__name__}. "
            "Give the class a get_config() that returns every argument of its constructor."
        ) from error


def _fill(value: Any, seeds: Iterator[int]) -> Any:
    """Copies a config, fills `"seed": None` and rebuilds layers and factor samplers within."""
    if isinstance(value, dict):
        filled = {key: _fill(item, seeds) for key, item in value.items()}
        if "seed" in filled and filled["seed"] is None:
            filled["seed"] = next(seeds)
        # A nested layer, serialized: its dtype is the policy of the day it was made.
        if "class_name" in filled and "dtype" in (inner := filled.get("config") or {}):
            inner["dtype"] = "float32"
        return filled
    if isinstance(value, list | tuple):
        return type(value)(_fill(item, seeds) for item in value)
    if isinstance(value, keras.layers.Layer):
        return rebuild(value, seeds)
    if hasattr(value, "get_config") and hasattr(type(value), "from_config"):
        # KerasCV hands out its factor samplers as objects.
        return type(value).from_config(_fill(value.get_config(), seeds))
    return value
