"""`to_tflite`: convert, run beside Keras, and only then write."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from kerasopt._backend import keras
from kerasopt._data import batches
from kerasopt._files import check_target, write_atomic
from kerasopt._validation import check_choice, check_int, check_number
from kerasopt.export._checks import check_labels, check_model
from kerasopt.export._child import trust
from kerasopt.export._convert import convert, output_names, with_batch
from kerasopt.export._interpreter import TFLiteModel
from kerasopt.export._metadata import Metadata
from kerasopt.export._metadata_plan import (
    Observed,
    check_range,
    describe_file,
    pixel_range,
    plan_metadata,
)
from kerasopt.export._operations import compare_kernels, compare_operations
from kerasopt.export._probabilities import ends_in_probabilities, with_probabilities
from kerasopt.export._representative import representative_samples
from kerasopt.export._verify import (
    ExportResult,
    accept,
    compare,
    describe,
    every_setting,
    rejecting,
    write_labels,
)
from kerasopt.quantization import (
    export_twin,
    float_operations,
    is_quantization_aware,
    scheme_of,
)

_MODES = (None, "float16", "dynamic", "int8", "int16x8")
_AGREEMENT = {None: 0.999, "float16": 0.99, "dynamic": 0.97, "int8": 0.97, "int16x8": 0.97}
_MODE_OF_SCHEME = {"int8": "int8", "int16x8": "int16x8", "int8_weights": "dynamic"}


def to_tflite(
    model: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    quantize: str | None = None,
    representative_data: Any = None,
    labels: Sequence[str] | None = None,
    metadata: Metadata | bool | None = None,
    probabilities: bool = False,
    verify: Any = None,
    batch_size: int | None = 1,
    input_dtype: str | None = None,
    output_dtype: str | None = None,
    allow_flex: bool = False,
    min_agreement: float | None = None,
    max_accuracy_drop: float = 0.01,
) -> ExportResult:
    """Converts a model to TFLite and runs the file beside the model before writing it.

    The file has builtin operators only. Augmentation, dropout and ranges
    that matter in training alone are not in it.

    Args:
        model: a built Keras model; for `"int8"` best a quantization-aware one
            (`QuantizeAware.quantized_model`), whose ranges were trained. Inputs and outputs of
            the file have the names of the Keras inputs and of the last layers.
        path: where to write the file, atomically; with `labels` a `NAME.labels.txt` beside it.
            `None` writes nothing.
        quantize: `None` (float32), `"float16"` (half the size), `"dynamic"` (int8 weights, float
            activations), `"int8"` (integers throughout) or `"int16x8"` (16-bit activations on
            int8 weights, float32 in and out). A quantization-aware model becomes the file of its
            scheme, which is `"dynamic"` for `"int8_weights"`.
        representative_data: inputs from which an int8 file of a float model, and any int16x8
            file, takes its ranges: an array, `(x, y)`, a `tf.data.Dataset`, an iterable of
            batches, or a folder of photos; with several inputs each `x` is a dict by name. 200
            are used, as many of each class.
        labels: class names, as many as the model has outputs.
        metadata: what the file says of itself, for MediaPipe Tasks and other readers: a
            `Metadata`, `True` for one with the model's name, `False` for none. Default: written
            when there are labels.
        probabilities: put a softmax (a sigmoid for a single output) behind a model that ends in
            logits, in the file and in the comparison. One that ends in either stays as it is.
        verify: data to compare file and model on, with or without labels, in the same forms.
        batch_size: inputs that the file takes at once: a number, or `None` for as many as the
            caller likes, which some delegates do not support. Default 1.
        input_dtype: for int8: `"uint8"` (default, so that an app hands over its bitmap), `"int8"`
            or `"float32"`.
        output_dtype: for int8: `"float32"` (default), `"uint8"` or `"int8"`.
        allow_flex: accept operators of TensorFlow where there is no builtin one. Such a file
            needs the Flex delegate, which adds tens of megabytes to an app, and cannot be run
            and so not be verified in Python.
        min_agreement: fraction of the verified inputs that must get the same top class, in
            [0, 1]. Default 0.999 for float32, 0.99 for float16, 0.97 for all others; one
            differing input is always allowed.
        max_accuracy_drop: how much accuracy the file may lose against Keras on labelled `verify`
            data, a fraction in [0, 1]. Default 0.01; one lost input is always allowed.

    With `verify`, a quantization-aware model and its int8 file are also compared operation by
    operation on the first input (see `compare_operations`): at most 2 steps, and at least 90 % of
    the values of each operation the same integer; kernels and biases the same integers; no float
    tensor outside of the float islands. Of an int16x8 file, which has ranges of its own, the
    kernels are compared. The first 16 inputs also run with XNNPACK and without, on one thread and
    on all, and must agree as much.

    Returns:
        An `ExportResult`.

    Raises:
        TypeError: an argument has a wrong type.
        OSError: there is no room or no permission to write the file.
        ValueError: an argument is out of range, the model is not built or has weights that are
            not finite, there is no `representative_data` where it is needed, labels that do not
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
    if path is not None:
        check_target(path)
    check_model(model)
    aware = _is_aware(model, quantize)
    types = _check_types(model, quantize, input_dtype, output_dtype)
    floor = _AGREEMENT[quantize] if min_agreement is None else min_agreement
    check_number("min_agreement", floor, low=0.0, high=1.0)
    check_number("max_accuracy_drop", max_accuracy_drop, low=0.0, high=1.0)
    if batch_size is not None:
        check_int("batch_size", batch_size, low=1)
    planned = plan_metadata(metadata, check_labels(labels, model), model)
    names = check_labels(labels if planned is None else planned.labels, model)
    wish = _Wish(quantize, aware, types, batch_size, allow_flex, planned)
    shown = model
    if probabilities and not ends_in_probabilities(model):
        shown = with_probabilities(model)
    content, lite = _make(model, shown, wish, representative_data)
    result = dataclasses.replace(
        describe(content, quantize, lite),
        labels=names,
        float_operations=float_operations(model) if aware else (),
    )
    if verify is not None:
        result = _verified(result, model, shown, lite, verify, wish)
        accept(result, floor, max_accuracy_drop, reject=rejecting(path, ".tflite"))
    if path is None:
        return result
    written = write_atomic(path, result.content)
    if labels is not None:
        write_labels(written.with_suffix(""), names)
    return dataclasses.replace(result, path=written)


@dataclasses.dataclass(frozen=True)
class _Wish:
    """What kind of file it is to be."""

    quantize: str | None
    aware: bool
    types: tuple[str, str]
    batch_size: int | None
    allow_flex: bool
    metadata: Metadata | None


def _make(model: Any, shown: Any, wish: _Wish, data: Any) -> tuple[bytes, TFLiteModel]:
    """Converts, asserts that the file is as wished, and puts the metadata into it."""
    representative = None
    if wish.quantize == "int16x8" or (wish.quantize == "int8" and not wish.aware):
        representative = representative_samples(
            data,
            model,
            pixels=pixel_range(wish.metadata),
            normalization=wish.metadata.normalization if wish.metadata else (),
            batch_size=wish.batch_size,
        )
    content = convert(
        _source(model, shown, wish),
        quantize=wish.quantize,
        representative=representative,
        quantization_aware=wish.aware,
        input_dtype=wish.types[0],
        output_dtype=wish.types[1],
        output_names=output_names(shown),
        allow_flex=wish.allow_flex,
    )
    lite = _check_file(content, shown, wish)
    if wish.metadata is None:
        return content, lite
    content = describe_file(content, wish.metadata, shown, lite)
    return content, _check_file(content, shown, wish)


def _source(model: Any, shown: Any, wish: _Wish) -> Any:
    """Returns the graph to convert: the model with its batch size, or its twin."""
    if not wish.aware:
        return with_batch(shown, wish.batch_size)
    twin = export_twin(model, batch_size=wish.batch_size)
    if shown is model:
        return twin
    return with_probabilities(twin, quantized_output=wish.types[1] != "float32")


def _verified(
    result: ExportResult, model: Any, shown: Any, lite: TFLiteModel, verify: Any, wish: _Wish
) -> ExportResult:
    flex = sorted({name for name in result.operators if name.startswith("Flex")})
    if flex:
        raise ValueError(
            "`verify` must be None for a file with operators of TensorFlow: no interpreter for "
            f"Python has the Flex delegate. Received: a file with {', '.join(flex)}. Use builtin "
            "operators, or accept a file that was not compared."
        )
    outputs = shown.outputs[0].shape
    observed = Observed(outputs[-1] if len(shown.outputs) == 1 and len(outputs) == 2 else None)
    compared = compare(shown, lite, observed.watch(batches(verify, name="verify")))
    check_range(wish.metadata, observed, "verify")
    operations = None
    if wish.aware and wish.quantize == "int8":
        operations = compare_operations(model, lite, [observed.first], samples=1)
    elif wish.aware and wish.quantize == "int16x8":
        operations = compare_kernels(model, lite)
    runs = every_setting(shown, lite.content, observed.first)
    return dataclasses.replace(result, operations=operations, runs=runs, **vars(compared))


def _is_aware(model: Any, quantize: str | None) -> bool:
    """Tells whether a model is quantization-aware, and checks that the file is of its kind."""
    aware = is_quantization_aware(model)
    if aware and quantize != _MODE_OF_SCHEME[scheme_of(model).name]:
        name = scheme_of(model).name
        raise ValueError(
            f"A quantization-aware model of the scheme {name!r} becomes one kind of file. "
            f"Received: quantize={quantize!r}. Pass quantize={_MODE_OF_SCHEME[name]!r}, or the "
            "float model (ko.quantization.strip)."
        )
    return aware


def _check_types(
    model: Any, quantize: str | None, input_dtype: str | None, output_dtype: str | None
) -> tuple[str, str]:
    wanted = (
        input_dtype or ("uint8" if quantize == "int8" else "float32"),
        output_dtype or "float32",
    )
    kinds = [keras.backend.standardize_dtype(tensor.dtype) for tensor in model.inputs]
    if input_dtype is None and all(kind.startswith("int") for kind in kinds):
        return kinds[0], wanted[1]  # indices stay what they are
    for name, value in zip(("input_dtype", "output_dtype"), wanted, strict=True):
        check_choice(
            name, value, ("uint8", "int8", "float32") if quantize == "int8" else ("float32",)
        )
    return wanted


def _check_file(content: bytes, model: Any, wish: _Wish) -> TFLiteModel:
    """Runs the file for the first time, and asserts names, shapes and types as it has them."""
    trust(content)
    lite = TFLiteModel(content)
    wanted = (
        {t.name: _type_of(t, wish.types[0]) for t in model.inputs},
        dict(
            zip(
                output_names(model),
                (_type_of(t, wish.types[1]) for t in model.outputs),
                strict=True,
            )
        ),
    )
    found = ({t.name: t.dtype for t in lite.inputs}, {t.name: t.dtype for t in lite.outputs})
    if found != wanted:
        raise ValueError(
            f"The file must take {_listed(wanted[0])} and give {_listed(wanted[1])}. "
            f"Received from the converter: {_listed(found[0])} and {_listed(found[1])}. "
            "Pass input_dtype='float32' and output_dtype='float32' to accept that."
        )
    sizes = {tensor.shape[0] for tensor in lite.inputs if tensor.shape}
    if sizes - {wish.batch_size}:
        raise ValueError(
            f"The file must have the batch size {wish.batch_size}. Received from the converter: "
            f"{sorted(sizes, key=str)}. Pass batch_size=1."
        )
    return lite


def _type_of(tensor: Any, wanted: str) -> str:
    """Only what is floating-point in Keras is quantized; token ids and the like stay."""
    kind = keras.backend.standardize_dtype(tensor.dtype)
    return wanted if kind.startswith(("float", "bfloat")) else kind


def _listed(types: dict[str, str]) -> str:
    return ", ".join(types.values()) if len(types) == 1 else str(types)
