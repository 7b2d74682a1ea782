"""Ranges ride in checkpoints: a killed and restarted run ends as if nothing had happened."""

import contextlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasopt.quantization import FakeQuantize, QuantizeAware
from tests.interruptions import Kill
from tests.models import compiled, stripes

X, Y = stripes(32)
PARTS = ("minimum", "maximum", "seen")


def tiny(seed=0):
    """One group of every kind, nothing random in a step."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=3, use_bias=False, name="stem_conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    return compiled(model, jit_compile=False)


class First(keras.callbacks.Callback):
    """Keeps the ranges that the first batch of a run finds."""

    def __init__(self, quantize):
        super().__init__()
        self.quantize = quantize
        self.state = None

    def on_train_batch_begin(self, batch, logs=None):
        if self.state is None:
            self.state = ranges_of(self.quantize)


def ranges_of(quantize):
    layers = [la for la in quantize.quantized_model.layers if isinstance(la, FakeQuantize)]
    return [np.array(getattr(layer, part)) for layer in layers for part in PARTS]


def state(model, quantize):
    weights = [np.array(v) for v in [*model.weights, *model.optimizer.variables]]
    return weights + ranges_of(quantize)


def start(folder, kill=None, *, last=False, save_freq="epoch", **options):
    """A new process in all but name: model, optimizer and callbacks are made anew."""
    keras.utils.set_random_seed(0)
    model = tiny()
    quantize = QuantizeAware(start=0.25, **options)
    backup = keras.callbacks.BackupAndRestore(folder / "backup", save_freq=save_freq)
    first = First(quantize)
    order = [backup, quantize] if last else [quantize, backup]
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(
            X, Y, batch_size=8, epochs=4, shuffle=False, verbose=0,
            callbacks=[*order, first, *([Kill(kill)] if kill else [])],
        )  # fmt: skip
    return model, quantize, first


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    model, quantize, _ = start(tmp_path_factory.mktemp("whole"), calibration=X[:8])
    return state(model, quantize)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "last"),
    [
        (9, True),
        *((kill, bool(kill % 3)) for kill in (1, 5, 7, 13, 15)),
    ],
)
def test_killed_at_any_step_ends_as_if_nothing_had_happened(tmp_path, whole, kill, last):
    start(tmp_path, kill=kill, last=last, calibration=X[:8])
    # Calibration data that are others: a restored run does not look at them.
    other = X[:8] if kill <= 8 else X[8:16]
    model, quantize, _ = start(tmp_path, last=last, calibration=other)
    assert_equal(state(model, quantize), whole)
    assert not {"kerasopt_ranges", "save_weights", "load_weights"} & set(vars(model))


KILLED = """
import os, pathlib, signal, sys
import keras
import numpy as np
from tests import test_quantization_resume as resume

class KillProcess(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

folder = pathlib.Path(sys.argv[1])
resume.Kill = lambda _: KillProcess()
model, quantize, _ = resume.start(folder, kill=1, calibration=resume.X[:8])
np.savez(folder / "state.npz", *resume.state(model, quantize))
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_in_another(tmp_path, whole):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    first = subprocess.run([*command, "10"], check=False, capture_output=True)
    assert first.returncode == -signal.SIGKILL
    assert not (tmp_path / "state.npz").exists()
    subprocess.run([*command, "1000"], check=True, capture_output=True)
    with np.load(tmp_path / "state.npz") as found:
        assert_equal([found[name] for name in found.files], whole)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [6, 14])
def test_killed_within_an_epoch_begins_with_the_ranges_of_then(tmp_path, kill):
    _, stopped, _ = start(tmp_path, kill=kill, save_freq=1)
    _, _, first = start(tmp_path, kill=1, save_freq=1)
    # The file is from behind the last batch, since the callback that kills comes last.
    assert_equal(first.state, ranges_of(stopped))


def test_files_that_are_saved_meanwhile_are_ordinary(tmp_path):
    model = tiny()
    callbacks = [
        QuantizeAware(),
        keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "m.weights.h5", save_weights_only=True),
    ]
    model.fit(X, Y, batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded.get_weights(), model.get_weights())
    model.save(tmp_path / "after.keras")
    sizes = [(tmp_path / name).stat().st_size for name in ("model.keras", "after.keras")]
    assert sizes[0] == pytest.approx(sizes[1], abs=64)  # nothing of ours is in it
    plain = tiny(seed=1)
    plain.optimizer.build(plain.trainable_variables)
    plain.load_weights(tmp_path / "m.weights.h5")
    assert_equal(plain.get_weights(), model.get_weights())


@pytest.mark.slow
def test_killed_behind_the_last_epoch(tmp_path, whole):
    class Late(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise KeyboardInterrupt

    quantize = QuantizeAware(start=0.25, calibration=X[:8])
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with contextlib.suppress(KeyboardInterrupt):
        tiny().fit(
            X, Y, batch_size=8, epochs=4, shuffle=False, verbose=0,
            callbacks=[Late(), quantize, backup],
        )  # fmt: skip
    model, quantize, first = start(tmp_path)
    assert first.state is None  # no batch was left
    assert quantize.begun
    assert_equal(state(model, quantize), whole)


@pytest.mark.slow
def test_a_backup_of_a_training_without_quantization(tmp_path):
    keras.utils.set_random_seed(0)
    model = tiny()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[backup])
    _, quantize, _ = start(tmp_path)
    assert [event.epoch for event in quantize.events] == [2.0, 2.5, 3.25]
    assert all(np.all(seen > 0) for seen in ranges_of(quantize)[2::3])


@pytest.mark.slow
def test_a_backup_of_other_ranges(tmp_path):
    start(tmp_path, kill=9)
    with pytest.raises(ValueError, match=r"must hold the ranges of the model.*Received: 4 ranges"):
        start(tmp_path, layers="stem")


@pytest.mark.slow
def test_what_a_killed_fit_left_goes_with_the_next_call(tmp_path):
    model, _, _ = start(tmp_path, kill=6)
    assert "save_weights" in vars(model)
    model.save_weights(tmp_path / "m.weights.h5")
    assert "save_weights" not in vars(model)
    model.load_weights(tmp_path / "m.weights.h5")
    assert not {"kerasopt_ranges", "load_weights"} & set(vars(model))
