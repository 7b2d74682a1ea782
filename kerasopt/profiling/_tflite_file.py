"""Reading a TFLite file: the flatbuffer, without the interpreter."""

import contextlib
import math
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasopt.profiling._tflite_budget import check_budget

IDENTIFIER = b"TFL3"
_OPERATORS = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}
_TYPES = {
    value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")
}
_NUMPY = {
    "FLOAT64": "<f8",
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "BFLOAT16": "<u2",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "<i1",
    "UINT64": "<u8",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "<u1",
    "BOOL": "?",
}


class Tensor(NamedTuple):
    """A tensor of a TFLite file; `data` holds the raw bytes of a constant."""

    name: str
    shape: tuple[int, ...]
    type: str
    buffer: int
    data: np.ndarray | None
    zero_point: np.ndarray
    axis: int
    is_quantized: bool
    is_sparse: bool


class Operator(NamedTuple):
    """An operator of a TFLite file; an input that is left out is `None`."""

    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]


def tflite_operators(
    content: str | os.PathLike[str] | bytes, *, floats: bool = False
) -> tuple[str, ...]:
    """Lists the operators of a TFLite file in the order in which they run.

    Args:
        content: path of the file, or its bytes.
        floats: only those that compute in real numbers: they take or make a float tensor, and
            their weights are no integers. What turns real numbers into integers, or back, is not
            among them, and neither are operators on the int8 weights of a dynamic file.

    Returns:
        The names of the schema, such as `"CONV_2D"`, one for each operator; for a custom operator
        its own name, such as `"FlexErf"`.

    Raises:
        TypeError: `content` is neither a path nor bytes.
        ValueError: the content is not a TFLite file, or is damaged.
        FileNotFoundError: there is no such file.
    """
    operators = read_operators(read_content(content))
    return tuple(op.kind for op in operators if not floats or _is_float(op))


def _is_float(operator: Operator) -> bool:
    if operator.kind in ("QUANTIZE", "DEQUANTIZE"):
        return False
    taken = [tensor for tensor in operator.inputs if tensor is not None]
    if any(t.data is not None and t.is_quantized and "INT" in t.type for t in taken):
        return False
    return any("FLOAT" in tensor.type for tensor in (*taken, *operator.outputs))


def read_content(content: Any) -> bytes:
    """Returns the bytes of a TFLite file given by path or by content.

    Raises:
        TypeError: `content` is neither.
        ValueError: the bytes do not begin as a TFLite file does.
        FileNotFoundError: there is no such file.
    """
    if isinstance(content, bytearray | memoryview):
        content = bytes(content)
    name = "bytes"
    if isinstance(content, str | os.PathLike):
        name = os.fspath(content)
        content = read_file(content)
    if not isinstance(content, bytes):
        raise TypeError(
            "`content` must be the path or the bytes of a TFLite file. "
            f"Received: content of type {type(content).__name__}."
        )
    if content[4:8] != IDENTIFIER:
        what = f"{len(content):,} bytes that begin with {content[:8]!r}" if content else "0 bytes"
        raise ValueError(
            "`content` must be a TFLite file, which has 'TFL3' at byte 4. "
            f"Received: {name} of {what}. Write one with kerasopt.export.to_tflite."
        )
    return content


def read_file(path: Any) -> bytes:
    """Returns the bytes of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"The path must be that of a file. Received: {os.fspath(path)!r}.")
    return file.read_bytes()


def read_operators(content: bytes) -> list[Operator]:
    """Reads the operators of all subgraphs with their tensors.

    Raises:
        ValueError: the file is damaged.
    """
    with damage_is_a_value_error(content):
        model = schema.Model.GetRootAs(content, 0)
        check_budget(model, content)
        kinds = [_kind(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
        operators = []
        for index in range(model.SubgraphsLength()):
            operators += _subgraph(model, model.Subgraphs(index), kinds, content)
        if not operators:
            raise ValueError("it has no operators")
    return operators


@contextlib.contextmanager
def damage_is_a_value_error(content: bytes) -> Iterator[None]:
    """Turns what damage leads to into one ValueError.

    The reader of flatbuffers trusts its offsets; a wrong one ends in any of these.
    """
    try:
        yield
    except (
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise ValueError(
            "`content` must be a whole TFLite file. "
            f"Received: {len(content):,} bytes that are damaged or cut short ({error}). "
            "Copy or convert it again."
        ) from error


def _kind(code: Any) -> str:
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    custom = code.CustomCode()
    return custom.decode() if custom else _OPERATORS[builtin]


def _subgraph(model: Any, graph: Any, kinds: list[str], content: bytes) -> list[Operator]:
    tensors = [_tensor(model, graph.Tensors(i), content) for i in range(graph.TensorsLength())]

    def pick(indices: Any) -> tuple[Tensor | None, ...]:
        chosen = np.atleast_1d(indices).tolist() if not isinstance(indices, int) else []
        if any(index >= len(tensors) for index in chosen):
            raise ValueError("an operator names a tensor that is not there")
        return tuple(tensors[index] if index >= 0 else None for index in chosen)

    operators = []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        outputs = tuple(t for t in pick(operator.OutputsAsNumpy()) if t is not None)
        kind = kinds[operator.OpcodeIndex()]
        operators.append(Operator(kind, pick(operator.InputsAsNumpy()), outputs))
    return operators


def _tensor(model: Any, tensor: Any, content: bytes) -> Tensor:
    quantization = tensor.Quantization()
    scaled = quantization is not None and quantization.ScaleLength() > 0
    zero_point = np.atleast_1d(quantization.ZeroPointAsNumpy()) if scaled else np.zeros(1, "int64")
    shape = () if tensor.ShapeIsNone() else tuple(np.atleast_1d(tensor.ShapeAsNumpy()).tolist())
    return Tensor(
        name=(tensor.Name() or b"").decode(),
        shape=shape,
        type=_TYPES[tensor.Type()],
        buffer=tensor.Buffer(),
        data=_data(model, tensor.Buffer(), content),
        zero_point=zero_point,
        axis=quantization.QuantizedDimension() if scaled else 0,
        is_quantized=scaled,
        is_sparse=tensor.Sparsity() is not None,
    )


def _data(model: Any, index: int, content: bytes) -> np.ndarray | None:
    """The bytes of a constant: in the buffer, or behind the flatbuffer in a file over 2 GB."""
    if index >= model.BuffersLength():
        raise ValueError("a tensor names a buffer that is not there")
    buffer = model.Buffers(index)
    if buffer.Offset() > 1:
        return np.frombuffer(content, np.uint8, buffer.Size(), buffer.Offset())
    if not buffer.DataLength():
        return None
    data: np.ndarray = buffer.DataAsNumpy()
    return data


def constant_values(tensor: Tensor) -> np.ndarray:
    """Returns the values of a constant, minus its zero point, in the shape of the tensor.

    A sparse constant keeps only the values that are stored, flat.

    Raises:
        ValueError: the constant holds fewer bytes than its shape needs.
    """
    if tensor.data is None:
        raise ValueError(f"tensor {tensor.name!r} is not a constant")
    if tensor.type in ("INT4", "INT2", "UINT4"):
        values = _unpack(tensor.data, tensor.type)[: math.prod(tensor.shape)]
    elif tensor.type in _NUMPY:
        values = tensor.data.view(_NUMPY[tensor.type])
    else:  # text, resources and other things that are not numbers
        values = tensor.data
    if tensor.is_sparse or tensor.type not in (*_NUMPY, "INT4", "INT2", "UINT4"):
        return values
    values = values.reshape(tensor.shape)
    if tensor.is_quantized and tensor.zero_point.any():
        around = [1] * values.ndim
        if tensor.zero_point.size > 1:
            around[tensor.axis] = -1
        return values.astype("int32") - tensor.zero_point.reshape(around).astype("int32")
    return values


def _unpack(data: np.ndarray, kind: str) -> np.ndarray:
    """Unpacks values of 4 or 2 bits, the lowest bits first."""
    num_bits = int(kind[-1])
    shifts = np.arange(0, 8, num_bits, dtype="uint8")
    values = ((data[:, None] >> shifts) & (2**num_bits - 1)).ravel().astype("int8")
    if kind.startswith("INT"):
        values = np.where(values >= 2 ** (num_bits - 1), values - 2**num_bits, values)
    return values.astype("int8")


def num_bits(tensor: Tensor) -> int:
    """Returns the bits of one value of a tensor."""
    if tensor.type in _NUMPY:
        return np.dtype(_NUMPY[tensor.type]).itemsize * 8
    digits = "".join(character for character in tensor.type if character.isdigit())
    return int(digits[:1] or 8)
