"""The second half of a run: every kind of file, its figures, and the page that tells them."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt import export, profiling, report
from kerasopt._backend import keras
from kerasopt._data import batches

_GRID_ROWS, _GRID_COLUMNS = 4, 7
_MISTAKES = 24
_RUNS = 30
_FLIPS = 12  # of either kind
_DIFF_PHOTOS = 16


@dataclasses.dataclass
class Shipped:
    """The files of a run and what the shipped one answered on the test photos."""

    results: dict[str, Any]
    rows: list[Any]
    labels: np.ndarray
    probabilities: np.ndarray
    mistakes: list[Any]
    keras_predictions: np.ndarray
    flips: list[Any]
    metrics: dict[str, Any]


def ship(trained: Any, folder: pathlib.Path, *, say: Callable[[str], None]) -> Shipped:
    """Exports the int8 file that ships and, to compare, the float ones.

    Raises:
        VerificationError: the int8 file does not compute what the model computes.
    """
    say("Converting and verifying: int8, float32, float16, dynamic")
    result = export.to_tflite(
        trained.quantized,
        folder / "model.tflite",
        quantize="int8",
        metadata=export.Metadata(labels=trained.class_names),
        verify=trained.test,
    )
    results = {"int8": result}
    for mode in (None, "float16", "dynamic"):
        name = mode or "float32"
        try:
            results[name] = export.to_tflite(trained.model, quantize=mode, verify=trained.test)
        except export.VerificationError as error:
            results[name] = error.result
            trained.notes.append(f"The {name} file, made to compare, differs: {error}")
    rows = [_row(name, results[name]) for name in ("float32", "float16", "dynamic", "int8")]
    lite = export.TFLiteModel(result.content)
    images, labels, outputs = _answers(lite, trained.test)
    probabilities = _softmax(outputs)
    # Beside the float model: what quantization costs in all, of which training knew a part.
    before = trained.model.predict(images, verbose=0).argmax(axis=-1)
    for name, reason in result.float_operations:
        trained.notes.append(f"`{name}` is not integer in the file, or may not be: {reason}.")
    return Shipped(
        results=results,
        rows=rows,
        labels=labels,
        probabilities=probabilities,
        mistakes=_mistakes(images, labels, probabilities, trained.class_names),
        keras_predictions=before,
        flips=_flips(images, labels, before, probabilities, trained.class_names),
        metrics=_metrics(trained, results, rows),
    )


def tell(trained: Any, shipped: Shipped, path: pathlib.Path) -> None:
    """Writes the report."""
    page = report.RunReport(
        title=f"{len(trained.class_names)} classes, {trained.settings['backbone']}",
        summary=tuple(trained.summary),
        settings=trained.settings,
        class_names=trained.class_names,
        counts=trained.counts,
        history=trained.history,
        events=tuple(trained.events),
        augmented=_grid(trained) if trained.recipe.augment else (),
        labels=shipped.labels,
        predictions=shipped.probabilities.argmax(axis=-1),
        confidences=shipped.probabilities.max(axis=-1),
        mistakes=tuple(shipped.mistakes),
        files=tuple(shipped.rows),
        layers=tuple(_layers(trained, shipped.results["int8"].content)),
        notes=tuple(trained.notes),
        keras_predictions=shipped.keras_predictions,
        flips=tuple(shipped.flips),
        signature=_signature(shipped.results["int8"].content),
    )
    report.write_report(page, path)


def _row(name: str, result: Any) -> Any:
    timings = export.TFLiteModel(result.content).benchmark(threads=(1, 2), runs=_RUNS)
    return report.FileRow(
        name="model.tflite" if name == "int8" else name,
        kind=name,
        size=result.size,
        gzip_size=result.gzip_size,
        accuracy=result.accuracy,
        keras_accuracy=result.keras_accuracy,
        agreement=result.agreement,
        milliseconds={timing.threads: timing.median_ms for timing in timings},
        shipped=name == "int8",
    )


def _answers(lite: Any, data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, labels = zip(*batches(data, name="test"), strict=True)
    x = np.concatenate(images)
    return x, np.concatenate([label for label in labels if label is not None]), lite.predict(x)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _mistakes(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]
) -> list[Any]:
    found = probabilities.argmax(axis=-1)
    wrong = np.flatnonzero(found != labels)
    worst = wrong[np.argsort(-probabilities.max(axis=-1)[wrong])][:_MISTAKES]
    return [
        report.Mistake(
            image=np.clip(images[i], 0, 255).astype("uint8"),
            actual=names[labels[i]],
            predicted=names[found[i]],
            confidence=float(probabilities[i].max()),
        )
        for i in worst
    ]


def _flips(
    images: np.ndarray,
    labels: np.ndarray,
    before: np.ndarray,
    probabilities: np.ndarray,
    names: tuple[str, ...],
) -> list[Any]:
    """Returns what the file lost and won against the float model, the surest answers first."""
    after, sure = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    found = []
    for flipped in (
        (before == labels) & (after != labels),
        (before != labels) & (after == labels),
    ):
        places = np.flatnonzero(flipped)
        found += list(places[np.argsort(-sure[places])][:_FLIPS])
    return [
        report.Flip(
            image=np.clip(images[i], 0, 255).astype("uint8"),
            actual=names[labels[i]],
            before=names[before[i]],
            after=names[after[i]],
            confidence=float(sure[i]),
        )
        for i in found
    ]


def _signature(content: bytes) -> Any:
    lite = export.TFLiteModel(content)
    taken, given = lite.inputs[0], lite.outputs[0]
    lite.close()
    return report.Signature(
        input_shape=tuple(int(size or 0) for size in taken.shape[1:]),  # type: ignore[arg-type]
        input_dtype=taken.dtype,
        output_dtype=given.dtype,
        output_scale=given.scale or 1.0,
        output_zero_point=given.zero_point,
    )


def _layers(trained: Any, content: bytes) -> list[dict[str, Any]]:
    """Returns a row for each operator of the file, with its Keras layer and its error beside it."""
    x = next(batches(trained.test, name="test"))[0][:_DIFF_PHOTOS]
    found = profiling.diff(trained.model, content, x, samples=_DIFF_PHOTOS)
    beside = {layer.other: layer for layer in found.layers}
    rows = []
    for operator in profiling.profile(content).rows:
        row = dataclasses.asdict(operator)
        if operator.name in beside:
            layer = beside[operator.name]
            row.update(layer=layer.name, error=layer.relative_error)
        rows.append(row)
    for row in reversed(rows):  # what only changes the dtype of the output has its error, too
        row.setdefault("error", found.output.relative_error)
        if row["kind"] not in ("DEQUANTIZE", "QUANTIZE"):
            break
    return rows


def _grid(trained: Any) -> tuple[np.ndarray, ...]:
    layer = next(
        layer for layer in trained.model.layers if getattr(layer, "kerasopt_training_only", False)
    )
    x = next(batches(trained.train, name="train"))[0][:_GRID_ROWS]
    versions = [x, *(np.asarray(layer(x, training=True)) for _ in range(_GRID_COLUMNS))]
    pixels = np.clip(np.stack(versions, axis=1), 0, 255).astype("uint8")
    return tuple(pixels)


def _metrics(trained: Any, results: dict[str, Any], rows: list[Any]) -> dict[str, Any]:
    shipped, plain = results["int8"], results["float32"]
    files = {
        row.kind: {**results[row.kind].to_dict(), "milliseconds": row.milliseconds} for row in rows
    }
    for values in files.values():
        del values["labels"]
    return {
        "test_accuracy": {
            "keras": plain.keras_accuracy,
            "keras_quantization_aware": shipped.keras_accuracy,
            "file": shipped.accuracy,
        },
        "agreement": shipped.agreement,
        "sparsity": trained.history.get("sparsity", [0.0])[-1],
        "training_seconds": round(trained.seconds, 1),
        "class_names": list(trained.class_names),
        "settings": trained.settings,
        "files": files,
        "history": {name: [float(v) for v in values] for name, values in trained.history.items()},
        "events": [dataclasses.asdict(event) for event in trained.events],
        "notes": trained.notes,
        "environment": {**report.environment(), "backend": keras.backend.backend()},
    }
