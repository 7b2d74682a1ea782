"""`to_saved_model`: for TensorFlow Serving and whatever else loads a SavedModel."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._files import check_folder_target, gzip_size, replace_folder
from kerasopt.export._checks import check_operators
from kerasopt.export._formats import (
    describe,
    export,
    plan,
    predicted,
    silent,
    verified,
)
from kerasopt.export._verify import ExportResult, write_labels

_MARK = "saved_model.pb"
_PLUMBING = {
    "Const",
    "Identity",
    "NoOp",
    "PartitionedCall",
    "Placeholder",
    "ReadVariableOp",
    "StatefulPartitionedCall",
}
"""Nodes of every graph, which compute nothing."""


def to_saved_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    probabilities: bool = False,
    verify: Any = None,
    batch_size: int | None = None,
    min_agreement: float | None = None,
    max_accuracy_drop: float = 0.01,
    max_relative_error: float | None = None,
) -> ExportResult:
    """Exports a model as a TensorFlow SavedModel and runs it beside the model before it is kept.

    It is written by Keras' own `model.export`, for inference alone: augmentation and dropout are
    not in it. Its signature `serving_default` takes the Keras inputs by name and gives each output
    under the name of its layer. A quantization-aware model computes with its rounding.

    Args:
        model: a built Keras model.
        path: the folder to write, whole or not at all; an older SavedModel there is replaced.
        labels: class names, as many as the model has outputs; written beside the folder as
            `NAME.labels.txt`.
        probabilities: put a softmax (a sigmoid for a single output) behind a model that ends in
            logits, in the folder and in the comparison.
        verify: data to compare folder and model on, with or without labels: arrays, `(x, y)`, a
            `tf.data.Dataset` or an iterable of batches.
        batch_size: inputs that the folder takes at once. Default `None`: as many as the caller
            likes.
        min_agreement: fraction of the verified inputs that must get the same top class, in
            [0, 1]. Default 0.999, or 0.97 for a quantization-aware model; one differing input is
            always allowed.
        max_accuracy_drop: how much accuracy the folder may lose against Keras on labelled
            `verify` data, a fraction in [0, 1]. Default 0.01; one lost input is always allowed.
        max_relative_error: norm of the difference over the norm of Keras' outputs that is allowed
            over all verified inputs, >= 0. Default 0.001, 0.05 for a model that computes in half
            precision, 0.5 for a quantization-aware one.

    Returns:
        An `ExportResult`; its `content` is empty, for a SavedModel is a folder, and its `size` is
        that of all files in it.

    Raises:
        OSError: there is no room or no permission to write the folder.
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, the model is not built or has weights that are
            not finite, labels do not match the outputs, something in it draws random numbers, or
            something else is at `path`.
        VerificationError: the folder differs from the model by more than is allowed; it is kept as
            `NAME.rejected`.

    Example:
        >>> import keras, tempfile
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, name="scores")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = to_saved_model(model, f"{folder}/net", verify=np.ones((4, 8)))
        ...     print(result.agreement, sorted(p.name for p in result.path.glob("*.pb")))
        1.0 ['fingerprint.pb', 'saved_model.pb']
    """
    target = check_folder_target(path, _MARK)
    planned = plan(
        model,
        labels=labels,
        probabilities=probabilities,
        batch_size=batch_size,
        min_agreement=min_agreement,
        max_accuracy_drop=max_accuracy_drop,
        max_relative_error=max_relative_error,
    )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        made = pathlib.Path(scratch) / target.name
        export(planned.graph, made, "tf_saved_model")
        folder = _SavedModel(made, planned.names, batch_size)
        check_operators(folder.operators)
        size, packed_size = _sizes(made)
        result = describe(planned, folder.operators, content=b"", size=size, gzip_size=packed_size)
        if verify is not None:
            rejected = target.with_name(f"{target.name}.rejected")

            def reject(_: ExportResult) -> pathlib.Path:
                replace_folder(made, rejected)
                return rejected

            result = verified(result, planned, folder, verify, reject)
        replace_folder(made, target)
    write_labels(target, planned.labels)
    return dataclasses.replace(result, path=target)


class _SavedModel:
    """A SavedModel, loaded as a server loads it."""

    def __init__(self, path: pathlib.Path, outputs: Sequence[str], batch_size: int | None) -> None:
        with silent():
            self._loaded = tf.saved_model.load(str(path))  # holds the variables
        self._serve = self._loaded.signatures["serving_default"]
        self._inputs = sorted(self._serve.structured_input_signature[1])
        self._outputs, self._batch_size = outputs, batch_size
        graph = self._serve.graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        self.operators = tuple(node.op for node in nodes if node.op not in _PLUMBING)

    def predict(self, images: Any) -> Any:
        """Returns the output, or a dict of them by name."""
        return predicted(images, self._inputs, self._outputs, self._batch_size, self._run)

    def _run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        specs = self._serve.structured_input_signature[1]
        tensors = {name: tf.cast(x, specs[name].dtype) for name, x in inputs.items()}
        return {name: value.numpy() for name, value in self._serve(**tensors).items()}


def _sizes(folder: pathlib.Path) -> tuple[int, int]:
    """Returns the bytes of all files in a folder, and those after gzip."""
    contents = [file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()]
    return sum(map(len, contents)), sum(map(gzip_size, contents))
