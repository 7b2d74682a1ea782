"""Fake quantization: functions on tensors, with straight-through gradients."""

from collections.abc import Sequence
from typing import Any

from kerasopt._backend import tf

_LEVELS = 127.0
"""Largest level of a symmetric, narrow-range int8 weight: -127 ... 127."""


def kernel_scale(kernel: Any, axes: Sequence[int]) -> Any:
    """Returns the step between two int8 levels of each output channel, `max|w| / 127`.

    Args:
        kernel: float32 tensor.
        axes: the axes that do not count output channels.

    Returns:
        Tensor of the kernel's rank with size 1 along `axes`; 0 where a channel is all zero.
    """
    return tf.reduce_max(tf.abs(kernel), axis=list(axes), keepdims=True) / _LEVELS


def fake_quantize_kernel(kernel: Any, axes: Sequence[int]) -> Any:
    """Rounds a kernel to int8 levels, symmetric, narrow range, one scale per output channel.

    `q = round(w / s) * s` with `s = max|w| / 127`. Nothing is clipped, so the straight-through
    gradient is the identity.

    Args:
        kernel: float32 tensor.
        axes: the axes that do not count output channels: (0, 1, 2) for a Conv2D kernel
            (height, width, in, out), (0, 1) for a DepthwiseConv2D kernel (height, width, in,
            multiplier), (0,) for a Dense kernel (in, out).

    Returns:
        Tensor of the same shape; zeros stay zeros.

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, arXiv:1712.05877; straight-through estimator: Bengio
        et al., arXiv:1308.3432.
    """
    scale = kernel_scale(kernel, axes)
    safe = tf.where(scale > 0.0, scale, tf.ones_like(scale))
    quantized = tf.round(kernel / safe) * safe
    return kernel + tf.stop_gradient(quantized - kernel)


def fake_quantize(x: Any, low: Any, high: Any) -> Any:
    """Rounds a tensor to the 256 levels of a range that holds zero; values outside are clipped.

    TensorFlow moves the range slightly so that 0.0 is one of the levels. The gradient is 1 inside
    the range and 0 outside.

    Args:
        x: float32 tensor of any shape.
        low: scalar <= 0.
        high: scalar >= 0, greater than `low`.
    """
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=8)


def away_from_zero_level(x: Any, low: Any, high: Any) -> Any:
    """Shifts averages a tenth of a step away from int8 zero before they are rounded.

    AVERAGE_POOL_2D rounds ties away from the int8 zero, fake quantization rounds them up. With
    2x2 windows a quarter of all averages are ties; the shift makes both round alike and changes
    nothing else.
    """
    scale = (high - low) / 255.0
    middle = (128.0 - tf.round(-low / scale)) * scale
    return x + 0.1 * scale * tf.sign(x - middle)
