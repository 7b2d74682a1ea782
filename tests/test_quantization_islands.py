"""What has no int8 form: float in the file and named, or no file at all."""

import keras
import pytest
from keras import layers, ops

import kerasopt as ko
from tests.int8_cases import ISLANDS, NO_FILE, VOLUME
from tests.int8_files import compared, normal


@pytest.mark.slow
@pytest.mark.parametrize("name", ISLANDS)
def test_islands_are_named_and_float(name):
    keras.utils.set_random_seed(0)
    shape, build, count = ISLANDS[name]
    inputs = keras.Input(shape, name="image")
    aware, _, report = compared(keras.Model(inputs, build(inputs)), normal(16, *shape))
    assert report.faults() == []
    assert len(ko.quantization.float_operations(aware)) == count


@pytest.mark.parametrize("name", ["MaxPooling3D", "erf"])
def test_what_tflite_has_no_operator_for_has_no_file(name):
    inputs = keras.Input(VOLUME)
    outputs = layers.Dense(2)(layers.Flatten()(NO_FILE[name](inputs)))
    aware = ko.quantization.quantize_aware(keras.Model(inputs, outputs))
    aware(normal(2, *VOLUME), training=True)
    ((_, reason),) = ko.quantization.float_operations(aware)
    assert reason.startswith("no file of builtin operators: TFLite has none for")
    with pytest.raises(ValueError, match="must consist of what TFLite has as builtin operators"):
        ko.export.to_tflite(aware, quantize="int8")


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (layers.GroupNormalization(2), "groups of any number of values"),
        (lambda x: ops.sum(x, axis=(1, 2)), "a sum of any number of values"),
    ],
)
def test_any_number_of_values_is_float(operation, reason):
    inputs = keras.Input((None, None, 4))
    aware = ko.quantization.quantize_aware(keras.Model(inputs, operation(inputs)))
    assert [why for _, why in ko.quantization.float_operations(aware)] == [reason]
