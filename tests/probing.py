"""Data and the model of a linear probe, for its tests."""

import keras
import numpy as np

from tests.models import stripes

X, Y = stripes(count=60)
WIDE, NARROW = 200, 6  # more features than images, and fewer


def noisy(count=60, classes=4, seed=0, spread=0.5):
    """Features of overlapping classes as images of 1x1 pixels, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    centres = rng.normal(size=(classes, WIDE))
    x = centres[y] * spread + rng.normal(size=(count, WIDE)) + 3.0
    return x.astype("float32")[:, None, None], y


def linear(features=WIDE, classes=4, **options):
    """A head alone: its features are the image."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((1, 1, features)),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, name="logits", **options),
        ]
    )
