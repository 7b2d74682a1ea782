"""Zeros hold when training is resumed, goes on in a second fit, or is a loop of one's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.pruning import (
    ConstantSchedule,
    FractionSchedule,
    Masks,
    PruneLowMagnitude,
    keep_masks,
)
from kerasopt.pruning._kernels import find_kernels
from kerasopt.pruning._schedules import tfmot_schedules
from tests.interruptions import Kill
from tests.models import compiled, small_cnn
from tests.pruned import Watch, X, Y, assert_pruned, fit, share, tiny

# Resuming


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


@pytest.mark.slow
def test_masks_survive_what_an_interrupted_fit_left():
    model = compiled(small_cnn(), jit_compile=False)
    with pytest.raises(KeyboardInterrupt):
        fit(model, PruneLowMagnitude(0.5), Kill(2))
    with Masks(model, 0.5, total_steps=4) as masks:
        assert len(masks.paths) == 4
    assert all(weight.constraint is None for weight in model.weights)


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
