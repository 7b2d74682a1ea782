"""The file beside the model while it trains."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.quantization import (
    QuantizationGap,
    QuantizeAware,
    calibrate,
    fake_quantize,
    quantize_aware,
)
from tests.models import compiled, stripes

X, Y = stripes(32)


def tiny(**options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=3, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    return compiled(model, **{"jit_compile": False, **options})


def fit(model, *callbacks, epochs=4):
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))


@pytest.mark.slow
def test_logs_the_gap_of_every_second_epoch(capsys):
    model = tiny()
    quantize, gap = QuantizeAware(start=3), QuantizationGap((X, Y), every=2, verbose=1)
    history = fit(model, gap, quantize, epochs=5).history
    assert [(result.epoch, result.trained) for result in gap.results] == [
        (0, False),
        (2, False),
        (4, True),
    ]
    for key in ("agreement", "accuracy", "keras_accuracy", "noise"):
        assert history[f"gap_{key}"] == [getattr(result, key) for result in gap.results]
    assert "QuantizationGap: file and Keras agree on 100.0%" in capsys.readouterr().out
    # The last one is that of the finished model, by the room that makes files.
    last = gap.results[-1]
    watched = [name for name in last.ranges if name.endswith("_range")]
    assert watched == ["image_range", "conv_range", "pool_range", "logits_range"]
    assert gap.results[0].ranges != last.ranges
    for name in watched:
        assert last.ranges[name] == quantize.quantized_model.get_layer(name).range_value()
    made = ko.export.to_tflite(quantize.quantized_model, quantize="int8", verify=(X, Y))
    assert last.agreement == made.agreement == 1.0
    assert (last.accuracy, last.keras_accuracy) == (made.accuracy, made.keras_accuracy)
    assert last.accuracy == ko.export.TFLiteModel(made.content).evaluate((X, Y))["accuracy"]


@pytest.mark.slow
def test_the_widest_range_is_the_one_with_most_noise():
    model = quantize_aware(tiny())
    calibrate(model, X)
    pool = model.get_layer("pool_range")
    low, high = pool.range_value()
    pool.set_range([low * 60], [high * 60])  # an outlier, as a bad start leaves it
    compiled(model, jit_compile=False, optimizer=keras.optimizers.SGD(0.0))
    for layer in model.layers:
        layer.frozen = True
    gap = QuantizationGap(X)
    fit(model, gap, epochs=1)
    (found,) = gap.results
    assert found.widest == "pool_range"
    assert (found.trained, found.accuracy) == (True, None)
    # The oracle sees what the range sees: the float activations of rounded kernels.
    kernel = ko.quantization.fake_quantize_kernel
    conv = model.get_layer("conv").layer
    twin = keras.Sequential([keras.Input((12, 12, 3)), type(conv).from_config(conv.get_config())])
    twin.set_weights([kernel(conv.kernel.value, (0, 1, 2)).numpy(), conv.bias.numpy()])
    values = twin.predict(X, verbose=0).mean(axis=(1, 2))
    error = fake_quantize(values, low * 60, high * 60).numpy() - values
    expected = np.sqrt((error**2).sum() / (values**2).sum())
    assert found.noise == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_without_quantization_aware_training_it_is_that_of_a_calibrated_copy():
    model, gap = tiny(), QuantizationGap((X, Y))
    fit(model, gap, epochs=1)
    (found,) = gap.results
    assert not found.trained
    copy = quantize_aware(model)
    calibrate(copy, X)
    made = ko.export.to_tflite(copy, quantize="int8", verify=(X, Y))
    assert (found.accuracy, found.agreement) == (made.accuracy, made.agreement)
    assert not ko.quantization.is_quantization_aware(model)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8_weights", "int16x8"])
def test_other_schemes(scheme):
    gap = QuantizationGap((X, Y))
    fit(tiny(), gap, QuantizeAware(scheme), epochs=1)
    assert gap.results[0].agreement == 1.0
    assert (gap.results[0].widest is None) == (scheme == "int8_weights")


@pytest.mark.slow
def test_training_is_the_same_with_and_without():
    one, other = tiny(), tiny()
    for model, more in ((one, [QuantizationGap(X)]), (other, [])):
        keras.utils.set_random_seed(1)
        fit(model, QuantizeAware(start=0.5), *more, epochs=2)
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def two_inputs():
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    x = keras.layers.Concatenate()([keras.layers.Dense(3, name="dense")(left), right])
    return compiled(keras.Model([left, right], keras.layers.Dense(2, name="logits")(x)))


PAIR = {"left": np.eye(8, 4, dtype="float32"), "right": np.eye(8, 3, dtype="float32")}


@pytest.mark.slow
@pytest.mark.parametrize("callbacks", [[], [QuantizeAware()]])
def test_a_model_of_two_inputs(callbacks):
    gap, y = QuantizationGap((PAIR, np.arange(8) % 2)), np.arange(8) % 2
    two_inputs().fit(PAIR, y, verbose=0, callbacks=[*callbacks, gap])
    (found,) = gap.results
    assert (found.agreement, found.trained) == (1.0, bool(callbacks))
    assert {"left_range", "right_range"} <= set(found.ranges)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PAIR["left"], r"a dict of \['left', 'right'\] as inputs.*Received: an array"),
        ({"left": PAIR["left"]}, r"Received: a dict of \['left'\]"),
    ],
)
def test_data_that_are_not_for_the_inputs(data, message):
    with pytest.raises(ValueError, match=message):
        two_inputs().fit(PAIR, np.zeros(8), verbose=0, callbacks=[QuantizationGap(data)])


def test_data_are_read_before_training():
    with pytest.raises(ValueError, match="`data` must hold at least one example"):
        fit(tiny(), QuantizationGap(X[:0]))
