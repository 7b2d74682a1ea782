"""Small models and data that several tests share."""

import keras
import numpy as np

WIDER = 2001 / 2000
"""An 8-bit range of activations, by what it saw."""


def small_cnn(size=12, channels=3, classes=4, seed=0):
    """Conv-BN-ReLU, depthwise, residual addition, pooling and a dense head: all int8 rules."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, channels), name="image")
    x = keras.layers.Rescaling(1 / 255.0, name="rescale")(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem_conv")(x)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.ReLU(name="stem_relu")(x)
    y = keras.layers.DepthwiseConv2D(3, padding="same", name="block1_depthwise")(x)
    y = keras.layers.BatchNormalization(name="block1_bn")(y)
    y = keras.layers.ReLU(6.0, name="block1_relu")(y)
    y = keras.layers.Conv2D(8, 1, name="block1_project")(y)
    x = keras.layers.Add(name="block1_add")([x, y])
    x = keras.layers.MaxPooling2D(name="block2_pool")(x)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="block2_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dropout(0.1, name="head_dropout")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="small_cnn")


def compiled(model, **options):
    """Compiles a classifier that ends in logits."""
    options.setdefault("optimizer", keras.optimizers.Adam(1e-3))
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def stripes(count=64, size=12, channels=3, seed=0):
    """Four classes that a small net learns: which quarter of the image is bright."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    x = rng.uniform(0, 120, (count, size, size, channels))
    half = size // 2
    for image, label in zip(x, y, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 130
    return x.astype("float32"), y.astype("int32")
