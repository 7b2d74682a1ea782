"""Images, and single operations of the recipes on them."""

import functools

import numpy as np
import tensorflow as tf
from PIL import Image

from kerasopt.augmentation._policy_layers import _policy_program
from kerasopt.augmentation._policy_operations import each_image, index_of, source_matrices

LEVELS = (0.0, 255.0)


def sample_images():
    """Photo-like and noisy images, not square, and one of a single colour."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (6, 24, 20, 3))
    small = rng.integers(0, 256, (6, 4, 4, 3), dtype="uint8")
    smooth = [np.asarray(Image.fromarray(one).resize((20, 24), Image.BICUBIC)) for one in small]
    dark = np.asarray(smooth) // 3 + 40
    return np.concatenate([noise, smooth, dark, np.full((1, 24, 20, 3), 90)]).astype("float32")


def run(operation, strength, images, *, fill=128.0, value_range=LEVELS):
    """One operation at one strength on all images."""
    shape = (len(images), 1)
    operations = tf.fill(shape, index_of(operation))
    strengths = tf.fill(shape, float(strength))
    matrices = source_matrices(operations, strengths, *images.shape[1:3])
    low, high = value_range
    program = functools.partial(
        _policy_program(images.shape[-1]), fill, tf.constant([255 / (high - low), low])
    )
    return np.asarray(each_image(program, tf.constant(images), operations, strengths, matrices))
