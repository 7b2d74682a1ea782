"""The memory that activations need: which of them live at once, and how they fit together."""

import bisect
import itertools
import math
import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

from kerasopt.profiling._tflite_file import (
    Operator,
    Tensor,
    damage_is_a_value_error,
    num_bits,
    read_content,
    read_operators,
)

_ALIGNMENT = 16
_MOST = 5_000
"""Activations that are placed; a large network has 1,500."""


class Life(NamedTuple):
    """An activation: its bytes, and the first and the last operator that it is there for."""

    size: int
    first: int
    last: int


def arena_bytes(content: str | os.PathLike[str] | bytes) -> int:
    """Estimates the tensor arena that a TFLite file needs on a microcontroller.

    Every activation lives from the operator that makes it to the last one that reads it, inputs
    from the beginning, outputs to the end. As TFLite Micro does by default, the largest is placed
    first, each at the lowest place where it meets none that lives at the same time, aligned to 16
    bytes. What the runtime adds is not in: its structures of some hundred bytes per operator and
    tensor, and the scratch buffers of optimized kernels. Take a quarter more, and trim by what
    `interpreter.arena_used_bytes()` says on the board.

    Args:
        content: path of the file, or its bytes.

    Returns:
        Bytes.

    Raises:
        TypeError: `content` is neither a path nor bytes.
        ValueError: the content is not a TFLite file, is damaged, or has over 5,000 activations.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras
        >>> from kerasopt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> arena_bytes(to_tflite(model).content)  # (64 + 32) float32 numbers
        384
    """
    content = read_content(content)
    operators = read_operators(content)
    with damage_is_a_value_error(content):
        return _packed(lives_of(operators))


def live_bytes(operators: list[Operator], *, expanded: Collection[int] = ()) -> list[int]:
    """Returns for each operator the bytes of all activations that live while it runs.

    Args:
        operators: of the file, in order.
        expanded: the `id` of tensors that are no activations, but weights in a wider type.
    """
    lives = lives_of(operators, alignment=1, skipped=expanded)
    changes = [0] * (len(operators) + 2)
    for life in lives:
        if life.first <= life.last:  # else it is read before it is made, by a damaged file
            changes[life.first] += life.size
            changes[life.last + 1] -= life.size
    return list(itertools.accumulate(changes))[: len(operators)]


def lives_of(
    operators: list[Operator], *, alignment: int = _ALIGNMENT, skipped: Collection[int] = ()
) -> list[Life]:
    """Returns size, first and last operator of every activation."""
    made: dict[int, int] = {}
    read: dict[int, int] = {}
    tensors: dict[int, Tensor] = {}
    for index, operator in enumerate(operators):
        for tensor in operator.inputs:
            if tensor is not None and tensor.data is None:
                tensors[id(tensor)] = tensor
                read[id(tensor)] = index
        for tensor in operator.outputs:
            tensors[id(tensor)] = tensor
            made[id(tensor)] = index
    end = len(operators)
    return [
        Life(tensor_bytes(tensor, alignment), made.get(key, 0), read.get(key, end))
        for key, tensor in tensors.items()
        if key not in skipped
    ]


def tensor_bytes(tensor: Tensor, alignment: int = 1) -> int:
    """Returns the bytes of a tensor, rounded up to a multiple of the alignment."""
    size = -(-math.prod(tensor.shape) * num_bits(tensor) // 8)
    if size < 0:
        raise ValueError(f"a tensor of the shape {tensor.shape}")
    return -(-size // alignment) * alignment


def _packed(lives: Sequence[Life]) -> int:
    if len(lives) > _MOST:  # each is compared with each
        raise ValueError(f"{len(lives):,} activations, more than {_MOST:,}")
    placed: list[tuple[int, Life]] = []  # by place
    for life in sorted(lives, key=lambda life: (-life.size, life.first)):
        start = 0
        for place, other in placed:
            if other.first <= life.last and life.first <= other.last:
                if start + life.size <= place:
                    break
                start = max(start, place + other.size)
        bisect.insort(placed, (start, life))
    return max((place + life.size for place, life in placed), default=0)
