"""The layers behind the recipes: they draw for each image, and run one program on it."""

import functools
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt.augmentation._image_levels import ImageLevels
from kerasopt.augmentation._policy_operations import each_image, run_chain, source_matrices
from kerasopt.augmentation._policy_tables import (
    Table,
    augmix_table,
    autoaugment_table,
    randaugment_table,
    trivialaugment_table,
)

_INT, _FLOAT = tf.int32, tf.float32


class _Warping(ImageLevels):
    """A layer whose operations uncover pixels.

    Args:
        fill_value: value of what a warp uncovers, in the scale of `value_range`, or `None`: the
            value of the paper's code.
        **kwargs: see `ImageLevels`.
    """

    def __init__(self, *, fill_value: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fill_value = fill_value

    @property
    def paper_fill(self) -> float:
        """Level from 0 to 255 that the paper's code fills with: black, unless overridden."""
        return 0.0

    def fill_level(self) -> Any:
        """Returns the level of what a warp uncovers."""
        if self.fill_value is None:
            return tf.constant(self.paper_fill)
        low, high = self.value_range
        return tf.constant(255.0 * (self.fill_value - low) / (high - low))

    def matrices(self, images: Any, operations: Any, strengths: Any) -> Any:
        """Returns where the pixels of geometric operations come from."""
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        return source_matrices(operations, strengths, height, width)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"fill_value": self.fill_value}


@serializable
class PolicyAugment(_Warping):
    """Runs drawn sub-policies on each image: RandAugment, TrivialAugment or AutoAugment.

    Args:
        policy: `"randaugment"`, `"trivialaugment"`, `"imagenet"` or `"cifar10"`.
        num_draws: number of sub-policies that each image goes through.
        magnitude: in [0, 30], for `"randaugment"` alone.
        **kwargs: `value_range`, `fill_value`, `seed`, and those of every Keras layer.
    """

    def __init__(
        self, policy: str, *, num_draws: int = 1, magnitude: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.policy = policy
        self.num_draws = num_draws
        self.magnitude = magnitude
        self._table = _table(policy, magnitude)

    @property
    def paper_fill(self) -> float:
        """Level from 0 to 255 that the paper's code fills with."""
        return 0.0 if self.policy == "trivialaugment" else 128.0

    def augment(self, images: Any) -> Any:
        """Returns the images, each after operations of its own."""
        operations, strengths = self.draw(tf.shape(images)[0])
        matrices = self.matrices(images, operations, strengths)
        program = functools.partial(
            _policy_program(images.shape[-1]), self.fill_level(), self.to_levels()
        )
        return each_image(program, images, operations, strengths, matrices)

    def draw(self, count: Any) -> tuple[Any, Any]:
        """Draws the operations of `count` images and their strengths: `(count, operations)`."""
        table = self._table
        choices, length = table.operations.shape
        rows = self.indices((count, self.num_draws), choices)
        shape = (count, self.num_draws * length)

        def of(column: Any) -> Any:
            return tf.reshape(tf.gather(tf.constant(column), rows), shape)

        happens = self.uniform(shape) < of(table.probabilities)
        flipped = (self.uniform(shape) < 0.5) & of(table.signed)
        strengths = of(table.strengths)
        return tf.where(happens, of(table.operations), 0), tf.where(flipped, -strengths, strengths)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {
            "policy": self.policy,
            "num_draws": self.num_draws,
            "magnitude": self.magnitude,
        }


def _table(policy: str, magnitude: float | None) -> Table:
    if policy == "randaugment":
        return randaugment_table(0.0 if magnitude is None else magnitude)
    return trivialaugment_table() if policy == "trivialaugment" else autoaugment_table(policy)


@functools.cache
def _policy_program(channels: int) -> Any:
    """Builds the XLA program of one image; it is compiled once for each size."""

    def run(
        fill: Any, to_levels: Any, image: Any, operations: Any, strengths: Any, matrices: Any
    ) -> Any:
        scale, offset = to_levels[0], to_levels[1]
        levels = (image - offset) * scale
        return run_chain(levels, operations, strengths, matrices, fill) / scale + offset

    shapes: Any = ([], [2], [None, None, channels], [None], [None], [None, 6])
    return _compile(run, shapes)


@serializable
class AugMixPolicy(_Warping):
    """Mixes each image with chains of drawn operations.

    Args:
        severity: largest level of an operation, in [1, 10].
        width: number of chains.
        depth: operations in a chain, or `None`: 1, 2 or 3, drawn.
        alpha: of the Dirichlet and beta distributions.
        all_operations: whether to draw colour, contrast, brightness and sharpness as well.
        **kwargs: `value_range`, `fill_value`, `seed`, and those of every Keras layer.
    """

    def __init__(
        self,
        *,
        severity: float = 3.0,
        width: int = 3,
        depth: int | None = None,
        alpha: float = 1.0,
        all_operations: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.severity = severity
        self.width = width
        self.depth = depth
        self.alpha = alpha
        self.all_operations = all_operations
        self._table = augmix_table(all_operations=all_operations)

    def augment(self, images: Any) -> Any:
        """Returns the images, each mixed with chains of its own."""
        count = tf.shape(images)[0]
        operations, strengths = self.draw(count)
        drawn = (operations, strengths, self.matrices(images, operations, strengths))
        program = functools.partial(
            _augmix_program(images.shape[-1]), self.fill_level(), self.to_levels()
        )
        return each_image(program, images, *drawn, self.draw_weights(count))

    def draw(self, count: Any) -> tuple[Any, Any]:
        """Draws operations and strengths: `(count, width, longest chain)`."""
        names, ramps = self._table
        longest = self.depth or 3
        shape = (count, self.width, longest)
        rows = self.indices(shape, len(names))
        start, slope, whole, signed = tf.unstack(tf.gather(tf.constant(ramps), rows), axis=-1)
        change = slope * (0.1 + (self.severity - 0.1) * self.uniform(shape))
        change = tf.where(whole > 0, tf.sign(change) * tf.floor(tf.abs(change)), change)
        flipped = (self.uniform(shape) < 0.5) & (signed > 0)
        strengths = tf.where(flipped, -start - change, start + change)
        operations = tf.gather(tf.constant(names), rows)
        if self.depth is None:
            depths = 1 + self.indices((count, self.width, 1), longest)
            operations = tf.where(tf.range(longest) < depths, operations, 0)
        return operations, strengths

    def draw_weights(self, count: Any) -> Any:
        """Draws the weights of the image itself and of the chains, `(count, 1 + width)`."""
        parts = self._gamma((count, self.width))
        chains = parts / tf.reduce_sum(parts, -1, keepdims=True)
        pair = self._gamma((count, 2))  # a beta distribution is a Dirichlet one of two
        mixed = pair[:, :1] / tf.reduce_sum(pair, -1, keepdims=True)
        return tf.concat([1 - mixed, mixed * chains], -1)

    def _gamma(self, shape: Any) -> Any:
        drawn = keras.random.gamma(shape, self.alpha, dtype="float32", seed=self.generator)
        return tf.maximum(drawn, 1e-30)  # small alphas underflow

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {
            "severity": self.severity,
            "width": self.width,
            "depth": self.depth,
            "alpha": self.alpha,
            "all_operations": self.all_operations,
        }


@functools.cache
def _augmix_program(channels: int) -> Any:
    """Builds the XLA program of one image; it is compiled once for each size."""

    def run(
        fill: Any,
        to_levels: Any,
        image: Any,
        operations: Any,
        strengths: Any,
        matrices: Any,
        weights: Any,
    ) -> Any:
        scale, offset = to_levels[0], to_levels[1]
        levels = (image - offset) * scale

        def add(chain: Any, mixed: Any) -> tuple[Any, Any]:
            end = run_chain(levels, operations[chain], strengths[chain], matrices[chain], fill)
            return chain + 1, mixed + weights[1 + chain] * end

        count = tf.shape(operations)[0]
        first = (0, weights[0] * levels)
        mixed = tf.while_loop(lambda chain, _: chain < count, add, first)[1]
        return mixed / scale + offset

    shapes: Any = (
        [],
        [2],
        [None, None, channels],
        [None, None],
        [None, None],
        [None, None, 6],
        [None],
    )
    return _compile(run, shapes)


def _compile(run: Any, shapes: Any) -> Any:
    """Compiles a program whose fourth argument holds numbers of operations."""
    signature = [
        tf.TensorSpec(shape, _INT if place == 3 else _FLOAT) for place, shape in enumerate(shapes)
    ]
    return tf.function(run, input_signature=signature, jit_compile=True, autograph=False)
