"""The mathematics of fake quantization, against NumPy and the operators of TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasopt.quantization import fake_quantize, fake_quantize_kernel
from kerasopt.quantization._fake_quant import away_from_zero_level, tie_to_even

kernels = hnp.arrays(np.float32, (3, 2, 4), elements=st.floats(-3, 3, width=16), fill=st.nothing())


def reference_kernel(kernel, axes):
    scale = np.abs(kernel).max(axis=axes, keepdims=True) / np.float32(127)
    safe = np.where(scale > 0, scale, 1)
    return (np.round(kernel / safe) * safe).astype("float32")


def reference_activation(x, low, high):
    scale = (high - low) / 255.0
    zero = np.clip(np.round(-low / scale), 0, 255)
    low, high = -zero * scale, (255 - zero) * scale
    return (np.floor((np.clip(x, low, high) - low) / scale + 0.5) * scale + low).astype("float32")


@given(kernel=kernels)
@settings(max_examples=60, deadline=None)
def test_kernel_equals_numpy_and_is_idempotent(kernel):
    once = fake_quantize_kernel(kernel, (0, 1)).numpy()
    np.testing.assert_allclose(once, reference_kernel(kernel, (0, 1)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        fake_quantize_kernel(once, (0, 1)).numpy(), once, rtol=1e-5, atol=1e-7
    )
    step = np.abs(kernel).max(axis=(0, 1)) / 127
    assert np.all(np.abs(once - kernel) <= step / 2 + 1e-6)
    assert np.all(once[kernel == 0] == 0)


@given(kernel=kernels)
@settings(max_examples=20, deadline=None)
def test_kernel_equals_tensorflow_per_channel(kernel):
    kernel[0, 0] = 1.0  # TensorFlow divides by zero where a whole channel is
    limit = np.abs(kernel).max(axis=(0, 1))
    theirs = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -limit, limit, num_bits=8, narrow_range=True
    ).numpy()
    ours = fake_quantize_kernel(kernel, (0, 1)).numpy()
    # Ties may round differently, one step at most and rarely.
    assert np.all(np.abs(ours - theirs) <= limit / 127 + 1e-6)
    assert np.mean(np.abs(ours - theirs) > 1e-6) < 0.2


def test_kernel_gradient_is_the_identity():
    kernel = tf.random.normal((3, 2, 4), seed=0)
    upstream = tf.random.normal((3, 2, 4), seed=1)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = tf.reduce_sum(fake_quantize_kernel(kernel, (0, 1)) * upstream)
    np.testing.assert_allclose(tape.gradient(loss, kernel), upstream, rtol=1e-6)


@given(
    x=hnp.arrays(np.float32, 20, elements=st.floats(-8, 8, width=16)),
    low=st.floats(-6, -0.125, width=32),
    high=st.floats(0.125, 6, width=32),
)
@settings(max_examples=60, deadline=None)
def test_activation_is_close_to_numpy_idempotent_and_monotone(x, low, high):
    found = fake_quantize(x, low, high).numpy()
    step = (high - low) / 255
    np.testing.assert_allclose(found, reference_activation(x, low, high), atol=step + 1e-5)
    inside = (x > low + step) & (x < high - step)
    assert np.all(np.abs(found - x)[inside] <= step / 2 + 1e-5)
    np.testing.assert_allclose(fake_quantize(found, low, high).numpy(), found, atol=1e-5)
    assert np.all(np.diff(fake_quantize(np.sort(x), low, high).numpy()) >= -1e-6)
    assert float(fake_quantize(np.zeros(1, "float32"), low, high)[0]) == 0.0


def test_activation_gradient_stops_outside_the_range():
    x = tf.constant([-2.0, -0.5, 0.0, 0.5, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(fake_quantize(x, -1.0, 1.0))
    np.testing.assert_array_equal(tape.gradient(loss, x), [0.0, 1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.55), (-1.28, 1.27), (-0.55, 2.0)])
def test_averages_of_four_levels_round_away_from_int8_zero(low, high):
    """TFLite's rule in integers: sum of levels / 4, ties away from zero."""
    step = (high - low) / 255
    zero = np.round(-low / step) - 128
    rng = np.random.default_rng(0)
    levels = rng.integers(-128, 128, (500, 4))
    total = levels.sum(axis=1)
    expected = np.where(total > 0, total + 2, total - 2)
    expected = np.trunc(expected / 4)
    average = ((levels - zero) * step).mean(axis=1).astype("float32")
    shifted = away_from_zero_level(average, np.float32(low), np.float32(high))
    found = np.round(fake_quantize(shifted, low, high).numpy() / step + zero)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("count", [4, 16, 200])
@pytest.mark.parametrize(("low", "high"), [(0.0, 2.55), (-1.28, 1.27), (-0.55, 2.0)])
def test_means_round_ties_to_even_int8_values(low, high, count):
    """TFLite's rule in integers: sum of levels / n, ties to even."""
    step = (high - low) / 255
    zero = np.round(-low / step) - 128
    levels = np.random.default_rng(0).integers(-128, 128, (500, count))
    expected = np.round(levels.mean(axis=1))
    mean = ((levels - zero) * step).mean(axis=1).astype("float32")
    shifted = tie_to_even(mean, np.float32(low), np.float32(high))
    found = np.round(fake_quantize(shifted, low, high).numpy() / step + zero)
    np.testing.assert_array_equal(found, expected)
