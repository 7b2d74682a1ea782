"""Sizes at inference, the range of the pixels, what stands in an exported model."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko

tf.keras.__version__  # noqa: B018 - settled before KerasCV reads it
import keras_cv  # noqa: E402

Augmentation = ko.augmentation.Augmentation
CV, K = keras_cv.layers, keras.layers


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (3, 12, 16, 3)).astype("float32")


# Sizes


@pytest.mark.parametrize(
    ("layers", "stands_for_them"),
    [
        ([K.RandomCrop(8, 8)], [K.Resizing(8, 8, crop_to_aspect_ratio=True)]),
        ([CV.RandomCrop(9, 16)], [K.Resizing(9, 16, crop_to_aspect_ratio=True)]),
        (
            [K.RandomFlip(), CV.RandomCropAndResize((6, 6), (0.5, 1.0), (0.8, 1.2))],
            [K.Resizing(6, 6, crop_to_aspect_ratio=True)],
        ),
        ([K.CenterCrop(8, 8), K.RandomRotation(0.1)], [K.CenterCrop(8, 8)]),
        ([CV.Resizing(9, 9)], [K.Resizing(9, 9)]),
        (
            [K.Pipeline([K.Resizing(20, 20), CV.RandomFlip()]), K.RandomCrop(8, 8)],
            [K.Resizing(20, 20), K.Resizing(8, 8, crop_to_aspect_ratio=True)],
        ),
        ([CV.RandomCropAndResize((12, 16), (0.5, 1.0), (0.8, 1.2))], []),
        ([CV.RandomAspectRatio((0.5, 2.0)), CV.RandomCrop(8, 8)], ["crop"]),
    ],
    ids=["crop", "wide crop", "zoomed crop", "centre", "resize", "two", "same size", "ragged"],
)
def test_the_size_at_inference_is_that_of_training(layers, stands_for_them, images):
    augmentation = Augmentation(layers, seed=0)
    outputs = augmentation(keras.Input((12, 16, 3)))
    expected = images
    for layer in stands_for_them:
        twin = K.Resizing(8, 8, crop_to_aspect_ratio=True) if layer == "crop" else layer
        expected = twin(expected)
    plain = augmentation(images)
    assert outputs.shape[1:] == plain.shape[1:] == augmentation(images, training=True).shape[1:]
    np.testing.assert_allclose(plain, expected, atol=1e-3)


def test_images_of_unknown_size_get_one():
    augmentation = Augmentation([CV.RandomCrop(8, 8)])
    model = keras.Sequential([keras.Input((None, None, 3)), augmentation])
    assert model.output_shape == (None, 8, 8, 3)
    for size in ((12, 9), (20, 30)):
        assert model(np.ones((2, *size, 3), "float32")).shape == (2, 8, 8, 3)
        assert model(np.ones((2, *size, 3), "float32"), training=True).shape == (2, 8, 8, 3)


def test_images_of_many_sizes_at_the_end_are_refused(images):
    with pytest.raises(ValueError, match=r"must end with images of one size.*'random_aspect_r"):
        Augmentation([CV.RandomAspectRatio((0.5, 2.0))])(images)


# What is exported


def resized_model():
    augmentation = Augmentation(
        [
            K.RandomFlip(),
            CV.RandomCropAndResize((8, 8), (0.5, 1.0), (0.8, 1.2)),
            CV.RandomHue(0.2, (0, 255)),
        ]
    )
    layers = [keras.Input((12, 16, 3), batch_size=1), augmentation, K.Conv2D(2, 3)]
    return keras.Sequential([*layers, K.GlobalAveragePooling2D()])


def test_no_random_operator_is_in_a_saved_model(tmp_path, images):
    model = resized_model()
    model(images[:1], training=True)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    functions = [node for function in graph.library.function for node in function.node_def]
    names = {node.op for node in [*graph.node, *functions]}
    assert "ResizeBilinear" in names
    assert not [n for n in names if "Random" in n or "Stateless" in n or "PyFunc" in n]
    np.testing.assert_allclose(
        loaded.serve(images[:1]), model.predict(images[:1], verbose=0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_the_tflite_file_resizes_with_a_builtin_operator(images):
    model = resized_model()
    result = ko.export.to_tflite(model, verify=images[:1])
    assert "RESIZE_BILINEAR" in result.operators
    assert not [name for name in result.operators if "RANDOM" in name]
    assert result.max_error < 1e-3


@pytest.mark.slow
def test_the_int8_file_of_a_quantization_aware_model_resizes_too(images):
    inputs = keras.Input((12, 16, 3))
    x = Augmentation([K.RandomFlip(), K.RandomCrop(8, 8)], seed=0)(inputs)
    x = K.Conv2D(4, 3, activation="relu")(K.Rescaling(1 / 255)(x))
    model = keras.Model(inputs, K.Dense(2)(K.GlobalAveragePooling2D()(x)))
    quantized = ko.quantization.quantize_aware(model)
    quantized.compile("sgd", "mse")
    quantized.fit(images, np.zeros((3, 2)), verbose=0)
    result = ko.export.to_tflite(
        quantized, quantize="int8", representative_data=images, verify=images
    )
    assert "RESIZE_BILINEAR" in result.operators


# The range of the pixels


@pytest.mark.parametrize(
    ("layer", "low", "high"),
    [
        (K.RandomBrightness((0.5, 0.5)), 0.5, 1.0),
        (K.RandomContrast((0.9, 0.9)), 0.0, 1.0),
        (K.Solarization(threshold_factor=(0.0, 0.0)), 0.0, 1.0),
        (CV.RandomApply(CV.RandomBrightness((0.5, 0.5)), rate=1.0), 0.5, 1.0),
        (K.Pipeline([K.RandomBrightness((0.5, 0.5))]), 0.5, 1.0),
        (CV.RandomJpegQuality((90, 95)), 0.0, 1.0),
        (CV.Equalization((0, 255)), 0.0, 1.0),
    ],
    ids=["brightness", "contrast", "solarization", "nested", "pipeline", "JPEG", "equalization"],
)
@pytest.mark.parametrize("fuse", [True, False])
def test_the_range_is_passed_down(layer, low, high, fuse, images):
    augmentation = Augmentation([layer], value_range=(0, 1), fuse=fuse, seed=0)
    changed = np.asarray(augmentation(images / 255, training=True))
    assert changed.min() >= low - 1e-5
    assert 0.6 < changed.max() <= high + 1e-5


def test_the_range_of_the_layers_is_taken_where_none_is_declared():
    assert Augmentation([K.RandomFlip()]).value_range == (0, 255)
    layers = [K.RandomBrightness(0.1), CV.RandomContrast((0, 1), 0.2)]
    augmentation = Augmentation(layers)
    assert augmentation.value_range == (0, 1)
    assert [tuple(layer.value_range) for layer in augmentation.layers] == [(0, 1)] * 2
    assert tuple(layers[0].value_range) == (0, 255)
    assert Augmentation.from_config(augmentation.get_config()).value_range == (0, 1)


def test_one_range_for_all_layers():
    layers = [CV.RandomContrast((0, 1), 0.2), K.RandomBrightness(0.1, value_range=(-1, 1))]
    with pytest.raises(ValueError, match=r"one for all layers.*\(0\.0, 1\.0\).*brightness.*\(-1"):
        Augmentation(layers)
    with pytest.raises(ValueError, match=r"one for all layers"):
        Augmentation(layers[:1], value_range=(-1, 1))


@pytest.mark.parametrize(
    ("value_range", "error", "match"),
    [
        (255, TypeError, r"pair \(low, high\)"),
        ((1, 0), ValueError, "increasing"),
        (("0", 1), TypeError, "must be a number"),
    ],
)
def test_bad_ranges(value_range, error, match):
    with pytest.raises(error, match=match):
        Augmentation([K.RandomFlip()], value_range=value_range)


def test_images_of_0_to_1_warn_once_and_name_the_layer(images):
    augmentation = Augmentation([K.RandomFlip(), K.RandomBrightness(0.1, name="light")])
    with pytest.warns(UserWarning, match=r"\(0\.0, 255\.0\), and images from .* to 1,.*'light'"):
        augmentation(images / 255, training=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augmentation(images / 255, training=True)


def test_images_of_0_to_1_warn_in_fit_and_in_tf_data(images):
    augmentation = Augmentation([K.RandomBrightness(0.1)])
    model = keras.Sequential([keras.Input((12, 16, 3)), augmentation, K.Flatten(), K.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="must be the range of the images"):
        model.fit(images / 255, np.zeros(3), epochs=2, batch_size=1, verbose=0)
    in_data = Augmentation([K.RandomBrightness(0.1)])
    data = tf.data.Dataset.from_tensor_slices(images / 255).batch(1)
    with pytest.warns(UserWarning, match="must be the range of the images") as caught:
        list(data.map(lambda x: in_data(x, training=True)))
    assert len(caught) == 1


def test_images_beyond_the_range_warn(images):
    augmentation = Augmentation([K.RandomBrightness(0.1)], value_range=(0, 1))
    with pytest.warns(UserWarning, match=r"\(0\.0, 1\.0\), and images from .* to 25"):
        augmentation(images, training=True)


@pytest.mark.parametrize("layer", [K.RandomFlip(), CV.RandomRotation(0.1)])
def test_no_warning_where_no_layer_has_a_range(layer, images):
    Augmentation([layer])(images / 255, training=True)


def test_no_warning_for_dark_images():
    augmentation = Augmentation([K.RandomBrightness(0.1)])
    augmentation(np.ones((2, 8, 8, 3), "float32"), training=True)


# Bad input


def test_channels_first_is_refused(images):
    with pytest.raises(ValueError, match=r"looks like channels first.*moveaxis"):
        Augmentation([K.RandomFlip()])(np.moveaxis(images, -1, 1))
    with pytest.raises(ValueError, match=r"'random_flip.*data_format='channels_first'"):
        Augmentation([K.RandomFlip(data_format="channels_first")])


# Nested layers, and what KerasCV forgets


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        CV.RandomChoice([CV.RandomApply(CV.RandomFlip()), CV.RandomJpegQuality((5, 50))]),
        CV.RandomApply(CV.RandomFlip(), batchwise=True),
        CV.RandomApply(CV.RandomRotation(0.2), auto_vectorize=True),
        K.Pipeline([K.RandomShear(0.2, 0.2), CV.RandomApply(CV.GridMask())]),
    ],
    ids=["apply in choice", "batchwise", "vectorized", "pipeline"],
)
def test_nested_layers_draw_the_same_for_the_same_seed(layer, images):
    config = Augmentation([layer], seed=5).get_config()
    first, second = (Augmentation.from_config(config)(images, training=True) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_channels_are_shifted_independently(images):
    shift = Augmentation([CV.RandomChannelShift((-1000, 1000), 0.5)], fuse=False, seed=1)
    moved = np.asarray(shift(np.zeros((4, 4, 4, 3), "float32"), training=True))[:, 0, 0]
    assert len(np.unique(np.abs(moved).round(2))) == moved.size


def test_an_elastic_transform_keeps_images_apart_where_the_batch_size_is_unknown(images):
    # Keras's own layer takes the first image for all others there.
    layer = K.RandomElasticTransform((1.0, 1.0), scale=(0.5, 0.5))
    augmentation = Augmentation([layer], seed=1)
    data = tf.data.Dataset.from_tensor_slices(images).batch(3)
    changed = next(iter(data.map(lambda x: augmentation(x, training=True))))
    means = images.mean(axis=(1, 2))
    distance = np.abs(np.asarray(changed).mean(axis=(1, 2))[:, None] - means).sum(-1)
    np.testing.assert_array_equal(distance.argmin(axis=1), [0, 1, 2])
