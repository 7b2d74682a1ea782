"""The recipes of the papers: random erasing, their life in a model, misuse."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.augmentation._policy_layers import AugMixPolicy, PolicyAugment
from kerasopt.augmentation._random_erasing import RandomErasing
from tests.recipes import sample_images

RECIPES = {
    "randaugment": ko.augmentation.randaugment,
    "trivialaugment": ko.augmentation.trivialaugment,
    "autoaugment": ko.augmentation.autoaugment,
    "augmix": ko.augmentation.augmix,
}
EVERY = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@pytest.fixture(scope="module")
def images():
    return sample_images()


# Random erasing


def test_erased_rectangles_have_the_areas_and_ratios_of_the_paper():
    boxes = np.asarray(RandomErasing(0.25, seed=0).draw(20_000, 200, 100))
    erased = boxes[boxes[:, 2] > 0]
    assert len(erased) / len(boxes) == pytest.approx(0.25, abs=0.01)
    tall, wide = (erased[:, 2:] - erased[:, :2]).T
    assert erased[:, :2].min() == 0
    assert erased[:, 2].max() <= 200
    assert erased[:, 3].max() <= 100
    area, ratio = tall * wide / 20_000, tall / wide
    np.testing.assert_allclose([area.min(), area.max()], [0.02, 0.33], atol=0.01)
    np.testing.assert_allclose([ratio.min(), ratio.max()], [0.3, 3.3], rtol=0.05)
    # Where all sizes fit, the area is uniform and upright is as likely as lying.
    square = np.asarray(RandomErasing(1.0, seed=0).draw(20_000, 300, 300))
    tall, wide = (square[:, 2:] - square[:, :2]).T
    assert np.mean(tall > wide) == pytest.approx(0.5, abs=0.02)
    assert np.mean(tall * wide / 300**2) == pytest.approx(0.175, abs=0.01)


@pytest.mark.parametrize("value_range", [(0, 255), (-1, 1)])
@pytest.mark.parametrize("fill", ["noise", "mean"])
def test_erasing_fills_with_noise_or_the_mean(fill, value_range, images):
    low, high = value_range
    scaled = images / 255 * (high - low) + low
    layer = RandomErasing(1.0, fill=fill, value_range=value_range, seed=3)
    boxes = np.asarray(RandomErasing(1.0, seed=3).draw(len(images), *images.shape[1:3]))
    changed = np.asarray(layer(scaled))
    inside = []
    for image, result, (top, left, bottom, right) in zip(scaled, changed, boxes, strict=True):
        rest = result.copy()
        rest[top:bottom, left:right] = image[top:bottom, left:right]
        np.testing.assert_array_equal(rest, image)
        hole = result[top:bottom, left:right]
        inside.append(hole.ravel())
        if fill == "mean":
            np.testing.assert_allclose(hole - image.mean((0, 1)), 0, atol=(high - low) * 1e-5)
    if fill == "noise":
        values = (np.concatenate(inside) - low) / (high - low)
        assert 0 <= values.min() < 0.01
        assert 0.99 < values.max() <= 1
        assert np.histogram(values, 4, (0, 1))[0] == pytest.approx([len(values) / 4] * 4, rel=0.2)
        assert len({hole[:3].tobytes() for hole in inside}) == len(inside)


@pytest.mark.slow
@EVERY
def test_every_recipe_takes_random_erasing(recipe, images):
    kept = recipe(random_erasing=0, seed=0)
    assert [type(layer) for layer in kept.layers] in ([PolicyAugment], [AugMixPolicy])
    erasing = recipe(random_erasing=1.0, value_range=(-300, 500), seed=0)
    assert [type(layer) for layer in erasing.layers][1:] == [RandomErasing]
    assert erasing.layers[1].value_range == (-300, 500)
    changed = np.asarray(erasing(images, training=True))
    assert ((changed < 0) | (changed > 255)).any(axis=(1, 2, 3)).all()


# In a model


def model_of(augmentation):
    return keras.Sequential(
        [
            keras.Input((24, 20, 3)),
            augmentation,
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )


@EVERY
def test_identity_at_inference_and_change_in_training(recipe, images):
    augmentation = recipe(seed=0)
    assert augmentation.name == "augmentation"
    np.testing.assert_array_equal(augmentation(images), images)
    np.testing.assert_array_equal(augmentation(images, training=False), images)
    changed = np.asarray(augmentation(images, training=True))
    assert np.abs(changed - images).mean() > 1
    assert changed.min() >= -1e-3
    assert changed.max() <= 255 + 1e-3
    assert augmentation.weights == []


@EVERY
def test_images_of_a_batch_are_changed_differently(recipe, images):
    same = np.repeat(images[7:8], 12, axis=0)
    changed = np.asarray(recipe(seed=0)(same, training=True)).reshape(12, -1)
    assert len(np.unique(changed.round(2), axis=0)) >= 5


@pytest.mark.slow
@EVERY
def test_the_same_seed_gives_the_same_stream(recipe, images):
    streams = []
    for seed in (5, 5, 6):
        augmentation = recipe(random_erasing=0.5, seed=seed)
        streams.append([np.asarray(augmentation(images, training=True)) for _ in range(3)])
    np.testing.assert_array_equal(streams[0], streams[1])
    assert np.abs(streams[0][0] - streams[0][1]).max() > 1
    assert np.abs(streams[0][0] - streams[2][0]).max() > 1


@pytest.mark.slow
@EVERY
def test_trains_saves_and_loads_without_custom_objects(recipe, images, tmp_path):
    model = model_of(recipe(random_erasing=0.3, fill_value=10, seed=2))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(len(images)) % 2
    history = model.fit(images, labels, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    expected = model.predict(images, verbose=0)
    np.testing.assert_array_equal(model.predict(images, verbose=0), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)
    before, after = ([layer.get_config() for layer in m.layers[0].layers] for m in (model, loaded))
    assert before == after
    assert [type(layer).__name__ for layer in loaded.layers[0].layers][-1] == "RandomErasing"


@EVERY
def test_layers_return_what_their_constructors_take(recipe):
    for layer in recipe(random_erasing=0.5, seed=1).layers:
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()


@EVERY
def test_works_in_float32_under_mixed_precision(recipe, images):
    expected = np.asarray(recipe(seed=4)(images, training=True))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        augmentation = recipe(seed=4)
        changed = augmentation(images, training=True)
    finally:
        keras.config.set_dtype_policy(before)
    assert changed.dtype == "float16"
    np.testing.assert_array_equal(changed, expected.astype("float16"))


@pytest.mark.slow
@EVERY
def test_works_in_tf_data_on_grey_images_in_another_range(recipe, images):
    augmentation = recipe(value_range=(0, 1), random_erasing=0.5, seed=0)
    data = tf.data.Dataset.from_tensor_slices(images[..., :1] / 255).batch(8)
    changed = np.concatenate([*data.map(lambda x: augmentation(x, training=True))])
    assert changed.shape == (len(images), 24, 20, 1)
    assert changed.min() >= -1e-5
    assert changed.max() <= 1 + 1e-5
    assert np.abs(changed - images[..., :1] / 255).mean() > 0.01


@pytest.mark.slow
@EVERY
def test_no_gradient_flows_back_and_any_size_goes_in(recipe, images):
    model = keras.Sequential(
        [keras.Input((None, None, 3)), recipe(random_erasing=1.0, seed=0), keras.layers.ReLU()]
    )
    for width in (20, 12):
        batch = tf.constant(images[:, :, :width])
        with tf.GradientTape() as tape:
            tape.watch(batch)
            changed = model(batch, training=True)
            total = tf.reduce_sum(changed)
        assert changed.shape == batch.shape
        assert not np.any(tape.gradient(total, batch, unconnected_gradients="zero"))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [("randaugment", 128), ("trivialaugment", 0), ("autoaugment", 128)],
)
def test_the_gap_is_filled_as_in_the_paper_or_as_asked_for(recipe, expected, images):
    constant = np.full_like(images, 60.0)
    make = functools.partial(RECIPES[recipe], *(["cifar10"] if recipe == "autoaugment" else []))
    for value in (None, 200):
        changed = np.asarray(make(fill_value=value, seed=0)(constant, training=True))
        gap = expected if value is None else value
        # Half of an image at most is uncovered; darkened and inverted images have other values.
        assert 100 < np.sum(np.abs(changed - gap) < 1e-2) < changed.size / 2


# Misuse


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ko.augmentation.randaugment(0), ValueError, "`num_ops` must be an integer >= 1"),
        (lambda: ko.augmentation.randaugment(2, 31), ValueError, r"`magnitude` .*\[0, 30\]"),
        (lambda: ko.augmentation.randaugment(2, -1), ValueError, r"`magnitude` .*\[0, 30\]"),
        (lambda: ko.augmentation.randaugment(2, "9"), TypeError, "`magnitude` must be a number"),
        (
            lambda: ko.augmentation.randaugment(fill_value=300),
            ValueError,
            r"`fill_value` must be a number in \[0, 255\]",
        ),
        (
            lambda: ko.augmentation.trivialaugment(random_erasing=1.5),
            ValueError,
            r"`random_erasing` must be a number in \[0, 1\]",
        ),
        (
            lambda: ko.augmentation.trivialaugment(value_range=(1, 1)),
            ValueError,
            "`value_range` must be increasing",
        ),
        (
            lambda: ko.augmentation.autoaugment("imagnet"),
            ValueError,
            "`policy` must be one of .* Did you mean 'imagenet'",
        ),
        (lambda: ko.augmentation.augmix(severity=0), ValueError, r"`severity` .*\[1, 10\]"),
        (lambda: ko.augmentation.augmix(width=0), ValueError, "`width` must be an integer >= 1"),
        (lambda: ko.augmentation.augmix(depth=0), ValueError, "`depth` must be an integer >= 1"),
        (lambda: ko.augmentation.augmix(alpha=0), ValueError, "`alpha` must be a number in "),
        (
            lambda: ko.augmentation.augmix(all_operations="yes"),
            TypeError,
            "`all_operations` must be True or False",
        ),
        (lambda: ko.augmentation.augmix(seed=-1), ValueError, "`seed` must be an integer >= 0"),
    ],
)
def test_misuse_is_refused(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "Received: " in str(caught.value)
