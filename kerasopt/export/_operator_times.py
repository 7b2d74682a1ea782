"""The time of each operator of a file, measured in a file of its own."""

import contextlib
import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasopt.export._child import Bench, Sample
from kerasopt.export._interpreter import TFLiteModel, dequantize_output
from kerasopt.export._tensors import FILE_IDENTIFIER, FileContent
from kerasopt.export._timing import Timing, check_measurement, random_sample, timing_of

_NOT_ALONE = (schema.TensorType.RESOURCE, schema.TensorType.VARIANT, schema.TensorType.STRING)
_WITH_GRAPHS = ("CALL", "CALL_ONCE", "IF", "WHILE")


@dataclasses.dataclass(frozen=True)
class OperatorTiming:
    """The time of one operator.

    Attributes:
        name: of its (first) output tensor; the converter keeps the names of Keras layers in it.
        operator: its kind, such as `"CONV_2D"`.
        median_ms: median over the runs, milliseconds; `None` for what cannot run alone.
        p90_ms: the time that nine of ten runs stay under.
        delegated: whether XNNPACK runs it in the whole file, `None` when nobody tells.
    """

    name: str
    operator: str
    median_ms: float | None
    p90_ms: float | None
    delegated: bool | None


@dataclasses.dataclass(frozen=True)
class OperatorTimes:
    """The time of each operator of a file; `print` shows a table.

    Attributes:
        operators: an `OperatorTiming` for each, in order. Operators that only prepare constants
            are measured with the operator that uses them.
        whole: the `Timing` of the whole file, with the same threads.
    """

    operators: tuple[OperatorTiming, ...]
    whole: Timing

    @property
    def sum_ms(self) -> float:
        """Sum of the medians, milliseconds. Far from `whole.median_ms`, shares mean little."""
        return sum(each.median_ms or 0.0 for each in self.operators)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything in values that JSON holds."""
        return {**dataclasses.asdict(self), "sum_ms": self.sum_ms}

    def table(self) -> str:
        """Returns the operators as aligned text."""
        rows: list[tuple[str, ...]] = [("operator", "median ms", "share", "XNNPACK", "tensor")]
        for each in self.operators:
            taken = {True: "yes", False: "no", None: "?"}[each.delegated]
            cells = ("?", "")
            if each.median_ms is not None:
                cells = (f"{each.median_ms:.4f}", f"{each.median_ms / self.sum_ms:.1%}")
            rows.append((each.operator, *cells, taken, each.name.split(";")[0]))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if index in (1, 2) else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        whole = self.whole
        last = (
            f"Sum {self.sum_ms:.4f} ms, the whole file {whole.median_ms:.4f} ms. "
            f"Threads: {whole.threads}, on {whole.processor}."
        )
        return "\n".join([*lines, last])

    def __str__(self) -> str:
        return self.table()


def time_operators(
    file: Any, *, threads: int = 1, runs: int = 20, warmup: int = 3, xnnpack: bool = True
) -> OperatorTimes:
    """Measures how long each operator of a TFLite file takes.

    The interpreter has no profiler that Python can reach. So each operator is put into a file of
    its own, with the values that it gets in the whole file, and all of these and the whole file
    run in turns. What an operator costs in company differs from that: here its inputs are in the
    cache, every file has the interpreter's own microseconds, and XNNPACK can merge nothing. On a
    busy machine a short operator is seldom interrupted and the whole file often, so that the sum
    is too small. It tells, beside the time of the whole, how far the shares may be believed.

    Args:
        file: path, bytes or a `TFLiteModel`.
        threads: interpreter threads, >= 1.
        runs: measured runs of each operator, >= 1.
        warmup: runs before, >= 0.
        xnnpack: whether XNNPACK runs what it can.

    Returns:
        An `OperatorTimes` of the main graph. Times hold for this machine and its load.

    Raises:
        ValueError: it is not a TFLite file, or the interpreter cannot run it.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras, kerasopt as ko
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), keras.layers.Dense(4), keras.layers.Softmax()]
        ... )
        >>> times = time_operators(ko.export.to_tflite(model).content, runs=3)
        >>> [each.operator for each in times.operators]
        ['FULLY_CONNECTED', 'SOFTMAX']
    """
    (count,) = check_measurement((threads,), runs, warmup, xnnpack)
    lite = file if isinstance(file, TFLiteModel) else TFLiteModel(file)
    whole = random_sample(lite)
    parts = _parts(FileContent(lite), whole.inputs)
    samples = [part.sample for part in parts if part.sample is not None]
    with contextlib.closing(Bench(lite.time_limit)) as bench:
        peak, delegated = bench.weigh(whole, threads=count, xnnpack=xnnpack)
        times = bench.turns(
            [*samples, whole], threads=[count], warmup=warmup, runs=runs, xnnpack=xnnpack
        )
    measured = iter(times)
    rows = []
    for part in parts:
        found = None if part.sample is None else next(measured)
        rows.append(
            OperatorTiming(
                part.name,
                part.operator,
                None if found is None else float(np.median(found)),
                None if found is None else float(np.percentile(found, 90)),
                None if delegated is None else part.number in delegated,
            )
        )
    timing = timing_of(next(measured), threads=count, sample=whole, peak=peak, delegated=delegated)
    return OperatorTimes(tuple(rows), timing)


class _Part(NamedTuple):
    """An operator of a file."""

    number: int
    name: str
    operator: str
    sample: Sample | None  # a file of it alone


def _parts(content: FileContent, inputs: Sequence[np.ndarray]) -> list[_Part]:
    """Takes a file apart, and runs it once for the values that each operator gets."""
    graph = content.graph
    varying = set(map(int, graph.inputs))
    makers: dict[int, Any] = {}  # operators that only prepare constants, by what they make
    chosen = []
    for index, op in enumerate(graph.operators):
        if varying.isdisjoint(map(int, op.inputs)):
            makers |= {int(tensor): op for tensor in op.outputs}
            continue
        varying.update(map(int, op.outputs))
        chosen.append((index, op))
    needed = [[int(i) for i in dict.fromkeys(op.inputs) if int(i) in varying] for _, op in chosen]
    alone = [_can_run_alone(content, op) for _, op in chosen]
    watched = dict.fromkeys(
        i for wanted, can in zip(needed, alone, strict=True) if can for i in wanted
    )
    arrays = [
        dequantize_output(x, tensor) for x, tensor in zip(inputs, content.lite.inputs, strict=True)
    ]
    values = {index: found[0] for index, found in content.watch(list(watched), arrays)}
    parts = []
    for (index, op), wanted, can in zip(chosen, needed, alone, strict=True):
        kind = content.kind_of(op)
        sample = None
        if can:
            file = _file_of(content, [*_before(op, makers), op], wanted)
            sample = Sample(file, [values[i] for i in wanted], [kind])
        name = (graph.tensors[op.outputs[0]].name or b"").decode() if len(op.outputs) else ""
        parts.append(_Part(index, name, kind, sample))
    return parts


def _can_run_alone(content: FileContent, op: Any) -> bool:
    tensors = [content.graph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
    return content.kind_of(op) not in _WITH_GRAPHS and not any(
        tensor.type in _NOT_ALONE or tensor.isVariable for tensor in tensors
    )


def _before(op: Any, makers: dict[int, Any]) -> list[Any]:
    """Returns the operators that prepare constants for an operator, in order."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [(op, False)]
    while waiting:  # a file may chain more of them than Python calls itself
        current, is_ready = waiting.pop()
        if is_ready:
            found.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            needed = [makers[i] for i in map(int, current.inputs) if i in makers]
            waiting += [(current, True), *((each, False) for each in reversed(needed))]
    return found[:-1]


def _file_of(content: FileContent, operators: Sequence[Any], inputs: Sequence[int]) -> bytes:
    """Returns a file of a few operators."""
    model, graph = content.model, content.graph
    used = sorted({int(i) for op in operators for i in (*op.inputs, *op.outputs) if i >= 0})
    place = {old: new for new, old in enumerate(used)} | {-1: -1}

    def moved(indices: Any) -> np.ndarray:
        return np.array([place[int(i)] for i in indices], "int32")

    small = schema.ModelT()
    small.version = model.version
    small.operatorCodes = [model.operatorCodes[op.opcodeIndex] for op in operators]
    small.buffers = [schema.BufferT()]
    alone = schema.SubGraphT()
    alone.tensors = []
    for index in used:
        tensor = copy.copy(graph.tensors[index])
        buffer = model.buffers[tensor.buffer]
        tensor.buffer = 0
        if buffer.data is not None and len(buffer.data):
            tensor.buffer = len(small.buffers)
            small.buffers.append(buffer)
        alone.tensors.append(tensor)
    alone.operators = []
    for number, op in enumerate(operators):
        twin = copy.copy(op)
        twin.opcodeIndex = number
        twin.inputs, twin.outputs, twin.intermediates = moved(op.inputs), moved(op.outputs), None
        alone.operators.append(twin)
    alone.inputs, alone.outputs = moved(inputs), moved(operators[-1].outputs)
    small.subgraphs = [alone]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(small.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())
