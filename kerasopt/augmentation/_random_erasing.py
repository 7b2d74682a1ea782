"""Random erasing: a rectangle of noise in some of the images."""

import functools
import math
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt.augmentation._image_levels import ImageLevels
from kerasopt.augmentation._policy_operations import each_image

_AREA = (0.02, 0.33)
_ASPECT = (0.3, 3.3)
_ATTEMPTS = 10


@serializable
class RandomErasing(ImageLevels):
    """Replaces a rectangle of some images by noise, or by the mean colour of the image.

    Zhong et al., "Random Erasing Data Augmentation", arXiv:1708.04896. The area is uniform in
    [0.02, 0.33] of the image, the logarithm of the aspect ratio (height to width) uniform between
    those of 0.3 and 3.3, the place uniform; these are the ranges of torchvision (the paper: areas
    up to 0.4, and the ratio itself uniform, which makes upright rectangles the larger part). A
    rectangle that does not fit is drawn again, up to ten times, as there.

    Args:
        probability: that an image is changed, in [0, 1].
        fill: `"noise"`, uniform in `value_range` for each pixel and channel, or `"mean"`.
        **kwargs: `value_range`, `seed`, and those of every Keras layer.
    """

    def __init__(self, probability: float = 0.5, *, fill: str = "noise", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probability = probability
        self.fill = fill

    def augment(self, images: Any) -> Any:
        """Returns the images, some of them with a rectangle."""
        shape = tf.shape(images)
        boxes = self.draw(shape[0], shape[1], shape[2])
        seeds = keras.random.randint((shape[0], 2), 0, 2**31 - 1, seed=self.generator)
        rows = tf.where(boxes[:, 2] > 0)
        chosen = (tf.gather(value, rows[:, 0]) for value in (images, boxes, seeds))
        program = functools.partial(_erase, self.value_range, self.fill)
        return tf.tensor_scatter_nd_update(images, rows, each_image(program, *chosen))

    def draw(self, count: Any, height: Any, width: Any) -> Any:
        """Draws `(top, left, bottom, right)` for each image, all 0 where nothing is erased."""
        shape = (count, _ATTEMPTS)
        height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * self.uniform(shape))
        low, high = math.log(_ASPECT[0]), math.log(_ASPECT[1])
        root = tf.exp((low + (high - low) * self.uniform(shape)) / 2)
        tall, wide = tf.round(tf.sqrt(area) * root), tf.round(tf.sqrt(area) / root)
        fits = (tall <= height) & (wide <= width)
        first = tf.argmax(tf.cast(fits, tf.int32), axis=1)  # the earliest of them
        tall, wide = (tf.gather(side, first, batch_dims=1) for side in (tall, wide))
        place = self.uniform((count, 2))
        top = tf.floor(place[:, 0] * (height - tall + 1))
        left = tf.floor(place[:, 1] * (width - wide + 1))
        happens = self.uniform((count,)) < self.probability
        happens &= tf.reduce_any(fits, axis=1)
        boxes = tf.stack([top, left, top + tall, left + wide], -1)
        return tf.cast(tf.where(happens[:, None], boxes, 0.0), tf.int32)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"probability": self.probability, "fill": self.fill}


def _erase(value_range: tuple[float, float], fill: str, image: Any, box: Any, seed: Any) -> Any:
    """Fills a box of one image. Without XLA, whose random numbers take a hundred times as long."""
    size, channels = tf.shape(image)[:2], image.shape[-1]
    around = tf.concat([tf.stack([box[:2], size - box[2:]], axis=1), [[0, 0]]], axis=0)
    shape = tf.concat([box[2:] - box[:2], [channels]], axis=0)
    if fill == "noise":
        low, high = value_range
        new = low + (high - low) * tf.random.stateless_uniform(shape, seed)
    else:
        new = tf.broadcast_to(tf.reduce_mean(image, axis=(0, 1)), shape)
    hole = tf.pad(tf.ones(shape, tf.bool), around)
    return tf.where(hole, tf.pad(new, around), image)
