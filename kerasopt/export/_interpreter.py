"""`TFLiteModel`: a TFLite file that is used like a Keras model."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._data import batches, class_indices, top_class
from kerasopt._validation import check_int
from kerasopt.profiling import tflite_operators


@dataclasses.dataclass(frozen=True)
class Timing:
    """Time of one inference of one image on this machine.

    Attributes:
        threads: interpreter threads.
        median_ms: median over the runs, milliseconds.
        p90_ms: the time that nine of ten runs stay under, milliseconds.
        runs: how many runs were measured.
    """

    threads: int
    median_ms: float
    p90_ms: float
    runs: int


class TFLiteModel:
    """Runs a TFLite file with the LiteRT interpreter.

    Inputs and outputs are real numbers, as with the Keras model: what the file stores in integers
    is quantized and dequantized with the scales in the file.

    Args:
        path_or_bytes: path of a `.tflite` file, or its content.
        num_threads: interpreter threads, >= 1. Default: the machine's logical cores.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a TFLite file, or the interpreter cannot run it.

    Attributes:
        content: bytes of the file.
        input_shape: like (1, height, width, channels).
        input_dtype: `"uint8"`, `"int8"` or `"float32"`.
        output_shape: like (1, classes).
        output_dtype: likewise.
        operators: tuple of the names of the operators in the file, in order.
    """

    def __init__(self, path_or_bytes: Any, *, num_threads: int | None = None) -> None:
        self.content = _read(path_or_bytes)
        self.operators = tflite_operators(self.content)
        if num_threads is not None:
            check_int("num_threads", num_threads, low=1)
        self._interpreter = _interpreter(self.content, num_threads or os.cpu_count() or 1)
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                "`TFLiteModel` runs files with one input and one output. "
                f"Received: {len(inputs)} inputs and {len(outputs)} outputs."
            )
        self._input, self._output = inputs[0], outputs[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, such as (1, height, width, channels)."""
        return tuple(int(size) for size in self._input["shape"])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one output, such as (1, classes)."""
        return tuple(int(size) for size in self._output["shape"])

    @property
    def input_dtype(self) -> str:
        """Type in which the file takes its input."""
        return str(np.dtype(self._input["dtype"]))

    @property
    def output_dtype(self) -> str:
        """Type in which the file gives its output."""
        return str(np.dtype(self._output["dtype"]))

    @property
    def input_quantization(self) -> tuple[float, int]:
        """`(scale, zero_point)` of the input; (0.0, 0) for float."""
        scale, zero = self._input["quantization"]
        return float(scale), int(zero)

    def predict(self, images: Any) -> np.ndarray:
        """Returns the outputs for a batch, as real numbers.

        Args:
            images: array (batch, height, width, channels) in the range the Keras model takes.

        Returns:
            float32 array (batch, ...).

        Raises:
            ValueError: the shape is not the file's.
        """
        x = np.asarray(images)
        expected = self.input_shape[1:]
        if x.shape[1:] != expected:
            raise ValueError(
                f"`images` must have the shape (batch, {', '.join(map(str, expected))}). "
                f"Received: shape {x.shape}."
            )
        if not len(x):
            return np.empty((0, *self.output_shape[1:]), "float32")
        return np.concatenate([self._run(x[i : i + 1]) for i in range(len(x))])

    def evaluate(self, data: Any) -> dict[str, float]:
        """Returns `{"accuracy": ...}` over labelled data, a fraction in [0, 1].

        Args:
            data: `(x, y)` arrays, a `tf.data.Dataset` or an iterable of batches; labels as
                integers or one-hot.

        Raises:
            ValueError: the data has no labels.
        """
        hits = total = 0
        for x, y in batches(data, name="data"):
            if y is None:
                raise ValueError("`data` must hold labels to evaluate on. Received: inputs alone.")
            hits += int(np.sum(top_class(self.predict(x)) == class_indices(y)))
            total += len(x)
        return {"accuracy": hits / total}

    def benchmark(
        self, *, threads: Sequence[int] = (1, 2), runs: int = 50, warmup: int = 5
    ) -> tuple[Timing, ...]:
        """Measures the time of one inference, for each number of threads.

        Args:
            threads: numbers of interpreter threads.
            runs: measured inferences for each, >= 1.
            warmup: inferences before, >= 0.

        Returns:
            A `Timing` for each number of threads. Times hold for this machine and its load.
        """
        check_int("runs", runs, low=1)
        check_int("warmup", warmup, low=0)
        rng = np.random.default_rng(0)
        sample = rng.integers(0, 255, self.input_shape).astype(self._input["dtype"])
        return tuple(self._time(count, sample, runs, warmup) for count in threads)

    def _time(self, threads: int, sample: np.ndarray, runs: int, warmup: int) -> Timing:
        check_int("threads", threads, low=1)
        interpreter = _interpreter(self.content, threads)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
        for _ in range(warmup):
            interpreter.invoke()
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            interpreter.invoke()
            times.append((time.perf_counter() - start) * 1e3)
        return Timing(threads, float(np.median(times)), float(np.percentile(times, 90)), runs)

    def _run(self, x: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], _quantize(x, self._input))
        self._interpreter.invoke()
        return _dequantize(self._interpreter.get_tensor(self._output["index"]), self._output)


def _read(path_or_bytes: Any) -> bytes:
    if isinstance(path_or_bytes, bytes | bytearray):
        return bytes(path_or_bytes)
    path = pathlib.Path(path_or_bytes)
    if not path.is_file():
        raise FileNotFoundError(
            f"`path_or_bytes` must be a TFLite file. Received: {str(path)!r}, no file."
        )
    return path.read_bytes()


def _interpreter(content: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"The interpreter cannot run this TFLite file: {error}") from error
    return interpreter


def _quantize(x: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    if dtype.kind == "f" or not scale:
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    levels = np.round(x.astype("float32") / np.float32(scale)) + zero
    return np.clip(levels, limits.min, limits.max).astype(dtype)


def _dequantize(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if values.dtype.kind == "f" or not scale:
        return values.astype("float32")
    return (values.astype("float32") - zero) * np.float32(scale)
