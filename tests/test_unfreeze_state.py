"""What unfreezing does to the optimizer: slots kept, new ones clean, counts and averages right."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.training import count_steps, is_untouched
from kerasopt.transfer import Freeze, GradualUnfreeze, Unfreeze, blocks, build_classifier
from tests.models import compiled, small_cnn, stripes
from tests.processes import run_alone

OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "weight_decay": 0.01},
    "RMSprop": {"centered": True},
    "Adam": {"amsgrad": True, "clipnorm": 1.0},
    "AdamW": {"global_clipnorm": 1.0},
    "Adamax": {},
    "Nadam": {},
    "Adagrad": {},
    "Adadelta": {"learning_rate": 1.0},
    "Adafactor": {},
    "Ftrl": {},
    "Lion": {"weight_decay": 0.01},
    "Lamb": {"clipvalue": 0.5},
    "Muon": {},
    "ScheduleFreeAdamW": {},
}


def optimizer_of(name, **options):
    if not hasattr(keras.optimizers, name):
        pytest.skip(f"{name} is not in Keras {keras.__version__}")
    if name == "Muon" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15):
        pytest.skip("Muon of older Keras asks TensorFlow variables for a path they do not have")
    return getattr(keras.optimizers, name)(**{"learning_rate": 1e-3, **OPTIMIZERS[name], **options})


def classifier(optimizer, **options):
    model = build_classifier(small_cnn(), 4, input_shape=(12, 12, 3), dropout=0.0)
    return compiled(model, optimizer=optimizer, **{"jit_compile": False, **options})


def numpy_of(variables):
    return {v.path: np.asarray(v) for v in variables}


class Watch(keras.callbacks.Callback):
    """Weights and slots after each batch and before the next one."""

    def __init__(self):
        super().__init__()
        self.before, self.after = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.before.append(self._state())

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self._state())

    def _state(self):
        return numpy_of(self.model.weights), [np.asarray(v) for v in self.model.optimizer.variables]


@pytest.mark.parametrize(
    "name",
    [n if n in ("AdamW", "Lion") else pytest.param(n, marks=pytest.mark.slow) for n in OPTIMIZERS],
)
def test_every_optimizer_keeps_its_slots_and_the_frozen_weights(name):
    model, (x, y) = classifier(optimizer_of(name)), stripes(32)
    start = numpy_of(model.weights)
    watch = Watch()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Unfreeze({0.5: "all"}), watch])
    frozen = watch.before[4][0]  # the first four batches trained the head alone
    moved = {path for path in start if not np.array_equal(start[path], frozen[path])}
    assert moved == {"logits/kernel", "logits/bias"}
    # The switch itself leaves weights, slots and count as they were, bit for bit.
    for (a, slots_a), (b, slots_b) in zip(watch.after[:-1], watch.before[1:], strict=True):
        for path, value in a.items():
            np.testing.assert_array_equal(value, b[path])
        for one, other in zip(slots_a, slots_b, strict=True):
            np.testing.assert_array_equal(one, other)
    opened = numpy_of(model.weights)
    kernels = [p for p in start if p.endswith("/kernel") and "rescale" not in p]
    assert all(np.any(start[p] != opened[p]) for p in kernels)
    assert count_steps(model.optimizer) == 8


@pytest.mark.parametrize(
    "name",
    [
        "Adam",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("AdamW", "Adamax", "Adafactor", "Lamb")
        ),
    ],
)
def test_opened_layers_step_as_under_an_optimizer_of_their_own(name):
    x, y = stripes(32)
    model = classifier(optimizer_of(name, clipnorm=None, global_clipnorm=None, clipvalue=None))
    model.fit(
        x, y, batch_size=8, epochs=3, verbose=0, shuffle=False, callbacks=[Unfreeze({1: "all"})]
    )

    # The oracle: two optimizers in a loop by hand, the second one new when the layers open.
    other = classifier("sgd")
    for layer in other.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    head = [v for v in other.trainable_variables if v.path.startswith("logits")]
    body = [v for v in other.trainable_variables if not v.path.startswith("logits")]
    plain = {"clipnorm": None, "global_clipnorm": None, "clipvalue": None}
    first, second = optimizer_of(name, **plain), optimizer_of(name, **plain)
    for epoch in range(3):
        for at in range(0, 32, 8):
            with tf.GradientTape() as tape:
                loss = other.compute_loss(
                    y=y[at : at + 8], y_pred=other(x[at : at + 8], training=True)
                )
            gradients = tape.gradient(loss, [v.value for v in head + body])
            first.apply(gradients[: len(head)], head)
            if epoch:
                second.apply(gradients[len(head) :], body)
    for mine, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5, err_msg=mine.path)


def test_first_steps_of_opened_layers_are_not_too_long():
    # Adam's first step is the learning rate in every weight, whenever it is taken.
    model, (x, y) = classifier(keras.optimizers.Adam(1e-3, epsilon=1e-12)), stripes(64)
    watch = Watch()
    model.fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=[Unfreeze({3: "all"}), watch])
    before, after = watch.before[24][0], watch.after[24][0]
    step = np.abs(after["stem_conv/kernel"] - before["stem_conv/kernel"])
    assert step.max() < 1.001e-3


def test_a_later_fit_goes_on_with_the_counts():
    model, (x, y) = classifier(keras.optimizers.Adam(1e-3)), stripes(32)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[Unfreeze({2: "all"})])
    before = np.asarray(model.get_layer("stem_conv").kernel)
    model.fit(x[:8], y[:8], batch_size=8, verbose=0, callbacks=[Unfreeze({0: "all"})])
    step = before - np.asarray(model.get_layer("stem_conv").kernel)
    slots = {v.name: np.asarray(v) for v in model.optimizer.variables}
    m, v = slots["stem_conv_kernel_momentum"], slots["stem_conv_kernel_velocity"]
    # The kernel's fifth step, the optimizer's thirteenth.
    expected = 1e-3 * m * np.sqrt(1 - 0.999**5) / (1 - 0.9**5) / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(step, expected, rtol=1e-3, atol=1e-7)


def test_optimizer_built_on_the_head_alone_is_mended_and_starts_clean():
    model, (x, y) = classifier(keras.optimizers.Adam(1e-3, epsilon=1e-12)), stripes(64)
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    assert is_untouched(model.optimizer, model.get_layer("stem_conv").kernel)
    watch = Watch()
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[Unfreeze({0: "all"}), watch])
    assert count_steps(model.optimizer) == 32
    assert not is_untouched(model.optimizer, model.get_layer("stem_conv").kernel)
    before, after = watch.before[0][0], watch.after[0][0]
    step = np.abs(after["stem_conv/kernel"] - before["stem_conv/kernel"])
    assert 0 < step.max() < 1.001e-3


def test_gradient_accumulation():
    optimizer = keras.optimizers.Adam(1e-3, epsilon=1e-12, gradient_accumulation_steps=2)
    model, (x, y) = classifier(optimizer), stripes(64)
    watch = Watch()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Unfreeze({1: "all"}), watch])
    weights = [after[0]["stem_conv/kernel"] for after in watch.after]
    np.testing.assert_array_equal(weights[7], weights[8])  # the first of two batches only adds up
    assert 0 < np.abs(weights[9] - weights[8]).max() < 1.001e-3


@pytest.mark.parametrize("overwrite", [None, 2])
def test_moving_averages_of_the_optimizer(overwrite):
    optimizer = keras.optimizers.Adam(
        1e-3, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=overwrite
    )
    model, (x, y) = classifier(optimizer), stripes(32)
    start = numpy_of(model.weights)
    watch = Watch()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Unfreeze({1: 1}), watch])
    last = {w.path for layer in blocks(model)[-1].layers for w in layer.weights}
    end = numpy_of(model.weights)
    for path, value in start.items():
        if path not in last and not path.startswith("logits"):
            np.testing.assert_array_equal(value, end[path])
    # `fit` ends with the averages, each of its own variable.
    if overwrite is None:
        average = start["block2_conv/kernel"]
        for after in watch.after[4:]:
            average = 0.5 * average + 0.5 * after[0]["block2_conv/kernel"]
        np.testing.assert_allclose(end["block2_conv/kernel"], average, atol=1e-6)


def test_swap_ema_weights_of_keras_works_along():
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model, (x, y) = classifier(optimizer), stripes(32)
    start = numpy_of(model.weights)
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=3,
        verbose=0,
        validation_data=(x, y),
        callbacks=[Unfreeze({1: 1}), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
    )
    end = numpy_of(model.weights)
    np.testing.assert_array_equal(start["stem_conv/kernel"], end["stem_conv/kernel"])
    assert np.any(start["block2_conv/kernel"] != end["block2_conv/kernel"])


def test_multi_optimizer_is_refused_with_the_way_out():
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip(f"MultiOptimizer is not in Keras {keras.__version__}")
    sgd = keras.optimizers.SGD(0.1)
    model, (x, y) = classifier(keras.optimizers.MultiOptimizer(lambda variable: sgd)), stripes(8)
    with pytest.raises(ValueError, match=r"LayerwiseLearningRate"):
        model.fit(x, y, verbose=0, callbacks=[Unfreeze({0: "all"})])


@pytest.mark.slow
def test_gradual_and_freeze_need_one_trace_a_switch():
    traces = []

    class Traced(keras.layers.Layer):
        def call(self, inputs):
            traces.append(1)
            return inputs

    model = build_classifier(
        small_cnn(), 4, input_shape=(12, 12, 3), dropout=0.0, augmentation=Traced()
    )
    compiled(model, jit_compile=False)
    x, y = stripes(32)
    model.fit(x, y, batch_size=8, verbose=0)
    traces.clear()
    callbacks = [GradualUnfreeze(1, 3, groups=3), Freeze({5: "all"})]
    model.fit(x, y, batch_size=8, epochs=7, verbose=0, callbacks=callbacks)
    assert len(traces) == 1 + 3 + 1
    assert {str(event.kind) for callback in callbacks for event in callback.events} == {
        "unfreeze",
        "freeze",
    }


MIRRORED = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from kerasopt.transfer import GradualUnfreeze, Unfreeze, build_classifier
from tests.models import compiled, small_cnn, stripes

x, y = stripes(32)

def run(strategy):
    with strategy.scope():
        model = build_classifier(small_cnn(), 4, input_shape=(12, 12, 3), dropout=0.0)
        compiled(model, optimizer=keras.optimizers.Adam(1e-3, use_ema=True), jit_compile=False)
    start = [np.array(w) for w in model.weights]
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, shuffle=False,
              callbacks=[Unfreeze({1: 1, 2: "all"})])
    return start, [np.array(w) for w in model.weights]

start, one = run(tf.distribute.get_strategy())
_, two = run(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
assert any(np.any(a != b) for a, b in zip(start, one))
for a, b in zip(one, two):
    np.testing.assert_allclose(a, b, atol=1e-4)
print("equal")
"""


@pytest.mark.slow
def test_mirrored_strategy():
    done = run_alone(MIRRORED)
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
