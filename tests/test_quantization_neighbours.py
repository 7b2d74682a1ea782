"""What stands between operations, beside constants, or behind other shapes than usual."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from kerasopt.quantization._rules import rule_for
from tests.int8_cases import AUGMENTATION, CASES, IMAGE, conv
from tests.int8_files import compared, normal

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
