"""What stands between operations, beside constants, or behind other shapes than usual."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasopt as ko
from kerasopt.quantization._rules import rule_for
from tests.int8_files import chain, compared, normal

IMAGE = (8, 8, 4)
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
QUICK = ("augmentation", "convolution at each step")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES],
)
def test_the_file_computes_what_the_model_computes(name):
    keras.utils.set_random_seed(0)
    shape, build, operators = CASES[name]
    inputs = keras.Input(shape)
    aware, file, report = compared(keras.Model(inputs, build(inputs)), normal(16, *shape))
    assert report.faults() == []
    assert ko.quantization.float_operations(aware) == ()
    assert file.operators.count("DEQUANTIZE") == 1
    if operators is not None:
        assert " ".join(file.operators[1:-1]) == operators


AUGMENTATION = {
    "RandomBrightness": (0.2,),
    "RandomColorDegeneration": (0.2,),
    "RandomContrast": (0.2,),
    "RandomCrop": (8, 8),
    "RandomHue": (0.2,),
    "RandomPosterization": (4,),
    "RandomRotation": (0.2,),
    "RandomSaturation": (0.2,),
    "RandomSharpness": (0.2,),
    "RandomShear": (0.2,),
    "RandomTranslation": (0.2, 0.2),
    "RandomZoom": (0.2,),
}


def test_what_augments_in_training_alone_is_not_in_the_file():
    photos = 100.0 * normal(2, 8, 8, 3)
    augmentation = layers.RandomFlip.__mro__[1]
    for name in dir(layers):
        kind = getattr(layers, name)
        if not (isinstance(kind, type) and issubclass(kind, augmentation)):
            continue
        if name in ("CenterCrop", "MaxNumBoundingBoxes", "Resizing"):
            continue
        layer = kind(*AUGMENTATION.get(name, ()))
        is_identity = np.array_equal(layer(photos, training=False), photos)
        assert (rule_for(layer).kind == "dropped") == is_identity, name


class Inverts(layers.RandomFlip):
    def transform_images(self, images, transformation, training=True):
        return -images


def test_augmentation_that_does_more_is_a_float_island():
    for layer, reason in [
        (layers.RandomCrop(6, 6, name="crop"), "it crops in training alone"),
        (Inverts(name="crop"), "a subclass of an augmentation layer"),
    ]:
        model = keras.Sequential([keras.Input(IMAGE), layer, conv()])
        aware = ko.quantization.quantize_aware(model)
        assert ko.quantization.float_operations(aware) == (("crop", reason),)
