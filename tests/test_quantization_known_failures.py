"""What other tools fail on: each is trained a step, saved, loaded, exported and compared."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from tests.processes import run_alone

SHAPE = (8, 8, 3)


def exported(model, tmp_path, x=None, **bounds):
    """Returns the reloaded quantization-aware model, its file, and the faults found."""
    if x is None:
        x = np.random.default_rng(0).normal(size=(32, *model.input_shape[1:])).astype("float32")
    aware = ko.quantization.quantize_aware(model)
    aware.compile(keras.optimizers.SGD(0.01), "mse")
    aware.fit(x, np.zeros((len(x), *aware.output_shape[1:])), verbose=0)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), aware.predict(x, verbose=0))
    file = ko.export.to_tflite(loaded, quantize="int8")
    report = ko.export.compare_operations(loaded, file.content, x, samples=8)
    return loaded, file, report.faults(**bounds)


def network(*parts, shape=SHAPE):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *parts])


def is_int8(file):
    return not any(row.dtype == "float32" for row in ko.profiling.profile(file.content).rows[:-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(
            lambda: [layers.MaxPooling2D(), layers.BatchNormalization(), layers.ReLU()],
            id="BatchNormalization that stands alone",
        ),
        pytest.param(
            lambda: [
                layers.Conv2D(4, 3, activation="relu"),
                layers.MaxPooling2D(6),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3),
            ],
            id="mean of one value, behind a pooling",
        ),
        pytest.param(
            lambda: [layers.SeparableConv2D(4, 3, use_bias=False), layers.BatchNormalization()],
            id="SeparableConv2D without bias",
        ),
        pytest.param(
            lambda: [
                layers.Conv2DTranspose(4, 3, strides=2),
                layers.BatchNormalization(),
                layers.ReLU(),
            ],
            id="Conv2DTranspose with BatchNormalization",
        ),
        pytest.param(
            lambda: [
                layers.Conv2D(4, 1),
                layers.Activation("hard_swish"),
                layers.Conv2D(4, 1, activation="hard_sigmoid"),
            ],
            id="activations of MobileNetV3",
        ),
    ],
)
def test_becomes_int8(parts, tmp_path):
    _, file, faults = exported(network(*parts()), tmp_path)
    assert faults == []
    assert is_int8(file)


@pytest.mark.slow
def test_squeeze_and_excite_as_mobilenet_v3_writes_it(tmp_path):
    inputs = keras.Input(SHAPE)
    x = layers.Activation("hard_swish")(layers.Conv2D(8, 3)(inputs))
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(8, 1)(layers.ReLU()(layers.Conv2D(4, 1)(s)))
    s = layers.ReLU(6.0)(s + 3.0) * (1.0 / 6.0)
    _, file, faults = exported(keras.Model(inputs, layers.Multiply()([x, s])), tmp_path)
    assert faults == []
    assert is_int8(file)


@pytest.mark.slow
def test_concatenation_of_tensors_a_hundredfold_apart(tmp_path):
    inputs = keras.Input(SHAPE)
    small = layers.Conv2D(4, 1, name="small")(inputs)
    large = layers.Conv2D(4, 1, name="large", activation="relu")(inputs * 100.0)
    joined = layers.Concatenate()([small, large])
    model = keras.Model(inputs, layers.Conv2D(2, 1)(joined))
    # The bias of "large" is less than a step of its input times one of its kernel: it becomes 0.
    _, file, faults = exported(model, tmp_path, min_equal=0.985)
    assert faults == []
    assert file.operators.count("QUANTIZE") == 1


@pytest.mark.slow
def test_convolution_whose_kernel_went_all_zero(tmp_path):
    model = network(layers.Conv2D(4, 1, name="zero"), layers.BatchNormalization())
    kernel, bias = model.get_layer("zero").get_weights()
    model.get_layer("zero").set_weights([kernel * 0.0, bias + 1.0])
    aware = ko.quantization.quantize_aware(model)
    x = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype("float32")
    aware(x, training=False)
    for layer in aware.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    aware(x, training=True)
    file = ko.export.to_tflite(aware, quantize="int8", verify=x, min_agreement=0.0)
    assert np.isfinite(ko.export.TFLiteModel(file.content).predict(x)).all()
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        ko.export.TFLiteModel(file.content).predict(x), expected, atol=0.02 * np.abs(expected).max()
    )


@pytest.mark.slow
def test_backbone_nested_twice(tmp_path):
    inner = network(layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU())
    middle = network(inner, layers.GlobalAveragePooling2D())
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, layers.Dense(3)(middle(inputs)))
    aware, file, faults = exported(model, tmp_path)
    assert faults == []
    assert file.operators == ("QUANTIZE", "CONV_2D", "MEAN", "FULLY_CONNECTED", "DEQUANTIZE")
    assert ko.quantization.float_operations(aware) == ()


@pytest.mark.slow
def test_layers_left_out_are_float_and_what_follows_is_int8(tmp_path):
    model = network(
        layers.Conv2D(4, 3, name="keep"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(4, 3, name="last"),
    )
    aware = ko.quantization.quantize_aware(model, layers="last")
    x = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype("float32")
    aware(x, training=True)
    file = ko.export.to_tflite(aware, quantize="int8")
    kinds = {row.kind: row.dtype for row in ko.profiling.profile(file.content).rows}
    rows = [row for row in ko.profiling.profile(file.content).rows if row.kind == "CONV_2D"]
    assert [row.dtype for row in rows] == ["float32", "int8"]
    assert kinds["QUANTIZE"] == "int8"
    assert ko.export.compare_operations(aware, file.content, x).faults() == []


@pytest.mark.slow
def test_a_fault_names_the_layer():
    keras.utils.set_random_seed(0)
    model = network(layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu"))
    aware = ko.quantization.quantize_aware(model)
    x = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype("float32")
    aware(x, training=True)
    content = ko.export.to_tflite(aware, quantize="int8").content
    kernel = aware.get_layer("conv").layer.kernel
    kernel.assign(kernel * -1.0)
    faults = ko.export.compare_operations(aware, content, x).faults()
    assert any(fault.startswith("relu: ") for fault in faults)
    assert "conv: other integers in its kernel or bias" in faults
    kernel.assign(kernel * -1.0)
    aware.get_layer("relu_range").maximum.assign([7.0])
    assert (
        "relu: no tensor with its range in the file"
        in ko.export.compare_operations(aware, content, x).faults()
    )


@pytest.mark.slow
def test_deeper_than_python_lets_a_function_call_itself(tmp_path):
    x = inputs = keras.Input((2,))
    for _ in range(500):
        x = layers.Dense(2)(x)
    aware = ko.quantization.quantize_aware(keras.Model(inputs, x))
    aware(np.ones((1, 2)), training=True)
    aware.save(tmp_path / "deep.keras")
    script = f"""import keras, kerasopt
model = keras.models.load_model({str(tmp_path / "deep.keras")!r})
print(len(model.layers))"""
    done = run_alone(script)
    assert done.stdout.strip() == str(len(aware.layers)), done.stderr
    assert len(aware.layers) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("scale", [lambda: keras.layers.Rescaling(1 / 255.0), lambda: _divided])
def test_inputs_of_integers(scale):
    """Pixels as uint8: the first operation is float and named, what is behind it int8."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
    model = keras.Model(pixels, keras.layers.Conv2D(4, 3, name="conv")(scale()(pixels)))
    aware = ko.quantization.quantize_aware(model)
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
    aware(x, training=True)
    ((_, reason),) = ko.quantization.float_operations(aware)
    assert reason == "reads a tensor of integers"
    file = ko.export.to_tflite(aware, quantize="int8")
    assert file.input_dtype == "uint8"
    report = ko.export.compare_operations(aware, file.content, x, samples=8)
    assert (report.faults(), report.kernels) == ([], 1)


def _divided(x):
    return x / 255.0
