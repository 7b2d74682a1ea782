"""Runs a TFLite file; as a program, for a parent that does not trust the file.

Nothing of kerasopt is imported here, so that the program starts in a fraction of a second. Parent
and program talk in frames: a JSON header, then the bytes of arrays. Nothing is unpickled, for the
program may have been taken over by the file that it runs.
"""

import contextlib
import json
import os
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

_MEMORY = 8 * 2**30
"""Bytes that the program may take; a file can ask for any number."""
_LONGEST_HEADER = 2**24
_KINDS = "biufc"


def interpreter(content: bytes, threads: int, *, allocate: bool = True) -> Any:
    """Returns an interpreter with its tensors allocated.

    Args:
        content: the file.
        threads: of the interpreter.
        allocate: `False` for a file that is to be looked at, and not to be run.

    Raises:
        ValueError: it cannot run the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        made = Interpreter(model_content=content, num_threads=threads)
        if allocate:
            made.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"The interpreter cannot run this TFLite file: {error}") from error
    return made


class Runner:
    """A file in this process.

    Args:
        content: the file.
        threads: of the interpreter.
        flex: it has operators of TensorFlow, so that it can be looked at only.

    Attributes:
        inputs: for each input its name, shape (`None` for an open batch), dtype, scale and zero
            point, by which the parent quantizes.
        outputs: likewise.
    """

    def __init__(self, content: bytes, threads: int, *, flex: bool = False) -> None:
        self._content, self._flex = content, flex
        self._interpreter = interpreter(content, threads, allocate=not flex)
        self._ins, self._outs = _details(self._interpreter)
        self.inputs = [_described(name, detail) for name, detail in self._ins]
        self.outputs = [_described(name, detail) for name, detail in self._outs]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs for inputs in the file's own types and shapes."""
        if self._flex:
            raise ValueError(
                "The interpreter cannot run this TFLite file: it has operators of TensorFlow, and "
                "no interpreter for Python has the Flex delegate. Run it in an app that has."
            )
        pairs = zip(self._ins, arrays, strict=True)
        if any(tuple(detail["shape"]) != array.shape for (_, detail), array in pairs):
            self._resize(arrays)
        for (_, detail), array in zip(self._ins, arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(detail["index"]) for _, detail in self._outs]

    def time(
        self, arrays: Sequence[np.ndarray], threads: int, warmup: int, runs: int
    ) -> list[float]:
        """Returns the milliseconds of each of some runs on the same inputs."""
        runner = Runner(self._content, threads, flex=self._flex)
        runner.run(arrays)
        times = []
        for number in range(warmup + runs):
            start = time.perf_counter()
            runner._interpreter.invoke()
            if number >= warmup:
                times.append((time.perf_counter() - start) * 1e3)
        return times

    def close(self) -> None:
        """Does nothing: the interpreter goes with the object."""

    def _resize(self, arrays: Sequence[np.ndarray]) -> None:
        for (_, detail), array in zip(self._ins, arrays, strict=True):
            self._interpreter.resize_tensor_input(detail["index"], array.shape)
        self._interpreter.allocate_tensors()
        self._ins, self._outs = _details(self._interpreter)


def _details(made: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Inputs and outputs by the names of the only signature, else by those of the tensors."""
    inputs, outputs = made.get_input_details(), made.get_output_details()
    signatures = made.get_signature_list()
    if len(signatures) == 1:
        runner = made.get_signature_runner(next(iter(signatures)))
        names = _names(runner.get_input_details()), _names(runner.get_output_details())
    else:
        names = ({}, {})
    return (
        [(names[0].get(d["index"], str(d["name"])), d) for d in inputs],
        [(names[1].get(d["index"], str(d["name"])), d) for d in outputs],
    )


def _names(details: dict[str, Any]) -> dict[int, str]:
    return {detail["index"]: name for name, detail in details.items()}


def _described(name: str, detail: dict[str, Any]) -> dict[str, Any]:
    open_sizes = detail.get("shape_signature", detail["shape"])
    scale, zero = detail["quantization"]
    return {
        "name": name,
        "shape": [None if size < 0 else int(size) for size in open_sizes],
        "dtype": str(np.dtype(detail["dtype"])),
        "scale": float(scale),
        "zero_point": int(zero),
    }


def send(stream: BinaryIO, header: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Writes a frame."""
    shapes = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps({**header, "arrays": shapes}).encode()
    stream.write(struct.pack("<Q", len(text)) + text)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads a frame.

    Raises:
        EOFError: the other side is gone, or does not speak in frames.
    """
    (length,) = struct.unpack("<Q", _exactly(stream, 8))
    if length > _LONGEST_HEADER:
        raise EOFError("a header that is too long")
    try:
        header = json.loads(_exactly(stream, length))
        described = [(np.dtype(kind), tuple(shape)) for kind, shape in header["arrays"]]
    except (ValueError, TypeError, KeyError) as error:
        raise EOFError("a header that is none") from error
    arrays = []
    for dtype, shape in described:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if dtype.kind not in _KINDS or not 0 <= size <= _MEMORY:
            raise EOFError("an array that is none")
        arrays.append(np.frombuffer(_exactly(stream, size), dtype).reshape(shape))
    return header, arrays


def _exactly(stream: BinaryIO, size: int) -> bytes:
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            raise EOFError("the end")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _serve() -> None:
    """Answers the parent until it is gone."""
    # What the interpreter prints must not come between the frames.
    parent_in, parent_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    runner: Runner | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        import ai_edge_litert.interpreter  # noqa: F401

        send(parent_out, {})  # ready: what takes long from now on is the file
        while True:
            header, arrays = receive(parent_in)
            try:
                if header["do"] == "load":
                    content = arrays[0].tobytes()
                    runner = Runner(content, header["threads"], flex=header["flex"])
                    send(parent_out, {"inputs": runner.inputs, "outputs": runner.outputs})
                elif runner is not None and header["do"] == "run":
                    send(parent_out, {}, runner.run(arrays))
                elif runner is not None:
                    wanted = header["threads"], header["warmup"], header["runs"]
                    send(parent_out, {"times": runner.time(arrays, *wanted)})
            # Whatever it is, the parent says it in its own words.
            except Exception as error:
                send(parent_out, {"error": str(error) or type(error).__name__})


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    _serve()
