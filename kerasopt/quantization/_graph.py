"""A functional model as a list of nodes, read with the public API of Keras alone."""

import dataclasses
from collections import defaultdict
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt.quantization._renamed import original, under_name, unique_names
from kerasopt.quantization._variables import variables_in, with_variables


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
        masked = any(_makes_masks(node.op) for node in self.nodes)
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


def _makes_masks(op: Any) -> bool:
    op = original(op)
    return isinstance(op, keras.layers.Masking) or bool(getattr(op, "mask_zero", False))


def is_table(op: Any) -> bool:
    """Tells whether an operation takes indices."""
    return isinstance(original(op), keras.layers.Embedding)


def tensors(structure: Any) -> list[Any]:
    """Lists the symbolic tensors in a structure of arguments."""
    return [leaf for leaf in keras.tree.flatten(structure) if keras.backend.is_keras_tensor(leaf)]


def flat_functional(model: Any) -> Any:
    """Returns a functional model on the same layers, with nested models opened, not compiled.

    A layer of a nested model whose name another layer has too is in a `RenamedLayer`, with the
    names of the models around it before its own.

    Raises:
        ValueError: the model is not built, or its graph is not known to Keras.
    """
    if not model.built:
        raise ValueError(
            f"Quantization needs a model that is built. Received: {model.name!r} with built=False. "
            "Give it a keras.Input, or call it on a batch first."
        )
    flat = functional(model) if is_graph(model) else _traced(model)
    with unique_names(_leaves(flat)) as names:
        while any(is_graph(op) for op in flat.operations):
            flat = keras.models.clone_model(
                flat, clone_function=lambda op: op, call_function=_inline
            )
    if not names:
        return flat
    return keras.models.clone_model(
        flat, clone_function=lambda op: under_name(op, names.get(id(op), op.name))
    )


def _leaves(model: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Lists the operations of the opened model, once each, with the names of the models around."""
    found: dict[int, tuple[tuple[str, ...], Any]] = {}

    def visit(graph: Any, parents: tuple[str, ...]) -> None:
        for op in getattr(graph, "operations", None) or graph.layers:
            if is_graph(op):
                visit(op, (*parents, op.name))
            elif not (parents and isinstance(op, keras.layers.InputLayer)):
                found.setdefault(id(op), (parents, op))

    visit(model, ())
    return list(found.values())


def _traced(model: Any) -> Any:
    """Returns the graph that the `call` of a subclassed model makes of symbolic inputs.

    Keras calls the layers of the graph with `training` of the outer call, whatever `call` gave
    them; what stands behind `if training` is not in the graph.
    """
    shapes = (model.get_build_config() or {}).get("input_shape")
    unknown = (
        "Quantization places its ranges in the graph of a model. "
        f"Received: {model.name!r}, a {type(model).__name__}, whose graph Keras does not know"
    )
    if shapes is None:
        raise ValueError(
            f"{unknown}, and not what it takes either. Call it on one array, list or dict of "
            "arrays, or build it from keras.Input and layers."
        )
    try:
        traced, read = _trace(model, shapes, "float32")
        graph = Graph(traced)
        readers = [node.op for tensor in graph.inputs for node in graph.consumers[id(tensor)]]
        if any(isinstance(op, keras.layers.Embedding) for op in readers):
            traced, read = _trace(model, shapes, "int32")
            graph = Graph(traced)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).split(". ")[0]
        raise ValueError(
            f"{unknown}, and its `call` does not run on symbolic inputs ({reason}). Write it with "
            "layers and keras.ops, or build the model from keras.Input and layers."
        ) from error
    if any(variables_in((node.args, node.kwargs)) for node in graph.nodes):
        traced = keras.models.clone_model(
            traced, clone_function=lambda op: op, call_function=with_variables
        )
    _check_own_weights(model, traced, read)
    return traced


def _check_own_weights(model: Any, traced: Any, read: set[int]) -> None:
    """Raises ValueError if `call` read a weight of the model that is a constant in the graph."""
    theirs = {id(v) for v in traced.variables}
    theirs |= {id(v) for layer in model.layers for v in layer.variables}
    for variable in model.trainable_variables:
        if id(variable) not in theirs and id(variable.value) in read:
            raise ValueError(
                "Quantization trains the weights that an operation reads together with tensors of "
                f"the graph. Received: {model.name!r}, whose `call` computes with its weight "
                f"{variable.name!r} alone first. Move that into a layer with the weight."
            )


def _trace(model: Any, shapes: Any, dtype: str) -> tuple[Any, set[int]]:
    """Returns the graph, and the ids of the TensorFlow variables that `call` read."""
    inputs: Any
    if isinstance(shapes, dict):
        inputs = {n: keras.Input(shape[1:], dtype=dtype, name=n) for n, shape in shapes.items()}
    elif isinstance(shapes[0], tuple | list):
        inputs = [keras.Input(shape[1:], dtype=dtype) for shape in shapes]
    else:
        inputs = keras.Input(shapes[1:], dtype=dtype, name=f"{model.name}_input")
    with tf.GradientTape() as tape:
        outputs = model.call(inputs)
    return keras.Model(inputs, outputs, name=model.name), {id(v) for v in tape.watched_variables()}


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


def _inline(op: Any, *args: Any, **kwargs: Any) -> Any:
    # `call` on symbolic tensors makes the inner layers nodes of the outer graph.
    return op.call(*args, **kwargs) if is_graph(op) else op(*args, **kwargs)
