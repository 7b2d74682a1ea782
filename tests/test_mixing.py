"""MixUp and CutMix, against NumPy: what the model sees, what it pays, what is counted."""

import functools
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import kerasopt as ko
from kerasopt.augmentation import CutMix, MixUp
from kerasopt.augmentation import _mixing_math as maths
from tests.models import compiled, small_cnn, stripes

ROOT = pathlib.Path(__file__).resolve().parents[1]
SEED = tf.constant([3, 5])


# The mathematics


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


# One step, against NumPy


def linear_model(labels="integer", reduction="sum_over_batch_size", **options):
    """Softmax regression of images of 2x3x1, which shows what it gets."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2, 3, 1))
    outputs = keras.layers.Dense(3, name="dense")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    kind = "SparseCategoricalCrossentropy" if labels == "integer" else "CategoricalCrossentropy"
    loss = getattr(keras.losses, kind)(from_logits=True, reduction=reduction)
    options.setdefault("weighted_metrics", [])
    model.compile(keras.optimizers.SGD(1.0), loss=loss, metrics=[Seen(), "accuracy"], **options)
    return model


class Seen(keras.metrics.Metric):
    """Keeps the labels of the last batch."""

    def __init__(self):
        super().__init__(name="seen")
        self.labels = self.add_variable((6,), "zeros", name="labels")

    def update_state(self, y_true, y_pred, sample_weight=None):
        flat = tf.cast(y_true, tf.float32)
        flat = tf.argmax(flat, -1) if len(flat.shape) == 2 and flat.shape[-1] == 3 else flat
        self.labels.assign(tf.reshape(tf.cast(flat, tf.float32), [6]))

    def result(self):
        return tf.reduce_sum(self.labels)


class Tap(keras.callbacks.Callback):
    """Writes down what the model is called with, through the innermost hook."""

    def on_train_begin(self, logs=None):
        self.images = tf.Variable(tf.zeros((6, 2, 3, 1)), trainable=False)
        session = ko.training.session(self.model)

        def around(call):
            def tapped(x, *args, **kwargs):
                self.images.assign(x)
                return call(x, *args, **kwargs)

            return tapped

        session.hook(self, "call", around, order=0)
        session.retrace()


def batch(rng, kind="integer"):
    x = rng.uniform(-1, 1, (6, 2, 3, 1)).astype("float32")
    y = np.array([0, 1, 2, 2, 1, 0], "int32")
    return x, (y if kind == "integer" else np.eye(3, dtype="float32")[y])


def what_happened(x, seen):
    """Finds partner and share of every image by trying them all: `x` has no two alike."""
    partners, shares = [], []
    for i, image in enumerate(seen):
        best = (np.inf, 0, 1.0)
        for j in range(len(x)):
            way = (x[i] - x[j]).ravel()
            share = float(way @ (image - x[j]).ravel() / (way @ way)) if way.any() else 1.0
            error = np.abs(share * x[i] + (1 - share) * x[j] - image).max()
            best = min(best, (error, j, share))
        assert best[0] < 1e-5
        partners.append(best[1])
        shares.append(best[2])
    return np.array(partners), np.array(shares)


def cross_entropies(weights, bias, x, y):
    logits = x.reshape(6, -1) @ weights + bias
    logits = logits - logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_p[np.arange(6), y]


REDUCTIONS = {
    "sum_over_batch_size": lambda losses, weights: losses.sum() / 6,
    "sum": lambda losses, weights: losses.sum(),
    "mean_with_sample_weight": lambda losses, weights: losses.sum() / weights.sum(),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", [*REDUCTIONS])
@pytest.mark.parametrize("kind", ["integer", "one-hot"])
def test_a_step_of_mixup_is_numpy(rng, kind, reduction, weighted):
    x, y = batch(rng, kind)
    integer = batch(np.random.default_rng(0))[1]
    w = rng.uniform(0.5, 2, 6).astype("float32") if weighted else np.ones(6, "float32")
    model, tap = linear_model(kind, reduction), Tap()
    weights, bias = (v.astype("float64") for v in model.get_weights())
    history = model.fit(
        x,
        y,
        batch_size=6,
        sample_weight=w if weighted else None,
        shuffle=False,
        verbose=0,
        callbacks=[MixUp(1.0, seed=3), tap],
    ).history
    partners, lam = what_happened(x, tap.images.numpy())
    assert len({round(v, 4) for v in lam}) > 3  # each image its own share
    first, second = lam * w, (1 - lam) * w[partners]

    def loss(weights, bias):
        args = weights, bias, tap.images.numpy().astype("float64")
        losses = first * cross_entropies(*args, integer)
        losses = losses + second * cross_entropies(*args, integer[partners])
        return REDUCTIONS[reduction](losses, first + second)

    assert history["loss"][0] == pytest.approx(loss(weights, bias), rel=1e-5)
    moved = weights - model.get_weights()[0]  # SGD with a rate of 1: the gradient
    for place in [(0, 0), (3, 1), (5, 2)]:
        step = np.zeros_like(weights)
        step[place] = 1e-5
        numeric = (loss(weights + step, bias) - loss(weights - step, bias)) / 2e-5
        assert moved[place] == pytest.approx(numeric, abs=2e-5)
    larger = np.where(lam >= 0.5, integer, integer[partners])
    np.testing.assert_array_equal(model.get_metrics_result()["seen"], larger.sum())


@pytest.mark.slow
def test_integer_and_one_hot_labels_train_alike(rng):
    after = []
    for kind in ("integer", "one-hot"):
        x, y = batch(np.random.default_rng(1), kind)
        model = linear_model(kind)
        model.fit(
            x, y, batch_size=6, epochs=3, verbose=0, shuffle=False, callbacks=[CutMix(seed=2)]
        )
        after.append(model.get_weights())
    for one, other in zip(*after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_step_of_cutmix_is_numpy(rng):
    x, y = batch(rng)
    model, tap = linear_model(), Tap()
    weights, bias = model.get_weights()
    history = model.fit(
        x, y, batch_size=6, shuffle=False, verbose=0, callbacks=[CutMix(seed=1), tap]
    ).history
    seen = tap.images.numpy()
    own = (seen == x).reshape(6, -1)
    lam = own.mean(1)  # the exact area: no two pixels are alike
    assert set(lam) - {0.0, 1.0}
    partners = [
        next(j for j in range(6) if (own[i] | (seen[i] == x[j]).ravel()).all()) for i in range(6)
    ]
    assert len(set(lam)) > 1
    losses = lam * cross_entropies(weights, bias, seen, y)
    losses = losses + (1 - lam) * cross_entropies(weights, bias, seen, y[partners])
    assert history["loss"][0] == pytest.approx(losses.mean(), rel=1e-5)


def test_class_weights_go_with_their_label(rng):
    x, y = batch(rng)
    model, tap = linear_model(), Tap()
    weights, bias = model.get_weights()
    of_class = {0: 1.0, 1: 3.0, 2: 0.5}
    history = model.fit(
        x,
        y,
        batch_size=6,
        shuffle=False,
        verbose=0,
        class_weight=of_class,
        callbacks=[MixUp(1.0, seed=3), tap],
    ).history
    seen = tap.images.numpy()
    partners, lam = what_happened(x, seen)
    w = np.array([of_class[label] for label in y])
    losses = lam * w * cross_entropies(weights, bias, seen, y)
    losses = losses + (1 - lam) * w[partners] * cross_entropies(weights, bias, seen, y[partners])
    assert history["loss"][0] == pytest.approx(losses.mean(), rel=1e-5)


def constant_model(**options):
    """Its output does not hang on the image, so its loss is known whatever is mixed."""
    inputs = keras.Input((4, 4, 1))
    features = keras.layers.Dense(
        2, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.25)
    )(keras.layers.Flatten()(inputs) * 0.0)
    model = keras.Model(inputs, {"a": features, "b": features * 2.0})
    loss = {"a": keras.losses.MeanSquaredError(), "b": keras.losses.MeanSquaredError()}
    model.compile(
        keras.optimizers.SGD(0.0), loss=loss, loss_weights={"a": 1.0, "b": 0.5}, **options
    )
    return model


def test_several_outputs_and_what_does_not_hang_on_labels(rng):
    x = rng.uniform(0, 1, (8, 4, 4, 1)).astype("float32")
    y = {"a": np.full((8, 2), 2.0, "float32"), "b": np.full((8, 2), 3.0, "float32")}
    logs = constant_model().fit(x, y, batch_size=4, verbose=0, callbacks=[MixUp(seed=0)]).history
    regularizer = 0.25 * 32
    assert logs["a_loss"][0] == pytest.approx(4.0, rel=1e-5)
    assert logs["b_loss"][0] == pytest.approx(9.0, rel=1e-5)
    assert logs["loss"][0] == pytest.approx(4.0 + 0.5 * 9.0 + regularizer, rel=1e-5)


def test_labels_of_pixels_are_blended(rng):
    x = rng.uniform(0, 1, (4, 6, 6, 1)).astype("float32")
    y = np.broadcast_to(np.arange(4, dtype="float32")[:, None, None, None], (4, 6, 6, 1))
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(1, 1, kernel_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(0.0), loss="mse")
    loss = model.fit(x, y, batch_size=4, verbose=0, callbacks=[MixUp(seed=0)]).history["loss"][0]
    # Each label is as often an image's own as it is a partner's: the mean of squares stays.
    assert 0 < loss < 9
    with pytest.raises(ValueError, match="`CutMix` needs a label for each image"):
        model.fit(x, y, verbose=0, callbacks=[CutMix()])


# In `fit`


def tiny():
    """The smallest net that takes the images of `stripes`."""
    outputs = [keras.layers.Flatten(), keras.layers.Dense(4)]
    return compiled(keras.Sequential([keras.Input((12, 12, 3)), *outputs]))


class Watch(keras.callbacks.Callback):
    """Counts traces of the train step and keeps what the model got in each batch."""

    def __init__(self):
        super().__init__()
        self.traces, self.batches = 0, []

    def on_train_begin(self, logs=None):
        session, self.image = ko.training.session(self.model), None
        shape = (4, *self.model.input_shape[1:])
        self.image = tf.Variable(tf.zeros(shape), trainable=False)

        def around(train_step):
            def step(data):
                self.traces += 1
                self.image.assign(data[0])
                return train_step(data)

            return step

        session.hook(self, "train_step", around, order=0)  # inside of MixUp's
        session.retrace()

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(self.image.numpy())


SLOW = pytest.mark.slow
MODES = [
    ({}, [MixUp]),
    ({}, [CutMix]),
    ({}, [MixUp, CutMix]),
    ({"run_eagerly": True}, [MixUp, CutMix]),
    ({"steps_per_execution": 2}, [MixUp, CutMix]),
    pytest.param({"jit_compile": True}, [MixUp], marks=SLOW),
    pytest.param({"jit_compile": True}, [CutMix], marks=SLOW),
    pytest.param({"jit_compile": True}, [MixUp, CutMix], marks=SLOW),
]


@functools.cache
def traces_without(**options):
    """How often Keras itself traces: twice, for the first time makes the metrics' variables."""
    watch, (x, y) = Watch(), stripes(8)
    compiled(small_cnn(), **options).fit(x, y, batch_size=4, verbose=0, callbacks=[watch])
    return watch.traces


@pytest.mark.slow
@pytest.mark.parametrize(("options", "callbacks"), MODES)
def test_trains_in_every_mode_and_adds_no_trace(options, callbacks):
    model = compiled(small_cnn(), **options)
    x, y = stripes(16)
    watch = Watch()
    made = [kind(seed=i, start=0.25, end=0.75) for i, kind in enumerate(callbacks)]
    history = model.fit(
        x, y, batch_size=4, epochs=4, verbose=0, validation_data=(x, y), callbacks=[*made, watch]
    ).history
    assert np.isfinite(history["loss"]).all()
    if "run_eagerly" not in options:
        assert watch.traces == traces_without(**options)
    assert not {"call", "compute_loss", "train_step", "make_train_function"} & set(vars(model))


def plain_or(x, batches, *, atol=1e-3):
    """Tells for each batch: is every image one of `x`, and is every pixel one of `x`?"""
    pixels = np.unique(x)
    images = {image.tobytes() for image in x}
    for seen in batches:
        if all(image.tobytes() in images for image in seen):
            yield "plain"
        else:
            yield "cut" if np.isin(seen, pixels).all() else "blend"


def test_each_batch_is_of_one_kind_and_moments_are_kept():
    x, y = stripes(16)
    watch, model = Watch(), tiny()
    made = [MixUp(1.0, seed=1, start=1, end=0.75), CutMix(seed=2, start=0.5)]
    model.fit(x, y, batch_size=4, epochs=16, verbose=0, callbacks=[*made, watch])
    kinds = np.array([*plain_or(x, watch.batches)]).reshape(16, 4)
    # One batch in 24 is plain anyhow: every image is its own partner.
    for epochs, expected in {
        (0, 1): {"plain"},
        (1, 8): {"plain", "blend"},
        (8, 12): {"plain", "blend", "cut"},
        (12, 16): {"plain", "cut"},
    }.items():
        found = kinds[slice(*epochs)].ravel().tolist()
        assert expected - {"plain"} <= set(found) <= expected
        assert epochs == (0, 1) or found.count("plain") <= len(found) / 4
    first, second = ([(e.epoch, e.kind, e.label) for e in one.events] for one in made)
    assert first == [
        (1.0, "other", "MixUp until epoch 12; accuracy is of the larger part's label"),
        (12.0, "other", "MixUp ends"),
    ]
    assert [epoch for epoch, _, _ in second] == [8.0]


def test_probability_leaves_whole_batches_alone():
    x, y = stripes(16)
    watch, model = Watch(), tiny()
    model.fit(
        x, y, batch_size=4, epochs=40, verbose=0, callbacks=[MixUp(1.0, probability=0.3), watch]
    )
    kinds = [*plain_or(x, watch.batches)]
    assert 0.15 < kinds.count("blend") / 160 < 0.45


@pytest.mark.slow
def test_seed():
    def seen(seed):
        x, y = stripes(8)
        watch, model = Watch(), tiny()
        model.fit(
            x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[MixUp(1.0, seed=seed), watch]
        )
        return np.stack(watch.batches)

    np.testing.assert_array_equal(seen(5), seen(5))
    assert np.any(seen(5) != seen(6))
    keras.utils.set_random_seed(1)
    first = seen(None)
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(seen(None), first)


def test_validation_and_evaluate_see_the_data_as_it_is():
    x, y = stripes(16)
    model = compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.0))
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    model.compile(keras.optimizers.SGD(0.0), loss=model.loss, metrics=["accuracy"])
    expected = model.evaluate(x, y, verbose=0)
    history = model.fit(
        x, y, verbose=0, epochs=2, validation_data=(x, y), callbacks=[MixUp(1.0, seed=0)]
    ).history
    assert history["val_loss"] == pytest.approx([expected[0]] * 2, rel=1e-5)
    assert history["val_accuracy"] == pytest.approx([expected[1]] * 2)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_tf_data_of_uint8_with_a_smaller_last_batch():
    x, y = stripes(9)
    data = tf.data.Dataset.from_tensor_slices((x.astype("uint8"), y)).batch(4)
    model = tiny()
    history = model.fit(data, epochs=2, verbose=0, callbacks=[MixUp(seed=0), CutMix(seed=1)])
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.slow
def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, (x, y) = compiled(small_cnn()), stripes(16)
        history = model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[MixUp(seed=0)])
        assert np.isfinite(history.history["loss"]).all()
    finally:
        keras.config.set_dtype_policy("float32")


_REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kerasopt.augmentation import CutMix, MixUp
from tests.models import compiled, small_cnn, stripes
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = compiled(small_cnn())
x, y = stripes(16)
history = model.fit(x, y, batch_size=4, verbose=0, callbacks=[MixUp(seed=0), CutMix(seed=1)])
assert np.isfinite(history.history["loss"]).all()
"""


@pytest.mark.slow
def test_several_replicas():
    """Two logical devices have to be there before TensorFlow starts: a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _REPLICAS], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_interrupted_fit_is_cleared_by_the_next():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, (x, y) = tiny(), stripes(8)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[MixUp(seed=0), Stop()])
    watch = Watch()
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[CutMix(seed=0, end=0.5), watch])
    assert "blend" not in [*plain_or(x, watch.batches)]
    model.evaluate(x, y, verbose=0)
    assert not {"compute_loss", "train_step", "make_train_function"} & set(vars(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": False}, {"steps_per_execution": 2}], ids=str
)
def test_with_every_other_callback_and_augmentation(options, tmp_path):
    model = ko.transfer.build_classifier(small_cnn(), 4, augmentation=ko.augmentation.basic(seed=1))
    compiled(model, **options)
    x, y = stripes(16)
    aware = ko.quantization.QuantizeAware(start=0.5)
    history = model.fit(
        x,
        y,
        batch_size=4,
        epochs=4,
        verbose=0,
        validation_data=(x, y),
        callbacks=[
            MixUp(seed=0, end=0.75),
            ko.transfer.Unfreeze({0.25: 1, 0.5: "all"}),
            aware,
            CutMix(seed=1),
            ko.pruning.PruneLowMagnitude(0.5),
        ],
    ).history
    assert np.isfinite(history["loss"]).all()
    assert history["sparsity"][-1] == pytest.approx(0.5, abs=0.05)
    assert ko.quantization.is_quantization_aware(aware.quantized_model)
    assert not {"call", "compute_loss", "train_step", "make_train_function"} & set(vars(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


# Misuse


@pytest.mark.parametrize("kind", [MixUp, CutMix])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 0}, ValueError, r"`alpha` must be a number in \(0, inf\]. Received: alpha=0"),
        ({"alpha": -0.2}, ValueError, "`alpha` must be a number"),
        ({"alpha": "0.2"}, TypeError, "`alpha` must be a number"),
        ({"probability": 0}, ValueError, r"`probability` must be a number in \(0, 1\]"),
        ({"probability": 1.1}, ValueError, r"`probability` must be a number in \(0, 1\]"),
        ({"start": 0.5, "end": 0.5}, ValueError, "`start` must lie before `end`"),
        ({"start": 3, "end": 2}, ValueError, "`start` must lie before `end`"),
        ({"end": 1.5}, ValueError, "`end` must be a fraction of training"),
        ({"start": None}, TypeError, "`start` must be a fraction of training"),
        ({"seed": -1}, ValueError, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


def refused(callback, model, *data, match, epochs=2, **options):
    with pytest.raises(ValueError, match=match):
        model.fit(*data, epochs=epochs, verbose=0, callbacks=[callback], **options)
    assert not {"compute_loss", "train_step", "make_train_function"} & (
        set(vars(model)) if model.train_function is None else set()
    )


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_what_cannot_be_mixed(kind):
    name, (x, y) = kind.__name__, stripes(8)
    model = compiled(small_cnn())
    refused(kind(start=1, end=0.5), model, x, y, match="`start` must lie before `end`")
    refused(kind(end=0.01), model, x, y, match="`start` must lie before `end`")
    refused(kind(start=5), model, x, y, match="`start` must be an epoch of the planned training")
    refused(kind(), model, x, match=f"`{name}` needs labels to mix. Received: y=None")
    unlost = small_cnn()
    unlost.compile("adam", loss=None)
    refused(kind(), unlost, x, y, match=f"`{name}` needs a compiled loss.*loss=None")
    one, two = keras.Input((2,)), keras.Input((2,))
    double = keras.Model([one, two], keras.layers.Dense(1)(one + two))
    double.compile("adam", loss="mse")
    rows = np.ones((4, 2), "float32")
    refused(kind(), double, [rows, rows], rows[:, :1], match=f"`{name}` needs a model with one inp")


def test_rows_are_for_mixup():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", loss="mse")
    rows = np.ones((4, 2), "float32")
    model.fit(rows, rows[:, :1], verbose=0, callbacks=[MixUp()])
    refused(CutMix(), model, rows, rows[:, :1], match="`CutMix` needs images of shape")


def test_a_batch_of_one_stays_as_it_is():
    x, y = stripes(1)
    model = compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.0))
    model.fit(x, y, verbose=0, callbacks=[MixUp(1.0), CutMix()])


class Careless(keras.Model):
    """Its loss leaves the sample weights out."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((y - y_pred) ** 2)


class Careful(keras.Model):
    """Its loss is its own, too, and takes the weights as Keras hands them."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        losses = keras.ops.mean((y - y_pred) ** 2, axis=-1)
        return keras.ops.mean(losses if sample_weight is None else losses * sample_weight)


class Aside(keras.Model):
    """Its train step computes the loss by itself."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((y - self(x)) ** 2)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def own(kind, loss):
    inputs = keras.Input((2,))
    model = kind(inputs, keras.layers.Dense(1)(inputs))
    model.compile("adam", loss=loss)
    return model


def test_models_with_a_step_or_a_loss_of_their_own():
    rows = np.ones((4, 2), "float32")
    data = rows, rows[:, :1]
    refused(MixUp(), own(Careless, None), *data, match="`compute_loss` must use `sample_weight`")
    refused(MixUp(), own(Aside, "mse"), *data, match="needs a train_step that calls self.compute_l")
    own(Careful, None).fit(*data, verbose=0, callbacks=[MixUp()])
