"""The file beside the model it came from, on the same data."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from kerasopt._files import gzip_size, write_atomic
from kerasopt._validation import check_int, check_number
from kerasopt.export._compare import InterpreterRun, Parting
from kerasopt.export._interpreter import TFLiteModel
from kerasopt.export._operations import OperationReport
from kerasopt.profiling import tflite_operators


class VerificationError(RuntimeError):
    """The file does not compute what the model computes.

    Attributes:
        result: the `ExportResult` with the figures; its `path` is the rejected file, if written.
    """

    def __init__(self, message: str, result: "ExportResult") -> None:
        super().__init__(message)
        self.result = result


@dataclasses.dataclass(frozen=True)
class Limits:
    """By how much a file may differ from its model.

    Attributes:
        min_agreement: fraction of the inputs that must get the same top class, in [0, 1].
        max_accuracy_drop: accuracy that may be lost, in [0, 1].
        max_relative_error: norm of the difference over the norm of the model's outputs, >= 0.
        max_steps: of the values of an operation in an int8 file, >= 0.
        min_equal: fraction of the values of an operation that are the same integer, in [0, 1].

    Raises:
        TypeError: one of them is no number.
        ValueError: one of them is out of range.
    """

    min_agreement: float
    max_accuracy_drop: float
    max_relative_error: float
    max_steps: int = 2
    min_equal: float = 0.9

    def __post_init__(self) -> None:
        for name in ("min_agreement", "max_accuracy_drop", "min_equal"):
            check_number(name, getattr(self, name), low=0.0, high=1.0)
        check_number("max_relative_error", self.max_relative_error, low=0.0)
        check_int("max_steps", self.max_steps, low=0)


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
        max_error: largest difference of an output, in the unit of the outputs, or `None`; infinite
            where the file gives what is not finite, and the model does not.
        relative_error: norm of the difference over the norm of the model's outputs, all inputs
            together, of several outputs the largest, or `None`; infinite likewise.
        accuracy: of the file, or `None` without labels.
        keras_accuracy: of the Keras model on the same inputs, or `None` without labels.
        float_operations: `(operation, reason)` for what stays float in the int8 file of a
            quantization-aware model.
        float_operators: names of the operators of a TFLite file that compute in real numbers, as
            its tensors tell (see `kerasopt.profiling.tflite_operators`).
        operations: the int8 file beside a quantization-aware model, operation by operation, or
            `None` without `verify` or for any other file.
        runs: the file beside the model on the first inputs of `verify`, with XNNPACK and without,
            on one thread and on all; empty without `verify`.
        parting: of a refused file of one output the first layer where it and the model part, each
            running on from its own values, or `None` if it is not known.
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
    relative_error: float | None = None
    accuracy: float | None = None
    keras_accuracy: float | None = None
    float_operations: tuple[tuple[str, str], ...] = ()
    operations: OperationReport | None = dataclasses.field(default=None, repr=False)
    runs: tuple[InterpreterRun, ...] = dataclasses.field(default=(), repr=False)
    parting: str | None = dataclasses.field(default=None, repr=False)
    float_operators: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the bytes, ready for JSON; an infinite error is `None`."""
        values = dataclasses.asdict(dataclasses.replace(self, content=b""))
        del values["content"]
        values["path"] = None if self.path is None else self.path.name
        for part in (values, *values["runs"]):
            for name in ("max_error", "relative_error"):
                if part[name] is not None and not math.isfinite(part[name]):
                    part[name] = None
        return values


def describe(
    lite: TFLiteModel,
    quantize: str | None,
    labels: tuple[str, ...] | None,
    float_operations: tuple[tuple[str, str], ...],
) -> ExportResult:
    """Returns the result of a conversion before any comparison."""
    content = lite.content
    return ExportResult(
        path=None,
        content=content,
        size=len(content),
        gzip_size=gzip_size(content),
        quantize=quantize,
        input_dtype=lite.input_dtype,
        output_dtype=lite.output_dtype,
        operators=lite.operators,
        labels=labels,
        float_operations=float_operations,
        float_operators=tflite_operators(content, floats=True),
    )


def accept(
    result: ExportResult,
    parting: Callable[[], Parting] | None,
    limits: Limits,
    *,
    reject: Callable[[ExportResult], pathlib.Path] | None,
) -> ExportResult:
    """Returns the result of a file that computes what its model computes.

    Args:
        result: with the figures of the comparison.
        parting: says where file and model part; asked when they do.
        limits: by how much they may differ.
        reject: keeps a file that does not match, and returns where.

    Raises:
        VerificationError: it does not.
    """
    faults = _faults(result, limits)
    if not faults:
        return result
    where = Parting(None, "") if parting is None else parting()
    result = dataclasses.replace(result, parting=where.layer)
    if reject is not None:
        result = dataclasses.replace(result, path=reject(result))
    raise VerificationError(
        f"The file does not match the model on {result.samples} inputs: {'; '.join(faults)}. "
        f"Largest output difference {result.max_error:.4g}.{where.text}",
        result,
    )


def _faults(result: ExportResult, limits: Limits) -> list[str]:
    count, floor = result.samples, limits.min_agreement
    faults = []
    if _too_few(result.agreement or 0.0, count, floor):
        faults.append(f"agreement {result.agreement:.2%}, at least {floor:.2%} is required")
    faults += _off(result.relative_error or 0.0, limits.max_relative_error, "")
    for run in result.runs if not faults else ():  # else all of them would say it again
        kernels = "with XNNPACK" if run.xnnpack else "without XNNPACK"
        place = (
            f" of the first {run.samples} inputs {kernels} on "
            f"{run.threads} {'thread' if run.threads == 1 else 'threads'}"
        )
        if _too_few(run.agreement, run.samples, floor):
            faults.append(f"agreement {run.agreement:.2%}{place}")
        faults += _off(run.relative_error, limits.max_relative_error, place)
    if result.accuracy is not None and result.keras_accuracy is not None:
        lost = round((result.keras_accuracy - result.accuracy) * count)
        if lost > max(1, math.floor(limits.max_accuracy_drop * count + 1e-9)):
            faults.append(
                f"accuracy {result.accuracy:.2%} against {result.keras_accuracy:.2%} in Keras, "
                f"a loss of {limits.max_accuracy_drop:.2%} is allowed"
            )
    if result.operations is not None:
        bounds = {"max_steps": limits.max_steps, "min_equal": limits.min_equal}
        faults += result.operations.faults(**bounds)[:5]  # type: ignore[arg-type]
    return faults


def _off(error: float, limit: float, place: str) -> list[str]:
    if math.isinf(error):
        return [f"outputs{place} that are not finite where the model's are"]
    if error > limit:
        return [f"relative error {error:.2g}{place}, at most {limit:.2g} is allowed"]
    return []


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
