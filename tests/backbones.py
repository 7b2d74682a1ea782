"""Tiny backbones for the tests of `build_classifier`."""

import keras
import numpy as np


def tiny_maps(name="tiny", size=8, channels=3):
    """Feature maps with a squeeze-and-excitation block, so a pooling that is no place to cut."""
    image = keras.Input((size, size, channels))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="stem_conv")(image)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="block1_squeeze")(x)
    gate = keras.layers.Conv2D(4, 1, activation="sigmoid", name="block1_excite")(gate)
    x = keras.layers.Multiply(name="block1_scale")([x, gate])
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="block2_conv")(x)
    return keras.Model(image, keras.layers.ReLU(name="block2_relu")(x), name=name)


def with_head(maps, classes=4):
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(maps.output)
    return keras.Model(
        maps.input, keras.layers.Dense(classes, activation="softmax")(x), name="full"
    )


def headed():
    """A headed backbone whose statistics are not the initial ones."""
    model = with_head(tiny_maps())
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 1.0, w.shape) for w in model.get_weights()])
    return model


def features_of(model, images, name="head_pool"):
    return keras.Model(model.input, model.get_layer(name).output).predict(images, verbose=0)
