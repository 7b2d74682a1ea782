"""The cases of `ko.serving`."""

import functools
import pathlib

import keras

import kerasopt as ko
from tests.cases._case import Case, photos, tflite
from tests.models import small_cnn


def _write(name: str, content: bytes) -> pathlib.Path:
    path = photos() / name
    path.write_bytes(content)
    return path


@functools.cache
def classifier() -> pathlib.Path:
    """A classifier of photos."""
    return _write("classifier.tflite", ko.export.to_tflite(small_cnn()).content)


@functools.cache
def with_signed_bytes() -> pathlib.Path:
    """A classifier that takes int8."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    aware = ko.quantization.quantize_aware(model)
    aware(keras.ops.ones((1, 8, 8, 3)) * 255.0, training=True)
    made = ko.export.to_tflite(aware, quantize="int8", input_dtype="int8")
    return _write("signed.tflite", made.content)


SERVING = (
    Case(
        "serving",
        "PhotoServer",
        "class",
        make=lambda: ko.serving.PhotoServer(classifier(), port=0),
        bad=(
            ({"run": "no/such/run"}, ValueError, r"`run` must be a \.tflite file, or the folder"),
            ({"run": "run", "port": 65536}, ValueError, r"`port` must be an integer in \[0, 65535"),
            ({"run": "run", "port": "80"}, TypeError, "`port` must be an integer"),
            (
                lambda: ko.serving.PhotoServer(_write("dense.tflite", tflite())),
                ValueError,
                "`run` must hold a classifier of photos",
            ),
            (
                lambda: ko.serving.PhotoServer(with_signed_bytes()),
                ValueError,
                "`run` must take and give uint8 or float32",
            ),
            (
                lambda: ko.serving.PhotoServer(classifier()).url,
                RuntimeError,
                "The server must be started first",
            ),
        ),
    ),
)
