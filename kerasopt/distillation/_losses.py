"""What a student pays for differing from its teacher: functions on tensors."""

from typing import Any

from kerasopt._backend import keras

_TINY = 1e-12
"""Keeps the square roots of zero, whose gradient is infinite, out of the correlations."""


def kl_loss(teacher_logits: Any, student_logits: Any, temperature: Any = 1.0) -> Any:
    """Returns the divergence of the student's softened classes from the teacher's.

        T² · mean over the batch of  Σ_c p_c · (log p_c − log q_c)
        p = softmax(teacher_logits / T),  q = softmax(student_logits / T)

    The factor T² keeps the size of the gradients when T changes.

    Args:
        teacher_logits: float (batch, ..., classes). Logarithms of probabilities are logits too.
        student_logits: the same shape.
        temperature: T > 0; a number or a scalar tensor.

    Returns:
        float32 scalar, at least 0.

    Example:
        >>> round(float(kl_loss([[2.0, 0.0]], [[0.0, 0.0]], temperature=2.0)), 4)
        0.4438

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """
    teacher, student = _float32(teacher_logits), _float32(student_logits)
    log_p = keras.ops.log_softmax(teacher / temperature)
    log_q = keras.ops.log_softmax(student / temperature)
    divergence = keras.ops.sum(keras.ops.exp(log_p) * (log_p - log_q), axis=-1)
    return temperature**2 * keras.ops.mean(divergence)


def mse_loss(teacher_logits: Any, student_logits: Any) -> Any:
    """Returns the mean squared difference of the logits, over batch and classes.

    To first order it is what `kl_loss` becomes at high temperatures, with logits of mean zero.

    Args:
        teacher_logits: float (batch, ..., classes).
        student_logits: the same shape.

    Returns:
        float32 scalar, at least 0.

    Example:
        >>> float(mse_loss([[2.0, 0.0]], [[0.0, 0.0]]))
        2.0

    Reference:
        Ba & Caruana, Do Deep Nets Really Need to be Deep?, arXiv:1312.6184.
    """
    return keras.ops.mean(keras.ops.square(_float32(teacher_logits) - _float32(student_logits)))


def dist_loss(teacher_logits: Any, student_logits: Any, temperature: Any = 1.0) -> Any:
    """Returns how far the student's classes are from correlating with the teacher's.

        T² · (1 − mean over photos of ρ(p_i, q_i) + 1 − mean over classes of ρ(p^c, q^c))

    ρ is Pearson's correlation; p_i are the softened probabilities of one photo, p^c those of one
    class over the batch. The student has to keep the teacher's order and proportions, not its
    probabilities, which a much smaller student cannot reach.

    Args:
        teacher_logits: float (batch, ..., classes).
        student_logits: the same shape.
        temperature: T > 0; a number or a scalar tensor.

    Returns:
        float32 scalar in [0, 4·T²].

    Example:
        >>> logits = [[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]
        >>> abs(round(float(dist_loss(logits, logits)), 4))
        0.0

    Reference:
        Huang et al., Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536, with both
        of its weights 1.
    """
    classes = teacher_logits.shape[-1] if hasattr(teacher_logits, "shape") else None
    flat = [-1, classes or len(teacher_logits[0])]
    p = keras.ops.softmax(keras.ops.reshape(_float32(teacher_logits), flat) / temperature)
    q = keras.ops.softmax(keras.ops.reshape(_float32(student_logits), flat) / temperature)
    between = 1.0 - keras.ops.mean(_correlation(p, q, axis=1))
    within = 1.0 - keras.ops.mean(_correlation(p, q, axis=0))
    return temperature**2 * (between + within)


def attention_loss(teacher_features: Any, student_features: Any) -> Any:
    """Returns the distance of two attention maps: where in the image the layers are active.

        mean over the batch of  ‖ s / ‖s‖ − t / ‖t‖ ‖²
        s, t: the mean of the squared features over the channels, as a vector of positions

    Channels may differ, so that nothing has to be learned in between.

    Args:
        teacher_features: float (batch, height, width, channels).
        student_features: the same height and width, any number of channels.

    Returns:
        float32 scalar in [0, 2].

    Example:
        >>> import numpy as np
        >>> left, right = np.zeros((2, 1, 1, 2, 3))
        >>> left[0, 0, 0], right[0, 0, 1] = 1.0, 5.0
        >>> round(float(attention_loss(left, right)), 4)
        2.0

    Reference:
        Zagoruyko & Komodakis, Paying More Attention to Attention, arXiv:1612.03928. The authors'
        code takes the mean over the positions, and a weight of 1,000 for it; here it is the sum.
    """
    difference = _attention(teacher_features) - _attention(student_features)
    return keras.ops.mean(keras.ops.sum(keras.ops.square(difference), axis=-1))


def _attention(features: Any) -> Any:
    squares = keras.ops.mean(keras.ops.square(_float32(features)), axis=-1)
    flat = keras.ops.reshape(squares, [keras.ops.shape(squares)[0], -1])
    norm = keras.ops.sum(keras.ops.square(flat), axis=-1, keepdims=True)
    return flat * keras.ops.rsqrt(keras.ops.maximum(norm, _TINY))


def _correlation(p: Any, q: Any, axis: int) -> Any:
    p = p - keras.ops.mean(p, axis=axis, keepdims=True)
    q = q - keras.ops.mean(q, axis=axis, keepdims=True)
    norms = [keras.ops.sum(keras.ops.square(v), axis=axis) for v in (p, q)]
    scale = keras.ops.rsqrt(keras.ops.maximum(norms[0], _TINY))
    scale = scale * keras.ops.rsqrt(keras.ops.maximum(norms[1], _TINY))
    return keras.ops.sum(p * q, axis=axis) * scale


def _float32(values: Any) -> Any:
    return keras.ops.cast(values, "float32")
