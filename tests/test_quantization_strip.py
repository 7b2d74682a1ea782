"""Back to the float model, and through files."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.quantization import QuantizeAware, quantize_aware, strip
from tests.models import compiled, small_cnn, stripes

X, Y = stripes(16)


def with_split_activations():
    inputs = keras.Input((6,), name="input")
    shared = keras.layers.Dense(6, "gelu", name="shared")
    x = keras.layers.Concatenate(name="both")([shared(inputs), shared(-inputs)])
    outputs = keras.layers.Dense(3, "softmax", name="classes")(keras.ops.add(x, 1.0))
    return keras.Model(inputs, outputs, name="split")


def assert_same_layers(found, expected):
    def describe(model):
        return [(la.name, type(la), la.trainable, la.get_config()) for la in model.layers]

    for one, other in zip(describe(found), describe(expected), strict=True):
        assert one[:3] == other[:3]
        without = [{k: v for k, v in c.items() if k != "dtype"} for c in (one[3], other[3])]
        assert without[0] == without[1]


@pytest.mark.parametrize("make", [small_cnn, with_split_activations])
@pytest.mark.parametrize("scheme", ["int8", "int8_weights"])
def test_strip_gives_the_users_layers_back(make, scheme):
    model = make()
    model.layers[-1].trainable = False
    x = np.random.default_rng(0).uniform(size=(4, *model.input_shape[1:])).astype("float32")
    aware = quantize_aware(model, scheme)
    aware(x, training=True)
    found = strip(aware)
    assert_same_layers(found, model)
    expected = make()
    expected.set_weights(found.get_weights())
    np.testing.assert_array_equal(found.predict(x, verbose=0), expected.predict(x, verbose=0))


def test_strip_copies():
    aware = quantize_aware(small_cnn())
    found = strip(aware)
    before = aware.predict(X, verbose=0)
    found.set_weights([np.zeros_like(w) for w in found.get_weights()])
    np.testing.assert_array_equal(aware.predict(X, verbose=0), before)


def test_strip_after_loading(tmp_path):
    model = small_cnn()
    aware = quantize_aware(model)
    aware(X)  # no training: statistics stay
    aware.save(tmp_path / "aware.keras")
    found = strip(keras.models.load_model(tmp_path / "aware.keras"))
    assert_same_layers(found, model)
    np.testing.assert_array_equal(found.predict(X, verbose=0), model.predict(X, verbose=0))
    found.save(tmp_path / "float.keras")
    assert not ko.quantization.is_quantization_aware(
        keras.models.load_model(tmp_path / "float.keras")
    )


@pytest.mark.slow
def test_strip_of_what_the_callback_trained():
    model = compiled(small_cnn(), jit_compile=False)
    quantize = QuantizeAware(start=0.5)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[quantize])
    found = strip(quantize.quantized_model)
    np.testing.assert_array_equal(found.predict(X, verbose=0), model.predict(X, verbose=0))
    for one, other in zip(found.weights, model.weights, strict=True):
        assert one is not other


def test_weights_of_a_float_checkpoint(tmp_path):
    """Loaded before: the float model's own file fits the float model."""
    trained = small_cnn(seed=5)
    trained.save_weights(tmp_path / "float.weights.h5")
    model = small_cnn()
    model.load_weights(tmp_path / "float.weights.h5")
    aware = quantize_aware(model)
    np.testing.assert_array_equal(
        aware.get_layer("stem_conv").layer.kernel, trained.get_layer("stem_conv").kernel
    )


@pytest.mark.slow
def test_ranges_survive_a_file(tmp_path):
    aware = quantize_aware(small_cnn(), {"block1": "int8_weights"})
    ko.quantization.calibrate(aware, X, batch_size=4)
    aware.get_layer("logits_range").frozen = True
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), aware.predict(X, verbose=0))
    for name in ("stem_relu_range", "block2_conv_range", "logits_range"):
        one, other = loaded.get_layer(name), aware.get_layer(name)
        assert one.range_value() == other.range_value()
        assert one.get_config() == other.get_config()
        assert float(one.seen.numpy()[0]) == 4.0
    before = loaded.get_layer("logits_range").range_value()
    loaded(X * 3, training=True)
    assert loaded.get_layer("logits_range").range_value() == before
    assert loaded.get_layer("stem_relu_range").range_value() != (
        aware.get_layer("stem_relu_range").range_value()
    )


def test_strip_of_a_float_model():
    with pytest.raises(ValueError, match=r"A quantization-aware model is needed. Received: 'small"):
        strip(small_cnn())


def siblings(nested):
    """Layers of the same shape beside each other, which only their names tell apart."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,), name="input")

    def branch(name):
        layers = [keras.layers.Dense(3, name=f"{name}_{part}") for part in ("one", "two")]
        if nested:
            return keras.Sequential([keras.Input((4,)), *layers], name=name)
        return lambda x: layers[1](layers[0](x))

    right, left = branch("right"), branch("left")
    x = keras.layers.Subtract(name="difference")([left(inputs), right(inputs)])
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(2, "tanh", name="fc")(x))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("way", ["made", "reloaded"])
@pytest.mark.parametrize("form", ["model", "path"])
def test_float_weights_go_into_a_quantization_aware_model(nested, way, form, tmp_path):
    model, other = siblings(nested), siblings(nested)
    rng = np.random.default_rng(0)
    other.set_weights([rng.uniform(0.1, 1, w.shape) for w in other.get_weights()])
    other.save_weights(tmp_path / "float.weights.h5")
    aware = quantize_aware(model)
    if way == "reloaded":
        aware.save(tmp_path / "aware.keras")
        aware = keras.models.load_model(tmp_path / "aware.keras")
    source = other if form == "model" else tmp_path / "float.weights.h5"
    x = rng.normal(size=(4, 4)).astype("float32")
    before = aware.predict(x, verbose=0)
    if nested and form == "path":
        message = r"without nested models\. Received: .*Load them into the float model"
        with pytest.raises(ValueError, match=message):
            ko.quantization.load_float_weights(aware, source)
        np.testing.assert_array_equal(aware.predict(x, verbose=0), before)
        return
    ko.quantization.load_float_weights(aware, source)
    np.testing.assert_allclose(strip(aware)(x), other(x), atol=1e-6)
    np.testing.assert_array_equal(aware(x), quantize_aware(other)(x))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: quantize_aware(siblings(False)), "`source` must be a float model"),
        (lambda: siblings(True).get_layer("left"), "the layer 'fc', which is missing in `source`"),
        (lambda: small_cnn(), "the layer 'block1_bn', which is unknown to"),
    ],
)
def test_weights_of_another_model(source, message):
    with pytest.raises(ValueError, match=message):
        ko.quantization.load_float_weights(quantize_aware(siblings(False)), source())
