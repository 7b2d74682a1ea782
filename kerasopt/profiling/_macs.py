"""Multiply-accumulate operations: of a convolution by formula, of the rest from its graph."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from kerasopt._backend import keras


def layer_macs(layer: Any, images: Any, outputs: Any, operations: Iterable[Any]) -> int | None:
    """Returns the MACs of one call of a layer; `None` if a shape that counts is unknown.

    TensorFlow computes some convolutions in a way of its own (with groups in a function, with
    dilation on a rearranged batch), so theirs follow from the shapes. Of a recurrent layer the
    graph shows one step, which Keras takes before the loop.

    Args:
        layer: the Keras layer.
        images: its (first) input tensor.
        outputs: its output.
        operations: the operations that the call added to the graph.
    """
    kind = layer.__class__
    formula = next((f for base, f in _FORMULAS if issubclass(kind, base)), None)
    try:
        if formula is None:
            counted = count_macs(operations)
            return None if counted is None else counted * _steps(layer, images)
        return formula(layer, _dims(images), _dims(outputs))
    except _UnknownShapeError:
        return None


def _steps(layer: Any, images: Any) -> int:
    """Returns how often what the graph shows of a layer runs."""
    if isinstance(layer, keras.layers.Bidirectional):  # both directions are in the graph
        layer = layer.forward_layer
    loops = isinstance(layer, keras.layers.RNN) and not layer.unroll
    return _dims(images)[1] if loops else 1


def _conv_layer(layer: Any, _: list[int], outputs: list[int]) -> int:
    return math.prod(outputs) * math.prod(layer.kernel.shape[:-1])


def _depthwise_layer(layer: Any, _: list[int], outputs: list[int]) -> int:
    return math.prod(outputs) * math.prod(layer.kernel.shape[:-2])


def _transposed_layer(layer: Any, images: list[int], _: list[int]) -> int:
    return math.prod(images) * math.prod(layer.kernel.shape[:-1])


def _separable_layer(layer: Any, _: list[int], outputs: list[int]) -> int:
    positions = math.prod(outputs) // layer.filters
    depthwise, pointwise = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
    return positions * (math.prod(depthwise) + math.prod(pointwise))


_FORMULAS: list[tuple[Any, Callable[[Any, list[int], list[int]], int]]] = [
    ((keras.layers.SeparableConv1D, keras.layers.SeparableConv2D), _separable_layer),
    ((keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D), _depthwise_layer),
    (
        (
            keras.layers.Conv1DTranspose,
            keras.layers.Conv2DTranspose,
            keras.layers.Conv3DTranspose,
        ),
        _transposed_layer,
    ),
    ((keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D), _conv_layer),
]


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
