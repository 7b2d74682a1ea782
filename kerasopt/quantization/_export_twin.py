"""The graph that is handed to the TFLite converter."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.quantization._decomposed import DecomposedLayer, activation_steps
from kerasopt.quantization._exceptions import INTEGERS
from kerasopt.quantization._fake_quant import fake_quantize, fake_quantize_kernel
from kerasopt.quantization._flat import flat_functional
from kerasopt.quantization._fusion import is_dropped, maker
from kerasopt.quantization._graph import Graph, Node
from kerasopt.quantization._kernels import (
    CARRYING,
    RECURRENT,
    QuantizedLayer,
    is_users,
    kernels_of,
    own_call,
)
from kerasopt.quantization._layers import FakeQuantize
from kerasopt.quantization._renamed import without_renamed
from kerasopt.quantization._rules import STEPS, rule_for
from kerasopt.quantization._steps import Fixed, Steps, constant_levels
from kerasopt.quantization._twin import scheme_of

Later = list[tuple[Any, list[np.ndarray]]]
ops = keras.ops


class _ConstantRange(keras.layers.Layer):
    """Fake quantization with a range fixed for good, as the converter reads it."""

    def __init__(self, low: float, high: float, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.supports_masking = True
        self.low, self.high = low, high

    def call(self, inputs: Any) -> Any:
        return fake_quantize(inputs, self.low, self.high)

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs.shape, dtype="float32")


def export_twin(model: Any, *, batch_size: int | None = 1) -> Any:
    """Returns the graph to hand to the TFLite converter.

    Kernels are constants that already hold their int8 levels, affine maps over channels are
    convolutions, operations that int8 takes apart are their steps, and what only matters in
    training is gone. The converter then finds the same integers, channel by channel.

    Only 8-bit ranges are in the graph. The converter takes 16-bit ones from data alone
    (`EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8` with a representative data set)
    and refuses a graph that holds any, so the graph of `"int16x8"` and that of `"int8_weights"`
    hold nothing but the kernels' levels.

    Args:
        model: a quantization-aware model with ranges learned.
        batch_size: inputs that the graph takes at once; `None` for any number.

    Raises:
        ValueError: the model is not quantization-aware, or a range has seen no training batch.
    """
    has_ranges = scheme_of(model).activation_num_bits == 8
    flat = without_renamed(flat_functional(model))
    graph = Graph(flat)
    builder = _Builder(graph, has_ranges=has_ranges)
    inputs = keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=(batch_size, *t.shape[1:]), dtype=t.dtype, name=t.name),
        flat.input,
    )
    twin = keras.models.clone_model(
        graph.copy, input_tensors=inputs, clone_function=builder.wrap, call_function=builder
    )
    for layer, weights in builder.later:
        layer.set_weights(weights)
    return twin


class _Builder:
    """Makes the constants and calls the operations of the exported graph."""

    def __init__(self, graph: Graph, *, has_ranges: bool) -> None:
        self._has_ranges = has_ranges
        self.later: Later = []
        self._graph = graph
        self._nodes: dict[int, Node] = {id(node.op): node for node in graph.nodes}
        self._order = iter(graph.nodes)
        self._affine: set[int] = set()
        self._constant: set[int] = set()  # ids of the layers with constant kernels
        self._count = itertools.count()
        self._calls: dict[str, Iterator[int]] = defaultdict(itertools.count)

    def wrap(self, op: Any) -> Any:
        """Returns what stands for an operation in the exported graph."""
        if isinstance(op, FakeQuantize):
            low, high = _range_of(op)
            return _ConstantRange(low, high, op.name) if self._has_ranges else op
        if isinstance(op, QuantizedLayer):
            return self._constant_kernels(op)
        if isinstance(op, DecomposedLayer):
            return op
        if self._is_affine(op):
            self._affine.add(id(op))
            return op
        if (
            self._has_ranges
            and hasattr(op, "max_value")
            and rule_for(op).kind == "relu"
            and rule_for(op).fixed_range is not None
        ):
            return keras.layers.ReLU(name=op.name)  # the range behind it clips
        if isinstance(op, keras.Layer) and op.compute_dtype != "float32":
            return self._in_float32(op)
        return op

    def __call__(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        node = next(self._order)
        if isinstance(op, _ConstantRange):
            return op(self._apart(node, args[0]))  # without `site`, `mask` or `training`
        if isinstance(op, DecomposedLayer):
            return self._steps(op, *args, **kwargs)
        if id(op) in self._affine:
            number = next(self._calls[op.name])  # a shared layer is called more than once
            name = f"{op.name}_call_{number}" if number else op.name
            return _map_channels(args[0], *_read_affine(op, args[0].shape), name)
        if is_dropped(node):
            is_float = "float" in str(args[0].dtype)
            return args[0] if is_float else ops.cast(args[0], node.outputs[0].dtype)
        if isinstance(op, FakeQuantize):
            return args[0]
        if self._has_ranges and self._is_walled(op):
            args, kwargs = self._walled(op, (args, kwargs))
            result = op(*args, **kwargs)
            leaks = rule_for(op, self._nodes.get(id(op))).leaks
            return self._walled(op, result) if leaks else result
        return op(*args, **kwargs)

    def _walled(self, op: Any, structure: Any) -> Any:
        takes_integers = rule_for(op, self._nodes.get(id(op))).reason == INTEGERS

        def wall(value: Any) -> Any:
            if not keras.backend.is_keras_tensor(value):
                return value
            is_float = "float" in str(value.dtype)
            if not is_float and not takes_integers:
                return value
            name = f"{op.name}_wall_{next(self._count)}"
            return (_Wall if is_float else _ToFloat)(name=name)(value)

        return keras.tree.map_structure(wall, structure)

    def _is_walled(self, op: Any) -> bool:
        """Tells whether the converter would make a float operation, or a part of it, int8."""
        if isinstance(op, RECURRENT):
            return True
        if isinstance(op, _ConstantRange) or id(op) in self._constant:
            return False
        node = self._nodes.get(id(op))
        if node is not None and not any("float" in str(t.dtype) for t in node.outputs):
            return False  # comparisons and indices
        rule = rule_for(op, node)
        return rule.leaks or rule.kind == "kernel"

    def _apart(self, node: Node, x: Any) -> Any:
        """Puts an operator between two ranges in a row, of which the converter would drop one."""
        if all(layer is node.op for layer in self._ranges_before(node.inputs[0])):
            return x
        ones = _diagonal(None, None, x.shape[-1])
        return _map_channels(x, *ones, f"{node.op.name}_from_{next(self._count)}")

    def _ranges_before(self, tensor: Any) -> set[FakeQuantize]:
        """Finds the ranges that a tensor lies on, through all that keeps them."""
        before = self._graph.producer.get(id(tensor))
        if before is None:
            return set()
        if isinstance(before.op, FakeQuantize):
            return {before.op}
        if rule_for(before.op, before).kind not in ("same", "dropped", "join"):
            return set()
        return set().union(*(self._ranges_before(each) for each in before.inputs))

    def _steps(self, op: DecomposedLayer, *args: Any, site: int = 0, **kwargs: Any) -> Any:
        kwargs.pop("training", None)
        number = next(self._count)

        def round_to(name: str, tensor: Any, fixed: Fixed) -> Any:  # noqa: ARG001
            layer = op.ranges[name]
            low, high = _range_of(layer)
            if not self._has_ranges:
                return tensor
            return _ConstantRange(low, high, f"{layer.name}_{number}_{site}")(tensor)

        def hide(name: str, scores: Any, hidden: Any) -> Any:
            layer = op.ranges[name]
            _, high = _range_of(layer)
            lowest, _ = layer.hidden_range()
            lowered = ops.add(scores, hidden * np.float32(lowest - high))
            if not self._has_ranges:
                return lowered
            name = f"{layer.name}_hidden_{number}_{site}"
            return _ConstantRange(*layer.hidden_range(), name)(lowered)

        parts = itertools.count()
        steps = Steps(
            range=round_to,
            kernel=_levels,
            variable=keras.ops.convert_to_numpy,
            affine=lambda x, scale, offset: _map_channels(
                x,
                *_diagonal(scale, offset, x.shape[-1]),
                f"{op.name}_affine_{number}_{next(parts)}",
            ),
            constant=lambda value: np.asarray(constant_levels(value)),
            dropout=lambda x, _rate: x,
            inverse_root=ops.rsqrt,
            hide=hide,
            activation_steps=activation_steps,
        )
        return STEPS[op.steps](steps, op.layer, *args, **kwargs)

    def _constant_kernels(self, op: QuantizedLayer) -> Any:
        if is_users(op.layer):
            return _ConstantInside(op)
        config = op.layer.get_config()
        config.update(name=op.name, dtype="float32")
        if op.linear:
            config["activation"] = "linear"
        axes = {id(kernel): axes for kernel, axes in kernels_of(op.layer)}
        weights = [
            _levels(v, axes[id(v)]) if id(v) in axes else ops.convert_to_numpy(v)
            for v in op.layer.weights
        ]
        layer = type(op.layer).from_config(config)
        self.later.append((layer, weights))
        if not op.float_activations:
            self._constant.add(id(layer))
        return layer

    def _in_float32(self, op: Any) -> Any:
        layer = type(op).from_config({**op.get_config(), "dtype": "float32"})
        self.later.append((layer, op.get_weights()))
        return layer

    def _is_affine(self, op: Any) -> bool:
        node = self._nodes[id(op)]
        kind = rule_for(op, node).kind
        if kind not in ("affine", "norm") or len(node.outputs) != 1:
            return False
        before = maker(self._graph, node.inputs[0])
        # Behind a kernel a BatchNormalization is folded by the converter.
        kernels = (QuantizedLayer, DecomposedLayer, *CARRYING)
        return kind == "affine" or before is None or not isinstance(before.op, kernels)


class _ConstantInside(keras.layers.Layer):
    """A layer or model of the user's own, as it is but for the kernels inside, on their levels."""

    def __init__(self, rounded: QuantizedLayer) -> None:
        super().__init__(name=rounded.name, dtype="float32")
        self.supports_masking = rounded.layer.supports_masking
        self.layer = rounded.layer
        self._levels = [(kernel, _levels(kernel, axes)) for kernel, axes in kernels_of(self.layer)]
        self.built = True

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        levels = [(kernel, ops.convert_to_tensor(value)) for kernel, value in self._levels]
        with own_call(self.layer), keras.StatelessScope(state_mapping=levels):
            outputs = self.layer(inputs, *args, **kwargs)
        return keras.tree.map_structure(lambda output: ops.cast(output, "float32"), outputs)


def _range_of(layer: FakeQuantize) -> tuple[float, float]:
    low, high = layer.range_value()
    if not high > low:
        raise ValueError(
            f"Every range must have seen data. Received: {layer.name!r}, which has seen none. "
            "Train the quantization-aware model for at least one step before exporting it."
        )
    return low, high


class _Wall(keras.layers.Layer):
    """Does nothing, in float: a negation, which has no int8 kernel, and its inverse."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return -inputs * -1.0

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs.shape, dtype="float32")


class _ToFloat(keras.layers.Layer):
    """Makes integers floats under a name that says for which operation."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32", autocast=False)

    def call(self, inputs: Any) -> Any:
        return ops.cast(inputs, "float32")

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs.shape, dtype="float32")


def _levels(variable: Any, axes: Sequence[int]) -> np.ndarray:
    return np.asarray(fake_quantize_kernel(ops.convert_to_numpy(variable), axes))


def _read_affine(op: Any, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Reads scale, offset and channel order off a per-channel affine map by probing it."""
    channels = shape[-1]
    basis = np.concatenate([np.zeros((1, channels)), np.eye(channels)]).astype("float32")
    probe = basis.reshape(channels + 1, *[1] * (len(shape) - 2), channels)
    mapped = ops.convert_to_numpy(op(probe)).reshape(channels + 1, -1)
    return mapped[1:] - mapped[0], mapped[0]


def _diagonal(scale: Any, offset: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    scale = np.ones(channels, "float32") if scale is None else np.reshape(scale, channels)
    offset = np.zeros(channels, "float32") if offset is None else np.reshape(offset, channels)
    return np.diag(scale), offset


def _map_channels(x: Any, matrix: np.ndarray, offset: np.ndarray, name: str) -> Any:
    """`x @ matrix + offset` as a 1x1 convolution, depthwise where no channels mix."""
    shape = x.shape
    image = shape if len(shape) == 4 else (-1, 1, int(np.prod(shape[1:-1])), shape[-1])
    y = x if len(shape) == 4 else ops.reshape(x, image)
    channels = shape[-1]
    if matrix.shape == (channels, channels) and np.array_equal(matrix, np.diag(np.diag(matrix))):
        layer: Any = keras.layers.DepthwiseConv2D(1, name=name)
        kernel = np.diag(matrix).reshape(1, 1, channels, 1)
    else:
        layer = keras.layers.Conv2D(matrix.shape[1], 1, name=name)
        kernel = matrix.reshape(1, 1, *matrix.shape)
    layer.build((None, *image[1:]))
    layer.set_weights([kernel, offset])
    y = layer(y)
    return y if len(shape) == 4 else ops.reshape(y, (-1, *shape[1:-1], matrix.shape[1]))
