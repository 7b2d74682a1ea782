"""Rates and step counts of single variables, against optimizers that have them for everything."""

import keras
import numpy as np
import pytest

from kerasopt.training import TrainingCallback, count_steps
from tests.processes import run_alone

RATE = 0.03
FACTOR = 0.3
STEPS = 3

OPTIMIZERS = {
    "SGD": {},
    "SGD momentum": {"momentum": 0.9},
    "SGD nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adam": {},
    "Adam amsgrad": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {"weight_decay": 0.1},
    "Adamax": {},
    "Nadam": {},
    "Adagrad": {},
    "Adadelta": {},
    "Adafactor": {},
    "Ftrl": {"beta": 0.1},
    "Lion": {"weight_decay": 0.1},
    "Lamb": {},
    "Muon": {"weight_decay": 0.1, "adam_weight_decay": 0.2},
    "ScheduleFreeAdamW": {"weight_decay": 0.1},
}
# Muon of older Keras asks TensorFlow variables for a path they do not have.
ABSENT = {
    name
    for name in OPTIMIZERS
    if not hasattr(keras.optimizers, name.split()[0])
    or (name == "Muon" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15))
}
COUNTING = (
    "Adam", "Adam amsgrad", "AdamW", "Adamax", "Nadam", "Adafactor", "Lamb", "Muon",
    "ScheduleFreeAdamW",
)  # fmt: skip
"""Optimizers whose step depends on the iteration count."""


def some(names, fast):
    """All of these optimizers as parameters, a few of them in the fast suite."""
    skipped = pytest.mark.skip("this Keras does not have it, or its own does not run")
    for name in names:
        marks = [] if name in fast else [pytest.mark.slow]
        yield pytest.param(name, marks=[*marks, *([skipped] if name in ABSENT else [])])


class Probe(keras.layers.Layer):
    """Weights whose gradient is that of the data alone, so that runs can be compared exactly."""

    def __init__(self, shape, **options):
        super().__init__(**options)
        self.shape = shape

    def build(self, _):
        rng = np.random.default_rng(len(self.shape))
        start = keras.initializers.Constant(0.0)
        self.value = self.add_weight(shape=self.shape, initializer=start, name="value")
        self.value.assign(rng.normal(size=self.shape))
        self.pattern = rng.normal(size=self.shape).astype("float32")

    def call(self, x):
        total = keras.ops.sum(self.value * self.pattern)
        wave = keras.ops.sum(self.value * np.cos(3.0 * self.pattern))
        return keras.ops.cast(x[:, :1], "float32") * total + x[:, 1:] * wave


def probes(optimizer, **options):
    inputs = keras.Input((2,))
    shapes = {
        "scaled": (4, 3),
        "stopped": (5,),
        "deep": (2, 2, 3, 4),
        "other": (3, 2),
        "flat": (6,),
    }
    outputs = [Probe(shape, name=name)(inputs) for name, shape in shapes.items()]
    model = keras.Model(inputs, keras.layers.Add(name="sum")(outputs))
    if "jit_compile" not in options:
        options["run_eagerly"] = True
    model.compile(optimizer, loss=lambda y, y_pred: keras.ops.mean(y_pred), **options)
    return model


def make(name, rate=RATE, **changes):
    return getattr(keras.optimizers, name.split()[0])(rate, **{**OPTIMIZERS[name], **changes})


def value(model, name):
    return model.get_layer(name).value.numpy()


class Scale(TrainingCallback):
    """Gives layers factors, and step counts that begin now."""

    def __init__(self, factors, starts=None):
        super().__init__()
        self.factors = factors
        self.starts = starts or {}

    def begin(self):
        def pairs(table):
            return [(self.model.get_layer(name).value, number) for name, number in table.items()]

        self.session.scale_rates(self, pairs(self.factors))
        self.session.start_counts(pairs(self.starts))
        self.session.retrace()


def train(model, *callbacks, steps=STEPS, seed=0):
    x = np.random.default_rng(seed).normal(size=(4 * steps, 2)).astype("float32")
    y = np.zeros((4 * steps, 1), "float32")
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def check_factors(model, make_optimizer, steps=STEPS, **options):
    factors = {"scaled": FACTOR, "deep": FACTOR, "stopped": 0.0}
    start = value(model, "stopped")
    train(model, Scale(factors), steps=steps)
    plain = train(probes(make_optimizer(RATE), **options), steps=steps)
    slower = train(probes(make_optimizer(RATE * FACTOR), **options), steps=steps)
    for name in ("scaled", "deep"):
        np.testing.assert_allclose(value(model, name), value(slower, name), rtol=2e-6, atol=2e-6)
        assert np.max(np.abs(value(model, name) - value(plain, name))) > 1e-6
    np.testing.assert_array_equal(value(model, "stopped"), start)
    for name in ("other", "flat"):
        np.testing.assert_array_equal(value(model, name), value(plain, name))
    check_released(model.optimizer)


def check_released(optimizer):
    for one in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
        assert not {"update_step", "_apply_weight_decay"} & set(vars(one))


@pytest.mark.parametrize("name", [*some(OPTIMIZERS, ("SGD nesterov", "AdamW", "Ftrl", "Muon"))])
def test_a_factor_is_a_rate_of_its_own(name):
    check_factors(probes(make(name)), lambda rate: make(name, rate))


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [True, False])
def test_in_a_compiled_step(jit_compile):
    name, options = "AdamW", {"jit_compile": jit_compile}
    check_factors(probes(make(name), **options), lambda rate: make(name, rate), **options)


@pytest.mark.slow
def test_with_gradient_accumulation():
    def build(rate):
        return make("AdamW", rate, gradient_accumulation_steps=2)

    check_factors(probes(build(RATE)), build, steps=4)


@pytest.mark.slow
@pytest.mark.parametrize("clipping", [{"clipnorm": 0.1}, {"global_clipnorm": 0.1}])
def test_with_clipped_gradients(clipping):
    check_factors(probes(make("SGD", **clipping)), lambda rate: make("SGD", rate, **clipping))


def test_with_loss_scaling():
    def build(rate):
        return keras.optimizers.LossScaleOptimizer(make("AdamW", rate))

    check_factors(probes(build(RATE)), build)


@pytest.mark.slow
def test_with_a_schedule_as_learning_rate():
    def build(rate):
        return make("AdamW", keras.optimizers.schedules.CosineDecay(rate, 10))

    check_factors(probes(build(RATE)), build)


@pytest.mark.slow
def test_excluded_variables_stay_without_weight_decay():
    def build(rate):
        optimizer = make("AdamW", rate, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["value"])
        return optimizer

    check_factors(probes(build(RATE)), build)
    without = train(probes(make("AdamW", weight_decay=0.0)), Scale({"scaled": FACTOR}))
    with_exclusion = train(probes(build(RATE)), Scale({"scaled": FACTOR}))
    np.testing.assert_array_equal(value(without, "scaled"), value(with_exclusion, "scaled"))


def test_factors_of_two_owners_multiply():
    model = probes(make("Adam"))
    train(model, Scale({"scaled": 0.5}), Scale({"scaled": 0.25, "flat": 0.0}))
    slower = train(probes(make("Adam", RATE / 8)))
    np.testing.assert_allclose(value(model, "scaled"), value(slower, "scaled"), rtol=1e-6)


@pytest.mark.slow
def test_averages_follow_the_weights():
    def build(rate):
        return make("Adam", rate, use_ema=True, ema_momentum=0.5)

    check_factors(probes(build(RATE)), build)


LATE = 6


LATERS = ("deep", "flat", "other")


def check_late(make_optimizer):
    """Variables that join late step like those of a fresh optimizer, the others as ever."""
    model, plain = probes(make_optimizer()), probes(make_optimizer())
    model.optimizer.build(model.trainable_variables)
    for name in LATERS:
        model.get_layer(name).trainable = False
    train(model, steps=LATE, seed=1)
    train(plain, steps=LATE, seed=1)
    for name in LATERS:
        model.get_layer(name).trainable = True
    assert count_steps(model.optimizer) == LATE
    train(model, Scale({}, dict.fromkeys(LATERS, LATE)), steps=4)
    fresh = train(probes(make_optimizer()), steps=4)
    for name in LATERS:
        np.testing.assert_allclose(value(model, name), value(fresh, name), rtol=1e-5, atol=1e-6)
    train(plain, steps=4)
    for name in ("scaled", "stopped"):
        np.testing.assert_array_equal(value(model, name), value(plain, name))
    check_released(model.optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*some(COUNTING, ("AdamW", "Nadam"))])
def test_a_late_variable_counts_its_own_steps(name):
    check_late(lambda: make(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Adam", "Nadam"])
def test_a_late_variable_counts_its_own_steps_with_gradient_accumulation(name):
    check_late(lambda: make(name, gradient_accumulation_steps=2))


def test_without_a_count_of_its_own_the_first_steps_are_too_long():
    # What `start_counts` is for; shows that the test above can fail.
    model = probes(make("Adam"))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(10_000)
    start = value(model, "deep")
    train(model, steps=1)
    too_long = np.abs(value(model, "deep") - start).max()
    assert too_long > 2.5 * RATE
    model = probes(make("Adam"))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(10_000)
    train(model, Scale({}, {"deep": 10_000}), steps=1)
    assert np.abs(value(model, "deep") - start).max() == pytest.approx(RATE, rel=1e-3)


def test_comes_off_after_an_exception():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = probes(make("Adam"))
    with pytest.raises(KeyboardInterrupt):
        train(model, Scale({"scaled": 0.5}), Stop())
    assert "update_step" in vars(model.optimizer)
    model.predict(np.zeros((2, 2)), verbose=0)
    check_released(model.optimizer)


def test_an_own_update_step_of_the_users_is_given_back():
    model = probes(make("SGD"))
    calls = []
    theirs = model.optimizer.update_step

    def counted(*args):
        calls.append(args)
        return theirs(*args)

    vars(model.optimizer)["update_step"] = counted
    train(model, Scale({"scaled": 0.0}), steps=1)
    assert len(calls) == 4  # five variables, of which one is left alone
    assert vars(model.optimizer)["update_step"] is counted


MIRRORED = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from tests import test_updates as t

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
optimizers = {
    "AdamW": lambda rate: t.make("AdamW", rate),
    "scaled": lambda rate: keras.optimizers.LossScaleOptimizer(t.make("Lion", rate)),
    "Nadam": lambda rate: t.make("Nadam", rate),
}
for name, make in optimizers.items():
    with strategy.scope():
        t.check_factors(t.probes(make(t.RATE), jit_compile=False), make, jit_compile=False)
    if name != "scaled":
        with strategy.scope():
            late, fresh = (t.probes(make(t.RATE), jit_compile=False) for _ in range(2))
            late.optimizer.build(late.trainable_variables)
            late.optimizer.iterations.assign(50)
        t.train(late, t.Scale({}, {"deep": 50}))
        t.train(fresh)
        t.np.testing.assert_allclose(t.value(late, "deep"), t.value(fresh, "deep"), rtol=1e-5)
print("same on both replicas")
"""


@pytest.mark.slow
def test_two_replicas():
    """Two logical devices have to be there before TensorFlow starts: a process of its own."""
    done = run_alone(MIRRORED, timeout=600)
    assert "same on both replicas" in done.stdout, done.stderr[-3000:]
