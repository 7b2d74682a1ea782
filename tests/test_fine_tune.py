"""The recipe in one call, and the schedule it drives the rate with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.transfer import (
    WarmupCosine,
    blocks,
    build_classifier,
    fine_tune,
    fine_tuning_callbacks,
)
from kerasopt.transfer._pixels import warn_if_scaled
from tests.models import compiled, small_cnn, stripes


def classifier():
    return build_classifier(small_cnn(), 4, input_shape=(12, 12, 3), dropout=0.0)


class Rates(keras.callbacks.Callback):
    """The learning rate of each batch."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def test_rates_are_those_of_cosine_decay_in_keras():
    model, (x, y) = compiled(small_cnn(), jit_compile=False), stripes(80)
    seen = Rates()
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=4,
        verbose=0,
        callbacks=[WarmupCosine(0.01, warmup=0.25, final=0.1), seen],
    )
    oracle = keras.optimizers.schedules.CosineDecay(
        0.0, 30, alpha=0.1, warmup_target=0.01, warmup_steps=10
    )
    np.testing.assert_allclose(
        seen.rates[10:], [float(oracle(i)) for i in range(10, 40)], rtol=1e-5
    )
    np.testing.assert_allclose(seen.rates[:10], [0.001 * (i + 1) for i in range(10)], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*ran out of data.*")
def test_rate_of_the_optimizer_and_unknown_length():
    model, (x, y) = compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.5)), stripes(16)
    data = tf.data.Dataset.from_generator(
        lambda: iter([(x[:8], y[:8]), (x[8:], y[8:])]),
        output_signature=(tf.TensorSpec((8, 12, 12, 3)), tf.TensorSpec((8,), tf.int32)),
    )
    seen = Rates()
    model.fit(data, epochs=2, verbose=0, callbacks=[WarmupCosine(warmup=0.0, final=0.0), seen])
    np.testing.assert_allclose(seen.rates, [0.5, 0.5, 0.25, 0.25], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: WarmupCosine(0.0), ValueError, "`peak` must be a number in"),
        (lambda: WarmupCosine("2e-3"), TypeError, "`peak` must be a number in"),
        (lambda: WarmupCosine(1e-3, warmup=1.0), ValueError, "`warmup` must be a number in"),
        (lambda: WarmupCosine(1e-3, final=-1.0), ValueError, "`final` must be a number in"),
    ],
)
def test_bad_rates(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_schedule_in_the_optimizer_is_refused():
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model, (x, y) = compiled(small_cnn(), optimizer=keras.optimizers.SGD(rate)), stripes(8)
    with pytest.raises(ValueError, match="has a schedule of its own"):
        model.fit(x, y, verbose=0, callbacks=[WarmupCosine(0.1)])


@pytest.mark.slow
def test_recipe_trains_head_first_then_everything():
    model, (x, y) = classifier(), stripes(64)
    start = {w.path: np.asarray(w) for w in model.weights}
    history = fine_tune(
        model, (x, y), (x, y), epochs=4, unfreeze_end=0.5, batch_size=16, verbose=0
    ).history
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    assert history["trainable_fraction"] == sorted(history["trainable_fraction"])
    assert history["trainable_fraction"][0] == pytest.approx(68 / model.count_params())
    assert len(history["val_accuracy"]) == 4
    moved = [w.path for w in model.weights if np.any(start[w.path] != np.asarray(w))]
    assert "stem_conv/kernel" in moved
    assert not any(path.startswith("stem_bn") for path in moved)


def test_rates_span_from_the_head_to_the_first_block():
    model = classifier()
    recipe = fine_tuning_callbacks(model, 10, rate_span=100.0)
    layerwise = next(c for c in recipe if type(c).__name__ == "LayerwiseLearningRate")
    assert layerwise.decay ** len(blocks(model)) == pytest.approx(0.01)


def test_what_is_compiled_is_kept_and_one_hot_labels_are_seen():
    model, (x, y) = classifier(), stripes(16)
    one_hot = keras.utils.to_categorical(y, 4)
    fine_tune(model, tf.data.Dataset.from_tensor_slices((x, one_hot)).batch(8), epochs=2, verbose=0)
    assert isinstance(model.loss, keras.losses.CategoricalCrossentropy)
    model = compiled(classifier(), optimizer=keras.optimizers.SGD(0.1))
    optimizer, loss = model.optimizer, model.loss
    fine_tune(model, (x, y), epochs=1, freeze_epochs=0, verbose=0)
    assert type(model.optimizer) is type(optimizer)
    assert model.loss is loss


@pytest.mark.slow
def test_other_callbacks_come_along():
    model, (x, y) = classifier(), stripes(16)
    seen = Rates()
    fine_tune(model, (x, y), epochs=2, callbacks=[seen], verbose=0)
    assert len(seen.rates) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "`epochs` must be an integer >= 1"),
        ({"epochs": 2, "freeze_epochs": 2}, ValueError, r"`freeze_epochs` must be an integer in"),
        ({"epochs": 2, "rate_span": 0.5}, ValueError, "`rate_span` must be a number in"),
        (
            {"epochs": 2, "base_learning_rate": 0.0},
            ValueError,
            "`base_learning_rate` must be a number in",
        ),
        ({"epochs": 2, "unfreeze_end": 2.0}, ValueError, "`unfreeze_end` must be a number in"),
        ({"epochs": 2, "groups": 0}, ValueError, "`groups` must be an integer"),
        ({"epochs": 2, "train": stripes(8)[0]}, ValueError, "`train` must hold labels"),
        ({"epochs": 2, "train": iter([stripes(8)])}, TypeError, "Compile the model first"),
    ],
)
def test_bad_recipe(options, error, message):
    model = classifier()
    with pytest.raises(error, match=message):
        fine_tune(model, options.pop("train", stripes(8)), **options)
    assert not model.compiled


def test_feature_head_is_refused():
    model = build_classifier(small_cnn(), 4, head="features", input_shape=(12, 12, 3))
    with pytest.raises(ValueError, match="head='features'"):
        fine_tune(model, stripes(8), epochs=2, verbose=0)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_images_that_were_scaled_before_are_noticed(scale, recwarn):
    model = build_classifier("MobileNetV2", 2, input_shape=(32, 32, 3), weights=None)
    x = np.random.default_rng(0).uniform(0, scale, (4, 32, 32, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, [0, 1, 0, 1])).batch(4)
    warn_if_scaled(model, lambda: next(iter(data)), name="train")
    plain = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])
    warn_if_scaled(plain, lambda: next(iter(data)), name="train")  # takes pixels as they come
    warn_if_scaled(model, lambda: None, name="train")  # can be read only once
    told = [str(warning.message) for warning in recwarn.list]
    assert len(told) == (1 if scale == 1.0 else 0)
    assert all("'preprocess" in text and "scaled twice" in text for text in told)


def test_fine_tune_looks_at_its_first_batch():
    x, y = stripes(8)
    with pytest.warns(UserWarning, match="would be scaled twice"):
        fine_tune(classifier(), (x / 255.0, y), epochs=1, freeze_epochs=0, groups=1, verbose=0)
