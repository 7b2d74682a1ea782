"""A TFLite file in a process of its own, which may die without taking anything with it."""

import contextlib
import hashlib
import math
import pathlib
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasopt.export import _runner as program

_START = 60.0
"""Seconds that a program may take to start on a busy machine; it has not seen the file by then."""
_SHORTEST, _LONGEST_FOR_INPUTS = 5.0, 25.0
_BYTES_A_SECOND, _INPUT_BYTES_A_SECOND = 2**24, 2**20
_LARGEST = 512 * 2**20
"""Bytes of the inputs and outputs of a file that anyone may have written; pictures of 4,000 x 2,000
pixels are 100 MB."""
_OWN = "A file of your own runs with trusted=True."
_TRUSTED: set[bytes] = set()


def default_time_limit(size: int, inputs: int = 0) -> float:
    """Returns the seconds that loading, or one inference, may take unless the user says otherwise.

    Five, after which a small file hangs, and more for a large file and for large inputs: a photo
    of 224 x 224 pixels adds half a second.

    Args:
        size: bytes of the file.
        inputs: bytes of the inputs.
    """
    for_inputs = min(_LONGEST_FOR_INPUTS, inputs / _INPUT_BYTES_A_SECOND)
    return _SHORTEST + size / _BYTES_A_SECOND + for_inputs


def trust(content: bytes) -> None:
    """Remembers that this process made the file itself."""
    _TRUSTED.add(hashlib.sha256(content).digest())


def is_trusted(content: bytes) -> bool:
    """Whether this process made the file itself."""
    return hashlib.sha256(content).digest() in _TRUSTED


def open_runner(
    content: bytes,
    threads: int,
    *,
    operators: Sequence[str],
    isolated: bool,
    xnnpack: bool = True,
    time_limit: float | None = None,
) -> "program.Runner | ChildRunner":
    """Returns what runs a file: in this process, or in one of its own.

    Raises:
        ValueError: the interpreter refuses the file, crashes on it, or takes too long.
    """
    flex = any(name.startswith("Flex") for name in operators)
    if isolated:
        return ChildRunner(content, threads, flex=flex, xnnpack=xnnpack, time_limit=time_limit)
    return program.Runner(content, threads, flex=flex, xnnpack=xnnpack)


class _Child:
    """The program in a process of its own.

    Raises:
        ValueError: the process does not start.
    """

    def __init__(self) -> None:
        self._fate = "The interpreter cannot run this TFLite file: it was closed. Open it again."
        self._process = subprocess.Popen(
            [sys.executable, pathlib.Path(program.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.close = weakref.finalize(self, _stop, self._process)
        self._ask(None, (), limit=_START)

    def _ask(
        self, question: dict[str, Any] | None, arrays: Sequence[np.ndarray], *, limit: float
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        if not self.close.alive:
            raise ValueError(self._fate)
        late, process = threading.Event(), self._process

        def end() -> None:  # holds the process, not this object, which may go before the timer
            late.set()
            process.kill()

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        try:
            if question is not None:
                program.send(process.stdin, question, arrays)  # type: ignore[arg-type]
            header, answer = program.receive(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, ValueError) as error:
            self.close()
            self._fate = self._obituary(error, limit if late.is_set() else None)
            raise ValueError(self._fate) from error
        finally:
            timer.cancel()
        if "error" in header:
            text = str(header["error"])[:400]
            what = "The interpreter cannot run this TFLite file: "
            raise ValueError(text if text.startswith(what) else what + text)
        return header, answer

    def _obituary(self, error: Exception, limit: float | None) -> str:
        if isinstance(error, program.TooLongError):
            return f"The interpreter cannot run this TFLite file: {error}. {_OWN}"
        code = self._process.returncode
        if limit is not None:
            fate = f"it took longer than {limit:.3g} seconds"
        elif code is not None and -code in set(signal.Signals):
            fate = f"it ended the process that ran it with {signal.Signals(-code).name}"
        else:
            fate = f"the process that ran it is gone (exit code {code})"
        return (
            f"The interpreter cannot run this TFLite file: {fate}. This process is unharmed. "
            "The file is damaged or hostile; convert the model again."
        )


class ChildRunner(_Child):
    """The same as `Runner`, in a child process with limits of time and memory.

    Args:
        content: the file.
        threads: of the interpreter.
        flex: it has operators of TensorFlow.
        xnnpack: whether XNNPACK runs what it can.
        time_limit: seconds that loading, or one inference, may take; `None` for the default.

    Raises:
        ValueError: the interpreter refuses the file, crashes on it, or takes too long.
    """

    def __init__(
        self, content: bytes, threads: int, *, flex: bool, xnnpack: bool, time_limit: float | None
    ) -> None:
        super().__init__()
        self._limit, self._size = time_limit, len(content)
        file = np.frombuffer(content, np.uint8)
        question = {"do": "load", "threads": threads, "flex": flex, "xnnpack": xnnpack}
        header, _ = self._ask(question, [file], limit=time_limit or default_time_limit(self._size))
        with _believed("described no inputs and outputs"):
            self.inputs, self.outputs = header["inputs"], header["outputs"]
            size = sum(size_of(t["shape"], t["dtype"]) for t in (*self.inputs, *self.outputs))
        if size > _LARGEST:
            self.close()
            raise ValueError(
                f"The inputs and outputs of a TFLite file must be at most {_LARGEST:,} bytes. "
                f"Received: {size:,} bytes. {_OWN}"
            )

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs for inputs in the file's own types and shapes."""
        inputs = sum(array.nbytes for array in arrays)
        limit = self._limit or default_time_limit(self._size, inputs)
        return self._ask({"do": "run"}, arrays, limit=limit)[1]


class Sample(NamedTuple):
    """A file and inputs for it, in its own types and shapes."""

    content: bytes
    inputs: Sequence[np.ndarray]
    operators: Sequence[str]


class Bench(_Child):
    """A process for measurements, which holds nothing but the interpreter when it starts.

    Args:
        time_limit: seconds that loading, or one inference, may take.

    Raises:
        ValueError: the interpreter refuses a file, crashes on it, or takes too long.
    """

    def __init__(self, time_limit: float) -> None:
        super().__init__()
        self._limit = time_limit

    def weigh(
        self, sample: Sample, *, threads: int, xnnpack: bool
    ) -> tuple[int | None, tuple[int, ...] | None]:
        """Returns the bytes at the peak, and which operators XNNPACK runs; `None` if unknown."""
        question: dict[str, Any] = {"do": "weigh", "threads": threads, "xnnpack": xnnpack}
        question["flex"] = any(name.startswith("Flex") for name in sample.operators)
        file = np.frombuffer(sample.content, np.uint8)
        found, _ = self._ask(question, [file, *sample.inputs], limit=4 * self._limit)
        with _believed():
            peak, delegated = found["peak"], found["delegated"]
            taken = None if delegated is None else tuple(map(int, delegated))
            return None if peak is None else int(peak), taken

    def turns(
        self,
        samples: Sequence[Sample],
        *,
        threads: Sequence[int],
        warmup: int,
        runs: int,
        xnnpack: bool,
    ) -> list[np.ndarray]:
        """Returns the milliseconds of the runs, by file and within it by number of threads."""
        arrays: list[np.ndarray] = []
        files = []
        for sample in samples:
            files.append({"at": len(arrays), "inputs": len(sample.inputs)})
            arrays += [np.frombuffer(sample.content, np.uint8), *sample.inputs]
        question: dict[str, Any] = {"do": "turns", "files": files, "threads": list(threads)}
        question |= {"warmup": warmup, "runs": runs, "xnnpack": xnnpack}
        count = len(files) * len(threads)
        limit = self._limit * (warmup + runs + 2) * count
        found, _ = self._ask(question, arrays, limit=limit)
        with _believed():
            times = np.asarray(found["times"], "float64").reshape(count, runs)
            return list(times)


@contextlib.contextmanager
def _believed(instead: str = "gave no measurement") -> Iterator[None]:
    """A process that a file took over may answer anything."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The interpreter cannot run this TFLite file: its process {instead}."
        ) from error


def size_of(shape: Sequence[int | None], dtype: str) -> int:
    """Returns the bytes of a tensor; an open batch is one input."""
    sizes = [1 if size is None else int(size) for size in shape]
    return math.prod(sizes) * np.dtype(dtype).itemsize


def _stop(process: Any) -> None:
    with contextlib.suppress(OSError):  # bytes that it did not take any more
        process.stdin.close()
    process.stdout.close()
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
