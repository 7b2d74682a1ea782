"""What a quantization-aware model computes, tensor by tensor and kernel by kernel."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers
from kerasopt.quantization._decomposed import CALL_ONLY, DecomposedLayer, activation_steps
from kerasopt.quantization._flat import flat_functional
from kerasopt.quantization._fusion import only_reader
from kerasopt.quantization._graph import Graph, Node
from kerasopt.quantization._kernels import CARRYING, QuantizedLayer, kernels_of
from kerasopt.quantization._layers import FakeQuantize
from kerasopt.quantization._renamed import without_renamed
from kerasopt.quantization._rules import STEPS
from kerasopt.quantization._steps import Steps
from kerasopt.quantization._twin import check_quantization_aware

Tap = Callable[[FakeQuantize, Any], Any]


def run_observed(model: Any, inputs: Any, tap: Tap) -> Any:
    """Runs a quantization-aware model and hands over every tensor that it rounds.

    Args:
        model: a quantization-aware model.
        inputs: a batch of inputs.
        tap: called in order with each `FakeQuantize` layer and the rounded tensor; what it returns
            goes on through the model in place of that tensor.

    Returns:
        The model's outputs, in inference mode.

    Raises:
        ValueError: the model is not quantization-aware.
    """
    check_quantization_aware(model)
    ranges = [layer for _, layer in walk_layers(model) if isinstance(layer, FakeQuantize)]
    try:
        for layer in ranges:
            setattr(layer, "call", _tapped(layer, tap))  # noqa: B010
        return model(inputs, training=False)
    finally:
        for layer in ranges:
            if "call" in vars(layer):
                delattr(layer, "call")


def _tapped(layer: FakeQuantize, tap: Tap) -> Callable[..., Any]:
    original = layer.call

    def call(inputs: Any, site: int = 0, pooled: bool | str = False, training: Any = None) -> Any:
        rounded = original(inputs, site=site, pooled=pooled, training=training)
        return keras.ops.convert_to_tensor(tap(layer, rounded), "float32")

    return call


@dataclasses.dataclass(frozen=True, eq=False)
class KernelLevels:
    """A kernel as the integers that its file holds.

    Attributes:
        layer: name of the layer.
        levels: int8 array (output channels, weights of a channel).
        scale: float32 array (output channels,), the step between two levels.
        bias: float32 array (output channels,), or `None` when the layer's bias is not known here.
        factor: what a BatchNormalization behind it multiplies each channel by, or `None`.
    """

    layer: str
    levels: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None
    factor: np.ndarray | None


def kernel_levels(model: Any) -> tuple[KernelLevels, ...]:
    """Lists the int8 kernels of a quantization-aware model, those inside attention included.

    Args:
        model: a quantization-aware model.

    Returns:
        A `KernelLevels` for each kernel, in the order in which they are called. Kernels of
        float layers, recurrent ones and those of `"int8_weights"` among others, which the file
        holds as floats, are not among them.

    Raises:
        ValueError: the model is not quantization-aware.
    """
    check_quantization_aware(model)
    graph = Graph(without_renamed(flat_functional(model)))
    # Among ranges, a layer with weights alone is a float island, with a float kernel in the file.
    has_ranges = any(isinstance(node.op, FakeQuantize) for node in graph.nodes)
    found: list[KernelLevels] = []
    seen: set[int] = set()
    for node in graph.nodes:
        if id(node.op) in seen:
            continue
        seen.add(id(node.op))
        if isinstance(node.op, DecomposedLayer):
            found += _inner_kernels(node.op, node)
        elif (
            isinstance(node.op, QuantizedLayer)
            and isinstance(node.op.layer, CARRYING)
            and not (has_ranges and node.op.float_activations)
        ):
            found.append(_layer_kernel(node.op, node, graph))
    return tuple(found)


def _layer_kernel(op: QuantizedLayer, node: Node, graph: Graph) -> KernelLevels:
    ((kernel, axes),) = kernels_of(op.layer)
    levels, scale = _levels(keras.ops.convert_to_numpy(kernel), axes)
    bias = np.zeros(len(scale), "float32")
    if getattr(op.layer, "bias", None) is not None:
        bias = keras.ops.convert_to_numpy(op.layer.bias).ravel()
        if len(bias) != len(scale):  # an EinsumDense whose bias has other axes
            return KernelLevels(op.name, levels, scale, None, None)
    reader = only_reader(graph, node.outputs[0])
    factor = None
    if reader is not None and isinstance(reader.op, keras.layers.BatchNormalization):
        factor, offset = _fold(reader.op, len(scale))
        bias = bias * factor + offset
    return KernelLevels(op.name, levels, scale, bias, factor)


def _fold(norm: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    def value(variable: Any, default: float) -> np.ndarray:
        if variable is None:
            return np.full(channels, default, "float32")
        return np.asarray(keras.ops.convert_to_numpy(variable), "float32")

    root = 1.0 / np.sqrt(value(norm.moving_variance, 1.0) + np.float32(norm.epsilon))
    factor = root * value(norm.gamma, 1.0)
    return factor, value(norm.beta, 0.0) - value(norm.moving_mean, 0.0) * factor


def _inner_kernels(op: DecomposedLayer, node: Node) -> list[KernelLevels]:
    found: list[KernelLevels] = []

    def note(variable: Any, axes: Any) -> Any:
        value = keras.ops.convert_to_numpy(variable)
        if len(axes) < len(value.shape):  # slopes have one scale and are no kernel
            levels, scale = _levels(value, tuple(axes))
            found.append(KernelLevels(op.name, levels, scale, None, None))
        return value

    steps = Steps(
        range=lambda _name, tensor, _fixed: tensor,
        kernel=note,
        variable=keras.ops.convert_to_numpy,
        affine=lambda x, _scale, _offset: x,
        constant=lambda value: np.asarray(value, "float32"),
        dropout=lambda x, _rate: x,
        inverse_root=keras.ops.rsqrt,
        hide=lambda _name, x, _hidden: x,
        activation_steps=activation_steps,
    )
    kwargs = {name: value for name, value in node.kwargs.items() if name not in CALL_ONLY}
    STEPS[op.steps](steps, op.layer, *node.args, **kwargs)
    return found


def _levels(kernel: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    channels = [axis for axis in range(kernel.ndim) if axis not in axes]
    count = int(np.prod([kernel.shape[axis] for axis in channels]))
    rows = kernel.transpose(*channels, *axes).reshape(count, -1).astype("float32")
    scale = np.abs(rows).max(axis=1) / np.float32(127.0)
    safe = np.where(scale > 0.0, scale, 1.0).astype("float32")[:, None]
    return np.round(rows / safe).astype("int8"), scale
