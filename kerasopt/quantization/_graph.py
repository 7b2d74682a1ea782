"""A functional model as a list of nodes, read with the public API of Keras alone."""

import dataclasses
from collections import defaultdict
from typing import Any

from kerasopt._backend import keras
from kerasopt.quantization._renamed import original


@dataclasses.dataclass(eq=False)
class Node:
    """One call of one operation.

    Attributes:
        index: position in the order in which Keras runs the graph.
        op: the layer or operation.
        inputs: the tensors it reads.
        outputs: the tensors it makes.
        args: the arguments of the call.
        kwargs: the keyword arguments of the call.
        masked: whether anything in the model makes masks.
    """

    index: int
    op: Any
    inputs: list[Any]
    outputs: list[Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    masked: bool = False


class Graph:
    """The nodes of a functional model, with producers and consumers by tensor."""

    def __init__(self, model: Any) -> None:
        self.nodes: list[Node] = []
        self.copy = keras.models.clone_model(
            model, clone_function=lambda op: op, call_function=self._record
        )
        self.inputs = list(self.copy.inputs)
        self.outputs = {id(tensor) for tensor in self.copy.outputs}
        self.producer: dict[int, Node] = {}
        self.consumers: dict[int, list[Node]] = defaultdict(list)
        masked = any(makes_masks(node.op) for node in self.nodes)
        for node in self.nodes:
            node.masked = masked
            for tensor in node.outputs:
                self.producer[id(tensor)] = node
            for tensor in node.inputs:
                self.consumers[id(tensor)].append(node)

    def _record(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        result = op(*args, **kwargs)
        found = tensors((args, kwargs)), tensors(result)
        self.nodes.append(Node(len(self.nodes), op, *found, args, kwargs))
        return result


def makes_masks(op: Any) -> bool:
    """Tells whether a layer makes a mask from its inputs."""
    op = original(op)
    return isinstance(op, keras.layers.Masking) or bool(getattr(op, "mask_zero", False))


def is_table(op: Any) -> bool:
    """Tells whether an operation takes indices."""
    return isinstance(original(op), keras.layers.Embedding)


def tensors(structure: Any) -> list[Any]:
    """Lists the symbolic tensors in a structure of arguments."""
    return [leaf for leaf in keras.tree.flatten(structure) if keras.backend.is_keras_tensor(leaf)]


def functional(model: Any) -> Any:
    """Returns a functional model on the same layers, not compiled."""
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def is_graph(op: Any) -> bool:
    """Tells whether an operation is a functional or Sequential model."""
    return isinstance(op, keras.Sequential) or (
        isinstance(op, keras.Model) and hasattr(op, "operations") and hasattr(op, "inputs")
    )
