"""Attention that may not look ahead, and layers that read masks."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko

STEPS, FEATURES = 6, 8


def attention(x):
    return layers.Attention()([x, x], use_causal_mask=True)


def multi_head_attention(x):
    return layers.MultiHeadAttention(1, FEATURES, use_bias=False)(x, x, use_causal_mask=True)


@pytest.mark.parametrize("make", [attention, multi_head_attention])
def test_the_past_does_not_depend_on_the_future(make):
    inputs = keras.Input((STEPS, FEATURES), name="words")
    model = keras.Model(inputs, make(inputs))
    rng = np.random.default_rng(0)
    near_identity = [
        np.eye(FEATURES) + 0.01 * rng.normal(size=(FEATURES, FEATURES)) for _ in model.weights
    ]
    model.set_weights(
        [k.reshape(w.shape) for k, w in zip(near_identity, model.weights, strict=True)]
    )
    # The scores spread over hundreds, on both sides of what the ranges were learned from.
    x = 6 * rng.normal(size=(64, STEPS, FEATURES)).astype("float32")
    aware = ko.quantization.quantize_aware(model)
    aware(x / 1.5, training=True)
    file = ko.export.TFLiteModel(ko.export.to_tflite(aware, quantize="int8").content)
    other = x.copy()
    other[:, 3] = 6 * rng.normal(size=(64, FEATURES))
    for predict in (model.predict_on_batch, aware.predict_on_batch, file.predict):
        change = np.abs(predict(x) - predict(other)).max(axis=(0, 2))
        assert change[:3].max() == 0.0
        assert change[3] > 1.0
    assert ko.export.compare_operations(aware, file, x, samples=64).faults() == []


def test_a_causal_mask_of_any_length_is_float():
    inputs = keras.Input((None, FEATURES))
    for make in (attention, multi_head_attention):
        aware = ko.quantization.quantize_aware(keras.Model(inputs, make(inputs)))
        ((_, reason),) = ko.quantization.float_operations(aware)
        assert reason == "a causal mask on any number of steps"
