"""`TFLiteModel`: a TFLite file that is used like a Keras model."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._data import batches, border_of, class_indices, top_class
from kerasopt._validation import check_int, check_number
from kerasopt.export._child import default_time_limit, is_trusted, open_runner, size_of
from kerasopt.export._photos import at_once, labelled_photos, load_photos, photo_paths
from kerasopt.export._timing import Timing, measure
from kerasopt.profiling import tflite_operators


@dataclasses.dataclass(frozen=True)
class TFLiteTensor:
    """An input or an output of a TFLite file.

    Attributes:
        name: of the signature, which is the name of the Keras input or output.
        shape: like (1, height, width, channels); `None` stands for an open batch.
        dtype: `"uint8"`, `"int8"`, `"float32"`, ...
        scale: what one step of an integer stands for; 0.0 for real numbers.
        zero_point: the integer that stands for 0.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0


class TFLiteModel:
    """Runs a TFLite file with the LiteRT interpreter.

    Inputs and outputs are real numbers, as with the Keras model: what the file stores in integers
    is quantized and dequantized with the scales in the file.

    A file that this process did not convert itself runs in a child process, with limits of time
    and memory: a damaged or hostile one ends in an error, and takes nothing with it.

    Args:
        path_or_bytes: path of a `.tflite` file, or its content.
        num_threads: interpreter threads, >= 1. Default: the machine's logical cores.
        xnnpack: whether XNNPACK runs what it can, as in most apps; `False` for TFLite's own
            kernels.
        trusted: run the file in this process, which saves the start of another one and its
            memory. Default: only what `to_tflite` made in this process.
        time_limit: seconds that loading, or one inference, may take in the child process, > 0.
            Default: 5, one more for each 16 MiB of the file, and one for each MiB of inputs, of
            which 25 count.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a TFLite file, the interpreter cannot run it, or, in a child process,
            its inputs and outputs are larger than 512 MiB.

    Attributes:
        content: bytes of the file.
        operators: tuple of the names of the operators in the file, in order.
        isolated: whether it runs in a process of its own.
        time_limit: seconds that an inference of one batch may take there.
        inputs: a `TFLiteTensor` for each input.
        outputs: a `TFLiteTensor` for each output.
    """

    def __init__(
        self,
        path_or_bytes: Any,
        *,
        num_threads: int | None = None,
        xnnpack: bool = True,
        trusted: bool | None = None,
        time_limit: float | None = None,
    ) -> None:
        self.content = _read(path_or_bytes)
        self.operators = tflite_operators(self.content)
        if num_threads is not None:
            check_int("num_threads", num_threads, low=1)
        if not isinstance(xnnpack, bool):
            raise TypeError(f"`xnnpack` must be True or False. Received: xnnpack={xnnpack!r}.")
        if time_limit is not None:
            check_number("time_limit", time_limit, low=0.0, low_open=True)
        self.isolated = not (is_trusted(self.content) if trusted is None else trusted)
        self._runner = open_runner(
            self.content,
            num_threads or os.cpu_count() or 1,
            operators=self.operators,
            isolated=self.isolated,
            xnnpack=xnnpack,
            time_limit=time_limit,
        )
        self.inputs = tuple(map(_tensor, self._runner.inputs))
        self.outputs = tuple(map(_tensor, self._runner.outputs))
        taken = sum(size_of(tensor.shape, tensor.dtype) for tensor in self.inputs)
        default = default_time_limit(len(self.content), taken)
        self.time_limit = default if time_limit is None else float(time_limit)

    def close(self) -> None:
        """Ends the child process, if there is one; so does the end of the object."""
        self._runner.close()

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the (first) input, such as (1, height, width, channels)."""
        return self.inputs[0].shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of the (first) output, such as (1, classes)."""
        return self.outputs[0].shape

    @property
    def input_dtype(self) -> str:
        """Type in which the file takes its (first) input."""
        return self.inputs[0].dtype

    @property
    def output_dtype(self) -> str:
        """Type in which the file gives its (first) output."""
        return self.outputs[0].dtype

    @property
    def input_quantization(self) -> tuple[float, int]:
        """`(scale, zero_point)` of the (first) input; (0.0, 0) for float."""
        return self.inputs[0].scale, self.inputs[0].zero_point

    def predict(self, images: Any) -> Any:
        """Returns the outputs for a batch, as real numbers.

        A file with a fixed batch runs as often as it takes.

        Args:
            images: array (batch, height, width, channels) in the range the Keras model takes; for
                a file with several inputs a dict of such arrays by name. Or photos: the path of
                one, a list of paths, or a folder, which is read in the order of
                `kerasopt.datasets.list_photos`. They are cut to the size of the input, and
                normalized as the metadata of the file say, else raw 0-255 pixels.

        Returns:
            float32 array (batch, ...); for a file with several outputs a dict of them by name.

        Raises:
            ValueError: the shape is not the file's, an input is missing, or a photo cannot be
                read.
        """
        paths = photo_paths(images)
        if paths is not None:
            return self._predict_photos(paths)
        arrays = input_arrays(self, images)
        total = len(arrays[0])
        size = self.inputs[0].shape[0] if self.inputs[0].shape else 1
        chunk = at_once(self) if size is None else size
        parts = [
            self._run([x[i : i + chunk] for x in arrays], size) for i in range(0, total, chunk)
        ]
        joined = {
            tensor.name: np.concatenate([part[index] for part in parts])
            if parts
            else np.empty((0, *tensor.shape[1:]), "float32")  # type: ignore[arg-type]
            for index, tensor in enumerate(self.outputs)
        }
        return joined if len(self.outputs) > 1 else next(iter(joined.values()))

    def _predict_photos(self, paths: Sequence[pathlib.Path]) -> Any:
        parts = [self.predict(batch) for batch in load_photos(paths, self)]
        if isinstance(parts[0], dict):
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return np.concatenate(parts)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Returns `{"accuracy": ...}` over labelled data, a fraction in [0, 1].

        Args:
            data: `(x, y)` arrays, a `tf.data.Dataset` or an iterable of batches; labels as
                integers or one-hot; several inputs as a dict by name. A single output is class 1
                above 0.5, or above 0 where it is no probability. Or a folder with a folder of
                photos for each class, named as the labels of the file are.

        Raises:
            ValueError: the data has no labels, the folders are not the classes of the file, or
                the file has several outputs.
        """
        if len(self.outputs) > 1:
            raise ValueError(
                "`evaluate` needs a file of one output. "
                f"Received: {len(self.outputs)} outputs. Use predict, which gives all of them."
            )
        if isinstance(data, str | os.PathLike):
            data = labelled_photos(data, self)
        outputs, labels = [], []
        for x, y in batches(data, name="data"):
            if y is None:
                raise ValueError("`data` must hold labels to evaluate on. Received: inputs alone.")
            outputs.append(self.predict(x))
            labels.append(class_indices(y))
        found, truth = np.concatenate(outputs), np.concatenate(labels)
        return {"accuracy": float(np.mean(top_class(found, border=border_of(found)) == truth))}

    def benchmark(
        self,
        *,
        threads: Sequence[int] = (1, 2),
        runs: int = 50,
        warmup: int = 5,
        xnnpack: bool = True,
    ) -> tuple[Timing, ...]:
        """Measures the time and memory of one inference, for each number of threads, in turns.

        The file runs in a process of its own without TensorFlow, whatever `trusted` says. For
        several files use `kerasopt.export.benchmark`, so that noise meets all of them alike.

        Args:
            threads: numbers of interpreter threads.
            runs: measured inferences for each, >= 1.
            warmup: inferences before, >= 0.
            xnnpack: whether XNNPACK runs what it can, as in most apps; `False` for TFLite's own
                kernels.

        Returns:
            A `Timing` for each number of threads. Times hold for this machine and its load.
        """
        return measure({"": self}, threads=threads, runs=runs, warmup=warmup, xnnpack=xnnpack)

    def _run(self, arrays: list[np.ndarray], size: int | None) -> list[np.ndarray]:
        """Runs one batch, filled up with its last row where the file wants more."""
        count = len(arrays[0])
        if size is not None and count < size:
            arrays = [np.concatenate([x, np.repeat(x[-1:], size - count, axis=0)]) for x in arrays]
        taken = [quantize_input(x, tensor) for x, tensor in zip(arrays, self.inputs, strict=True)]
        given = self._runner.run(taken)
        return [dequantize_output(x[:count], t) for x, t in zip(given, self.outputs, strict=True)]


def _read(path_or_bytes: Any) -> bytes:
    if isinstance(path_or_bytes, bytes | bytearray):
        return bytes(path_or_bytes)
    path = pathlib.Path(path_or_bytes)
    if not path.is_file():
        raise FileNotFoundError(
            f"`path_or_bytes` must be a TFLite file. Received: {str(path)!r}, no file."
        )
    return path.read_bytes()


def _tensor(described: dict[str, Any]) -> TFLiteTensor:
    return TFLiteTensor(**{**described, "shape": tuple(described["shape"])})


def input_arrays(model: TFLiteModel, images: Any) -> list[np.ndarray]:
    """Returns the arrays in the order of the inputs, after checking names and shapes."""
    names = [tensor.name for tensor in model.inputs]
    if not isinstance(images, dict):
        if len(names) > 1:
            raise ValueError(
                f"`images` must be a dict of arrays by name: {', '.join(map(repr, names))}. "
                f"Received: {type(images).__name__}."
            )
        images = {names[0]: images}
    if set(images) != set(names):
        raise ValueError(
            f"`images` must have the inputs {', '.join(map(repr, names))}. "
            f"Received: {', '.join(map(repr, images))}."
        )
    arrays = [np.asarray(images[name]) for name in names]
    for tensor, array in zip(model.inputs, arrays, strict=True):
        if array.shape[1:] != tensor.shape[1:]:
            raise ValueError(
                f"`images` must have the shape (batch, {', '.join(map(str, tensor.shape[1:]))})"
                f"{f' for {tensor.name!r}' if len(names) > 1 else ''}. "
                f"Received: shape {array.shape}."
            )
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            "`images` must have as many of each input. "
            f"Received: {', '.join(str(len(array)) for array in arrays)}."
        )
    return arrays


def quantize_input(x: np.ndarray, tensor: TFLiteTensor) -> np.ndarray:
    """Returns real numbers in the type that an input takes."""
    dtype = np.dtype(tensor.dtype)
    if dtype.kind not in "iu" or not tensor.scale:
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    levels = np.round(x.astype("float32") / np.float32(tensor.scale)) + tensor.zero_point
    return np.clip(levels, limits.min, limits.max).astype(dtype)


def dequantize_output(values: np.ndarray, tensor: TFLiteTensor) -> np.ndarray:
    if values.dtype.kind == "f" or not tensor.scale:
        return values.astype("float32")
    return (values.astype("float32") - tensor.zero_point) * np.float32(tensor.scale)
