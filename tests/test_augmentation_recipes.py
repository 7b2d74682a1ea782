"""The recipes of the papers: every operation against Pillow, every draw against its table."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

import kerasopt as ko
from kerasopt.augmentation._policy_layers import AugMixPolicy, PolicyAugment, _policy_program
from kerasopt.augmentation._policy_operations import (
    OPERATIONS,
    each_image,
    index_of,
    source_matrices,
)
from kerasopt.augmentation._random_erasing import RandomErasing

RECIPES = {
    "randaugment": ko.augmentation.randaugment,
    "trivialaugment": ko.augmentation.trivialaugment,
    "autoaugment": ko.augmentation.autoaugment,
    "augmix": ko.augmentation.augmix,
}
EVERY = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
LEVELS = (0.0, 255.0)


@pytest.fixture(scope="module")
def images():
    """Photo-like and noisy images, not square, and one of a single colour."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (6, 24, 20, 3))
    small = rng.integers(0, 256, (6, 4, 4, 3), dtype="uint8")
    smooth = [np.asarray(Image.fromarray(one).resize((20, 24), Image.BICUBIC)) for one in small]
    dark = np.asarray(smooth) // 3 + 40
    return np.concatenate([noise, smooth, dark, np.full((1, 24, 20, 3), 90)]).astype("float32")


def run(operation, strength, images, *, fill=128.0, value_range=LEVELS):
    """One operation at one strength on all images."""
    shape = (len(images), 1)
    operations = tf.fill(shape, index_of(operation))
    strengths = tf.fill(shape, float(strength))
    matrices = source_matrices(operations, strengths, *images.shape[1:3])
    low, high = value_range
    program = functools.partial(
        _policy_program(images.shape[-1]), fill, tf.constant([255 / (high - low), low])
    )
    return np.asarray(each_image(program, tf.constant(images), operations, strengths, matrices))


def pillow(function, images):
    results = [function(Image.fromarray(image.astype("uint8"))) for image in images]
    return np.asarray([np.asarray(result) for result in results], "float32")


def affine(image, coefficients):
    return image.transform(
        image.size, Image.AFFINE, coefficients, resample=Image.BILINEAR, fillcolor=(128,) * 3
    )


# Operations against Pillow


EXACT = {
    "Identity": (0, lambda image: image),
    "Invert": (0, ImageOps.invert),
    "Equalize": (0, ImageOps.equalize),
    "Posterize": (3, lambda image: ImageOps.posterize(image, 3)),
    "Solarize": (100, lambda image: ImageOps.solarize(image, 100)),
}


@pytest.mark.parametrize("operation", EXACT)
def test_what_maps_levels_is_exactly_pillow(operation, images):
    strength, function = EXACT[operation]
    np.testing.assert_array_equal(run(operation, strength, images), pillow(function, images))


def test_posterize_and_solarize_at_the_ends(images):
    np.testing.assert_array_equal(run("Posterize", 8, images), images)
    np.testing.assert_array_equal(run("Posterize", 0, images), 0 * images)
    np.testing.assert_array_equal(run("Solarize", 256, images), images)
    np.testing.assert_array_equal(run("Solarize", 0, images), 255 - images)


@pytest.mark.parametrize("strength", [-0.9, -0.3, 0.0, 0.4, 0.9])
@pytest.mark.parametrize("operation", ["Brightness", "Color", "Contrast", "Sharpness"])
def test_enhancements_are_those_of_pillow(operation, strength, images):
    enhance = getattr(ImageEnhance, operation)
    expected = pillow(lambda image: enhance(image).enhance(1 + strength), images)
    # Pillow cuts the fraction off, here it stays.
    np.testing.assert_allclose(run(operation, strength, images), expected, atol=1.01)


def test_autocontrast_is_that_of_pillow(images):
    expected = pillow(ImageOps.autocontrast, images)
    changed = run("AutoContrast", 0, images)
    np.testing.assert_allclose(changed, expected, atol=1.01)
    assert changed[-1].max() == 90  # one colour stays


AFFINE = {
    "ShearX": (0.23, lambda s, _: (1, s, 0, 0, 1, 0)),
    "ShearY": (-0.3, lambda s, _: (1, 0, 0, s, 1, 0)),
    "TranslateX": (0.25, lambda s, size: (1, 0, s * size[0], 0, 1, 0)),
    "TranslateY": (-0.25, lambda s, size: (1, 0, 0, 0, 1, s * size[1])),
    "TranslateXPixels": (-7, lambda s, _: (1, 0, s, 0, 1, 0)),
    "TranslateYPixels": (3, lambda s, _: (1, 0, 0, 0, 1, s)),
}


@pytest.mark.parametrize("operation", AFFINE)
def test_shears_and_translations_are_those_of_pillow(operation, images):
    strength, coefficients = AFFINE[operation]
    expected = pillow(lambda image: affine(image, coefficients(strength, image.size)), images)
    np.testing.assert_allclose(run(operation, strength, images), expected, atol=1.01)


@pytest.mark.parametrize("degrees", [-30.0, 11.0, 135.0])
def test_rotation_is_that_of_pillow(degrees, images):
    expected = pillow(
        lambda image: image.rotate(degrees, resample=Image.BILINEAR, fillcolor=(128,) * 3), images
    )
    difference = np.abs(run("Rotate", degrees, images) - expected)
    assert np.mean(difference > 1.01) < 0.01  # a pixel on the very border may fall either way
    assert np.median(difference) < 1


def test_translations_move_by_whole_pixels(images):
    moved = run("TranslateX", 0.33, images)  # 6.6 of 20 pixels
    np.testing.assert_array_equal(moved[:, :, :14], images[:, :, 6:])
    np.testing.assert_array_equal(moved[:, :, 14:], 128)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_another_range_of_values_is_only_another_scale(operation, images):
    strength = {"Posterize": 4, "Solarize": 127.5, "TranslateXPixels": 5}.get(operation, 0.3)
    expected = run(operation, strength, images) / 127.5 - 1
    changed = run(operation, strength, images / 127.5 - 1, value_range=(-1, 1))
    np.testing.assert_allclose(changed, expected, atol=1e-4)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_take_grey_images_and_tiny_ones(operation, images):
    grey = images[..., :1]
    strength = {"Posterize": 4, "Solarize": 128, "TranslateXPixels": 5}.get(operation, 0.3)
    triple = run(operation, strength, np.repeat(grey, 3, -1))[..., :1]
    changed = run(operation, strength, grey)
    np.testing.assert_allclose(changed, grey if operation == "Color" else triple, atol=1e-3)
    for size in (1, 2):
        assert np.isfinite(run(operation, strength, images[:2, :size, :size])).all()


# Draws against the tables


def draw(layer, count=20_000):
    operations, strengths = (np.asarray(drawn) for drawn in layer.draw(count))
    return np.asarray(OPERATIONS)[operations], strengths


def inner(augmentation):
    return augmentation.layers[0]


SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
SIGNED |= {"Brightness", "Color", "Contrast", "Sharpness"}
PLAIN = {"Identity", "AutoContrast", "Equalize"}
FOURTEEN = {*SIGNED, *PLAIN, "Posterize", "Solarize"}


@pytest.mark.parametrize(
    ("magnitude", "shear", "translate", "rotate", "factor", "bits", "threshold"),
    [
        (0, 0, 0, 0, 0, 8, 256),
        (9, 0.09, 0.3 * 150 / 331, 9, 0.27, 7, 179.2),
        (30, 0.3, 150 / 331, 30, 0.9, 4, 0),
    ],
)
def test_randaugment_draws_the_fourteen_operations_at_one_magnitude(
    magnitude, shear, translate, rotate, factor, bits, threshold
):
    layer = inner(ko.augmentation.randaugment(3, magnitude, seed=0))
    names, strengths = draw(layer)
    assert names.shape == (20_000, 3)
    found, counts = np.unique(names, return_counts=True)
    assert set(found) == FOURTEEN
    np.testing.assert_allclose(counts / names.size, 1 / 14, rtol=0.06)
    # Operations of one image are drawn independently.
    assert np.mean(names[:, 0] == names[:, 1]) == pytest.approx(1 / 14, abs=0.01)
    expected = dict.fromkeys(PLAIN, 0) | {"Posterize": bits, "Solarize": threshold}
    expected |= {"ShearX": shear, "ShearY": shear, "Rotate": rotate}
    expected |= {"TranslateX": translate, "TranslateY": translate}
    expected |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), factor)
    for name, strength in expected.items():
        of_name = strengths[names == name]
        np.testing.assert_allclose(np.abs(of_name), strength, rtol=1e-5)
        if name in SIGNED and magnitude:
            assert np.mean(of_name > 0) == pytest.approx(0.5, abs=0.03)
        else:
            assert (of_name >= 0).all()


def test_trivialaugment_draws_one_operation_of_the_wide_space():
    names, strengths = draw(inner(ko.augmentation.trivialaugment(seed=0)), 60_000)
    assert names.shape == (60_000, 1)
    found, counts = np.unique(names, return_counts=True)
    np.testing.assert_allclose(counts / names.size, 1 / 14, rtol=0.06)
    assert {name.removesuffix("Pixels") for name in found} == FOURTEEN
    largest = {"ShearX": 0.99, "ShearY": 0.99, "Rotate": 135}
    largest |= {"TranslateXPixels": 32, "TranslateYPixels": 32}
    largest |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.99)
    for name, most in largest.items():
        of_name = strengths[names == name]
        values = np.unique(of_name.round(4))
        np.testing.assert_allclose(values, np.linspace(-most, most, 61), atol=1e-4)
        assert np.mean(of_name[of_name != 0] > 0) == pytest.approx(0.5, abs=0.03)
        # Even over the 31 magnitudes: the mean of |strength| is half of the largest.
        assert np.abs(of_name).mean() == pytest.approx(most / 2, rel=0.03)
    assert set(strengths[names == "Posterize"]) == {2, 3, 4, 5, 6, 7, 8}
    thresholds = np.unique(strengths[names == "Solarize"])
    np.testing.assert_allclose(thresholds, np.linspace(0, 256, 31), atol=1e-3)


# A few rows of tables 9 and 7 of arXiv:1805.09501, strengths worked out by hand.
ROWS = {
    "imagenet": {
        0: [("Posterize", 0.4, 4), ("Rotate", 0.6, 30)],
        1: [("Solarize", 0.6, 256 * 4 / 9), ("AutoContrast", 0.6, 0)],
        12: [("Equalize", 0.0, 0), ("Equalize", 0.8, 0)],
        15: [("Rotate", 0.8, 30 * 8 / 9), ("Color", 1.0, 0.2)],
        18: [("ShearX", 0.6, 0.3 * 5 / 9), ("Equalize", 1.0, 0)],
        24: [("Equalize", 0.8, 0), ("Equalize", 0.6, 0)],
    },
    "cifar10": {
        0: [("Invert", 0.1, 0), ("Contrast", 0.2, 0.6)],
        1: [("Rotate", 0.7, 30 * 2 / 9), ("TranslateX", 0.3, 150 / 331)],
        5: [("ShearY", 0.2, 0.3 * 7 / 9), ("Posterize", 0.3, 5)],
        14: [("Solarize", 0.5, 256 * 7 / 9), ("Invert", 0.0, 0)],
        21: [("TranslateY", 0.9, 150 / 331), ("TranslateY", 0.7, 150 / 331)],
        24: [("TranslateY", 0.7, 150 / 331), ("AutoContrast", 0.9, 0)],
    },
}
COUNTS = {  # how often each operation stands in the two tables
    "imagenet": {
        "AutoContrast": 2,
        "Color": 6,
        "Contrast": 2,
        "Equalize": 17,
        "Invert": 3,
        "Posterize": 5,
        "Rotate": 6,
        "Sharpness": 1,
        "ShearX": 1,
        "Solarize": 7,
    },
    "cifar10": {
        "AutoContrast": 7,
        "Brightness": 4,
        "Color": 5,
        "Contrast": 2,
        "Equalize": 9,
        "Invert": 3,
        "Posterize": 1,
        "Rotate": 1,
        "Sharpness": 5,
        "ShearY": 2,
        "Solarize": 4,
        "TranslateX": 2,
        "TranslateY": 5,
    },
}


@pytest.mark.parametrize("policy", ROWS)
def test_autoaugment_has_the_policies_of_the_paper(policy):
    table = inner(ko.augmentation.autoaugment(policy))._table
    assert table.operations.shape == (25, 2)
    for row, pair in ROWS[policy].items():
        for place, (name, probability, strength) in enumerate(pair):
            assert OPERATIONS[table.operations[row, place]] == name
            assert table.probabilities[row, place] == pytest.approx(probability)
            assert table.strengths[row, place] == pytest.approx(strength, rel=1e-6)
    names = [OPERATIONS[index] for index in table.operations.ravel()]
    assert {name: names.count(name) for name in sorted(set(names))} == COUNTS[policy]


def test_autoaugment_draws_pairs_by_their_probabilities():
    layer = inner(ko.augmentation.autoaugment("cifar10", seed=0))
    names, strengths = draw(layer, 50_000)
    table = layer._table
    for name in {OPERATIONS[index] for index in table.operations.ravel()}:
        here = table.operations == index_of(name)
        expected = (table.probabilities * here).sum(0) / 25
        np.testing.assert_allclose(np.mean(names == name, axis=0), expected, atol=0.006)
    # ShearY stands first alone, with TranslateY (0.7) or Posterize (0.3) behind it.
    behind = set(names[names[:, 0] == "ShearY", 1])
    assert behind == {"TranslateY", "Posterize", "Identity"}
    assert np.mean(strengths[names == "TranslateY"] > 0) == pytest.approx(0.5, abs=0.03)


AUGMIX = {"AutoContrast", "Equalize", "Posterize", "Rotate", "Solarize"}
AUGMIX |= {"ShearX", "ShearY", "TranslateX", "TranslateY"}


def test_augmix_draws_weak_operations_in_chains():
    layer = inner(ko.augmentation.augmix(severity=3, seed=0))
    names, strengths = draw(layer, 8_000)
    assert names.shape == (8_000, 3, 3)
    lengths = (names != "Identity").sum(-1)
    np.testing.assert_allclose(np.bincount(lengths.ravel())[1:] / lengths.size, 1 / 3, atol=0.01)
    assert (names[:, :, 0] != "Identity").all()
    found, counts = np.unique(names[:, :, 0], return_counts=True)
    assert set(found) == AUGMIX
    np.testing.assert_allclose(counts / counts.sum(), 1 / 9, atol=0.006)
    bounds = {"Rotate": (0, 8), "ShearX": (0.003, 0.09), "TranslateY": (1 / 300, 0.1)}
    for name, (least, most) in bounds.items():
        size = np.abs(strengths[names == name])
        assert least <= size.min() + 1e-6
        np.testing.assert_allclose([size.min(), size.max()], [least, most], atol=most / 50)
        assert np.mean(strengths[names == name] > 0) == pytest.approx(0.5, abs=0.1)
    assert set(strengths[names == "Rotate"]) <= set(range(-8, 9))
    assert set(strengths[names == "Posterize"]) == {3, 4}
    assert set(strengths[names == "Solarize"]) == set(range(256 - 76, 256 - 1))


def test_augmix_mixes_with_weights_that_sum_to_one():
    layer = AugMixPolicy(alpha=1.0, seed=0)
    weights = np.asarray(layer.draw_weights(20_000))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    # Beta(1, 1) is uniform; Dirichlet(1, 1, 1) gives each chain a third of the rest.
    assert np.histogram(weights[:, 0], 4, (0, 1))[0] == pytest.approx([5_000] * 4, rel=0.06)
    np.testing.assert_allclose(weights[:, 1:].mean(0), 1 / 6, atol=0.005)
    small = np.asarray(AugMixPolicy(alpha=0.05, seed=0).draw_weights(2_000))
    assert np.isfinite(small).all()
    assert np.mean(small.max(-1) > 0.9) > 0.7


def test_augmix_of_an_image_is_the_weighted_sum(images, monkeypatch):
    layer = AugMixPolicy(width=2, depth=2)
    operations = [[["Invert", "Posterize"], ["Equalize", "Identity"]]] * len(images)
    drawn = np.vectorize(index_of)(operations).astype("int32")
    strengths = np.full(drawn.shape, 4.0, "float32")
    weights = np.tile(np.float32([0.5, 0.2, 0.3]), (len(images), 1))
    monkeypatch.setattr(layer, "draw", lambda _: (tf.constant(drawn), tf.constant(strengths)))
    monkeypatch.setattr(layer, "draw_weights", lambda _: tf.constant(weights))
    chain = run("Posterize", 4, run("Invert", 0, images))
    expected = 0.5 * images + 0.2 * chain + 0.3 * run("Equalize", 0, images)
    np.testing.assert_allclose(layer(images), expected, atol=1e-3)


def test_augmix_can_draw_every_operation_of_the_code():
    names, strengths = draw(inner(ko.augmentation.augmix(severity=10, all_operations=True, seed=0)))
    assert set(names.ravel()) == AUGMIX | {
        *("Identity", "Color", "Contrast", "Brightness", "Sharpness")
    }
    factors = 1 + strengths[names == "Color"]
    np.testing.assert_allclose([factors.min(), factors.max()], [0.118, 1.9], atol=0.01)


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


def test_zero_magnitude_changes_nothing_but_what_has_none(images):
    layer = inner(ko.augmentation.randaugment(1, 0, seed=0))
    names, _ = draw(layer, 400)
    for name in set(names.ravel()) - {"AutoContrast", "Equalize"}:
        strength = {"Posterize": 8, "Solarize": 256}.get(name, 0)
        np.testing.assert_allclose(run(name, strength, images), images, atol=1e-3)


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
