"""What `build_classifier` makes of `keras.applications`: the scale of pixels, files of weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.transfer import Preprocess, blocks, build_classifier, split_layers
from kerasopt.transfer._preprocessing import FAMILIES, _scaling
from tests.backbones import features_of


@pytest.mark.parametrize("family", FAMILIES)
def test_preprocess_is_the_familys_own_to_the_last_bit(family, rng):
    pixels = rng.uniform(0, 255, (2, 65, 64, 3)).astype("float32")
    layer = Preprocess(family)
    expected = getattr(keras.applications, family).preprocess_input(pixels.copy())
    # A compiled graph divides by constants in its own way; it must find none, in the first call
    # either.
    _scaling.cache_clear()
    np.testing.assert_array_equal(tf.function(layer)(tf.constant(pixels)), expected)
    np.testing.assert_array_equal(layer(pixels), expected)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    np.testing.assert_array_equal(again(pixels), expected)
    assert keras.saving.get_registered_name(Preprocess) == "kerasopt>Preprocess"
    integers = rng.integers(0, 256, (1, 3, 3, 3)).astype("uint8")
    expected = getattr(keras.applications, family).preprocess_input(integers.astype("float32"))
    np.testing.assert_array_equal(layer(integers), expected)


def test_preprocess_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"`family` must be one of .*Did you mean 'mobilenet_v2'"):
        Preprocess("mobilnet_v2")
    with pytest.raises(ValueError, match="must get RGB images with 3 channels"):
        Preprocess("resnet")(np.zeros((1, 4, 4, 1), "float32"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "family"),
    [
        ("MobileNetV2", 32, "mobilenet_v2"),
        ("DenseNet121", 32, "densenet"),
        ("ResNet50", 32, "resnet"),
        ("EfficientNetB0", 32, None),
        ("MobileNetV3Small", 32, None),
        ("ConvNeXtTiny", 32, None),
    ],
)
def test_applications_take_raw_pixels(name, size, family, rng, tmp_path):
    """The classifier's features are those of the application behind its own preprocessing."""
    original = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    original.save_weights(tmp_path / "base.weights.h5")
    model = build_classifier(
        name, 3, input_shape=(size, size, 3), weights=tmp_path / "base.weights.h5"
    )
    pixels = rng.integers(0, 256, (2, size, size, 3)).astype("float32")
    names = [layer.name for layer in model.layers]
    assert ("preprocess" in names) == (family is not None)
    scaled = pixels
    if family is not None:
        scaled = getattr(keras.applications, family).preprocess_input(pixels.copy())
    expected = original.predict(scaled, verbose=0).mean((1, 2))
    np.testing.assert_allclose(features_of(model, pixels), expected, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
    )


def test_grey_application_is_scaled_without_mean_colour():
    model = build_classifier("VGG16", 2, input_shape=(32, 32, 1), weights=None)
    scale = model.get_layer("preprocess")
    assert (scale.scale, scale.offset) == (1 / 127.5, -1.0)
    assert model.input_shape == (None, 32, 32, 1)


@pytest.mark.parametrize(
    ("name", "shape"), [("ConvNeXtTiny", (32, 32, 1)), ("MobileNetV2", (32, 32, 4))]
)
def test_other_channels_are_scaled_where_the_network_does_not(name, shape):
    model = build_classifier(name, 2, input_shape=shape, weights=None)
    assert model.get_layer("preprocess").offset == -1.0
    assert model.input_shape == (None, *shape)


@pytest.mark.parametrize(("name", "smallest"), [("InceptionV3", 75), ("MobileNetV2", 32)])
def test_an_image_too_small_for_the_family(name, smallest):
    match = rf"must be at least {smallest} pixels high and wide\. Received: .*\(24, 32, 3\)\. Give"
    with pytest.raises(ValueError, match=match):
        build_classifier(name, 2, input_shape=(24, 32, 3), weights=None)


@pytest.mark.slow
def test_automatic_names_are_the_same_each_time():
    def names():
        model = build_classifier("MobileNetV3Small", 2, input_shape=(32, 32, 3), weights=None)
        return [operation.name for operation in model.operations]

    first = names()
    assert names() == first
    assert {"re_lu", "re_lu_1", "add", "conv_1"} <= set(first)


@pytest.mark.slow
def test_a_weights_file_with_the_top_is_loaded_without_it(tmp_path, rng):
    whole = keras.applications.MobileNetV2(weights=None)
    whole.save_weights(tmp_path / "whole.weights.h5")
    whole.save(tmp_path / "whole.h5")  # the old format, that of the published files
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    whole_features = keras.Model(whole.input, whole.get_layer("out_relu").output)
    base.set_weights(whole_features.get_weights())
    pixels = rng.integers(0, 256, (1, 64, 64, 3)).astype("float32")
    scaled = keras.applications.mobilenet_v2.preprocess_input(pixels.copy())
    expected = base.predict(scaled, verbose=0).mean((1, 2))
    for file in ("whole.h5", "whole.weights.h5"):
        model = build_classifier("MobileNetV2", 2, input_shape=(64, 64, 3), weights=tmp_path / file)
        np.testing.assert_allclose(features_of(model, pixels), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_published_efficientnet_file_gets_the_scale_keras_adds_for_imagenet(tmp_path, rng):
    shape = (32, 32, 3)
    base = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=shape)
    base.save(tmp_path / "efficientnetb0_notop.h5")
    base.save(tmp_path / "own.h5")
    plain, published = (
        build_classifier("EfficientNetB0", 2, input_shape=shape, weights=tmp_path / file)
        for file in ("own.h5", "efficientnetb0_notop.h5")
    )
    pixels = rng.uniform(0, 255, (1, *shape)).astype("float32")
    before = features_of(plain, pixels, "stem_conv_pad")
    after = features_of(published, pixels, "stem_conv_pad")
    deviation = np.sqrt(np.array([0.229, 0.224, 0.225], "float32"))
    np.testing.assert_allclose(after * deviation, before, rtol=1e-5)


@pytest.mark.slow
def test_efficientnet_lite0_features_are_its_avg_pool(shared, rng):
    path = shared / "weights" / "efficientnet_lite0_imagenet.keras"
    original = keras.models.load_model(path, compile=False)
    model = build_classifier(path, 17)
    pixels = rng.integers(0, 256, (2, 224, 224, 3)).astype("float32")
    expected = features_of(original, pixels, "avg_pool")
    np.testing.assert_allclose(features_of(model, pixels), expected, rtol=1e-6, atol=1e-6)
    names = [block.name for block in blocks(model)]
    assert names == ["stem", *(f"block{n}" for n in range(16)), "head"]
    assert build_classifier(path, 17, input_shape=(96, 96, 3)).input_shape == (None, 96, 96, 3)
    assert blocks(original)[-1].name == "head"
    assert split_layers(original)[1][0].name == "avg_pool"
