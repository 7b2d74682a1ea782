"""The one function: a model, or a file of one, to its report."""

import os
from typing import Any

from kerasopt._backend import keras
from kerasopt._keras_file import load_keras
from kerasopt.profiling._keras_model import profile_keras
from kerasopt.profiling._report import Profile
from kerasopt.profiling._tflite_file import read_content, read_file
from kerasopt.profiling._tflite_model import profile_tflite


def profile(model_or_tflite: Any) -> Profile:
    """Counts parameters, zeros, distinct values, bits, bytes and MACs, layer by layer.

    Nested models are opened. What layers share (a layer called twice, a buffer that two operators
    read) is counted once, with the first of them; MACs are counted for every call. Zeros and
    distinct values are those of kernels, weights of rank 2 and more. MACs are multiply-accumulate
    operations for one image: convolutions, dense layers, einsums and matrix products in Keras,
    those of a recurrent layer for each of its steps; `BATCH_MATMUL`, `CONV_2D`, `CONV_3D`,
    `DEPTHWISE_CONV_2D`, `FULLY_CONNECTED` and `TRANSPOSE_CONV` in a file, of a loop once. What
    runs in another loop or in a `tf.function` of its own is not counted.

    A Keras model is traced once, and is left as it was. A TFLite file is read, not run; constants
    that only tell shapes, axes or paddings count as bytes, not as parameters.

    Args:
        model_or_tflite: a built `keras.Model`, the path of a `.keras` or `.tflite` file, the bytes
            of a TFLite file, a `TFLiteModel` or an `ExportResult`.

    Returns:
        A `Profile`; `print` shows it as a table.

    Raises:
        TypeError: the argument is none of these.
        ValueError: the model is not built, or the file is neither of the two or is damaged.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        >>> report = profile(model)
        >>> report.parameters, report.macs
        (112, 3888)
        >>> report.rows[0].output_shape
        (None, 6, 6, 4)
    """
    if isinstance(model_or_tflite, keras.Model):
        return profile_keras(model_or_tflite)
    content = getattr(model_or_tflite, "content", None)  # of a TFLiteModel or an ExportResult
    if isinstance(content, bytes):
        model_or_tflite = content
    if isinstance(model_or_tflite, bytes | bytearray | memoryview):
        return profile_tflite(read_content(model_or_tflite), source="TFLite file")
    if not isinstance(model_or_tflite, str | os.PathLike):
        raise TypeError(
            "`model_or_tflite` must be a Keras 3 model, the path of a .keras or .tflite file, "
            "or the bytes of a TFLite file. "
            f"Received: an object of type {type(model_or_tflite).__name__}."
        )
    path = os.fspath(model_or_tflite)
    if path.endswith(".keras"):
        size = len(read_file(path))
        model = load_keras(path)
        return profile_keras(model, source=path, file_bytes=size)
    return profile_tflite(read_content(path), source=path)
