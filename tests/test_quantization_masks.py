"""Attention that may not look ahead, and layers that read masks."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from tests.int8_files import chain, compared

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


def words_model(*parts):
    words = keras.Input((12,), dtype="int32", name="words")
    x = layers.Embedding(20, 8, mask_zero=True)(words)
    return keras.Model(words, layers.Dense(3)(chain(*parts)(x)))


def self_attention(layer):
    return lambda x: layer([x, x]) if isinstance(layer, layers.Attention) else layer(x, x)


# name: (layers between an embedding with masks and a dense layer, what stays float)
READERS = {
    "pooling": ((layers.GlobalAveragePooling1D(name="gap"),), {"gap": "a mask"}),
    "no mask behind a convolution": (
        (layers.Conv1D(4, 3), layers.GlobalAveragePooling1D()),
        {},
    ),
    "no mask behind the last step": (
        (layers.LSTM(4, name="lstm"), layers.BatchNormalization()),
        {"lstm": "TFLite runs the loop of a recurrent layer in float"},
    ),
    "attention": (
        (
            self_attention(layers.MultiHeadAttention(2, 4, name="heads")),
            self_attention(layers.Attention(name="dot")),
            layers.Flatten(),
        ),
        {"heads": "masks from an Embedding or Masking layer", "dot": "a mask"},
    ),
}


@pytest.mark.filterwarnings("ignore:.*will therefore destroy the mask:UserWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "pooling" else pytest.mark.slow) for name in READERS],
)
def test_readers_of_masks(name):
    keras.utils.set_random_seed(0)
    parts, islands = READERS[name]
    words = np.random.default_rng(0).integers(0, 3, (32, 12)).astype("int32")
    aware, _, report = compared(words_model(*parts), words)
    assert report.faults() == []
    assert dict(ko.quantization.float_operations(aware)) == islands
