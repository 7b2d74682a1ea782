"""Models whose operations depend on neighbours, constants or options, and such as stay float."""

import keras
import numpy as np
from keras import layers, ops

from tests.int8_files import chain

IMAGE, SMALL, SIGNAL, VOLUME = (8, 8, 4), (6, 6, 4), (10, 8), (4, 4, 4, 2)
AROUND = [[0, 0], [1, 1], [1, 1], [0, 0]]


def conv(filters=4, **options):
    return layers.Conv2D(filters, 3, padding="same", **options)


def norm():
    return layers.BatchNormalization(momentum=0.5)


def two_relus(x):
    """Two that are one in the file, one of them behind a dropout."""
    y = conv()(x)
    return layers.Add()([layers.ReLU()(y), layers.ReLU()(layers.GaussianNoise(0.1)(y))])


def nested(x):
    """Keras puts an operation of its own in front of what is nested."""
    return keras.Sequential([keras.Input(IMAGE), norm(), layers.ReLU(), conv()])(conv()(x))


# name: (input shape, model, operators of the file between QUANTIZE and DEQUANTIZE)
CASES = {
    "training alone": (
        IMAGE,
        chain(
            conv(),
            layers.Dropout(0.2),
            layers.ReLU(),
            conv(use_bias=False),
            layers.Activation("linear"),
            norm(),
            layers.SpatialDropout2D(0.2),
            layers.ReLU(6.0),
            lambda x: layers.Add()([x, x * 0.5]),
            layers.Identity(),
            layers.ReLU(),
            layers.Dense(3),
            layers.GaussianNoise(0.1),
            layers.ReLU(),
            two_relus,
            nested,
            layers.Dropout(0.2),
        ),
        "CONV_2D CONV_2D MUL ADD FULLY_CONNECTED CONV_2D ADD CONV_2D CONV_2D",
    ),
    "larger or smaller than a constant": (
        IMAGE,
        chain(
            conv(),
            lambda x: ops.maximum(x, 5.3),
            lambda x: ops.maximum(x - 5.3, 0.123),
            lambda x: ops.minimum(0.7, x),
            conv(activation="sigmoid"),
            lambda x: ops.maximum(x, 0.3),
            conv(),
            lambda x: ops.maximum(x, 0.0),
            conv(),
            lambda x: ops.maximum(x, np.array([0.1, -0.2, 0.3, 0.4], "float32")),
        ),
        (
            "CONV_2D MAXIMUM SUB MAXIMUM MINIMUM CONV_2D LOGISTIC DEPTHWISE_CONV_2D MAXIMUM "
            "CONV_2D CONV_2D MAXIMUM"
        ),
    ),
    "constants in place of values": (
        IMAGE,
        chain(
            lambda x: ops.pad(x, AROUND, constant_values=-1.0),
            conv(),
            lambda x: ops.pad(x, AROUND, constant_values=9),
            lambda x: ops.where(x > 0.1, x, -3.0),
            lambda x: ops.pad(ops.pad(x, AROUND), AROUND, mode="reflect"),
        ),
        "DEPTHWISE_CONV_2D PADV2 CONV_2D PADV2 GREATER SELECT_V2 PAD MIRROR_PAD",
    ),
    "channels on other axes than a kernel's": (
        (5, 8, 8),
        chain(
            layers.EinsumDense("abcd,cde->abe", output_shape=(None, 6), bias_axes="e"),
            norm(),
            layers.ReLU(),
            layers.EinsumDense("abc,cde->abde", output_shape=(None, 3, 4), bias_axes="de"),
            norm(),
            layers.ReLU(),
            layers.Reshape((5, 12)),
            layers.EinsumDense("abc,cd->adb", output_shape=(6, 5)),
            norm(),
            layers.TimeDistributed(layers.Dense(5)),
            norm(),
            layers.TimeDistributed(layers.Dense(5, activation="relu")),
            norm(),
        ),
        None,
    ),
    "convolution at each step": (
        (3, 8, 8, 2),
        chain(layers.TimeDistributed(layers.Conv2D(4, 3)), norm(), layers.ReLU()),
        "RESHAPE CONV_2D RESHAPE DEPTHWISE_CONV_2D RESHAPE",
    ),
    "pooling before a ReLU": (
        IMAGE,
        chain(
            conv(),
            lambda x: 8.0 * x,
            layers.AveragePooling2D(2),
            layers.ReLU(6.0),
            conv(),
            layers.MaxPooling2D(2),
            layers.Dropout(0.1),
            layers.ReLU(),
        ),
        "CONV_2D MUL AVERAGE_POOL_2D CONV_2D MAX_POOL_2D",
    ),
    "sums and products that change nothing": (
        IMAGE,
        chain(conv(), lambda x: (x * 1.0 + 0.0) / 1 - 0, layers.ReLU(), lambda x: 0.0 - x),
        "CONV_2D SUB",
    ),
    "padding in front at each step": (
        (3, 10, 4),
        layers.TimeDistributed(layers.Conv1D(5, 3, padding="causal", dilation_rate=2)),
        "RESHAPE PAD RESHAPE CONV_2D RESHAPE",
    ),
    "augmentation": (
        IMAGE,
        chain(
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.RandomCrop(8, 8),
            layers.RandomErasing(),
            conv(),
        ),
        "CONV_2D",
    ),
    "activations that are called": (
        IMAGE,
        chain(
            conv(),
            keras.activations.relu,
            conv(),
            lambda x: keras.activations.relu(x, max_value=6),
            conv(),
            lambda x: keras.activations.relu(x, max_value=3),
            conv(),
            lambda x: keras.activations.relu(x, negative_slope=0.1),
        ),
        "CONV_2D CONV_2D CONV_2D CONV_2D LEAKY_RELU",
    ),
}


def beside(*functions):
    """One behind the same convolution as the other, joined."""
    shared = layers.Conv2D(4, 3, padding="same")

    def build(x):
        x = shared(x)
        return layers.Dense(3)(layers.Concatenate()([function(x) for function in functions]))

    return build


def positive(function):
    return lambda x: function(ops.absolute(x) + 0.1)


def over_channels(function):
    return lambda x: function(x, axis=-1, keepdims=True)


def with_states(x):
    """A recurrent layer that starts from a state and gives one back."""
    state = layers.Dense(4)(x[:, 0])
    return layers.Concatenate()(layers.LSTM(4, return_state=True)(x, initial_state=[state, state]))


# name: (input shape, model, how many operations stay float)
ISLANDS = {
    "functions": (
        SMALL,
        beside(
            *(positive(f) for f in (ops.sqrt, ops.rsqrt, ops.log, ops.reciprocal)),
            *(over_channels(f) for f in (ops.norm, ops.var, ops.std)),
            *(ops.softsign, ops.sin, ops.cos, ops.round, ops.floor, ops.ceil, ops.sign),
            *(ops.normalize, lambda x: ops.cumsum(x, axis=-1)),
        ),
        16,
    ),
    "activations": (
        SMALL,
        beside(
            *(ops.hard_shrink, ops.sparse_plus, ops.sparse_sigmoid, ops.glu, ops.elu, ops.selu),
            *(ops.celu, ops.log_sigmoid, ops.squareplus, ops.sparsemax),
            lambda x: ops.threshold(x, 0.1, 0.0),
        ),
        11,
    ),
    "layers": (
        SIGNAL,
        chain(
            layers.AdaptiveAveragePooling1D(5),
            layers.Dense(4),
            lambda x: layers.AdditiveAttention()([x, x]),
            layers.Masking(),
            layers.Dense(4),
            with_states,
        ),
        4,
    ),
    "loops of images": (
        (3, *SMALL),
        chain(
            layers.ConvLSTM2D(3, 3, return_sequences=True),
            layers.TimeDistributed(layers.Conv2D(2, 1)),
            layers.Reshape((3, 16, 2)),
            layers.ConvLSTM1D(3, 3),
        ),
        2,
    ),
    "volumes": ((3, *VOLUME), chain(layers.ConvLSTM3D(2, 3), layers.Conv3DTranspose(2, 2)), 2),
}
NO_FILE = {
    "MaxPooling3D": lambda x: layers.MaxPooling3D(2)(x),
    "AveragePooling3D": lambda x: layers.AveragePooling3D(2)(x),
    "AdaptiveAveragePooling3D": lambda x: layers.AdaptiveAveragePooling3D(2)(x),
    "AdaptiveMaxPooling3D": lambda x: layers.AdaptiveMaxPooling3D(2)(x),
    "erf": ops.erf,
}

# name: arguments of the layer
AUGMENTATION = {
    **dict.fromkeys(
        ["AugMix", "CutMix", "Equalization", "MixUp", "RandAugment", "Solarization"], ()
    ),
    **dict.fromkeys(["RandomColorJitter", "RandomElasticTransform", "RandomErasing"], ()),
    **dict.fromkeys(["RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomInvert"], ()),
    **dict.fromkeys(["RandomBrightness", "RandomColorDegeneration", "RandomContrast"], (0.2,)),
    **dict.fromkeys(["RandomHue", "RandomRotation", "RandomSaturation", "RandomShear"], (0.2,)),
    **dict.fromkeys(["RandomSharpness", "RandomZoom"], (0.2,)),
    "RandomCrop": (8, 8),
    "RandomPerspective": (),
    "RandomPosterization": (4,),
    "RandomTranslation": (0.2, 0.2),
}
