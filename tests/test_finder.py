"""The learning-rate range test: what it measures, what it suggests, when it ends."""

import io
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kerasopt.transfer import LearningRateFinder
from kerasopt.transfer._finder_curve import averages, falls, valley
from tests.rate_search import POINTS, TARGETS, Everything, dense, finder

# What is measured


def test_rates_and_losses_are_those_of_the_steps():
    """By hand: gradient descent whose rate grows, the loss of each batch before its step."""
    found = finder(stop_factor=1e9).find(dense(), (POINTS[:32], TARGETS[:32]), batch_size=32)
    rates = 1e-5 * (1.0 / 1e-5) ** (np.arange(30) / 29)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-12)
    model, losses = dense(), []
    for rate in rates:
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(POINTS[:32]) - TARGETS[:32]) ** 2)
        losses.append(float(loss))
        weights = model.trainable_weights
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign(weight - rate * gradient)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-3)
    assert losses[0] > 3 * min(losses)


def test_the_loss_of_each_batch_is_its_own_and_not_the_mean_over_the_epoch():
    model = dense()
    data = tf.data.Dataset.from_tensor_slices((POINTS, TARGETS)).batch(16)
    found = finder(max_rate=2e-5).find(model, data)  # the weights hardly move
    expected = [
        float(keras.ops.mean((model(POINTS[i : i + 16]) - TARGETS[i : i + 16]) ** 2))
        for i in (0, 16, 32)
    ]
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(found.losses, expected * 10, rtol=0.02)


def test_the_average_is_that_of_fastai(rng):
    losses, smoothing = rng.normal(size=40), 0.98
    average, expected = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = smoothing * average + (1 - smoothing) * loss
        expected.append(average / (1 - smoothing**count))
    np.testing.assert_allclose(averages(40, smoothing) @ losses, expected, rtol=1e-10)
    np.testing.assert_array_equal(averages(40, 0.0) @ losses, losses)


# What is suggested


def fastai_valley(losses):
    """As in fastai 2.7, `fastai/callback/schedule.py`."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and lds[i] < lds[j] + 1:
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return max_start + int(sections) + int(sections / 2)


@given(st.lists(st.integers(0, 20), min_size=3, max_size=40))
def test_valley_is_that_of_fastai(losses):
    losses = np.array(losses, float)
    expected = fastai_valley(losses)
    # Of one falling point after another fastai's index can be -1, the last rate of all.
    assert valley(losses) == max(0, expected)


def with_curve(losses, **options):
    found = LearningRateFinder(num_steps=len(losses), **{"smoothing": 0.0, **options})
    found._losses = list(losses)
    return found


def test_steepest_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-7, 10.0, 100)
    losses = 2.0 - 1.5 / (1.0 + np.exp(-3.0 * (np.log(rates) - math.log(0.01))))
    found = with_curve(losses)
    assert found.steepest == pytest.approx(0.01, rel=0.25)
    assert 1e-7 < found.suggestion < 10.0


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_fall(seed):
    noise = np.random.default_rng(seed).normal(2.3, 0.2, 100)
    assert not falls(noise)
    assert falls(noise - np.linspace(-1, 1, 100).clip(0) ** 2)
    for losses in (noise, np.full(100, 2.3), np.linspace(2, 9, 100)):
        with pytest.raises(ValueError, match="The loss must fall in the test"):
            with_curve(losses).suggestion  # noqa: B018


@pytest.mark.slow
def test_a_good_rate_is_suggested_for_a_real_problem():
    found = LearningRateFinder().find(dense(), (POINTS, TARGETS), batch_size=16)
    losses = {}
    for factor in (0.01, 1.0, 100.0):
        model = dense(keras.optimizers.SGD(found.suggestion * factor))
        losses[factor] = model.fit(POINTS, TARGETS, epochs=10, verbose=0).history["loss"][-1]
    assert losses[1.0] < 0.5 * losses[0.01]
    assert not losses[1.0] > losses[100.0]


# When it ends


def test_it_stops_when_the_loss_explodes_or_is_not_finite():
    found = LearningRateFinder(max_rate=1e6, num_steps=60, smoothing=0.5, stop_factor=2.0)
    found.find(dense(), (POINTS, TARGETS))
    assert 20 < len(found.losses) < 60
    assert found.smoothed_losses[-1] > 2.0 * found.smoothed_losses.min()
    assert np.all(found.smoothed_losses[:-1] <= 2.0 * found.smoothed_losses.min() + 20)

    def log(y, y_pred):
        return keras.ops.mean(keras.ops.log(keras.ops.maximum(y_pred + 4.0, 0.0)))

    model = dense()
    model.compile(keras.optimizers.SGD(0.1), log, jit_compile=False)
    found = finder(max_rate=100.0).find(model, (POINTS, TARGETS))
    assert 10 < len(found.losses) < 30
    assert np.all(np.isfinite(found.losses))
    assert len(found.rates) == len(found.losses)


@pytest.mark.slow
def test_losses_below_zero_are_no_explosion():
    model = dense()
    model.compile(keras.optimizers.SGD(0.1), lambda y, p: keras.ops.mean(p) - 50.0)
    assert len(finder(max_rate=1e-3).find(model, (POINTS, TARGETS)).losses) == 30


def test_a_loss_that_is_never_finite_and_one_that_does_not_move():
    model = dense()
    found = finder().find(model, (POINTS * np.nan, TARGETS))
    assert found.losses.shape == found.rates.shape == (0,)
    for use in (lambda: found.suggestion, lambda: found.steepest, found.plot):
        with pytest.raises(ValueError, match=r"must have run, with a finite loss"):
            use()
    for layer in model.layers:
        layer.trainable = False
    model.layers[-1].trainable = True
    found = finder(max_rate=1e-4).find(model, (POINTS, TARGETS), batch_size=16)
    with pytest.raises(ValueError, match=r"by more than its noise.*in 30 steps, at rates up to"):
        found.suggestion  # noqa: B018
    assert found.plot().axes  # to see why


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return POINTS[part], TARGETS[part]


PARTS = [(POINTS[i : i + 16], TARGETS[i : i + 16]) for i in (0, 16, 32)]


@pytest.mark.parametrize(
    "data",
    [
        (POINTS, TARGETS),
        (POINTS, TARGETS, np.ones(48, "float32")),
        tf.data.Dataset.from_tensor_slices((POINTS, TARGETS)).batch(16),
        tf.data.Dataset.from_tensor_slices((POINTS, TARGETS)).batch(16).repeat(),
        Batches(),
        PARTS,
        (part for part in PARTS),
        tuple(PARTS),
        [list(part) for part in PARTS],
    ],
    ids=["xy", "weights", "dataset", "endless", "PyDataset", "list", "generator", "tuple", "lists"],
)
def test_every_kind_of_data_shorter_than_the_test(data):
    found = finder(num_steps=10, max_rate=1e-3).find(dense(run_eagerly=True), data, batch_size=16)
    assert len(found.losses) == 10


def test_x_alone():
    class Code(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(6)

        def call(self, x):
            self.add_loss(keras.ops.mean((self.dense(x) - x) ** 2))
            return self.dense(x)

    model = Code()
    model.compile("sgd", run_eagerly=True)
    assert len(finder(num_steps=10).find(model, POINTS).losses) == 10


def test_a_fit_of_unknown_length_that_is_over_early():
    def endless():
        yield from PARTS * 2

    found = finder()
    model = dense()
    before = Everything(model)
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(endless(), steps_per_epoch=None, epochs=2, verbose=0, callbacks=[found])
    assert 6 <= len(found.losses) < 30
    for value, variable in zip(before.values[0], model.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


def test_what_cannot_be():
    model = dense()
    with pytest.raises(ValueError, match=r"at most the 4 steps.*num_steps=30. Plan epochs=15"):
        model.fit(POINTS, TARGETS, epochs=2, verbose=0, callbacks=[finder()])
    assert "make_train_function" not in vars(model)
    with pytest.raises(ValueError, match="`model` must be compiled"):
        finder().find(keras.Sequential([keras.layers.Dense(1)]), (POINTS, TARGETS))
    with pytest.raises(TypeError, match="`data` must be an array, a tuple"):
        finder().find(model, 3)
    with pytest.raises(ValueError, match=r"must have run"):
        finder().plot()

    class Silent(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            return {"error": keras.ops.mean(self(data[0]))}

    silent = Silent()
    silent.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"must report its `loss`.*\['error'\]"):
        finder().find(silent, (POINTS, TARGETS))
    if hasattr(keras.optimizers, "MultiOptimizer"):
        parts = keras.optimizers.OptimizerMap(keras.optimizers.SGD())
        model.optimizer = keras.optimizers.MultiOptimizer(parts)
        with pytest.raises(ValueError, match="one learning rate, which a MultiOptimizer has not"):
            finder().find(model, (POINTS, TARGETS))


# What is shown


def test_verbose_and_plot(capsys):
    found = LearningRateFinder(verbose=1)
    found.find(dense(), (POINTS, TARGETS), batch_size=16)
    assert f"LearningRateFinder: {found.suggestion:.2g}" in capsys.readouterr().out
    assert [event.label for event in found.events] == ["learning-rate range test"]
    axes = found.plot().axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[2:] == [
        f"valley (suggestion): {found.suggestion:.2g}",
        f"steepest: {found.steepest:.2g}",
    ]
    assert axes.get_xscale() == "log"
    curve = next(line for line in axes.lines if line.get_label() == "average")
    np.testing.assert_array_equal(curve.get_xdata(), found.rates)
    np.testing.assert_array_equal(curve.get_ydata(), found.smoothed_losses)
    low, high = axes.get_ylim()
    assert low < found.losses.min()
    assert high < 3 * found.smoothed_losses[0]  # not stretched by the explosion
    buffer = io.BytesIO()
    found.plot().savefig(buffer)
    pixels = np.asarray(Image.open(buffer).convert("L"))
    assert pixels.std() > 10
    finder(verbose=1, max_rate=2e-5).find(dense(), (POINTS, TARGETS))
    assert "LearningRateFinder: none. The loss must fall" in capsys.readouterr().out
