"""The operations of the augmentation policies, on one image with levels from 0 to 255.

They are those of Pillow, which the papers use, on floats: what is rounded there at every step is
rounded here only where an operation counts levels. An image goes through as one XLA program, with
a branch for each operation, so that it pays only for those that it draws.
"""

import functools
import math
from typing import Any

from kerasopt._backend import tf

GEOMETRIC = (
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "TranslateXPixels",
    "TranslateYPixels",
    "Rotate",
)
"""One warp serves them all; it takes a matrix."""

_IN_FLIGHT = 8  # images: more gain nothing on two cores, and leave the cache


def source_matrices(operations: Any, strengths: Any, height: Any, width: Any) -> Any:
    """Returns where the pixels of each geometric operation come from.

    The strengths are: shears as slopes about the upper left corner, translations as fractions of
    the side or in pixels (whole ones are kept), rotations counter-clockwise in degrees about the
    centre. Shears and translations have the sign of `Image.transform`.

    Args:
        operations: int tensor of any shape, indices of `OPERATIONS`.
        strengths: float tensor of the same shape.
        height: of the images in pixels.
        width: of the images in pixels.

    Returns:
        A float tensor `(..., 6)`: pixel `(x, y)` of the output is pixel
        `(a*x + b*y + c, d*x + e*y + f)` of the input; the identity for all other operations.
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)

    def of(name: str, value: Any) -> Any:
        return tf.where(tf.equal(operations, index_of(name)), value, 0.0)

    angle = of("Rotate", strengths) * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    across, down = of("ShearX", strengths) - sine, of("ShearY", strengths) + sine
    shift_x = of("TranslateX", strengths * width) + of("TranslateXPixels", strengths)
    shift_y = of("TranslateY", strengths * height) + of("TranslateYPixels", strengths)
    # The middle of a pixel lies half a pixel from its corner, the origin of shears.
    turned = tf.cast(tf.equal(operations, index_of("Rotate")), tf.float32)
    at_x, at_y = turned * (width - 1) / 2, turned * (height - 1) / 2
    origin_x, origin_y = at_x - (1 - turned) / 2, at_y - (1 - turned) / 2
    c = origin_x - cosine * origin_x - across * origin_y + _whole(shift_x)
    f = origin_y - down * origin_x - cosine * origin_y + _whole(shift_y)
    return tf.stack([cosine, across, c, down, cosine, f], axis=-1)


def _whole(value: Any) -> Any:
    # A nudge, for a fraction of a side that is a whole number of pixels must stay one.
    return tf.sign(value) * tf.floor(tf.abs(value) + 1e-4)


def _warp(image: Any, strength: Any, matrix: Any, fill: Any) -> Any:
    """Looks the pixels up bilinearly, with the border rule of Pillow: half a pixel around."""
    del strength
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    x = tf.range(width, dtype=tf.float32)[None, :]
    y = tf.range(height, dtype=tf.float32)[:, None]
    u = matrix[0] * x + matrix[1] * y + matrix[2]
    v = matrix[3] * x + matrix[4] * y + matrix[5]
    left, top = tf.floor(u), tf.floor(v)
    column, row = tf.cast(left, tf.int32), tf.cast(top, tf.int32)
    pixels = tf.reshape(image, (-1, image.shape[-1]))

    def read(dx: int, dy: int) -> Any:
        clipped = tf.clip_by_value(row + dy, 0, height - 1) * width
        return tf.gather(pixels, clipped + tf.clip_by_value(column + dx, 0, width - 1))

    right, below = (u - left)[..., None], (v - top)[..., None]
    upper = read(0, 0) * (1 - right) + read(1, 0) * right
    lower = read(0, 1) * (1 - right) + read(1, 1) * right
    inside = _within(u, width) & _within(v, height)
    return tf.where(inside[..., None], upper * (1 - below) + lower * below, fill)


def _within(value: Any, length: Any) -> Any:
    return (value >= -0.5) & (value < tf.cast(length, tf.float32) - 0.5)


def _grey(image: Any) -> Any:
    """Returns Pillow's mode "L", the luma of ITU-R 601; the mean where there are no colours."""
    if image.shape[-1] == 3:
        # Pillow's own 16-bit weights: exact in float32 for whole levels.
        weights = tf.constant([19595, 38470, 7471], tf.float32) / 65536
        return tf.floor(tf.reduce_sum(image * weights, -1, keepdims=True) + 0.5)
    return tf.round(tf.reduce_mean(image, -1, keepdims=True))


def _blend(degenerate: Any, image: Any, strength: Any) -> Any:
    """Pillow's `ImageEnhance` with the factor `1 + strength`."""
    return tf.clip_by_value(degenerate + (1 + strength) * (image - degenerate), 0.0, 255.0)


def _brightness(image: Any, strength: Any, *_: Any) -> Any:
    return _blend(0.0, image, strength)


def _color(image: Any, strength: Any, *_: Any) -> Any:
    return _blend(_grey(image), image, strength) if image.shape[-1] == 3 else image


def _contrast(image: Any, strength: Any, *_: Any) -> Any:
    return _blend(tf.floor(tf.reduce_mean(_grey(image)) + 0.5), image, strength)


def _sharpness(image: Any, strength: Any, *_: Any) -> Any:
    """Blends with Pillow's `SMOOTH`, which leaves the border as it is."""
    channels = image.shape[-1]
    rows = tf.reshape(image, (tf.shape(image)[0], -1))  # a flat row is a long vector
    three = rows[:-2] + rows[1:-1] + rows[2:]
    nine = three[:, : -2 * channels] + three[:, channels:-channels] + three[:, 2 * channels :]
    middle = rows[1:-1]
    inner = middle[:, channels:-channels]
    inner = _blend(tf.round((nine + 4 * inner) / 13), inner, strength)
    sides = middle[:, :channels], middle[:, channels:][:, -channels:]
    middle = tf.concat([sides[0], inner, sides[1]], 1)
    return tf.reshape(tf.concat([rows[:1], middle, rows[1:][-1:]], 0), tf.shape(image))


def _levels(image: Any) -> Any:
    return tf.clip_by_value(tf.cast(tf.round(image), tf.int32), 0, 255)


def _posterize(image: Any, strength: Any, *_: Any) -> Any:
    dropped = 8 - tf.cast(strength, tf.int32)
    kept = tf.bitwise.left_shift(tf.bitwise.right_shift(255, dropped), dropped)
    return tf.cast(tf.bitwise.bitwise_and(_levels(image), kept), tf.float32)


def _solarize(image: Any, strength: Any, *_: Any) -> Any:
    return tf.where(tf.round(image) >= strength, 255 - image, image)


def _autocontrast(image: Any, *_: Any) -> Any:
    channels = image.shape[-1]
    rows = tf.reshape(tf.round(image), (tf.shape(image)[0], -1))
    low = tf.reduce_min(tf.reshape(tf.reduce_min(rows, 0), (-1, channels)), 0)
    high = tf.reduce_max(tf.reshape(tf.reduce_max(rows, 0), (-1, channels)), 0)
    scale = 255 / tf.maximum(high - low, 1.0)
    return tf.where(high > low, tf.clip_by_value((image - low) * scale, 0.0, 255.0), image)


def _equalize(image: Any, *_: Any) -> Any:
    """Maps each channel through its distribution, in the integer arithmetic of `ImageOps`."""
    channels = tf.unstack(_levels(image), axis=-1)
    return tf.stack([_equalize_channel(channel) for channel in channels], -1)


def _equalize_channel(channel: Any) -> Any:
    flat = tf.reshape(channel, (-1,))
    counts = tf.math.unsorted_segment_sum(tf.ones_like(flat), flat, 256)
    below = tf.cumsum(counts, exclusive=True)
    # All pixels but the brightest ones share the 255 steps; an image of one level keeps it.
    step = tf.reduce_max(tf.where(counts > 0, below, 0)) // 255
    table = tf.clip_by_value((step // 2 + below) // tf.maximum(step, 1), 0, 255)
    table = tf.where(step > 0, table, tf.range(256))
    return tf.gather(tf.cast(table, tf.float32), channel)


def _invert(image: Any, *_: Any) -> Any:
    return 255 - image


def _identity(image: Any, *_: Any) -> Any:
    return image


_BRANCHES = {
    "Identity": _identity,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
}
OPERATIONS = (*_BRANCHES, *GEOMETRIC)
"""Every operation. Their strengths: the factor of an enhancement is 1 plus the strength, that of
`Posterize` is the number of bits kept, that of `Solarize` the lowest level inverted; for the
geometric ones see `source_matrices`; the first four take none."""


def index_of(operation: str) -> int:
    """Returns the number of an operation, which stands for it in tensors."""
    return OPERATIONS.index(operation)


def run_chain(image: Any, operations: Any, strengths: Any, matrices: Any, fill: Any) -> Any:
    """Returns one image `(height, width, channels)` after operations `(count,)`, in this order."""
    branches = (*_BRANCHES.values(), _warp)

    def body(step: Any, image: Any) -> tuple[Any, Any]:
        arguments = (image, strengths[step], matrices[step], fill)
        changed = tf.switch_case(
            tf.minimum(operations[step], len(branches) - 1),
            [functools.partial(branch, *arguments) for branch in branches],
        )
        return step + 1, tf.ensure_shape(changed, image.shape)

    count = tf.shape(operations)[0]
    return tf.while_loop(lambda step, _: step < count, body, (0, image))[1]


def each_image(program: Any, images: Any, *parameters: Any) -> Any:
    """Runs `program(image, *parameters)` over the batch, several images at a time.

    One image stays in the processor's cache while all of its operations run, which is five times
    as fast as running each operation over the batch. No gradient flows back to the images, for
    TensorFlow has none of branches under XLA.
    """
    images = tf.stop_gradient(images)

    def run(row: Any) -> Any:
        # Indexing shares the memory of the batch; `map_fn` over the images would copy it first.
        changed = program(images[row], *(value[row] for value in parameters))
        return tf.ensure_shape(tf.stop_gradient(changed), images.shape[1:])

    return tf.map_fn(
        run,
        tf.range(tf.shape(images)[0]),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
        parallel_iterations=_IN_FLIGHT,
    )
