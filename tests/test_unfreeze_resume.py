"""A run that is killed and started again: the same blocks open, the same optimizer state."""

import contextlib

import keras
import numpy as np
import pytest

from kerasopt.transfer import GradualUnfreeze, Unfreeze, build_classifier
from tests.interruptions import Kill
from tests.models import compiled, small_cnn, stripes

STEPS = 4


class First(keras.callbacks.Callback):
    """Keeps what the first batch of a run finds."""

    def __init__(self):
        super().__init__()
        self.state = None

    def on_train_batch_begin(self, batch, logs=None):
        if self.state is None:
            self.state = state(self.model)


def state(model):
    flags = {v.path for v in model.trainable_variables}
    slots = [np.asarray(v) for v in model.optimizer.variables]
    return flags, slots, [np.asarray(w) for w in model.weights]


def start(tmp_path, callback, kill=None, save_freq="epoch", **options):
    """A new process in all but name: model, optimizer and callbacks are made anew."""
    keras.utils.set_random_seed(0)
    model = build_classifier(small_cnn(), 4, input_shape=(12, 12, 3), dropout=0.0)
    compiled(model, jit_compile=False, **options)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=save_freq)
    first = First()
    x, y = stripes(8 * STEPS)
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(
            x,
            y,
            batch_size=8,
            epochs=5,
            shuffle=False,
            verbose=0,
            callbacks=[backup, callback, first, *([Kill(kill)] if kill else [])],
        )
    return model, first


SCHEDULES = {
    "epochs": lambda: Unfreeze({1: 1, 3: "all"}),
    "within epochs": lambda: Unfreeze({0.3: 1, 0.7: "all"}, batch_norm="train"),
    "gradual": lambda: GradualUnfreeze(0.25, 0.8, groups=3, batch_norm="affine"),
}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kill", [1, 5, 9, 13, 15, 18])
def test_killed_at_any_step_ends_as_if_nothing_had_happened(tmp_path, schedule, kill):
    whole, _ = start(tmp_path / "whole", SCHEDULES[schedule]())
    start(tmp_path, SCHEDULES[schedule](), kill=kill)
    resumed, _ = start(tmp_path, SCHEDULES[schedule]())
    for found, expected in zip(state(resumed)[1:], state(whole)[1:], strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert state(resumed)[0] == state(whole)[0]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [7, 15])
def test_killed_within_an_epoch_begins_with_what_was_open(tmp_path, kill):
    """Keras begins the epoch again, on the weights of the last saved batch."""
    schedule = SCHEDULES["within epochs"]
    stopped, _ = start(tmp_path, schedule(), kill=kill, save_freq=1)
    _, first = start(tmp_path, schedule())
    flags, slots, weights = first.state
    expected = state(stopped)
    assert flags == expected[0]
    for one, other in zip(slots + weights, expected[1] + expected[2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_restored_layers_keep_their_own_count(tmp_path):
    def schedule():
        return Unfreeze({2: "all"})

    start(tmp_path, schedule(), kill=13, optimizer=keras.optimizers.Adam(1e-3))
    model, first = start(tmp_path, schedule(), kill=1, optimizer=keras.optimizers.Adam(1e-3))
    assert int(model.optimizer.iterations) == 13
    place = [w.path for w in model.weights].index("stem_conv/kernel")
    step = first.state[2][place] - np.asarray(model.weights[place])
    slots = {v.name: np.asarray(v) for v in model.optimizer.variables}
    m, v = slots["stem_conv_kernel_momentum"], slots["stem_conv_kernel_velocity"]
    # Twelve steps were saved and the layer opened at the eighth: this was its fifth.
    expected = 1e-3 * m * np.sqrt(1 - 0.999**5) / (1 - 0.9**5) / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(step, expected, rtol=1e-3, atol=1e-7)
