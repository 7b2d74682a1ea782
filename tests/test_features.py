"""The features are the backbone's, in the order of the images, and scikit-learn can use them."""

import copy
import pathlib
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import kerasopt as ko
from tests.models import small_cnn, stripes

X, Y = stripes(count=20)


def maps_model(size=12, filters=6, seed=0):
    """A small backbone: raw pixels in, feature maps out."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(filters, 3, strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ],
        name="maps",
    )


@pytest.fixture(scope="module")
def backbone():
    return maps_model()


@pytest.fixture(scope="module")
def extractor(backbone):
    return ko.transfer.FeatureExtractor(backbone, batch_size=8).fit()


@pytest.fixture(scope="module")
def expected(backbone):
    return backbone.predict(X, verbose=0).mean(axis=(1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve photos of other sizes than the network's, in two class folders, and other files."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("daisy", "tulip"):
        (root / name).mkdir()
        (root / name / "notes.txt").write_text("none")
        (root / name / ".hidden.png").write_text("none")
        for index in range(6):
            pixels = rng.integers(0, 256, (20, 16 + index, 3), "uint8")
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_features_are_the_averaged_maps_of_the_backbone(extractor, expected):
    features = extractor.transform(X)
    assert features.dtype == np.float32
    assert features.shape == (20, extractor.n_features_out_) == (20, 6)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def as_generator():
    return (X[start : start + 3] for start in range(0, len(X), 3))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(X.astype("uint8").astype("float64"), id="float64"),
        pytest.param(X.astype("uint8"), id="uint8"),
        pytest.param(tf.constant(X.astype("uint8")), id="tensor"),
        pytest.param(tf.data.Dataset.from_tensor_slices(X).batch(7), id="dataset"),
        pytest.param(tf.data.Dataset.from_tensor_slices((X, Y)).batch(7), id="labelled"),
        pytest.param((X, Y), id="tuple"),
        pytest.param([X[:5], X[5:]], id="batches"),
        pytest.param(as_generator(), id="generator"),
    ],
)
def test_all_forms_of_data_give_the_same_features(extractor, expected, data):
    # Dropping the fractions of a pixel moves a feature by 1/255 at most.
    tolerance = 0 if data is X else 0.01
    np.testing.assert_allclose(extractor.transform(data), expected, rtol=1e-4, atol=tolerance)


def test_one_trace_serves_every_length():
    traced = []

    @keras.saving.register_keras_serializable("test_features")
    class Spy(keras.layers.Layer):
        def call(self, inputs):
            traced.append(inputs.shape)
            return inputs

    model = keras.Sequential([keras.Input((12, 12, 3)), Spy(), keras.layers.Conv2D(2, 3)])
    extractor = ko.transfer.FeatureExtractor(model, batch_size=8).fit()
    traced.clear()
    for length in (20, 8, 1):
        extractor.transform(X[:length])
    assert traced == []


def test_photos_are_read_as_image_folder_reads_them(extractor, folder):
    files = ko.datasets.list_photos(folder)
    assert [f"{f.parent.name}/{f.name}" for f in files] == [
        f"{name}/{index}.png" for name in ("daisy", "tulip") for index in range(6)
    ]
    pixels = np.stack([ko.datasets.load_image(file, (12, 12)) for file in files])
    expected = extractor.transform(pixels)
    for data in (folder, str(folder), files, [str(f) for f in files], np.array(files, object)):
        np.testing.assert_array_equal(extractor.transform(data), expected)
    np.testing.assert_array_equal(extractor.transform(np.array([str(f) for f in files])), expected)
    data = ko.datasets.image_folder(folder, image_size=(12, 12), batch_size=8)
    np.testing.assert_array_equal(
        extractor.transform(data.test), extractor.transform(data.files["test"])
    )


def test_labels_come_with_the_features_of_a_shuffled_pipeline(extractor, expected):
    shuffled = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(20, seed=1).batch(8)
    features, labels = extractor.features_and_labels(shuffled)
    assert not np.array_equal(labels, Y)
    for label in range(4):
        found, truth = features[labels == label], expected[label == Y]
        np.testing.assert_allclose(np.sort(found, 0), np.sort(truth, 0), rtol=1e-4, atol=1e-6)


def test_labels_are_integers(extractor, folder):
    _, labels = extractor.features_and_labels((X, np.eye(4)[Y]))
    np.testing.assert_array_equal(labels, Y)
    files = ko.datasets.list_photos(folder)
    names = np.array([file.parent.name == "tulip" for file in files])
    _, labels = extractor.features_and_labels((files, names))
    assert labels.tolist() == [0] * 6 + [1] * 6


# The network


@pytest.mark.parametrize("head", ["features", "gap", "fc"])
def test_of_a_classifier_the_features_are_what_its_head_gets(backbone, head):
    augmentation = keras.layers.RandomBrightness(0.5, name="augmentation")
    classifier = ko.transfer.build_classifier(backbone, 4, head=head, augmentation=augmentation)
    pool = ko.transfer.split_layers(classifier)[1][0]
    truth = keras.Model(classifier.input, pool.output).predict(X, verbose=0)
    found = ko.transfer.FeatureExtractor(classifier).fit_transform(X)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-6)


def test_a_file_and_its_model_give_the_same_features(backbone, expected, tmp_path):
    backbone.save(tmp_path / "backbone.keras")
    found = ko.transfer.FeatureExtractor(tmp_path / "backbone.keras").fit_transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_preprocessing_and_input_shape_are_those_of_build_classifier(backbone):
    scaling = keras.layers.Rescaling(0.5)
    extractor = ko.transfer.FeatureExtractor(
        backbone, input_shape=(16, 20, 3), preprocessing=scaling
    ).fit()
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 20, 3))
    plain = ko.transfer.FeatureExtractor(backbone, input_shape=(16, 20, 3)).fit()
    np.testing.assert_allclose(
        extractor.transform(images), plain.transform(images / 2), rtol=1e-4, atol=1e-6
    )


def test_the_given_model_is_left_alone_and_copied():
    model = small_cnn()
    weights = model.get_weights()
    extractor = ko.transfer.FeatureExtractor(model).fit()
    before = extractor.transform(X)
    assert model.trainable
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    model.set_weights([weight * 0.5 for weight in weights])
    np.testing.assert_array_equal(extractor.transform(X), before)
    assert np.abs(extractor.fit().transform(X) - before).max() > 1e-3


def test_features_are_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        features = ko.transfer.FeatureExtractor(maps_model()).fit_transform(X)
    finally:
        keras.config.set_dtype_policy("float32")
    assert features.dtype == np.float32


@pytest.mark.slow
def test_an_application_by_name():
    extractor = ko.transfer.FeatureExtractor(
        "MobileNetV2", weights=None, input_shape=(32, 32, 3)
    ).fit()
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    assert extractor.transform(images).shape == (3, 1280)
    assert any(isinstance(layer, ko.transfer.Preprocess) for layer in extractor.model_.layers)


# scikit-learn

CHECKS = (
    "do_not_raise_errors_in_init_or_set_params",
    "dont_overwrite_parameters",
    "estimator_cloneable",
    "estimator_repr",
    "estimator_tags_renamed",
    "estimators_fit_returns_self",
    "estimators_overwrite_params",
    "estimators_unfitted",
    "fit_check_is_fitted",
    "get_feature_names_out_error",
    "get_params_invariance",
    "mixin_order",
    "no_attributes_set_in_init",
    "parameters_default_constructible",
    "readonly_memmap_input",
    "set_params",
    "transformers_unfitted",
    "valid_tag_types",
)
"""Those of scikit-learn's checks that do not transform its own two-dimensional data."""


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_check(name, backbone, tmp_path):
    check = getattr(estimator_checks, f"check_{name}", None)
    if check is None:
        pytest.skip("not in this version of scikit-learn")
    backbone.save(tmp_path / "backbone.keras")
    check("FeatureExtractor", ko.transfer.FeatureExtractor(str(tmp_path / "backbone.keras")))


def test_tags_say_that_images_are_no_table(extractor):
    tags = extractor.__sklearn_tags__()
    assert not tags.input_tags.two_d_array
    assert tags.requires_fit
    assert extractor.get_feature_names_out().tolist() == [f"feature{i}" for i in range(6)]


def test_a_clone_is_unfitted_and_shares_the_model(extractor):
    other = clone(extractor)
    assert other.backbone is extractor.backbone
    assert other.get_params() == extractor.get_params()
    with pytest.raises(NotFittedError):
        other.transform(X)
    assert clone(extractor).set_params(batch_size=3).batch_size == 3


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])
def test_pickles_hold_the_network(extractor, again):
    other = again(extractor)
    assert other.model_ is not extractor.model_
    np.testing.assert_array_equal(other.transform(X), extractor.transform(X))
    unfitted = again(clone(extractor))
    np.testing.assert_array_equal(unfitted.fit_transform(X), extractor.transform(X))


def test_it_stands_in_pipelines_and_searches(backbone):
    images, labels = stripes(count=48)
    pipeline = make_pipeline(
        ko.transfer.FeatureExtractor(backbone), LogisticRegression(max_iter=1000)
    )
    scores = cross_val_score(pipeline, images, labels, cv=2)
    other = maps_model(filters=3, seed=1)
    search = GridSearchCV(
        pipeline,
        {"featureextractor__backbone": [backbone, other], "logisticregression__C": [1.0]},
        cv=2,
    ).fit(images, labels)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"][0], scores.mean())
    assert search.best_estimator_.predict(images).shape == (48,)


def test_cross_validation_takes_paths(backbone, folder):
    files = ko.datasets.list_photos(folder)
    labels = [file.parent.name for file in files]
    pipeline = make_pipeline(ko.transfer.FeatureExtractor(backbone), LogisticRegression())
    assert cross_val_score(pipeline, files, labels, cv=3).shape == (3,)


# Misuse


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X[0], ValueError, r"`X` must hold batches of images of shape \(batch, 12, 12, 3\)"),
        (X[:, :8], ValueError, r"Received: shape \(8, 8, 12, 3\)"),
        (X.astype(str), ValueError, "numbers 0–255"),
        (X[:0], ValueError, "`X` must hold at least one example"),
        ([], ValueError, "`X` must hold at least one example"),
        (5, TypeError, "`X` must be an array"),
        ("no/such/folder", ValueError, "`path` must be an existing folder"),
        (["no.jpg"], ValueError, "`path` must be a whole image file"),
        (tf.data.Dataset.from_tensor_slices(X), ValueError, "must hold batches of images"),
        (tf.data.Dataset.from_tensor_slices(X).batch(8).repeat(), ValueError, "must have an end"),
        (([pathlib.Path("a.png")], [0, 1]), ValueError, "as many labels as inputs"),
    ],
)
def test_data_that_is_refused(extractor, data, error, message):
    with pytest.raises(error, match=message):
        extractor.transform(data)


def test_folders_without_photos_and_data_without_labels_are_refused(extractor, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must hold at least one photo. Received: path="):
        extractor.transform(tmp_path)
    with pytest.raises(ValueError, match="`data` must have labels"):
        extractor.features_and_labels(X)


def test_photos_need_a_network_of_three_channels(folder):
    model = keras.Sequential([keras.Input((12, 12, 1)), keras.layers.Conv2D(2, 3)])
    extractor = ko.transfer.FeatureExtractor(model).fit()
    assert extractor.transform(X[..., :1]).shape == (20, 2)
    with pytest.raises(ValueError, match="need a backbone of 3 channels"):
        extractor.transform(folder)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone": "MobilNetV2"}, ValueError, "Did you mean 'MobileNetV2'"),
        ({"backbone": 3}, TypeError, "`backbone` must be"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
        ({"input_shape": (12, 12)}, ValueError, "`input_shape` must be"),
        ({"preprocessing": abs}, TypeError, "`preprocessing` must be a Keras layer"),
    ],
)
def test_parameters_are_checked_in_fit(backbone, options, error, message):
    extractor = ko.transfer.FeatureExtractor(**{"backbone": backbone, **options})
    with pytest.raises(error, match=message):
        extractor.fit(X)
