"""Counting on arrays: the numbers of one layer from its weights."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Weight(NamedTuple):
    """One weight: its values, and what they are stored as.

    Attributes:
        values: array of the stored values, minus the zero point where there is one, so that a
            zero is a zero.
        num_bits: bits of one value.
        num_bytes: bytes of all values.
        size: number of values; more than `values.size` where a file leaves zeros out.
        is_kernel: whether zeros and distinct values of this weight are counted.
    """

    values: np.ndarray
    num_bits: int
    num_bytes: int
    size: int
    is_kernel: bool


class Counts(NamedTuple):
    """The numbers of a set of weights."""

    parameters: int
    kernel_parameters: int
    zeros: int
    distinct: int
    num_bits: int
    bytes: int


def count(weights: Sequence[Weight]) -> Counts:
    """Counts parameters, and zeros and distinct values of the kernels."""
    kernels = [weight for weight in weights if weight.is_kernel]
    kernel_parameters = sum(weight.size for weight in kernels)
    nonzero = sum(int(np.count_nonzero(weight.values)) for weight in kernels)
    measured = kernels or weights
    return Counts(
        parameters=sum(weight.size for weight in weights),
        kernel_parameters=kernel_parameters,
        zeros=kernel_parameters - nonzero,
        distinct=_distinct(kernels),
        num_bits=max((weight.num_bits for weight in measured), default=0),
        bytes=sum(weight.num_bytes for weight in weights),
    )


def _distinct(kernels: Sequence[Weight]) -> int:
    if not kernels:
        return 0
    left_out = any(weight.size > weight.values.size for weight in kernels)
    arrays = [weight.values.ravel() for weight in kernels]
    if all(array.dtype == np.int8 for array in arrays):  # no sorting of millions of values
        counts = np.sum([np.bincount(a.view(np.uint8), minlength=256) for a in arrays], axis=0)
        counts[0] += left_out
        return int(np.count_nonzero(counts))
    joined = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    return np.unique(np.append(joined, [0]) if left_out else joined).size
