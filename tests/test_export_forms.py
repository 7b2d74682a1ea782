"""Batch sizes, several inputs and outputs, and types: asserted on the written file."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kerasopt.export import TFLiteModel, to_tflite
from kerasopt.quantization import quantize_aware
from tests.models import small_cnn, stripes

LOOSE = {"min_agreement": 0.3, "max_accuracy_drop": 1.0}


@pytest.fixture(scope="module")
def data():
    return stripes(20)


@pytest.fixture(scope="module")
def tokens_and_photo():
    """Two inputs of different types, two outputs, and names that do not sort as they stand."""
    photo = keras.Input((12, 12, 3), name="photo")
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    words = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(tokens))
    seen = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(photo))
    both = keras.layers.Concatenate()([words, seen])
    outputs = [keras.layers.Dense(3, name="kind")(both), keras.layers.Dense(2, name="age")(both)]
    model = keras.Model({"tokens": tokens, "photo": photo}, outputs)
    ids = np.random.default_rng(0).integers(0, 10, (20, 5)).astype("int32")
    return model, {"photo": stripes(20)[0], "tokens": ids}


@pytest.fixture(scope="module")
def two_in_two_out(tokens_and_photo):
    model, inputs = tokens_and_photo
    return to_tflite(model, verify=inputs)


def test_inputs_and_outputs_by_name(tokens_and_photo, two_in_two_out):
    model, inputs = tokens_and_photo
    assert two_in_two_out.agreement == 1.0
    assert two_in_two_out.accuracy is None
    lite = TFLiteModel(two_in_two_out.content)
    assert {(t.name, t.shape, t.dtype) for t in lite.inputs} == {
        ("photo", (1, 12, 12, 3), "float32"),
        ("tokens", (1, 5), "int32"),
    }
    assert {(t.name, t.shape) for t in lite.outputs} == {("kind", (1, 3)), ("age", (1, 2))}
    found = lite.predict(inputs)
    for name, expected in zip(("kind", "age"), model.predict(inputs, verbose=0), strict=True):
        np.testing.assert_allclose(found[name], expected, atol=1e-4)
    assert lite.benchmark(threads=(1,), runs=2)[0].runs == 2
    signatures = Interpreter(model_content=two_in_two_out.content).get_signature_list()
    assert signatures == {
        "serving_default": {"inputs": ["photo", "tokens"], "outputs": ["age", "kind"]}
    }


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 12, 12, 3)), "`images` must be a dict of arrays by name"),
        ({"photo": np.zeros((2, 12, 12, 3))}, "`images` must have the inputs"),
        ({"photo": np.zeros((2, 9, 9, 3)), "tokens": np.zeros((2, 5))}, "for 'photo'"),
        ({"photo": np.zeros((2, 12, 12, 3)), "tokens": np.zeros((3, 5))}, "as many of each"),
    ],
)
def test_inputs_that_do_not_fit(two_in_two_out, images, message):
    with pytest.raises(ValueError, match=message):
        TFLiteModel(two_in_two_out.content).predict(images)


def test_labels_need_one_output(tokens_and_photo):
    with pytest.raises(ValueError, match="`labels` must name the classes of a model with one"):
        to_tflite(tokens_and_photo[0], labels=["a", "b", "c"])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 8, None])
def test_several_inputs_int8(tokens_and_photo, batch_size):
    model, inputs = tokens_and_photo
    result = to_tflite(
        model,
        quantize="int8",
        representative_data=inputs,
        batch_size=batch_size,
        verify=inputs,
        **LOOSE,
    )
    lite = TFLiteModel(result.content)
    assert {t.name: t.dtype for t in lite.inputs} == {"photo": "uint8", "tokens": "int32"}
    assert {t.dtype for t in lite.outputs} == {"float32"}
    span = np.ptp(np.concatenate([x.ravel() for x in model.predict(inputs, verbose=0)]))
    assert result.max_error < 0.03 * span


@pytest.mark.parametrize(
    ("batch_size", "quantize"),
    [
        (1, None),
        (3, None),
        (None, None),
        pytest.param(1, "int8", marks=pytest.mark.slow),
        pytest.param(3, "int8", marks=pytest.mark.slow),
        pytest.param(None, "int8", marks=pytest.mark.slow),
    ],
)
def test_batch_size(data, batch_size, quantize):
    model, (x, y) = small_cnn(), data
    result = to_tflite(
        model,
        quantize=quantize,
        batch_size=batch_size,
        representative_data=x if quantize else None,
        verify=(x, y),
        **LOOSE,
    )
    lite = TFLiteModel(result.content)
    assert lite.input_shape == (batch_size, 12, 12, 3)
    assert lite.output_shape == (batch_size, 4)
    # 20 is no multiple of 3: the last batch is filled up, and cut.
    one = np.concatenate([lite.predict(x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(lite.predict(x), one, atol=1e-5)
    assert lite.predict(x[:0]).shape == (0, 4)
    assert result.max_error < (0.05 if quantize else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [3, None])
def test_batch_size_of_an_aware_model(data, batch_size):
    aware, (x, y) = quantize_aware(small_cnn()), data
    for _ in range(3):
        aware(x, training=True)
    options = {"quantize": "int8", "verify": (x, y), **LOOSE}
    one = to_tflite(aware, **options)
    more = to_tflite(aware, batch_size=batch_size, **options)
    assert more.operators == one.operators
    assert TFLiteModel(more.content).input_shape == (batch_size, 12, 12, 3)
    np.testing.assert_array_equal(
        TFLiteModel(more.content).predict(x), TFLiteModel(one.content).predict(x)
    )


SCALINGS = {
    "none": lambda x: x,
    "unit": keras.layers.Rescaling(1 / 255),
    "signed": keras.layers.Rescaling(1 / 127.5, -1),
    "channels": keras.layers.Normalization(mean=(124.0, 116.0, 104.0), variance=(3400.0,) * 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_byte_is_a_pixel_and_the_scaling_is_folded(data, scaling, aware):
    """The forms of scaling that people put into a model; no float operation is left of any."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu")(SCALINGS[scaling](inputs))
    outputs = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x))
    model, (photos, _) = keras.Model(inputs, outputs), data
    photos = np.round(photos)
    if aware:
        model = quantize_aware(model)
        model(photos, training=True)
    result = to_tflite(
        model,
        quantize="int8",
        representative_data=None if aware else photos,
        verify=photos,
        **LOOSE,
    )
    lite = TFLiteModel(result.content)
    assert (result.input_dtype, result.output_dtype) == ("uint8", "float32")
    assert lite.input_quantization == (pytest.approx(1.0, abs=1e-6), 0)
    interpreter = Interpreter(model_content=result.content)
    interpreter.allocate_tensors()
    floats = [d for d in interpreter.get_tensor_details() if d["dtype"] == np.float32]
    assert [tuple(detail["shape"]) for detail in floats] == [(1, 4)]
    # The bytes of a bitmap and the numbers are one and the same.
    np.testing.assert_array_equal(lite.predict(photos.astype("uint8")), lite.predict(photos))
    assert result.max_error < 0.05 * np.ptp(model.predict(photos, verbose=0))


def test_types_that_the_converter_ignores_are_an_error(data, monkeypatch):
    """It leaves an input as it is, and says nothing, when it finds no range on it."""
    import kerasopt.export._to_tflite as room

    honest = room.convert
    monkeypatch.setattr(
        room, "convert", lambda m, **options: honest(m, **{**options, "input_dtype": "float32"})
    )
    with pytest.raises(ValueError, match=r"must take uint8 and give float32.*converter: float32"):
        to_tflite(small_cnn(), quantize="int8", representative_data=data[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
        ({"batch_size": 2.0}, TypeError, "`batch_size` must be an integer"),
    ],
)
def test_bad_batch_size(options, error, message):
    with pytest.raises(error, match=message):
        to_tflite(small_cnn(), **options)
