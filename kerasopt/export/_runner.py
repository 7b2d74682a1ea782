"""Runs a TFLite file; as a program, for a parent that does not trust the file.

Nothing of kerasopt is imported here, so that the program starts in a fraction of a second. Parent
and program talk in frames: a JSON header, then the bytes of arrays. Nothing is unpickled, for the
program may have been taken over by the file that it runs.
"""

import contextlib
import json
import math
import os
import pathlib
import random
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

_MEMORY = 8 * 2**30
"""Bytes that the program may take; a file can ask for any number."""
_LONGEST_ANSWER = 2 * 2**30
"""Bytes of all arrays that the parent takes at once: it has no limit that protects it."""
_LONGEST_HEADER = 2**24
_KINDS = "biufc"


def interpreter(
    content: bytes, threads: int, *, allocate: bool = True, xnnpack: bool = True
) -> Any:
    """Returns an interpreter with its tensors allocated.

    Args:
        content: the file.
        threads: of the interpreter.
        allocate: `False` for a file that is to be looked at, and not to be run.
        xnnpack: whether XNNPACK runs what it can, as it does by default.

    Raises:
        ValueError: it cannot run the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    resolver = OpResolverType.AUTO if xnnpack else plain
    try:
        made = Interpreter(
            model_content=content, num_threads=threads, experimental_op_resolver_type=resolver
        )
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
        xnnpack: whether XNNPACK runs what it can.

    Attributes:
        inputs: for each input its name, shape (`None` for an open batch), dtype, scale and zero
            point, by which the parent quantizes.
        outputs: likewise.
    """

    def __init__(
        self, content: bytes, threads: int, *, flex: bool = False, xnnpack: bool = True
    ) -> None:
        self._flex = flex
        self._interpreter = interpreter(content, threads, allocate=not flex, xnnpack=xnnpack)
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

    def invoke(self) -> float:
        """Runs once more on the inputs of the last run; returns the milliseconds."""
        start = time.perf_counter()
        self._interpreter.invoke()
        return (time.perf_counter() - start) * 1e3

    def delegated(self) -> list[int] | None:
        """Numbers the operators that XNNPACK runs, the only delegate that is ever loaded.

        No public method tells. A delegate stands in this list as a node of its own, behind all
        operators; it has taken over what lies between its inputs and its outputs. `None` where
        the list cannot be had.
        """
        try:
            nodes = self._interpreter._get_ops_details()
        except ValueError:  # a tensor without a NumPy type
            return None
        own = [node for node in nodes if node["op_name"] != "DELEGATE"]
        makers = {int(tensor): node for node in own for tensor in node["outputs"]}
        taken = set()
        for delegate in (node for node in nodes if node["op_name"] == "DELEGATE"):
            known = {int(tensor) for tensor in delegate["inputs"]}
            sought = [int(tensor) for tensor in delegate["outputs"]]
            while sought:
                tensor = sought.pop()
                if tensor not in known and tensor in makers:
                    known.add(tensor)
                    taken.add(int(makers[tensor]["index"]))
                    sought += [int(each) for each in makers[tensor]["inputs"]]
        return sorted(taken)

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


class TooLongError(EOFError):
    """A frame whose arrays are larger than is taken."""


def receive(
    stream: BinaryIO, *, longest: int = _LONGEST_ANSWER
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads a frame.

    Args:
        stream: from the other side.
        longest: bytes of all its arrays.

    Raises:
        EOFError: the other side is gone, or does not speak in frames.
        TooLongError: the arrays are longer; nothing of them was read.
    """
    (length,) = struct.unpack("<Q", _exactly(stream, 8))
    if length > _LONGEST_HEADER:
        raise EOFError("a header that is too long")
    try:
        header = json.loads(_exactly(stream, length))
        described = [(np.dtype(kind), tuple(shape)) for kind, shape in header["arrays"]]
    except (ValueError, TypeError, KeyError) as error:
        raise EOFError("a header that is none") from error
    sizes = [math.prod(shape) * dtype.itemsize for dtype, shape in described]
    if any(dtype.kind not in _KINDS for dtype, _ in described) or min(sizes, default=0) < 0:
        raise EOFError("an array that is none")
    if sum(sizes) > longest:
        raise TooLongError(f"its values are {sum(sizes):,} bytes, more than {longest:,}")
    arrays = [
        np.frombuffer(_exactly(stream, size), dtype).reshape(shape)
        for size, (dtype, shape) in zip(sizes, described, strict=True)
    ]
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


def weigh(
    content: bytes, arrays: Sequence[np.ndarray], *, threads: int, flex: bool, xnnpack: bool
) -> dict[str, Any]:
    """Loads and runs a file in a process that has run none; returns its memory and delegate.

    `peak` is the most that the process held, less what it held with the file itself before;
    `None` where the system does not tell.
    """
    with contextlib.suppress(OSError):  # forgets the peak so far
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    runner = Runner(content, threads, flex=flex, xnnpack=xnnpack)
    runner.run(arrays)
    runner.invoke()
    peak = _status("VmHWM")
    known = before is not None and peak is not None
    return {"peak": max(0, peak - before) if known else None, "delegated": runner.delegated()}  # type: ignore[operator]


def _status(name: str) -> int | None:
    """Reads a number of bytes that Linux keeps about this process."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def take_turns(runners: Sequence[Runner], *, warmup: int, runs: int) -> list[list[float]]:
    """Returns the milliseconds of each run of several files that have run before.

    They run one after the other, each round in another order, so that whatever else the machine
    does meets all of them alike.
    """
    times: list[list[float]] = [[] for _ in runners]
    order = list(range(len(runners)))
    draw = random.Random(0)  # noqa: S311
    for number in range(warmup + runs):
        draw.shuffle(order)
        for index in order:
            milliseconds = runners[index].invoke()
            if number >= warmup:
                times[index].append(milliseconds)
    return times


def _turns(header: dict[str, Any], arrays: Sequence[np.ndarray]) -> list[list[float]]:
    runners = []
    for file in header["files"]:
        content, *inputs = arrays[file["at"] : file["at"] + 1 + file["inputs"]]
        for threads in header["threads"]:
            runner = Runner(content.tobytes(), threads, xnnpack=header["xnnpack"])
            runner.run(inputs)
            runners.append(runner)
    return take_turns(runners, warmup=header["warmup"], runs=header["runs"])


def _answer(
    header: dict[str, Any], arrays: list[np.ndarray], runner: Runner | None
) -> tuple[dict[str, Any], list[np.ndarray], Runner | None]:
    """Does what the parent asks for; returns the frame to send and what runs from now on."""
    if header["do"] == "load":
        wanted = {name: header[name] for name in ("threads", "flex", "xnnpack")}
        runner = Runner(arrays[0].tobytes(), **wanted)
        return {"inputs": runner.inputs, "outputs": runner.outputs}, [], runner
    if header["do"] == "weigh":
        wanted = {name: header[name] for name in ("threads", "flex", "xnnpack")}
        return weigh(arrays[0].tobytes(), arrays[1:], **wanted), [], runner
    if header["do"] == "turns":
        return {"times": _turns(header, arrays)}, [], runner
    return {}, [] if runner is None else runner.run(arrays), runner


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
            header, arrays = receive(parent_in, longest=_MEMORY)
            try:
                frame, outputs, runner = _answer(header, arrays, runner)
                send(parent_out, frame, outputs)
            # Whatever it is, the parent says it in its own words.
            except Exception as error:
                send(parent_out, {"error": str(error) or type(error).__name__})


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    _serve()
