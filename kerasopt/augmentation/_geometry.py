"""Geometric layers as random matrices, each from the output of its layer to the input."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from kerasopt._backend import tf
from kerasopt.augmentation._draws import between, factor_draw, kind_of, sign

Shape = tuple[int | None, int | None, int | None]
"""Height, width and channels, as far as they are known when the layers are traced."""


@dataclasses.dataclass(frozen=True)
class GeometricPart:
    """One layer: how many uniform numbers it takes, and the matrices it makes of them.

    `fill` is `(fill_mode, fill_value)`; `None` for `fill` or `interpolation` means that the layer
    asks for none in particular.
    """

    num_draws: int
    matrices: Callable[[Any, Any, Any], Any]
    fill: tuple[str, float] | None = None
    interpolation: str | None = None


def geometric_part(layer: Any, shape: Shape) -> GeometricPart | None:
    """Returns the part that stands for a layer, or `None` if it is not a projective map."""
    build = _BUILDERS.get(kind_of(layer))
    return build(layer, shape) if build else None


def compose(parts: Sequence[GeometricPart], uniform: Any, height: Any, width: Any) -> Any:
    """Returns one matrix per image for layers that follow one another.

    Args:
        parts: the parts in the order of the layers.
        uniform: numbers of [0, 1), `(batch, total of num_draws)`.
        height: scalar tensor, pixels.
        width: scalar tensor, pixels.

    Returns:
        A tensor `(batch, 3, 3)`, from output to input pixel coordinates.
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    total, first = None, 0
    for part in parts:
        matrices = part.matrices(uniform[:, first : first + part.num_draws], height, width)
        first += part.num_draws
        # The last layer's output is looked up first: its matrix stands on the right.
        total = matrices if total is None else tf.linalg.matmul(total, matrices)
    return total


def _stack(*entries: Any) -> Any:
    """Builds `(batch, 3, 3)` of nine entries, by rows, each a 0, a 1 or of shape `(batch,)`."""
    batch = next(entry for entry in entries if tf.is_tensor(entry))
    constants = {0: tf.zeros_like(batch), 1: tf.ones_like(batch)}
    columns = [entry if tf.is_tensor(entry) else constants[entry] for entry in entries]
    return tf.reshape(tf.stack(columns, axis=1), (-1, 3, 3))


def _like(layer: Any) -> dict[str, Any]:
    return {
        "fill": (layer.fill_mode, float(layer.fill_value)),
        "interpolation": layer.interpolation,
    }


def _flip_matrices(across: Any, down: Any, height: Any, width: Any) -> Any:
    x, y = tf.where(across, -1.0, 1.0), tf.where(down, -1.0, 1.0)
    right, bottom = tf.where(across, width - 1.0, 0.0), tf.where(down, height - 1.0, 0.0)
    return _stack(x, 0, right, 0, y, bottom, 0, 0, 1)


def _keras_flip(layer: Any, shape: Shape) -> GeometricPart:  # noqa: ARG001
    def matrices(uniform: Any, height: Any, width: Any) -> Any:
        # One coin for both directions: an image is turned by 180° or left alone.
        flipped = uniform[:, 0] <= 0.5
        never = tf.zeros_like(flipped)
        across = flipped if "horizontal" in layer.mode else never
        down = flipped if "vertical" in layer.mode else never
        return _flip_matrices(across, down, height, width)

    return GeometricPart(1, matrices)


def _keras_cv_flip(layer: Any, shape: Shape) -> GeometricPart:  # noqa: ARG001
    def matrices(uniform: Any, height: Any, width: Any) -> Any:
        flipped = uniform > 1.0 - layer.rate
        across = tf.logical_and(flipped[:, 0], layer.horizontal)
        down = tf.logical_and(flipped[:, 1], layer.vertical)
        return _flip_matrices(across, down, height, width)

    return GeometricPart(2, matrices)


def _rotation(low: float, high: float, layer: Any) -> GeometricPart:
    angle = between(2.0 * math.pi * low, 2.0 * math.pi * high)

    def matrices(uniform: Any, height: Any, width: Any) -> Any:
        theta = angle(uniform[:, 0])
        cos, sin = tf.cos(theta), tf.sin(theta)
        x, y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
        u, v = x - cos * x + sin * y, y - sin * x - cos * y
        return _stack(cos, -sin, u, sin, cos, v, 0, 0, 1)

    return GeometricPart(1, matrices, **_like(layer))


def _keras_rotation(layer: Any, shape: Shape) -> GeometricPart:  # noqa: ARG001
    low, high = layer.factor
    return _rotation(low, high, layer)


def _keras_cv_rotation(layer: Any, shape: Shape) -> GeometricPart:  # noqa: ARG001
    return _rotation(layer.lower, layer.upper, layer)


def _zoom(layer: Any, shape: Shape) -> GeometricPart:  # noqa: ARG001
    tall = between(1.0 + layer.height_lower, 1.0 + layer.height_upper)
    if layer.width_factor is not None:
        wide = between(1.0 + layer.width_lower, 1.0 + layer.width_upper)

    def matrices(uniform: Any, height: Any, width: Any) -> Any:
        down = tall(uniform[:, 0])
        across = down if layer.width_factor is None else wide(uniform[:, 1])
        x, y = (width - 1.0) / 2.0 * (1.0 - across), (height - 1.0) / 2.0 * (1.0 - down)
        return _stack(across, 0, x, 0, down, y, 0, 0, 1)

    return GeometricPart(2, matrices, **_like(layer))


def _translation(layer: Any, shape: Shape) -> GeometricPart:  # noqa: ARG001
    down = between(layer.height_lower, layer.height_upper)
    across = between(layer.width_lower, layer.width_upper)

    def matrices(uniform: Any, height: Any, width: Any) -> Any:
        x, y = across(uniform[:, 1]) * width, down(uniform[:, 0]) * height
        return _stack(1, 0, -x, 0, 1, -y, 0, 0, 1)

    return GeometricPart(2, matrices, **_like(layer))


def _keras_shear(layer: Any, shape: Shape) -> GeometricPart:  # noqa: ARG001
    across, down = between(*layer.x_factor), between(*layer.y_factor)

    def matrices(uniform: Any, height: Any, width: Any) -> Any:  # noqa: ARG001
        way = sign(uniform[:, 0])
        x, y = way * across(uniform[:, 2]), way * down(uniform[:, 1])
        return _stack(1, x, 0, y, 1, 0, 0, 0, 1)

    return GeometricPart(3, matrices, **_like(layer))


def _keras_cv_shear(layer: Any, shape: Shape) -> GeometricPart | None:  # noqa: ARG001
    across = between(0, 0) if layer.x_factor is None else factor_draw(layer.x_factor)
    down = between(0, 0) if layer.y_factor is None else factor_draw(layer.y_factor)
    if across is None or down is None:
        return None

    def matrices(uniform: Any, height: Any, width: Any) -> Any:  # noqa: ARG001
        x = across(uniform[:, 1]) * sign(uniform[:, 0])
        y = down(uniform[:, 3]) * sign(uniform[:, 2])
        # First along x, then along y: [1 x; 0 1] @ [1 0; y 1].
        return _stack(1.0 + x * y, x, 0, y, 1, 0, 0, 0, 1)

    return GeometricPart(4, matrices, **_like(layer))


def _keras_cv_crop(layer: Any, shape: Shape) -> GeometricPart | None:
    area, ratio = factor_draw(layer.crop_area_factor), factor_draw(layer.aspect_ratio_factor)
    same_size = tuple(layer.target_size) == shape[:2]
    if not same_size or area is None or ratio is None or 1 in shape[:2]:
        return None

    def matrices(uniform: Any, height: Any, width: Any) -> Any:
        size, aspect = area(uniform[:, 0]), ratio(uniform[:, 1])
        tall = tf.minimum(tf.sqrt(size / aspect), 1.0)
        wide = tf.minimum(tf.sqrt(size * aspect), 1.0)
        top = uniform[:, 2] * (1.0 - tall) * (height - 1.0)
        left = uniform[:, 3] * (1.0 - wide) * (width - 1.0)
        return _stack(wide, 0, left, 0, tall, top, 0, 0, 1)

    return GeometricPart(4, matrices, interpolation=layer.interpolation)


def _keras_perspective(layer: Any, shape: Shape) -> GeometricPart | None:
    if 1 in shape[:2]:
        return None  # its corners coincide
    probability = between(*layer.factor)
    shift = between(-0.5 * layer.scale, 0.5 * layer.scale)

    def matrices(uniform: Any, height: Any, width: Any) -> Any:
        right, bottom = width - 1.0, height - 1.0
        corners = tf.stack([0.0, 0.0, right, 0.0, 0.0, bottom, right, bottom])
        start = tf.reshape(corners, (1, 4, 2))
        end = start + start * shift(tf.reshape(uniform[:, 2:], (-1, 4, 2)))
        applied = (uniform[:, 1] < probability(uniform[:, 0]))[:, None, None]
        return tf.where(applied, _homography(end, tf.broadcast_to(start, tf.shape(end))), _EYE)

    fill = ("constant", float(layer.fill_value))
    return GeometricPart(10, matrices, fill=fill, interpolation=layer.interpolation)


_EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _homography(source: Any, target: Any) -> Any:
    """Returns the projective maps that take four points `(batch, 4, 2)` to four others."""
    x, y = source[..., 0], source[..., 1]
    one, zero = tf.ones_like(x), tf.zeros_like(x)
    rows = [
        tf.stack([*unit, -to * x, -to * y], axis=-1)
        for unit, to in (
            ((x, y, one, zero, zero, zero), target[..., 0]),
            ((zero, zero, zero, x, y, one), target[..., 1]),
        )
    ]
    values = tf.concat([target[..., 0], target[..., 1]], axis=1)
    solution = tf.linalg.solve(tf.concat(rows, axis=1), values[..., None])[..., 0]
    return tf.reshape(tf.concat([solution, tf.ones_like(solution[:, :1])], axis=1), (-1, 3, 3))


_BUILDERS: dict[tuple[str, str], Callable[[Any, Shape], GeometricPart | None]] = {
    ("keras", "RandomFlip"): _keras_flip,
    ("keras", "RandomPerspective"): _keras_perspective,
    ("keras", "RandomRotation"): _keras_rotation,
    ("keras", "RandomShear"): _keras_shear,
    ("keras", "RandomTranslation"): _translation,
    ("keras", "RandomZoom"): _zoom,
    ("keras_cv", "RandomCropAndResize"): _keras_cv_crop,
    ("keras_cv", "RandomFlip"): _keras_cv_flip,
    ("keras_cv", "RandomRotation"): _keras_cv_rotation,
    ("keras_cv", "RandomShear"): _keras_cv_shear,
    ("keras_cv", "RandomTranslation"): _translation,
    ("keras_cv", "RandomZoom"): _zoom,
}
