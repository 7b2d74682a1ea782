"""`Distill` beside everything else: callbacks, precision, XLA, replicas, interrupted runs."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.distillation import Distill, cache_targets
from tests.models import compiled, small_cnn, stripes

ROOT = pathlib.Path(__file__).resolve().parents[1]
X, Y = stripes(32)
FEATURES = {"block2_conv": "block1_relu"}


def teacher():
    return small_cnn(seed=5)


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    ).history  # fmt: skip


def everything(distill):
    return [
        ko.augmentation.MixUp(1.0, seed=1, end=0.5),
        ko.augmentation.CutMix(seed=2, end=0.5),
        ko.transfer.Unfreeze({0.25: 1, 0.5: "all"}),
        ko.pruning.PruneLowMagnitude(0.5),
        ko.quantization.QuantizeAware(start=0.5),
        distill,
    ]


def check_all_together(path, *, augmentation=True, distill=None, **options):
    layer = ko.augmentation.basic(seed=1) if augmentation else None
    model = compiled(ko.transfer.build_classifier(small_cnn(), 4, augmentation=layer), **options)
    distill = distill or Distill(teacher(), features=FEATURES)
    callbacks = everything(distill)
    history = fit(model, *callbacks, epochs=4)
    assert {"hard_loss", "soft_loss", "teacher_agreement", "sparsity"} <= set(history)
    assert all(np.isfinite(values).all() for values in history.values())
    assert callbacks[3].sparsity == pytest.approx(0.5, abs=0.05)
    assert ko.quantization.is_quantization_aware(callbacks[4].quantized_model)
    assert not {"call", "compute_loss", "compute_metrics", "train_step"} & set(vars(model))
    assert not any("call" in vars(layer) for layer in model.layers)
    assert set(fit(model, epochs=1)) == {"accuracy", "loss"}
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    return callbacks


@pytest.mark.slow
def test_all_together(tmp_path):
    callbacks = check_all_together(tmp_path / "model.keras")
    quantized = callbacks[4].quantized_model
    made = ko.export.to_tflite(quantized, quantize="int8", verify=(X, Y))
    assert made.samples == len(X)


@pytest.mark.slow
def test_all_together_under_xla(tmp_path):
    check_all_together(tmp_path / "model.keras", augmentation=False, jit_compile=True)


@pytest.mark.slow
def test_all_together_in_mixed_precision(tmp_path):
    before = keras.config.dtype_policy()
    full = teacher()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        check_all_together(
            tmp_path / "model.keras", distill=Distill(full, features=FEATURES), jit_compile=False
        )
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_all_together_with_the_average_as_teacher(tmp_path):
    distill = Distill("ema", features={"block1_relu": "block1_relu"})
    check_all_together(tmp_path / "model.keras", distill=distill, steps_per_execution=2)


@pytest.mark.slow
def test_the_quantized_student_and_its_teacher_see_one_photo():
    # A student that does not move differs from a teacher with its weights by rounding alone.
    model = ko.transfer.build_classifier(
        small_cnn(), 4, augmentation=ko.augmentation.basic(seed=1), dropout=0.0
    )
    frozen = keras.models.clone_model(model)
    frozen.set_weights(model.get_weights())
    for layer in model.layers:
        layer.trainable = "bn" not in layer.name
    compiled(model, optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
    history = fit(model, Distill(frozen), ko.quantization.QuantizeAware(start=0.5), epochs=4)
    z = frozen.predict(X, verbose=0)
    unlike = float(ko.distillation.kl_loss(z[::-1], z, 4.0))
    assert history["soft_loss"][0] == pytest.approx(0, abs=1e-7)
    assert 0 < history["soft_loss"][-1] < 0.2 * unlike


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["features", "ema", "stored"])
def test_xla_steps_and_eager_steps_are_the_same(kind, tmp_path):
    options = {
        "features": {"teacher": teacher(), "features": FEATURES},
        "ema": {"teacher": "ema", "ema_momentum": 0.5},
        "stored": {"targets": cache_targets(X, teacher(), tmp_path / "targets.npz")},
    }[kind]
    found = []
    for compile_options in (
        {"jit_compile": False},
        {"jit_compile": True},
        {"jit_compile": False, "run_eagerly": True},
    ):
        model = small_cnn()
        model.get_layer("head_dropout").rate = 0.0
        compiled(model, optimizer=keras.optimizers.SGD(0.05), **compile_options)
        history = fit(model, Distill(**options))
        found.append([np.asarray(w) for w in model.weights] + [np.array(history["soft_loss"])])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


MIRRORED = """
import sys
import tensorflow as tf, numpy as np
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from kerasopt.distillation import Distill, cache_targets
from tests.models import compiled, small_cnn, stripes

x, y = stripes(32)
teacher = small_cnn(seed=5)
path = cache_targets(x, teacher, sys.argv[1])
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
stream = tf.data.Dataset.from_tensor_slices(x[:8]).batch(4)

def run(strategy, data, options):
    with strategy.scope():
        model = small_cnn(seed=1)
        model.get_layer("head_dropout").rate = 0.0
        for layer in model.layers:
            layer.trainable = "bn" not in layer.name
        if len(data) == 1:  # on replicas Keras builds loss and metrics first, and needs labels
            model.compile(keras.optimizers.SGD(0.05), jit_compile=False)
        else:
            compiled(model, optimizer=keras.optimizers.SGD(0.05), jit_compile=False)
    history = model.fit(*data, batch_size=8, epochs=2, verbose=0, shuffle=False,
                        callbacks=[Distill(**options)]).history
    return history, [np.asarray(w) for w in model.weights]

for data, options in (
    ((x, y), {"teacher": teacher}),
    ((x, y), {"teacher": "ema", "ema_momentum": 0.5}),
    ((x, y), {"teacher": teacher, "features": {"stem_conv": "block2_conv"}}),
    ((x, y), {"targets": path}),
    ((x, y), {"teacher": teacher, "unlabelled": stream}),
    ((x,), {"teacher": teacher, "alpha": 1.0}),
):
    (one, first), (two, second) = (
        run(strategy, data, options)
        for strategy in (tf.distribute.get_strategy(), mirrored)
    )
    assert one.keys() == two.keys(), (one, two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-6, err_msg=name)
    for a, b in zip(first, second):
        np.testing.assert_allclose(a, b, atol=1e-4)
print("equal")
"""


@pytest.mark.slow
def test_mirrored_strategy(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path / "targets.npz")],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_training_goes_on(tmp_path):
    def model():
        net = small_cnn()
        net.get_layer("head_dropout").rate = 0.0
        return compiled(net, optimizer=keras.optimizers.SGD(0.05), jit_compile=False)

    def callbacks(*more, first=False):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        distill = Distill(teacher(), alpha={0.0: 1.0, 1.0: 0.2}, temperature=lambda f: 4 - 2 * f)
        return [*([backup, distill] if first else [distill, backup]), *more]

    whole = model()
    expected = fit(whole, *callbacks()[:1], epochs=4)
    for first in (True, False):
        with pytest.raises(KeyboardInterrupt):
            fit(model(), *callbacks(Kill(), first=first), epochs=4)
        resumed = model()
        history = fit(resumed, *callbacks(first=first), epochs=4)
        np.testing.assert_allclose(history["loss"], expected["loss"][2:], rtol=1e-4)
        for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_a_teacher_helps():
    """More than chance: a student without labels learns what its teacher knows."""
    x, y = stripes(256, seed=3)
    nets = small_cnn(seed=1), small_cnn(seed=2)
    for layer in (layer for net in nets for layer in net.layers if "bn" in layer.name):
        layer.momentum = 0.8  # 96 steps are few for 0.99
    expert, student = (compiled(n, optimizer=keras.optimizers.Adam(1e-2)) for n in nets)
    expert.fit(x, y, epochs=12, verbose=0)
    assert expert.evaluate(X, Y, verbose=0)[1] > 0.9
    history = student.fit(
        x, epochs=12, verbose=0, callbacks=[Distill(expert, alpha=1.0, temperature=2.0)]
    ).history
    assert history["teacher_agreement"][-1] > 0.9
    assert student.evaluate(X, Y, verbose=0)[1] > 0.85
