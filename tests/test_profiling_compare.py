"""Profiles side by side."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from kerasopt.profiling import compare, profile
from tests.models import small_cnn, stripes


@pytest.fixture(scope="module")
def kinds():
    model = small_cnn()
    return {
        "keras": model,
        "float32": ko.export.to_tflite(model).content,
        "int8": ko.export.to_tflite(
            model, quantize="int8", representative_data=stripes(16)[0], verify=False
        ).content,
    }


def test_a_model_and_its_files(kinds):
    report = compare(kinds)
    assert list(report.profiles) == list(kinds)
    for name, model in kinds.items():
        assert report.profiles[name] == profile(model) or name == "keras"
    macs = {name: found.macs for name, found in report.profiles.items()}
    assert macs["float32"] == macs["keras"]
    kernels = {
        rows[0].name: [row and row.kernel_parameters for row in rows]
        for rows in report.layers
        if rows[0].kernel_parameters
    }
    assert kernels == {
        "stem_conv": [216, 216, 216],
        "block1_depthwise": [72, 72, 72],
        "block1_project": [64, 64, 64],
        "block2_conv": [1152, 1152, 1152],
        "logits": [64, 64, 64],
    }
    bits = {row.num_bits for rows in report.layers for row in rows[2:] if row and row.bytes}
    assert 8 in bits


def test_two_files(kinds):
    report = compare([kinds["float32"], kinds["int8"]])
    assert list(report.profiles) == ["TFLite file", "TFLite file (2)"]
    found = [rows for rows in report.layers if rows[0].kernel_parameters]
    assert len(found) == 5
    assert all(a.kernel_parameters == b.kernel_parameters for a, b in found)


def test_what_export_gives_is_taken_too():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="head")])
    result = ko.export.to_tflite(model)
    x = np.ones((2, 8), "float32")
    for file in (result, ko.export.TFLiteModel(result.content)):
        assert profile(file) == profile(result.content)
        assert ko.profiling.diff(model, file, x).output.relative_error < 1e-5


def test_pruned_channels_of_the_same_layers():
    def net(filters):
        return keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(filters, 3, name="conv"),
                layers.GlobalMaxPooling2D(name="pool"),
                layers.Dense(2, name="logits"),
            ]
        )

    report = compare({"wide": net(8), "slim": net(4)})
    rows = {a.name: (a.parameters, b.parameters) for a, b in report.layers}
    assert rows == {"conv": (224, 112), "pool": (0, 0), "logits": (18, 10)}


def test_names_that_only_differ_by_a_number():
    """Keras numbers layers, and TensorFlow numbers their places in the graph once more."""
    inputs = keras.Input((4,))
    x = inputs
    for index in range(4):
        x = layers.Dense(4, name="dense" if not index else f"dense_{index}")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    report = compare({"keras": model, "file": ko.export.to_tflite(model).content})
    assert [rows[1] for rows in report.layers] == list(report.profiles["file"].rows)


def test_models_without_a_name_in_common():
    a, b = (
        keras.Sequential([keras.Input((4,)), layers.ReLU(name=name), layers.Softmax(name=name * 2)])
        for name in ("a", "b")
    )
    assert all(rows[1] is None for rows in compare({"a": a, "b": b}).layers)


def test_table_and_dict(kinds):
    report = compare(kinds)
    text = str(report)
    lines = text.splitlines()
    assert lines[0].split() == ["keras", "float32", "int8"]
    size = len(kinds["int8"])
    row = next(line for line in lines if "KiB of the file" in line)
    assert f"{size / 1024:,.1f}" in row
    row = next(line for line in lines if "at the peak" in line)
    share = report.profiles["int8"].peak_bytes / report.profiles["keras"].peak_bytes
    assert f"({share:.0%})" in row
    values = json.loads(json.dumps(report.to_dict()))
    assert values["profiles"]["int8"]["file_bytes"] == size
    assert values["layers"][1][0] == "stem_conv"
