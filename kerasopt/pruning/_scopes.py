"""How a sparsity is shared out among kernels: each the same, one ranking, or by shape."""

import math
from collections.abc import Sequence
from typing import Any

from kerasopt._backend import tf
from kerasopt._validation import check_number
from kerasopt.pruning._masks import threshold
from kerasopt.pruning._structures import Structure

SCOPES = ("layer", "global", "erk")


def erk_sparsity(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Returns the Erdős-Rényi-Kernel sparsity of each kernel, for a wanted sparsity of all.

    `density = e * sum(shape) / prod(shape)`, with the one `e` that gives the wanted total. Large
    kernels lose more than small ones. A kernel that would need a density above 1 stays dense, and
    `e` grows for the others.

    Args:
        shapes: the shape of each kernel, rank 2 or more.
        sparsity: wanted fraction of zeros in all kernels together, in [0, 1).

    Returns:
        One sparsity for each kernel, in [0, 1).

    Raises:
        TypeError: `sparsity` is not a number.
        ValueError: `sparsity` out of range, or no shapes.

    Example:
        >>> [round(value, 3) for value in erk_sparsity([(3, 3, 16, 16), (16, 10)], 0.5)]
        [0.535, 0.0]

    Reference:
        Evci et al., Rigging the Lottery, arXiv:1911.11134; for dense layers Mocanu et al.,
        Scalable training of artificial neural networks, arXiv:1707.04780.
    """
    check_number("sparsity", sparsity, low=0.0, high=1.0, high_open=True)
    if not shapes:
        raise ValueError("`shapes` must hold at least one shape. Received: shapes=[].")
    sizes = [math.prod(shape) for shape in shapes]
    ratios = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    budget = sum(sizes) * (1.0 - sparsity)
    dense: set[int] = set()
    while True:
        rest = [index for index in range(len(sizes)) if index not in dense]
        left = budget - sum(sizes[index] for index in dense)
        scale = left / sum(sizes[i] * ratios[i] for i in rest) if rest else 0.0
        full = {index for index in rest if scale * ratios[index] >= 1.0}
        if not full:
            break
        dense |= full
    return [0.0 if index in dense else 1.0 - scale * ratios[index] for index in range(len(sizes))]


def joint_masks(kernels: Sequence[Any], sparsity: float, structure: Structure) -> list[Any]:
    """Returns the masks of kernels that are ranked together, each (positions, inputs, outputs).

    Every kernel keeps its highest unit, whatever the others have: a kernel without any weight
    would cut the network.
    """
    scores = [structure.scores(kernel) for kernel in kernels]
    limit = threshold(tf.concat([tf.reshape(s, [-1]) for s in scores], axis=0), sparsity)
    return [
        tf.cast(
            structure.spread(score >= tf.minimum(limit, tf.reduce_max(score)), kernel.shape),
            kernel.dtype,
        )
        for kernel, score in zip(kernels, scores, strict=True)
    ]
