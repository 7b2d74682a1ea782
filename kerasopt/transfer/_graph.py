"""Functional graphs: copied layer by layer behind any tensor, and cut before their head."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers

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
    reads, output = _reads(model)
    return next((la for la in pools if _takes_images(la) and _separates(la, reads, output)), None)


def bottlenecks(model: Any) -> set[int]:
    """Returns the ids of the layers that every path from the image to the output goes through.

    Nested models are opened. In a residual network these are the ends of the blocks, in a plain
    one all layers.
    """
    if not is_graph(model):
        return set()
    if isinstance(model, keras.Sequential):
        return {i for layer in model.layers for i in (id(layer), *bottlenecks(layer))}
    operations = {operation.name: operation for operation in model.operations}
    reads, _ = _reads(model)
    order = {name: position for position, name in enumerate(reads)}
    spans: dict[int, int] = defaultdict(int)
    for name, sources in reads.items():
        for source in sources:
            # A layer that is called twice may stand before what it reads.
            first, last = sorted((order[source], order[name]))
            spans[first] = max(spans[first], last)
    found: set[int] = set()
    reach = 0
    for name, position in order.items():
        if reach <= position and reads[name]:
            found |= {id(operations[name]), *bottlenecks(operations[name])}
        reach = max(reach, spans[position])
    return found


def walk_operations(model: Any) -> Iterator[Any]:
    """Yields the layers and the other operations of a graph, nested models opened."""
    for operation in getattr(model, "operations", model.layers):
        if is_graph(operation):
            yield from walk_operations(operation)
        else:
            yield operation


def plain_names(operations: Iterable[Any], prefix: str = "") -> dict[int, str]:
    """Numbers automatic names as in a fresh process: `"conv2d_297"` to `"conv2d_3"`.

    Keras counts on from model to model, so that without this the same backbone would have other
    names each time it is built. Given names are left out.

    Returns:
        The new names by the ids of the operations.
    """
    numbered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for operation in operations:
        stem, _, number = operation.name.rpartition("_")
        if not number.isdigit():
            stem, number = operation.name, "0"
        if stem.replace("_", "") == type(operation).__name__.lower():
            numbered[stem].append((int(number), id(operation)))
    names: dict[int, str] = {}
    for stem, entries in numbered.items():
        for rank, (_, key) in enumerate(sorted(entries)):
            names[key] = f"{prefix}{stem}_{rank}" if rank else f"{prefix}{stem}"
    return names


def _reads(model: Any) -> tuple[dict[str, set[str]], str]:
    """Returns what each operation reads, in the order of the graph, and the last operation."""
    # The config names the sources of all operations, layers and others alike.
    # A shell, because a model of a class of its own may have another config.
    config = keras.Model(model.inputs[0], model.outputs[0]).get_config()
    reads = {entry["name"]: set(_sources(entry["inbound_nodes"])) for entry in config["layers"]}
    return reads, keras.tree.flatten(config["output_layers"])[0]


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
    in front), shared layers stay shared. The model is left as it is. A graph of a class of its
    own, such as a KerasCV backbone, stays one layer when some of its layers cannot be saved
    singly but the model can.

    Args:
        image: the input tensor of the new graph.
        taken: names that the copies may not use.
        argument: the argument that the layers come from, for the errors.
        changes: what to change in the configs, by the ids of the layers.
    """

    def __init__(
        self,
        image: Any,
        taken: Iterable[str] = (),
        *,
        argument: str = "backbone",
        changes: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        self._image = image
        self._argument = argument
        self._changes = changes or {}
        self._copies: dict[int, tuple[Any, Any]] = {}
        self.taken = set(taken)

    @property
    def layers(self) -> list[Any]:
        """The copies of all layers."""
        copies = (copy for _, copy in self._copies.values())
        return [copy for copy in copies if isinstance(copy, keras.layers.Layer)]

    def __call__(self, model: Any, x: Any) -> Any:
        """Applies a copy of `model` to the tensor `x`, which must come from `image`."""
        known = set(self._copies)
        output = self._open(model, x) if _opens(model) else self._copy(model, self._argument)(x)
        for key, (original, copy) in self._copies.items():
            if key not in known and isinstance(copy, keras.layers.Layer) and original.built:
                copy.set_weights(original.get_weights())
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
            copy = self._from_config(operation, prefix)
            if copy is None:
                return operation
            self._copies[id(operation)] = (operation, copy)
        return self._copies[id(operation)][1]

    def _from_config(self, operation: Any, prefix: str) -> Any | None:
        try:
            config = dict(operation.get_config())
            if "name" in config:
                config.update(self._changes.get(id(operation), {}))
                config["name"] = self._free_name(config["name"], prefix)
            return type(operation).from_config(config)
        except (NotImplementedError, TypeError, ValueError) as error:
            if isinstance(error, NotImplementedError) and not isinstance(
                operation, keras.layers.Layer
            ):
                return None  # an operation without state (such as a slice) can serve two graphs
            raise CannotCopyError(self._argument, operation, error) from error

    def _free_name(self, name: str, prefix: str) -> str:
        candidates = [name, f"{prefix}_{name}"]
        candidates += [f"{prefix}_{name}_{n}" for n in range(1, len(self.taken) + 1)]
        free = next(c for c in candidates if c not in self.taken)
        self.taken.add(free)
        return free


class CannotCopyError(ValueError):
    """A layer has no way to be made again from its config."""

    def __init__(self, argument: str, operation: Any, error: Exception) -> None:
        reason = f" ({first_line(error)})" if str(error) else ""
        fix = "Add `get_config` to its class, with every argument of the constructor."
        if isinstance(operation, keras.layers.Lambda):
            reason = ""
            fix = "Use a layer of Keras, or a subclass with `get_config`, in place of the lambda."
        super().__init__(
            f"`{argument}` must be made of layers that can be copied, with `get_config`{reason}. "
            f"Received: {type(operation).__name__} {operation.name!r}. {fix}"
        )


def first_line(error: Exception) -> str:
    """The first line of an error's text, for a sentence of another error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _opens(model: Any) -> bool:
    """Tells whether a model's layers can stand singly in another graph."""
    if not is_graph(model):
        return False
    if _is_keras(model):
        return True  # its own config is that of its layers, so there is no other way
    return all(_is_saved_singly(layer) for _, layer in walk_layers(model))


def _is_saved_singly(layer: Any) -> bool:
    if _is_keras(layer) and not isinstance(layer, keras.layers.Lambda):
        return True
    try:
        saved = keras.saving.serialize_keras_object(layer)
        keras.saving.deserialize_keras_object(saved)
    except (NotImplementedError, TypeError, ValueError):
        return False
    return True


def _is_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.")
