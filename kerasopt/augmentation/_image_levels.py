"""The base of our own augmentation layers, which think in levels from 0 to 255."""

from typing import Any

from kerasopt._backend import keras, tf


class ImageLevels(keras.layers.Layer):
    """Knows the range of the pixels, and draws.

    Args:
        value_range: `(low, high)` of the pixels.
        seed: int or `None`.
        **kwargs: as for every Keras layer.
    """

    def __init__(
        self,
        *,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Without autocast: float16 would round the pixels.
        super().__init__(**{**kwargs, "autocast": False})
        self.value_range = (float(value_range[0]), float(value_range[1]))
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Has nothing to build."""

    def call(self, images: Any) -> Any:
        """Returns the changed images, in the compute dtype."""
        return tf.cast(self.augment(tf.cast(images, tf.float32)), self.compute_dtype)

    def augment(self, images: Any) -> Any:
        """Returns the changed images; for a derived class to say how."""
        raise NotImplementedError

    def uniform(self, shape: Any) -> Any:
        """Draws numbers in [0, 1)."""
        return keras.random.uniform(shape, dtype="float32", seed=self.generator)

    def indices(self, shape: Any, count: int) -> Any:
        """Draws integers in [0, count)."""
        return tf.minimum(tf.cast(self.uniform(shape) * count, tf.int32), count - 1)

    def to_levels(self) -> Any:
        """Returns `(scale, offset)` with `level = (pixel - offset) * scale`."""
        low, high = self.value_range
        return tf.constant([255 / (high - low), low])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config: dict[str, Any] = super().get_config()
        return config | {"value_range": list(self.value_range), "seed": self.seed}
