"""Multiply-accumulate operations of a TensorFlow graph, operation by operation."""

import math
from collections.abc import Callable, Iterable
from typing import Any

_Dims = list[int | None]


def count_macs(operations: Iterable[Any]) -> int | None:
    """Sums the MACs of graph operations; `None` if the shape of one that counts is unknown.

    Convolutions, matrix products and einsums count; everything elementwise does not.
    """
    total = 0
    for operation in operations:
        counter = _COUNTERS.get(operation.type)
        if counter is None:
            continue
        try:
            total += counter(operation)
        except _UnknownShapeError:
            return None
    return total


class _UnknownShapeError(Exception):
    """A shape that the count needs is not known."""


def _dims(tensor: Any) -> list[int]:
    if tensor.shape.rank is None or None in tensor.shape.as_list():
        raise _UnknownShapeError
    dims: list[int] = tensor.shape.as_list()
    return dims


def _convolution(operation: Any) -> int:
    kernel = _dims(operation.inputs[1])  # (*window, channels of a group, filters)
    return math.prod(_dims(operation.outputs[0])) * math.prod(kernel[:-1])


def _depthwise(operation: Any) -> int:
    height, width, _, _ = _dims(operation.inputs[1])
    return math.prod(_dims(operation.outputs[0])) * height * width


def _transposed(operation: Any) -> int:
    # Each value of the input meets every position of the window and every filter.
    kernel = _dims(operation.inputs[1])  # (*window, filters, channels)
    return math.prod(_dims(operation.inputs[2])) * math.prod(kernel[:-1])


def _matrix_product(operation: Any) -> int:
    transposed = "transpose_a" if operation.type == "MatMul" else "adj_x"
    inner = _dims(operation.inputs[0])[-2 if operation.get_attr(transposed) else -1]
    return math.prod(_dims(operation.outputs[0])) * inner


def _einsum(operation: Any) -> int:
    terms, result = operation.get_attr("equation").decode().replace(" ", "").split("->")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms.split(","), operation.inputs, strict=True):
        dims = _dims(tensor)
        head, _, tail = term.partition("...")
        sizes |= dict(zip(head, dims, strict=False))
        sizes |= dict(zip(reversed(tail), reversed(dims), strict=False))
    summed = set(sizes) - set(result)
    return math.prod(_dims(operation.outputs[0])) * math.prod(sizes[label] for label in summed)


_COUNTERS: dict[str, Callable[[Any], int]] = {
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _transposed,
    "Conv3D": _convolution,
    "Conv3DBackpropInputV2": _transposed,
    "DepthwiseConv2dNative": _depthwise,
    "Einsum": _einsum,
    "MatMul": _matrix_product,
}
