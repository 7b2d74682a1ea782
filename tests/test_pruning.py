"""Masks equal to TF-MOT's; zeros that hold through `fit`."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kerasopt as ko
from kerasopt.pruning import FractionSchedule, PruneLowMagnitude, magnitude_mask
from kerasopt.training import Timeline
from tests.models import compiled, small_cnn, stripes

KERNELS = ("stem_conv", "block1_project", "block2_conv", "logits")


def zeros(layer):
    return float(np.mean(layer.kernel.numpy() == 0))


def reference_mask(weights, sparsity):
    magnitude = np.sort(np.abs(weights.ravel()))[::-1]
    kept = np.float32(weights.size) * (np.float32(1.0) - np.float32(sparsity))
    kept = int(max(np.round(kept), 1))
    return (np.abs(weights) >= magnitude[kept - 1]).astype(weights.dtype)


@given(
    weights=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
        elements=st.floats(-2, 2, width=16),
    ),
    sparsity=st.floats(0.0, 0.99),
)
@settings(max_examples=80, deadline=None)
def test_mask_equals_numpy(weights, sparsity):
    np.testing.assert_array_equal(
        magnitude_mask(weights, sparsity), reference_mask(weights, sparsity)
    )


@given(low=st.floats(0.0, 0.98), high=st.floats(0.0, 0.98), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_mask_is_monotone_in_sparsity(low, high, seed):
    low, high = sorted((low, high))
    weights = np.random.default_rng(seed).normal(size=(5, 7)).astype("float32")
    assert np.all(magnitude_mask(weights, high).numpy() <= magnitude_mask(weights, low).numpy())


@pytest.mark.slow
def test_masks_are_those_of_tfmot_at_every_update(tmp_path):
    """TF-MOT runs in a process of its own, because it turns `tf.keras` into Keras 2."""
    rng = np.random.default_rng(3)
    weights = {
        f"w{i}": rng.normal(size=shape).astype("float32")
        for i, shape in enumerate([(64, 32), (3, 3, 8, 16), (17, 5)])
    }
    np.savez(tmp_path / "weights.npz", **weights)
    script = tmp_path / "oracle.py"
    script.write_text(
        "import os, sys\nos.environ['TF_USE_LEGACY_KERAS'] = '1'\n"
        "import numpy as np, tensorflow as tf, tensorflow_model_optimization as tfmot\n"
        "from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl\n"
        "weights = np.load(sys.argv[1])\n"
        "schedule = tfmot.sparsity.keras.PolynomialDecay(0.1, 0.85, 2, 42, frequency=10)\n"
        "out = {}\n"
        "for name in weights:\n"
        "    for step in range(2, 43, 10):\n"
        "        now = lambda: tf.constant(step, tf.int64)\n"
        "        p = pruning_impl.Pruning(now, lambda: [], schedule, [1, 1], 'AVG')\n"
        "        out[f'{name}_{step}'] = p._update_mask(tf.constant(weights[name]))[1].numpy()\n"
        "np.savez(sys.argv[2], **out)\n"
    )
    subprocess.run(
        [sys.executable, script, tmp_path / "weights.npz", tmp_path / "masks.npz"],
        check=True,
        capture_output=True,
    )
    masks = np.load(tmp_path / "masks.npz")
    schedule = FractionSchedule(initial_sparsity=0.1, begin=2 / 50, end=42 / 50, frequency=10)
    resolved = schedule.resolve(0.85, Timeline(1, 50))
    assert (resolved.begin_step, resolved.end_step, resolved.frequency) == (2, 42, 10)
    import tensorflow as tf

    for key in masks:
        name, step = key.split("_")
        due, sparsity = resolved(tf.constant(int(step), tf.int64))
        assert bool(due)
        np.testing.assert_array_equal(magnitude_mask(weights[name], sparsity), masks[key])


@pytest.fixture(scope="module")
def pruned():
    model = compiled(small_cnn())
    x, y = stripes(64)
    callback = PruneLowMagnitude(0.5)
    history = model.fit(x, y, epochs=3, batch_size=8, verbose=0, callbacks=[callback])
    return model, callback, history, (x, y)


def test_every_kernel_reaches_the_target_to_one_weight(pruned):
    model, callback, history, _ = pruned
    for name in KERNELS:
        kernel = model.get_layer(name).kernel.numpy()
        assert abs(np.sum(kernel == 0) - kernel.size / 2) <= 1, name
    assert zeros(model.get_layer("block1_depthwise")) == 0.0
    assert history.history["sparsity"] == sorted(history.history["sparsity"])
    assert callback.sparsity == pytest.approx(0.5, abs=0.01)
    assert [event.kind for event in callback.events] == ["prune", "prune"]


def test_model_is_ordinary_afterwards(pruned, tmp_path):
    model, _, _, (x, _) = pruned
    assert all(layer.kernel.constraint is None for layer in map(model.get_layer, KERNELS))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert zeros(loaded.get_layer("stem_conv")) == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"jit_compile": True},
        {"jit_compile": False},
        {"steps_per_execution": 4},
        {"run_eagerly": True},
    ],
)
def test_holds_however_the_step_is_compiled(options):
    model = compiled(small_cnn(), **options)
    x, y = stripes(64)
    model.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[PruneLowMagnitude(0.75)])
    assert zeros(model.get_layer("block2_conv")) == pytest.approx(0.75, abs=0.01)


def test_averaging_optimizer_keeps_the_zeros():
    optimizer = keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9)
    model = compiled(small_cnn(), optimizer=optimizer)
    x, y = stripes(64)
    model.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[PruneLowMagnitude(0.5)])
    assert zeros(model.get_layer("block2_conv")) == pytest.approx(0.5, abs=0.01)


def test_users_constraint_is_applied_and_given_back():
    model = small_cnn()
    constraint = keras.constraints.MaxNorm(0.1)
    model.get_layer("logits").kernel.constraint = constraint
    compiled(model)
    x, y = stripes(64)
    model.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[PruneLowMagnitude(0.5)])
    kernel = model.get_layer("logits").kernel
    assert kernel.constraint is constraint
    assert np.all(np.linalg.norm(kernel.numpy(), axis=0) <= 0.1 + 1e-5)


def test_interrupted_fit_leaves_no_constraint_for_the_next():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled(small_cnn())
    x, y = stripes(64)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            x, y, epochs=2, batch_size=8, verbose=0, callbacks=[PruneLowMagnitude(0.5), Stop()]
        )
    assert model.get_layer("logits").kernel.constraint is not None
    model.fit(x, y, batch_size=8, verbose=0)
    assert model.get_layer("logits").kernel.constraint is None


def test_frozen_kernels_stay_bit_equal_and_are_named():
    model = small_cnn()
    model.get_layer("stem_conv").trainable = False
    compiled(model)
    before = model.get_layer("stem_conv").kernel.numpy()
    x, y = stripes(64)
    with pytest.warns(UserWarning, match=r"did not reach its sparsity of 50.0% in stem_conv"):
        model.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[PruneLowMagnitude(0.5)])
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel.numpy(), before)


def test_layer_filter():
    model = compiled(small_cnn())
    x, y = stripes(32)
    callback = PruneLowMagnitude(0.5, layers="block2|depthwise")
    model.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[callback])
    assert zeros(model.get_layer("block2_conv")) == pytest.approx(0.5, abs=0.01)
    assert zeros(model.get_layer("block1_depthwise")) == pytest.approx(0.5, abs=0.02)
    assert zeros(model.get_layer("stem_conv")) == 0.0


def test_tfmot_schedule_as_it_is():
    from kerasopt.pruning._schedules import tfmot_schedules

    schedule = tfmot_schedules().PolynomialDecay(0.2, 0.6, begin_step=2, end_step=12, frequency=5)
    model = compiled(small_cnn())
    x, y = stripes(64)
    model.fit(
        x, y, epochs=2, batch_size=8, verbose=0, callbacks=[PruneLowMagnitude(schedule=schedule)]
    )
    assert zeros(model.get_layer("block2_conv")) == pytest.approx(0.6, abs=0.01)


@given(
    total=st.integers(2, 3000),
    begin=st.floats(0, 0.9),
    span=st.floats(0.05, 0.9),
    final=st.floats(0.0, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_schedule_in_fractions_ends_on_its_target(total, begin, span, final):
    import tensorflow as tf

    end = min(1.0, begin + span)
    schedule = FractionSchedule(begin=begin, end=end)
    if round(begin * total) >= min(round(end * total), total - 1):
        with pytest.raises(ValueError, match="cannot finish in the planned steps"):
            schedule.resolve(final, Timeline(1, total))
        return
    resolved = schedule.resolve(final, Timeline(1, total))
    assert 0 <= resolved.begin_step < resolved.end_step <= total - 1
    due, sparsity = resolved(tf.constant(resolved.end_step, tf.int64))
    assert bool(due)
    assert math.isclose(float(sparsity), final, abs_tol=1e-6)


@pytest.mark.parametrize("value", [1.0, 1.5, -0.1, math.nan])
def test_sparsity_out_of_range(value):
    with pytest.raises(ValueError, match=r"`final_sparsity` must be a number in \[0, 1\)"):
        PruneLowMagnitude(value)


def test_sparsity_of_wrong_type():
    with pytest.raises(TypeError, match="Received: final_sparsity='half'"):
        PruneLowMagnitude("half")


def test_unknown_layer_offers_the_nearest():
    model = compiled(small_cnn())
    x, y = stripes(8)
    with pytest.raises(
        ValueError, match=r"Received: layers='block2_cnv'. Did you mean 'block2_conv'"
    ):
        model.fit(x, y, verbose=0, callbacks=[PruneLowMagnitude(layers="block2_cnv")])
    assert "make_train_function" not in vars(model)
    assert model.get_layer("block2_conv").kernel.constraint is None


def test_schedule_that_cannot_finish():
    from kerasopt.pruning._schedules import tfmot_schedules

    schedule = tfmot_schedules().PolynomialDecay(0.0, 0.6, begin_step=0, end_step=1000)
    model = compiled(small_cnn())
    x, y = stripes(8)
    with pytest.raises(ValueError, match=r"cannot finish in the planned steps: it needs step 1000"):
        model.fit(x, y, verbose=0, callbacks=[PruneLowMagnitude(schedule=schedule)])
    with pytest.raises(
        ValueError, match=r"cannot finish in the planned steps: it begins at step 0"
    ):
        model.fit(x, y, verbose=0, callbacks=[PruneLowMagnitude()])


def test_schedule_of_wrong_type():
    with pytest.raises(TypeError, match=r"`schedule` must be a ko.pruning.FractionSchedule"):
        PruneLowMagnitude(schedule=0.5)


def test_model_that_is_not_built():
    model = compiled(keras.Sequential([keras.layers.Dense(2)]))
    callback = PruneLowMagnitude()
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": 10})
    with pytest.raises(ValueError, match=r"needs a model that is built. Received: built=False"):
        callback.on_train_begin()


def test_unknown_length_needs_steps():
    x, y = stripes(8)
    model = compiled(small_cnn())

    def generator():
        for _ in range(4):
            yield x, y

    with pytest.raises(ValueError, match="needs the number of steps of an epoch"):
        model.fit(generator(), shuffle=False, verbose=0, callbacks=[PruneLowMagnitude()])


def test_every_callback_is_in_the_index():
    assert ko.callbacks.PruneLowMagnitude is PruneLowMagnitude
