"""Files that compute something else than their model, and what is said of them."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import kerasopt.export._to_tflite as room
from kerasopt.export import OperationMatch, OperationReport, VerificationError, to_tflite
from kerasopt.export._verify import Limits, accept
from tests.models import stripes

X = np.random.default_rng(0).normal(size=(24, 8)).astype("float32")


def dense(name, outputs):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(6, "relu", name="hidden")]
    return keras.Sequential([*layers, keras.layers.Dense(outputs, name=name)])


def regression():
    model = dense("price", 1)
    model.get_layer("price").bias.assign([100.0])
    return model


def classifier():
    return dense("logits", 4)


def denoiser():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="inner")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same", name="clean")(x))


@pytest.fixture
def changed(monkeypatch):
    """Changes weights of the model behind the converter's back, as a converter bug would."""
    honest = room.convert

    def change(weight, how):
        def wrong(model, **options):
            copy = keras.models.clone_model(model)
            copy.set_weights(
                [how(w.numpy()) if w.path.endswith(weight) else w.numpy() for w in model.weights]
            )
            return honest(copy, **options)

        monkeypatch.setattr(room, "convert", wrong)

    return change


@pytest.mark.parametrize(
    ("make", "data", "weight", "how", "layer", "message"),
    [
        (
            regression,
            X,
            "price/bias",
            lambda w: w + 400,
            "price",
            r"relative error 4, at most 0.001",
        ),
        (regression, X, "hidden/kernel", lambda w: 3 * w, "hidden", "first part at the layer 'hid"),
        (
            classifier,
            X,
            "logits/kernel",
            lambda w: 0.001 * w,
            "logits",
            "The layers inside agree: they first part at the output 'logits'",
        ),
        (
            denoiser,
            stripes(24, size=8)[0],
            "clean/kernel",
            lambda w: 0.9 * w,
            "clean",
            r"agreement 0\.00%.*relative error 0\.1, at most 0\.001 is allowed",
        ),
    ],
    ids=["bias", "inside", "scaled", "image"],
)
def test_other_values_are_refused_and_the_layer_is_named(
    changed, make, data, weight, how, layer, message
):
    changed(weight, how)
    with pytest.raises(VerificationError, match=message) as caught:
        to_tflite(make(), verify=data)
    assert caught.value.result.parting == layer
    assert caught.value.result.relative_error > 0.01
    loose = to_tflite(make(), verify=data, max_relative_error=1e6, min_agreement=0.0)
    assert loose.relative_error == caught.value.result.relative_error


def test_what_is_not_finite_is_refused_whatever_the_limits(changed):
    changed("hidden/kernel", lambda w: np.nan * w)
    with pytest.raises(VerificationError, match="that are not finite where the model's") as caught:
        to_tflite(regression(), verify=X, min_agreement=0.0, max_relative_error=1e9)
    result = caught.value.result
    assert (result.max_error, result.relative_error) == (np.inf, np.inf)
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (written["max_error"], written["runs"][0]["relative_error"]) == (None, None)


def test_a_model_that_gives_nan_itself_cannot_be_compared():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.ops.sqrt(inputs))
    with pytest.raises(ValueError, match="`verify` must be data for which the model gives numbers"):
        to_tflite(model, verify=X)


@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8", "int16x8"])
@pytest.mark.parametrize("make", [regression, denoiser])
def test_files_that_are_right_pass_with_the_usual_limits(make, quantize):
    """Labels are numbers and images here, no classes; ranges are from the very data."""
    data = X if make is regression else stripes(24, size=8)[0]
    model = make()
    labels = model.predict(data, verbose=0)
    result = to_tflite(model, quantize=quantize, representative_data=data, verify=(data, labels))
    assert result.agreement == 1.0
    assert result.accuracy is None
    assert result.relative_error < {None: 1e-6, "float16": 1e-3}.get(quantize, 0.05)


def test_the_representative_data_are_verified_on_by_default(changed):
    model, data = classifier(), (X, np.arange(24) % 4)
    for quantize in (None, "int8"):
        result = to_tflite(model, quantize=quantize, representative_data=data, min_agreement=0.5)
        assert (result.samples, result.accuracy) == (24, None)
        assert result.agreement > 0.5
        assert len(result.runs) == 4
    off = to_tflite(model, quantize="int8", representative_data=data, verify=False)
    assert (off.samples, off.agreement, off.runs) == (0, None, ())
    changed("logits/bias", lambda w: w + 400)
    with pytest.raises(VerificationError, match="relative error"):
        to_tflite(model, quantize="int8", representative_data=data)


def test_bounds_of_operations_are_arguments():
    match = OperationMatch("conv", equal=0.95, max_steps=2, count=1000)
    report = OperationReport((match,), kernels=1, unequal_kernels=(), float_tensors=())
    result = dataclasses.replace(to_tflite(classifier(), verify=X), operations=report)
    assert accept(result, None, Limits(0.9, 0.01, 1e-3), reject=None) is result
    for bounds in ({"max_steps": 1}, {"min_equal": 0.99}):
        with pytest.raises(VerificationError, match=r"5\.00% of 1000 values differ, by up to 2"):
            accept(result, None, Limits(0.9, 0.01, 1e-3, **bounds), reject=None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_relative_error": -1.0}, ValueError, r"`max_relative_error` must be a number in \[0"),
        ({"max_steps": 1.5}, TypeError, "`max_steps` must be an integer >= 0"),
        ({"min_equal": 2}, ValueError, "`min_equal` must be a number in"),
        ({"verify": X[:, :5]}, ValueError, r"`verify` must have the shape \(batch, 8\) and be num"),
        ({"verify": X * np.nan}, ValueError, "`verify` must be finite"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        to_tflite(regression(), **options)


@pytest.mark.parametrize(
    ("quantize", "left"),
    [
        ("int8", ("CUMSUM", "SIN")),
        # Weights of less than 1,024 values stay as they are.
        ("dynamic", ("CUMSUM", "SIN", "FULLY_CONNECTED")),
    ],
)
def test_operators_that_stay_float_are_told(quantize, left):
    inputs = keras.Input((64,))
    x = keras.ops.sin(keras.ops.cumsum(keras.layers.Dense(32)(inputs), axis=1))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    data = X.repeat(8, axis=1)
    result = to_tflite(model, quantize=quantize, representative_data=data, verify=False)
    assert result.float_operators == left
    assert result.operators.count("FULLY_CONNECTED") == 2
    assert result.to_dict()["float_operators"] == left
