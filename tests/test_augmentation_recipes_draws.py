"""Every draw of the recipes against the tables of their papers."""

import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.augmentation._policy_layers import AugMixPolicy
from kerasopt.augmentation._policy_operations import OPERATIONS, index_of
from tests.recipes import run, sample_images


@pytest.fixture(scope="module")
def images():
    return sample_images()


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


def test_zero_magnitude_changes_nothing_but_what_has_none(images):
    layer = inner(ko.augmentation.randaugment(1, 0, seed=0))
    names, _ = draw(layer, 400)
    for name in set(names.ravel()) - {"AutoContrast", "Equalize"}:
        strength = {"Posterize": 8, "Solarize": 256}.get(name, 0)
        np.testing.assert_allclose(run(name, strength, images), images, atol=1e-3)
