"""Every image augmentation layer of KerasCV and of Keras, in the container."""

import inspect
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from tests.augmentation_layers import (
    CASES,
    CV,
    EXCLUDED,
    KERAS,
    KERAS_CV,
    SIZE,
    K,
    container,
    table,
)

ON_IMAGES = [name for name, case in CASES.items() if not case.needs and not case.refused]
ON_DICTIONARIES = [name for name, case in CASES.items() if case.needs]
REFUSED = [name for name, case in CASES.items() if case.refused]
RANDOM = [name for name in ON_IMAGES if CASES[name].draws]
PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "augmentation.md"


def marked(names):
    """Marks what takes long to trace as slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if CASES[name].slow else name for name in names
    ]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(40, 200, (4, *SIZE, 3)).astype("float32")


@pytest.fixture(scope="module")
def labels():
    return np.eye(4, dtype="float32")


def classifier(augmentation):
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            augmentation,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", jit_compile=False)
    return model


def in_mixed_precision(make):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(ON_IMAGES))
def test_in_a_compiled_step_after_loading_and_in_mixed_precision(name, images, tmp_path):
    augmentation = container(name, name="augmentation")
    model = classifier(augmentation)
    model.fit(images, np.zeros(4), verbose=0)
    first = model.predict(images, verbose=0)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, model.predict(images, verbose=0))

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(first, loaded.predict(images, verbose=0))
    again = loaded.get_layer("augmentation")
    assert again.get_config() == augmentation.get_config()
    changed = again(images, training=True)
    assert changed.shape == (4, *(CASES[name].size or SIZE), 3) == again(images).shape
    assert np.isfinite(changed).all()
    assert CASES[name].size or np.abs(changed - images).max() > 1

    # The same stream as of a fresh container with the seed, here under another policy.
    half = in_mixed_precision(lambda: container(name))(images, training=True)
    assert half.dtype == "float16"
    if CASES[name].reproducible:
        np.testing.assert_array_equal(half, tf.cast(changed, "float16"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_IMAGES)
def test_in_tf_data(name, images):
    augmentation = container(name)
    data = tf.data.Dataset.from_tensor_slices(images).batch(2)
    batches = list(data.map(lambda x: augmentation(x, training=True)))
    assert [batch.shape for batch in batches] == [(2, *(CASES[name].size or SIZE), 3)] * 2
    if CASES[name].reproducible:
        fresh = container(name)
        for batch, part in zip(batches, (images[:2], images[2:]), strict=True):
            np.testing.assert_allclose(batch, fresh(part, training=True), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOM)
def test_images_of_a_batch_are_changed_one_by_one(name, images):
    same = np.repeat(images[:1], 16, axis=0)
    changed = np.asarray(container(name)(same, training=True)).reshape(16, -1)
    assert len(np.unique(changed.round(1), axis=0)) > 1


@pytest.mark.parametrize("name", ON_DICTIONARIES)
def test_a_layer_that_needs_more_than_images(name, images, labels):
    layer = CASES[name].make()
    augmentation = ko.augmentation.Augmentation([layer], seed=3, bounding_box_format="xyxy")
    hint = r"(callback kerasopt\.augmentation\.MixUp|'bounding_boxes')"
    with pytest.raises(ValueError, match=f"needs .*Received: images alone.*dictionary.*{hint}"):
        augmentation(images, training=True)

    boxes = np.array([[[1, 2, 8, 9.0]]] * 4, "float32")
    inputs = {"images": images, "labels": labels}
    if CASES[name].needs == "boxes":
        inputs["bounding_boxes"] = {"boxes": boxes, "classes": np.ones((4, 1))}
    data = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
    changed = next(iter(data.map(lambda x: augmentation(x, training=True))))
    assert changed["images"].shape[1:] == (*SIZE, 3)
    np.testing.assert_allclose(tf.reduce_sum(changed["labels"], axis=1), 1, rtol=1e-5)
    assert len(changed["labels"]) == len(changed["images"])

    # Loaded into another policy; the stream is that of the seed.
    config = {**augmentation.get_config(), "dtype": "mixed_float16"}
    half = in_mixed_precision(lambda: type(augmentation).from_config(config))(inputs, training=True)
    assert half["images"].dtype == "float16"
    np.testing.assert_allclose(half["labels"], changed["labels"], rtol=1e-6)
    np.testing.assert_allclose(half["images"], changed["images"], rtol=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_what_prepares_the_values_is_refused(name):
    with pytest.raises(ValueError, match=r"augmentation, which is absent.*into the model itself"):
        container(name)
    with pytest.raises(ValueError, match=r"augmentation, which is absent"):
        ko.augmentation.Augmentation([K.Pipeline([CASES[name].make()])])


def image_layers(namespace, is_image_layer):
    return {
        name
        for name, cls in vars(namespace).items()
        if inspect.isclass(cls) and issubclass(cls, keras.layers.Layer) and is_image_layer(cls)
    }


@pytest.mark.parametrize(
    ("namespace", "cases", "folder"),
    [(CV, KERAS_CV, ".preprocessing."), (K, KERAS, ".preprocessing.")],
    ids=["KerasCV", "Keras"],
)
def test_no_layer_is_missing(namespace, cases, folder):
    found = image_layers(namespace, lambda cls: folder in f"{cls.__module__}.")
    assert found - set(EXCLUDED) == set(cases)


def test_the_table_of_layers_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"<!-- layers -->\n(.*?)\n<!-- /layers -->", text, re.DOTALL).group(1)
    assert shown == table()
