"""Subclassed models: what their `call` makes of symbolic inputs is quantized like any graph."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from kerasopt.quantization import QuantizeAware, float_operations, quantize_aware
from tests.models import compiled, stripes

X, Y = stripes(64)


class Net(keras.Model):
    """Layers and `keras.ops`, and a branch for training alone."""

    def __init__(self):
        super().__init__(name="net")
        self.conv = layers.Conv2D(8, 3, use_bias=False, name="conv")
        self.norm = layers.BatchNormalization(momentum=0.8, name="norm")
        self.drop = layers.Dropout(0.1, name="drop")
        self.elu = layers.ELU(name="elu")
        self.project = layers.Conv2D(8, 3, strides=2, padding="same", name="project")
        self.scores = layers.Dense(4, name="scores")

    def call(self, x, training=False):
        x = keras.ops.relu(self.norm(self.conv(x / 255.0), training=training))
        x = self.drop(self.project(self.elu(x)), training=training)
        return self.scores(keras.ops.mean(x, axis=(1, 2)))


class Words(keras.Model):
    def __init__(self):
        super().__init__(name="words")
        self.table = layers.Embedding(1000, 8, name="table")
        self.scores = layers.Dense(3, name="scores")

    def call(self, tokens):
        return self.scores(keras.ops.mean(self.table(tokens), axis=1))


class Scaled(keras.Model):
    """Weights that are no layer's."""

    def __init__(self):
        super().__init__(name="scaled")
        self.dense = layers.Dense(6, name="dense")
        self.scores = layers.Dense(4, name="scores")
        self.gamma = self.add_weight(shape=(6,), initializer="ones", name="gamma")
        self.offset = self.add_weight(shape=(6,), initializer="zeros", name="offset")

    def call(self, x, training=None):
        x = self.dense(layers.Flatten()(x)) * self.gamma
        return self.scores(keras.ops.subtract(self.offset, x))


class Divided(Scaled):
    def call(self, x):
        return self.scores(self.dense(layers.Flatten()(x)) / self.gamma)


class Exponential(Scaled):
    def call(self, x, training=None):
        x = self.dense(layers.Flatten()(x)) * keras.ops.exp(self.gamma)
        return self.scores(x + self.offset)


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__(name="two_arguments")
        self.scores = layers.Dense(2, name="scores")

    def call(self, x, y):
        return self.scores(x + y)


def built(model, *x):
    keras.utils.set_random_seed(0)
    model(*x)
    return model


@pytest.mark.slow
def test_training_in_place_and_the_file():
    model = compiled(built(Net(), X[:1]), optimizer=keras.optimizers.Adam(0.01))
    quantize = QuantizeAware(start=0.5)
    model.fit(X, Y, batch_size=16, epochs=16, verbose=0, callbacks=[quantize])
    aware = quantize.quantized_model
    assert "call" not in vars(model)
    assert [name for name, _ in quantize.float_operations] == ["elu"]
    # The very weights of the model, with BatchNormalization in training mode while it trained.
    assert {id(v) for v in model.weights} <= {id(v) for v in aware.weights}
    assert np.any(model.norm.moving_mean.numpy() != 0)
    result = ko.export.to_tflite(aware, quantize="int8", verify=(X, Y))
    report = ko.export.compare_operations(aware, result.content, X, samples=8)
    assert report.faults() == []
    assert report.kernels == 3
    assert result.accuracy > 0.9
    assert result.agreement >= 0.98


def test_the_copy_leaves_the_model_alone():
    model = built(Net(), X[:1])
    before = model(X).numpy()
    aware = quantize_aware(model)
    np.testing.assert_allclose(aware(X), before, atol=0.1)
    aware(X, training=True)
    np.testing.assert_array_equal(model(X), before)
    assert not {id(v) for v in model.weights} & {id(v) for v in aware.weights}


@pytest.mark.slow
def test_words_are_integers():
    tokens = np.random.default_rng(0).integers(0, 1000, (8, 6))
    aware = quantize_aware(built(Words(), tokens))
    assert aware.inputs[0].dtype == "int32"
    aware(tokens, training=True)
    file = ko.export.to_tflite(aware, quantize="int8")
    assert float_operations(aware) == ()
    assert ko.export.compare_operations(aware, file.content, tokens, samples=8).faults() == []


def test_a_call_of_several_arguments():
    x = np.ones((1, 3), "float32")
    with pytest.raises(ValueError, match=r"does not run on symbolic inputs .*argument: 'y'"):
        quantize_aware(built(TwoArguments(), x, x))


def test_a_model_that_was_never_called():
    model = Scaled()
    model.built = True
    with pytest.raises(ValueError, match=r"not what it takes either\. Call it on one array"):
        quantize_aware(model)


@pytest.mark.slow
def test_weights_of_the_model_itself_train_in_place(tmp_path):
    model = compiled(built(Scaled(), X[:1]), optimizer=keras.optimizers.Adam(0.01))
    quantize = QuantizeAware()
    model.fit(X, Y, batch_size=16, epochs=8, verbose=0, callbacks=[quantize])
    assert np.all(model.gamma.numpy() != 1)
    assert np.all(model.offset.numpy() != 0)
    quantize.quantized_model.save(tmp_path / "aware.keras")
    aware = keras.models.load_model(tmp_path / "aware.keras")
    assert float_operations(aware) == ()
    np.testing.assert_allclose(ko.quantization.strip(aware)(X), model(X), rtol=1e-5, atol=1e-4)
    file = ko.export.to_tflite(aware, quantize="int8")
    assert ko.export.compare_operations(aware, file.content, X, samples=8).faults() == []


def test_a_copy_has_weights_of_the_model_of_its_own():
    model = built(Scaled(), X[:1])
    aware = compiled(quantize_aware(model))
    aware.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.gamma.numpy(), np.ones(6))
    (gamma,) = (v for v in aware.trainable_variables if v.name == "gamma")
    assert np.all(gamma.numpy() != 1)


def test_an_operation_with_a_weight_that_int8_has_not_is_named():
    aware = quantize_aware(built(Divided(), X[:1]))
    ((name, reason),) = float_operations(aware)
    assert name.startswith("true_divide")
    assert reason == "computes with a weight of the model itself"
    aware(X, training=True)
    np.testing.assert_allclose(ko.quantization.export_twin(aware)(X[:1]), aware(X[:1]), atol=1e-3)


def test_a_weight_that_would_be_a_constant_is_trained():
    model = compiled(built(Exponential(), X[:1]))
    with pytest.warns(UserWarning, match=r"with its weight 'gamma' alone first"):
        model.fit(X, Y, verbose=0, callbacks=[QuantizeAware()])
    assert np.all(model.gamma.numpy() != 1)


def test_a_model_that_cannot_be_copied():
    model = built(Exponential(), X[:1])
    with (
        pytest.warns(UserWarning, match="whose graph Keras does not know"),
        pytest.raises(ValueError, match=r"'scaled', a Exponential, that cannot be made from its"),
    ):
        quantize_aware(model)


def test_ranges_that_could_not_learn():
    model = compiled(built(Words(), np.zeros((1, 6))))
    with pytest.raises(ValueError, match=r"'words', a Words without it\. Write `def call"):
        model.fit(np.zeros((8, 6)), Y[:8], verbose=0, callbacks=[QuantizeAware()])
