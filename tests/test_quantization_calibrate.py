"""Calibration: observers against NumPy, forms of data, and data that are of no use."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import kerasopt as ko
from kerasopt.quantization import FakeQuantize, calibrate, fake_quantize, quantize_aware
from kerasopt.quantization import _observers as observers
from tests.models import WIDER, small_cnn, stripes

X, Y = stripes(64)


def aware(model=None):
    return quantize_aware(small_cnn() if model is None else model)


def identity():
    """A model whose one activation range sees the data themselves."""
    inputs = keras.Input((16,), name="input")
    twice = keras.layers.RepeatVector(2)(inputs)
    return aware(keras.Model(inputs, keras.layers.GlobalAveragePooling1D(name="same")(twice)))


def ranges_of(model):
    found = [la for la in model.layers if isinstance(la, FakeQuantize) and not la.fixed_range]
    return {layer.name: layer.range_value() for layer in found}


def samples(count=96):
    x = np.random.default_rng(0).standard_t(3, (count, 16)).astype("float32")
    x[0, 0], x[1, 0] = -40.0, 60.0  # outliers, in the first batch
    return x


def error_of(x, low, high, num_bits=8):
    return np.mean((fake_quantize(x, low, high, num_bits=num_bits).numpy() - x) ** 2)


# Observers


def test_minmax_is_that_of_the_data():
    x, model = samples(), identity()
    found = calibrate(model, x, "minmax")
    expected = pytest.approx((x.min() * WIDER, x.max() * WIDER))
    assert found.ranges["same_range"] == expected
    assert ranges_of(model)["same_range"] == found.ranges["same_range"]
    assert (found.observer, found.num_samples) == ("minmax", 96)


def test_moving_average_is_the_mean_of_the_batches():
    x = samples()
    expected = [[b.min(), b.max()] for b in np.split(x, 3)]
    found = calibrate(identity(), x).ranges["same_range"]
    np.testing.assert_allclose(found, np.mean(expected, axis=0) * WIDER, rtol=1e-5)


@pytest.mark.slow
def test_moving_average_equals_training_without_dropout():
    model, other = aware(), aware()
    calibrate(model, X, batch_size=16)
    # BatchNormalization on its moving statistics, activations in float up to the range.
    for layer in other.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    other.get_layer("head_dropout").rate = 0.0
    for start in range(0, 64, 16):
        other(X[start : start + 16], training=True)
    for name, ends in ranges_of(other).items():
        np.testing.assert_allclose(ranges_of(model)[name], ends, rtol=0.05, atol=0.02)


def test_long_calibration_becomes_a_moving_average():
    ends = np.random.default_rng(0).normal(size=(80, 2)).cumsum(axis=0)
    low = high = 0.0
    for count, (a, b) in enumerate(ends):
        keep = min(0.97, count / (count + 1))
        low, high = keep * low + (1 - keep) * min(a, 0), keep * high + (1 - keep) * max(b, 0)
    assert observers.moving_average(ends, 0.97) == pytest.approx((low, high))


@pytest.mark.parametrize("share", [0.9, 0.99, 1.0])
def test_percentile_is_that_of_numpy(share):
    x = samples()
    found = calibrate(identity(), x, "percentile", percentile=share).ranges["same_range"]
    width = (x.max() - x.min()) / observers.BINS
    expected = np.quantile(x, [(1 - share) / 2, 1 - (1 - share) / 2])
    # The range ends at the border of a bin, and quantiles lie between two values.
    gaps = np.diff(np.sort(x, axis=None))
    near = 2 * width + (gaps[-20:].max() if share > 0.999 else gaps[20:-20].max())
    np.testing.assert_allclose(found, expected, atol=near)
    outside = np.mean((x < found[0]) | (x > found[1]))
    assert outside <= 1 - share + 1e-6


def test_mse_loses_less_than_minmax_and_than_any_of_a_search():
    x = samples(960)
    model = identity()
    model.get_layer("same_range").num_bits = 4
    low, high = calibrate(model, x, "mse", num_samples=960).ranges["same_range"]
    found = error_of(x, low, high, 4)
    assert found < 0.5 * error_of(x, x.min(), x.max(), 4)
    grid = [
        error_of(x, np.float32(x.min() * a), np.float32(x.max() * b), 4)
        for a in np.linspace(0.02, 1, 25)
        for b in np.linspace(0.02, 1, 25)
    ]
    assert found <= 1.1 * min(grid)


@given(
    ends=st.tuples(st.floats(-5, 0), st.floats(0.01, 5)),
    num_bits=st.integers(2, 8),
    symmetric=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_ranges_of_histograms_lie_within_the_data(ends, num_bits, symmetric, seed):
    low, high = ends
    histogram = np.random.default_rng(seed).poisson(0.5, 64)
    for found in (
        observers.percentile(histogram, low, high, 0.95),
        observers.least_error(histogram, low, high, num_bits, symmetric=symmetric),
    ):
        assert low <= found[0] <= 0.0 <= found[1] <= high


def test_the_input_is_whole_pixels_with_any_observer():
    model = aware()
    for observer in observers.OBSERVERS:
        found = calibrate(model, X[:16], observer).ranges
        assert found["image_range"] == (0.0, 255.0)
        assert list(found) == list(ranges_of(model))


def test_training_goes_on_from_calibration():
    model = identity()
    calibrate(model, samples(64), "minmax", batch_size=16)
    model(np.full((4, 16), 100.0, "float32"), training=True)
    low, high = model.get_layer("same_range").range_value()
    expected = (-40.0 * 4 / 5, (60.0 * 4 + 100.0) / 5)
    assert (low, high) == pytest.approx(expected, abs=0.5)  # a step of the input's range


@pytest.mark.slow
def test_a_calibrated_model_becomes_a_file():
    model = aware()
    calibrate(model, X, "mse")
    assert ko.export.to_tflite(model, quantize="int8", verify=(X, Y)).agreement == 1.0


# A tensor that is always zero


@pytest.mark.slow
def test_a_dead_convolution_is_exported_all_the_same():
    model = small_cnn()
    for weight in model.get_layer("block1_project").weights:
        weight.assign(np.zeros(weight.shape))
    model = aware(model)
    assert calibrate(model, X).ranges["block1_project_range"] == (0.0, 1.0)
    assert ko.export.to_tflite(model, quantize="int8", verify=(X, Y)).agreement == 1.0


# Forms of data


def test_forms_of_data_give_the_same():
    x, y = samples(64), np.zeros(64)
    expected = calibrate(identity(), x, batch_size=16).ranges
    forms = {
        "pair": (x, y),
        "doubles": x.astype("float64"),
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(16),
        "batches": [x[i : i + 16] for i in range(0, 64, 16)],
        "generator": ((x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)),
    }
    for form, data in forms.items():
        found = calibrate(identity(), data, batch_size=16)
        assert found.num_samples == 64
        assert found.ranges == expected, form


def test_pixels_as_bytes():
    expected = calibrate(aware(), X[:16].round()).ranges
    assert calibrate(aware(), X[:16].round().astype("uint8")).ranges == expected


def test_no_more_samples_than_asked_for():
    def endless():
        while True:
            yield samples()[:10]

    assert calibrate(identity(), endless(), num_samples=25).num_samples == 25
    assert calibrate(identity(), samples(), num_samples=10, batch_size=4).num_samples == 10


@pytest.mark.parametrize("by_name", [False, True])
def test_models_of_several_inputs(by_name):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = aware(keras.Model([a, b], keras.layers.Add(name="sum")([a, b])))
    one, two = np.random.default_rng(0).normal(size=(2, 64, 4)).astype("float32")
    data = {"a": one, "b": two} if by_name else [one, two]
    ends = (one + two).min() * WIDER, (one + two).max() * WIDER
    expected = pytest.approx(ends)
    assert calibrate(model, data, "minmax").ranges["sum_range"] == expected
    labelled = [(data, np.zeros(64))]
    assert calibrate(model, labelled, "minmax").ranges["sum_range"] == expected
    with pytest.raises(ValueError, match="an array for each of the 2 inputs"):
        calibrate(model, [one])


def test_photos_of_a_folder_in_equal_parts(tmp_path):
    # 30 dark ones of one class, 3 bright ones of another.
    for name, count, value in (("dark", 30, 20), ("bright", 3, 200)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = np.full((20, 20, 3), value + index % 3, "uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    inputs = keras.Input((8, 8, 3), name="image")
    model = aware(keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="mean")(inputs)))
    found = calibrate(model, tmp_path, num_samples=6, batch_size=6)
    assert found.num_samples == 6
    assert found.ranges["image_range"] == (0.0, 255.0)
    assert 200 <= found.ranges["mean_range"][1] / WIDER <= 202
    assert calibrate(model, str(tmp_path), num_samples=6, batch_size=6) == found
    # Two of a batch of two are one of each class.
    found = calibrate(model, tmp_path, num_samples=2, batch_size=1)
    assert 110 <= found.ranges["mean_range"][1] / WIDER <= 112


# Validation data


def test_validation_data_that_leave_the_ranges():
    model, x = identity(), samples()
    with pytest.warns(UserWarning, match=r"leave 2 of 2 .*'same_range' \(\d+\.\d% of the values\)"):
        found = calibrate(model, x / 10, "minmax", validation=x)
    low, high = found.ranges["same_range"]
    expected = np.mean((x < low) | (x > high))
    assert found.outside["same_range"] == pytest.approx(expected, abs=1e-3)


def test_validation_data_that_do_not():
    x = samples()
    found = calibrate(identity(), x, "minmax", validation=(x[:32], np.zeros(32)))
    assert found.outside == {"input_range": 0.0, "same_range": 0.0}


# Bad input


def spoiled(value):
    x = X.copy()
    x[3, 2, 1, 0] = value
    return x


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X[:0], ValueError, "`data` must hold at least one example. Received: no data"),
        ([], ValueError, "`data` must hold at least one example"),
        (X[:, :6], ValueError, r"must have the shape \(batch, 12, 12, 3\). Received: shape \(32"),
        (X[0], ValueError, r"must have the shape .* Received: shape \(12, 12, 3\)"),
        (np.full_like(X, 7.0), ValueError, "`data` must vary"),
        (spoiled(np.nan), ValueError, "`data` must be finite. Received: NaN"),
        (spoiled(np.inf), ValueError, "`data` must be finite"),
        (3, TypeError, "`data` must be an array"),
        ("no/such/folder", ValueError, "`path` must be an existing folder"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_of_no_use_leave_the_model_alone(data, error, message):
    model = AWARE
    before = ranges_of(model)
    with pytest.raises(error, match=message):
        calibrate(model, data)
    assert ranges_of(model) == before


AWARE = aware()


def test_validation_is_checked_before_ranges_are_set():
    with pytest.raises(ValueError, match="`validation` must have the shape"):
        calibrate(AWARE, X, validation=X[:, :6])
    assert set(ranges_of(AWARE).values()) == {(0.0, 0.0)}


def test_a_float_model():
    with pytest.raises(ValueError, match="A quantization-aware model is needed"):
        calibrate(small_cnn(), X)


def test_weights_that_are_not_finite():
    model = aware()
    kernel = model.get_layer("block2_conv").layer.kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"NaN or infinity in '.*block2_conv/kernel'"):
        calibrate(model, X)


def test_activations_that_overflow():
    model = aware()
    kernel = model.get_layer("block2_conv").layer.kernel
    kernel.assign(np.full(kernel.shape, 3e38))
    with pytest.raises(ValueError, match="infinity where 'block2_conv_range' watches"):
        calibrate(model, X)


def test_unknown_observer():
    with pytest.raises(ValueError, match=r"`observer` must be one of.*Did you mean 'percentile'"):
        calibrate(AWARE, X, "percentiles")
