"""`to_tflite`: convert, run beside Keras, and only then write."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._files import write_atomic
from kerasopt._validation import check_choice, check_number
from kerasopt.export._convert import convert, representative_samples, static_batch
from kerasopt.export._interpreter import TFLiteModel
from kerasopt.export._verify import ExportResult, VerificationError, compare, describe
from kerasopt.quantization import export_twin, float_operations, is_quantization_aware
from kerasopt.training import settle

_MODES = (None, "float16", "dynamic", "int8")
_AGREEMENT = {None: 0.999, "float16": 0.99, "dynamic": 0.97, "int8": 0.97}


def to_tflite(
    model: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    quantize: str | None = None,
    representative_data: Any = None,
    labels: Sequence[str] | None = None,
    verify: Any = None,
    input_dtype: str | None = None,
    output_dtype: str | None = None,
    min_agreement: float | None = None,
    max_accuracy_drop: float = 0.01,
) -> ExportResult:
    """Converts a model to TFLite and runs the file beside the model before writing it.

    The file has a batch size of 1 and builtin operators only. Augmentation, dropout and ranges
    that matter in training alone are not in it.

    Args:
        model: a built Keras model with one input and one output; for `"int8"` best a
            quantization-aware one (`QuantizeAware.quantized_model`), whose ranges were trained.
        path: where to write the file, atomically; with `labels` a `NAME.labels.txt` beside it.
            `None` writes nothing.
        quantize: `None` (float32), `"float16"` (half the size), `"dynamic"` (int8 weights, float
            activations) or `"int8"` (integers throughout).
        representative_data: inputs from which an int8 file of a float model takes its ranges: an
            array, `(x, y)`, a `tf.data.Dataset` or an iterable of batches. The first 200 count.
        labels: class names, as many as the model has outputs.
        verify: data to compare file and model on, with or without labels, in the same forms.
        input_dtype: for int8: `"uint8"` (default, so that an app hands over its bitmap), `"int8"`
            or `"float32"`.
        output_dtype: for int8: `"float32"` (default), `"uint8"` or `"int8"`.
        min_agreement: fraction of the verified inputs that must get the same top class, in
            [0, 1]. Default 0.999 for float32, 0.99 for float16, 0.97 for dynamic and int8; one
            differing input is always allowed.
        max_accuracy_drop: how much accuracy the file may lose against Keras on labelled `verify`
            data, a fraction in [0, 1]. Default 0.01; one lost input is always allowed.

    Returns:
        An `ExportResult`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, the model is not built or has weights that are
            not finite, int8 of a float model without `representative_data`, labels that do not
            match the outputs, or an operator without a TFLite builtin.
        VerificationError: the file differs from the model by more than is allowed; it is kept as
            `NAME.rejected.tflite`.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> to_tflite(model).operators
        ('FULLY_CONNECTED',)
    """
    check_choice("quantize", quantize, _MODES)
    aware = _check_model(model, quantize)
    types = _check_types(quantize, input_dtype, output_dtype)
    floor = _AGREEMENT[quantize] if min_agreement is None else min_agreement
    check_number("min_agreement", floor, low=0.0, high=1.0)
    check_number("max_accuracy_drop", max_accuracy_drop, low=0.0, high=1.0)
    names = _check_labels(labels, model)
    representative = None
    if quantize == "int8" and not aware:
        representative = representative_samples(representative_data, model)
    content = convert(
        export_twin(model) if aware else static_batch(model),
        quantize=quantize,
        representative=representative,
        quantization_aware=aware,
        input_dtype=types[0],
        output_dtype=types[1],
    )
    lite = _check_file(content, types)
    result = dataclasses.replace(
        describe(content, quantize, lite),
        labels=names,
        float_operations=float_operations(model) if aware else (),
    )
    if verify is not None:
        result = dataclasses.replace(result, **vars(compare(model, lite, verify)))
        _accept(result, path, floor, max_accuracy_drop)
    return result if path is None else _write(result, pathlib.Path(path))


def _check_model(model: Any, quantize: str | None) -> bool:
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    settle(model)
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"`model` must be built on known inputs. Received: {model.name!r}. "
            "Give it a keras.Input, or wrap a subclassed model: keras.Model(x, model(x))."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one input and one output. "
            f"Received: {len(model.inputs)} inputs and {len(model.outputs)} outputs."
        )
    if None in model.inputs[0].shape[1:]:
        raise ValueError(
            "`model` must have a fixed input size. "
            f"Received: input shape {tuple(model.inputs[0].shape)}. Build it on a fixed shape."
        )
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(
                f"`model` must have finite weights. Received: NaN or infinity in {weight.path!r}. "
                "Lower the learning rate or clip gradients."
            )
    aware = is_quantization_aware(model)
    if aware and quantize != "int8":
        raise ValueError(
            "A quantization-aware model becomes an int8 file. "
            f"Received: quantize={quantize!r}. Pass quantize='int8', or the float model."
        )
    return aware


def _check_types(
    quantize: str | None, input_dtype: str | None, output_dtype: str | None
) -> tuple[str, str]:
    wanted = (
        input_dtype or ("uint8" if quantize == "int8" else "float32"),
        output_dtype or "float32",
    )
    for name, value in zip(("input_dtype", "output_dtype"), wanted, strict=True):
        check_choice(
            name, value, ("uint8", "int8", "float32") if quantize == "int8" else ("float32",)
        )
    return wanted


def _check_file(content: bytes, types: tuple[str, str]) -> TFLiteModel:
    lite = TFLiteModel(content)
    if (lite.input_dtype, lite.output_dtype) != types:
        raise ValueError(
            f"The file must take {types[0]} and give {types[1]}. Received from the converter: "
            f"{lite.input_dtype} and {lite.output_dtype}. "
            "Pass input_dtype='float32' and output_dtype='float32' to accept that."
        )
    return lite


def _check_labels(labels: Sequence[str] | None, model: Any) -> tuple[str, ...] | None:
    if labels is None:
        return None
    outputs = model.outputs[0].shape[-1]
    if isinstance(labels, str) or len(labels) != outputs:
        raise ValueError(
            f"`labels` must be a list of {outputs} class names, one for each output. "
            f"Received: {labels!r}."
        )
    return tuple(str(label) for label in labels)


def _accept(result: ExportResult, path: Any, floor: float, max_drop: float) -> None:
    count = result.samples
    differing = round((1.0 - (result.agreement or 0.0)) * count)
    faults = []
    if differing > max(1, math.floor((1.0 - floor) * count + 1e-9)):
        faults.append(f"agreement {result.agreement:.2%}, at least {floor:.2%} is required")
    if result.accuracy is not None and result.keras_accuracy is not None:
        lost = round((result.keras_accuracy - result.accuracy) * count)
        if lost > max(1, math.floor(max_drop * count + 1e-9)):
            faults.append(
                f"accuracy {result.accuracy:.2%} against {result.keras_accuracy:.2%} in Keras, "
                f"a loss of {max_drop:.2%} is allowed"
            )
    if not faults:
        return
    if path is not None:
        target = pathlib.Path(path)
        rejected = write_atomic(target.with_name(f"{target.stem}.rejected.tflite"), result.content)
        result = dataclasses.replace(result, path=rejected)
    raise VerificationError(
        f"The file does not match the model on {count} inputs: {'; '.join(faults)}. "
        f"Largest output difference {result.max_error:.4g}.",
        result,
    )


def _write(result: ExportResult, target: pathlib.Path) -> ExportResult:
    written = write_atomic(target, result.content)
    if result.labels is not None:
        write_atomic(target.with_name(f"{target.stem}.labels.txt"), "\n".join(result.labels) + "\n")
    return dataclasses.replace(result, path=written)
