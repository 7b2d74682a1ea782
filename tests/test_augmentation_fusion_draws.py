"""The randomness of fused segments, and of the container that runs them."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.augmentation._draws import factor_draw
from kerasopt.augmentation._fusion import Fusion
from tests.fusion import (
    CV,
    FIXED,
    HEIGHT,
    SHAPE,
    WIDTH,
    K,
    kinds_of,
    one_segment,
    photos,
    run_library,
)

tf.keras.__version__  # noqa: B018 - settled before KerasCV reads it
import keras_cv  # noqa: E402

# Distributions

COUNT = 4096


def check_uniform(values, low, high):
    """Mean and variance of a uniform distribution within five standard errors, and its bounds."""
    width = high - low
    assert values.min() >= low - 1e-4
    assert values.max() <= high + 1e-4
    assert values.min() < low + 0.02 * width
    assert values.max() > high - 0.02 * width
    assert values.mean() == pytest.approx((low + high) / 2, abs=5 * width / np.sqrt(12 * COUNT))
    assert values.var() == pytest.approx(width**2 / 12, rel=0.08)


def test_the_drawn_matrices_have_the_distributions_of_the_layers():
    def draw(layer):
        return one_segment([layer]).matrices(COUNT, HEIGHT, WIDTH).numpy()

    turned = draw(CV.RandomRotation((-0.1, 0.2)))
    check_uniform(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]) / (2 * np.pi), -0.1, 0.2)
    zoomed = draw(K.RandomZoom((-0.3, 0.1)))
    check_uniform(zoomed[:, 0, 0], 0.7, 1.1)
    np.testing.assert_array_equal(zoomed[:, 0, 0], zoomed[:, 1, 1])
    moved = draw(CV.RandomTranslation(0.1, (0.0, 0.2)))
    check_uniform(moved[:, 1, 2] / HEIGHT, -0.1, 0.1)
    check_uniform(moved[:, 0, 2] / WIDTH, -0.2, 0.0)
    assert abs(np.corrcoef(moved[:, 0, 2], moved[:, 1, 2])[0, 1]) < 0.1
    sheared = draw(CV.RandomShear((0.1, 0.3), None))
    check_uniform(np.abs(sheared[:, 0, 1]), 0.1, 0.3)
    assert (sheared[:, 0, 1] > 0).mean() == pytest.approx(0.5, abs=0.04)
    flipped = draw(CV.RandomFlip("horizontal_and_vertical", rate=0.3))
    assert (flipped[:, 0, 0] < 0).mean() == pytest.approx(0.3, abs=0.04)
    assert (flipped[:, 1, 1] < 0).mean() == pytest.approx(0.3, abs=0.04)
    both = draw(K.RandomFlip("horizontal_and_vertical"))
    np.testing.assert_array_equal(both[:, 0, 0], both[:, 1, 1])
    cropped = draw(CV.RandomCropAndResize((HEIGHT, WIDTH), (0.25, 0.64), (1.0, 1.0)))
    check_uniform(cropped[:, 0, 0] ** 2, 0.25, 0.64)
    assert (cropped[:, 0, 2] + cropped[:, 0, 0] * (WIDTH - 1) <= WIDTH - 1 + 1e-3).all()
    slanted = draw(K.RandomPerspective(0.25, 0.5))
    assert (np.abs(slanted - np.eye(3)).max(axis=(1, 2)) > 0).mean() == pytest.approx(
        0.125, abs=0.03
    )  # the probability itself is drawn from [0, 0.25)


def test_the_drawn_colours_have_the_distributions_of_the_layers():
    def draw(layer):
        return one_segment([layer]).parameters(COUNT).numpy()

    check_uniform(draw(K.RandomBrightness(0.2))[:, 0], -51, 51)
    check_uniform(draw(CV.RandomContrast((0, 255), 0.3))[:, 0], 0.7, 1.3)
    check_uniform(draw(K.RandomContrast((0.2, 0.4)))[:, 0], 0.8, 1.4)
    factor = draw(CV.RandomSaturation((0.2, 0.6)))[:, 0]
    check_uniform(factor / (1 + factor), 0.2, 0.6)
    check_uniform(draw(CV.RandomColorDegeneration(0.5))[:, 0], 0.0, 0.5)
    check_uniform(draw(K.RandomHue(0.4))[:, 0], -0.2, 0.2)
    assert draw(K.RandomGrayscale(0.3)).mean() == pytest.approx(0.3, abs=0.04)
    shifts = draw(CV.RandomChannelShift((0, 255), 0.2))
    check_uniform(shifts[:, 0], -25.5, 25.5)
    assert abs(np.corrcoef(shifts[:, 0], shifts[:, 1])[0, 1]) < 0.1


def test_factor_samplers():
    uniform = tf.random.Generator.from_seed(1).uniform((COUNT,))
    normal = keras_cv.core.NormalFactorSampler(0.5, 0.1, 0.35, 1.0)
    values = factor_draw(normal)(uniform).numpy()
    assert values.min() == pytest.approx(0.35)
    assert values.mean() == pytest.approx(0.503, abs=0.01)
    assert (values == values.min()).mean() == pytest.approx(0.067, abs=0.02)
    constant = factor_draw(keras_cv.core.ConstantFactorSampler(0.2))(uniform)
    np.testing.assert_array_equal(constant, np.full(COUNT, 0.2, "float32"))

    class Odd(keras_cv.core.FactorSampler):
        def __call__(self, shape=(), dtype="float32"):
            return tf.ones(shape, dtype)

    assert factor_draw(Odd()) is None
    assert kinds_of([CV.RandomBrightness(Odd())]) == [("layer", 1)]


# The container


def some_layers():
    return [
        CV.RandomFlip(),
        K.RandomRotation(0.2),
        K.RandomBrightness(0.3),
        CV.RandomContrast((0, 255), 0.4),
    ]


def test_one_seed_one_stream_also_after_saving(tmp_path):
    images = photos(4)
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, ko.augmentation.Augmentation(some_layers(), seed=5)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    other = ko.augmentation.Augmentation(some_layers(), seed=6)
    for _ in range(2):
        first = model(images, training=True)
        np.testing.assert_array_equal(first, loaded(images, training=True))
        assert np.abs(first - other(images, training=True)).mean() > 1


def test_images_of_a_batch_and_batches_differ():
    augmentation = ko.augmentation.Augmentation(some_layers(), seed=5)
    batch = np.repeat(photos(1), 4, axis=0)
    first = augmentation(batch, training=True).numpy()
    second = augmentation(batch, training=True).numpy()
    for one, other in ((first[0], first[1]), (first[2], first[3]), (first[0], second[0])):
        assert np.abs(one - other).mean() > 1


def test_a_stream_goes_on_in_tf_data():
    augmentation = ko.augmentation.Augmentation(some_layers(), seed=5)
    data = tf.data.Dataset.from_tensors(photos(2)).repeat(2)
    data = data.map(lambda batch: augmentation(batch, training=True))
    first, second = data
    third, _ = data  # the next epoch
    for one, other in ((first, second), (first, third), (second, third)):
        assert np.abs(one - other).mean() > 1


def test_explicit_seeds_govern_without_a_seed_of_the_container():
    def stream(seed):
        layers = [K.RandomRotation(0.2, seed=seed), K.RandomZoom(0.2, seed=9)]
        return ko.augmentation.Augmentation(layers)(photos(2), training=True).numpy()

    np.testing.assert_array_equal(stream(1), stream(1))
    assert np.abs(stream(1) - stream(2)).mean() > 1


def test_unfused_is_the_chain_and_fused_is_it_for_fixed_parameters():
    images = photos()
    layers = [CV.RandomRotation((0.02, 0.02)), K.RandomBrightness(FIXED)]
    fused = ko.augmentation.Augmentation(layers)(images, training=True)
    chain = ko.augmentation.Augmentation(layers, fuse=False)(images, training=True)
    np.testing.assert_array_equal(chain, run_library(layers, images))
    np.testing.assert_allclose(fused, chain, atol=0.05)


def test_no_new_trace_and_flat_memory_on_later_calls():
    fusion = Fusion(some_layers(), [1, 2, 3, 4])
    segments = fusion.segments(SHAPE)
    assert fusion.segments(SHAPE) == segments
    traces = []

    @tf.function
    def run(images):
        traces.append(1)
        for segment in segments:
            images = segment(images)
        return images

    images = tf.constant(photos())
    for _ in range(5):
        run(images)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        run(images)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(traces) == 1
    assert grown < 100_000


@pytest.mark.parametrize("first", ["warp", "colour", "layer"])
def test_bytes_and_floats_give_the_same_images(first):
    front = {"warp": [], "colour": [K.RandomBrightness(0.1)], "layer": [CV.Solarization((0, 255))]}
    bytes_ = tf.cast(photos(), tf.uint8)
    results = [
        ko.augmentation.Augmentation([*front[first], K.RandomRotation(0.1)], seed=3)(
            images, training=True
        )
        for images in (bytes_, tf.cast(bytes_, tf.float32))
    ]
    assert results[0].dtype == tf.float32
    np.testing.assert_array_equal(*results)
