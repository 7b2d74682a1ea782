"""Pruning masks: functions on tensors, each equal to TF-MOT 0.8.1 on the same weights.

Every structure works in two steps. A *score* is computed for each unit that stays or goes as a
whole (a weight, a block), and the units of highest score stay; the decision is then spread over
the weights of the unit.
"""

import math
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._validation import check_choice, check_int

POOLINGS = ("AVG", "MAX")


def magnitude_mask(weights: Any, sparsity: Any) -> Any:
    """Returns the mask that keeps the weights of largest magnitude.

    `k = max(1, round(size * (1 - sparsity)))` weights are kept, in float32 and with TensorFlow's
    rounding of halves to even, as in TF-MOT 0.8.1; weights of the same magnitude as the smallest
    kept one are kept too.

    Args:
        weights: tensor of any shape.
        sparsity: scalar in [0, 1], the fraction of weights to remove.

    Returns:
        Tensor of the shape and dtype of `weights`, 1 where a weight stays and 0 where it goes.

    Example:
        >>> magnitude_mask([0.1, -0.4, 0.2, 0.3], 0.5).numpy().tolist()
        [0.0, 1.0, 0.0, 1.0]

    Reference:
        Zhu & Gupta, To prune, or not to prune, arXiv:1710.01878.
    """
    weights = tf.convert_to_tensor(weights)
    return tf.cast(keep_largest(tf.abs(weights), sparsity), weights.dtype)


def block_mask(
    weights: Any, sparsity: Any, *, block: tuple[int, int] = (1, 4), pooling: str = "AVG"
) -> Any:
    """Returns the mask that keeps the blocks of largest pooled magnitude.

    The last two axes (inputs, outputs) are cut into blocks of `block[0]` inputs by `block[1]`
    outputs; a convolution is cut position by position. Of the `n` blocks of the kernel
    `max(1, round(n * (1 - sparsity)))` stay.

    A block that does not divide the kernel is padded as TF-MOT does, so that the masks are the
    same: the blocks at the lower and right edge are smaller. (TF-MOT pools with TensorFlow's
    `SAME` windows, which lie in the middle, and cuts the mask from the upper left corner; for
    such kernels a block is therefore judged by a window that is shifted against it.)

    Args:
        weights: tensor (..., inputs, outputs).
        sparsity: scalar in [0, 1], the fraction of blocks to remove.
        block: inputs and outputs of a block, each at least 1.
        pooling: `"AVG"` or `"MAX"`, of the magnitudes in a block.

    Returns:
        Tensor of the shape and dtype of `weights`, 1 where a weight stays and 0 where it goes.

    Raises:
        TypeError: the size of a block is not an integer.
        ValueError: a block below 1×1, another pooling, or weights of rank 0 or 1.

    Example:
        >>> block_mask([[1.0, 3.0, 2.0, 0.0]], 0.5, block=(1, 2)).numpy().tolist()
        [[1.0, 1.0, 0.0, 0.0]]

    Reference:
        `block_size` and `block_pooling_type` of TF-MOT. Narang et al., Block-Sparse Recurrent
        Neural Networks, arXiv:1711.02782.
    """
    check_int("block[0]", block[0], low=1)
    check_int("block[1]", block[1], low=1)
    check_choice("pooling", pooling, POOLINGS)
    weights = as_kernel(weights)
    kept = keep_largest(block_scores(weights, block, pooling), sparsity)
    return tf.cast(spread_blocks(kept, block, weights.shape), weights.dtype)


def m_by_n_mask(weights: Any, *, m: int = 2, n: int = 4) -> Any:
    """Returns the mask with `m` zeros in every `n` neighbours along the input channels.

    The smallest magnitudes of each group go; of equal ones the later. The last group of a channel
    count that `n` does not divide is filled with zeros, as in TF-MOT, and so loses fewer weights.

    Args:
        weights: tensor (..., inputs, outputs).
        m: zeros in a group, from 1 to `n - 1`.
        n: size of a group.

    Returns:
        Tensor of the shape and dtype of `weights`, 1 where a weight stays and 0 where it goes.

    Raises:
        TypeError: `m` or `n` is not an integer.
        ValueError: `m` is not below `n`, or weights of rank 0 or 1.

    Example:
        >>> m_by_n_mask([[0.4], [0.1], [0.2], [0.3]]).numpy().ravel().tolist()
        [1.0, 0.0, 0.0, 1.0]

    Reference:
        `sparsity_m_by_n` of TF-MOT. Mishra et al., Accelerating Sparse Deep Neural Networks,
        arXiv:2104.08378.
    """
    check_int("n", n, low=2)
    check_int("m", m, low=1, high=n - 1)
    weights = as_kernel(weights)
    *_, inputs, outputs = weights.shape
    magnitude = tf.linalg.matrix_transpose(tf.abs(tf.reshape(weights, [-1, inputs, outputs])))
    groups = -(-inputs // n)
    padded = tf.pad(magnitude, [[0, 0], [0, 0], [0, groups * n - inputs]])
    padded = tf.reshape(padded, [-1, n])
    # `top_k` prefers the earlier of equal ones, which TF-MOT inherits too.
    largest = tf.math.top_k(padded, k=n - m).indices
    mask = tf.reduce_sum(tf.one_hot(largest, n, dtype=weights.dtype), axis=1)
    mask = tf.reshape(mask, [-1, outputs, groups * n])[..., :inputs]
    return tf.reshape(tf.linalg.matrix_transpose(mask), weights.shape)


def as_kernel(weights: Any) -> Any:
    """Returns a tensor of rank 2 or more.

    Raises:
        ValueError: the rank is lower.
    """
    weights = tf.convert_to_tensor(weights)
    if weights.shape.rank is None or weights.shape.rank < 2:
        raise ValueError(
            "`weights` must have the shape (..., inputs, outputs). "
            f"Received: weights of shape {tuple(weights.shape)}. "
            "Use magnitude_mask for weights of any shape."
        )
    return weights


def keep_largest(scores: Any, sparsity: Any) -> Any:
    """Returns booleans, true for the `max(1, round(size * (1 - sparsity)))` largest scores."""
    return scores >= threshold(tf.reshape(scores, [-1]), sparsity)


def threshold(scores: Any, sparsity: Any) -> Any:
    """Returns the smallest of the scores (n,) that stay at a sparsity."""
    size = tf.cast(tf.size(scores), tf.float32)
    kept = tf.maximum(tf.round(size * (1.0 - tf.cast(sparsity, tf.float32))), 1.0)
    kept = tf.cast(kept, tf.int32)
    if not tf.executing_eagerly():
        return tf.sort(scores, direction="DESCENDING")[kept - 1]
    # Between steps only one value is wanted, and NumPy finds it without sorting: ten times faster
    # for a kernel of 400,000 weights. float32 holds every narrower float exactly.
    values = tf.cast(scores, tf.float64 if scores.dtype == tf.float64 else tf.float32).numpy()
    place = values.size - int(kept)
    return tf.cast(np.partition(values, place)[place], scores.dtype)


def block_scores(weights: Any, block: tuple[int, int], pooling: str) -> Any:
    """Returns the pooled magnitudes (positions, rows, columns) of the blocks of a kernel."""
    *_, inputs, outputs = weights.shape
    values = tf.reshape(tf.abs(weights), [-1, 1, inputs, outputs])
    for size in block:  # first along the inputs, then along the outputs, in TF-MOT's order
        values = tf.nn.pool(
            values, [1, size], pooling_type=pooling, strides=[1, size], padding="SAME"
        )
        values = tf.transpose(values, [0, 1, 3, 2])
    return values[:, 0]


def spread_blocks(kept: Any, block: tuple[int, int], shape: Any) -> Any:
    """Spreads one boolean per block (positions, rows, columns) over a kernel of a shape."""
    *_, inputs, outputs = shape
    mask = tf.repeat(tf.repeat(kept, block[0], axis=1), block[1], axis=2)
    return tf.reshape(mask[:, :inputs, :outputs], shape)


def block_counts(shape: Any, block: tuple[int, int]) -> int:
    """Returns into how many blocks a kernel (..., inputs, outputs) is cut."""
    *positions, inputs, outputs = shape
    return math.prod(positions) * -(-inputs // block[0]) * -(-outputs // block[1])
