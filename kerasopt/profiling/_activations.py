"""Activations of a Keras model: how large they are, and which of them live at once."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from kerasopt._backend import keras

_VIEWS = ("ExpandDims", "Identity", "PreventGradient", "Reshape", "Squeeze", "StopGradient")
_NO_ACTIVATION = ("Const", "ReadVariableOp", "VarHandleOp")


class Activations(NamedTuple):
    """What one call of a layer reads and makes.

    Attributes:
        first: number of the first operation of the graph that the call added.
        last: of the last one; less than `first` when it added none.
        inputs: tensors that the call was given.
        outputs: tensors that it returned.
    """

    first: int = 0
    last: int = 0
    inputs: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()


class LiveTensors:
    """The activations of a traced model, each from the operation that makes it to its last reader.

    What a layer returns as it was given it, or in another shape only, is one activation. Tensors
    are known where they go into a layer or come out of one: what a layer holds inside of itself
    does not count.

    Args:
        graph: of the model.
        calls: the calls of all layers.
        batch: number of images in the graph.
    """

    def __init__(self, graph: Any, calls: Iterable[Activations], batch: int) -> None:
        self._graph, self._batch = graph, batch
        operations = graph.get_operations()
        self._made = {operation.name: index for index, operation in enumerate(operations)}
        self._last: dict[str, int] = {}
        for index, operation in enumerate(operations):
            for tensor in operation.inputs:
                self._last[_root(tensor).name] = index
        for tensor in graph.outputs:
            self._last[_root(tensor).name] = len(operations)
        self._tensors = {
            tensor.name: tensor
            for call in calls
            for tensor in self._roots((*call.inputs, *call.outputs))
        }

    def made(self, call: Activations) -> int | None:
        """Returns the bytes of what a call makes, for one image; `None` if a size is unknown."""
        tensors = {tensor.name: tensor for tensor in self._roots(call.outputs)}
        return self._total(t for t in tensors.values() if self._made[t.op.name] >= call.first)

    def live(self, call: Activations) -> int | None:
        """Returns the bytes that live during a call, for one image; `None` if one is unknown."""
        begin = min(call.first, call.last)  # a call may add nothing
        return self._total(
            tensor
            for name, tensor in self._tensors.items()
            if self._made[tensor.op.name] <= call.last and self._last.get(name, -1) >= begin
        )

    def _roots(self, tensors: Iterable[Any]) -> list[Any]:
        roots = [_root(tensor) for tensor in tensors if tensor.graph is self._graph]
        return [
            root
            for root in roots
            if root.op.type not in _NO_ACTIVATION and root.dtype.name not in ("resource", "variant")
        ]

    def _total(self, tensors: Iterable[Any]) -> int | None:
        total = 0
        for tensor in tensors:
            shape = tensor.shape.as_list() if tensor.shape.rank is not None else [None]
            if None in shape:
                return None
            total += math.prod(shape) * tensor.dtype.size // self._batch
        return total


def _root(tensor: Any) -> Any:
    while tensor.op.type in _VIEWS:
        tensor = tensor.op.inputs[0]
    return tensor


def activations_of(before: int, after: int, arguments: Any, outputs: Any) -> Activations:
    """Describes a call that added the operations `before` to `after` to the graph."""
    given, returned = (
        tuple(x for x in keras.tree.flatten(value) if hasattr(x, "op"))
        for value in (arguments, outputs)
    )
    return Activations(before, after - 1, given, returned)
