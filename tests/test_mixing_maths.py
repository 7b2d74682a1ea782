"""The mathematics of MixUp and CutMix, against NumPy and SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kerasopt.augmentation import _mixing_math as maths

SEED = tf.constant([3, 5])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_shares_are_beta(alpha, jit_compile):
    draw = tf.function(lambda seed: maths.draw_beta(seed, 100_000, alpha), jit_compile=jit_compile)
    shares = draw(SEED).numpy()
    assert shares.mean() == pytest.approx(0.5, abs=0.005)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
    points = np.linspace(0.001, 0.999, 50)
    empirical = np.searchsorted(np.sort(shares), points) / len(shares)
    np.testing.assert_allclose(empirical, stats.beta(alpha, alpha).cdf(points), atol=0.006)


@given(alpha=st.floats(1e-3, 1e3), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_shares_are_fractions_for_every_alpha(alpha, seed):
    shares = maths.draw_beta(tf.constant([seed, 1]), 256, alpha).numpy()
    assert ((shares >= 0) & (shares <= 1)).all()


def test_partners_are_a_permutation():
    found = [tuple(maths.draw_partners(tf.constant([i, 0]), 3).numpy()) for i in range(600)]
    assert {tuple(sorted(one)) for one in found} == {(0, 1, 2)}
    counts = [found.count(one) for one in set(found)]
    assert len(counts) == 6
    assert min(counts) > 60


@given(
    dtype=st.sampled_from(["uint8", "int32", "float16", "float32", "float64"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_a_mixed_pixel_lies_between_its_parents(dtype, seed):
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 255, (5, 3, 4, 2)).astype(dtype)
    partners = rng.permutation(5).astype("int32")
    lam = rng.beta(0.5, 0.5, 5).astype("float32")
    mixed = maths.blend(tf.constant(images), partners, lam)
    assert mixed.dtype == dtype
    low, high = (f(images, images[partners]) for f in (np.minimum, np.maximum))
    assert ((mixed.numpy() >= low) & (mixed.numpy() <= high)).all()
    wide = images.astype("float64")
    expected = lam[:, None, None, None] * wide + (1 - lam[:, None, None, None]) * wide[partners]
    atol = {"float16": 0.1, "float32": 1e-4, "float64": 1e-4}.get(dtype, 0.501)
    np.testing.assert_allclose(mixed.numpy().astype("float64"), expected, atol=atol)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    lam=st.floats(0, 1, width=32),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=100, deadline=None)
def test_boxes_lie_in_the_image(height, width, lam, seed):
    shares = tf.fill([4], lam)
    boxes = maths.draw_boxes(tf.constant([seed, 0]), shares, height, width).numpy()
    top, bottom, left, right = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (bottom <= height).all()
    assert (right <= width).all()
    area = (bottom - top) * (right - left)
    assert (area >= 0).all()
    assert (area <= (1 - lam) * height * width + 1e-3).all()  # the edge cuts, nothing adds


def test_a_box_has_the_area_and_the_shape_that_it_should():
    lam = tf.fill([4000], 0.75)
    top, bottom, left, right = maths.draw_boxes(SEED, lam, 100, 200).numpy().T
    whole = (top > 0) & (left > 0) & (bottom < 100) & (right < 200)
    assert set((bottom - top)[whole]) == {50}
    assert set((right - left)[whole]) == {100}
    middles = (top + bottom)[whole] / 2
    assert middles.mean() == pytest.approx(50, abs=1.5)


def test_paste_is_numpy(rng):
    images = rng.uniform(0, 255, (6, 8, 10, 3)).astype("float32")
    partners = rng.permutation(6).astype("int32")
    boxes = maths.draw_boxes(SEED, tf.constant(rng.uniform(0, 1, 6), tf.float32), 8, 10).numpy()
    expected, kept = images.copy(), np.ones(6)
    for i, (top, bottom, left, right) in enumerate(boxes):
        expected[i, top:bottom, left:right] = images[partners[i], top:bottom, left:right]
        kept[i] = 1 - (bottom - top) * (right - left) / 80
    mixed, lam = maths.paste(tf.constant(images), partners, boxes)
    np.testing.assert_array_equal(mixed, expected)
    np.testing.assert_allclose(lam, kept, atol=1e-6)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([1.0, 1.0], [0.5, 0.5, 0.0]),
        ([0.5, 0.5], [0.5, 0.5, 0.0]),
        ([1.0, 0.25], [0.8, 0.2, 0.0]),
        ([0.3, 0.2], [0.3, 0.2, 0.5]),
        ([0.0, 1.0], [0.0, 1.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0, 1.0]),
        ([0.25], [0.25, 0.75]),
    ],
)
def test_one_is_drawn_by_its_probability(rates, expected):
    draw = tf.function(lambda i: maths.draw_index(tf.stack([i, 7]), tf.constant(rates)))
    found = np.bincount([int(draw(tf.constant(i))) for i in range(2000)], minlength=len(expected))
    np.testing.assert_allclose(found / 2000, expected, atol=0.04)
    assert (found[np.array(expected) == 0] == 0).all()
