"""One step with MixUp and CutMix, against NumPy: what the model sees and what it pays."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.augmentation import CutMix, MixUp


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
