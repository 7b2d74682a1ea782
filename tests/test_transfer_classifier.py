"""`build_classifier`: its parts, its files, its errors."""

import pathlib

import keras
import numpy as np
import pytest

from kerasopt.transfer import blocks, build_classifier, split_layers
from kerasopt.transfer._classifier import is_feature_head
from tests.backbones import features_of, headed, tiny_maps


@pytest.fixture(scope="module")
def backbone():
    return headed()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (4, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("features", ["head_features_pool", "head_dropout", "logits"]),
        ("gap", ["head_pool", "head_dropout", "logits"]),
        ("fc", ["head_pool", "head_dense", "head_dropout", "logits"]),
    ],
)
def test_heads_train_and_round_trip(backbone, images, head, names, tmp_path):
    model = build_classifier(backbone, 3, head=head, name="mine")
    base, top = split_layers(model)
    assert model.name == "mine"
    assert [layer.name for layer in top] == names
    assert model.get_layer("logits").activation is keras.activations.linear
    assert all(layer.trainable == (head != "features") for layer in base)
    assert is_feature_head(model) == (head == "features")

    before = [layer.get_weights() for layer in base]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    model.fit(images, np.array([0, 1, 2, 0]), verbose=0)
    same = [
        np.array_equal(a, b)
        for layer, old in zip(base, before, strict=True)
        for a, b in zip(layer.get_weights(), old, strict=True)
    ]
    assert all(same) if head == "features" else not all(same)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )
    assert [[layer.name for layer in part] for part in split_layers(again)] == [
        [layer.name for layer in part] for part in (base, top)
    ]
    assert is_feature_head(again) == (head == "features")
    assert [b.name for b in blocks(again)] == ["stem", "block1", "block2"]


def test_features_are_the_backbones_own(backbone, images):
    expected = features_of(backbone, images, "avg_pool")
    np.testing.assert_array_equal(features_of(build_classifier(backbone, 3), images), expected)


def test_the_callers_model_stays_as_it_was(backbone, images):
    backbone.compile("adam", "sparse_categorical_crossentropy")
    backbone.get_layer("block2_conv").trainable = False
    weights, answer = backbone.get_weights(), backbone.predict(images, verbose=0)
    model = build_classifier(backbone, 3)
    model.compile("sgd", "mse")
    model.fit(images, np.ones((4, 3)), verbose=0)
    for now, then in zip(backbone.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(backbone.predict(images, verbose=0), answer)
    assert not backbone.get_layer("block2_conv").trainable
    assert model.get_layer("block2_conv").trainable
    assert backbone.get_layer("block2_conv").output is not None, "still one node per layer"
    backbone.get_layer("block2_conv").trainable = True


def test_keras_file(backbone, images, tmp_path):
    backbone.save(tmp_path / "base.keras")
    for path in (tmp_path / "base.keras", str(tmp_path / "base.keras")):
        model = build_classifier(path, 3)
        expected = features_of(backbone, images, "avg_pool")
        np.testing.assert_array_equal(features_of(model, images), expected)


def test_nested_models_are_opened(images):
    maps = tiny_maps()
    stack = keras.Sequential(
        [keras.Input((8, 8, 3)), maps, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    )
    model = build_classifier(stack, 3)
    assert not any(getattr(layer, "layers", None) for layer in model.layers)
    assert model.get_layer("block2_conv")
    expected = maps.predict(images, verbose=0).mean((1, 2))
    np.testing.assert_allclose(features_of(model, images), expected, rtol=1e-5, atol=1e-4)


def test_a_model_that_stands_twice_in_the_graph_stays_shared(images):
    image = keras.Input((8, 8, 3))
    conv = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="shared")])
    both = keras.layers.Add()([conv(image), conv(keras.ops.flip(image, axis=1))])
    siamese = keras.Model(image, both)
    model = build_classifier(siamese, 2)
    assert sum(layer.name == "shared" for layer in model.layers) == 1
    expected = siamese.predict(images, verbose=0).mean((1, 2))
    np.testing.assert_allclose(features_of(model, images), expected, rtol=1e-5, atol=1e-4)


def test_names_that_the_head_needs_are_renamed_in_the_backbone(images):
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(2, 3, name="logits")(image)
    x = keras.layers.Conv2D(2, 3, name="head_conv")(x)
    model = build_classifier(keras.Model(image, x, name="odd"), 3)
    base, top = split_layers(model)
    assert [layer.name for layer in base] == ["odd_logits", "head_conv"]
    assert top[-1].units == 3


def test_a_classifier_is_a_backbone_too(backbone, images):
    first = build_classifier(backbone, 3)
    second = build_classifier(first, 5, head="fc")
    np.testing.assert_array_equal(features_of(second, images), features_of(first, images))
    assert split_layers(second)[1][0].name == "head_pool"


@keras.saving.register_keras_serializable(package="kerasopt_test")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(4, 3)

    def call(self, inputs):
        return self.conv(inputs)


def test_subclassed_backbone_is_copied_as_one_layer(images, tmp_path):
    model = Subclassed(name="own")
    with pytest.raises(ValueError, match="must be a built model"):
        build_classifier(model, 3)
    model(images)
    classifier = build_classifier(model, 3, input_shape=(8, 8, 3), head="features")
    expected = model.predict(images, verbose=0).mean((1, 2))
    got = features_of(classifier, images, "head_features_pool")
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    assert model.trainable
    assert model.conv.trainable
    assert not classifier.get_layer("own").trainable_variables
    classifier.save(tmp_path / "own.keras")
    again = keras.models.load_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), classifier.predict(images, verbose=0)
    )


def test_augmentation_comes_first_and_only_in_training(backbone, images):
    noise = keras.layers.GaussianNoise(1.0, seed=1, name="augmentation")
    scale = keras.layers.Rescaling(1 / 255, name="scale")
    model = build_classifier(backbone, 3, augmentation=noise, preprocessing=scale)
    assert [layer.name for layer in model.layers[:3]] == ["image", "augmentation", "scale"]
    first = model.predict(images, verbose=0)
    np.testing.assert_array_equal(model.predict(images, verbose=0), first)
    assert not np.array_equal(model(images, training=True), first)
    assert split_layers(model)[0][0].name == "stem_conv"


def test_dropout_zero_leaves_the_layer_out(backbone):
    names = [layer.name for layer in split_layers(build_classifier(backbone, 3, dropout=0))[1]]
    assert names == ["head_pool", "logits"]


def test_logits_are_float32_under_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build_classifier("VGG16", 2, input_shape=(32, 32, 3), weights=None)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("block1_conv1").compute_dtype == "float16"
    assert model.output.dtype == "float32"


def test_input_shape_of_a_model(backbone):
    assert build_classifier(backbone, 3).input_shape == (None, 8, 8, 3)
    assert build_classifier(backbone, 3, input_shape=(16, 12, 3)).input_shape == (None, 16, 12, 3)
    assert build_classifier(tiny_maps(size=None), 3).input_shape == (None, 224, 224, 3)
    assert build_classifier(tiny_maps(channels=1), 3).input_shape == (None, 8, 8, 1)


def test_a_headed_network_with_dense_layers_is_cut_before_them_and_resized():
    maps = tiny_maps()
    x = keras.layers.Flatten()(maps.output)
    x = keras.layers.Dense(5)(keras.layers.Dense(7)(x))
    model = build_classifier(keras.Model(maps.input, x), 3, input_shape=(16, 16, 3))
    assert model.get_layer("head_pool").input.shape == (None, 4, 4, 6)


# Errors


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"num_classes": 1}, ValueError, r"`num_classes` must be an integer >= 2"),
        ({"head": "gapp"}, ValueError, r"`head` must be one of .*Did you mean 'gap'"),
        ({"dropout": 1.0}, ValueError, r"`dropout` must be a number in \[0, 1\)"),
        ({"dropout": -0.1}, ValueError, r"`dropout` must be a number in \[0, 1\)"),
        ({"input_shape": (8, 8)}, ValueError, r"`input_shape` must be \(height, width, channels\)"),
        ({"input_shape": (8, 0, 3)}, ValueError, r"positive integers\. Received"),
        ({"input_shape": (8, 8, 1)}, ValueError, r"must have the 3 channels of the backbone"),
        ({"augmentation": len}, TypeError, r"`augmentation` must be a Keras layer or None"),
        ({"preprocessing": "tf"}, TypeError, r"`preprocessing` must be a Keras layer or None"),
        ({"weights": "some.h5"}, ValueError, r"`weights` must be left alone"),
        ({"backbone": 3}, TypeError, r"`backbone` must be a keras.applications name"),
        ({"backbone": "MobilNetV2"}, ValueError, r"Did you mean 'MobileNetV2'"),
        ({"backbone": "no/such.keras"}, ValueError, r"existing \.keras file.*which is not a file"),
        ({"backbone": pathlib.Path("a.h5")}, ValueError, r"path of a \.keras file"),
    ],
)
def test_bad_arguments(backbone, change, error, match):
    arguments = {"backbone": backbone, "num_classes": 3, **change}
    with pytest.raises(error, match=match):
        build_classifier(**arguments)


def test_corrupt_keras_file(backbone, tmp_path):
    path = tmp_path / "base.keras"
    backbone.save(path)
    whole = path.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"must be a \.keras file that Keras can load"
        ) as caught:
            build_classifier(path, 3)
        assert caught.value.__cause__ is not None


def test_models_that_are_no_image_models():
    table = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="must take images of shape"):
        build_classifier(table, 3)
    image = keras.Input((8, 8, 3))
    other = keras.Input((8, 8, 3))
    two = keras.Model([image, other], keras.layers.Add()([image, other]))
    with pytest.raises(ValueError, match="must have one input, the image"):
        build_classifier(two, 3)
    x = keras.layers.Conv2D(2, 3)(image)
    pyramid = keras.Model(image, [x, keras.layers.Conv2D(2, 3)(x)])
    with pytest.raises(ValueError, match=r"must end in feature maps.*output shape \[.*\]"):
        build_classifier(pyramid, 3, input_shape=(8, 8, 3))
    odd = keras.Model(image, keras.layers.Lambda(lambda x: x + 1)(x))
    with pytest.raises(ValueError, match="`backbone` must be made of layers that can be copied"):
        build_classifier(odd, 3, input_shape=(16, 16, 3))
    averaged = keras.Model(image, keras.ops.mean(keras.layers.Conv2D(2, 3)(image), axis=(1, 2)))
    with pytest.raises(ValueError, match="must end in feature maps"):
        build_classifier(averaged, 3)


def test_a_model_that_cannot_take_another_size():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Reshape((4, 16, 3))(image)
    fixed = keras.Model(image, keras.layers.Conv2D(2, 3)(x))
    with pytest.raises(
        ValueError, match=r"must be \(8, 8, 3\), the input shape of the backbone.*\(16, 16, 3\)"
    ):
        build_classifier(fixed, 3, input_shape=(16, 16, 3))


# Keras warns before it raises for a file of another network.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_applications(tmp_path):
    arguments = {"input_shape": (32, 32, 3)}
    with pytest.raises(ValueError, match=r"existing \.h5 or \.weights\.h5 file.*is not a file"):
        build_classifier("VGG16", 3, weights=tmp_path / "none.h5", **arguments)
    with pytest.raises(TypeError, match="`weights` must be 'imagenet', None or the path"):
        build_classifier("VGG16", 3, weights=7, **arguments)
    with pytest.raises(ValueError, match="must have 3 channels with weights='imagenet'"):
        build_classifier("VGG16", 3, input_shape=(32, 32, 1))
    (tmp_path / "bad.h5").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="must be a weights file of VGG16, for 3 channels"):
        build_classifier("VGG16", 3, weights=tmp_path / "bad.h5", **arguments)
    (tmp_path / "bad.keras").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="must be a weights file of VGG16, for 3 channels"):
        build_classifier("VGG16", 3, weights=tmp_path / "bad.keras", **arguments)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ValueError, match="must be a weights file of VGG16, for 3 channels"):
        build_classifier("VGG16", 3, weights=tmp_path / "other.weights.h5", **arguments)


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    # A proxy at a closed port: no network is needed to find out, and none is used.
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match=r"could not be downloaded.*weights='path/to") as caught:
        build_classifier("MobileNetV2", 3, input_shape=(128, 128, 3))
    assert caught.value.__cause__ is not None
