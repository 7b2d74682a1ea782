"""What a linear probe refuses: models, labels, features, arguments."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from tests.models import small_cnn
from tests.probing import X, Y, linear, noisy


def functional(*last):
    image = x = keras.Input((12, 12, 3))
    for layer in (keras.layers.Flatten(), *last):
        x = layer(x)
    return keras.Model(image, x, name="model")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, inputs):
        return self.dense(keras.ops.reshape(inputs, (-1, 12 * 12 * 3)))


def lora():
    model = small_cnn()
    model.get_layer("logits").enable_lora(2)
    return model


def quantized():
    model = small_cnn()
    model.get_layer("logits").quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "model.keras", TypeError, "`model` must be a keras.Model"),
        (Subclassed, ValueError, "`model` must be a built functional or Sequential model"),
        (
            lambda: functional(keras.layers.Dense(4, activation="softmax")),
            ValueError,
            "without activation.*activation='softmax'",
        ),
        (
            lambda: functional(keras.layers.Dense(4), keras.layers.Softmax(name="s")),
            ValueError,
            "ends in Softmax 's'",
        ),
        (lambda: functional(keras.layers.Dense(4), lambda x: x * 2), ValueError, "in Multiply"),
        (
            lambda: keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Dense(4)]),
            ValueError,
            "Pool over height and width",
        ),
        (lora, ValueError, "quantized or has a LoRA adapter"),
        pytest.param(
            quantized, ValueError, "quantized or has a LoRA adapter", marks=pytest.mark.slow
        ),
    ],
)
def test_models_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        ko.transfer.linear_probe(make(), (X, Y))


def test_an_activation_from_a_file_or_by_name_is_seen(tmp_path):
    model = functional(keras.layers.Dense(4, activation="linear"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert ko.transfer.linear_probe(loaded, (X, Y), folds=3).num_features == 12 * 12 * 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "`data` must have labels"),
        (np.where(Y == 3, 2, Y), r"images of every class of the model. Received: none.*\[3\]"),
        (
            np.where(Y == 3, 4, Y),
            "labels of the 4 classes of the model, 0 to 3. Received: labels",
        ),
        (Y - 1, "Received: labels -1 to 2"),
        (np.eye(5)[Y], "Received: one-hot labels of 5 classes"),
        (np.eye(4)[Y] * 0.9 + 0.025, "Received: rows that are not one-hot"),
        (Y + 0.5, "Received: labels with fractions"),
        (Y.astype(str), "Received: labels of shape"),
        (Y[:, None, None] * np.ones((1, 2, 2)), r"Received: labels of shape \(60, 2, 2\)"),
        (
            np.r_[np.arange(4), np.arange(56) % 3],
            "Received: folds=5, and 1 images of class 3. Add images",
        ),
        (np.r_[0, 1, 2, 3, 3, 3, np.arange(54) % 3], "class 3. Pass folds=3, or add images"),
        (Y[:-1], "as many labels as inputs"),
    ],
)
def test_labels_that_are_refused(labels, message):
    model = small_cnn()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as caught:
        ko.transfer.linear_probe(model, X if labels is None else (X, labels))
    assert "Received: " in str(caught.value)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    x, y = noisy()
    x[3, 0, 0, 2] = value
    with pytest.raises(ValueError, match="`model` must give finite features"):
        ko.transfer.linear_probe(linear(), (x, y))


def test_features_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="features that differ between images"):
        ko.transfer.linear_probe(small_cnn(), (np.ones_like(X), Y))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"c_values": 1.0}, TypeError, "`c_values` must be a list of at least one number"),
        ({"c_values": ()}, TypeError, "`c_values` must be a list of at least one number"),
        ({"c_values": [1.0, 0.0]}, ValueError, r"`c_values\[1\]` must be a number in \(0, inf\]"),
        ({"folds": 1}, ValueError, "`folds` must be an integer >= 2"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
        ({"seed": -1}, ValueError, "`seed` must be an integer >= 0"),
    ],
)
def test_arguments_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        ko.transfer.linear_probe(small_cnn(), (X, Y), **options)
