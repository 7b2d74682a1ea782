"""The report on TFLite files: numbers counted by hand, and damage."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from kerasopt.profiling import profile, tflite_operators

layers = keras.layers


def convert(model, configure=None):
    inputs = keras.Input(batch_shape=(1, *model.input_shape[1:]))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, model(inputs)))
    if configure is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        configure(converter)
    with warnings.catch_warnings():  # of statistics that the calibration then finds
        warnings.simplefilter("ignore", UserWarning)
        return converter.convert()


@pytest.fixture(scope="module")
def model():
    """8x8x3 -> conv 3x3 stride 2 -> depthwise 3x3 -> transposed conv -> flatten -> dense."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv"),
            layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise"),
            layers.Conv2DTranspose(2, 2, strides=2, padding="same", name="up"),
            layers.Flatten(),
            layers.Dense(16, name="dense"),
        ]
    )
    for layer in model.layers:  # biases of zeros would all be one buffer
        if layer.weights:
            layer.bias.assign(
                np.random.default_rng(len(layer.name)).uniform(1, 2, layer.bias.shape)
            )
    kernel, bias = model.get_layer("dense").get_weights()
    kernel[: len(kernel) // 2] = 0  # 64 of the 128 inputs
    model.get_layer("dense").set_weights([kernel, bias + 1])
    return model


@pytest.fixture(scope="module")
def float_file(model):
    return convert(model)


@pytest.fixture(scope="module")
def int8_file(model):
    photos = np.random.default_rng(0).uniform(-1, 1, (4, 1, 8, 8, 3)).astype("float32")

    def configure(converter):
        converter.representative_dataset = lambda: ([photo] for photo in photos)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

    return convert(model, configure)


def by_kind(report):
    return {row.kind: row for row in report.rows}


def test_a_loop_is_counted_once_with_a_note():
    model = keras.Sequential([keras.Input((20, 3)), keras.layers.SimpleRNN(8)])
    report = profile(convert(model))
    assert report.macs == 3 * 8 + 8 * 8
    assert "MACs of a loop (WHILE) are those of one step" in report.table()


def test_float_file_counted_by_hand(float_file):
    report = profile(float_file)
    rows = by_kind(report)
    conv, depthwise = rows["CONV_2D"], rows["DEPTHWISE_CONV_2D"]
    assert (conv.output_shape, conv.dtype) == ((1, 4, 4, 4), "float32")
    assert (conv.parameters, conv.kernel_parameters, conv.num_bits) == (112, 108, 32)
    assert (conv.bytes, conv.macs) == (4 * 112, 4 * 4 * 4 * 27)
    assert (depthwise.parameters, depthwise.macs) == (36 + 4, 4 * 4 * 4 * 9)
    up = rows["TRANSPOSE_CONV"]
    assert up.kernel_parameters == 2 * 2 * 2 * 4
    assert up.macs == 4 * 4 * 4 * 2 * 2 * 2
    assert up.bytes >= 4 * up.parameters  # and the shape of the output
    dense = rows["FULLY_CONNECTED"]
    assert (dense.parameters, dense.macs) == (128 * 16 + 16, 128 * 16)
    assert (dense.zeros, dense.sparsity) == (64 * 16, 0.5)
    assert dense.distinct == 64 * 16 + 1


def test_totals_equal_those_of_the_keras_model(model, float_file):
    keras_report, report = profile(model), profile(float_file)
    assert report.macs == keras_report.macs
    assert report.kernel_parameters == keras_report.kernel_parameters
    assert report.zeros == keras_report.zeros
    assert report.file_bytes == len(float_file)


def test_dynamic_range_file(model):
    big = keras.Sequential([keras.Input((64,)), layers.Dense(32)])  # large enough to be quantized
    kernel = np.tile(np.linspace(-1, 1, 32, dtype="float32"), (64, 1))
    kernel[:16] = 0
    big.layers[0].set_weights([kernel, np.ones(32)])
    row = by_kind(profile(convert(big, lambda converter: None)))["FULLY_CONNECTED"]
    assert (row.num_bits, row.kernel_parameters, row.macs) == (8, 2048, 2048)
    assert row.zeros == 16 * 32
    assert row.bytes == 2048 + 32 * 4


def test_int8_file(int8_file):
    rows = by_kind(profile(int8_file))
    dense = rows["FULLY_CONNECTED"]
    assert (dense.num_bits, dense.dtype) == (8, "int8")
    assert dense.bytes == 128 * 16 + 16 * 4
    assert dense.parameters == 128 * 16 + 16
    assert dense.zeros >= 64 * 16
    assert 2 <= dense.distinct <= 255
    assert rows["CONV_2D"].bytes == 108 + 4 * 4


def test_float16_constants_count_with_the_operator_that_uses_them(model):
    def configure(converter):
        converter.target_spec.supported_types = [tf.float16]

    report = profile(convert(model, configure))
    assert "DEQUANTIZE" not in by_kind(report)
    dense = by_kind(report)["FULLY_CONNECTED"]
    assert (dense.num_bits, dense.bytes) == (16, 2 * (128 * 16 + 16))
    assert dense.zeros == 64 * 16


def test_a_buffer_that_two_operators_read_is_counted_once():
    dense = layers.Dense(16, use_bias=False)
    inputs = keras.Input((16,))
    model = keras.Model(inputs, dense(layers.ReLU()(dense(inputs))))
    report = profile(convert(model))
    assert [row.kernel_parameters for row in report.rows if row.macs] == [256, 0]
    assert report.macs == 512


def test_zero_means_the_zero_point(int8_file):
    model = schema.ModelT.InitFromPackedBuf(int8_file)
    graph = model.subgraphs[0]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    (dense,) = (
        operator
        for operator in graph.operators
        if names[model.operatorCodes[operator.opcodeIndex].builtinCode] == "FULLY_CONNECTED"
    )
    kernel = graph.tensors[dense.inputs[1]]
    values = np.where(np.arange(128 * 16) < 100, 3, 5).astype("int8")
    model.buffers[kernel.buffer].data = values.view("uint8")
    kernel.quantization.zeroPoint = np.full_like(kernel.quantization.zeroPoint, 3)
    row = by_kind(profile(packed(model)))["FULLY_CONNECTED"]
    assert (row.zeros, row.distinct) == (100, 2)


def test_values_of_four_bits(int8_file):
    model = schema.ModelT.InitFromPackedBuf(int8_file)
    graph = model.subgraphs[0]
    kernel = next(t for t in graph.tensors if tuple(t.shape) == (16, 128))
    kernel.type = schema.TensorType.INT4
    model.buffers[kernel.buffer].data = np.tile(np.array([0xF0, 0x70], "uint8"), 512)
    row = by_kind(profile(packed(model)))["FULLY_CONNECTED"]
    assert row.num_bits == 4
    assert (row.zeros, row.distinct) == (1024, 3)  # 0, -1, 0, 7
    assert row.bytes == 1024 + 64


def packed(model):
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# tflite_operators


def test_operators_in_order(float_file, int8_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(float_file)
    operators = tflite_operators(path)
    assert operators == tflite_operators(float_file) == tflite_operators(str(path))
    weighted = [name for name in operators if name.endswith(("CONV_2D", "CONV", "CONNECTED"))]
    assert weighted == ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"]
    assert "QUANTIZE" in tflite_operators(int8_file)
    assert tflite_operators(float_file, floats=True) == operators
    assert "int8" in profile(int8_file).table()
    assert profile(path).source == str(path)


def test_names_of_custom_operators():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.linalg.det(keras.layers.Reshape((2, 2))(inputs)))
    fixed = keras.Input(batch_shape=(1, 4))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(fixed, model(fixed)))
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    assert any(name.startswith("Flex") for name in tflite_operators(converter.convert()))


# Damage


@pytest.mark.parametrize("function", [profile, tflite_operators])
@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04 a zip file", bytes(100)])
def test_other_files_are_refused(function, content, tmp_path):
    with pytest.raises(ValueError, match=r"which has 'TFL3' at byte 4\. Received: bytes of"):
        function(content)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"Received: {path} of {len(content)} bytes"):
        function(path)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match=r"`content` must be the path or the bytes"):
        tflite_operators(3)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.tflite"):
        tflite_operators(tmp_path / "nothing.tflite")


@pytest.mark.parametrize("length", [8, 9, 30, 100, 1000])
def test_cut_files_are_refused(length, int8_file):
    with pytest.raises(ValueError, match=r"damaged or cut short .*Copy or convert it again"):
        profile(int8_file[:length])


def test_any_damage_is_a_value_error_or_harmless(int8_file):
    generator = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        damaged = bytearray(int8_file)
        for place in generator.integers(8, len(damaged), 8):
            damaged[place] = generator.integers(256)
        cut = len(damaged) if generator.random() < 0.5 else int(generator.integers(8, len(damaged)))
        try:
            profile(bytes(damaged[:cut]))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all("Copy or convert it again" in message for message in messages)


@pytest.mark.parametrize("kind", ["attention", "conv3d"])
def test_macs_of_products_and_volumes(kind):
    if kind == "attention":
        inputs = keras.Input((6, 8))
        outputs = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
        operator, products = "BATCH_MATMUL", 2 * 6 * 6 * 4 * 2
        expected = products + 6 * 8 * 8 * 4  # and the four projections
    else:
        inputs = keras.Input((4, 5, 6, 2))
        outputs = layers.Conv3D(3, 2)(inputs)
        operator, expected = "CONV_3D", 3 * 4 * 5 * 3 * 2**3 * 2
    report = profile(convert(keras.Model(inputs, outputs)))
    assert report.macs == expected
    assert operator in [row.kind for row in report.rows]
    assert profile(keras.Model(inputs, outputs)).macs == expected


@pytest.mark.slow
def test_efficientnet_lite0(shared):
    model = keras.models.load_model(
        shared / "weights" / "efficientnet_lite0_imagenet.keras", compile=False
    )
    report = profile(convert(model))
    assert report.macs == profile(model).macs
    assert report.kernel_parameters == profile(model).kernel_parameters
