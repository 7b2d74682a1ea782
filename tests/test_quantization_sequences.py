"""Networks on text and sound, trained for int8 until they can do it, beside their files."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from kerasopt.quantization import QuantizeAware

CLASSES, WORDS, LENGTH = 3, 20, 12
FRAMES, BINS = 24, 16
TRAIN = 384


def text(count=640):
    """Sentences of which two words tell the class, wherever they stand."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, count)
    x = rng.integers(CLASSES, WORDS, (count, LENGTH))
    for row, label in zip(x, y, strict=True):
        row[rng.choice(LENGTH, 2, replace=False)] = label
    return x.astype("int32"), y


def tones(count=640):
    """Spectrograms (frames, bins) in decibels of tones that rise, fall or stay, in noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, count)
    time = np.arange(FRAMES * 2 * BINS) / (2 * BINS)  # in frames
    slope = np.array([-0.004, 0.0, 0.004])[y][:, None]
    cycles = rng.uniform(0.2, 0.3, (count, 1)) + slope * (time / 2 - FRAMES / 4)
    wave = np.sin(2 * np.pi * cycles * 2 * BINS * time) + rng.normal(0, 0.3, (count, len(time)))
    spectrum = np.abs(np.fft.rfft(wave.reshape(count, FRAMES, 2 * BINS)))[..., 1:]
    return (20 * np.log10(spectrum + 1e-3)).astype("float32"), y


def encoder():
    """An encoder block as Keras' layers make it."""
    words = keras.Input((LENGTH,), dtype="int32", name="words")
    x = layers.Embedding(WORDS, 16)(words)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8, dropout=0.1)(x, x))
    inner = layers.Dense(16)(layers.Dense(32, activation="gelu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, inner]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(words, layers.Dense(CLASSES, name="scores")(x))


def convolutions():
    """Convolutions along the frames."""
    inputs = keras.Input((FRAMES, BINS), name="spectrogram")
    x = inputs
    for filters in (16, 24):
        x = layers.Conv1D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
        x = layers.MaxPooling1D(2)(x)
    x = layers.SeparableConv1D(24, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="scores")(layers.Flatten()(x)))


def recurrent(kind):
    inputs = keras.Input((FRAMES, BINS), name="spectrogram")
    x = layers.Rescaling(1 / 40)(inputs)
    x = kind(16, name="memory")(layers.Dense(16, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="scores")(x))


def trained(model, x, y, epochs):
    """Trains the second half for int8; returns the callback and the history."""
    keras.utils.set_random_seed(0)
    model.compile(
        keras.optimizers.Adam(0.005),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    quantize = QuantizeAware(start=0.5)
    model.fit(x[:TRAIN], y[:TRAIN], epochs=epochs, verbose=0, callbacks=[quantize])
    return quantize.quantized_model


def exported(aware, x, y):
    """Returns the file's result on what it did not learn from, compared operation by operation."""
    held_out = x[TRAIN:], y[TRAIN:]
    result = ko.export.to_tflite(aware, quantize="int8", verify=held_out)
    report = ko.export.compare_operations(aware, result.content, x[TRAIN:], samples=64)
    assert report.faults() == []
    assert len(report.operations) >= 5
    assert result.keras_accuracy > 0.95
    assert result.agreement >= 0.99
    return result, report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "make", "epochs"), [(text, encoder, 12), (tones, convolutions, 12)]
)
def test_all_of_it_is_int8(data, make, epochs):
    keras.utils.set_random_seed(0)
    x, y = data()
    result, report = exported(trained(make(), x, y, epochs), x, y)
    assert result.float_operations == ()
    assert report.float_tensors == ()
    assert result.operators.count("DEQUANTIZE") == 1
    assert report.kernels >= 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_recurrent_layers_are_islands_on_int8_weights(kind):
    keras.utils.set_random_seed(0)
    x, y = tones()
    aware = trained(recurrent(kind), x, y, 16)
    result, report = exported(aware, x, y)
    assert [name for name, _ in result.float_operations] == ["memory"]
    assert report.kernels == 2
    # What the file computes with has no more than 255 values for each gate and unit.
    cell = ko.quantization.export_twin(aware).get_layer("memory").cell
    for kernel in (cell.kernel, cell.recurrent_kernel):
        values = keras.ops.convert_to_numpy(kernel)
        step = np.abs(values).max(axis=0) / 127
        np.testing.assert_allclose(values / step, np.round(values / step), atol=1e-3)
