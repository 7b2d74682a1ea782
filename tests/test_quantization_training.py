"""`QuantizeAware` in every kind of training: its phases, other callbacks, precision, replicas."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.quantization import FakeQuantize, QuantizeAware, calibrate, quantize_aware
from tests.models import compiled, small_cnn, stripes

ROOT = pathlib.Path(__file__).resolve().parents[1]
X, Y = stripes(32)
STEPS = 4


def tiny(**options):
    """One group of every kind, nothing random in a step."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=3, use_bias=False, name="stem_conv")(inputs)
    x = keras.layers.ReLU(name="stem_relu")(keras.layers.BatchNormalization(name="stem_bn")(x))
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    return compiled(model, **{"jit_compile": False, **options})


def fit(model, *callbacks, epochs=4, **options):
    return model.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def ranges_of(model):
    layers = [la for la in model.layers if isinstance(la, FakeQuantize)]
    return {layer.name: layer.range_value() for layer in layers}


class Watch(keras.callbacks.Callback):
    """Keeps the ranges, statistics and a kernel behind every batch."""

    def __init__(self, quantize):
        super().__init__()
        self.quantize = quantize
        self.ranges, self.means, self.kernels = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.ranges.append(ranges_of(self.quantize.quantized_model))
        self.means.append(np.array(self.model.get_layer("stem_bn").moving_mean))
        self.kernels.append(np.array(self.model.get_layer("stem_conv").kernel))


# Phases


@pytest.mark.slow
def test_batch_norm_freezes_then_ranges_and_weights_train_on():
    model = tiny()
    quantize = QuantizeAware(start=0.25, freeze_batch_norm=0.5, freeze_ranges=0.75)
    watch = Watch(quantize)
    fit(model, quantize, watch)
    assert [event.epoch for event in quantize.events] == [1.0, 2.0, 3.0]
    assert [event.label for event in quantize.events] == [
        "quantization-aware training begins",
        "batch normalization frozen",
        "ranges frozen",
    ]
    name = "logits_range"
    moved = [a[name] != b[name] for a, b in zip(watch.ranges, watch.ranges[1:], strict=False)]
    assert watch.ranges[3][name] == (0.0, 0.0)
    assert moved == [False] * 3 + [True] * 8 + [False] * 4
    changed = [np.any(a != b) for a, b in zip(watch.means, watch.means[1:], strict=False)]
    assert changed == [True] * 7 + [False] * 8
    assert all(np.any(a != b) for a, b in zip(watch.kernels, watch.kernels[1:], strict=False))
    # Everything comes off.
    assert "call" not in vars(model.get_layer("stem_bn"))
    assert not any(getattr(la, "frozen", False) for la in quantize.quantized_model.layers)


@pytest.mark.slow
def test_scale_and_offset_train_on_behind_frozen_statistics():
    model = tiny()
    fit(model, QuantizeAware(freeze_batch_norm=0.0))
    norm = model.get_layer("stem_bn")
    assert np.all(norm.moving_mean.numpy() == 0)
    assert np.any(norm.gamma.numpy() != 1)
    fit(model, epochs=1)
    assert np.any(norm.moving_mean.numpy() != 0)


@pytest.mark.slow
def test_moments_by_default():
    quantize = QuantizeAware(start=0.5)
    fit(tiny(), quantize, epochs=4)
    assert [event.epoch for event in quantize.events] == [2.0, 3.0, 3.5]


@pytest.mark.slow
def test_never_frozen():
    quantize = QuantizeAware(freeze_batch_norm=1.0, freeze_ranges=1.0)
    fit(tiny(), quantize, epochs=1)
    assert [event.epoch for event in quantize.events] == [0.0]


@pytest.mark.slow
def test_ranges_learn_first_where_all_moments_fall_on_one_execution():
    quantize = QuantizeAware(start=0.3)
    fit(tiny(steps_per_execution=3), quantize, epochs=1)  # steps 0 to 2, and step 3
    assert [event.epoch for event in quantize.events] == [0.75, 0.75]
    assert quantize.quantized_model.get_layer("logits_range").has_range


def traces_of(*callbacks, epochs=8, **options):
    """How often a train step is traced: a loss in Python runs in traces alone."""
    traces = []
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(y, logits):
        traces.append(1)
        return crossentropy(y, logits)

    model = tiny()
    model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False, **options)
    fit(model, *callbacks, epochs=epochs)
    return len(traces)


@pytest.mark.slow
def test_one_trace_a_phase():
    plain = traces_of()
    assert traces_of(QuantizeAware(start=0.25)) == plain + 3
    assert traces_of(QuantizeAware(start=0.25), epochs=16) == plain + 3
    # What comes due together is traced together.
    together = QuantizeAware(start=0.25, freeze_batch_norm=0.25, freeze_ranges=0.75)
    assert traces_of(together) == plain + 2


@pytest.mark.slow
def test_ranges_start_from_calibration():
    model = tiny(optimizer=keras.optimizers.SGD(0.0))
    quantize = QuantizeAware(calibration=X, observer="minmax", freeze_ranges=0.0)
    fit(model, quantize, epochs=1)
    expected = quantize_aware(tiny())
    calibrate(expected, X, "minmax")
    for name, ends in ranges_of(expected).items():
        np.testing.assert_allclose(ranges_of(quantize.quantized_model)[name], ends, rtol=1e-5)


@pytest.mark.slow
def test_ranges_start_from_the_mean_of_the_first_batches():
    model = tiny(optimizer=keras.optimizers.SGD(0.0))
    quantize = QuantizeAware(freeze_batch_norm=0.0, freeze_ranges=1.0)
    fit(model, quantize, epochs=1)
    stem = keras.Model(model.input, model.get_layer("stem_relu").output)
    largest = [stem(X[i : i + 8]).numpy().max() for i in range(0, 32, 8)]
    found = ranges_of(quantize.quantized_model)["stem_relu_range"]
    assert found == pytest.approx((0.0, np.mean(largest)), rel=0.02)


# Together with others


@pytest.mark.slow
def test_with_pruning_mixup_and_unfreezing():
    model = ko.transfer.build_classifier(small_cnn(), 4, input_shape=(12, 12, 3))
    compiled(model, jit_compile=False)
    quantize = QuantizeAware(start=0.5, calibration=X)
    fit(
        model,
        quantize,
        ko.pruning.PruneLowMagnitude(0.5),
        ko.transfer.Unfreeze({0.25: "all"}),
        ko.augmentation.MixUp(0.2, end=0.5),
    )
    # `Unfreeze` keeps the statistics of the backbone already.
    assert [event.epoch for event in quantize.events] == [2.0, 3.5]
    kernel = model.get_layer("block2_conv").kernel.numpy()
    assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01)
    result = ko.export.to_tflite(quantize.quantized_model, quantize="int8", verify=(X, Y))
    assert result.agreement >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"optimizer": "sgd"}, {"optimizer": "lion"},
     {"optimizer": keras.optimizers.Adam(1e-3, use_ema=True, gradient_accumulation_steps=2)},
     {"jit_compile": True}, {"steps_per_execution": 3}, {"run_eagerly": True}],
    ids=["sgd", "lion", "ema and accumulation", "xla", "several steps", "eager"],
)  # fmt: skip
def test_any_step(options):
    model = tiny(**options)
    quantize = QuantizeAware(start=0.25)
    history = fit(model, quantize, validation_data=(X, Y)).history
    assert np.isfinite(history["val_loss"]).all()
    assert len(quantize.events) == 3
    for layer in quantize.quantized_model.layers:
        if isinstance(layer, FakeQuantize):
            assert layer.has_range
            assert np.ptp(layer.range_value()) > 0
            assert float(layer.seen.numpy()[0]) == pytest.approx(9, abs=3)  # not once frozen
    if not getattr(model.optimizer, "use_ema", False):  # else the weights are others by now
        loss = compiled(quantize.quantized_model).evaluate(X, Y, verbose=0)[0]
        assert history["val_loss"][-1] == pytest.approx(loss, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_rounds_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny()
        quantize = QuantizeAware(start=0.25, calibration=X)
        fit(model, quantize)
    finally:
        keras.config.set_dtype_policy("float32")
    aware = quantize.quantized_model
    ranges = [layer for layer in aware.layers if isinstance(layer, FakeQuantize)]
    assert {layer.compute_dtype for layer in ranges} == {"float32"}
    inner = keras.Model(aware.input, [layer.output for layer in ranges])
    for layer, values in zip(ranges, inner.predict(X, verbose=0), strict=True):
        low, high = layer.range_value()
        step = (high - low) / 255
        assert values.dtype == "float32"
        np.testing.assert_allclose(values / step, np.round(values / step), atol=2e-2)
    # The file computes in int8, what was trained in half precision too.
    result = ko.export.to_tflite(aware, quantize="int8")
    report = ko.export.compare_operations(aware, result.content, X, samples=16)
    assert result.operators.count("DEQUANTIZE") == 1
    assert report.float_tensors == report.unequal_kernels == ()
    assert report.kernels == 2


_REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import kerasopt as ko
from kerasopt.quantization import FakeQuantize, QuantizationGap, QuantizeAware
from tests.models import compiled, small_cnn, stripes
x, y = stripes(32)

def train(strategy, *callbacks):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = small_cnn()
        model.get_layer("head_dropout").rate = 0.0
        compiled(model, jit_compile=False, optimizer=keras.optimizers.SGD(0.0))
    quantize = QuantizeAware(freeze_batch_norm=0.0, freeze_ranges=0.75, calibration=x[:16])
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0,
              callbacks=[quantize, *callbacks])
    layers = quantize.quantized_model.layers
    return quantize, [layer for layer in layers if isinstance(layer, FakeQuantize)]

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
gap = QuantizationGap((x, y), every=2)
quantize, layers = train(strategy, gap)
assert gap.results[0].trained and gap.results[0].agreement == 1.0
for layer in layers:
    for variable in (layer.minimum, layer.maximum, layer.seen):
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second)
result = ko.export.to_tflite(quantize.quantized_model, quantize="int8", verify=(x, y))
assert result.agreement == 1.0
result = ko.export.to_tflite(quantize.model, verify=(x, y))
assert (result.samples, result.agreement) == (len(x), 1.0)
# The extremes of a batch are those of all replicas: the number of them makes no difference.
_, alone = train(tf.distribute.get_strategy())
for layer, other in zip(layers, alone, strict=True):
    np.testing.assert_allclose(layer.range_value(), other.range_value(), rtol=1e-3, atol=1e-4)
"""


@pytest.mark.slow
def test_several_replicas():
    """Two logical devices have to be there before TensorFlow starts: a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _REPLICAS], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]


# Bad input


def test_ranges_frozen_before_they_learn():
    with pytest.raises(ValueError, match=r"`freeze_ranges` must lie behind `start`.*Received: "):
        fit(tiny(), QuantizeAware(start=0.5, freeze_ranges=0.5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X[:, :6], "`calibration` must have the shape"),
        (np.full_like(X, np.nan), "`calibration` must be finite"),
        (iter(()), "`calibration` must hold at least one example"),
    ],
)
def test_calibration_data_that_do_not_fit_are_told_before_the_first_batch(data, message):
    model = tiny()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(model, QuantizeAware(start=0.75, calibration=data))
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_data_that_can_be_read_once_are_there_at_the_start():
    quantize = QuantizeAware(start=0.5, freeze_ranges=0.5, calibration=iter([X[:8], X[8:]]))
    fit(tiny(), quantize, epochs=2)
    assert quantize.quantized_model.get_layer("image_range").range_value() == (0.0, 255.0)


REGULARIZED = {
    "dense": lambda: keras.layers.Dense(
        4, kernel_regularizer="l2", activity_regularizer=keras.regularizers.L2(0.1)
    ),
    "split": lambda: keras.layers.Dense(4, "gelu", activity_regularizer="l2"),
    "decomposed": lambda: keras.layers.Activation("silu", activity_regularizer="l2"),
}


@pytest.mark.parametrize("kind", REGULARIZED)
@pytest.mark.parametrize("way", ["transform", "callback"])
def test_regularizers_count_as_in_the_float_model(kind, way):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), REGULARIZED[kind](), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    model(x)
    expected = [float(loss) for loss in model.losses]
    assert expected
    if way == "transform":
        trained = quantize_aware(model)
        trained(x, training=True)
        found = [float(loss) for loss in trained.losses]
        np.testing.assert_allclose(found, expected, rtol=0.05)
        return
    model.compile(keras.optimizers.SGD(0.0), lambda _, y: 0.0 * y[:, 0])
    history = model.fit(x, x, batch_size=8, verbose=0, callbacks=[QuantizeAware()]).history
    assert history["loss"][0] == pytest.approx(sum(expected), rel=0.05)


@pytest.mark.slow
def test_a_training_loop_of_ones_own_learns_ranges_and_weights():
    x, y = stripes(64)
    aware = quantize_aware(small_cnn())
    optimizer = keras.optimizers.Adam(0.01)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, aware(images, training=True))
        gradients = tape.gradient(loss, aware.trainable_variables)
        optimizer.apply_gradients(zip(gradients, aware.trainable_variables, strict=True))
        return loss

    losses = [float(step(x[i % 64 :][:16], y[i % 64 :][:16])) for i in range(0, 64 * 8, 16)]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    file = ko.export.to_tflite(aware, quantize="int8")
    assert ko.export.compare_operations(aware, file.content, x, samples=8).faults() == []
