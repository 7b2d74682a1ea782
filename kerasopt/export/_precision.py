"""Models that compute in another precision than float32, which is the only one of a file."""

from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers
from kerasopt.export._convert import packed

_OTHER = ("float16", "bfloat16", "float64")


def precision_of(model: Any) -> str:
    """Returns the type in which a model computes: the lowest precision of its layers."""
    kinds = {kind for _, layer in walk_layers(model) for kind in _kinds(layer)}
    kinds |= {keras.backend.standardize_dtype(tensor.dtype) for tensor in model.inputs}
    found = [kind for kind in ("bfloat16", "float16", "float64") if kind in kinds]
    return found[0] if found else "float32"


def in_float32(model: Any) -> Any:
    """Returns a copy that computes in float32, with the same weights and names.

    Raises:
        ValueError: a layer cannot be made again from its configuration.
    """
    inputs = [
        keras.Input(batch_shape=tuple(tensor.shape), dtype=_float32(tensor.dtype), name=tensor.name)
        for tensor in model.inputs
    ]
    policy = keras.config.dtype_policy()
    try:
        # Layers that a layer makes for itself take the policy of the moment.
        keras.config.set_dtype_policy("float32")
        twin = keras.models.clone_model(
            model, input_tensors=packed(model, inputs), clone_function=_remade, recursive=True
        )
        twin.set_weights(
            [keras.ops.convert_to_numpy(w).astype(_float32(w.dtype)) for w in model.weights]
        )
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "`model` must compute in float32, or be made of layers that can be made again for it. "
            f"Received: {model.name!r}, which computes in {precision_of(model)} "
            f"({str(error).strip().splitlines()[0]}). Give its own layers a get_config, or build "
            "it with the policy 'float32' and load the weights."
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return twin


def _kinds(layer: Any) -> list[str]:
    policy = getattr(layer, "dtype_policy", None)
    return [] if policy is None else [str(policy.compute_dtype), str(policy.variable_dtype)]


def _remade(layer: Any) -> Any:
    if isinstance(layer, keras.layers.Layer):
        return layer.__class__.from_config(_with_float32(layer.get_config()))
    return layer


def _with_float32(value: Any) -> Any:
    """Returns a configuration in which every policy of another precision is float32.

    A layer around others, such as Bidirectional, has theirs in its own.
    """
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return "float32" if _is_other(value["config"]["name"]) else value
        return {
            key: "float32" if key == "dtype" and _is_other(part) else _with_float32(part)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(map(_with_float32, value))
    return value


def _is_other(name: Any) -> bool:
    return isinstance(name, str) and name.removeprefix("mixed_") in _OTHER


def _float32(dtype: Any) -> str:
    kind = str(keras.backend.standardize_dtype(dtype))
    return "float32" if kind in _OTHER else kind
