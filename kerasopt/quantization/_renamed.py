"""Layers under other names, where nested models that are opened hold the same name twice."""

import collections
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from kerasopt._backend import keras
from kerasopt._serialization import serializable


@serializable
class RenamedLayer(keras.layers.Wrapper):
    """A layer of the user's under another name, since Keras wants each name in a graph once.

    The layer itself keeps its name, and so do the files of the model that it belongs to. What is
    asked of this one is answered by it.

    Args:
        layer: the layer.
        name: the name.

    Raises:
        TypeError: `layer` is not a layer.
    """

    def __init__(self, layer: Any, name: str, **kwargs: Any) -> None:
        if not isinstance(layer, keras.Layer):
            raise TypeError(f"`layer` must be a Keras layer. Received: layer={layer!r}.")
        super().__init__(layer, name=name, **{"dtype": layer.dtype_policy, **kwargs})
        self.supports_masking = True
        self.built = True

    def __getattr__(self, name: str) -> Any:
        layer = vars(self).get("layer")
        if layer is None:
            raise AttributeError(name)
        return getattr(layer, name)

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns what the layer returns."""
        return self.layer(inputs, *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns the layer's mask."""
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the layer's own specification."""
        return self.layer.compute_output_spec(inputs, *args, **kwargs)


def original(op: Any) -> Any:
    """Returns the user's own layer or operation."""
    return op.layer if isinstance(op, RenamedLayer) else op


def under_name(op: Any, name: str) -> Any:
    """Returns an operation under a name: itself, if that is its own."""
    if op.name == name:
        return op
    if isinstance(op, keras.Layer):
        return RenamedLayer(op, name)
    return _named_copy(op, name)  # without weights, there is nothing to share


def copy_of(op: Any) -> Any:
    """Returns a new layer or operation with the same options and name."""
    return _named_copy(original(op), op.name)


def _named_copy(op: Any, name: str) -> Any:
    try:
        copy = type(op).from_config(op.get_config())
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            "A copy of the model needs copies of its layers. "
            f"Received: {op.name!r}, a {type(op).__name__}, that cannot be made from its config. "
            "Let `__init__` take `**kwargs` for the base class and what `get_config` returns, or "
            "train with the callback QuantizeAware, which copies nothing."
        ) from error
    copy.name = name
    return copy


def copy_model(model: Any) -> Any:
    """Returns a functional model on layers of its own, with the same weights, not compiled."""
    copy = keras.models.clone_model(model, clone_function=copy_of)
    copy.set_weights(model.get_weights())
    for mine, theirs in zip(copy.layers, model.layers, strict=True):
        mine.trainable = original(theirs).trainable
    return copy


def without_renamed(model: Any) -> Any:
    """Returns a functional model in which renamed layers are copies that have the name."""
    later: list[tuple[Any, Any]] = []

    def replace(op: Any) -> Any:
        if not isinstance(op, RenamedLayer):
            return op
        later.append((copy_of(op), op))
        return later[-1][0]

    if not any(isinstance(op, RenamedLayer) for op in model.operations):
        return model
    found = keras.models.clone_model(model, clone_function=replace)
    for copy, op in later:
        copy.set_weights(op.get_weights())
    return found


@contextlib.contextmanager
def unique_names(found: list[tuple[tuple[str, ...], Any]]) -> Iterator[dict[int, str]]:
    """Gives layers of nested models names of their own for a while.

    Args:
        found: the names of the models around each layer, and the layer.

    Yields:
        id of each layer that has another name meanwhile -> that name.
    """
    count = collections.Counter(op.name for _, op in found)
    used = set(count)
    names: dict[int, str] = {}
    for parents, op in found:
        if parents and count[op.name] > 1:
            name = "_".join((*parents, op.name))
            numbered = (f"{name}_{number}" for number in itertools.count(1))
            names[id(op)] = next(n for n in itertools.chain([name], numbered) if n not in used)
            used.add(names[id(op)])
    changed = [(op, op.name) for _, op in found if id(op) in names]
    try:
        for op, _ in changed:
            op.name = names[id(op)]
        yield names
    finally:
        for op, name in changed:
            op.name = name
