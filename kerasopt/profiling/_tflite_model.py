"""The rows of a TFLite file: one for each operator."""

import dataclasses
import math

from kerasopt.profiling._arena import live_bytes, tensor_bytes
from kerasopt.profiling._report import LayerProfile, Profile
from kerasopt.profiling._tflite_file import (
    Operator,
    Tensor,
    constant_values,
    damage_is_a_value_error,
    num_bits,
    read_operators,
)
from kerasopt.profiling._weights import Weight, count

_ELEMENTWISE = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "PRELU", "SQUARED_DIFFERENCE", "SUB")
_MULTIPLIERS = (
    "BATCH_MATMUL",
    "CONV_2D",
    "CONV_3D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
)
_LOOP = "MACs of a loop (WHILE) are those of one step: a file does not say how often it runs."
_INTEGERS = ("INT32", "INT64", "UINT32", "UINT64", "BOOL", "STRING")


def profile_tflite(content: bytes, *, source: str) -> Profile:
    """Profiles a TFLite file, given its bytes.

    Raises:
        ValueError: the file is damaged.
    """
    operators = read_operators(content)
    with damage_is_a_value_error(content):
        rows = _rows(operators)
    loops = any(operator.kind == "WHILE" for operator in operators)
    return Profile(source, rows, len(content), (_LOOP,) if loops else ())


def _rows(operators: list[Operator]) -> tuple[LayerProfile, ...]:
    # A float16 constant on its way to the operator that uses it: counted there.
    expanded = {
        id(operator.outputs[0]): operator.inputs[0]
        for operator in operators
        if operator.kind == "DEQUANTIZE"
        and operator.inputs
        and operator.inputs[0] is not None
        and operator.inputs[0].data is not None
    }
    rows = []
    seen: set[int] = set()
    lives = live_bytes(operators, expanded=expanded)
    for operator, live in zip(operators, lives, strict=True):
        if operator.outputs and id(operator.outputs[0]) in expanded:
            continue
        inputs = tuple(expanded.get(id(tensor), tensor) for tensor in operator.inputs)
        row = _row(operator._replace(inputs=inputs), seen)
        made = sum(map(tensor_bytes, operator.outputs))
        rows.append(dataclasses.replace(row, activation_bytes=made, live_bytes=live))
    return tuple(rows)


def _row(operator: Operator, seen: set[int]) -> LayerProfile:
    weights = []
    other_bytes = 0
    for tensor in operator.inputs:
        if tensor is None or tensor.data is None or tensor.buffer in seen:
            continue
        seen.add(tensor.buffer)
        if _is_weight(tensor):
            weights.append(_weight(tensor, is_kernel=_is_kernel(operator, tensor)))
        else:
            other_bytes += tensor.data.size
    output = operator.outputs[0] if operator.outputs else None
    row = LayerProfile(
        output.name if output else operator.kind,
        operator.kind,
        output.shape if output else None,
        output.type.lower() if output else "",
        macs=_macs(operator),
        **count(weights)._asdict(),
    )
    return dataclasses.replace(row, bytes=row.bytes + other_bytes)


def _is_weight(tensor: Tensor) -> bool:
    """Shapes, axes and paddings are integers without a scale; biases of int32 have one."""
    return tensor.is_quantized or tensor.type not in _INTEGERS


def _is_kernel(operator: Operator, tensor: Tensor) -> bool:
    """An elementwise constant may have the rank of an image, yet it is a scale or a shift."""
    return len(tensor.shape) >= 2 and operator.kind not in _ELEMENTWISE


def _weight(tensor: Tensor, *, is_kernel: bool) -> Weight:
    return Weight(
        values=constant_values(tensor),
        num_bits=num_bits(tensor),
        num_bytes=0 if tensor.data is None else tensor.data.size,
        size=math.prod(tensor.shape),
        is_kernel=is_kernel,
    )


def _macs(operator: Operator) -> int:
    """MACs of one image: every shape of a file has a batch of one unless it was fixed."""
    if operator.kind not in _MULTIPLIERS:
        return 0
    first, kernel = operator.inputs[:2]
    if first is None or kernel is None or not operator.outputs:
        raise ValueError(f"an operator {operator.kind} without its inputs")
    output = math.prod(operator.outputs[0].shape[1:])
    if operator.kind == "CONV_2D":  # kernel (filters, height, width, channels)
        return output * math.prod(kernel.shape[1:])
    if operator.kind == "DEPTHWISE_CONV_2D":  # (1, height, width, channels)
        return output * math.prod(kernel.shape[1:3])
    if operator.kind == "CONV_3D":  # (depth, height, width, channels, filters)
        return output * math.prod(kernel.shape[:-1])
    if operator.kind == "BATCH_MATMUL":  # either of the two may be transposed
        rows = operator.outputs[0].shape[-2]
        return output * math.prod(first.shape[-2:]) // max(rows, 1)
    if operator.kind == "FULLY_CONNECTED":  # (units, inputs)
        return output * kernel.shape[-1]
    images = operator.inputs[2]
    if images is None:
        raise ValueError("an operator TRANSPOSE_CONV without its images")
    return math.prod(images.shape[1:]) * math.prod(kernel.shape[:3])
