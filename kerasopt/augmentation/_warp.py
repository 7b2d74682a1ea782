"""One projective warp per image: the resampling that every fused geometric group shares."""

from typing import Any

from kerasopt._backend import tf
from kerasopt._validation import check_choice

FILL_MODES = ("reflect", "constant", "nearest", "wrap")
INTERPOLATIONS = ("bilinear", "nearest")

_ANY_SHAPE: tuple[list[int | None], ...] = ([None, None, None, None], [None, 3, 3], [])
_compiled: dict[tuple[str, str, str], Any] = {}


def warp(
    images: Any,
    matrices: Any,
    *,
    fill_mode: str = "reflect",
    fill_value: Any = 0.0,
    interpolation: str = "bilinear",
) -> Any:
    """Returns each image, looked up through its own projective map.

    Pixel `(x, y)` of the output is the value of the input at `(u / s, v / s)` with
    `(u, v, s) = matrix @ (x, y, 1)`; pixel centres lie at whole numbers. Fill modes and rounding
    are those of `tf.raw_ops.ImageProjectiveTransformV3`. The work is one XLA program for each
    fill mode, interpolation and shape; it may be called eagerly, in a `tf.function` without XLA,
    and in `tf.data`.

    Args:
        images: tensor `(batch, height, width, channels)`, float32, or uint8, which is faster by
            the time of a conversion.
        matrices: float32 tensor `(batch, 3, 3)`, from output to input coordinates.
        fill_mode: `"reflect"` (`dcba|abcd|dcba`), `"constant"`, `"nearest"` or `"wrap"`.
        fill_value: number outside of the image for `"constant"`.
        interpolation: `"bilinear"` or `"nearest"`.

    Returns:
        A float32 tensor of the shape of `images`.

    Raises:
        ValueError: `fill_mode` or `interpolation` is not one of the above.
    """
    check_choice("fill_mode", fill_mode, FILL_MODES)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8:
        images = tf.cast(images, tf.float32)
    key = (fill_mode, interpolation, images.dtype.name)
    if key not in _compiled:
        _compiled[key] = _compile(*key)
    matrices = tf.convert_to_tensor(matrices, tf.float32)
    warped = _compiled[key](images, matrices, tf.cast(fill_value, tf.float32))
    warped.set_shape(images.shape)
    return warped


def _compile(fill_mode: str, interpolation: str, dtype: str) -> Any:
    """Builds the XLA program: traced once, compiled once per shape."""

    def run(images: Any, matrices: Any, fill_value: Any) -> Any:
        size = tf.shape(images)
        u, v = _source(matrices, size)
        u = _map_coordinate(u, tf.cast(size[2], tf.float32), fill_mode)
        v = _map_coordinate(v, tf.cast(size[1], tf.float32), fill_mode)
        if interpolation == "nearest":
            return _nearest(images, u, v, fill_value if fill_mode == "constant" else None)
        if fill_mode == "constant":
            return _bilinear_in_constant(images, u, v, fill_value)
        return _bilinear(images, u, v)

    dtypes = (dtype, "float32", "float32")
    signature = [tf.TensorSpec(*spec) for spec in zip(_ANY_SHAPE, dtypes, strict=True)]
    return tf.function(run, input_signature=signature, jit_compile=True, autograph=False)


def _source(matrices: Any, size: Any) -> tuple[Any, Any]:
    """Returns where each output pixel looks, `(batch, height, width)` each."""
    x = tf.range(size[2], dtype=tf.float32)[None, None, :]
    y = tf.range(size[1], dtype=tf.float32)[None, :, None]
    u, v, scale = (
        matrices[:, i, 0, None, None] * x
        + matrices[:, i, 1, None, None] * y
        + matrices[:, i, 2, None, None]
        for i in range(3)
    )
    return u / scale, v / scale


def _map_coordinate(value: Any, length: Any, fill_mode: str) -> Any:
    if fill_mode == "constant":
        # Further out all is fill; this only keeps the conversion to int in its range.
        return tf.clip_by_value(value, -2.0, length + 1.0)
    if fill_mode == "reflect":
        # A triangle wave of period 2 * length about the outer edges of the image.
        period = 2.0 * length
        turns = tf.floor((value + 0.5) / period + 0.5)
        value = tf.abs(value + 0.5 - period * turns) - 0.5
    elif fill_mode == "wrap":
        # TensorFlow counts the turns by length - 1, and moves by length; so does this.
        turns = tf.maximum(length - 1.0, 1.0)
        below = value + length * (tf.floor(-value / turns) + 1.0)
        above = value - length * tf.floor(value / turns)
        value = tf.where(value < 0.0, below, tf.where(value > length - 1.0, above, value))
    return tf.clip_by_value(value, 0.0, length - 1.0)


# What follows is written for what XLA makes of it on a CPU: the same sums with a `tf.where` over
# the pixels, or with `batch_dims` in the gather, take twice the time.


def _reader(images: Any) -> Any:
    """Returns a function of `(x, y)` within the image that looks up pixels."""
    size = tf.shape(images)
    pixels = tf.reshape(images, (-1, size[3]))
    first = (tf.range(size[0]) * (size[1] * size[2]))[:, None, None]
    return lambda x, y: tf.cast(tf.gather(pixels, first + y * size[2] + x), tf.float32)


def _bilinear(images: Any, u: Any, v: Any) -> Any:
    size, read = tf.shape(images), _reader(images)
    left, top = tf.floor(u), tf.floor(v)
    across, down = (u - left)[..., None], (v - top)[..., None]
    x, y = tf.cast(left, tf.int32), tf.cast(top, tf.int32)
    right, bottom = tf.minimum(x + 1, size[2] - 1), tf.minimum(y + 1, size[1] - 1)
    start, end = read(x, y), read(x, bottom)
    start = start + across * (read(right, y) - start)
    end = end + across * (read(right, bottom) - end)
    return start + down * (end - start)


def _bilinear_in_constant(images: Any, u: Any, v: Any, fill_value: Any) -> Any:
    """Gives corners outside of the image the weight 0, and what is missing to the fill value."""
    size, read = tf.shape(images), _reader(images)
    left, right, near_x, far_x = _weights(u, size[2])
    top, bottom, near_y, far_y = _weights(v, size[1])
    upper = near_x * read(left, top) + far_x * read(right, top)
    lower = near_x * read(left, bottom) + far_x * read(right, bottom)
    covered = (near_x + far_x) * (near_y + far_y)
    return near_y * upper + far_y * lower + fill_value * (1.0 - covered)


def _weights(value: Any, length: Any) -> tuple[Any, Any, Any, Any]:
    """Returns both neighbours of a coordinate, moved into the image, and their weights."""
    start = tf.floor(value)
    far = value - start
    first = tf.cast(start, tf.int32)
    near, last = tf.clip_by_value(first, 0, length - 1), tf.clip_by_value(first + 1, 0, length - 1)
    near_weight = (1.0 - far) * tf.cast(tf.equal(near, first), tf.float32)
    far_weight = far * tf.cast(tf.equal(last, first + 1), tf.float32)
    return near, last, near_weight[..., None], far_weight[..., None]


def _nearest(images: Any, u: Any, v: Any, fill_value: Any) -> Any:
    size = tf.shape(images)
    x, y = _round(u), _round(v)
    column, row = tf.clip_by_value(x, 0, size[2] - 1), tf.clip_by_value(y, 0, size[1] - 1)
    found = _reader(images)(column, row)
    if fill_value is None:
        return found
    inside = tf.logical_and(tf.equal(x, column), tf.equal(y, row))
    weight = tf.cast(inside, tf.float32)[..., None]
    return weight * found + (1.0 - weight) * fill_value


def _round(value: Any) -> Any:
    """Rounds halves away from zero, as C does; TensorFlow rounds them to even."""
    rounded = tf.where(value < 0.0, tf.math.ceil(value - 0.5), tf.floor(value + 0.5))
    return tf.cast(rounded, tf.int32)
