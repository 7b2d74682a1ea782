"""What stands together in the file: neighbours with nothing between, and what folds."""

from typing import Any

from kerasopt._backend import keras
from kerasopt.quantization._graph import Graph, Node
from kerasopt.quantization._kernels import kernel_axes
from kerasopt.quantization._renamed import original
from kerasopt.quantization._rules import activation_of, rule_for
from kerasopt.quantization._steps import activation_name


def is_dropped(node: Node) -> bool:
    """Tells whether a node is not in the file, as dropout and augmentation are not."""
    return rule_for(node.op, node).kind == "dropped"


def readers(graph: Graph, tensor: Any) -> list[Node]:
    """Lists the nodes that read a tensor in the file."""
    found = []
    for node in graph.consumers[id(tensor)]:
        found += readers(graph, node.outputs[0]) if is_dropped(node) else [node]
    return found


def is_output(graph: Graph, tensor: Any) -> bool:
    """Tells whether a tensor is an output of the file."""
    return id(tensor) in graph.outputs or any(
        is_output(graph, node.outputs[0])
        for node in graph.consumers[id(tensor)]
        if is_dropped(node)
    )


def only_reader(graph: Graph, tensor: Any) -> Node | None:
    """Returns the node that alone reads a tensor in the file; `None` if there are more or none."""
    found = readers(graph, tensor)
    return found[0] if len(found) == 1 and not is_output(graph, tensor) else None


def maker(graph: Graph, tensor: Any) -> Node | None:
    """Returns the node that makes a tensor in the file; `None` for an input."""
    node = graph.producer.get(id(tensor))
    return maker(graph, node.inputs[0]) if node is not None and is_dropped(node) else node


def is_pooling(node: Node) -> bool:
    """Tells whether a node pools the neighbours of each pixel."""
    windows = keras.layers.MaxPooling2D, keras.layers.AveragePooling2D
    op = original(node.op)
    return isinstance(op, windows) or type(op).__name__ in ("MaxPool", "AveragePool")


def takes_norm(op: Any) -> bool:
    """Tells whether a BatchNormalization folds into the kernel of a layer before it.

    Its channels must be the last axis, behind no reshape and no activation.
    """
    op = original(op)
    if activation_name(activation_of(op)) != "linear":
        return False
    if isinstance(op, keras.layers.TimeDistributed):
        return isinstance(op.layer, keras.layers.Dense)
    if isinstance(op, keras.layers.EinsumDense):
        channels = len(op.kernel.shape) - len(kernel_axes(op))
        output = op.equation.replace(" ", "").split("->")[1]
        kernel = op.equation.replace(" ", "").split("->")[0].split(",")[1]
        return channels == 1 and output[-1] in kernel
    return True
