"""Placement of ranges, the quantization-aware model, the callback."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.quantization import (
    FakeQuantize,
    QuantizeAware,
    QuantizedLayer,
    export_twin,
    float_operations,
    is_quantization_aware,
    quantize_aware,
)
from tests.models import WIDER, compiled, small_cnn, stripes


def layer_names(model, kind):
    return [layer.name for layer in model.layers if isinstance(layer, kind)]


@pytest.fixture(scope="module")
def trained():
    """A quantization-aware model after a little training, and its data."""
    model = compiled(quantize_aware(small_cnn()))
    x, y = stripes(64)
    model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    return model, x


def test_one_range_behind_each_fused_group():
    model = quantize_aware(small_cnn())
    assert layer_names(model, QuantizedLayer) == [
        "stem_conv",
        "block1_depthwise",
        "block1_project",
        "block2_conv",
        "logits",
    ]
    assert layer_names(model, FakeQuantize) == [
        "image_range",
        "rescale_range",
        "stem_relu_range",
        "block1_relu_range",
        "block1_project_range",
        "block1_add_range",  # none behind the pooling, it keeps the scale
        "block2_conv_range",
        "head_pool_range",  # none behind the dropout
        "logits_range",
    ]
    assert float_operations(model) == ()


def test_the_callers_model_is_left_alone():
    model = small_cnn()
    model.get_layer("stem_conv").trainable = False
    config, weights = model.get_config(), model.get_weights()
    copy = quantize_aware(model)
    x, y = stripes(16)
    compiled(copy).fit(x, y, verbose=0)
    assert model.get_config() == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not copy.get_layer("stem_conv").layer.trainable


def test_untrained_ranges_change_nothing_but_kernels():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Activation("relu"), keras.layers.Flatten()]
    )
    copy = quantize_aware(model)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    np.testing.assert_array_equal(copy.predict(x, verbose=0), np.maximum(x, 0))


def test_ranges_start_from_the_first_batch_and_inputs_are_whole_pixels(trained):
    model, x = trained
    assert model.get_layer("image_range").range_value() == (0.0, 255.0)
    low, high = model.get_layer("rescale_range").range_value()
    assert low == 0.0
    assert high == pytest.approx(x.max() / 255, abs=0.02)
    assert model.get_layer("block1_relu_range").range_value()[1] <= 6.0 * WIDER


def test_moving_average_of_a_range():
    layer = FakeQuantize(momentum=0.5)
    layer(np.array([[-1.0, 3.0]], "float32"), training=True)
    assert layer.range_value() == pytest.approx((-WIDER, 3.0 * WIDER))
    layer(np.array([[0.0, 1.0]], "float32"), training=True)
    assert layer.range_value() == pytest.approx((-0.5 * WIDER, 2.0 * WIDER))
    layer(np.array([[0.0, 9.0]], "float32"), training=False)
    assert layer.range_value() == pytest.approx((-0.5 * WIDER, 2.0 * WIDER))


def test_sites_share_the_widest_range():
    layer = FakeQuantize(num_sites=2, momentum=0.0)
    layer(np.array([[-1.0, 1.0]], "float32"), site=0, training=True)
    layer(np.array([[0.0, 4.0]], "float32"), site=1, training=True)
    assert layer.range_value() == pytest.approx((-WIDER, 4.0 * WIDER))


def test_concatenation_shares_one_range():
    inputs = keras.Input((8, 8, 3))
    a = keras.layers.Conv2D(4, 1, name="a")(inputs)
    b = keras.layers.Conv2D(4, 1, name="b")(inputs)
    joined = keras.layers.Concatenate(name="joined")([a, b])
    model = keras.Model(inputs, keras.layers.AveragePooling2D(2, name="pool")(joined))
    copy = quantize_aware(model)
    (shared,) = [la for la in copy.layers if isinstance(la, FakeQuantize) and la.num_sites == 2]
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    copy(x, training=True)
    features = keras.Model(inputs, joined)(x).numpy()
    low, high = shared.range_value()
    assert low == pytest.approx(features.min(), rel=0.05)
    assert high == pytest.approx(features.max(), rel=0.05)


def test_activation_that_does_not_fuse_is_split_off():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "softmax", name="dense")])
    copy = quantize_aware(model)
    assert copy.get_layer("dense").linear
    assert layer_names(copy, FakeQuantize)[1:] == ["dense_linear_range", "dense_range"]
    assert copy.get_layer("dense_range").fixed_range == (0.0, 255.0 / 256.0)
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.02)
    assert model.layers[-1].activation is keras.activations.softmax


@pytest.mark.slow
def test_shared_layer_with_a_split_activation():
    inputs = keras.Input((6,))
    shared = keras.layers.Dense(6, "gelu", name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    copy = quantize_aware(model)
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    copy(x, training=True)
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.05)
    assert float_operations(copy) == ()
    assert "GELU" in ko.export.to_tflite(copy, quantize="int8").operators


def test_what_stays_float_is_named_also_after_loading(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.ELU(name="elu")(x)
    x = keras.layers.Conv2D(4, 3, name="int8_again")(x)
    model = quantize_aware(keras.Model(inputs, x))
    named = dict(float_operations(model))
    assert list(named) == ["elu"]
    assert "no int8 kernel" in named["elu"]
    assert "int8_again" in layer_names(model, QuantizedLayer)
    model(np.ones((2, 8, 8, 3), "float32"), training=True)
    model.save(tmp_path / "aware.keras")
    assert dict(float_operations(keras.models.load_model(tmp_path / "aware.keras"))) == named


def test_layers_left_out_stay_float():
    model = quantize_aware(small_cnn(), layers="stem|block1")
    assert layer_names(model, QuantizedLayer) == ["stem_conv", "block1_depthwise", "block1_project"]
    assert dict(float_operations(model)) == {
        "block2_conv": "left out by `layers` or `scheme`",
        "logits": "left out by `layers` or `scheme`",
    }


def test_nested_and_shared_layers():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")], name="inner"
    )
    inputs = keras.Input((8, 8, 3))
    twice = keras.layers.Add()([inner(inputs), inner(keras.layers.ReLU()(inputs))])
    model = keras.Model(inputs, twice)
    copy = quantize_aware(model)
    assert layer_names(copy, QuantizedLayer) == ["conv"]
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    copy(x, training=True)
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.1)


def test_saves_and_loads_bit_equal(trained, tmp_path):
    model, x = trained
    model.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert is_quantization_aware(loaded)


@pytest.mark.slow
def test_export_twin_computes_the_same(trained):
    model, x = trained
    twin = export_twin(model)
    assert twin.input_shape == (1, 12, 12, 3)
    assert not layer_names(twin, QuantizedLayer)
    found = np.concatenate([twin(x[i : i + 1]).numpy() for i in range(8)])
    step = np.ptp(model.get_layer("logits_range").range_value()) / 255
    assert np.abs(found - model.predict(x[:8], verbose=0)).max() <= step + 1e-6
    kernel = twin.get_layer("stem_conv").kernel.numpy()
    levels = kernel / (np.abs(kernel).max(axis=(0, 1, 2)) / 127)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)


def test_gradients_reach_every_trainable_weight(trained):
    import tensorflow as tf

    model, x = trained
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x, training=True) ** 2)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    assert all(g is not None and np.isfinite(g).all() for g in gradients)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"jit_compile": False}, {"steps_per_execution": 2}]
)
def test_callback_trains_through_the_twin_and_leaves_the_model(options, tmp_path):
    model = compiled(small_cnn(), **options)
    x, y = stripes(64)
    callback = QuantizeAware(start=0.5)
    model.fit(x, y, batch_size=8, epochs=4, verbose=0, validation_data=(x, y), callbacks=[callback])
    assert "call" not in vars(model)
    assert model.get_layer("stem_bn").trainable
    assert [event.epoch for event in callback.events] == [2.0, 3.0, 3.5]
    aware = callback.quantized_model
    assert callback.float_operations == ()
    assert aware.get_layer("stem_conv").layer is model.get_layer("stem_conv")
    float_out, aware_out = model.predict(x, verbose=0), aware.predict(x, verbose=0)
    assert 0 < np.abs(float_out - aware_out).max() < 0.2
    model.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), float_out)


@pytest.mark.slow
def test_validation_runs_on_the_quantized_graph():
    model = compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.0))
    x, y = stripes(32)
    callback = QuantizeAware(start=0.5, freeze_batch_norm=1.0)
    history = model.fit(
        x, y, batch_size=8, epochs=2, verbose=0, validation_data=(x, y), callbacks=[callback]
    )
    loss = compiled(callback.quantized_model).evaluate(x, y, verbose=0)[0]
    assert history.history["val_loss"][1] == pytest.approx(loss, rel=1e-4)
    assert history.history["val_loss"][1] != pytest.approx(
        model.evaluate(x, y, verbose=0)[0], rel=1e-9
    )


@pytest.mark.slow
def test_mixed_precision_keeps_kernels_exact():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(small_cnn())
        x, y = stripes(32)
        callback = QuantizeAware()
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[callback])
        out = callback.quantized_model.predict(x, verbose=0)
        assert np.isfinite(out).all()
        assert callback.quantized_model.get_layer("stem_relu_range").compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.slow
def test_all_callbacks_in_one_fit_then_a_clean_one():
    model = ko.transfer.build_classifier(
        small_cnn(), 4, input_shape=(12, 12, 3), augmentation=ko.augmentation.basic(seed=0)
    )
    compiled(model)
    x, y = stripes(64)
    qat = QuantizeAware(start=0.5)
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=4,
        verbose=0,
        validation_data=(x, y),
        callbacks=[ko.transfer.Unfreeze({1: "all"}), ko.pruning.PruneLowMagnitude(0.5), qat],
    )
    assert qat.float_operations == ()
    for kernel in (model.get_layer("stem_conv").kernel, model.get_layer("logits").kernel):
        assert np.mean(kernel.numpy() == 0) == pytest.approx(0.5, abs=0.01)
        assert kernel.constraint is None
    first = model.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), first)
    history = model.fit(x, y, batch_size=8, epochs=1, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert not {"call", "compute_loss", "train_step", "make_train_function"} & set(vars(model))


def test_not_built():
    with pytest.raises(ValueError, match="needs a model that is built"):
        quantize_aware(keras.Sequential([keras.layers.Dense(2)]))


def test_quantized_twice():
    aware = quantize_aware(small_cnn())
    with pytest.raises(ValueError, match="already quantization-aware"):
        quantize_aware(aware)
    x, y = stripes(8)
    with pytest.raises(ValueError, match="already quantization-aware"):
        compiled(aware).fit(x, y, verbose=0, callbacks=[QuantizeAware()])


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_by_keras(mode):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="dense")])
    model.quantize(mode)
    with pytest.raises(ValueError, match=rf"Keras quantized the layer 'dense' \(to '{mode}'\)"):
        quantize_aware(model)


def test_range_without_data():
    with pytest.raises(ValueError, match="Received: 'image_range', which has seen none"):
        export_twin(quantize_aware(small_cnn()))


def test_float_model_has_no_ranges():
    with pytest.raises(ValueError, match="A quantization-aware model is needed"):
        float_operations(small_cnn())


def test_unknown_scheme():
    with pytest.raises(ValueError, match="`scheme` must be one of 'int8'"):
        QuantizeAware("int4")


def test_start_at_the_end():
    model, (x, y) = compiled(small_cnn()), stripes(8)
    with pytest.raises(ValueError, match="`start` must lie before the end of training"):
        model.fit(x, y, verbose=0, callbacks=[QuantizeAware(start=1.0)])


def test_training_that_stops_before_the_start():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model, (x, y) = compiled(small_cnn()), stripes(16)
    with pytest.raises(
        RuntimeError, match="Training ended before quantization-aware training began"
    ):
        model.fit(
            x, y, batch_size=8, epochs=4, verbose=0, callbacks=[Stop(), QuantizeAware(start=0.5)]
        )
    assert "make_train_function" not in vars(model)


@pytest.mark.slow
def test_pretrained_network_on_photos(shared, tmp_path):
    """EfficientNet-Lite0 with ImageNet weights: all integers, and the same answers on photos."""
    model = keras.models.load_model(shared / "weights" / "efficientnet_lite0_imagenet.keras")
    aware = quantize_aware(model)
    assert float_operations(aware) == ()
    for layer in aware.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    files = sorted((shared / "data" / "flowers17").glob("*/*.jpg"))[::7]
    photos = np.stack([ko.datasets.load_image(file, (224, 224)) for file in files]).astype(
        "float32"
    )
    for start in range(0, 192, 32):
        aware(photos[start : start + 32 : 2], training=True)
    result = ko.export.to_tflite(aware, quantize="int8", verify=photos, min_agreement=0.95)
    assert result.agreement >= 0.95
    # Outputs come in steps of 1/256, and where the network is not sure, of a thousand classes some
    # tie within a few of them.
    expected = aware.predict(photos, verbose=0)
    differs = expected.argmax(1) != ko.export.TFLiteModel(result.content).predict(photos).argmax(1)
    first, second = np.sort(expected[differs], axis=1)[:, :-3:-1].T
    assert np.all(first < 0.5)
    assert np.all(first - second <= 10 / 256)
    assert result.size < 5.6e6
    assert set(result.operators) == {
        "QUANTIZE",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "ADD",
        "MEAN",
        "FULLY_CONNECTED",
        "SOFTMAX",
        "DEQUANTIZE",
    }
