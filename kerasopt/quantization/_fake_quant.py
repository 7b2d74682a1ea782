"""Fake quantization: functions on tensors, with straight-through gradients."""

from collections.abc import Sequence
from typing import Any

from kerasopt._backend import tf
from kerasopt._validation import check_int

MIN_BITS, MAX_BITS = 2, 16


def check_num_bits(num_bits: Any, *, name: str = "num_bits") -> int:
    """Returns a number of bits after checking that it lies in 2 to 16."""
    return check_int(name, num_bits, low=MIN_BITS, high=MAX_BITS)


def kernel_scale(kernel: Any, axes: Sequence[int], *, num_bits: int = 8) -> Any:
    """Returns the step between two levels of each output channel, `max|w| / n`.

    Args:
        kernel: float32 tensor.
        axes: the axes that do not count output channels.
        num_bits: 2 to 16; `n = 2 ** (num_bits - 1) - 1`.

    Returns:
        Tensor of the kernel's rank with size 1 along `axes`; 0 where a channel is all zero.
    """
    largest = 2 ** (check_num_bits(num_bits) - 1) - 1
    return tf.reduce_max(tf.abs(kernel), axis=list(axes), keepdims=True) / largest


def fake_quantize_kernel(kernel: Any, axes: Sequence[int], *, num_bits: int = 8) -> Any:
    """Rounds a kernel to the levels of integers, symmetric, narrow range, a scale per channel.

        n = 2 ** (num_bits - 1) - 1        s = max|w| / n        q = round(w / s) * s

    Nothing is clipped, so the straight-through gradient is the identity.

    Args:
        kernel: float32 tensor.
        axes: the axes that do not count output channels: (0, 1, 2) for a Conv2D kernel
            (height, width, in, out), (0, 1) for a DepthwiseConv2D kernel (height, width, in,
            multiplier), (0,) for a Dense kernel (in, out). All axes: one scale for the tensor.
        num_bits: 2 to 16; 8 (default) has the levels -127 to 127.

    Returns:
        Tensor of the same shape; zeros stay zeros.

    Raises:
        TypeError: `num_bits` is not an integer.
        ValueError: it is out of range.

    Example:
        >>> fake_quantize_kernel([[0.3, 1.0], [-1.0, 0.2]], (0,), num_bits=2).numpy().tolist()
        [[0.0, 1.0], [-1.0, 0.0]]

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, arXiv:1712.05877; straight-through estimator: Bengio
        et al., arXiv:1308.3432.
    """
    kernel = tf.convert_to_tensor(kernel)
    scale = kernel_scale(kernel, axes, num_bits=num_bits)
    safe = tf.where(scale > 0.0, scale, tf.ones_like(scale))
    quantized = tf.round(kernel / safe) * safe
    return kernel + tf.stop_gradient(quantized - kernel)


def fake_quantize(
    x: Any, low: Any, high: Any, *, num_bits: int = 8, narrow_range: bool = False
) -> Any:
    """Rounds a tensor to the levels of a range that holds zero; values outside are clipped.

        n = 2 ** num_bits - 1 (one less with `narrow_range`)
        s = (high - low) / n        z = round(-low / s)
        q = (clip(round(x / s) + z, 0, n) - z) * s

    So 0.0 is one of the levels, and the range moves by up to half a step for it. Halves round up.
    The gradient is 1 inside the range and 0 outside.

    Args:
        x: float32 tensor of any shape.
        low: <= 0; a scalar, or one value for each channel, the last axis of `x`.
        high: >= 0, greater than `low`, of the same shape.
        num_bits: 2 to 16, default 8.
        narrow_range: leaves the lowest level out, so that as many lie below as above of zero in
            a symmetric range.

    Returns:
        Tensor of the same shape.

    Raises:
        TypeError: `num_bits` is not an integer.
        ValueError: it is out of range.

    Example:
        >>> fake_quantize([-2.0, 0.3, 0.9], -1.0, 1.0, num_bits=2, narrow_range=True).numpy()
        array([-1.,  0.,  1.], dtype=float32)

    Reference:
        Jacob et al., arXiv:1712.05877.
    """
    check_num_bits(num_bits)
    per_channel = tf.convert_to_tensor(low).shape.rank == 1
    function = (
        tf.quantization.fake_quant_with_min_max_vars_per_channel
        if per_channel
        else tf.quantization.fake_quant_with_min_max_vars
    )
    return function(x, low, high, num_bits=num_bits, narrow_range=bool(narrow_range))


def symmetric_range(low: Any, high: Any, *, num_bits: int = 8, narrow_range: bool = False) -> Any:
    """Returns the smallest range around `low` and `high` whose zero point is 0.

    Two's complement has one level more below zero than above, and so has the range:

        limit = max(high, -low / r)        r = 1 with `narrow_range`,
        low, high = -limit * r, limit      else 2 ** num_bits / (2 ** num_bits - 2)

    Args:
        low: tensor or number, <= 0.
        high: of the same shape, >= 0.
        num_bits: 2 to 16, default 8.
        narrow_range: as in `fake_quantize`.

    Returns:
        `(low, high)`.

    Raises:
        TypeError: `num_bits` is not an integer.
        ValueError: it is out of range.

    Example:
        >>> [float(end) for end in symmetric_range(-0.5, 127.0)]
        [-128.0, 127.0]
    """
    levels = 2 ** check_num_bits(num_bits)
    ratio = 1.0 if narrow_range else levels / (levels - 2)
    limit = tf.maximum(high, tf.negative(low) / ratio)
    return -limit * ratio, limit


def away_from_zero_level(x: Any, low: Any, high: Any, *, num_bits: int = 8) -> Any:
    """Shifts averages a little away from integer zero before they are rounded.

    AVERAGE_POOL_2D rounds ties away from the integer zero, fake quantization rounds them up. With
    2x2 windows a quarter of all averages are ties; the shift makes both round alike and changes
    nothing else.
    """
    scale = (high - low) / (2.0**num_bits - 1.0)
    middle = (2.0 ** (num_bits - 1) - tf.round(-low / scale)) * scale
    # Less than what lies between a tie and its neighbours, for windows of up to 200 values.
    return x + 0.002 * scale * tf.sign(x - middle)


def tie_to_even(x: Any, low: Any, high: Any, *, num_bits: int = 8) -> Any:
    """Shifts means that lie halfway between two levels a little before they are rounded.

    MEAN rounds ties to even int8 values. There are many where its output has the range of its
    input: of four values a quarter, of sixteen a sixteenth.
    """
    scale = (high - low) / (2.0**num_bits - 1.0)
    level = x / scale
    below = tf.floor(level)
    is_odd = tf.math.floormod(below + tf.round(-low / scale), 2.0)
    is_tie = tf.cast(tf.abs(level - below - 0.5) < 1e-4, x.dtype)
    return x + 0.002 * scale * is_tie * (2.0 * is_odd - 1.0)


def tie_upwards(x: Any, low: Any, high: Any, *, num_bits: int = 8) -> Any:
    """Shifts interpolated values a little upwards before they are rounded.

    RESIZE_BILINEAR rounds ties up. A quarter and three quarters of two levels are ties often, and
    come out of float arithmetic on either side.
    """
    return x + 0.002 * (high - low) / (2.0**num_bits - 1.0)
