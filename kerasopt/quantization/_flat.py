"""Any model as one functional graph, with what is nested in it opened."""

import warnings
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import layers_inside, walk_layers
from kerasopt.quantization._graph import Graph, functional, is_graph, makes_masks
from kerasopt.quantization._renamed import under_name, unique_names
from kerasopt.quantization._rules import is_own
from kerasopt.quantization._traced import NoGraphError, described, leaves, trace


def flat_functional(model: Any, *, own_layers: bool = False) -> Any:
    """Returns a functional model on the same layers, with nested models opened, not compiled.

    A layer of a nested model whose name another layer has too is in a `RenamedLayer`, with the
    names of the models around it before its own.

    Args:
        model: a built model. A subclassed one is the graph that its `call` makes, or where it
            makes none, a graph of which it is the one operation, with a warning.
        own_layers: whether to open layers and subclassed models of the user's own inside of the
            model too, where their `call` makes a graph.

    Raises:
        ValueError: the model is not built, or does not run on symbolic inputs at all.
    """
    if not model.built:
        raise ValueError(
            f"Quantization needs a model that is built. Received: {model.name!r} with built=False. "
            "Give it a keras.Input, or call it on a batch first."
        )
    flat = functional(model) if is_graph(model) else _traced(model)
    if own_layers and not any(makes_masks(layer) for _, layer in walk_layers(flat)):
        flat = _Opener().open(flat, whole=model)
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


class _Opener:
    """Puts nested functional models in the place of what is of the user's own.

    Layers hand masks on by rules of their own, so that this is for models without masks.
    """

    def __init__(self) -> None:
        self._models: dict[int, Any] = {}
        self._graphs: dict[Any, Any] = {}
        self._whole: Any = None

    def open(self, model: Any, whole: Any = None) -> Any:
        """Returns the model itself where there is nothing to open.

        Args:
            model: a functional model.
            whole: the user's model, which is not opened where it is an operation in its own graph.
        """
        self._whole = whole or self._whole
        if not _has_own(model):
            return model
        return keras.models.clone_model(
            model, clone_function=lambda op: op, call_function=self._call
        )

    def _call(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        if is_graph(op):
            if id(op) not in self._models:
                self._models[id(op)] = self.open(functional(op))
            return self._models[id(op)](*args, **kwargs)
        graph = self._graph_of(op, args, kwargs) if is_own(op) and op is not self._whole else None
        return op(*args, **kwargs) if graph is None else graph(leaves(args, kwargs))

    def _graph_of(self, op: Any, args: Any, kwargs: Any) -> Any:
        given = leaves(args, kwargs)
        order = {id(tensor): index for index, tensor in enumerate(given)}
        called = keras.tree.map_structure(
            lambda leaf: (order.get(id(leaf)), described(leaf)), (args, kwargs)
        )
        key = id(op), repr(called)
        if key not in self._graphs:
            self._graphs[key] = self._opened(op, given, args, kwargs)
        return self._graphs[key]

    def _opened(self, op: Any, given: list[Any], args: Any, kwargs: Any) -> Any:
        if type(op).compute_mask is not keras.Layer.compute_mask or not given:
            return None
        fresh = {id(t): keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in given}
        args, kwargs = keras.tree.map_structure(
            lambda leaf: fresh.get(id(leaf), leaf), (args, kwargs)
        )
        try:
            graph = self.open(trace(op, list(fresh.values()), args, kwargs))
        except NoGraphError:
            return None
        count = sum(other == id(op) for other, _ in self._graphs)
        graph.name = f"{op.name}_{count}" if count else op.name  # each name once in a graph
        return graph


def _has_own(model: Any) -> bool:
    return any(_has_own(op) if is_graph(op) else is_own(op) for op in functional(model).operations)


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


def _inline(op: Any, *args: Any, **kwargs: Any) -> Any:
    # `call` on symbolic tensors makes the inner layers nodes of the outer graph.
    return op.call(*args, **kwargs) if is_graph(op) else op(*args, **kwargs)


def _traced(model: Any) -> Any:
    """Returns the graph that the `call` of a subclassed model makes of symbolic inputs."""
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise ValueError(
            f"{_unknown(model)}, and not what it takes either. Call it on one array, list or dict "
            "of arrays, or build it from keras.Input and layers."
        )
    try:
        return _trace(model, shapes)
    except NoGraphError as error:
        return _as_one(model, shapes, error)


def _trace(model: Any, shapes: Any) -> Any:
    inputs = _inputs(model, shapes, "float32")
    traced = trace(model, inputs, (inputs,), {})
    graph = Graph(traced)
    readers = [node.op for tensor in graph.inputs for node in graph.consumers[id(tensor)]]
    read = [layer for op in readers for layer in (op, *layers_inside(op))]
    if any(isinstance(layer, keras.layers.Embedding) for layer in read):
        inputs = _inputs(model, shapes, "int32")
        traced = trace(model, inputs, (inputs,), {})
    return traced


def _as_one(model: Any, shapes: Any, error: NoGraphError) -> Any:
    """Returns a graph of which the model is the only operation."""
    try:
        inputs = _inputs(model, shapes, "float32")
        graph = keras.Model(inputs, model(inputs), name=model.name)
    except Exception as failed:
        raise ValueError(
            f"{_unknown(model)}, and its `call` does not run on symbolic inputs ({error.reason}). "
            "Write it with layers and keras.ops, or build the model from keras.Input and layers."
        ) from failed
    warnings.warn(
        f"{_unknown(model)}: {error.reason}. Its kernels are trained on int8 levels, which the "
        "file of the scheme 'int8_weights' holds, and the rest stays float. Write its `call` with "
        "layers and keras.ops for integers throughout.",
        stacklevel=5,
    )
    return graph


def _unknown(model: Any) -> str:
    return (
        "Quantization places its ranges in the graph of a model. "
        f"Received: {model.name!r}, a {type(model).__name__}, whose graph Keras does not know"
    )


def _inputs(model: Any, shapes: Any, dtype: str) -> Any:
    if isinstance(shapes, dict):
        return {n: keras.Input(shape[1:], dtype=dtype, name=n) for n, shape in shapes.items()}
    if isinstance(shapes[0], tuple | list):
        return [keras.Input(shape[1:], dtype=dtype) for shape in shapes]
    return keras.Input(shapes[1:], dtype=dtype, name=f"{model.name}_input")
