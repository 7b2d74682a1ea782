"""Images and layers for the tests of fused segments, run as one segment and as a chain."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from kerasopt.augmentation._fusion import plan

tf.keras.__version__  # noqa: B018 - settled before KerasCV reads it
import keras_cv  # noqa: E402

CV, K = keras_cv.layers, keras.layers
HEIGHT, WIDTH = 24, 40
SHAPE = (HEIGHT, WIDTH, 3)
FIXED = (0.1, 0.1)


def photos(count=3, height=HEIGHT, width=WIDTH):
    """Returns smooth coloured images with a bright and a dark end."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [
        np.sin(2 * np.pi * ((1 + c) * x + (2 - c) * y + index / 5))
        for index in range(count)
        for c in range(3)
    ]
    stacked = np.reshape(waves, (count, 3, height, width)).transpose(0, 2, 3, 1)
    return (127.5 + 120 * stacked).astype("float32")


def one_segment(layers, seed=0, shape=SHAPE):
    (segment,) = plan(layers, [seed + 1] * len(layers), shape)
    return segment


def run_library(layers, images):
    """Runs the layers one by one, as their libraries do."""

    @tf.function
    def run(batch):
        for layer in layers:
            takes = "training" in inspect.signature(layer.call).parameters
            batch = layer(batch, training=True) if takes else layer(batch)
        return batch

    return run(images).numpy()


def kinds_of(layers, shape=SHAPE):
    found = plan(layers, [1] * len(layers), shape)
    return [(segment.kind, segment.num_layers) for segment in found]
