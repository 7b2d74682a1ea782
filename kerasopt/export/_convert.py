"""From a Keras model to TFLite bytes, with the converter of TensorFlow."""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._data import batches

_MAX_SAMPLES = 200
"""Enough to find ranges; more costs time and changes little."""


def convert(
    model: Any,
    *,
    quantize: str | None,
    representative: Callable[[], Iterator[list[np.ndarray]]] | None,
    quantization_aware: bool,
    input_dtype: str,
    output_dtype: str,
) -> bytes:
    """Returns the TFLite file of a model with a static batch of 1, builtin operators only.

    Raises:
        ValueError: an operator has no TFLite builtin.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        _save(model, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        builtins = tf.lite.OpsSet.TFLITE_BUILTINS
        converter.target_spec.supported_ops = [builtins]
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.inference_input_type = tf.as_dtype(input_dtype)
            converter.inference_output_type = tf.as_dtype(output_dtype)
            if not quantization_aware:
                converter.representative_dataset = representative
                converter.target_spec.supported_ops = [
                    tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                    builtins,
                ]
        try:
            return bytes(converter.convert())
        except Exception as error:
            # The converter raises bare types of its own; its text names the operator.
            raise ValueError(
                f"The model {model.name!r} cannot become a TFLite file of builtin operators: "
                f"{_reason(error)}"
            ) from error


def representative_samples(data: Any, model: Any) -> Callable[[], Iterator[list[np.ndarray]]]:
    """Returns the converter's generator of single inputs, after checking them.

    When the inputs are 0 to 255 pixels, black and white are put into a corner of the first one,
    so that the input's scale is 1 and a byte is a pixel.

    Raises:
        ValueError: there is no data, the shape is not the model's, or a value is not finite.
    """
    if data is None:
        raise ValueError(
            "`quantize='int8'` of a float model needs data to take its ranges from. Received: "
            "representative_data=None. Pass a hundred or so training inputs, or a "
            "quantization-aware model."
        )
    expected = tuple(model.inputs[0].shape[1:])
    samples: list[np.ndarray] = []
    for x, _ in batches(data, name="representative_data"):
        if x.shape[1:] != expected:
            raise ValueError(
                "`representative_data` must have the shape "
                f"(batch, {', '.join(map(str, expected))}). "
                f"Received: shape {x.shape}."
            )
        if not np.isfinite(x.astype("float32")).all():
            raise ValueError("`representative_data` must be finite. Received: NaN or infinity.")
        samples.extend(x[i : i + 1].astype("float32") for i in range(len(x)))
        if len(samples) >= _MAX_SAMPLES:
            break
    samples = samples[:_MAX_SAMPLES]
    low, high = min(s.min() for s in samples), max(s.max() for s in samples)
    if low >= 0.0 and 127.0 < high <= 255.0:
        samples[0] = samples[0].copy()
        samples[0].flat[0], samples[0].flat[1] = 0.0, 255.0
    return lambda: ([sample] for sample in samples)


def static_batch(model: Any) -> Any:
    """Returns the model on an input with batch size 1."""
    inputs = [
        keras.Input(batch_shape=(1, *t.shape[1:]), dtype=t.dtype, name=t.name) for t in model.inputs
    ]
    return keras.Model(inputs, model(inputs[0] if len(inputs) == 1 else inputs, training=False))


def _save(model: Any, folder: str) -> None:
    signature = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        fn=lambda *x: model(x[0] if len(x) == 1 else list(x), training=False),
        input_signature=signature,
    )
    archive.write_out(folder, verbose=False)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line or "not supported" in line]
    return (telling or lines or [type(error).__name__])[0][:400]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the converter's chatter; its errors come as exceptions."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    before = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if before is not None:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = before
