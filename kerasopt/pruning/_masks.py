"""Pruning masks: functions on tensors."""

from typing import Any

from kerasopt._backend import keras, tf


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
    magnitude = tf.abs(tf.reshape(weights, [-1]))
    size = tf.cast(tf.size(magnitude), tf.float32)
    kept = tf.cast(
        tf.maximum(tf.round(size * (1.0 - tf.cast(sparsity, tf.float32))), 1.0), tf.int32
    )
    threshold = tf.sort(magnitude, direction="DESCENDING")[kept - 1]
    return tf.cast(tf.abs(weights) >= threshold, weights.dtype)


class MaskConstraint(keras.constraints.Constraint):
    """Multiplies a weight by its mask after every optimizer step, behind the user's constraint."""

    def __init__(self, mask: Any, inner: Any = None) -> None:
        self.mask = mask
        self.inner = inner

    def __call__(self, w: Any) -> Any:
        """Returns the constrained weight, zero where the mask is zero."""
        if self.inner is not None:
            w = self.inner(w)
        return w * tf.cast(self.mask, w.dtype)
