"""Zeros hold in every kind of training: optimizers, precision, replicas, schedules."""

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
from kerasopt.pruning._schedules import tfmot_schedules
from tests.processes import run_alone
from tests.pruned import Watch, assert_pruned, fit, share, tiny

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
    done = run_alone(_REPLICAS)
    assert done.returncode == 0, done.stderr[-2000:]


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
