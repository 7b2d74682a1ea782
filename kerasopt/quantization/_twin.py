"""The quantization-aware graph, built around the user's layers, and the graph that is exported."""

import inspect
import itertools
from collections import defaultdict
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._layer_filter import LayerFilter, walk_layers
from kerasopt.quantization._checks import check_finite_weights
from kerasopt.quantization._decomposed import DecomposedLayer, inner_ranges
from kerasopt.quantization._flat import flat_functional
from kerasopt.quantization._graph import Graph, Node, functional, tensors
from kerasopt.quantization._kernels import QuantizedLayer, has_kernels
from kerasopt.quantization._layers import FIXED_INT16, FakeQuantize
from kerasopt.quantization._placement import Plan, Point, Range
from kerasopt.quantization._renamed import copy_model, original, under_name
from kerasopt.quantization._rules import activation_rule
from kerasopt.quantization._schemes import (
    INT8,
    PRESETS,
    LayerSchemes,
    Scheme,
    SchemeLike,
    check_scheme,
)
from kerasopt.training import settle

REASON = "int8 weights, float activations"
_FLOAT_WEIGHTS = "float weights: not a kernel that is rounded by itself"
_SPLIT = "_split_activation"
"""Ends the name of an activation that was taken out of a layer."""


def quantize_aware(model: Any, scheme: SchemeLike = "int8", *, layers: LayerFilter = None) -> Any:
    """Returns a copy of a model that computes as its int8 TFLite file will.

    Kernels are rounded to int8 levels, one scale per output channel, and activations to the 256
    levels of a range that is learned while the copy trains. Compile the result, train it with
    `fit`, hand it to `ko.export.to_tflite(..., quantize="int8")`.

    Args:
        model: a built model. Nested models, and layers and models of your own whose `call` is a
            graph, are opened; what is no graph keeps its `call`, with rounded kernels, and is
            named by `float_operations`. The model is not changed.
        scheme: `"int8"` (weights symmetric per output channel, activations asymmetric 8 bit),
            `"int16x8"`, `"int8_weights"`, a `Scheme`, or a dict of regexes on layer paths and
            these, `None` for float: `{"head": None}`. See `resolve_scheme`.
        layers: which layers to quantize: `None` for all, a regex on the name or path, a list of
            them, or a callable `layer -> bool`. A layer left out stays float, and so does the
            operation that reads it directly.

    Returns:
        A functional `keras.Model` with the same inputs and outputs, not compiled. It saves to
        `.keras` and loads without custom objects.

    Raises:
        TypeError: `scheme` is none of these.
        ValueError: the model is not built, does not run on symbolic inputs, cannot be copied, has
            weights that are not finite, or is already quantized; `scheme` or `layers` find no
            layer.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> [layer.name for layer in quantize_aware(model).layers][1:]  # doctest: +ELLIPSIS
        ['..._range', 'dense...', 'dense..._range']

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, arXiv:1712.05877.
    """
    check_scheme(scheme)
    settle(model)
    source = flat_functional(model, own_layers=True)
    _check_not_quantized(source)
    check_finite_weights(model)
    schemes = LayerSchemes(model, scheme, layers)
    copy = copy_model(source)
    schemes.follow(zip(copy.layers, source.layers, strict=True))
    return build_twin(copy, schemes)


def build_twin(model: Any, schemes: LayerSchemes) -> Any:
    """Returns the quantization-aware graph around the very layers of `model`."""
    flat = flat_functional(model, own_layers=True)
    _check_not_quantized(flat)
    graph = Graph(flat)
    # Schemes: the plan places activations; kernels without activations are wrapped all the same.
    plan = Plan(graph, schemes.has_activations)
    call = _Caller(graph, plan, schemes, model.distribute_strategy)
    return keras.models.clone_model(graph.copy, clone_function=call.wrap, call_function=call)


class _Caller:
    """Wraps the operations of the new graph, calls them, and puts the ranges behind them."""

    def __init__(self, graph: Graph, plan: Plan, schemes: LayerSchemes, strategy: Any) -> None:
        self._schemes = schemes
        self._strategy = strategy
        self._nodes = iter(graph.nodes)
        self._inputs = {id(tensor) for tensor in graph.inputs}
        self._plan = plan
        self._ranges: dict[int, FakeQuantize] = {}  # id of a `Range` -> its layer
        self._quantized_inputs: dict[int, Any] = {}
        self._activations: dict[str, Any] = {}
        self._sites: dict[int, int] = defaultdict(int)
        self._linear = {graph.nodes[index].op.name for index in plan.split}
        self._kernels = {id(graph.nodes[index].op) for index in plan.kernels}
        self._kernels |= {
            id(node.op) for node in graph.nodes if _has_only_weights(node.op, schemes)
        }
        self._decomposed: dict[int, list[Node]] = defaultdict(list)
        for index in sorted(plan.decomposed):
            self._decomposed[id(graph.nodes[index].op)].append(graph.nodes[index])

    def wrap(self, op: Any) -> Any:
        """Returns what stands for an operation in the new graph."""
        layer = original(op)
        if _has_only_weights(op, self._schemes):
            return QuantizedLayer(layer, float_activations=True, name=op.name)
        if id(op) in self._kernels:
            return QuantizedLayer(layer, linear=op.name in self._linear, name=op.name)
        if id(op) in self._decomposed:
            nodes = self._decomposed[id(op)]
            steps = self._plan.decomposed[nodes[0].index]
            args, kwargs = _bound(layer, steps.__name__, nodes[0].args, nodes[0].kwargs)
            ranges = inner_ranges(layer, steps, args, kwargs)
            return self._apart(op, op, steps, ranges, len(nodes))
        return op

    def _apart(self, op: Any, layer: Any, steps: Any, ranges: Any, count: int) -> DecomposedLayer:
        num_bits = _scheme_behind(op, self._schemes).activation_num_bits or 8
        with self._strategy.scope():
            return DecomposedLayer(
                original(layer), steps.__name__, ranges, count, num_bits, name=layer.name
            )

    def __call__(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        node = next(self._nodes)
        args, kwargs = self._rounded_inputs(node, args, kwargs)
        if isinstance(op, DecomposedLayer):
            args, kwargs = _bound(op.layer, op.steps, args, kwargs)
            kwargs["site"] = self._sites[id(op)]
            self._sites[id(op)] = min(self._sites[id(op)] + 1, op.num_sites - 1)
        result = op(*args, **kwargs)
        if node.index in self._plan.split:
            result = self._quantize(result, self._plan.split[node.index])
            result = self._activation(node.op, result)
        points = [self._plan.points.get(id(tensor)) for tensor in node.outputs]
        if not any(points):
            return result
        rounded = iter(
            [
                tensor if point is None else self._quantize(tensor, point)
                for tensor, point in zip(tensors(result), points, strict=True)
            ]
        )
        return keras.tree.map_structure(lambda _: next(rounded), result)

    def _rounded_inputs(self, node: Node, args: Any, kwargs: Any) -> Any:
        """Puts ranges between the model's inputs, or ranges that cannot be shared, and a node."""
        swaps = {}
        for old, new in zip(node.inputs, tensors((args, kwargs)), strict=True):
            rounded = new
            if id(old) in self._inputs and id(old) in self._plan.points:
                rounded = self._input(new, old)
            point = self._plan.moved.get((node.index, id(old)))
            if point is not None:
                rounded = self._quantize(rounded, point)
            swaps[id(new)] = rounded
        return keras.tree.map_structure(lambda leaf: swaps.get(id(leaf), leaf), (args, kwargs))

    def _activation(self, op: Any, x: Any) -> Any:
        name, function = op.name, op.activation
        if name not in self._activations:  # a shared layer is called more than once
            layer = keras.layers.Activation(function, name=f"{name}{_SPLIT}")
            steps = activation_rule(function).steps
            if steps is not None:
                count = sum(node.op.name == name for node in self._plan.graph.nodes)
                ranges = inner_ranges(layer, steps, (x,), {})
                layer = self._apart(op, layer, steps, ranges, count)
            self._activations[name] = layer
        layer = self._activations[name]
        if not isinstance(layer, DecomposedLayer):
            return layer(x)
        self._sites[id(layer)] += 1
        return layer(x, site=self._sites[id(layer)] - 1)

    def _input(self, new: Any, old: Any) -> Any:
        if id(old) not in self._quantized_inputs:
            self._quantized_inputs[id(old)] = self._quantize(new, self._plan.points[id(old)])
        return self._quantized_inputs[id(old)]

    def _quantize(self, tensor: Any, point: Point) -> Any:
        if id(point.range) not in self._ranges:
            # Ranges stand on every replica like the model's variables; the graph itself is of no
            # strategy, so that it runs anywhere afterwards.
            with self._strategy.scope():
                layer = _range_layer(point.range, self._ranges, self._schemes)
            self._ranges[id(point.range)] = layer
        layer = self._ranges[id(point.range)]
        return layer(tensor, site=point.site, pooled=point.pooled)


def _bound(op: Any, steps: str, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Puts tensors first, and everything else behind by name."""
    if steps == "with_constant":
        place = [keras.backend.is_keras_tensor(arg) for arg in args].index(False)
        return (args[1 - place],), {"constant": np.asarray(args[place]).tolist(), "place": place}
    bound = inspect.signature(op.call).bind(*args, **kwargs)
    count = 0
    while count < len(bound.args) and tensors(bound.args[count]):
        count += 1
    names = list(bound.arguments)[count : len(bound.args)]
    named = dict(zip(names, bound.args[count:], strict=True))
    return bound.args[:count], {**named, **bound.kwargs}


def _has_only_weights(op: Any, schemes: LayerSchemes) -> bool:
    scheme = schemes.of(op)
    only_weights = scheme is not None and scheme.activation_num_bits is None
    return only_weights and has_kernels(original(op))


def _scheme_behind(op: Any, schemes: LayerSchemes) -> Scheme:
    return schemes.of(op) or INT8


def _range_layer(
    grid: Range, ranges: dict[int, FakeQuantize], schemes: LayerSchemes
) -> FakeQuantize:
    used = {layer.name for layer in ranges.values()}
    numbered = (f"{grid.name}_{number}" for number in itertools.count(1))
    name = next(n for n in itertools.chain([grid.name], numbered) if n not in used)
    # Schemes: a range has the bits of the layer that fills it first.
    scheme = _scheme_behind(grid.op, schemes)
    wide = scheme.activation_num_bits == 16
    return FakeQuantize(
        max(1, grid.num_sites),
        fixed_range=FIXED_INT16 if wide and grid.fixed else grid.fixed,
        role=grid.role,
        num_bits=scheme.activation_num_bits or 8,
        symmetric=scheme.symmetric,
        name=name,
    )


def is_quantization_aware(model: Any) -> bool:
    """Tells whether a model came from `quantize_aware` or `QuantizeAware`.

    Args:
        model: any Keras model.
    """
    kinds = (FakeQuantize, QuantizedLayer)
    return any(isinstance(layer, kinds) for _, layer in walk_layers(model))


def _check_not_quantized(model: Any) -> None:
    if is_quantization_aware(model):
        raise ValueError(
            f"Quantization needs a float model. Received: {model.name!r}, which is already "
            "quantization-aware. Train it as it is, or export it with quantize='int8'."
        )
    for layer in model.layers:
        mode = getattr(layer, "quantization_mode", None)
        if mode is not None or any(v.dtype == "int8" for v in layer.variables):
            raise ValueError(
                f"Quantization needs a float model. Received: {model.name!r}, of which Keras "
                f"quantized the layer {layer.name!r} (to {mode or 'int8'!r}). "
                "Take the model as it was before `model.quantize`."
            )


def float_operations(model: Any) -> tuple[tuple[str, str], ...]:
    """Lists what stays float in a quantization-aware model, as `(operation, reason)`.

    Args:
        model: what `quantize_aware` returned, or `QuantizeAware.quantized_model`; a reloaded one
            too.

    Raises:
        ValueError: the model is not quantization-aware.
    """
    check_quantization_aware(model)
    wrapped = [
        layer.name for layer in model.layers if isinstance(layer, QuantizedLayer | DecomposedLayer)
    ]
    if not any(isinstance(layer, FakeQuantize) for _, layer in walk_layers(model)):
        return tuple(
            (layer.name, REASON if layer.name in wrapped else _FLOAT_WEIGHTS)
            for layer in model.layers
            if layer.name in wrapped or any(len(v.shape) > 1 for v in layer.trainable_variables)
        )
    graph = Graph(strip_ranges(model))
    quantized_layers = [layer for layer in model.layers if isinstance(layer, QuantizedLayer)]
    weights = {layer.name for layer in quantized_layers if layer.float_activations}
    left_out = set(weights)
    while True:
        plan = Plan(graph, lambda op: op.name not in left_out)
        # What the rules would quantize and the model does not, was left out; the first such
        # layer may be the reason for those behind it.
        quantized = {*plan.kernels, *plan.decomposed}
        missing = [graph.nodes[index].op.name for index in sorted(quantized)]
        missing = [name for name in missing if name not in wrapped]
        if not missing:
            return tuple((n, REASON if n in weights else why) for n, why in plan.floats)
        left_out.add(missing[0])


def scheme_of(model: Any) -> Scheme:
    """Returns the scheme of the file that a quantization-aware model becomes.

    Args:
        model: a quantization-aware model.

    Raises:
        ValueError: the model is not quantization-aware.
    """
    check_quantization_aware(model)
    ranges = (layer for _, layer in walk_layers(model) if isinstance(layer, FakeQuantize))
    num_bits = next((layer.num_bits for layer in ranges), None)
    return next(s for s in PRESETS.values() if s.activation_num_bits == num_bits)


def check_quantization_aware(model: Any) -> None:
    """Raises ValueError unless a model is quantization-aware."""
    if not is_quantization_aware(model):
        raise ValueError(
            f"A quantization-aware model is needed. Received: {model.name!r}, a float model. "
            "Make one with ko.quantization.quantize_aware or the callback QuantizeAware."
        )


def strip_ranges(model: Any) -> Any:
    """Returns the float graph inside a quantization-aware one, on the same layers."""
    inside: dict[int, Any] = {}

    def call(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, FakeQuantize) or op.name in split:
            return args[0]
        if isinstance(op, DecomposedLayer):
            args, kwargs = op.as_called(args, kwargs)
        if isinstance(op, DecomposedLayer | QuantizedLayer):
            op = inside.setdefault(id(op), under_name(op.layer, op.name))
        return op(*args, **kwargs)

    wrapped = [layer for layer in model.layers if isinstance(layer, QuantizedLayer)]
    split = {f"{layer.name}{_SPLIT}" for layer in wrapped if layer.linear}
    return keras.models.clone_model(
        functional(model), clone_function=lambda op: op, call_function=call
    )
