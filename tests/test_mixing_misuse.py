"""What MixUp and CutMix refuse, and what they leave as it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.augmentation import CutMix, MixUp
from tests.models import compiled, small_cnn, stripes


@pytest.mark.parametrize("kind", [MixUp, CutMix])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 0}, ValueError, r"`alpha` must be a number in \(0, inf\]. Received: alpha=0"),
        ({"alpha": -0.2}, ValueError, "`alpha` must be a number"),
        ({"alpha": "0.2"}, TypeError, "`alpha` must be a number"),
        ({"probability": 0}, ValueError, r"`probability` must be a number in \(0, 1\]"),
        ({"probability": 1.1}, ValueError, r"`probability` must be a number in \(0, 1\]"),
        ({"start": 0.5, "end": 0.5}, ValueError, "`start` must lie before `end`"),
        ({"start": 3, "end": 2}, ValueError, "`start` must lie before `end`"),
        ({"end": 1.5}, ValueError, "`end` must be a fraction of training"),
        ({"start": None}, TypeError, "`start` must be a fraction of training"),
        ({"seed": -1}, ValueError, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


def refused(callback, model, *data, match, epochs=2, **options):
    with pytest.raises(ValueError, match=match):
        model.fit(*data, epochs=epochs, verbose=0, callbacks=[callback], **options)
    assert not {"compute_loss", "train_step", "make_train_function"} & (
        set(vars(model)) if model.train_function is None else set()
    )


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_what_cannot_be_mixed(kind):
    name, (x, y) = kind.__name__, stripes(8)
    model = compiled(small_cnn())
    refused(kind(start=1, end=0.5), model, x, y, match="`start` must lie before `end`")
    refused(kind(end=0.01), model, x, y, match="`start` must lie before `end`")
    refused(kind(start=5), model, x, y, match="`start` must be an epoch of the planned training")
    refused(kind(), model, x, match=f"`{name}` needs labels to mix. Received: y=None")
    unlost = small_cnn()
    unlost.compile("adam", loss=None)
    refused(kind(), unlost, x, y, match=f"`{name}` needs a compiled loss.*loss=None")
    one, two = keras.Input((2,)), keras.Input((2,))
    double = keras.Model([one, two], keras.layers.Dense(1)(one + two))
    double.compile("adam", loss="mse")
    rows = np.ones((4, 2), "float32")
    refused(kind(), double, [rows, rows], rows[:, :1], match=f"`{name}` needs a model with one inp")


def test_rows_are_for_mixup():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", loss="mse")
    rows = np.ones((4, 2), "float32")
    model.fit(rows, rows[:, :1], verbose=0, callbacks=[MixUp()])
    refused(CutMix(), model, rows, rows[:, :1], match="`CutMix` needs images of shape")


def test_a_batch_of_one_stays_as_it_is():
    x, y = stripes(1)
    model = compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.0))
    model.fit(x, y, verbose=0, callbacks=[MixUp(1.0), CutMix()])


class Careless(keras.Model):
    """Its loss leaves the sample weights out."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((y - y_pred) ** 2)


class Careful(keras.Model):
    """Its loss is its own, too, and takes the weights as Keras hands them."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        losses = keras.ops.mean((y - y_pred) ** 2, axis=-1)
        return keras.ops.mean(losses if sample_weight is None else losses * sample_weight)


class Aside(keras.Model):
    """Its train step computes the loss by itself."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((y - self(x)) ** 2)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def own(kind, loss):
    inputs = keras.Input((2,))
    model = kind(inputs, keras.layers.Dense(1)(inputs))
    model.compile("adam", loss=loss)
    return model


@pytest.mark.slow
def test_models_with_a_step_or_a_loss_of_their_own():
    rows = np.ones((4, 2), "float32")
    data = rows, rows[:, :1]
    refused(MixUp(), own(Careless, None), *data, match="`compute_loss` must use `sample_weight`")
    refused(MixUp(), own(Aside, "mse"), *data, match="needs a train_step that calls self.compute_l")
    own(Careful, None).fit(*data, verbose=0, callbacks=[MixUp()])
