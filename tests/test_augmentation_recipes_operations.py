"""Every operation of the recipes against Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kerasopt.augmentation._policy_operations import OPERATIONS
from tests.recipes import run, sample_images


@pytest.fixture(scope="module")
def images():
    return sample_images()


def pillow(function, images):
    results = [function(Image.fromarray(image.astype("uint8"))) for image in images]
    return np.asarray([np.asarray(result) for result in results], "float32")


def affine(image, coefficients):
    return image.transform(
        image.size, Image.AFFINE, coefficients, resample=Image.BILINEAR, fillcolor=(128,) * 3
    )


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
