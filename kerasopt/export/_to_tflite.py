"""`to_tflite`: convert, run beside Keras, and only then write."""

import collections
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from kerasopt._backend import keras
from kerasopt._files import check_target, write_atomic
from kerasopt._validation import check_choice, check_int
from kerasopt.export._checks import check_labels, check_operators, checked_model
from kerasopt.export._child import trust
from kerasopt.export._compare import Parting, compare, every_setting, find_parting
from kerasopt.export._convert import convert, output_names, with_batch
from kerasopt.export._interpreter import TFLiteModel
from kerasopt.export._metadata import Metadata
from kerasopt.export._metadata_plan import (
    Observed,
    check_range,
    describe_file,
    pixel_range,
    plan_metadata,
    warn_of_other_range,
)
from kerasopt.export._operations import compare_kernels, compare_operations
from kerasopt.export._precision import in_float32, precision_of
from kerasopt.export._probabilities import ends_in_probabilities, with_probabilities
from kerasopt.export._representative import as_data, generator_of, representative_samples
from kerasopt.export._verify import (
    ExportResult,
    Limits,
    accept,
    describe,
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
_ERROR = {None: 1e-3, "float16": 0.05, "dynamic": 0.5, "int8": 0.5, "int16x8": 0.5}
_LIKE = {"float16": "float16", "bfloat16": "dynamic"}
"""A model that computes in half precision rounds by itself, as files of these kinds do."""
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
    max_relative_error: float | None = None,
    max_steps: int = 2,
    min_equal: float = 0.9,
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
        verify: data to compare file and model on, with or without labels, in the forms of
            `representative_data` but for a folder. Default: the inputs, 200 at most, that were
            taken from `representative_data`, if there are any. `False` compares nothing.
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
        max_relative_error: norm of the difference over the norm of Keras' outputs that is allowed
            over all verified inputs, >= 0; of several outputs the largest counts. Default 0.001
            for float32, 0.05 for float16, 0.5 for all others, where only a wrong file is that far
            off. What is not finite, where the model's output is, is always refused.
        max_steps: of a quantization-aware model and its int8 file, see below: by how many steps a
            value may differ, >= 0. Default 2.
        min_equal: likewise, the fraction of the values of an operation that must be the same
            integer, in [0, 1]. Default 0.9.

    A quantization-aware model and its int8 file are also compared operation by operation on the
    first input of `verify` (see `compare_operations`): at most `max_steps`, and at least
    `min_equal` of the values of each operation the same integer; kernels and biases the same
    integers; no float tensor outside of the float islands. Of an int16x8 file, which has ranges of
    its own, the kernels are compared. The first 16 inputs also run with XNNPACK and without, on one
    thread and on all, and must agree as much. When a file of one output fails, the error names the
    first layer where the two part, each running on from its own values (see
    `kerasopt.profiling.diff`).

    A model that computes in float16, bfloat16 or float64 is converted as its float32 twin, which
    has the same weights, and compared as it is: with the defaults of float16 files where it
    computes in float16, and those of dynamic ones where in bfloat16.

    Returns:
        An `ExportResult`.

    Raises:
        TypeError: an argument has a wrong type.
        OSError: there is no room or no permission to write the file.
        ValueError: an argument is out of range, the model is not built, has weights that are
            not finite or draws random numbers, there is no `representative_data` where it is
            needed, labels that do not match the outputs, or an operator without a TFLite builtin.
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
    model = checked_model(model)
    aware = _is_aware(model, quantize)
    types = _check_types(model, quantize, input_dtype, output_dtype)
    bounds = (min_agreement, max_accuracy_drop, max_relative_error, max_steps, min_equal)
    limits = _limits(precision_of(model), quantize, *bounds)
    if batch_size is not None:
        check_int("batch_size", batch_size, low=1)
    planned = plan_metadata(metadata, check_labels(labels, model), model)
    names = check_labels(labels if planned is None else planned.labels, model)
    wish = _Wish(quantize, aware, types, batch_size, allow_flex, planned)
    shown = model
    if probabilities and not ends_in_probabilities(model):
        shown = with_probabilities(model)
    samples = _samples(model, wish, representative_data, verify)
    lite = _make(model, shown, wish, samples)
    result = describe(lite, quantize, names, float_operations(model) if aware else ())
    if verify is None and samples and not _flex(lite):
        verify = as_data(samples)
    if verify is not None and verify is not False:
        compared = _verified(result, model, shown, lite, verify, wish, limits, samples)
        result = accept(*compared, limits, reject=rejecting(path, ".tflite"))
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

    @property
    def needs_ranges(self) -> bool:
        """Whether the converter takes ranges from data."""
        return self.quantize == "int16x8" or (self.quantize == "int8" and not self.aware)


def _limits(
    precision: str,
    quantize: str | None,
    min_agreement: float | None,
    max_accuracy_drop: float,
    max_relative_error: float | None,
    max_steps: int,
    min_equal: float,
) -> Limits:
    kind = quantize or _LIKE.get(precision)
    return Limits(
        _AGREEMENT[kind] if min_agreement is None else min_agreement,
        max_accuracy_drop,
        _ERROR[kind] if max_relative_error is None else max_relative_error,
        max_steps,
        min_equal,
    )


def _samples(model: Any, wish: _Wish, data: Any, verify: Any) -> list[Any] | None:
    """Returns the inputs for ranges and for verification; `None` where nobody asks for them."""
    if not wish.needs_ranges and (data is None or verify is not None):
        return None
    normalization = wish.metadata.normalization if wish.metadata else ()
    samples = representative_samples(data, model, normalization=normalization)
    check_range(wish.metadata, _observed(model, samples), "representative_data")
    return samples


def _observed(model: Any, samples: list[Any]) -> Observed:
    seen = Observed(model, "representative_data")
    collections.deque(seen.watch(as_data(samples)), maxlen=0)
    return seen


def _make(model: Any, shown: Any, wish: _Wish, samples: list[Any] | None) -> TFLiteModel:
    """Converts, asserts that the file is as wished, and puts the metadata into it."""
    ranges = None
    if wish.needs_ranges and samples:
        pixels = pixel_range(wish.metadata)
        ranges = generator_of(samples, model, pixels=pixels, batch_size=wish.batch_size)
    content = convert(
        _source(model, shown, wish),
        quantize=wish.quantize,
        representative=ranges,
        quantization_aware=wish.aware,
        input_dtype=wish.types[0],
        output_dtype=wish.types[1],
        output_names=output_names(shown),
        allow_flex=wish.allow_flex,
    )
    lite = _check_file(content, shown, wish)
    if wish.metadata is None:
        return lite
    return _check_file(describe_file(content, wish.metadata, shown, lite), shown, wish)


def _source(model: Any, shown: Any, wish: _Wish) -> Any:
    """Returns the graph to convert: the model with its batch size, or its twin."""
    if not wish.aware:
        is_float32 = precision_of(shown) == "float32"
        return with_batch(shown if is_float32 else in_float32(shown), wish.batch_size)
    twin = export_twin(model, batch_size=wish.batch_size)
    if shown is model:
        return twin
    return with_probabilities(twin, quantized_output=wish.types[1] != "float32")


def _verified(
    result: ExportResult,
    model: Any,
    shown: Any,
    lite: TFLiteModel,
    verify: Any,
    wish: _Wish,
    limits: Limits,
    samples: list[Any] | None,
) -> tuple[ExportResult, Callable[[], Parting]]:
    """Returns the figures of the comparison, and what finds out where both part."""
    flex = _flex(lite)
    if flex:
        raise ValueError(
            "`verify` must be None for a file with operators of TensorFlow: no interpreter for "
            f"Python has the Flex delegate. Received: a file with {', '.join(flex)}. Use builtin "
            "operators, or accept a file that was not compared."
        )
    observed, error = Observed(shown), limits.max_relative_error
    compared = compare(shown, lite, observed.watch(verify), max_relative_error=error)
    check_range(wish.metadata, observed, "verify")
    if samples:
        warn_of_other_range(_observed(model, samples), observed)
    operations = None
    if wish.aware and wish.quantize == "int8":
        operations = compare_operations(model, lite, [observed.first], samples=1)
    elif wish.aware and wish.quantize == "int16x8":
        operations = compare_kernels(model, lite)
    runs = every_setting(shown, lite.content, observed.first, max_relative_error=error)
    found = dataclasses.replace(result, operations=operations, runs=runs, **vars(compared))
    return found, lambda: find_parting(shown, lite, observed.first, error)


def _flex(lite: TFLiteModel) -> list[str]:
    return sorted({name for name in lite.operators if name.startswith("Flex")})


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
    if not schema.Model.GetRootAs(content, 0).Subgraphs(0).OperatorsLength():
        raise ValueError(
            "`model` must compute something in inference. "
            f"Received: {model.name!r}, whose outputs are its inputs. A file of it has no use."
        )
    trust(content)
    lite = TFLiteModel(content)
    check_operators(lite.operators)
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
