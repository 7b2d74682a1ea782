"""Which layer feeds which, read from a copy, so that the model itself gets no new connections."""

import dataclasses
from typing import Any

from kerasopt._backend import keras


@dataclasses.dataclass(eq=False)
class Node:
    """One call of one layer.

    Attributes:
        layer: the layer of the user's model, or an operation.
        input_shape: shape of what it reads first.
        sources: the calls that it reads from.
        readers: the calls that read from it.
    """

    layer: Any
    input_shape: tuple[int | None, ...]
    sources: list["Node"]
    readers: list["Node"]


def read_graph(model: Any) -> tuple[list[Node], str]:
    """Returns the calls of a model's layers, nested models opened; else none, and why."""
    if not _is_graph(model):
        return [], f"the graph of {model.name!r} is not known to Keras ({type(model).__name__})"
    origin: dict[int, Any] = {}
    copies = []

    def copy(layer: Any) -> Any:
        new = type(layer).from_config(layer.get_config())
        copies.append(new)  # alive, so that its id stays its own
        origin[id(new)] = layer
        return new

    try:
        flat = keras.models.clone_model(
            keras.Model(model.inputs, model.outputs), clone_function=copy, recursive=True
        )
    except (NotImplementedError, TypeError, ValueError) as error:
        return [], f"a layer could not be copied from its config ({error})"
    while any(_is_graph(operation) for operation in flat.operations):
        flat = keras.models.clone_model(flat, clone_function=lambda op: op, call_function=_inline)
    nodes: list[Node] = []
    producer: dict[int, Node] = {}

    def record(operation: Any, *args: Any, **kwargs: Any) -> Any:
        result = operation(*args, **kwargs)
        read = [leaf for leaf in keras.tree.flatten((args, kwargs)) if _is_symbolic(leaf)]
        sources = [producer[id(tensor)] for tensor in read if id(tensor) in producer]
        node = Node(
            origin.get(id(operation), operation),
            tuple(read[0].shape) if read else (),
            sources,
            [],
        )
        for source in sources:
            source.readers.append(node)
        for tensor in keras.tree.flatten(result):
            producer[id(tensor)] = node
            alive.append(tensor)
        nodes.append(node)
        return result

    alive: list[Any] = []
    keras.models.clone_model(flat, clone_function=lambda op: op, call_function=record)
    return nodes, ""


def _is_graph(operation: Any) -> bool:
    return isinstance(operation, keras.Sequential) or (
        isinstance(operation, keras.Model)
        and hasattr(operation, "operations")
        and hasattr(operation, "inputs")
    )


def _inline(operation: Any, *args: Any, **kwargs: Any) -> Any:
    # `call` on symbolic tensors makes the inner layers nodes of the outer graph.
    call = operation.call if _is_graph(operation) else operation
    return call(*args, **kwargs)


def _is_symbolic(leaf: Any) -> bool:
    return bool(keras.backend.is_keras_tensor(leaf))
