"""Nested models are opened; names that then stand twice become unique, and nowhere else."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from kerasopt.quantization import QuantizeAware, QuantizedLayer, export_twin, quantize_aware, strip

X = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")
Y = np.zeros((16, 2), "float32")


def tower(name):
    """Everything that needs care under another name: statistics, an activation, several steps."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.LayerNormalization(name="layer_norm")(x)
    x = layers.ReLU(name="relu")(keras.ops.add(x, 1.0))
    x = layers.Dropout(0.1, name="drop")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, layers.Dense(3, "tanh", name="fc")(x), name=name)


def two_towers():
    """Two towers with the same names, one of them called twice, and an outer layer `fc`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="image")
    left, right = tower("left"), tower("right")
    x = layers.Add(name="sum")([left(inputs), right(inputs), left(layers.ReLU()(inputs))])
    return keras.Model(inputs, layers.Dense(2, name="fc")(x))


def inner_and_outer():
    """The same name inside of a nested model and beside it."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6, 6, 3), name="image"), tower("body"), layers.Dense(2, name="fc")]
    )


def from_callback(model):
    callback = QuantizeAware()
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    return callback.quantized_model


def from_transform(model):
    aware = quantize_aware(model)
    aware(X, training=True)
    return aware


def wrapped(aware):
    return [layer.name for layer in aware.layers if isinstance(layer, QuantizedLayer)]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (two_towers, ["left_conv", "right_conv", "left_fc", "right_fc", "fc"]),
        (inner_and_outer, ["conv", "body_fc", "fc"]),
    ],
)
def test_only_names_that_collide_change(make, names):
    model = make()
    config = str(model.get_config())
    assert wrapped(quantize_aware(model)) == names
    assert str(model.get_config()) == config


def test_regexes_find_the_paths_of_the_users_model():
    aware = quantize_aware(two_towers(), layers=["^right/", "^fc"])
    assert wrapped(aware) == ["right_conv", "right_fc", "fc"]
    reasons = dict(ko.quantization.float_operations(aware))
    assert set(reasons) == {"left_conv", "left_fc"}


@pytest.mark.slow
@pytest.mark.parametrize("make", [two_towers, inner_and_outer])
@pytest.mark.parametrize("way", [from_transform, from_callback])
def test_training_files_and_the_way_back(make, way, tmp_path):
    model = make()
    config = str(model.get_config())
    aware = way(model)
    assert str(model.get_config()) == config
    if way is from_callback:
        assert {id(v) for v in model.weights} <= {id(v) for v in aware.weights}
    expected = aware.predict(X, verbose=0)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    bare = strip(loaded)
    assert "QuantizedLayer" not in str(bare.get_config())
    assert "RenamedLayer" not in str(bare.get_config())
    # The transform trains a copy, the callback the model itself.
    np.testing.assert_allclose(bare(X), model(X), atol=1e-5 if way is from_callback else 1.0)
    assert ko.quantization.float_operations(loaded) == ()
    result = ko.export.to_tflite(loaded, quantize="int8")
    report = ko.export.compare_operations(loaded, result.content, X, samples=4)
    assert report.faults() == []
    assert report.kernels == len(wrapped(aware))


def test_a_scale_that_stands_alone_may_be_called_twice():
    inputs = keras.Input((4,)), keras.Input((4,))
    shared = layers.Rescaling(0.5, offset=1.0, name="shared")
    aware = quantize_aware(keras.Model(inputs, layers.Add()([shared(x) for x in inputs])))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    aware([x, x], training=True)
    assert export_twin(aware).count_params() > 0
