"""Models of every kind that Keras can build: in other precisions, subclassed, with odd inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.export import Metadata, TFLiteModel, to_tflite
from tests.models import stripes

X = np.random.default_rng(0).normal(size=(24, 8)).astype("float32")
PHOTOS, CLASSES = stripes(24, size=8)


class Own(keras.layers.Layer):
    """A layer that makes another one for itself."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.inner = keras.layers.Dense(units)

    def call(self, inputs):
        return self.inner(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def nested():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    block = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1)], name="block")
    shared = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    x = keras.ops.mean(block(shared(shared(x))), axis=1)
    x = keras.layers.TimeDistributed(keras.layers.Dense(3))(x)
    return keras.Model(inputs, Own(4, name="logits")(keras.layers.Flatten()(x)), name="net")


@pytest.mark.parametrize(
    ("name", "quantize"),
    [
        ("mixed_float16", None),
        ("mixed_float16", "int8"),
        ("mixed_bfloat16", None),
        ("float64", None),
    ],
)
def test_other_precisions_become_their_float32_twin(policy, name, quantize):
    policy(name)
    model = nested()
    result = to_tflite(
        model, quantize=quantize, representative_data=PHOTOS, verify=PHOTOS, min_agreement=0.9
    )
    bound = {"float64": 1e-6, "mixed_float16": 3e-3, "mixed_bfloat16": 0.03}[name]
    assert result.relative_error < (0.05 if quantize else bound)
    assert keras.config.dtype_policy().name == name
    assert model.get_layer("shared").dtype_policy.name == name
    assert [t.name for t in TFLiteModel(result.content).outputs] == ["logits"]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense, self.dropout = keras.layers.Dense(4), keras.layers.Dropout(0.5)

    def call(self, inputs, training=False):
        return self.dropout(self.dense(inputs), training=training)


class ByName(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = keras.layers.Dense(4), keras.layers.Dense(2)

    def call(self, inputs):
        return {"a": self.one(inputs["left"]), "b": self.two(inputs["right"])}


class Eager(keras.Model):
    def call(self, inputs):
        return tf.constant(inputs.numpy())


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_subclassed_models(quantize):
    model = Subclassed()
    model(X)
    result = to_tflite(model, quantize=quantize, representative_data=X)
    assert result.relative_error < (0.05 if quantize else 1e-6)
    assert result.operators.count("FULLY_CONNECTED") == 1


def test_subclassed_models_of_several_inputs():
    model = ByName()
    model({"left": X, "right": X})
    result = to_tflite(model, verify={"left": X, "right": X})
    assert result.relative_error < 1e-6
    assert {t.name for t in TFLiteModel(result.content).inputs} == {"left", "right"}


def test_subclassed_models_that_cannot_be_traced():
    with pytest.raises(ValueError, match="`model` must be built on known inputs"):
        to_tflite(Subclassed())
    model = Eager()
    model(X)
    with pytest.raises(ValueError, match="`model` must run on symbolic inputs of the shape"):
        to_tflite(model)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_an_input_of_bytes_has_labels(quantize):
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    options = {"quantize": quantize, "representative_data": PHOTOS.astype("uint8")}
    result = to_tflite(model, labels=["a", "b"], min_agreement=0.5, **options)
    assert result.input_dtype == "uint8"
    with pytest.raises(ValueError, match="`metadata` must "):
        to_tflite(model, metadata=Metadata(mean=127.5, std=127.5), verify=False, **options)


def several_outputs():
    inputs = keras.Input((8,))
    outputs = [
        keras.layers.Dense(3, name="kind")(inputs),
        keras.layers.Dense(2, name="age")(inputs),
    ]
    return keras.Model(inputs, outputs)


LABELS = {"kind": CLASSES % 3, "age": CLASSES % 2}


@pytest.mark.parametrize(
    "data",
    [
        (X, LABELS),
        tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(8),
        [(X, [LABELS["kind"], LABELS["age"]])],
    ],
    ids=["arrays", "dataset", "list"],
)
def test_labels_of_several_outputs(data):
    result = to_tflite(several_outputs(), verify=data)
    assert (result.samples, result.accuracy) == (24, None)
    assert to_tflite(several_outputs(), representative_data=data).samples == 24


def test_labels_by_name_for_one_output():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match=r"`verify` must have its labels in one array\. Received"):
        to_tflite(model, verify=(X, LABELS))


class Noise(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.uniform(tf.shape(inputs))


def outputs_of(function, shape=(8,), name=None, dtype="float32"):
    inputs = keras.Input(shape, name=name, dtype=dtype)
    return keras.Model(inputs, function(inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: outputs_of(Noise()), "Received: a file that draws random numbers"),
        (lambda: outputs_of(lambda x: [x + 1] * 2), "outputs that are different tensors"),
        (lambda: outputs_of(keras.layers.Dropout(0.5)), "must compute something in inference"),
        (
            lambda: outputs_of(keras.layers.Dense(1), name="my input"),
            "inputs with names of the letters a to z.*Received: 'my input'",
        ),
        (
            lambda: outputs_of(keras.layers.Resizing(6, 6, "bicubic"), (4, 4, 3)),
            r"ResizeBicubic in the layer 'resizing\w*'\. Use for ResizeBicubic interpolation=",
        ),
        (
            lambda: outputs_of(keras.layers.MaxPooling3D(), (4, 4, 4, 1)),
            "Use for MaxPool3D a Conv3D with strides",
        ),
        (
            lambda: outputs_of(lambda x: keras.ops.argmax(x, axis=-1)),
            "Use for BitwiseAnd the scores as the output",
        ),
        (
            lambda: outputs_of(keras.layers.CategoryEncoding(4, "count"), (5,), dtype="int32"),
            "Use for DenseBincount keras.ops.one_hot",
        ),
    ],
    ids=["random", "twice", "nothing", "name", "bicubic", "pool", "argmax", "count"],
)
def test_what_no_file_can_be_made_of(make, message):
    with pytest.raises(ValueError, match=message):
        to_tflite(make())


def test_ranges_in_another_scale_than_the_metadata_say():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    with pytest.raises(ValueError, match=r"Received: `representative_data` from [\d.e-]+ to 0\.9"):
        to_tflite(model, quantize="int8", labels=list("abcd"), representative_data=PHOTOS / 255)
    with pytest.warns(UserWarning, match="`representative_data` and `verify` should be data of"):
        to_tflite(
            model,
            quantize="int8",
            representative_data=PHOTOS / 255,
            verify=PHOTOS,
            min_agreement=0.0,
            max_relative_error=10,
        )


def test_files_with_several_inputs_or_outputs_are_evaluated():
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    model = keras.Model([left, right], keras.layers.Dense(4)(keras.layers.Add()([left, right])))
    inputs = {"left": X, "right": X}
    lite = TFLiteModel(to_tflite(model).content)
    expected = np.mean(model.predict(inputs, verbose=0).argmax(-1) == CLASSES)
    assert lite.evaluate((inputs, CLASSES)) == {"accuracy": expected}
    two = TFLiteModel(to_tflite(several_outputs()).content)
    with pytest.raises(ValueError, match=r"`evaluate` needs a file of one output\. Received: 2"):
        two.evaluate((X, CLASSES))


def test_a_single_logit_is_a_class_above_zero():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    logits = model.predict(X, verbose=0)
    truth = (logits[:, 0] > 0).astype("int32")
    result = to_tflite(model, verify=(X, truth))
    assert (result.accuracy, result.keras_accuracy) == (1.0, 1.0)
    assert TFLiteModel(result.content).evaluate((X, truth)) == {"accuracy": 1.0}
