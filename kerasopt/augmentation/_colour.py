"""Colour layers as elementwise steps with a few numbers per image."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt.augmentation._draws import Draw, between, factor_draw, kind_of, sign
from kerasopt.augmentation._geometry import Shape

_LUMA = (0.2989, 0.5870, 0.1140)  # of tf.image.rgb_to_grayscale, rounded as there
_BYTES = (0.0, 255.0)

Range = Sequence[float]


@dataclasses.dataclass(frozen=True)
class ColourPart:
    """One step: how many numbers it takes, what it makes of them, what it does to the pixels.

    `parameters` maps uniform numbers `(batch, num_draws)` to `(batch, num_parameters)`; `step`
    maps images and those parameters, `(batch, 1, 1, num_parameters)`, to images. A step with
    `needs_mean` is given, third, the mean of each channel of the images that it is to change.
    """

    num_draws: int
    num_parameters: int
    parameters: Callable[[Any], Any]
    step: Callable[..., Any]
    needs_mean: bool = False


def colour_parts(layer: Any, shape: Shape) -> list[ColourPart] | None:
    """Returns the steps that stand for a layer, or `None` if it has none for such images."""
    build = _BUILDERS.get(kind_of(layer))
    if build is None or (shape[2] != 3 and kind_of(layer)[1] not in _ANY_CHANNELS):
        return None
    return build(layer, shape)


def run_steps(parts: Sequence[ColourPart], images: Any, parameters: Any) -> Any:
    """Applies the steps in turn, for a compiler to make one loop of them.

    Args:
        parts: the steps in the order of the layers.
        images: float32 tensor `(batch, height, width, channels)`.
        parameters: float32 tensor `(batch, total of num_parameters)`.

    Returns:
        A float32 tensor of the shape of `images`.
    """
    means: list[Any] = []
    for count, part in enumerate(parts):
        mean = _mean_behind(parts[:count], images, parameters, means) if part.needs_mean else None
        means.append(mean)
    return _apply(parts, images, parameters, means)


def _apply(parts: Sequence[ColourPart], images: Any, parameters: Any, means: Sequence[Any]) -> Any:
    first = 0
    for part, mean in zip(parts, means, strict=True):
        last = first + part.num_parameters
        own = (parameters[:, None, None, first:last], *([mean] if part.needs_mean else []))
        images, first = part.step(images, *own), last
    return images


def _mean_behind(
    parts: Sequence[ColourPart], images: Any, parameters: Any, means: Sequence[Any]
) -> Any:
    """Returns the mean of each channel behind the steps, `(batch, 1, 1, channels)`.

    `tf.reduce_mean` over pixels of three channels takes XLA three times as long as what is done
    here, for it cannot add several at once: blocks of pixels, or rows where there are no blocks.
    """
    size = tf.shape(images)
    height, width, channels = images.shape[1:]
    block = math.gcd(32, height * width) if height and width else 1
    if block >= 16:
        changed = _apply(parts, images, parameters, means)
        blocks = tf.reshape(changed, (size[0], -1, block * channels))
        total = tf.reshape(tf.reduce_sum(blocks, axis=1), (size[0], 1, block, channels))
    else:
        start = (tf.constant(0), tf.zeros_like(images[:, 0])[:, None])

        def add(row: Any, total: Any) -> tuple[Any, Any]:
            return row + 1, total + _apply(parts, images[:, row][:, None], parameters, means)

        _, total = tf.while_loop(lambda row, _: row < size[1], add, start)
    count = tf.cast(size[1] * size[2], tf.float32)
    return tf.reduce_sum(total, axis=2, keepdims=True) / count


# Steps on pixels


def _clip(images: Any, value_range: Range) -> Any:
    return tf.clip_by_value(images, float(value_range[0]), float(value_range[1]))


def _grey(images: Any) -> Any:
    red, green, blue = _channels(images)
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]


def _channels(images: Any) -> tuple[Any, Any, Any]:
    return images[..., 0:1], images[..., 1:2], images[..., 2:3]


def _value_and_span(images: Any) -> tuple[Any, Any]:
    """Returns V of HSV, and V times S."""
    red, green, blue = _channels(images)
    value = tf.maximum(tf.maximum(red, green), blue)
    span = value - tf.minimum(tf.minimum(red, green), blue)
    return value, tf.where(value > 0.0, span, 0.0)


def _saturate(images: Any, factor: Any, high: float) -> Any:
    """Multiplies S of HSV, up to `high`; hue and value stay, so no hue need be computed."""
    value, span = _value_and_span(images)
    factor = tf.minimum(factor, high * value / tf.where(span > 0.0, span, 1.0))
    return tf.where(span > 0.0, value - (value - images) * factor, value)


def _turn_hue(images: Any, shift: Any) -> Any:
    """Adds to H of HSV, a fraction of the circle; images begin at 0."""
    red, green, blue = _channels(images)
    value, span = _value_and_span(images)
    scale = 6.0 * tf.where(span > 0.0, span, 1.0)
    hue = tf.where(
        tf.equal(red, value),
        (green - blue) / scale,
        tf.where(
            tf.equal(green, value),
            (blue - red) / scale + 1.0 / 3.0,
            (red - green) / scale + 2.0 / 3.0,
        ),
    )
    hue = hue + shift
    hue = hue - tf.floor(hue)
    # Distance from the red, green and blue sectors of the circle, as tf.image.hsv_to_rgb has it.
    centre, way, start = (
        tf.constant(row) for row in ((3.0, 2.0, 4.0), (1, -1, -1.0), (-1, 2, 2.0))
    )
    share = tf.clip_by_value(start + way * tf.abs(6.0 * hue - centre), 0.0, 1.0)
    return value - span * (1.0 - share)


# Layers


def _brightness_part(draw: Draw, value_range: Range) -> list[ColourPart]:
    width = value_range[1] - value_range[0]

    def step(images: Any, shift: Any) -> Any:
        return _clip(images + shift, value_range)

    return [ColourPart(1, 1, lambda uniform: draw(uniform) * width, step)]


def _contrast_part(draw: Draw, value_range: Range) -> list[ColourPart]:
    def step(images: Any, factor: Any, mean: Any) -> Any:
        return _clip((images - mean) * factor + mean, value_range)

    return [ColourPart(1, 1, draw, step, needs_mean=True)]


def _saturation_part(draw: Draw, high: float, epsilon: float) -> list[ColourPart]:
    def parameters(uniform: Any) -> Any:
        factor = draw(uniform)
        return factor / (1.0 - factor + epsilon)

    return [ColourPart(1, 1, parameters, lambda images, factor: _saturate(images, factor, high))]


def _hue_part(draw: Draw, value_range: Range) -> list[ColourPart]:
    low, high = (float(end) for end in value_range)

    def parameters(uniform: Any) -> Any:
        return sign(uniform[:, :1]) * draw(uniform[:, 1:]) * 0.5

    def step(images: Any, shift: Any) -> Any:
        return _clip(_turn_hue(images - low, shift), (0.0, high - low)) + low

    return [ColourPart(2, 1, parameters, step)]


def _blend_part(draw: Draw, value_range: Range | None) -> list[ColourPart]:
    """Moves towards grey."""

    def step(images: Any, factor: Any) -> Any:
        faded = images + factor * (_grey(images) - images)
        return faded if value_range is None else _clip(faded, value_range)

    return [ColourPart(1, 1, draw, step)]


def _affine_part(scale: float, offset: float) -> list[ColourPart]:
    if (scale, offset) == (1.0, 0.0):
        return []
    return [ColourPart(0, 0, lambda uniform: uniform, lambda images, _: images * scale + offset)]


# KerasCV


def _cv_brightness(layer: Any, shape: Shape) -> list[ColourPart] | None:  # noqa: ARG001
    draw = factor_draw(layer.factor)
    return None if draw is None else _brightness_part(draw, layer.value_range)


def _cv_contrast(layer: Any, shape: Shape) -> list[ColourPart] | None:  # noqa: ARG001
    draw = factor_draw(layer.factor)
    return None if draw is None else _contrast_part(draw, layer.value_range)


def _cv_saturation(layer: Any, shape: Shape) -> list[ColourPart] | None:  # noqa: ARG001
    draw = factor_draw(layer.factor)
    return None if draw is None else _saturation_part(draw, 1.0, 0.0)


def _cv_hue(layer: Any, shape: Shape) -> list[ColourPart] | None:  # noqa: ARG001
    draw = factor_draw(layer.factor)
    return None if draw is None else _hue_part(draw, layer.value_range)


def _cv_degeneration(layer: Any, shape: Shape) -> list[ColourPart] | None:  # noqa: ARG001
    draw = factor_draw(layer.factor)
    return None if draw is None else _blend_part(draw, _BYTES)


def _cv_grayscale(layer: Any, shape: Shape) -> list[ColourPart] | None:  # noqa: ARG001
    if layer.output_channels != 3:
        return None
    return _blend_part(tf.ones_like, None)


def _cv_channel_shift(layer: Any, shape: Shape) -> list[ColourPart] | None:
    draw, channels = factor_draw(layer.factor), layer.channels
    if draw is None or channels != shape[2]:
        return None
    width = layer.value_range[1] - layer.value_range[0]

    def parameters(uniform: Any) -> Any:
        return sign(uniform[:, :channels]) * draw(uniform[:, channels:]) * 0.5 * width

    def step(images: Any, shifts: Any) -> Any:
        return _clip(images + shifts, layer.value_range)

    return [ColourPart(2 * channels, channels, parameters, step)]


def _cv_jitter(layer: Any, shape: Shape) -> list[ColourPart] | None:
    low, high = (float(end) for end in layer.value_range)
    scale = 255.0 / (high - low)
    inner = [
        layer.random_brightness,
        layer.random_contrast,
        layer.random_saturation,
        layer.random_hue,
    ]
    steps = _all_parts(inner, shape)
    if steps is None:
        return None
    return [*_affine_part(scale, -low * scale), *steps, *_affine_part(1.0 / scale, low)]


# Keras


def _brightness(layer: Any, shape: Shape) -> list[ColourPart]:  # noqa: ARG001
    return _brightness_part(between(*layer.factor), layer.value_range)


def _contrast(layer: Any, shape: Shape) -> list[ColourPart]:  # noqa: ARG001
    draw = between(1.0 - layer.factor[0], 1.0 + layer.factor[1])
    return _contrast_part(draw, layer.value_range)


def _saturation(layer: Any, shape: Shape) -> list[ColourPart] | None:  # noqa: ARG001
    low, high = layer.value_range
    if low > 0:
        return None
    # It bounds S, a fraction, by the range of the pixels; the same is done here.
    return _saturation_part(between(*layer.factor), float(high), keras.config.epsilon())


def _hue(layer: Any, shape: Shape) -> list[ColourPart]:  # noqa: ARG001
    return _hue_part(between(*layer.factor), layer.value_range)


def _degeneration(layer: Any, shape: Shape) -> list[ColourPart]:  # noqa: ARG001
    return _blend_part(between(*layer.factor), layer.value_range)


def _grayscale(layer: Any, shape: Shape) -> list[ColourPart]:  # noqa: ARG001
    return _blend_part(lambda uniform: tf.cast(uniform < layer.factor, tf.float32), None)


def _invert(layer: Any, shape: Shape) -> list[ColourPart]:  # noqa: ARG001
    probability, high = between(*layer.factor), float(layer.value_range[1])

    def parameters(uniform: Any) -> Any:
        inverted = uniform[:, 1:] < probability(uniform[:, :1])
        return tf.where(inverted, (-1.0, high), (1.0, 0.0))

    def step(images: Any, scale_and_offset: Any) -> Any:
        return images * scale_and_offset[..., :1] + scale_and_offset[..., 1:]

    return [ColourPart(2, 2, parameters, step)]


def _jitter(layer: Any, shape: Shape) -> list[ColourPart] | None:
    inner = [
        layer.random_brightness,
        layer.random_contrast,
        layer.random_saturation,
        layer.random_hue,
    ]
    return _all_parts([part for part in inner if part is not None], shape)


def _all_parts(layers: Sequence[Any], shape: Shape) -> list[ColourPart] | None:
    parts = [colour_parts(layer, shape) for layer in layers]
    if any(part is None for part in parts):
        return None
    return [step for part in parts if part is not None for step in part]


_ANY_CHANNELS = {"RandomBrightness", "RandomChannelShift", "RandomContrast", "RandomInvert"}
_BUILDERS: dict[tuple[str, str], Callable[[Any, Shape], list[ColourPart] | None]] = {
    ("keras", "RandomBrightness"): _brightness,
    ("keras", "RandomColorDegeneration"): _degeneration,
    ("keras", "RandomColorJitter"): _jitter,
    ("keras", "RandomContrast"): _contrast,
    ("keras", "RandomGrayscale"): _grayscale,
    ("keras", "RandomHue"): _hue,
    ("keras", "RandomInvert"): _invert,
    ("keras", "RandomSaturation"): _saturation,
    ("keras_cv", "Grayscale"): _cv_grayscale,
    ("keras_cv", "RandomBrightness"): _cv_brightness,
    ("keras_cv", "RandomChannelShift"): _cv_channel_shift,
    ("keras_cv", "RandomColorDegeneration"): _cv_degeneration,
    ("keras_cv", "RandomColorJitter"): _cv_jitter,
    ("keras_cv", "RandomContrast"): _cv_contrast,
    ("keras_cv", "RandomHue"): _cv_hue,
    ("keras_cv", "RandomSaturation"): _cv_saturation,
}
