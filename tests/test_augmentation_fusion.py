"""Fused segments: the warp against TensorFlow's, every layer against itself, in their order."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.augmentation._warp import FILL_MODES, warp
from tests.fusion import CV, FIXED, HEIGHT, WIDTH, K, kinds_of, one_segment, photos, run_library

# The warp


@pytest.mark.parametrize("projective", [False, True])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_the_warp_is_that_of_tensorflow(rng, fill_mode, interpolation, projective):
    for shape in ((4, 13, 17, 3), (2, 1, 9, 1)):
        images = rng.uniform(0, 255, shape).astype("float32")
        matrices = np.eye(3) + rng.normal(0, 0.6, (shape[0], 3, 3))
        matrices[:, :2, 2] *= 30
        matrices[:, 2] = (0.01, 0.004, 1) if projective else (0, 0, 1)
        matrices = matrices.astype("float32")
        expected = tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=matrices.reshape(-1, 9)[:, :8],
            output_shape=shape[1:3],
            fill_value=7.0,
            interpolation=interpolation.upper(),
            fill_mode=fill_mode.upper(),
        )
        options = {"fill_mode": fill_mode, "fill_value": 7.0, "interpolation": interpolation}
        np.testing.assert_allclose(warp(images, matrices, **options), expected, atol=1e-2)


def test_the_warp_runs_in_a_graph_and_in_tf_data(rng):
    images = rng.uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    matrices = np.tile(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], "float32"), (2, 1, 1))
    transposed = images.transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(warp(images, matrices), transposed)
    np.testing.assert_array_equal(tf.function(warp)(images, matrices), transposed)
    data = tf.data.Dataset.from_tensors((images, matrices)).map(warp)
    np.testing.assert_array_equal(next(iter(data)), transposed)


def test_the_warp_refuses_unknown_modes():
    with pytest.raises(ValueError, match=r"`fill_mode` must be one of 'reflect'.*'mirror'"):
        warp(np.zeros((1, 2, 2, 1)), np.eye(3)[None], fill_mode="mirror")
    with pytest.raises(ValueError, match="`interpolation` must be one of"):
        warp(np.zeros((1, 2, 2, 1)), np.eye(3)[None], interpolation="cubic")


# Each layer against itself, with fixed parameters

FIXED_LAYERS = {
    "cv_flip": lambda: CV.RandomFlip("horizontal_and_vertical", rate=1.0),
    "cv_rotation": lambda: CV.RandomRotation(FIXED),
    "cv_rotation_constant": lambda: CV.RandomRotation(FIXED, fill_mode="constant", fill_value=9.0),
    "cv_translation": lambda: CV.RandomTranslation(FIXED, (-0.23, -0.23)),
    "cv_zoom": lambda: CV.RandomZoom(FIXED, (-0.2, -0.2)),
    "cv_crop": lambda: CV.RandomCropAndResize((HEIGHT, WIDTH), (1.0, 1.0), (1.0, 1.0)),
    "rotation": lambda: K.RandomRotation(FIXED),
    "rotation_nearest": lambda: K.RandomRotation(FIXED, fill_mode="wrap", interpolation="nearest"),
    "translation": lambda: K.RandomTranslation(FIXED, (-0.23, -0.23)),
    "zoom": lambda: K.RandomZoom(FIXED, (-0.2, -0.2), fill_mode="nearest"),
    "brightness": lambda: K.RandomBrightness((0.3, 0.3)),
    "cv_brightness": lambda: CV.RandomBrightness((-0.3, -0.3)),
    "cv_contrast": lambda: CV.RandomContrast((0, 255), (-0.4, 0.4)),
    "cv_degeneration": lambda: CV.RandomColorDegeneration((0.4, 0.4)),
    "cv_grayscale": lambda: CV.Grayscale(3),
    "cv_saturation": lambda: CV.RandomSaturation((0.8, 0.8)),
    "cv_jitter": lambda: CV.RandomColorJitter(
        (0, 255), (0.1, 0.1), (-0.3, 0.3), (0.6, 0.6), (0.0, 0.0)
    ),
    "contrast": lambda: K.RandomContrast((0.0, 0.0)),
    "degeneration": lambda: K.RandomColorDegeneration((0.4, 0.4)),
    "grayscale": lambda: K.RandomGrayscale(1.0),
    "invert": lambda: K.RandomInvert((1.0, 1.0)),
    "saturation": lambda: K.RandomSaturation((0.3, 0.3)),
    "saturation_up": lambda: K.RandomSaturation((0.7, 0.7)),
    "jitter": lambda: K.RandomColorJitter(
        brightness_factor=(0.2, 0.2), saturation_factor=(0.4, 0.4), hue_factor=(0.0, 0.0)
    ),
}


@pytest.mark.parametrize("name", FIXED_LAYERS)
def test_a_layer_with_fixed_parameters_is_itself(name):
    layer = FIXED_LAYERS[name]()
    segment = one_segment([layer])
    images = photos()
    assert segment.kind != "layer"
    assert segment.layers == (layer.name,)
    result = segment(tf.constant(images))
    np.testing.assert_allclose(result, run_library([layer], images), atol=1e-2)
    # contrast by 1 and the crop of everything change nothing, in either way
    assert name in ("contrast", "cv_crop") or np.abs(result - images).mean() > 1


SIGNED_LAYERS = {
    "cv_channel_shift": lambda: CV.RandomChannelShift((0, 255), (0.3, 0.3)),
    "cv_hue": lambda: CV.RandomHue((0.3, 0.3), (0, 255)),
    "cv_shear": lambda: CV.RandomShear((0.2, 0.2)),
    "flip": lambda: K.RandomFlip("horizontal_and_vertical"),
    "hue": lambda: K.RandomHue((0.6, 0.6)),
    "shear": lambda: K.RandomShear((0.2, 0.2), (0.1, 0.1)),
}


@pytest.mark.parametrize("name", SIGNED_LAYERS)
def test_a_layer_that_draws_a_sign_or_a_coin_makes_the_same_few_images(name):
    layer = SIGNED_LAYERS[name]()
    image = photos(1)
    batch = np.repeat(image, 64, axis=0)
    fused = one_segment([layer])(tf.constant(batch)).numpy()
    library = run_library([layer], batch)
    kinds = 8 if name == "cv_channel_shift" else 2
    for results, others in ((fused, library), (library, fused)):
        distance = np.abs(results[:, None] - others[None]).max(axis=(2, 3, 4))
        assert distance.min(axis=1).max() < 0.05
    assert len(np.unique(fused.round(1), axis=0)) == kinds


def test_perspective_is_that_of_keras_for_the_same_corners():
    layer = K.RandomPerspective(1.0, 0.4, seed=3)
    segment = one_segment([layer])
    images = photos(1)
    matrices = segment.matrices(1, HEIGHT, WIDTH).numpy()
    start = np.array([[0, 0], [WIDTH - 1, 0], [0, HEIGHT - 1], [WIDTH - 1, HEIGHT - 1]], "float32")
    onto = np.linalg.solve(matrices[0], np.c_[start, np.ones(4)].T)
    end = (onto[:2] / onto[2]).T.astype("float32")
    # each corner moves along each axis by at most half of its coordinate times the scale
    np.testing.assert_array_less(np.abs(end - start), 0.2 * start + 1e-3)
    expected = keras.ops.image.perspective_transform(images, start[None], end[None])
    np.testing.assert_allclose(segment.apply(images, matrices), expected, atol=0.05)


@pytest.mark.parametrize("size", [(24, 40), (23, 41)])  # the mean in blocks, and in rows
def test_clipping_between_colour_layers_and_the_mean_of_the_clipped_image_are_kept(size):
    layers = [
        K.RandomBrightness((0.4, 0.4)),
        CV.RandomContrast((0, 255), (-0.5, 0.5)),
        K.RandomBrightness((-0.3, -0.3)),
        CV.RandomSaturation((0.7, 0.7)),
        CV.RandomContrast((0, 255), (0.4, -0.4)),
    ]
    images = photos(3, *size)
    segment = one_segment(layers, shape=(*size, 3))
    np.testing.assert_allclose(segment(tf.constant(images)), run_library(layers, images), atol=0.02)


@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1)])
def test_another_range_of_values(value_range):
    low, high = value_range
    layers = [
        K.RandomBrightness(FIXED, value_range=value_range),
        CV.RandomContrast(value_range, (-0.3, 0.3)),
        K.RandomColorDegeneration((0.2, 0.2), value_range=value_range),
        K.RandomInvert((1.0, 1.0), value_range=value_range),
    ]
    images = photos() / 255 * (high - low) + low
    result = one_segment(layers)(tf.constant(images))
    np.testing.assert_allclose(result, run_library(layers, images), atol=1e-4)


# Several in a row


def test_one_warp_is_closer_to_the_truth_than_the_chain():
    """The truth: the same chain on an image of eight times the size, reduced afterwards."""
    layers = [
        CV.RandomRotation((0.03, 0.03)),
        CV.RandomZoom((-0.15, -0.15)),
        CV.RandomTranslation((0.04, 0.04), (0.03, 0.03)),
        CV.RandomRotation((-0.06, -0.06)),
    ]
    size, factor = 48, 8
    large = np.repeat(np.repeat(photos(2, size, size), factor, 1), factor, 2)
    noise = np.random.default_rng(0).uniform(0, 255, (2, size // 4, size // 4, 3))
    noise = tf.image.resize(noise, (size * factor, size * factor), "bicubic").numpy()
    large = (large / 2 + noise / 2).astype("float32")

    def reduce(images):
        return images.reshape(2, size, factor, size, factor, 3).mean(axis=(2, 4))

    truth = reduce(run_library(layers, large))
    images = reduce(large)
    segment = one_segment(layers, shape=(size, size, 3))
    inside = (slice(None), slice(12, -12), slice(12, -12))
    fused = np.abs(segment(tf.constant(images)) - truth)[inside].mean()
    chain = np.abs(run_library(layers, images) - truth)[inside].mean()
    assert fused < 0.7 * chain


def test_layers_are_composed_in_their_order():
    turn, move = CV.RandomRotation((0.25, 0.25)), CV.RandomTranslation((0.25, 0.25), (0.0, 0.0))
    images = photos(2, 32, 32)
    results = []
    for layers in ([turn, move], [move, turn]):
        fused = one_segment(layers, shape=(32, 32, 3))(tf.constant(images)).numpy()
        np.testing.assert_allclose(fused, run_library(layers, images), atol=0.1)
        results.append(fused)
    assert np.abs(results[0] - results[1]).mean() > 5


def test_what_fuses_and_what_breaks():
    flip, turn, zoom = CV.RandomFlip(), K.RandomRotation(0.1), CV.RandomZoom(0.1)
    black = K.RandomTranslation(0.1, 0.1, fill_mode="constant")
    bright, hue = K.RandomBrightness(0.1), CV.RandomHue(0.1, (0, 255))
    blur = CV.RandomGaussianBlur(3, (0.1, 0.2))
    assert kinds_of([flip, turn, zoom]) == [("geometry", 3)]
    assert kinds_of([turn, zoom, bright, hue]) == [("geometry", 2), ("colour", 2)]
    assert kinds_of([turn, black, flip]) == [("geometry", 1), ("geometry", 2)]
    assert kinds_of([turn, blur, flip, hue]) == [
        ("geometry", 1),
        ("layer", 1),
        ("geometry", 1),
        ("colour", 1),
    ]
    assert kinds_of([K.RandomRotation(0.1, interpolation="nearest"), turn]) == [("geometry", 1)] * 2
    assert kinds_of([hue], (HEIGHT, WIDTH, 1)) == [("layer", 1)]
    crop = CV.RandomCropAndResize((HEIGHT, WIDTH), (0.5, 1.0), (0.8, 1.2))
    assert kinds_of([crop, black]) == [("geometry", 2)]
    assert kinds_of([crop], (HEIGHT, 99, 3)) == [("layer", 1)]
    assert kinds_of([crop], (None, None, 3)) == [("layer", 1)]


def test_a_subclass_runs_as_it_is():
    class Half(K.RandomRotation):
        def transform_images(self, images, transformation, training=True):
            return images / 2

    assert kinds_of([Half(0.1)]) == [("layer", 1)]


def test_every_recipe_of_basic_fuses_to_two_segments():
    for channels in (1, 3):
        layers = ko.augmentation.basic(hue=0.1).layers
        assert [kind for kind, _ in kinds_of(layers, (8, 8, channels))] == ["geometry", "colour"]
