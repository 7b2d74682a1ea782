"""Fake quantization of any number of bits, against NumPy, TensorFlow and TF-MOT."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasopt.pruning._schedules import tfmot_schedules
from kerasopt.quantization import FakeQuantize, fake_quantize, fake_quantize_kernel, symmetric_range
from tests.models import WIDER

values = hnp.arrays(np.float32, (6, 3), elements=st.floats(-8, 8, width=16), fill=st.nothing())
bits = st.integers(2, 16)
lows = st.floats(-6, -0.125, width=16)
highs = st.floats(0.125, 6, width=16)


def reference(x, low, high, num_bits, narrow):
    """The affine formula, with the range moved so that zero is a level; ends of the range too."""
    x, low, high = (np.asarray(v, "float64") for v in (x, low, high))
    smallest, largest = int(narrow), 2**num_bits - 1
    scale = (high - low) / (largest - smallest)
    zero = np.clip(np.floor(smallest - low / scale + 0.5), smallest, largest)
    ends = (smallest - zero) * scale, (largest - zero) * scale
    levels = np.floor((np.clip(x, *ends) - ends[0]) / scale + 0.5)
    return levels * scale + ends[0], ends


def step_of(low, high, num_bits, narrow):
    return (np.asarray(high, "float64") - low) / (2**num_bits - 1 - narrow)


def assert_same_levels(found, expected, position, step):
    """Equal, but where a position lies halfway between two levels as exactly as float32 knows."""
    position = np.asarray(position, "float64")
    from_half = np.abs(position - np.floor(position) - 0.5)
    levels = np.abs(np.asarray(found, "float64") - expected) / step
    on_border = from_half < 1e-3 + 4e-7 * np.abs(position).max()
    assert np.all(levels[~on_border] < 0.01)
    assert np.all(levels < 1.01)


@given(x=values, low=lows, high=highs, num_bits=bits, narrow=st.booleans())
@settings(max_examples=80, deadline=None)
def test_value_and_gradient_equal_numpy(x, low, high, num_bits, narrow):
    expected, ends = reference(x, low, high, num_bits, narrow)
    step = step_of(low, high, num_bits, narrow)
    with tf.GradientTape() as tape:
        source = tf.constant(x)
        tape.watch(source)
        found = fake_quantize(source, low, high, num_bits=num_bits, narrow_range=narrow)
        loss = tf.reduce_sum(found)
    assert_same_levels(found, expected, (np.clip(x, *ends) - ends[0]) / step, step)
    gradient = tape.gradient(loss, source).numpy()
    border = np.minimum(np.abs(x - ends[0]), np.abs(x - ends[1])) < 1e-4
    inside = (x > ends[0]) & (x < ends[1])
    np.testing.assert_array_equal((gradient != 0)[~border], inside[~border])


@given(x=values, low=lows, high=highs, num_bits=bits, narrow=st.booleans())
@settings(max_examples=80, deadline=None)
def test_idempotent_monotone_and_of_bounded_error(x, low, high, num_bits, narrow):
    step = step_of(low, high, num_bits, narrow)
    options = {"num_bits": num_bits, "narrow_range": narrow}
    found = fake_quantize(x, low, high, **options).numpy()
    again = fake_quantize(found, low, high, **options).numpy()
    np.testing.assert_allclose(again, found, atol=step * 1e-2 + 1e-6)
    assert len(np.unique(np.round(found / step))) <= 2**num_bits - narrow
    ordered = fake_quantize(np.sort(x, axis=None), low, high, **options).numpy()
    assert np.all(np.diff(ordered) >= 0)
    _, ends = reference(x, low, high, num_bits, narrow)
    inside = (x >= ends[0]) & (x <= ends[1])
    assert np.all(np.abs(found - x)[inside] <= step / 2 + 1e-5)
    assert fake_quantize(np.zeros(1, "float32"), low, high, **options).numpy() == 0.0


@given(x=values, num_bits=bits, narrow=st.booleans(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_range_for_each_channel_is_each_channel_by_itself(x, num_bits, narrow, data):
    low = np.array([data.draw(lows) for _ in range(3)], "float32")
    high = np.array([data.draw(highs) for _ in range(3)], "float32")
    options = {"num_bits": num_bits, "narrow_range": narrow}
    found = fake_quantize(x, low, high, **options).numpy()
    for channel in range(3):
        alone = fake_quantize(x[:, channel], low[channel], high[channel], **options)
        np.testing.assert_array_equal(found[:, channel], alone)


@given(low=st.floats(-9, 0, width=32), high=st.floats(0, 9, width=32), num_bits=bits)
@settings(max_examples=60, deadline=None)
def test_symmetric_range_is_the_smallest_with_zero_point_zero(low, high, num_bits):
    below, above = (float(end) for end in symmetric_range(low, high, num_bits=num_bits))
    slack = 1e-5 * max(1.0, -low, high)
    assert below <= low + slack
    assert above >= high - slack
    assert min(low - below, above - high) <= slack  # it touches one end
    levels = 2 ** (num_bits - 1)
    assert below * (levels - 1) == pytest.approx(-above * levels, rel=1e-5, abs=1e-6)
    narrow = symmetric_range(low, high, num_bits=num_bits, narrow_range=True)
    # TensorFlow flushes what is smaller than the smallest normal number to zero.
    assert float(narrow[0]) == -float(narrow[1]) == pytest.approx(-max(-low, high), abs=1e-37)


@given(kernel=values, num_bits=bits)
@settings(max_examples=60, deadline=None)
def test_kernels_of_any_number_of_bits(kernel, num_bits):
    largest = 2 ** (num_bits - 1) - 1
    scale = np.abs(kernel).max(axis=0, keepdims=True) / largest
    safe = np.where(scale > 0, scale, 1.0)
    found = fake_quantize_kernel(kernel, (0,), num_bits=num_bits).numpy()
    assert_same_levels(found, np.round(kernel / safe) * safe, kernel / safe, safe)
    ordered = fake_quantize_kernel(np.sort(kernel, axis=0), (0,), num_bits=num_bits).numpy()
    assert np.all(np.diff(ordered, axis=0) >= 0)
    assert np.all(np.abs(np.round(found / safe)) <= largest)
    again = fake_quantize_kernel(found, (0,), num_bits=num_bits).numpy()
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-6)
    whole = fake_quantize_kernel(kernel, (0, 1), num_bits=num_bits).numpy()
    step = np.abs(kernel).max() / largest
    assert np.all(np.abs(whole - kernel) <= step / 2 + 1e-5)


def tfmot_quantize(function, x, num_bits, **options):
    """Runs one of TF-MOT's quantizers once, in training; returns its output and its range."""
    tfmot_schedules()
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    shape = (x.shape[-1],) if options.get("per_channel") else ()
    low, high = tf.Variable(tf.zeros(shape)), tf.Variable(tf.zeros(shape))
    out = getattr(quant_ops, function)(tf.constant(x), low, high, num_bits=num_bits, **options)
    return out.numpy(), low.numpy(), high.numpy()


@pytest.mark.parametrize("num_bits", [4, 8])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_equal_to_tfmot(rng, num_bits, narrow, per_channel):
    x = rng.normal(size=(50, 4)).astype("float32")
    axis = 0 if per_channel else None
    options = {"narrow_range": narrow, "per_channel": per_channel}
    theirs, low, high = tfmot_quantize("LastValueQuantize", x, num_bits, **options)
    np.testing.assert_array_equal(low, np.minimum(x.min(axis), 0))
    ours = fake_quantize(x, low, high, num_bits=num_bits, narrow_range=narrow)
    np.testing.assert_array_equal(ours, theirs)
    # Symmetric, as TF-MOT quantizes kernels.
    theirs, low, high = tfmot_quantize("LastValueQuantize", x, num_bits, symmetric=True, **options)
    ends = symmetric_range(x.min(axis), x.max(axis), num_bits=num_bits, narrow_range=narrow)
    np.testing.assert_allclose(ends, [low, high], rtol=1e-6)
    np.testing.assert_array_equal(
        fake_quantize(x, low, high, num_bits=num_bits, narrow_range=narrow), theirs
    )
    if narrow:
        ours = fake_quantize_kernel(x, (0,) if per_channel else (0, 1), num_bits=num_bits)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_equal_to_tensorflow(rng):
    x = rng.normal(size=(50, 4)).astype("float32")
    for num_bits in (2, 8, 16):
        theirs = tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 2.0, num_bits=num_bits)
        np.testing.assert_array_equal(fake_quantize(x, -1.0, 2.0, num_bits=num_bits), theirs)


@pytest.mark.parametrize("num_bits", [1, 17])
@pytest.mark.parametrize(
    "call",
    [
        lambda n: fake_quantize([0.0], -1.0, 1.0, num_bits=n),
        lambda n: fake_quantize_kernel([[0.0]], (0,), num_bits=n),
        lambda n: symmetric_range(-1.0, 1.0, num_bits=n),
    ],
)
def test_bits_out_of_range(call, num_bits):
    with pytest.raises(ValueError, match=rf"in \[2, 16\]. Received: num_bits={num_bits}"):
        call(num_bits)


def test_bits_that_are_no_number():
    with pytest.raises(TypeError, match="`num_bits` must be an integer"):
        fake_quantize([0.0], -1.0, 1.0, num_bits=8.0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_range_moves_in_training_as_that_of_tfmot(rng, symmetric):
    x = rng.normal(size=(50, 4)).astype("float32")
    tfmot_schedules()
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    low, high = tf.Variable(-1.0), tf.Variable(2.0)
    options = {"num_bits": 8, "symmetric": symmetric, "ema_decay": 0.97}
    theirs = quant_ops.MovingAvgQuantize(tf.constant(x), low, high, **options)
    layer = FakeQuantize(symmetric=symmetric)
    layer.set_range([-1.0], [2.0], batches=100)  # behind the first batches, which are averaged
    ours = layer(x, training=True)
    if not symmetric:  # TF-MOT averages ranges that were made symmetric, we make averages so
        low, high = low.numpy() * WIDER, high.numpy() * WIDER
        np.testing.assert_allclose(layer.range_value(), [low, high], rtol=1e-6)
        np.testing.assert_allclose(ours, theirs, atol=(high - low) / 255)
    else:
        assert layer.range_value()[0] == pytest.approx(-layer.range_value()[1] * 128 / 127)


def test_a_range_frozen_by_the_attribute_and_by_the_method_are_one():
    layer, x = FakeQuantize(), tf.constant(np.linspace(-2, 3, 41), "float32")
    with pytest.raises(ValueError, match="must have seen data before its range is frozen"):
        layer.freeze()
    layer(x[5:30], training=True)
    expected = layer.range_value()

    def value_and_gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y.numpy(), tape.gradient(y, x).numpy()

    layer.frozen = True
    by_hand = value_and_gradient()
    layer.freeze()
    np.testing.assert_array_equal(value_and_gradient(), by_hand)
    assert layer.range_value() == expected
    assert 0 < by_hand[1].sum() < len(x)  # clipped on both sides
