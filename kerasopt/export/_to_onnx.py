"""`to_onnx`: for ONNX Runtime and whatever else reads ONNX."""

import dataclasses
import importlib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._files import check_target, gzip_size, write_atomic
from kerasopt._validation import check_int
from kerasopt.export._checks import check_operators
from kerasopt.export._formats import (
    describe,
    export,
    plan,
    predicted,
    unknown,
    verified,
)
from kerasopt.export._verify import ExportResult, rejecting, write_labels

_NEEDED = ("onnx", "onnxruntime", "tf2onnx")
_OLDEST, _NEWEST = 9, 18
"""Operator sets that tf2onnx writes."""


def to_onnx(
    model: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    probabilities: bool = False,
    verify: Any = None,
    batch_size: int | None = None,
    opset: int | None = None,
    min_agreement: float | None = None,
    max_accuracy_drop: float = 0.01,
    max_relative_error: float | None = None,
) -> ExportResult:
    """Exports a model as ONNX and runs the file in ONNX Runtime beside the model before writing it.

    It is written by Keras' own `model.export`, for inference alone: augmentation and dropout are
    not in it. Inputs and outputs have the names of the Keras inputs and of the last layers. A
    quantization-aware model keeps its ranges, as pairs of `QuantizeLinear` and
    `DequantizeLinear`, and its kernels as they are rounded.

    It needs more than the package brings along: `pip install "kerasopt[onnx]"`.

    Args:
        model: a built Keras model.
        path: where to write the file, atomically. `None` writes nothing.
        labels: class names, as many as the model has outputs; written beside the file as
            `NAME.labels.txt`.
        probabilities: put a softmax (a sigmoid for a single output) behind a model that ends in
            logits, in the file and in the comparison.
        verify: data to compare file and model on, with or without labels: arrays, `(x, y)`, a
            `tf.data.Dataset` or an iterable of batches.
        batch_size: inputs that the file takes at once. Default `None`: as many as the caller
            likes.
        opset: version of the operators, in [9, 18]. Default: that of tf2onnx, 15.
        min_agreement: fraction of the verified inputs that must get the same top class, in
            [0, 1]. Default 0.999, or 0.97 for a quantization-aware model; one differing input is
            always allowed.
        max_accuracy_drop: how much accuracy the file may lose against Keras on labelled
            `verify` data, a fraction in [0, 1]. Default 0.01; one lost input is always allowed.
        max_relative_error: norm of the difference over the norm of Keras' outputs that is allowed
            over all verified inputs, >= 0. Default 0.001, 0.05 for a model that computes in half
            precision, 0.5 for a quantization-aware one.

    Returns:
        An `ExportResult`.

    Raises:
        ImportError: onnx, onnxruntime or tf2onnx is not installed.
        OSError: there is no room or no permission to write the file.
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, the model is not built or has weights that are
            not finite, labels do not match the outputs, something in it draws random numbers, or
            ONNX has no operator for it.
        VerificationError: the file differs from the model by more than is allowed; it is kept as
            `NAME.rejected.onnx`.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> to_onnx(model, verify=np.ones((4, 8))).operators  # doctest: +SKIP
        ('MatMul', 'Add')
    """
    _check_installed()
    if opset is not None:
        check_int("opset", opset, low=_OLDEST, high=_NEWEST)
    if path is not None:
        check_target(path)
    planned = plan(
        model,
        labels=labels,
        probabilities=probabilities,
        batch_size=batch_size,
        min_agreement=min_agreement,
        max_accuracy_drop=max_accuracy_drop,
        max_relative_error=max_relative_error,
    )
    with tempfile.TemporaryDirectory() as scratch:
        made = pathlib.Path(scratch) / "model.onnx"
        export(planned.graph, made, "onnx", opset_version=opset)
        content, operators = _finish(made.read_bytes())
    check_operators(operators)
    result = describe(
        planned,
        operators,
        content=content,
        size=len(content),
        gzip_size=gzip_size(content),
    )
    file = _Onnx(content, planned.names, batch_size)
    if verify is not None:
        result = verified(result, planned, file, verify, rejecting(path, ".onnx"))
    if path is None:
        return result
    written = write_atomic(path, content)
    write_labels(written.with_suffix(""), planned.labels)
    return dataclasses.replace(result, path=written)


def _check_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"ONNX files need {', '.join(_NEEDED)}. Received: no {', '.join(missing)}. "
            'Run: pip install "kerasopt[onnx]"'
        )


def _finish(content: bytes) -> tuple[bytes, list[str]]:
    """Calls an open batch by its name, and lists the operators."""
    onnx = importlib.import_module("onnx")
    model = onnx.load_from_string(content)
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape.dim
        if shape and not shape[0].HasField("dim_value"):
            shape[0].dim_param = "batch"
    return model.SerializeToString(), [node.op_type for node in model.graph.node]


class _Onnx:
    """A file in ONNX Runtime, on the processor."""

    def __init__(self, content: bytes, outputs: Sequence[str], batch_size: int | None) -> None:
        onnxruntime = importlib.import_module("onnxruntime")
        try:
            self._session = onnxruntime.InferenceSession(
                content, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # What it does not know, tf2onnx writes down as it is; the runtime names it.
            raise unknown("onnx", error) from error
        self._types = {value.name: value.type for value in self._session.get_inputs()}
        self._outputs, self._batch_size = list(outputs), batch_size

    def predict(self, images: Any) -> Any:
        """Returns the output, or a dict of them by name."""
        return predicted(images, list(self._types), self._outputs, self._batch_size, self._run)

    def _run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = {name: x.astype(_dtype(self._types[name])) for name, x in inputs.items()}
        given = self._session.run(self._outputs, arrays)
        return dict(zip(self._outputs, given, strict=True))


def _dtype(kind: str) -> str:
    """Returns NumPy's name of a type of ONNX Runtime, such as `tensor(float)`."""
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)
