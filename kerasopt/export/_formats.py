"""What SavedModel and ONNX have in common: one float graph, made, looked at, run beside Keras."""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from kerasopt._backend import keras
from kerasopt._files import file_errors
from kerasopt._validation import check_int
from kerasopt.export._checks import check_labels, checked_model
from kerasopt.export._compare import compare
from kerasopt.export._convert import output_names, packed, quiet, with_batch
from kerasopt.export._metadata_plan import Observed
from kerasopt.export._precision import precision_of
from kerasopt.export._probabilities import ends_in_probabilities, with_probabilities
from kerasopt.export._verify import ExportResult, Limits, accept
from kerasopt.quantization import export_twin, is_quantization_aware

_AGREEMENT, _AGREEMENT_ROUNDED = 0.999, 0.97
_ERROR, _ERROR_HALF, _ERROR_ROUNDED = 1e-3, 0.05, 0.5
"""As for TFLite files: float graphs hardly differ, rounded ones here and there by a step."""


class Runnable(Protocol):
    """A file that can be run: what `compare` needs of it."""

    def predict(self, images: Any) -> Any:
        """Returns the output, or a dict of them by name."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A model that was checked, and the graph that goes into the file.

    Attributes:
        shown: the model that the file is compared with.
        graph: the same for inference alone, with its outputs by name.
        names: of the outputs.
        labels: class names, or `None`.
        limits: by how much the file may differ from the model.
    """

    shown: Any
    graph: Any
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    limits: Limits


def plan(
    model: Any,
    *,
    labels: Sequence[str] | None,
    probabilities: bool,
    batch_size: int | None,
    min_agreement: float | None,
    max_accuracy_drop: float,
    max_relative_error: float | None,
) -> Plan:
    """Checks a model and all options, and builds the graph.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, or the model cannot be exported.
    """
    model = checked_model(model)
    aware = is_quantization_aware(model)
    floor, error = (_AGREEMENT_ROUNDED, _ERROR_ROUNDED) if aware else (_AGREEMENT, _ERROR)
    if precision_of(model) in ("float16", "bfloat16"):
        error = max(error, _ERROR_HALF)
    limits = Limits(
        floor if min_agreement is None else min_agreement,
        max_accuracy_drop,
        error if max_relative_error is None else max_relative_error,
    )
    if batch_size is not None:
        check_int("batch_size", batch_size, low=1)
    names = check_labels(labels, model)
    shown = model
    if probabilities and not ends_in_probabilities(model):
        shown = with_probabilities(model)
    graph = with_batch(shown, batch_size)
    if aware:  # kernels as they are rounded, ranges for good, nothing of the training
        graph = export_twin(model, batch_size=batch_size)
        graph = graph if shown is model else with_probabilities(graph)
    outputs = dict(zip(output_names(shown), graph.outputs, strict=True))
    named = keras.Model(packed(graph, list(graph.inputs)), outputs, name=model.name)
    return Plan(shown, named, tuple(outputs), names, limits)


def export(graph: Any, path: pathlib.Path, kind: str, **options: Any) -> None:
    """Has Keras write a graph.

    Raises:
        OSError: there is no room or no permission.
        ValueError: the format has no operator for something in it.
    """
    specs = [keras.InputSpec(shape=t.shape, dtype=t.dtype, name=t.name) for t in graph.inputs]
    try:
        with silent(), file_errors(path.parent):
            graph.export(
                str(path),
                format=kind,
                verbose=False,
                input_signature=[packed(graph, specs)],
                **options,
            )
    except OSError:
        raise
    except Exception as error:
        # Converters raise bare types of their own; their text names the operator.
        raise unknown(kind, error) from error


def unknown(kind: str, error: Exception) -> ValueError:
    """Returns the error for a model with something in it that a format has not."""
    return ValueError(
        f"`model` must be made of operations that the format {kind!r} has. "
        f"Received from the converter: {str(error).strip() or type(error).__name__}. "
        "Build the model without it, or use another format."
    )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hides what converters have to say of themselves; their errors come as exceptions."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def describe(
    planned: Plan, operators: Sequence[str], *, content: bytes, size: int, gzip_size: int
) -> ExportResult:
    """Returns the result of an export before any comparison."""
    kinds = [keras.backend.standardize_dtype(t.dtype) for t in planned.graph.inputs]
    outputs = [keras.backend.standardize_dtype(t.dtype) for t in planned.graph.outputs]
    return ExportResult(
        path=None,
        content=content,
        size=size,
        gzip_size=gzip_size,
        quantize=None,
        input_dtype=kinds[0],
        output_dtype=outputs[0],
        operators=tuple(operators),
        labels=planned.labels,
    )


def verified(
    result: ExportResult,
    planned: Plan,
    lite: Runnable,
    verify: Any,
    reject: Callable[[ExportResult], pathlib.Path] | None,
) -> ExportResult:
    """Runs file and model on the same data, and returns the figures.

    Raises:
        VerificationError: they differ by more than is allowed.
    """
    observed = Observed(planned.shown)
    stream = observed.watch(verify)
    error = planned.limits.max_relative_error
    found = compare(planned.shown, lite, stream, max_relative_error=error)
    result = dataclasses.replace(result, **vars(found))
    return accept(result, None, planned.limits, reject=reject)


def predicted(
    images: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch_size: int | None,
    run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
) -> Any:
    """Runs a file on inputs of any number; returns its output, or a dict of them by name."""
    named = images if isinstance(images, dict) else {inputs[0]: np.asarray(images)}
    given = _in_pieces(named, batch_size, run)
    return given if len(outputs) > 1 else given[outputs[0]]


def _in_pieces(
    inputs: dict[str, np.ndarray],
    batch_size: int | None,
    run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Runs as many inputs at once as a file takes, the last ones filled up."""
    count = len(next(iter(inputs.values())))
    size = batch_size or count
    pieces = []
    for start in range(0, count, size):
        piece = {name: x[start : start + size] for name, x in inputs.items()}
        kept = len(next(iter(piece.values())))
        filled = {
            name: np.concatenate([x, np.repeat(x[-1:], size - kept, axis=0)])
            for name, x in piece.items()
        }
        pieces.append({name: x[:kept] for name, x in run(filled).items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
