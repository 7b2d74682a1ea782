"""The mathematics of MixUp and CutMix: functions of tensors and of a seed, nothing else.

A seed is an int32 tensor (2,), as the stateless functions of TensorFlow take it. Everything here
has an XLA kernel; TensorFlow's own gamma (hence beta) and shuffle have none.
"""

import math
from typing import Any

from kerasopt._backend import tf


def draw_beta(seed: Any, count: Any, alpha: float) -> Any:
    """Draws `count` numbers from Beta(alpha, alpha), exactly and without rejection.

    `T = sqrt(2α (U^(-1/α) - 1)) cos(2πV)` has Student's distribution with 2α degrees of freedom
    (Bailey, Polar generation of random variates with the t-distribution, Mathematics of
    Computation 62, 1994), and `(1 + T / sqrt(2α + T²)) / 2` is then Beta(α, α).

    Returns:
        float32 (count,) in [0, 1].
    """
    one, two = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    uniform = 1.0 - tf.random.stateless_uniform([count], one)  # in (0, 1]
    cosine = tf.cos(2.0 * math.pi * tf.random.stateless_uniform([count], two))
    ratio = tf.math.expm1(-tf.math.log(uniform) / alpha) * tf.square(cosine)  # T² / 2α
    # In this form neither a ratio of 0 nor one of infinity makes a NaN.
    return 0.5 * (1.0 + tf.sign(cosine) * tf.math.rsqrt(1.0 + 1.0 / ratio))


def draw_partners(seed: Any, count: Any) -> Any:
    """Returns a random permutation of `0 ... count - 1`, int32 (count,)."""
    return tf.argsort(tf.random.stateless_uniform([count], seed))


def draw_index(seed: Any, probabilities: Any) -> Any:
    """Draws which one acts: an index, or `len(probabilities)` for none.

    The probabilities are taken as they are, and in proportion where their sum is above 1.
    """
    bounds = tf.cumsum(probabilities)
    dice = tf.random.stateless_uniform([], seed) * tf.maximum(bounds[-1], 1.0)
    return tf.reduce_sum(tf.cast(dice >= bounds, tf.int32))


def along(weights: Any, tensor: Any) -> Any:
    """Gives weights (batch,) the rank of `tensor`, so that they multiply image by image."""
    return tf.reshape(weights, [-1] + [1] * max(0, len(tensor.shape) - 1))


def blend(images: Any, partners: Any, lam: Any) -> Any:
    """Returns `λ·images + (1 - λ)·images[partners]` in the dtype of the images.

    Integers are rounded; a pixel stays between those of its two parents.

    Args:
        images: (batch, ...).
        partners: int32 (batch,).
        lam: float32 (batch,) in [0, 1].
    """
    dtype = images.dtype
    own = tf.cast(images, dtype if dtype == tf.float64 else tf.float32)
    other = tf.gather(own, partners)
    # As a step from one parent to the other: with two equal pixels it is exactly 0.
    mixed = own + along(tf.cast(1.0 - lam, own.dtype), own) * (other - own)
    mixed = tf.clip_by_value(mixed, tf.minimum(own, other), tf.maximum(own, other))
    return tf.cast(tf.round(mixed) if dtype.is_integer else mixed, dtype)


def draw_boxes(seed: Any, lam: Any, height: Any, width: Any) -> Any:
    """Draws a box for each image: its area is `1 - λ` of the image before the edge cuts it.

    The centre is uniform over the pixels, as in the authors' code.

    Returns:
        int32 (batch, 4): top, bottom, left, right; the ends are exclusive.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    side = tf.sqrt(1.0 - lam)
    ends = []
    for size, one in zip((height, width), seeds, strict=True):
        length = tf.cast(side * tf.cast(size, tf.float32), tf.int32)
        centre = tf.random.stateless_uniform(tf.shape(lam), one, 0, size, tf.int32)
        ends += [
            tf.clip_by_value(centre - length // 2, 0, size),
            tf.clip_by_value(centre - length // 2 + length, 0, size),
        ]
    return tf.stack(ends, axis=1)


def paste(images: Any, partners: Any, boxes: Any) -> tuple[Any, Any]:
    """Returns the images with the boxes of their partners, and the share each kept of its own.

    Args:
        images: (batch, height, width, channels).
        partners: int32 (batch,).
        boxes: int32 (batch, 4), see `draw_boxes`.

    Returns:
        The images, and float32 (batch,): the exact area outside the box, as a fraction.
    """
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    top, bottom, left, right = (end[:, None] for end in tf.unstack(boxes, axis=1))
    rows, columns = tf.range(height)[None], tf.range(width)[None]
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & (
        (columns >= left) & (columns < right)
    )[:, None]
    mixed = tf.where(inside[..., None], tf.gather(images, partners), images)
    area = tf.cast((bottom - top) * (right - left), tf.float32)[:, 0]
    return mixed, 1.0 - area / tf.cast(height * width, tf.float32)
