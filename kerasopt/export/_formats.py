"""What SavedModel and ONNX have in common: one float graph, made, looked at, run beside Keras."""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from kerasopt._backend import keras
from kerasopt._data import batches
from kerasopt._validation import check_int, check_number
from kerasopt.export._checks import check_labels, check_model
from kerasopt.export._convert import output_names, packed, quiet, with_batch
from kerasopt.export._metadata_plan import Observed
from kerasopt.export._probabilities import ends_in_probabilities, with_probabilities
from kerasopt.export._verify import ExportResult, accept, compare
from kerasopt.quantization import export_twin, is_quantization_aware

_AGREEMENT, _AGREEMENT_ROUNDED = 0.999, 0.97
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
        floor: fraction of inputs that must get the same top class.
        max_drop: how much accuracy may be lost.
    """

    shown: Any
    graph: Any
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    floor: float
    max_drop: float


def plan(
    model: Any,
    *,
    labels: Sequence[str] | None,
    probabilities: bool,
    batch_size: int | None,
    min_agreement: float | None,
    max_accuracy_drop: float,
) -> Plan:
    """Checks a model and all options, and builds the graph.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, or the model cannot be exported.
    """
    check_model(model)
    aware = is_quantization_aware(model)
    usual = _AGREEMENT_ROUNDED if aware else _AGREEMENT
    floor = usual if min_agreement is None else min_agreement
    check_number("min_agreement", floor, low=0.0, high=1.0)
    check_number("max_accuracy_drop", max_accuracy_drop, low=0.0, high=1.0)
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
    return Plan(shown, named, tuple(outputs), names, floor, max_accuracy_drop)


def export(graph: Any, path: pathlib.Path, kind: str, **options: Any) -> None:
    """Has Keras write a graph.

    Raises:
        ValueError: the format has no operator for something in it.
    """
    specs = [keras.InputSpec(shape=t.shape, dtype=t.dtype, name=t.name) for t in graph.inputs]
    try:
        with silent():
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


def check_operators(operators: Sequence[str]) -> None:
    """Raises ValueError when a file draws at random: augmentation that is never off."""
    drawn = sorted({name for name in operators if "Random" in name or name == "Multinomial"})
    if drawn:
        raise ValueError(
            "`model` must compute the same for the same input. Received: a file that draws "
            f"random numbers ({', '.join(drawn)}). Put augmentation layers into "
            "ko.augmentation.Augmentation, which is gone from every file."
        )


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
    outputs = planned.shown.outputs[0].shape
    single = len(planned.names) == 1 and len(outputs) == 2
    observed = Observed(outputs[-1] if single else None)
    stream = observed.watch(batches(verify, name="verify"))
    result = dataclasses.replace(result, **vars(compare(planned.shown, lite, stream)))
    accept(result, planned.floor, planned.max_drop, reject=reject)
    return result


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
