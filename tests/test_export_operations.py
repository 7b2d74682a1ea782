"""Files beside their quantization-aware models: any batch size, several inputs, any origin."""

import keras
import numpy as np
import pytest

from kerasopt.export import TFLiteModel, compare_operations, to_tflite
from kerasopt.quantization import export_twin, quantize_aware
from tests.models import small_cnn, stripes

layers = keras.layers
LOOSE = {"min_agreement": 0.3, "max_accuracy_drop": 1.0}


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def trained(model, x):
    aware = quantize_aware(model)
    for _ in range(2):
        aware(x, training=True)
    return aware


@pytest.fixture(scope="module")
def dense():
    """A model with its file."""
    keras.utils.set_random_seed(0)
    x = normal(32, 8)
    dense = keras.Sequential([keras.Input((8,), name="taps"), layers.Dense(4, name="scores")])
    aware = trained(dense, x)
    return aware, to_tflite(aware, quantize="int8").content, x


@pytest.fixture(scope="module")
def sequence():
    """Maps per channel on what is no image: the exported graph reshapes for them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 6), name="taps")
    y = layers.Conv1D(8, 3, activation="relu")(layers.Rescaling(0.5, 0.25)(inputs))
    y = layers.Dense(8)(layers.LayerNormalization()(y))
    model = keras.Model(inputs, layers.Dense(3, name="scores")(layers.GlobalAveragePooling1D()(y)))
    x = normal(32, 12, 6)
    return trained(model, x), x


@pytest.fixture(scope="module")
def taps_and_photo():
    """Two inputs whose order in the file is not the one in which they were made."""
    keras.utils.set_random_seed(0)
    taps, photo = keras.Input((6,), name="taps"), keras.Input((12, 12, 3), name="photo")
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(photo))
    both = layers.Concatenate()([layers.Dense(4, activation="relu")(taps), seen])
    model = keras.Model([taps, photo], layers.Dense(3, name="kind")(both))
    x = {"taps": normal(20, 6), "photo": np.round(stripes(20)[0])}
    return trained(model, [x["taps"], x["photo"]]), x


def test_a_file_from_elsewhere_runs_in_a_child_here_too(dense):
    aware, content, x = dense
    here = compare_operations(aware, content, x)
    lite = TFLiteModel(content, trusted=False)
    assert lite.isolated
    assert compare_operations(aware, lite, x) == here
    assert here.faults() == []
    assert [match.name for match in here.operations] == ["taps", "scores"]


def test_a_batch_of_a_file_is_filled_up(dense):
    aware, content, x = dense
    few = compare_operations(aware, content, x[:3], samples=8)
    assert [match.count for match in few.operations] == [3 * 8, 3 * 4]
    assert few == compare_operations(aware, content, iter([x[:2], x[2:3]]), samples=3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (normal(2, 5), r"`data` must have the shape \(8,\) behind the batch"),
        ([{"other": normal(2, 8)}], "`data` and `model` must have the inputs of the file"),
    ],
)
def test_inputs_that_are_not_the_files(dense, data, message):
    with pytest.raises(ValueError, match=message):
        compare_operations(*dense[:2], data)


def test_the_exported_graph_takes_any_batch(sequence):
    aware, x = sequence
    expected = np.concatenate([export_twin(aware)(x[i : i + 1]) for i in range(4)])
    for size in (4, None):
        twin = export_twin(aware, batch_size=size)
        assert twin.inputs[0].shape == (size, 12, 6)
        np.testing.assert_allclose(twin(x[:4]), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_every_operation_of_any_batch(sequence, batch_size):
    aware, x = sequence
    result = to_tflite(
        aware, quantize="int8", batch_size=batch_size, verify=iter([x[:20], x[20:]]), **LOOSE
    )
    assert result.samples == 32
    assert result.operations.faults(max_steps=2, min_equal=0.9) == []
    lite = TFLiteModel(result.content)
    assert lite.input_shape == (batch_size, 12, 6)
    report = compare_operations(aware, lite, x, samples=16)
    assert report.faults() == []
    assert report.kernels == 3


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_operation_of_several_inputs(taps_and_photo, batch_size):
    aware, x = taps_and_photo
    result = to_tflite(
        aware, quantize="int8", batch_size=batch_size, input_dtype="int8", verify=x, **LOOSE
    )
    assert result.operations.faults() == []
    report = compare_operations(aware, result.content, x, samples=8)
    assert report.faults() == []
    assert {"taps", "photo"} <= {match.name for match in report.operations}
    assert report.kernels == 3


@pytest.mark.slow
def test_probabilities_stand_behind_what_is_compared():
    model, (x, y) = small_cnn(), stripes(20)
    aware = trained(model, x)
    result = to_tflite(
        aware,
        quantize="int8",
        labels=["a", "b", "c", "d"],
        probabilities=True,
        verify=(x, y),
        **LOOSE,
    )
    assert result.operations.float_tensors == ()
    assert result.operations.faults(max_steps=2, min_equal=0.9) == []
    assert "SOFTMAX" in result.operators


@pytest.fixture(scope="module")
def dead_channel():
    """A channel whose kernel is next to nothing beside its bias, as pretrained networks have."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="photo")
    y = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    y = layers.ReLU()(layers.BatchNormalization(name="bn")(y))
    model = keras.Model(inputs, layers.Dense(2, name="kind")(layers.GlobalAveragePooling2D()(y)))
    model.get_layer("bn").gamma.assign([1.0, 1e-5, 1e-9, -1.0])
    model.get_layer("bn").beta.assign([0.0, 1.0, 1.0, 0.1])
    x = normal(32, 6, 6, 3)
    aware = trained(model, x)
    return aware, to_tflite(aware, quantize="int8").content, x


def test_a_dead_channel_has_the_step_that_its_bias_needs(dead_channel):
    aware, content, x = dead_channel
    report = compare_operations(aware, content, x)
    assert report.faults() == []
    assert report.kernels == 2


def test_other_weights_in_a_dead_channel_are_seen(dead_channel):
    aware, content, x = dead_channel
    kernel = aware.get_layer("conv").layer.kernel
    before = kernel.numpy()
    try:
        kernel.assign(before * [1.0, 500.0, 1.0, 1.0])  # only the step of that channel is another
        assert compare_operations(aware, content, x).unequal_kernels == ("conv",)
    finally:
        kernel.assign(before)
