"""Zeros hold in every kind of training: optimizers, precision, replicas, resuming, own loops."""

import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.pruning import (
    ConstantSchedule,
    FractionSchedule,
    Masks,
    PruneLowMagnitude,
    StepSchedule,
    keep_masks,
)
from kerasopt.pruning._kernels import find_kernels
from kerasopt.pruning._schedules import tfmot_schedules
from tests.models import compiled, small_cnn, stripes

ROOT = pathlib.Path(__file__).resolve().parents[1]
X, Y = stripes(64)


def tiny(**options):
    """Two layers with kernels, nothing random in a step."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=3, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, name="logits"),
        ]
    )
    return compiled(model, **{"jit_compile": False, **options})


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def share(model):
    return {k.path: k.zeros() / k.size for k in find_kernels(model, None, who="test")}


def assert_pruned(model, sparsity):
    for kernel in find_kernels(model, None, who="test"):
        assert abs(kernel.zeros() - kernel.size * sparsity) <= 1, kernel.path


# Optimizers and precision


OPTIMIZERS = [
    name
    for name in ("SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor",
                 "Nadam", "Ftrl", "Lion", "Lamb", "Muon")
    if hasattr(keras.optimizers, name)
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer(name):
    model = tiny(optimizer=getattr(keras.optimizers, name)(1e-3))
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(share(model)["conv"])

    fit(model, PruneLowMagnitude(0.75, schedule=ConstantSchedule()), Watch(), epochs=1)
    # Ftrl sets weights to zero on its own.
    assert min(seen) >= 0.75 if name == "Ftrl" else seen == [0.75] * 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 3},
        {"use_ema": True, "ema_momentum": 0.9},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
        {"weight_decay": 0.01},
        {"clipnorm": 0.1},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_of_the_optimizer(options):
    model = tiny(optimizer=keras.optimizers.Adam(1e-3, **options))
    fit(model, PruneLowMagnitude(0.75))
    assert_pruned(model, 0.75)


@pytest.mark.slow
def test_averages_in_the_model_have_the_zeros_too(tmp_path):
    model = tiny(optimizer=keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9))
    callbacks = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        PruneLowMagnitude(0.75, schedule=FractionSchedule(end=0.5)),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
    ]
    fit(model, *callbacks, epochs=4)
    assert_pruned(model, 0.75)
    for epoch in (3, 4):
        assert_pruned(keras.models.load_model(tmp_path / f"{epoch}.keras"), 0.75)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("jit_compile", [True, False])
def test_precision(policy, jit_compile):
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny(jit_compile=jit_compile)
        fit(model, PruneLowMagnitude(0.5, structure="2:4", layers="conv|logits"))
        values = np.asarray(model.get_layer("logits").kernel, "float32")
    finally:
        keras.config.set_dtype_policy("float32")
    groups = values.reshape(2, 4, 4)
    assert np.all((groups != 0).sum(axis=1) <= 2)


@pytest.mark.parametrize(
    "options",
    [{"steps_per_execution": 3}, pytest.param({"run_eagerly": True}, marks=pytest.mark.slow)],
    ids=str,
)
def test_steps(options):
    model = tiny(**options)
    history = fit(model, PruneLowMagnitude(0.75), epochs=3).history
    assert_pruned(model, 0.75)
    assert history["sparsity"] == sorted(history["sparsity"])


_REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import kerasopt as ko
from kerasopt.pruning._kernels import find_kernels
from tests.models import compiled, small_cnn, stripes
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = stripes(64)
# With jit_compile=True or steps_per_execution > 1, Keras itself does not train on two CPUs.
for scope in ("layer", "global"):
    with strategy.scope():
        model = compiled(small_cnn(), jit_compile=False)
    prune = ko.pruning.PruneLowMagnitude(0.75, scope=scope)
    seen = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[prune]).history["sparsity"]
    assert abs(seen[-1] - 0.75) < 0.01, seen
    with ko.pruning.keep_masks(model) as kept:
        model.fit(x, y, batch_size=8, verbose=0)
        assert abs(kept.sparsity - 0.75) < 0.01
    for kernel in find_kernels(model, None, who="test"):
        first, second = strategy.experimental_local_results(kernel.variable.value)
        np.testing.assert_array_equal(first, second)
"""


@pytest.mark.slow
def test_several_replicas():
    """Two logical devices have to be there before TensorFlow starts: a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _REPLICAS], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


# Resuming


class Kill(keras.callbacks.Callback):
    """Ends the training as a killed process does, behind a batch; notes the sparsity."""

    def __init__(self, step):
        super().__init__()
        self.step = step
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches == self.step:
            raise KeyboardInterrupt


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.zeros = []

    def on_train_batch_end(self, batch, logs=None):
        self.zeros.append(
            [k.variable.numpy() == 0 for k in find_kernels(self.model, None, who="test")]
        )


def resumed(tmp_path, kill_at, save_freq, prune_first, **options):
    """Trains 4 epochs of 8 batches, killed behind a batch, and again from the backup."""
    prune = PruneLowMagnitude(0.75, schedule=FractionSchedule(frequency=3), **options)
    watches = []
    for callbacks in ([Kill(kill_at)], []):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=save_freq)
        watches.append(Watch())
        order = [prune, backup] if prune_first else [backup, prune]
        model = tiny()  # as a new process makes it
        try:
            fit(model, *order, watches[-1], *callbacks, epochs=4)
        except KeyboardInterrupt:
            continue
    return model, watches


@pytest.mark.parametrize(
    ("kill_at", "prune_first"),
    [
        (12, True),
        pytest.param(9, False, marks=pytest.mark.slow),
        pytest.param(17, True, marks=pytest.mark.slow),
        pytest.param(30, False, marks=pytest.mark.slow),
    ],
)
def test_backup_of_an_epoch_ends_like_a_training_without_a_kill(tmp_path, kill_at, prune_first):
    model, (_, after) = resumed(tmp_path, kill_at, "epoch", prune_first)
    whole, watch = tiny(), Watch()
    fit(whole, PruneLowMagnitude(0.75, schedule=FractionSchedule(frequency=3)), watch, epochs=4)
    assert 0 < len(after.zeros) < 32
    for found, expected in zip(after.zeros[::-1], watch.zeros[::-1], strict=False):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("kill_at", "scope"), [(5, "layer"), (13, "global"), (21, "erk")])
def test_backup_in_the_middle_of_an_epoch_keeps_every_zero(tmp_path, kill_at, scope):
    model, (before, after) = resumed(tmp_path, kill_at, 1, True, scope=scope)
    # Keras repeats the epoch, so the schedule is behind the weights for some batches. The backup
    # is from before the kill: it was saved behind the last batch but one or the last.
    dead = before.zeros[-2]
    for zeros in after.zeros:
        for one, other in zip(dead, zeros, strict=True):
            assert np.all(other[one])
    found = find_kernels(model, None, who="test")
    assert sum(k.zeros() for k in found) == pytest.approx(0.75 * sum(k.size for k in found), abs=2)


def test_a_schedule_that_is_over_on_resume():
    model = tiny()
    with pytest.raises(
        ValueError,
        match=r"already over: it ends at step 20. Received: training that resumes at step 24, "
        r"with 0.0% zeros in conv. Let the schedule end later",
    ):
        fit(
            model, PruneLowMagnitude(0.5, schedule=FractionSchedule(end=0.625)),
            epochs=4, initial_epoch=3,
        )  # fmt: skip
    assert all(weight.constraint is None for weight in model.weights)
    prune = PruneLowMagnitude(0.5, schedule=FractionSchedule(end=0.625))
    fit(model, prune, epochs=4)
    fit(model, prune, epochs=5, initial_epoch=4)  # with the zeros it goes on
    assert_pruned(model, 0.5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length_go_on_where_the_optimizer_was():
    schedule = tfmot_schedules().PolynomialDecay(0.0, 0.5, 0, 20, frequency=5)

    def batches():
        for index in range(0, 64, 8):
            yield X[index : index + 8], Y[index : index + 8]

    def data():
        signature = (tf.TensorSpec((8, 12, 12, 3)), tf.TensorSpec((8,), "int32"))
        return tf.data.Dataset.from_generator(batches, output_signature=signature)

    model, watch = tiny(), Watch()
    with pytest.warns(UserWarning, match="did not reach its sparsity"):
        model.fit(data(), epochs=2, verbose=0, callbacks=[PruneLowMagnitude(schedule=schedule)])
    zeros = share(model)["conv"]
    assert 0.4 < zeros < 0.5
    model.fit(
        data(), epochs=3, initial_epoch=2, verbose=0,
        callbacks=[PruneLowMagnitude(schedule=schedule), watch],
    )  # fmt: skip
    assert watch.zeros[0][0].mean() >= zeros
    assert share(model)["conv"] == 0.5


# A second fit, and loops of one's own


def test_a_second_fit_with_pruning_brings_no_weight_back():
    model, watch = tiny(), Watch()
    fit(model, PruneLowMagnitude(0.5))
    dead = np.array(model.get_layer("conv").kernel) == 0
    fit(model, PruneLowMagnitude(0.75), watch)
    assert all(zeros[0][dead].all() for zeros in watch.zeros)
    assert_pruned(model, 0.75)


@pytest.mark.parametrize("jit_compile", [pytest.param(True, marks=pytest.mark.slow), False])
def test_kept_masks_hold_until_released(jit_compile, tmp_path):
    model = tiny(jit_compile=jit_compile)
    fit(model, PruneLowMagnitude(0.75))
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    dead = np.array(model.get_layer("conv").kernel) == 0
    before = np.array(model.get_layer("conv").kernel)
    with keep_masks(model) as kept:
        assert kept.paths == ("conv", "logits")
        fit(model)
        model.train_on_batch(X[:8], Y[:8])
        after = np.array(model.get_layer("conv").kernel)
        np.testing.assert_array_equal(after == 0, dead)
        assert np.any(after != before)
        model.save(tmp_path / "again.keras")
    assert kept.sparsity == pytest.approx(0.75, abs=0.01)
    fit(model)
    assert share(model)["conv"] == 0.0
    assert_pruned(keras.models.load_model(tmp_path / "again.keras"), 0.75)


@pytest.mark.slow
def test_kept_masks_give_the_users_constraint_back():
    model = tiny()
    fit(model, PruneLowMagnitude(0.5))
    constraint = keras.constraints.MaxNorm(0.1)
    model.get_layer("logits").kernel.constraint = constraint
    masks = keep_masks(model, layers="logits")
    assert masks.paths == ("logits",)
    fit(model)
    masks.release()
    kernel = model.get_layer("logits").kernel
    assert kernel.constraint is constraint
    assert np.all(np.linalg.norm(kernel, axis=0) <= 0.1 + 1e-5)
    assert np.mean(np.array(kernel) == 0) == 0.5


@pytest.mark.slow
def test_a_kernel_of_nothing_but_zeros_trains():
    model = tiny()
    fit(model, PruneLowMagnitude(0.5))
    model.get_layer("logits").kernel.assign(np.zeros((8, 4)))
    with keep_masks(model) as kept:
        assert kept.paths == ("conv",)
    fit(model, PruneLowMagnitude(0.5, schedule=ConstantSchedule(0.5)))
    assert share(model)["logits"] == 0.5


@pytest.mark.parametrize("compile_step", [False, True])
def test_custom_training_loop(compile_step):
    model = tiny()
    optimizer = keras.optimizers.Adam(1e-2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masks = Masks(model, 0.75, total_steps=24)

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)

    if compile_step:
        optimizer.build(model.trainable_variables)
        step = tf.function(step)
    seen = []
    for index in range(24):
        masks.update(index)
        first = index % 8 * 8
        step(X[first : first + 8], Y[first : first + 8])
        seen.append(masks.sparsity)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(0.75, abs=0.01)
    masks.release()
    assert all(weight.constraint is None for weight in model.weights)
    model.get_layer("conv").kernel.assign_add(np.ones((3, 3, 3, 8)))
    masks.apply()
    assert share(model)["conv"] == 0.75


@pytest.mark.slow
def test_masks_are_the_same_in_a_loop_and_in_fit():
    prune, model, other = PruneLowMagnitude(0.75), tiny(), tiny()
    fit(model, prune, epochs=2)
    masks = Masks(other, 0.75, total_steps=16)
    for index in range(16):
        masks.update(index)
        first = index % 8 * 8
        other.train_on_batch(X[first : first + 8], Y[first : first + 8])
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)


def test_loop_that_goes_on_keeps_its_zeros():
    model = tiny()
    with Masks(model, 0.75, total_steps=20) as masks:
        masks.update(10)
        dead = np.array(model.get_layer("conv").kernel) == 0
    with Masks(model, 0.75, total_steps=20) as masks:
        masks.update(5)
        np.testing.assert_array_equal(np.array(model.get_layer("conv").kernel) == 0, dead)
        masks.update(20)
    assert_pruned(model, 0.75)


# Schedules


def test_schedule_in_steps():
    model, watch = tiny(), Watch()
    fit(model, PruneLowMagnitude(0.5, schedule=StepSchedule(3, 13, frequency=5)), watch)
    found = [zeros[0].mean() for zeros in watch.zeros]
    assert found[:3] == [0.0] * 3
    assert found[13:] == [0.5] * 3
    with pytest.raises(ValueError, match=r"needs step 13. Received: 8 steps of training"):
        fit(model, PruneLowMagnitude(0.5, schedule=StepSchedule(3, 13)), epochs=1)


@pytest.mark.slow
def test_schedule_in_epochs():
    model, watch = tiny(), Watch()
    fit(model, PruneLowMagnitude(0.5, schedule=FractionSchedule(begin=1, end=2)), watch, epochs=3)
    assert [watch.zeros[step][0].mean() for step in (7, 16)] == [0.0, 0.5]


def test_constant_schedule():
    model, watch = tiny(), Watch()
    fit(model, PruneLowMagnitude(0.5, schedule=ConstantSchedule(0.5)), watch)
    assert [zeros[0].mean() for zeros in watch.zeros] == [0.0] * 8 + [0.5] * 8


def test_the_schedule_of_tfmots_tutorial_ends_with_training():
    """`end_step` is the number of steps there, and the frequency does not divide it."""
    schedule = tfmot_schedules().PolynomialDecay(0.5, 0.8, begin_step=0, end_step=16, frequency=3)
    model = tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, PruneLowMagnitude(schedule=schedule))
    assert_pruned(model, 0.8)


def test_a_frequency_that_leaves_the_end_out_is_told():
    schedule = tfmot_schedules().PolynomialDecay(0.0, 0.8, begin_step=0, end_step=16, frequency=9)
    with pytest.warns(UserWarning, match=r"did not reach.*a frequency that does not divide"):
        fit(tiny(), PruneLowMagnitude(schedule=schedule))


# Bad input


def test_two_pruning_callbacks_on_the_same_layers():
    model = tiny()
    with pytest.raises(ValueError, match=r"must be the only one that prunes a layer. Received: "
                       r"'conv', which PruneLowMagnitude prunes too"):  # fmt: skip
        fit(model, PruneLowMagnitude(0.5), PruneLowMagnitude(0.6, layers="conv"))
    fit(model)
    fit(model, PruneLowMagnitude(0.5, layers="conv"), PruneLowMagnitude(0.75, layers="logits"))
    assert share(model) == {"conv": 0.5, "logits": 0.75}
    with keep_masks(model), pytest.raises(ValueError, match="which keep_masks prunes too"):
        fit(model, PruneLowMagnitude(0.9))
    assert all(weight.constraint is None for weight in model.weights)


def test_bad_use_of_masks():
    with pytest.raises(ValueError, match=r"needs a model that is built. Received: built=False"):
        Masks(keras.Sequential([keras.layers.Dense(2)]), total_steps=4)
    with pytest.raises(TypeError, match="needs a Keras 3 model"):
        Masks("model.keras", total_steps=4)
    with pytest.raises(ValueError, match=r"needs the number of steps.*total_steps to Masks"):
        Masks(tiny())
    with pytest.raises(ValueError, match="`keep_masks` needs a model with zeros"):
        keep_masks(tiny())
    masks = Masks(tiny(), total_steps=8)
    with pytest.raises(ValueError, match="`step` must be an integer >= 0"):
        masks.update(-1)
    with pytest.raises(RuntimeError, match="must be called between steps"):
        tf.function(lambda: masks.update(0))()


def test_callback_outside_of_fit():
    callback = PruneLowMagnitude()
    assert callback.sparsity == 0.0
    with pytest.raises(RuntimeError, match="must be given to `fit`"):
        callback.on_epoch_end(0, {})


@pytest.mark.slow
def test_masks_survive_what_an_interrupted_fit_left():
    model = compiled(small_cnn(), jit_compile=False)
    with pytest.raises(KeyboardInterrupt):
        fit(model, PruneLowMagnitude(0.5), Kill(2))
    with Masks(model, 0.5, total_steps=4) as masks:
        assert len(masks.paths) == 4
    assert all(weight.constraint is None for weight in model.weights)
