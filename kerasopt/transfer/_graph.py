"""Functional graphs: copied layer by layer behind any tensor, and cut before their head."""

from collections.abc import Iterable, Iterator
from typing import Any

from kerasopt._backend import keras

_POOLS = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Flatten,
)


def is_graph(model: Any) -> bool:
    """Tells whether a model is a graph of layers with one input and one output."""
    if not isinstance(model, keras.Function | keras.Sequential):
        return False
    # A functional model whose class has its own `call` does more than its graph says.
    owner = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    if not owner.__module__.startswith("keras."):
        return False
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    return bool(inputs and outputs and len(inputs) == len(outputs) == 1)


def find_pool(model: Any) -> Any | None:
    """Returns the first pooling or flattening layer that every path to the output goes through.

    The global pooling inside a squeeze-and-excitation block is none: a path leads around it.
    """
    if not is_graph(model):
        return None
    pools = [layer for layer in model.layers if isinstance(layer, _POOLS)]
    if isinstance(model, keras.Sequential):
        return next((layer for layer in pools if _takes_images(layer)), None)
    # The config names what each operation reads, layers and others alike.
    config = model.get_config()
    reads = {entry["name"]: set(_sources(entry["inbound_nodes"])) for entry in config["layers"]}
    output = keras.tree.flatten(config["output_layers"])[0]
    return next((la for la in pools if _takes_images(la) and _separates(la, reads, output)), None)


def _takes_images(layer: Any) -> bool:
    try:
        return len(layer.input.shape) == 4
    except (AttributeError, ValueError):  # called more than once, or never by itself
        return False


def _separates(layer: Any, reads: dict[str, set[str]], output: str) -> bool:
    """Walks back from the output without passing the layer: no input may be reached."""
    seen: set[str] = set()
    ahead = [output]
    while ahead:
        name = ahead.pop()
        if name != layer.name and name not in seen:
            seen.add(name)
            ahead.extend(reads[name])
    return all(reads[name] for name in seen)


def _sources(structure: Any) -> Iterator[str]:
    """Yields the names of the operations whose tensors stand in a serialized call."""
    if isinstance(structure, dict) and structure.get("class_name") == "__keras_tensor__":
        yield structure["config"]["keras_history"][0]
    elif isinstance(structure, dict | list | tuple):
        for part in structure.values() if isinstance(structure, dict) else structure:
            yield from _sources(part)


class GraphCopier:
    """Copies a model's layers, weights included, so that they stand flat in a new graph.

    Nested models are opened, names are kept (a name that is taken gets the nested model's name
    in front), shared layers stay shared. The copies are trainable; the model is left as it is.

    Args:
        image: the input tensor of the new graph.
        taken: names that the copies may not use.
    """

    def __init__(self, image: Any, taken: Iterable[str] = ()) -> None:
        self._image = image
        self._taken = set(taken)
        self._copies: dict[int, tuple[Any, Any]] = {}

    @property
    def layers(self) -> list[Any]:
        """The copies of all layers."""
        copies = (copy for _, copy in self._copies.values())
        return [copy for copy in copies if isinstance(copy, keras.layers.Layer)]

    def __call__(self, model: Any, x: Any) -> Any:
        """Applies a copy of `model` to the tensor `x`, which must come from `image`."""
        output = self._open(model, x) if is_graph(model) else self._copy(model, "backbone")(x)
        for original, copy in self._copies.values():
            if isinstance(copy, keras.layers.Layer):
                copy.set_weights(original.get_weights())
                copy.trainable = True
        return output

    def _open(self, model: Any, x: Any) -> Any:
        def copy(operation: Any) -> Any:
            return operation if is_graph(operation) else self._copy(operation, model.name)

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            # Keras runs the graph from an Input; `x` takes that Input's place.
            args, kwargs = keras.tree.map_structure(
                lambda leaf: x if leaf is self._image else leaf, (args, kwargs)
            )
            if is_graph(operation):
                return self._open(operation, args[0])
            return operation(*args, **kwargs)

        # A shell without compile state, which `clone_model` would copy as well.
        shell = keras.Model(model.inputs[0], model.outputs[0])
        clone = keras.models.clone_model(
            shell, input_tensors=self._image, clone_function=copy, call_function=call
        )
        return clone.outputs[0]

    def _copy(self, operation: Any, prefix: str) -> Any:
        if id(operation) not in self._copies:
            config = _config(operation)
            if config is None:
                return operation
            if "name" in config:
                config["name"] = self._free_name(operation.name, prefix)
            self._copies[id(operation)] = (operation, type(operation).from_config(config))
        return self._copies[id(operation)][1]

    def _free_name(self, name: str, prefix: str) -> str:
        candidates = [name, f"{prefix}_{name}"]
        candidates += [f"{prefix}_{name}_{n}" for n in range(1, len(self._taken) + 1)]
        free = next(c for c in candidates if c not in self._taken)
        self._taken.add(free)
        return free


def _config(operation: Any) -> dict[str, Any] | None:
    try:
        return dict(operation.get_config())
    except NotImplementedError as error:
        if not isinstance(operation, keras.layers.Layer):
            return None  # an operation without state (such as a slice) can serve two graphs
        raise ValueError(
            "`backbone` must be made of layers that can be copied, with `get_config`. "
            f"Received: {type(operation).__name__} {operation.name!r}. "
            "Add `get_config` to its class."
        ) from error
