"""Operations that become several int8 operators, with the same mathematics.

Each function takes the steps, the user's layer or operation, and the arguments of its call. What
it returns is rounded by the range behind the operation.
"""

import math
from typing import Any

from kerasopt._backend import keras
from kerasopt.quantization._steps import (
    FUSED_ACTIVATIONS,
    TANH,
    UNIT,
    Steps,
    activation_name,
)

ops = keras.ops


def silu(steps: Steps, _op: Any, x: Any) -> Any:
    """`x * sigmoid(x)`."""
    return x * steps.round("gate", ops.sigmoid(x), UNIT)


def mish(steps: Steps, _op: Any, x: Any) -> Any:
    """`x * tanh(log(1 + exp(x)))`."""
    return x * steps.round("gate", ops.tanh(ops.softplus(x)), TANH)


def hard_sigmoid(steps: Steps, _op: Any, x: Any) -> Any:
    """`relu6(x + 3) / 6`."""
    return steps.round("shifted", ops.relu6(x + 3.0), (0.0, 6.0)) * (1.0 / 6.0)


def slope_of(op: Any) -> float:
    """Returns the slope of a leaky ReLU, however it was written."""
    return float(getattr(op, "negative_slope", 0.2))


def leaky_relu(_steps: Steps, op: Any, x: Any) -> Any:
    """`max(x, a * x)`, with the slope in 1/256, as TFLite's kernel has it."""
    return ops.leaky_relu(x, round(slope_of(op) * 256.0) / 256.0)


def prelu(steps: Steps, op: Any, x: Any) -> Any:
    """`relu(x) - a * relu(-x)`."""
    # The converter recognizes this spelling, and rounds the slopes with one scale.
    alpha = steps.kernel(op.alpha, tuple(range(len(op.alpha.shape))))
    return ops.add(ops.relu(x), ops.multiply(ops.negative(alpha), ops.relu(-x)))


def tanh_shrink(steps: Steps, _op: Any, x: Any) -> Any:
    """`x - tanh(x)`."""
    return x - steps.round("tanh", ops.tanh(x), TANH)


def negative(_steps: Steps, _op: Any, x: Any) -> Any:
    """`x * -1`."""
    return x * -1.0


def square(_steps: Steps, _op: Any, x: Any, **_: Any) -> Any:
    """`x * x`."""
    return x * x


def total(steps: Steps, op: Any, x: Any, **_: Any) -> Any:
    """`mean(x) * n`."""
    axes = range(len(x.shape)) if op.axis is None else op.axis
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    count = math.prod(x.shape[axis] for axis in axes)
    mean = steps.round("mean", ops.mean(x, axis=axes, keepdims=op.keepdims))
    return mean * float(count)


def chain(steps: Steps, op: Any, inputs: Any) -> Any:
    """`a + b + c` (or the product) two at a time."""
    combine = ops.multiply if isinstance(op, keras.layers.Multiply) else ops.add
    result = inputs[0]
    for number, tensor in enumerate(inputs[1:], 1):
        result = combine(result, tensor)
        if number < len(inputs) - 1:
            result = steps.round(f"part_{number}", result)
    return result


def average(steps: Steps, op: Any, inputs: Any) -> Any:
    """`(a + b) * 0.5`."""
    return steps.round("sum", chain(steps, op, inputs)) * (1.0 / len(inputs))


def with_constant(steps: Steps, op: Any, x: Any, *, constant: Any, place: int) -> Any:
    """A sum, difference or product with a constant on its int8 levels."""
    levels = steps.constant(constant)
    return op(levels, x) if place == 0 else op(x, levels)


def with_variable(steps: Steps, layer: Any, inputs: Any) -> Any:
    """The same with a weight of the model itself, which trains on."""
    return layer.compute(inputs, [steps.constant(steps.variable(layer.own[0]))])


def clip(_steps: Steps, _op: Any, x: Any, **_: Any) -> Any:
    """Nothing: the range behind it clips."""
    return x


def separable_convolution(steps: Steps, layer: Any, x: Any) -> Any:
    """A depthwise convolution, then a 1x1 convolution."""
    spatial = len(layer.depthwise_kernel.shape) - 2
    x, padding = _padded(layer, x)
    x = ops.depthwise_conv(
        x,
        steps.kernel(layer.depthwise_kernel, tuple(range(spatial))),
        strides=layer.strides,
        padding=padding,
        data_format="channels_last",
        dilation_rate=layer.dilation_rate,
    )
    x = steps.round("depthwise", x)
    kernel = steps.kernel(layer.pointwise_kernel, tuple(range(spatial + 1)))
    x = ops.conv(x, kernel, strides=1, padding="valid", data_format="channels_last")
    return _finish(steps, layer, x)


def time_distributed(steps: Steps, op: Any, x: Any, **_: Any) -> Any:
    """The layer inside, on all steps at once."""
    layer, steps_count = op.layer, x.shape[1]
    if isinstance(layer, keras.layers.Dense):
        return _finish(steps, layer, ops.matmul(x, steps.kernel(layer.kernel, (0,))))
    flat, padding = _padded(layer, ops.reshape(x, (-1, *x.shape[2:])))
    y = ops.conv(
        flat,
        steps.kernel(layer.kernel, tuple(range(len(layer.kernel.shape) - 1))),
        strides=layer.strides,
        padding=padding,
        data_format="channels_last",
        dilation_rate=layer.dilation_rate,
    )
    y = _finish(steps, layer, y)
    return ops.reshape(y, (-1, steps_count, *y.shape[1:]))


def _padded(layer: Any, x: Any) -> tuple[Any, str]:
    """Puts the zeros of a causal padding in front; returns what padding is left to do."""
    if layer.padding != "causal":
        return x, layer.padding
    left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    return ops.pad(x, [[0, 0], [left, 0], [0, 0]]), "valid"


def layer_normalization(steps: Steps, layer: Any, x: Any) -> Any:
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta`, each step rounded."""
    is_rms = type(layer).__name__ == "RMSNormalization" or getattr(layer, "rms_scaling", False)
    normalized = _normalize(steps, x, (-1,), layer.epsilon, center=not is_rms)
    scale = layer.scale if is_rms and not hasattr(layer, "gamma") else layer.gamma
    return _scaled(steps, normalized, scale, getattr(layer, "beta", None))


def group_normalization(steps: Steps, layer: Any, x: Any) -> Any:
    """The same within groups of channels."""
    groups = x.shape[-1] if layer.groups == -1 else layer.groups
    pixels = math.prod(x.shape[1:-1])
    grouped = ops.reshape(x, (-1, pixels, groups, x.shape[-1] // groups))
    normalized = _normalize(steps, grouped, (1, 3), layer.epsilon, center=True)
    normalized = ops.reshape(normalized, (-1, *x.shape[1:]))
    return _scaled(steps, normalized, layer.gamma, layer.beta)


def _normalize(steps: Steps, x: Any, axes: Any, epsilon: float, *, center: bool) -> Any:
    if center:
        mean = steps.round("mean", ops.mean(x, axis=axes, keepdims=True))
        x = steps.round("centered", x - mean)
    squared = steps.round("squared", x * x)
    variance = steps.round("variance", ops.mean(squared, axis=axes, keepdims=True))
    shifted = steps.round("shifted", variance + epsilon)
    return x * steps.round("inverse", steps.inverse_root(shifted))


def _scaled(steps: Steps, x: Any, gamma: Any, beta: Any) -> Any:
    if gamma is None and beta is None:
        return x
    x = steps.round("normalized", x)
    return steps.affine(
        x,
        None if gamma is None else steps.variable(gamma),
        None if beta is None else steps.variable(beta),
    )


def _finish(steps: Steps, layer: Any, x: Any) -> Any:
    if layer.use_bias:
        x = x + steps.variable(layer.bias)
    return activate(steps, layer.activation, x)


def activate(steps: Steps, function: Any, x: Any) -> Any:
    """Applies an activation behind a kernel; one that does not fuse gets a range before it."""
    if activation_name(function) in FUSED_ACTIVATIONS:
        return x if function is None else function(x)
    x = steps.round("linear", x)
    taken_apart = steps.activation_steps(function)
    return function(x) if taken_apart is None else taken_apart(steps, function, x)
