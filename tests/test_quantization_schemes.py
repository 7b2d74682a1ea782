"""Schemes: presets, regexes, and the files they become."""

import dataclasses

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import kerasopt as ko
from kerasopt.export._operations import compare_kernels
from kerasopt.quantization import (
    FakeQuantize,
    QuantizeAware,
    QuantizedLayer,
    Scheme,
    float_operations,
    is_quantization_aware,
    quantize_aware,
    resolve_scheme,
    scheme_of,
)
from kerasopt.quantization._kernels import kernels_of
from kerasopt.quantization._twin import REASON
from tests.models import compiled, small_cnn, stripes

X, Y = stripes(32)
KERNELS = ["stem_conv", "block1_depthwise", "block1_project", "block2_conv", "logits"]


def names(scheme, model=None):
    found = resolve_scheme(model or small_cnn(), scheme)
    return {path: layer and layer.name for path, layer in found.items()}


def ranges_of(model):
    return {la.name: la for la in model.layers if isinstance(la, FakeQuantize)}


def test_presets_are_frozen_values_that_serialize():
    for name in ("int8", "int16x8", "int8_weights"):
        scheme = Scheme.of(name)
        assert scheme.name == name
        assert Scheme.of(scheme) is scheme
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(scheme))
        assert again == scheme
        assert hash(again) == hash(scheme)
        with pytest.raises(dataclasses.FrozenInstanceError):
            scheme.activation_num_bits = 4


def test_one_scheme_for_all():
    assert set(names("int16x8").values()) == {"int16x8"}
    assert set(names(Scheme()).values()) == {"int8"}


def test_the_first_regex_that_finds_a_layer_decides():
    found = names({"logits": None, "block1": "int16x8", "block": "int8_weights"})
    assert found["logits"] is None
    assert found["block1_depthwise"] == found["block1_relu"] == "int16x8"
    assert found["block2_conv"] == "int8_weights"
    assert found["block2_pool"] == found["stem_conv"] == "int8"


def test_none_and_weights_alone_mean_the_kernels_among_the_layers_found():
    found = names({"block1": "int8_weights"})
    assert found["block1_depthwise"] == found["block1_project"] == "int8_weights"
    assert found["block1_relu"] == "int8"
    found = names({"block1": None})
    assert found["block1_depthwise"] is found["block1_project"] is None
    assert found["block1_relu"] == "int8"
    assert names({"block1_relu": None})["block1_relu"] is None


def test_paths_of_nested_models():
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, keras.layers.Softmax(name="softmax")(small_cnn()(inputs)))
    found = names({"^small_cnn/block1_project$": None}, model)
    assert found["small_cnn/block1_project"] is None
    aware = quantize_aware(model, {"^small_cnn/block1_project$": None})
    assert ("block1_project", "left out by `layers` or `scheme`") in float_operations(aware)
    kernels = [la.name for la in aware.layers if isinstance(la, QuantizedLayer)]
    assert kernels == [name for name in KERNELS if name != "block1_project"]


def test_layers_narrows_a_scheme():
    found = resolve_scheme(small_cnn(), "int16x8", layers="stem")
    assert {path for path in KERNELS if found[path] is None} == set(KERNELS) - {"stem_conv"}


@pytest.mark.parametrize("call", [quantize_aware, lambda model, scheme: QuantizeAware(scheme)])
@pytest.mark.parametrize(
    ("scheme", "error", "message"),
    [
        ("int_8", ValueError, r"`scheme` must be one of 'int8'.*Did you mean 'int8'"),
        ({"logits": "int16"}, ValueError, r"Received: scheme='int16'. Did you mean 'int16x8'"),
        ({}, ValueError, r"must name at least one layer.*Received: scheme=\{\}"),
        ({3: "int8"}, TypeError, "with regexes on layer names as keys"),
        (None, TypeError, "`scheme` must be a name, a ko.quantization.Scheme, or a dict"),
    ],
)
def test_schemes_that_are_none(call, scheme, error, message):
    with pytest.raises(error, match=message):
        call(small_cnn(), scheme)


def test_a_regex_without_a_layer():
    message = r"`scheme` must choose.*Received: scheme='logit_layer'. Did you mean 'logits'"
    with pytest.raises(ValueError, match=message):
        quantize_aware(small_cnn(), {"logit_layer": None})
    with pytest.raises(ValueError, match=message):
        compiled(small_cnn()).fit(X, Y, callbacks=[QuantizeAware({"logit_layer": None})])


@pytest.mark.parametrize(
    "values",
    [{"activation_num_bits": 4}, {"activation_num_bits": 16}, {"symmetric": True},
     {"weight_num_bits": 4}, {"weight_num_bits": 8.0}],
)  # fmt: skip
def test_bits_that_tflite_has_not(values):
    with pytest.raises(ValueError, match=r"num_bits` must be 8.*Received: "):
        Scheme(**values)


def test_int16x8_has_symmetric_ranges_of_16_bits():
    model = quantize_aware(small_cnn(), "int16x8")
    model(X, training=True)
    for layer in ranges_of(model).values():
        assert (layer.num_bits, layer.symmetric) == (16, True)
        low, high = layer.range_value()
        assert low == pytest.approx(-high * 32768 / 32767, rel=1e-6)
    assert scheme_of(model).name == "int16x8"
    assert float_operations(model) == ()


def test_known_ranges_of_16_bits_have_the_scale_of_tflite():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "softmax", name="dense")])
    layer = quantize_aware(model, "int16x8").get_layer("dense_range")
    low, high = layer.range_value()
    assert (high - low) / 65535 == pytest.approx(1 / 32768, rel=1e-6)


def test_int8_weights_has_no_ranges(tmp_path):
    model = quantize_aware(small_cnn(), "int8_weights")
    assert not ranges_of(model)
    assert [la.name for la in model.layers if isinstance(la, QuantizedLayer)] == KERNELS
    assert dict(float_operations(model)) == dict.fromkeys(
        KERNELS, "int8 weights, float activations"
    )
    model.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    assert is_quantization_aware(loaded)
    assert scheme_of(loaded).name == "int8_weights"
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_layer_with_weights_alone_among_others(tmp_path):
    model = quantize_aware(small_cnn(), {"block2_conv": "int8_weights"})
    model(X, training=True)
    assert [la.name for la in model.layers if isinstance(la, QuantizedLayer)] == KERNELS
    assert model.get_layer("block2_conv").float_activations
    expected = {"block2_conv": "int8 weights, float activations"}
    assert dict(float_operations(model)) == expected
    model.save(tmp_path / "aware.keras")
    assert dict(float_operations(keras.models.load_model(tmp_path / "aware.keras"))) == expected


@pytest.mark.slow
def test_int8_weights_become_a_dynamic_file():
    model = quantize_aware(small_cnn(), "int8_weights")
    result = ko.export.to_tflite(model, quantize="dynamic", verify=X)
    assert result.agreement == 1.0
    # TFLite keeps kernels of fewer than 1,024 weights in float, the levels in them.
    interpreter = Interpreter(model_content=result.content)
    interpreter.allocate_tensors()
    (stored,) = [t for t in interpreter.get_tensor_details() if t["dtype"] == np.int8]
    kernel = model.get_layer("block2_conv").layer.kernel.numpy()
    levels = np.round(kernel / np.abs(kernel).max(axis=(0, 1, 2)) * 127)
    found = interpreter.get_tensor(stored["index"])
    np.testing.assert_array_equal(found, levels.transpose(3, 0, 1, 2))


def every_kernel():
    """Layers whose weights are several kernels, a table, or inside of another layer."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    tokens = keras.Input((8,), dtype="int32", name="tokens")
    x = layers.Embedding(100, 64, name="table")(tokens)
    x = layers.TimeDistributed(layers.Dense(64), name="steps")(x)
    x = x + layers.MultiHeadAttention(2, 16, dropout=0.1, name="attention")(
        x, x, use_causal_mask=True
    )
    x = layers.SeparableConv1D(32, 3, name="separable_1d")(x)
    x = layers.Reshape((6, 8, 4))(x)
    x = layers.SeparableConv2D(64, 5, depth_multiplier=12, name="separable_2d")(x)
    x = layers.Conv3D(2, (1, 1, 4), name="volume")(layers.Reshape((2, 4, 64, 1))(x))
    return keras.Model(tokens, layers.Dense(3, name="scores")(layers.Flatten()(x)))


def test_int8_weights_leave_no_weights_out_silently(tmp_path):
    names = ("table", "steps", "attention", "separable_1d", "separable_2d", "scores")
    aware = quantize_aware(every_kernel(), "int8_weights")
    assert dict(float_operations(aware)) == {
        **dict.fromkeys(names, "int8 weights, float activations"),
        "volume": "float weights: not a kernel that is rounded by itself",
    }
    tokens = np.random.default_rng(0).integers(0, 100, (4, 8))
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(
        loaded.predict(tokens, verbose=0), aware.predict(tokens, verbose=0)
    )


def test_attention_alone_has_weights_to_round():
    inputs = keras.Input((4, 8))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(inputs, inputs))
    assert is_quantization_aware(quantize_aware(model, "int8_weights"))


@pytest.mark.slow
def test_the_dynamic_file_has_the_levels_of_every_kernel():
    aware = compiled(quantize_aware(every_kernel(), "int8_weights"))
    tokens = np.random.default_rng(0).integers(0, 100, (16, 8))
    aware.fit(tokens, Y[:16] % 3, verbose=0)
    content = ko.export.to_tflite(aware, quantize="dynamic", verify=tokens).content
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    stored = [
        np.sort(interpreter.get_tensor(t["index"]), axis=None)
        for t in interpreter.get_tensor_details()
        if t["dtype"] == np.int8
    ]
    wrapped = [la.layer for la in aware.layers if isinstance(la, QuantizedLayer)]
    kernels = [pair for layer in wrapped for pair in kernels_of(layer)]
    large = [(k.numpy(), axes) for k, axes in kernels if np.prod(k.shape) >= 1024]
    assert len(large) == 10
    for kernel, axes in large:
        levels = np.round(kernel / np.abs(kernel).max(axis=axes, keepdims=True) * 127)
        expected = np.sort(levels.astype("int8"), axis=None)
        assert any(np.array_equal(expected, found) for found in stored)


@pytest.mark.slow
def test_int16x8_becomes_a_file_by_calibration():
    model = compiled(quantize_aware(small_cnn(), "int16x8"))
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    result = ko.export.to_tflite(model, quantize="int16x8", representative_data=X, verify=(X, Y))
    assert result.agreement == 1.0
    assert (result.operations.kernels, result.operations.faults()) == (5, [])
    assert result.max_error < 1e-3 * np.ptp(model.predict(X, verbose=0))
    assert result.operators[0] == "QUANTIZE"
    from_float = ko.export.to_tflite(
        small_cnn(), quantize="int16x8", representative_data=X, verify=X
    )
    assert (from_float.operators[0], from_float.agreement) == ("QUANTIZE", 1.0)
    with pytest.raises(ValueError, match="and 'int16x8' of any need data"):
        ko.export.to_tflite(model, quantize="int16x8")
    with pytest.raises(ValueError, match="scheme 'int16x8' becomes one kind of file"):
        ko.export.to_tflite(model, quantize="int8")
    kernel = model.get_layer("logits").layer.kernel
    kernel.assign(-kernel)
    found = compare_kernels(model, ko.export.TFLiteModel(result.content))
    assert found.faults() == ["logits: other integers in its kernel or bias"]


@pytest.mark.slow
def test_the_file_of_a_layer_with_weights_alone_among_others():
    model = quantize_aware(small_cnn(), {"block2_conv": "int8_weights"})
    model(X, training=True)
    result = ko.export.to_tflite(model, quantize="int8", verify=X)
    assert (result.operations.kernels, result.operations.faults()) == (4, [])


@pytest.mark.slow
def test_16_bits_among_8_are_float_in_the_model_as_in_its_file():
    with pytest.warns(UserWarning, match=r"no file with 16-bit .*'block1_depthwise' and \d more"):
        model = quantize_aware(small_cnn(), {"logits": None, "block1": "int16x8"})
    model(X, training=True)
    reasons = dict(float_operations(model))
    assert reasons["block1_depthwise"] == reasons["block1_project"] == REASON
    assert {layer.num_bits for layer in ranges_of(model).values()} == {8}
    result = ko.export.to_tflite(model, quantize="int8", verify=X)
    assert result.operations.faults() == []
    assert result.agreement == 1.0


def test_weights_that_are_not_finite():
    model = small_cnn()
    kernel = model.get_layer("block2_conv").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    message = r"finite weights. Received: NaN or infinity in 'block2_conv/kernel'"
    with pytest.raises(ValueError, match=message):
        quantize_aware(model)
    with pytest.raises(ValueError, match=message):
        compiled(model).fit(X, Y, verbose=0, callbacks=[QuantizeAware()])
