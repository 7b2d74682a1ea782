"""The graph that the `call` of a layer or model of the user's own makes of symbolic inputs."""

import inspect
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt.quantization._graph import Graph, tensors
from kerasopt.quantization._rules import rule_for
from kerasopt.quantization._variables import variables_in, with_variables

_ERRORS = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a `call` that was written for real tensors may raise."""


class NoGraphError(Exception):
    """A `call` is no graph of layers and `keras.ops` that is the same in training and inference.

    Args:
        reason: why, without a full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def trace(op: Any, inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns what a `call` makes of symbolic tensors, as a functional model on its very layers.

    `call` runs with `training=True` and with `False`. What does nothing in inference, like
    dropout, may stand behind `if training`; anything else that differs has no graph. Layers of
    the graph get `training` of the outer call.

    Args:
        op: the layer or model, which is built.
        inputs: the symbolic tensors in `args` and `kwargs`, in the structure that the functional
            model is to take.
        args: the arguments of `call`.
        kwargs: likewise.

    Raises:
        NoGraphError: `call` does not run on symbolic tensors, changes a variable, adds a loss, or
            is another graph in training.
    """
    if getattr(op, "activity_regularizer", None) is not None:
        raise NoGraphError("it regularizes its activity")
    fixed = {name: value for name, value in kwargs.items() if name != "training"}
    modes: list[dict[str, Any]] = [{}]
    try:
        if "training" in inspect.signature(op.call).parameters:
            modes = [{"training": True}, {"training": False}]
        traced, read = _run(op, inputs, args, {**fixed, **modes[0]})
        other = [_run(op, inputs, args, {**fixed, **mode})[0] for mode in modes[1:]]
    except _ERRORS as error:
        raise NoGraphError(str(error).split(". ")[0].split("\n")[0].rstrip(".")) from error
    if any(_form(model) != _form(traced) for model in other):
        raise NoGraphError("it computes otherwise in training")
    traced = keras.models.clone_model(
        traced, clone_function=lambda op: op, call_function=_in_either_mode
    )
    _check_weights(op, traced, read)
    return traced


def _run(op: Any, inputs: Any, args: Any, kwargs: Any) -> tuple[Any, set[int]]:
    """Returns the graph, and the ids of the TensorFlow variables that `call` read."""
    # A scope, so that nothing that `call` does changes the layer.
    with keras.StatelessScope(collect_losses=True) as scope, tf.GradientTape() as tape:
        outputs = op.call(*args, **kwargs)
    if scope.losses:
        raise NoGraphError("it adds a loss")
    if scope.state_mapping:
        raise NoGraphError("it changes a variable, or draws random numbers")
    model = keras.Model(inputs, outputs, name=op.name)
    return model, {id(variable) for variable in tape.watched_variables()}


def _form(model: Any) -> Any:
    """Describes a graph by what is called on what, without what does nothing in inference."""
    graph = Graph(model)
    made: dict[int, Any] = {id(tensor): index for index, tensor in enumerate(graph.inputs)}
    rows: list[Any] = []
    for node in graph.nodes:
        if rule_for(node.op, node).kind == "dropped":
            made[id(node.outputs[0])] = made[id(node.inputs[0])]
            continue
        sources = [made[id(tensor)] for tensor in node.inputs]
        rows.append((_described(node.op), _constants(node.args, node.kwargs), sources))
        for place, tensor in enumerate(node.outputs):
            made[id(tensor)] = (len(rows), place)
    return rows, [made[id(tensor)] for tensor in graph.copy.outputs]


def _described(op: Any) -> Any:
    if isinstance(op, keras.Layer) and op.variables:
        return id(op)
    if isinstance(op, keras.Layer):  # it may have been made by the call
        return type(op).__name__, {n: repr(v) for n, v in op.get_config().items() if n != "name"}
    options = {n: repr(v) for n, v in vars(op).items() if not n.startswith("_") and n != "name"}
    return type(op).__name__, options


def _constants(args: Any, kwargs: Any) -> str:
    rest = {name: value for name, value in kwargs.items() if name != "training"}
    return repr(keras.tree.map_structure(described, (args, rest)))


def described(leaf: Any) -> Any:
    """Returns an argument of a call as its `repr` tells it from others, tensors by their shape."""
    if keras.backend.is_keras_tensor(leaf):
        return "tensor", leaf.shape, leaf.dtype
    if isinstance(leaf, keras.Variable):
        return id(leaf)
    return np.asarray(leaf).tobytes() if hasattr(leaf, "__array__") else leaf


def _in_either_mode(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls an operation as in the trace, but for `training=True`, which was of the trace alone."""
    if kwargs.get("training") is True:
        kwargs = {name: value for name, value in kwargs.items() if name != "training"}
    return with_variables(op, *args, **kwargs)


def _check_weights(op: Any, traced: Any, read: set[int]) -> None:
    """Raises NoGraphError if `call` read a weight that is a constant in the graph."""
    theirs = {id(variable) for variable in traced.variables}
    for variable in op.trainable_variables:
        if id(variable) not in theirs and id(variable.value) in read:
            raise NoGraphError(
                f"it computes with its weight {variable.name!r} alone first, without its inputs"
            )
    is_mixed = getattr(op, "compute_dtype", None) != getattr(op, "variable_dtype", None)
    if is_mixed and any(variables_in((n.args, n.kwargs)) for n in Graph(traced).nodes):
        raise NoGraphError("it has weights of its own in mixed precision")


def leaves(args: Any, kwargs: Any) -> list[Any]:
    """Lists the symbolic tensors of a call, each once."""
    return list({id(tensor): tensor for tensor in tensors((args, kwargs))}.values())
