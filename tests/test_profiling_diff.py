"""Where two models or files part."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import kerasopt as ko
from kerasopt.profiling import diff
from tests.models import small_cnn, stripes

X, Y = stripes(40)


@pytest.fixture(scope="module")
def model():
    """Logits around zero, so that all classes are chosen and a fault shows in them."""
    made = small_cnn()
    kernel = np.random.default_rng(1).normal(size=(16, 4)) * 20
    made.get_layer("logits").set_weights([kernel, np.zeros(4)])
    mean = np.asarray(made(X)).mean(axis=0)
    made.get_layer("logits").set_weights([kernel, -mean])
    return made


@pytest.fixture(scope="module")
def content(model):
    return ko.export.to_tflite(model).content


def with_fault(model, name="block2_conv"):
    """A copy whose layer holds other weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernel, *rest = copy.get_layer(name).get_weights()
    kernel = kernel + np.random.default_rng(2).normal(size=kernel.shape) * kernel.std()
    copy.get_layer(name).set_weights([kernel, *rest])
    return copy


def softmax(logits):
    powers = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_float_file_is_the_model(model, content):
    found = diff(model, content, (X, Y), samples=12)
    assert [layer.name for layer in found.layers] == [
        "stem_relu",
        "block1_relu",
        "block1_project",
        "block1_add",
        "block2_pool",
        "block2_conv",
        "head_pool",
    ]
    assert all(layer.relative_error < 1e-5 < 0.9999 < layer.cosine for layer in found.layers)
    assert found.output.relative_error < 1e-4
    assert (found.samples, found.layer_samples) == (40, 12)
    assert found.agreement == 1.0
    assert found.parting is None
    assert found.disagreements == ()


def test_the_layer_at_fault_is_found(model, content):
    wrong = with_fault(model)
    for other in (model, content, ko.export.TFLiteModel(content)):
        found = diff(wrong, other, X)
        assert found.parting.name == "block2_conv"
        before = [layer.relative_error for layer in found.layers][:-2]
        assert before
        assert found.output.relative_error > 0.1
    found = diff(content, ko.export.to_tflite(wrong).content, X)
    assert "block2_conv" in found.parting.name
    earlier = found.layers[: found.layers.index(found.parting)]
    assert len(earlier) == 5
    assert all(layer.relative_error < 1e-5 for layer in earlier)
    assert diff(wrong, model, X, tolerance=1e6).parting is None


def test_the_inputs_they_disagree_on(model):
    wrong = with_fault(model)
    outputs = [m.predict(X, verbose=0) for m in (wrong, model)]
    classes = [out.argmax(axis=1) for out in outputs]
    rows = np.flatnonzero(classes[0] != classes[1])
    assert 0 < len(rows) < len(X)
    found = diff(wrong, model, (X, Y))
    assert [each.index for each in found.disagreements] == rows.tolist()
    for each in found.disagreements:
        assert each.classes == tuple(int(c[each.index]) for c in classes)
        assert each.label == Y[each.index]
        assert each.photo is None
        expected = [softmax(out)[each.index].max() for out in outputs]
        np.testing.assert_allclose(each.confidences, expected, rtol=1e-5)
    assert found.agreement == pytest.approx(1 - len(rows) / len(X))
    assert found.accuracy == tuple(float(np.mean(c == Y)) for c in classes)
    data = tf.data.Dataset.from_tensor_slices((X, keras.ops.one_hot(Y, 4))).batch(7)
    again = diff(wrong, model, data)
    assert [each.index for each in again.disagreements] == rows.tolist()
    assert again.accuracy == found.accuracy


@pytest.mark.slow
def test_errors_of_a_layer_by_numpy(model):
    file = ko.export.to_tflite(model, quantize="int8", representative_data=X, verify=False).content
    found = diff(model, file, X, samples=20)
    layer = next(layer for layer in found.layers if layer.name == "block1_add")
    inner = keras.Model(model.input, model.get_layer("block1_add").output)
    x = np.asarray(inner(X[:20])).astype("float64")
    made = ko.export.activations(file, X[:20])
    y = next(each.values for each in made if each.name == layer.other)
    assert layer.relative_error == pytest.approx(
        math.sqrt(((x - y) ** 2).sum() / (x**2).sum()), rel=1e-6
    )
    assert layer.max_error == pytest.approx(np.abs(x - y).max(), rel=1e-6)
    cosine = (x * y).sum() / np.sqrt((x**2).sum() * (y.astype("float64") ** 2).sum())
    assert layer.cosine == pytest.approx(cosine, rel=1e-9)
    assert layer.relative_error > 1e-4


def test_activations_are_those_of_the_layers(model, content):
    made = ko.export.activations(content, X[:5])
    assert [each.operator for each in made] == list(ko.profiling.tflite_operators(content))
    inner = keras.Model(model.input, model.get_layer("block2_pool").output)
    pool = next(each for each in made if each.operator == "MAX_POOL_2D")
    np.testing.assert_allclose(pool.values, np.asarray(inner(X[:5])), atol=1e-5)
    np.testing.assert_allclose(made[-1].values, model.predict(X[:5], verbose=0), atol=1e-4)
    there = ko.export.TFLiteModel(content, trusted=False)
    for here, other in zip(made, ko.export.activations(there, X[:5]), strict=True):
        np.testing.assert_array_equal(here.values, other.values)


@pytest.mark.slow
def test_a_quantization_aware_model_and_its_file():
    aware = ko.quantization.quantize_aware(small_cnn())
    aware(X, training=True)
    found = diff(aware, ko.export.to_tflite(aware, quantize="int8").content, X)
    names = {layer.name for layer in found.layers}
    assert {"stem_relu_range", "block1_add_range", "head_pool_range"} <= names
    assert found.parting is None


def test_a_file_of_a_fixed_batch(model):
    file = ko.export.to_tflite(model, batch_size=4).content
    found = diff(model, file, X[:10], samples=10)
    assert found.layer_samples == found.samples == 10
    assert len(found.layers) == 7
    assert found.parting is None


def test_nested_models_and_equal_names(tmp_path):
    inner = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu")],
        name="inner",
    )
    image = keras.Input((6, 6, 2))
    x = layers.Dense(3, name="logits")(layers.Flatten(name="flat")(inner(image)))
    whole = keras.Model(image, x)
    whole.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(6, 6, 6, 2)).astype("float32")
    found = diff(tmp_path / "m.keras", whole, x)
    assert [a.name for a in found.layers] == ["inner/conv", "inner/relu", "flat"]
    assert all(layer.relative_error == 0.0 for layer in found.layers)
    found = diff(whole, ko.export.to_tflite(whole).content, x)
    assert found.layers[0].name == "inner/relu"


def test_a_layer_with_a_function_of_its_own_is_passed_over():
    class Compiled(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.inside = layers.Dense(3, name="inside")

        @tf.function
        def call(self, x):
            return self.inside(x)

    model = keras.Sequential(
        [keras.Input((4,)), Compiled(name="outer"), layers.ReLU(name="relu"), layers.Softmax()]
    )
    found = diff(model, model, np.ones((2, 4), "float32"))
    assert {"outer", "relu"} <= {layer.name for layer in found.layers}
    assert "call" not in vars(model.get_layer("outer"))


def test_photos_of_a_folder(model, content, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    for index, image in enumerate(X[:20].astype("uint8")):
        Image.fromarray(image).save(tmp_path / ("cat" if index % 2 else "dog") / f"{index:02}.png")
    found = diff(with_fault(model), content, tmp_path)
    photos = [str(photo) for photo in ko.datasets.list_photos(tmp_path)]
    assert found.samples == 20
    assert found.disagreements
    for each in found.disagreements:
        assert each.photo == photos[each.index]
    assert found.disagreements[0].photo in str(found)


def test_photos_are_normalized_as_a_file_says(tmp_path):
    """As `TFLiteModel.predict` does; the Keras model gets the same."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12, 12, 1)), layers.Flatten(), layers.Dense(4)])
    for index, image in enumerate(X[:6].astype("uint8")):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    files = [
        ko.export.to_tflite(model, metadata=ko.export.Metadata(mean=mean, std=127.5)).content
        for mean in (127.5, 0.0)
    ]
    lite = ko.export.TFLiteModel(files[0])
    seen = []
    predict, lite.predict = lite.predict, lambda x: seen.append(x) or predict(x)
    assert diff(model, lite, tmp_path).output.relative_error < 1e-5
    greys = [np.asarray(Image.open(p).convert("L")) for p in ko.datasets.list_photos(tmp_path)]
    np.testing.assert_allclose(seen[0][..., 0], np.stack(greys) / 127.5 - 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"normalize them alike\. Received: \(mean, std\)"):
        diff(*files, tmp_path)


def head_of_ones(size):
    """Chooses the last class."""
    made = keras.Sequential([keras.Input((size,)), layers.Dense(size)])
    made.set_weights([np.zeros((size, size)), np.eye(size)[-1] * 9])
    return made


def test_probabilities_and_single_outputs_as_confidence():
    x = np.linspace(-2, 2, 9, dtype="float32")[:, None]

    def head(weights, activation):
        made = keras.Sequential([keras.Input((1,)), layers.Dense(len(weights), activation)])
        made.set_weights([np.array([weights]), np.zeros(len(weights))])
        return made

    found = diff(head([1.0, -1.0], "softmax"), head([-1.0, 1.0], None), x)
    expected = softmax(x * np.array([[1.0, -1.0]])).max(axis=1)
    for each in found.disagreements:
        np.testing.assert_allclose(each.confidences, expected[each.index], rtol=1e-5)
    many = x * np.linspace(-1, 1, 300)  # an int8 file rounds each of them
    rounded = np.round(softmax(many) * 256) / 256
    assert np.abs(rounded.sum(axis=1) - 1).max() > 0.15
    table = keras.Sequential([keras.Input((300,)), layers.Identity()])
    found = diff(table, table, rounded.astype("float32"))
    assert found.agreement == 1.0
    found = diff(table, head_of_ones(300), rounded.astype("float32"))
    for each in found.disagreements:
        assert each.confidences[0] == pytest.approx(rounded[each.index].max())
    found = diff(head([3.0], "sigmoid"), head([-3.0], "sigmoid"), x)
    assert {each.classes for each in found.disagreements} == {(0, 1), (1, 0)}
    for each in found.disagreements:
        sure = 1 / (1 + np.exp(-3 * abs(float(x[each.index, 0]))))
        np.testing.assert_allclose(each.confidences, sure, rtol=1e-5)


def test_a_softmax_inside_of_a_layer():
    """In a file it is an operator, and the one before it has the name of the layer."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, "relu", name="hidden"),
            layers.Dense(4, "softmax", name="head"),
        ]
    )
    file = ko.export.to_tflite(model).content
    assert "SOFTMAX" in ko.profiling.tflite_operators(file)
    found = diff(model, file, np.random.default_rng(0).normal(size=(6, 8)).astype("float32"))
    assert [layer.name for layer in found.layers] == ["hidden"]
    assert found.parting is None


def test_what_is_not_finite_is_parted():
    def divided(by):
        made = keras.Sequential(
            [keras.Input((2,)), layers.Dense(2, name="a"), layers.Rescaling(2.0, name="b")]
        )
        made.set_weights([np.eye(2) / np.float32(by), np.zeros(2)])
        return made

    with np.errstate(divide="ignore", invalid="ignore"):
        found = diff(divided(1.0), divided(0.0), np.ones((3, 2), "float32"))
    assert found.parting.relative_error == math.inf
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["layers"][0]["relative_error"] is None
    assert values["parting"] == "a"


def test_table_and_dict(model):
    names = ["north", "east", "south", "west"]
    found = diff(with_fault(model), model, (X, Y), class_names=names)
    text = str(found)
    assert "They part at block2_conv" in text
    first = found.disagreements[0]
    row = next(line for line in text.splitlines() if line.startswith(f"{first.index} "))
    assert f"{names[first.classes[0]]} {first.confidences[0]:.0%}" in row
    assert row.endswith(names[first.label])
    values = json.loads(json.dumps(found.to_dict()))
    assert values["parting"] == "block2_conv"
    assert values["agreement"] == found.agreement
    assert values["disagreements"][0]["index"] == first.index
    alone = diff(
        keras.Sequential([keras.Input((2,)), layers.Dense(2, name="a")]),
        keras.Sequential([keras.Input((2,)), layers.Dense(2, name="b")]),
        np.ones((3, 2), "float32"),
    )
    assert "only the outputs were compared" in str(alone)
