"""The file beside the model it came from, on the same data."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._data import batches, class_indices, top_class
from kerasopt._files import gzip_size, write_atomic
from kerasopt.export._convert import output_names
from kerasopt.export._interpreter import TFLiteModel
from kerasopt.export._operations import OperationReport

_MAX_STEPS, _MIN_EQUAL = 2, 0.9
"""What an operation may differ on a single input: few values may all lie on a border."""
_FEW = 16
"""Inputs that run under every setting of the interpreter."""


class VerificationError(RuntimeError):
    """The file does not compute what the model computes.

    Attributes:
        result: the `ExportResult` with the figures; its `path` is the rejected file, if written.
    """

    def __init__(self, message: str, result: "ExportResult") -> None:
        super().__init__(message)
        self.result = result


@dataclasses.dataclass(frozen=True)
class InterpreterRun:
    """The file beside its model, under one setting of the interpreter.

    Attributes:
        xnnpack: whether XNNPACK ran what it can, or TFLite's own kernels all of it.
        threads: of the interpreter.
        samples: inputs compared.
        agreement: fraction of them with the same top class.
        max_error: largest difference of an output, in the unit of the outputs.
    """

    xnnpack: bool
    threads: int
    samples: int
    agreement: float
    max_error: float


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """An exported file and how it compares with the model it came from.

    Attributes:
        path: where the file is, or `None` when it was not written.
        content: its bytes; empty for a SavedModel, which is a folder.
        size: bytes, of a folder those of all its files.
        gzip_size: bytes after gzip (level 6), what a download costs.
        quantize: `None`, `"float16"`, `"dynamic"`, `"int8"` or `"int16x8"`.
        input_dtype: `"uint8"`, `"int8"` or `"float32"`.
        output_dtype: likewise.
        operators: names of the operators in the file.
        labels: class names, or `None`.
        samples: inputs compared; 0 without `verify`.
        agreement: fraction of the inputs with the same top class, or `None`.
        max_error: largest difference of an output, in the unit of the outputs, or `None`.
        accuracy: of the file, or `None` without labels.
        keras_accuracy: of the Keras model on the same inputs, or `None` without labels.
        float_operations: `(operation, reason)` for what stays float in an int8 file.
        operations: the int8 file beside a quantization-aware model, operation by operation, or
            `None` without `verify` or for any other file.
        runs: the file beside the model on the first inputs of `verify`, with XNNPACK and without,
            on one thread and on all; empty without `verify`.
    """

    path: pathlib.Path | None
    content: bytes = dataclasses.field(repr=False)
    size: int
    gzip_size: int
    quantize: str | None
    input_dtype: str
    output_dtype: str
    operators: tuple[str, ...] = dataclasses.field(repr=False)
    labels: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    samples: int = 0
    agreement: float | None = None
    max_error: float | None = None
    accuracy: float | None = None
    keras_accuracy: float | None = None
    float_operations: tuple[tuple[str, str], ...] = ()
    operations: OperationReport | None = dataclasses.field(default=None, repr=False)
    runs: tuple[InterpreterRun, ...] = dataclasses.field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the bytes, ready for JSON."""
        values = dataclasses.asdict(dataclasses.replace(self, content=b""))
        del values["content"]
        values["path"] = None if self.path is None else self.path.name
        return values


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Outputs of a Keras model and a file on the same inputs."""

    samples: int
    agreement: float
    max_error: float
    accuracy: float | None
    keras_accuracy: float | None


def compare(model: Any, lite: Any, data: Any) -> Comparison:
    """Runs a Keras model and a file on the same data.

    With several outputs the error is the largest of all, and an input agrees when all outputs do;
    accuracy is known for a single output.
    """
    names = output_names(model)
    expected: list[list[np.ndarray]] = [[] for _ in names]
    found: list[list[np.ndarray]] = [[] for _ in names]
    labels = []
    for x, y in batches(data, name="verify"):
        outputs = keras.tree.flatten(model.predict_on_batch(x))
        given = lite.predict(x)
        for index, name in enumerate(names):
            expected[index].append(np.asarray(outputs[index], "float32"))
            found[index].append(given[name] if len(names) > 1 else given)
        if y is not None and len(names) == 1:
            labels.append(class_indices(y))
    keras_out, lite_out = ([np.concatenate(part) for part in side] for side in (expected, found))
    classes = [top_class(out) for out in keras_out]
    lite_classes = [top_class(out) for out in lite_out]
    agree = np.all([a == b for a, b in zip(classes, lite_classes, strict=True)], axis=0)
    truth = np.concatenate(labels) if labels else None
    return Comparison(
        samples=len(keras_out[0]),
        agreement=float(np.mean(agree)),
        max_error=float(
            max(np.max(np.abs(a - b)) for a, b in zip(keras_out, lite_out, strict=True))
        ),
        accuracy=None if truth is None else float(np.mean(lite_classes[0] == truth)),
        keras_accuracy=None if truth is None else float(np.mean(classes[0] == truth)),
    )


def every_setting(model: Any, content: bytes, x: Any) -> tuple[InterpreterRun, ...]:
    """Runs the file on the first inputs with XNNPACK and without, on one thread and on all.

    A phone may lack the delegate, or choose another number of threads; each takes other kernels.
    """
    few = keras.tree.map_structure(lambda values: values[:_FEW], x)
    runs = []
    for xnnpack in (True, False):
        for threads in sorted({1, max(2, os.cpu_count() or 1)}):
            lite = TFLiteModel(content, num_threads=threads, xnnpack=xnnpack)
            found = compare(model, lite, [(few, None)])
            run = InterpreterRun(xnnpack, threads, found.samples, found.agreement, found.max_error)
            runs.append(run)
    return tuple(runs)


def describe(content: bytes, quantize: str | None, lite: TFLiteModel) -> ExportResult:
    """Returns the result of a conversion before any comparison."""
    return ExportResult(
        path=None,
        content=content,
        size=len(content),
        gzip_size=gzip_size(content),
        quantize=quantize,
        input_dtype=lite.input_dtype,
        output_dtype=lite.output_dtype,
        operators=lite.operators,
    )


def accept(
    result: ExportResult,
    floor: float,
    max_drop: float,
    *,
    reject: Callable[[ExportResult], pathlib.Path] | None,
) -> None:
    """Raises unless a file computes what its model computes.

    Args:
        result: with the figures of the comparison.
        floor: fraction of the inputs that must get the same top class.
        max_drop: how much accuracy may be lost.
        reject: keeps a file that does not match, and returns where.

    Raises:
        VerificationError: it does not.
    """
    count = result.samples
    faults = []
    if _too_few(result.agreement or 0.0, count, floor):
        faults.append(f"agreement {result.agreement:.2%}, at least {floor:.2%} is required")
    for run in result.runs:
        if _too_few(run.agreement, run.samples, floor):
            kernels = "with XNNPACK" if run.xnnpack else "without XNNPACK"
            faults.append(
                f"agreement {run.agreement:.2%} of the first {run.samples} inputs {kernels} on "
                f"{run.threads} {'thread' if run.threads == 1 else 'threads'}"
            )
    if result.accuracy is not None and result.keras_accuracy is not None:
        lost = round((result.keras_accuracy - result.accuracy) * count)
        if lost > max(1, math.floor(max_drop * count + 1e-9)):
            faults.append(
                f"accuracy {result.accuracy:.2%} against {result.keras_accuracy:.2%} in Keras, "
                f"a loss of {max_drop:.2%} is allowed"
            )
    if result.operations is not None:
        faults += result.operations.faults(max_steps=_MAX_STEPS, min_equal=_MIN_EQUAL)[:5]
    if not faults:
        return
    if reject is not None:
        result = dataclasses.replace(result, path=reject(result))
    raise VerificationError(
        f"The file does not match the model on {count} inputs: {'; '.join(faults)}. "
        f"Largest output difference {result.max_error:.4g}.",
        result,
    )


def _too_few(agreement: float, count: int, floor: float) -> bool:
    differing = round((1.0 - agreement) * count)
    return differing > max(1, math.floor((1.0 - floor) * count + 1e-9))


def rejecting(
    path: str | os.PathLike[str] | None, suffix: str
) -> Callable[[ExportResult], pathlib.Path] | None:
    """Returns what keeps a file that does not match, under a name that nobody ships."""
    if path is None:
        return None
    target = pathlib.Path(path)
    return lambda result: write_atomic(
        target.with_name(f"{target.stem}.rejected{suffix}"), result.content
    )


def write_labels(path: pathlib.Path, labels: Sequence[str] | None) -> None:
    """Writes class names beside what has a name, a line each, as `NAME.labels.txt`."""
    if labels is not None:
        write_atomic(path.with_name(f"{path.name}.labels.txt"), "\n".join(labels) + "\n")
