"""Files of quantization-aware models beside those of TF-MOT on tf_keras, with the same weights."""

import os
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.profiling._tflite_file import constant_values, read_operators
from tests.models import small_cnn

THEIRS = """
import os, pickle, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.keras.compat import keras

with open(sys.argv[1], "rb") as file:
    name, weights, x = pickle.load(file)
if name == "small":
    i = keras.Input((12, 12, 3))
    y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem_conv")(i)
    y = keras.layers.BatchNormalization(name="stem_bn")(y)
    y = s = keras.layers.ReLU(name="stem_relu")(y)
    y = keras.layers.Conv2D(8, 1, name="project")(y)
    y = keras.layers.Add(name="add")([s, y])
    y = keras.layers.MaxPooling2D(name="pool")(y)
    y = keras.layers.Conv2D(16, 3, activation="relu", name="conv")(y)
    y = keras.layers.GlobalAveragePooling2D(name="gap")(y)
    model = keras.Model(i, keras.layers.Dense(4, name="logits")(y))
else:
    size = x.shape[1]
    model = getattr(keras.applications, name)(
        input_shape=(size, size, 3), alpha=0.35 if name == "MobileNetV2" else 0.25,
        weights=None, classes=4,
    )
for layer in model.layers:
    if layer.name in weights:
        layer.set_weights(weights[layer.name])
aware = tfmot.quantization.keras.quantize_model(model)
aware(x, training=True)
converter = tf.lite.TFLiteConverter.from_keras_model(aware)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
with open(sys.argv[2], "wb") as file:
    file.write(converter.convert())
"""


def small():
    inputs = keras.Input((12, 12, 3))
    y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem_conv")(inputs)
    y = keras.layers.BatchNormalization(name="stem_bn")(y)
    y = stem = keras.layers.ReLU(name="stem_relu")(y)
    y = keras.layers.Conv2D(8, 1, name="project")(y)
    y = keras.layers.Add(name="add")([stem, y])
    y = keras.layers.MaxPooling2D(name="pool")(y)
    y = keras.layers.Conv2D(16, 3, activation="relu", name="conv")(y)
    y = keras.layers.GlobalAveragePooling2D(name="gap")(y)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(y))


def network(name):
    keras.utils.set_random_seed(0)
    if name == "small":
        return small()
    return getattr(keras.applications, name)(
        input_shape=(32, 32, 3),
        alpha=0.35 if name == "MobileNetV2" else 0.25,
        weights=None,
        classes=4,
    )


def kernels(content):
    """The int8 kernels of all convolutions, in order."""
    return [
        constant_values(operator.inputs[1])
        for operator in read_operators(content)
        if operator.kind == "CONV_2D"
    ]


def float_and_quantize(content):
    return sum(
        operator.kind == "QUANTIZE" or operator.outputs[0].type == "FLOAT32"
        for operator in read_operators(content)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "MobileNet", "MobileNetV2"])
def test_kernels_are_those_of_tfmot_and_nothing_more_is_float(name, tmp_path):
    model = network(name)
    size = model.input_shape[1]
    x = np.random.default_rng(0).normal(size=(8, size, size, 3)).astype("float32")
    weights = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    given, file = tmp_path / "given.pickle", tmp_path / "theirs.tflite"
    given.write_bytes(pickle.dumps((name, weights, x)))
    root = pathlib.Path(ko.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, str(given), str(file)],
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = file.read_bytes()
    aware = ko.quantization.quantize_aware(model)
    aware(x, training=True)
    ours = ko.export.to_tflite(aware, quantize="int8", input_dtype="float32").content
    assert float_and_quantize(ours) <= float_and_quantize(theirs)
    mine, others = kernels(ours), kernels(theirs)
    assert len(mine) >= 3
    assert len(mine) == len(others)
    for kernel, other in zip(mine, others, strict=True):
        # A weight that lies halfway between two levels falls to either side: the last bit of a
        # folded BatchNormalization is another one in the two programs.
        apart = np.abs(kernel.astype(int) - other)
        assert apart.max() <= 1
        assert np.count_nonzero(apart) <= 1 + 1e-4 * apart.size
    assert ko.export.compare_operations(aware, ours, x).faults() == []


def test_what_is_compared_has_kernels_to_compare():
    aware = ko.quantization.quantize_aware(small_cnn())
    found = ko.quantization.kernel_levels(aware)
    assert [kernel.layer for kernel in found] == [
        "stem_conv",
        "block1_depthwise",
        "block1_project",
        "block2_conv",
        "logits",
    ]
    stem = aware.get_layer("stem_conv").layer.kernel.numpy()
    rows = stem.transpose(3, 0, 1, 2).reshape(8, -1)
    np.testing.assert_allclose(found[0].scale, np.abs(rows).max(1) / 127, rtol=1e-6)
    np.testing.assert_array_equal(found[0].levels, np.round(rows / found[0].scale[:, None]))
