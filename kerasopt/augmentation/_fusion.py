"""Neighbouring layers computed together: one warp, or one pass over the colours."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt.augmentation._colour import ColourPart, colour_parts, run_steps
from kerasopt.augmentation._draws import kind_of
from kerasopt.augmentation._geometry import GeometricPart, Shape, compose, geometric_part
from kerasopt.augmentation._warp import warp


class LayerSegment:
    """One layer that nothing can be merged with; the container runs it as it is."""

    kind = "layer"

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = tuple(layer.name for layer in layers)
        self.num_layers = len(self.layers)


class GeometrySegment:
    """Geometric layers in a row as one projective warp per image."""

    kind = "geometry"

    def __init__(self, layers: Sequence[Any], parts: Sequence[GeometricPart], draws: Any) -> None:
        self.layers = tuple(layer.name for layer in layers)
        self.num_layers = len(self.layers)
        self._parts = parts
        self._draws = draws
        self._num_draws = sum(part.num_draws for part in parts)
        fills = [part.fill for part in parts if part.fill]
        # Flips and crops look up nothing outside, and flips nothing between the pixels.
        self._fill = fills[0] if fills else ("nearest", 0.0)
        self._interpolation = _first(part.interpolation for part in parts) or "nearest"

    def matrices(self, batch_size: Any, height: Any, width: Any) -> Any:
        """Draws the next matrices, `(batch, 3, 3)`, from output to input pixel coordinates."""
        uniform = self._draws.uniform((batch_size, self._num_draws))
        return compose(self._parts, uniform, height, width)

    def apply(self, images: Any, matrices: Any, *, interpolation: str | None = None) -> Any:
        """Warps images, or masks with `interpolation="nearest"`, by the matrices drawn before."""
        mode, value = self._fill
        return warp(
            images,
            matrices,
            fill_mode=mode,
            fill_value=value,
            interpolation=interpolation or self._interpolation,
        )

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: Any) -> Any:
        """Returns the images, warped at random."""
        size = tf.shape(images)
        return self.apply(images, self.matrices(size[0], size[1], size[2]))


class ColourSegment:
    """Colour layers in a row as one elementwise pass."""

    kind = "colour"

    def __init__(
        self, layers: Sequence[Any], parts: Sequence[ColourPart], draws: Any, shape: Shape
    ) -> None:
        self.layers = tuple(layer.name for layer in layers)
        self.num_layers = len(self.layers)
        self._parts = parts
        self._draws = draws
        self._num_draws = sum(part.num_draws for part in parts)
        self._compiled = tf.function(
            lambda images, parameters: run_steps(parts, images, parameters),
            input_signature=[
                tf.TensorSpec([None, *shape], tf.float32),
                tf.TensorSpec([None, sum(part.num_parameters for part in parts)], tf.float32),
            ],
            jit_compile=True,
            autograph=False,
        )

    def parameters(self, batch_size: Any) -> Any:
        """Draws the next parameters, `(batch, number of parameters)`."""
        uniform = self._draws.uniform((batch_size, self._num_draws))
        columns, first = [uniform[:, :0]], 0
        for part in self._parts:
            columns.append(part.parameters(uniform[:, first : first + part.num_draws]))
            first += part.num_draws
        return tf.concat(columns, axis=1)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: Any) -> Any:
        """Returns the images, recoloured at random."""
        images = tf.cast(images, tf.float32)
        recoloured = self._compiled(images, self.parameters(tf.shape(images)[0]))
        recoloured.set_shape(images.shape)
        return recoloured


Segment = LayerSegment | GeometrySegment | ColourSegment


class Fusion:
    """Finds the segments of a list of layers, and holds the one source of their randomness.

    What can be merged hangs on the size and the channels of the images, so segments are made when
    these are known, and kept: images of the same shape meet the same compiled programs.
    """

    def __init__(self, layers: Sequence[Any], seeds: Sequence[int]) -> None:
        self._layers = tuple(layers)
        own = [getattr(layer, "seed", None) for layer in self._layers]
        entropy = [
            mine % 2**63 if isinstance(mine, int) else seed
            for mine, seed in zip(own, seeds, strict=True)
        ]
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        with tf.init_scope():
            self._draws = tf.random.Generator.from_seed(int(state[0] >> 1), alg="philox")
        self._segments: dict[tuple[int, Shape], Segment] = {}

    @tf.autograph.experimental.do_not_convert
    def segment(self, start: int, shape: Shape) -> Segment:
        """Returns the longest segment from the layer `start` on, for images of this shape.

        Args:
            start: index of a layer.
            shape: `(height, width, channels)`, `None` where it is unknown.
        """
        key = (start, shape)
        if key not in self._segments:
            self._segments[key] = self._build(start, shape)
        return self._segments[key]

    def segments(self, shape: Shape) -> list[Segment]:
        """Lists the segments, if no layer changes the shape."""
        found: list[Segment] = []
        start = 0
        while start < len(self._layers):
            found.append(self.segment(start, shape))
            start += found[-1].num_layers
        return found

    def _build(self, start: int, shape: Shape) -> Segment:
        layers = self._layers[start:]
        geometric = _run_of_geometry(layers, shape)
        coloured = _run_of_colour(layers, shape)
        if len(geometric) >= len(coloured) and any(geometric):
            parts = [part for part in geometric if part]
            return GeometrySegment(layers[: len(geometric)], parts, self._draws)
        if any(coloured):
            steps = [step for part in coloured for step in part]
            return ColourSegment(layers[: len(coloured)], steps, self._draws, shape)
        return LayerSegment(layers[:1])


def plan(layers: Sequence[Any], seeds: Sequence[int], shape: Shape) -> list[Segment]:
    """Lists the segments of layers that keep the shape `(height, width, channels)` of images."""
    return Fusion(layers, seeds).segments(shape)


def _run_of_geometry(layers: Sequence[Any], shape: Shape) -> list[GeometricPart | None]:
    """Returns the parts of the leading layers that one warp can do, `None` for what is left out."""
    parts: list[GeometricPart | None] = []
    fill = interpolation = None
    for layer in layers:
        inner = _unwrap(layer, shape)
        part = None if inner is None else geometric_part(inner, shape)
        if inner is not None and part is None:
            break
        if part is not None:
            if _differ(fill, part.fill) or _differ(interpolation, part.interpolation):
                break
            fill, interpolation = fill or part.fill, interpolation or part.interpolation
        parts.append(part)
    return parts


def _run_of_colour(layers: Sequence[Any], shape: Shape) -> list[list[ColourPart]]:
    """Returns the steps of the leading layers that one pass can do."""
    parts: list[list[ColourPart]] = []
    for layer in layers:
        inner = _unwrap(layer, shape)
        steps = [] if inner is None else colour_parts(inner, shape)
        if steps is None:
            break
        parts.append(steps)
    return parts


def _unwrap(layer: Any, shape: Shape) -> Any:
    """Returns what an `RGBOnly` runs on such images: its layer, or `None` for nothing."""
    if kind_of(layer) != ("kerasopt", "RGBOnly") or shape[2] is None:
        return layer
    return layer.layer if shape[2] == 3 else None


def _differ(one: Any, other: Any) -> bool:
    return one is not None and other is not None and one != other


def _first(values: Any) -> Any:
    return next((value for value in values if value is not None), None)
