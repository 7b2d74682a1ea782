"""Activations: their bytes, and which of them live at once."""

import keras
import pytest
from keras import layers

import kerasopt as ko
from kerasopt.profiling import arena_bytes, profile
from tests.models import small_cnn, stripes

FLOAT = 4


def live(model):
    return {row.name: row.live_bytes for row in profile(model).rows}


def made(model):
    return {row.name: row.activation_bytes for row in profile(model).rows}


@pytest.fixture(scope="module")
def branches():
    """The stem waits for the addition while two convolutions run."""
    image = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 1, name="stem")(image)
    x = layers.Conv2D(16, 1, name="wide")(stem)
    x = layers.Conv2D(4, 1, name="narrow")(x)
    x = layers.Add(name="add")([stem, x])
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(2, name="logits")(x))


def test_counted_by_hand(branches):
    pixels = 8 * 8 * FLOAT
    assert made(branches) == {
        "stem": 4 * pixels,
        "wide": 16 * pixels,
        "narrow": 4 * pixels,
        "add": 4 * pixels,
        "flat": 0,  # the same numbers in another shape
        "logits": 2 * FLOAT,
    }
    assert live(branches) == {
        "stem": (3 + 4) * pixels,
        "wide": (4 + 16) * pixels,
        "narrow": (4 + 16 + 4) * pixels,
        "add": (4 + 4 + 4) * pixels,
        "flat": 4 * pixels,
        "logits": 4 * pixels + 2 * FLOAT,
    }
    assert profile(branches).peak_bytes == 24 * pixels


def test_a_file_of_the_same_layers_has_the_same_peak(branches):
    content = ko.export.to_tflite(branches).content
    report = profile(content)
    assert report.peak_bytes == profile(branches).peak_bytes
    assert report.rows[1].kind == "CONV_2D"
    assert report.rows[1].live_bytes == (4 + 16) * 8 * 8 * FLOAT


@pytest.mark.slow
def test_int8_activations_take_a_quarter_and_fit_into_the_arena():
    model = small_cnn()
    float_file = ko.export.to_tflite(model).content
    small = ko.export.to_tflite(
        model, quantize="int8", representative_data=stripes(16)[0], verify=False
    ).content
    for content in (float_file, small):
        assert 0 < profile(content).peak_bytes <= arena_bytes(content)
    ratio = profile(float_file).peak_bytes / profile(small).peak_bytes
    assert ratio == pytest.approx(4.0, rel=0.1)


def test_float16_weights_are_no_activations(branches):
    content = ko.export.to_tflite(branches, quantize="float16").content
    assert "DEQUANTIZE" in ko.profiling.tflite_operators(content)
    assert profile(content).peak_bytes == profile(branches).peak_bytes


def test_nothing_is_kept_for_what_returns_its_input():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="a"), layers.Dropout(0.5, name="drop")]
    )
    assert made(model) == {"a": 4 * FLOAT, "drop": 0}
    assert live(model)["drop"] == 4 * FLOAT


def test_what_operations_outside_of_layers_make_counts_too():
    inputs = keras.Input((8,))
    x = layers.Dense(32, name="a")(inputs)
    y = layers.Dense(8, name="b")(keras.ops.tanh(x) * 2.0)
    model = keras.Model(inputs, y)
    assert live(model) == {"a": (8 + 32) * FLOAT, "b": (32 + 8) * FLOAT}


def test_a_layer_that_runs_twice():
    shared = layers.Dense(16, name="shared")
    inputs = keras.Input((16,))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert made(model) == {"shared": 2 * 16 * FLOAT}
    assert live(model) == {"shared": 2 * 16 * FLOAT}


def test_half_precision_takes_half(mixed_float16):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="a")])
    assert made(model) == {"a": 8 * 2}


def test_a_fixed_batch_counts_for_one_image():
    model = keras.Sequential(
        [keras.Input((4,), batch_size=10), layers.Dense(8, name="a"), layers.Dense(2, name="b")]
    )
    assert live(model) == {"a": (4 + 8) * FLOAT, "b": (8 + 2) * FLOAT}


def test_open_sizes_are_unknown():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, name="a")])
    report = profile(model)
    assert made(model) == live(model) == {"a": None}
    assert report.peak_bytes is None
    assert report.to_dict()["peak_bytes"] is None


def test_the_peak_is_in_the_table_and_the_dict(branches):
    report = profile(branches)
    assert report.to_dict()["peak_bytes"] == report.peak_bytes
    assert "live KiB" in report.table()
    total = next(line for line in report.table().splitlines() if line.strip().startswith("total"))
    assert total.split()[-1] == f"{report.peak_bytes / 1024:,.1f}"
