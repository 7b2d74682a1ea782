"""The learning-rate range test leaves no trace, alone and with others."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.transfer import LayerwiseLearningRate, LearningRateFinder, Unfreeze
from tests.models import compiled, small_cnn
from tests.processes import run_alone
from tests.rate_search import POINTS, TARGETS, Everything, X, Y, dense, finder


def whole_model(optimizer):
    """BatchNormalization, dropout and augmentation."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((12, 12, 3)),
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomBrightness(0.1),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.2, seed=3),
        keras.layers.Dense(4),
    ]
    return compiled(keras.Sequential(layers), optimizer=optimizer, run_eagerly=True)


def train(model, *callbacks, epochs=1):
    return model.fit(
        X, Y, batch_size=8, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )


def cosine():
    return keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.01, 100))


OPTIMIZERS = {
    "schedule": cosine,
    "rate": lambda: keras.optimizers.Adam(0.01, use_ema=True),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(cosine()),
}


def search(model, how):
    """Runs a test that diverges, in one of the two ways."""
    found = finder(num_steps=12, min_rate=1e-3, max_rate=1e3)
    if how == "call":
        found.find(model, (X, Y), batch_size=8)
    else:
        train(model, found, epochs=3)
    assert len(found.losses) >= 2
    return found


@pytest.mark.parametrize(
    ("name", "how", "trained"),
    [
        ("schedule", "call", True),
        pytest.param("rate", "callback", True, marks=pytest.mark.slow),
        pytest.param("schedule", "callback", False, marks=pytest.mark.slow),
        pytest.param("rate", "call", False, marks=pytest.mark.slow),
        pytest.param("scaled", "call", True, marks=pytest.mark.slow),
        pytest.param("scaled", "callback", True, marks=pytest.mark.slow),
    ],
)
def test_model_and_optimizer_are_as_they_were_and_go_on_so(name, how, trained):
    model, twin = (whole_model(OPTIMIZERS[name]()) for _ in range(2))
    for each in (model, twin):
        if trained:
            train(each)
        each.stop_training = True
    before = Everything(model)
    assert sum("seed_generator" in v.path for v in model.variables) == 3
    search(model, how)
    # A `fit` builds the optimizer before any callback is asked, and leaves its history.
    if trained or how == "call":
        before.assert_still(model, history=how == "call")
    train(model)
    train(twin)
    for one, other in zip(model.variables, twin.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert model.history.history == twin.history.history


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model(POINTS),
        lambda model: model.fit(POINTS, TARGETS, epochs=0, verbose=0),
        *(
            pytest.param(use, marks=pytest.mark.slow)
            for use in (
                lambda model: model.predict(POINTS, verbose=0),
                lambda model: finder().find(model, (POINTS, TARGETS)),
                ko.training.settle,
            )
        ),
    ],
)
def test_after_an_exception_the_next_use_puts_all_back(use):
    model = dense(keras.optimizers.Adam(0.01))
    model.fit(POINTS, TARGETS, batch_size=8, verbose=0)
    before, moved = Everything(model), model.get_weights()
    callbacks = [finder(num_steps=20, min_rate=0.1), Stop()]
    with pytest.raises(KeyboardInterrupt):
        model.fit(POINTS, TARGETS, batch_size=8, epochs=9, verbose=0, callbacks=callbacks)
    assert not np.array_equal(model.get_weights()[0], moved[0])
    use(model)
    model.history = before.history
    before.assert_still(model)


def test_after_an_exception_in_the_call_all_is_put_back_at_once():
    model = dense(keras.optimizers.Adam(0.01))
    before = Everything(model)
    with pytest.raises(KeyboardInterrupt):
        finder(min_rate=0.1).find(model, (POINTS, TARGETS), batch_size=8, callbacks=[Stop()])
    before.assert_still(model)
    with pytest.raises(ValueError, match=r"[Ii]ncompatible|expected"):
        finder().find(model, (POINTS[:, :3], TARGETS))  # fails before any callback is asked
    before.assert_still(model)


class Lazy(keras.Model):
    """Builds its layers when it is called."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dense(4), keras.layers.BatchNormalization()]
        self.out = keras.layers.Dense(1)

    def call(self, x, training=None):
        for part in self.parts:
            x = part(x, training=training) if "norm" in part.name else part(x)
        return self.out(x)


def unbuilt():
    return keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(1)])


@pytest.mark.slow
@pytest.mark.parametrize("make", [unbuilt, Lazy])
@pytest.mark.parametrize("how", ["call", "callback"])
def test_a_model_that_is_not_built_yet_keeps_its_first_weights(make, how):
    def build():
        keras.utils.set_random_seed(3)
        model = make()
        model.compile("adam", "mse", metrics=["mae"], jit_compile=False)
        return model

    model, twin = build(), build()
    found = finder(max_rate=100.0)
    if how == "call":
        found.find(model, (POINTS, TARGETS))
        assert not model.optimizer.built
    else:
        model.fit(POINTS, TARGETS, epochs=30, verbose=0, callbacks=[found])
    assert not any(np.any(v.numpy()) for v in model.metrics_variables)
    keras.utils.set_random_seed(3)
    twin(POINTS)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for each in (model, twin):
        each.fit(POINTS, TARGETS, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# With others


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_with_layerwise_rates_each_layer_has_its_own(first):
    options = {"min_rate": 1e-3, "max_rate": 0.01, "num_steps": 10}

    class Moved(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.weights = [w.numpy() for w in self.model.weights]
            self.rates = float(self.model.optimizer.learning_rate)

    def run(*callbacks):
        model, moved, found = dense(), Moved(), LearningRateFinder(**options)
        order = [found, *callbacks] if first else [*callbacks, found]
        model.fit(POINTS, TARGETS, epochs=5, shuffle=False, verbose=0, callbacks=[*order, moved])
        assert not {"update_step", "_apply_weight_decay"} & set(vars(model.optimizer))
        return model, moved

    model, moved = run(LayerwiseLearningRate(lr_factors={"block1": 0.0, "block2": 0.5}))
    start = model.get_weights()
    assert moved.rates == pytest.approx(0.01)
    np.testing.assert_array_equal(moved.weights[0], start[0])
    assert np.abs(moved.weights[2] - start[2]).max() > 0
    _, plain = run()
    assert np.abs(plain.weights[0] - start[0]).max() > 0


@pytest.mark.slow
def test_the_call_with_other_callbacks():
    model = compiled(small_cnn(), jit_compile=False)
    before = Everything(model)
    callbacks = [Unfreeze({0: "all"}), ko.augmentation.MixUp(seed=0), LayerwiseLearningRate(0.5)]
    found = finder(num_steps=20, max_rate=0.1).find(model, (X, Y), callbacks=callbacks)
    assert len(found.losses) == 20
    before.assert_still(model)


@pytest.mark.slow
def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(small_cnn())
    finally:
        keras.config.set_dtype_policy("float32")
    before = Everything(model)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    found = LearningRateFinder(num_steps=50).find(model, (X, Y))
    assert len(found.losses) > 20
    before.assert_still(model)


@pytest.mark.slow
def test_steps_per_execution():
    model = dense(steps_per_execution=2)
    with pytest.raises(ValueError, match=r"`steps_per_execution` must be 1.*=2.*find"):
        model.fit(POINTS, TARGETS, epochs=30, verbose=0, callbacks=[finder()])
    found = finder().find(model, (POINTS, TARGETS))
    assert len(found.losses) == 30
    assert model.steps_per_execution == 2


_REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.rate_search import X, Y, Everything, finder
from tests.models import compiled, small_cnn
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = compiled(small_cnn())
model.fit(X, Y, batch_size=8, verbose=0)
before = Everything(model)
found = finder(num_steps=12, min_rate=1e-3, max_rate=1e3).find(model, (X, Y), batch_size=8)
assert len(found.losses) > 4
before.assert_still(model)
print("as it was")
"""


@pytest.mark.slow
def test_two_replicas():
    """Two logical devices have to be there before TensorFlow starts: a process of its own."""
    done = run_alone(_REPLICAS)
    assert "as it was" in done.stdout, done.stderr[-3000:]
