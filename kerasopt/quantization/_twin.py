"""The quantization-aware graph, built around the user's layers, and the graph that is exported."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._layer_filter import LayerFilter, select_layers, walk_layers
from kerasopt._validation import check_choice
from kerasopt.quantization._fake_quant import fake_quantize, fake_quantize_kernel
from kerasopt.quantization._graph import Graph, Node, flat_functional, functional, tensors
from kerasopt.quantization._layers import CARRYING, FakeQuantize, QuantizedLayer, kernel_axes
from kerasopt.quantization._placement import Plan, Point, Range
from kerasopt.quantization._rules import rule_for
from kerasopt.training import settle

_SPLIT = "_split_activation"
"""Ends the name of an activation that was taken out of a layer."""


def quantize_aware(model: Any, scheme: str = "int8", *, layers: LayerFilter = None) -> Any:
    """Returns a copy of a model that computes as its int8 TFLite file will.

    Kernels are rounded to int8 levels, one scale per output channel, and activations to the 256
    levels of a range that is learned while the copy trains. Compile the result, train it with
    `fit`, hand it to `ko.export.to_tflite(..., quantize="int8")`.

    Args:
        model: a built functional or Sequential model, nested models included. It is not changed.
        scheme: `"int8"`: weights symmetric per output channel, activations asymmetric 8 bit.
        layers: which layers to quantize: `None` for all, a regex on the name or path, a list of
            them, or a callable `layer -> bool`. A layer left out stays float, and so does the
            operation that reads it directly.

    Returns:
        A functional `keras.Model` with the same inputs and outputs, not compiled. It saves to
        `.keras` and loads without custom objects.

    Raises:
        ValueError: the model is not built, not functional or Sequential, or already quantized.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> [layer.name for layer in quantize_aware(model).layers][1:]  # doctest: +ELLIPSIS
        ['..._range', 'dense...', 'dense..._range']

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, arXiv:1712.05877.
    """
    check_choice("scheme", scheme, ("int8",))
    settle(model)
    source = flat_functional(model)
    _check_not_quantized(source)
    copy = keras.models.clone_model(source)
    copy.set_weights(source.get_weights())
    for mine, theirs in zip(copy.layers, source.layers, strict=True):
        mine.trainable = theirs.trainable
    return build_twin(copy, layers=layers)


def build_twin(model: Any, *, layers: LayerFilter = None) -> Any:
    """Returns the quantization-aware graph around the very layers of `model`."""
    flat = flat_functional(model)
    _check_not_quantized(flat)
    graph = Graph(flat)
    plan = Plan(graph, _selector(flat, layers))
    ranges: dict[int, FakeQuantize] = {}  # id of a `Range` -> its layer
    split = {graph.nodes[index].op.name for index in plan.split}
    wrapped = {id(graph.nodes[index].op) for index in plan.kernels}

    def replace(op: Any) -> Any:
        return QuantizedLayer(op, linear=op.name in split) if id(op) in wrapped else op

    def quantize(tensor: Any, point: Point) -> Any:
        if id(point.range) not in ranges:
            ranges[id(point.range)] = _range_layer(point.range, ranges)
        layer = ranges[id(point.range)]
        return layer(tensor, site=point.site, pooled=point.pooled)

    call = _Caller(graph, plan, quantize)
    return keras.models.clone_model(graph.copy, clone_function=replace, call_function=call)


class _Caller:
    """Calls each operation of the new graph and puts the ranges behind it."""

    def __init__(self, graph: Graph, plan: Plan, quantize: Callable[[Any, Point], Any]) -> None:
        self._nodes = iter(graph.nodes)
        self._inputs = {id(tensor) for tensor in graph.inputs}
        self._plan = plan
        self._quantize = quantize
        self._quantized_inputs: dict[int, Any] = {}
        self._activations: dict[str, Any] = {}

    def __call__(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        node = next(self._nodes)
        swaps = {
            id(new): self._input(new, old)
            for old, new in zip(node.inputs, tensors((args, kwargs)), strict=True)
            if id(old) in self._inputs and id(old) in self._plan.points
        }
        args, kwargs = keras.tree.map_structure(
            lambda leaf: swaps.get(id(leaf), leaf), (args, kwargs)
        )
        result = op(*args, **kwargs)
        if node.index in self._plan.split:
            result = self._quantize(result, self._plan.split[node.index])
            result = self._activation(op.name, node.op.activation)(result)
        point = self._plan.points.get(id(node.outputs[0])) if len(node.outputs) == 1 else None
        return result if point is None else self._quantize(result, point)

    def _activation(self, name: str, function: Any) -> Any:
        if name not in self._activations:  # a shared layer is called more than once
            layer = keras.layers.Activation(function, name=f"{name}{_SPLIT}")
            self._activations[name] = layer
        return self._activations[name]

    def _input(self, new: Any, old: Any) -> Any:
        if id(old) not in self._quantized_inputs:
            self._quantized_inputs[id(old)] = self._quantize(new, self._plan.points[id(old)])
        return self._quantized_inputs[id(old)]


def _range_layer(grid: Range, ranges: dict[int, FakeQuantize]) -> FakeQuantize:
    used = {layer.name for layer in ranges.values()}
    numbered = (f"{grid.name}_{number}" for number in itertools.count(1))
    name = next(n for n in itertools.chain([grid.name], numbered) if n not in used)
    return FakeQuantize(max(1, grid.num_sites), fixed_range=grid.fixed, role=grid.role, name=name)


def _selector(model: Any, chosen: LayerFilter) -> Callable[[Any], bool]:
    if chosen is None:
        return lambda op: True  # noqa: ARG005
    every = walk_layers(model)
    picked = {id(layer) for _, layer in select_layers(every, chosen)}
    known = {id(layer) for _, layer in every}
    # Only layers with kernels are chosen one by one; what lies between follows its neighbours.
    return lambda op: id(op) in picked or id(op) not in known or not isinstance(op, CARRYING)


def is_quantization_aware(model: Any) -> bool:
    """Tells whether a model came from `quantize_aware` or `QuantizeAware`.

    Args:
        model: any Keras model.
    """
    return any(isinstance(layer, FakeQuantize) for _, layer in walk_layers(model))


def _check_not_quantized(model: Any) -> None:
    if is_quantization_aware(model):
        raise ValueError(
            f"Quantization needs a float model. Received: {model.name!r}, which is already "
            "quantization-aware. Train it as it is, or export it with quantize='int8'."
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
    graph = Graph(_strip_ranges(model))
    wrapped = {layer.name for _, layer in walk_layers(model) if isinstance(layer, QuantizedLayer)}
    left_out: set[str] = set()
    while True:
        plan = Plan(graph, lambda op: op.name not in left_out)
        # What the rules would quantize and the model does not, was left out; the first such
        # layer may be the reason for those behind it.
        missing = [graph.nodes[index].op.name for index in sorted(plan.kernels)]
        missing = [name for name in missing if name not in wrapped]
        if not missing:
            return tuple(plan.floats)
        left_out.add(missing[0])


def check_quantization_aware(model: Any) -> None:
    """Raises ValueError unless a model is quantization-aware."""
    if not is_quantization_aware(model):
        raise ValueError(
            f"A quantization-aware model is needed. Received: {model.name!r}, a float model. "
            "Make one with ko.quantization.quantize_aware or the callback QuantizeAware."
        )


def _strip_ranges(model: Any) -> Any:
    """Returns the float graph inside a quantization-aware one, on the same layers."""

    def call(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, FakeQuantize):
            return args[0]
        if isinstance(op, QuantizedLayer):
            return op.layer(*args, **kwargs)
        if op.name in split:
            return args[0]
        return op(*args, **kwargs)

    wrapped = [layer for layer in model.layers if isinstance(layer, QuantizedLayer)]
    split = {f"{layer.name}{_SPLIT}" for layer in wrapped if layer.linear}
    return keras.models.clone_model(
        functional(model), clone_function=lambda op: op, call_function=call
    )


class _ConstantRange(keras.layers.Layer):
    """Fake quantization with a range fixed for good, as the converter reads it."""

    def __init__(self, low: float, high: float, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.low, self.high = low, high

    def call(self, inputs: Any) -> Any:
        return fake_quantize(inputs, self.low, self.high)

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs.shape, dtype="float32")


def export_twin(model: Any) -> Any:
    """Returns the graph to hand to the TFLite converter.

    Kernels are constants that already hold their int8 levels, the batch size is 1, affine maps
    over pixels are convolutions, and what only matters in training is gone. The converter then
    finds the same integers, channel by channel.

    Args:
        model: a quantization-aware model with ranges learned.

    Raises:
        ValueError: the model is not quantization-aware, or a range has seen no training batch.
    """
    check_quantization_aware(model)
    flat = flat_functional(model)
    graph = Graph(flat)
    nodes: dict[int, Node] = {id(node.op): node for node in graph.nodes}
    later: list[tuple[Any, list[np.ndarray]]] = []
    convolutions: list[Any] = []

    def replace(op: Any) -> Any:
        if isinstance(op, FakeQuantize):
            low, high = op.range_value()
            if not high > low:
                raise ValueError(
                    f"Every range must have seen data. Received: {op.name!r}, which has seen none. "
                    "Train the quantization-aware model for at least one step before exporting it."
                )
            return _ConstantRange(low, high, op.name)
        if isinstance(op, QuantizedLayer):
            return _constant_kernel(op, later)
        if _is_affine(op, nodes, graph):
            convolutions.append(_as_convolution(op, nodes[id(op)], later))
            return convolutions[-1]
        return op

    def call(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, _ConstantRange) or any(op is made for made in convolutions):
            return op(args[0])  # without `site`, `mask` or `training`
        if _only_for_training(op):
            return args[0]
        return op(*args, **kwargs)

    inputs = keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=(1, *t.shape[1:]), dtype=t.dtype, name=t.name), flat.input
    )
    twin = keras.models.clone_model(
        graph.copy, input_tensors=inputs, clone_function=replace, call_function=call
    )
    for layer, weights in later:
        layer.set_weights(weights)
    return twin


def _constant_kernel(op: QuantizedLayer, later: list[tuple[Any, list[np.ndarray]]]) -> Any:
    config = op.layer.get_config()
    config.update(name=op.name, dtype="float32")
    if op.linear:
        config["activation"] = "linear"
    weights = op.layer.get_weights()
    weights[0] = np.asarray(fake_quantize_kernel(weights[0], kernel_axes(op.layer)))
    layer = type(op.layer).from_config(config)
    later.append((layer, weights))
    return layer


def _only_for_training(op: Any) -> bool:
    noise = (
        keras.layers.Dropout,
        keras.layers.SpatialDropout2D,
        keras.layers.GaussianNoise,
        keras.layers.GaussianDropout,
        keras.layers.ActivityRegularization,
    )
    return isinstance(op, noise) or getattr(op, "kerasopt_training_only", False)


def _is_affine(op: Any, nodes: dict[int, Node], graph: Graph) -> bool:
    kind = rule_for(op).kind
    if kind not in ("affine", "norm") or len(nodes[id(op)].outputs[0].shape) != 4:
        return False
    before = graph.producer.get(id(nodes[id(op)].inputs[0]))
    # Behind a kernel a BatchNormalization is folded by the converter.
    return (
        kind == "affine" or before is None or not isinstance(before.op, (QuantizedLayer, *CARRYING))
    )


def _as_convolution(op: Any, node: Node, later: list[tuple[Any, list[np.ndarray]]]) -> Any:
    """Reads scale, offset and channel order off a per-pixel affine map by probing it."""
    channels = node.inputs[0].shape[-1]
    basis = np.concatenate([np.zeros((1, channels)), np.eye(channels)]).astype("float32")
    mapped = keras.ops.convert_to_numpy(op(basis[:, None, None, :])).reshape(channels + 1, -1)
    offset, matrix = mapped[0], mapped[1:] - mapped[0]
    if matrix.shape == (channels, channels) and np.array_equal(matrix, np.diag(np.diag(matrix))):
        layer: Any = keras.layers.DepthwiseConv2D(1, name=op.name)
        later.append((layer, [np.diag(matrix).reshape(1, 1, channels, 1), offset]))
    else:
        layer = keras.layers.Conv2D(matrix.shape[1], 1, name=op.name)
        later.append((layer, [matrix.reshape(1, 1, *matrix.shape), offset]))
    return layer
