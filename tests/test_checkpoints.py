"""State of callbacks in the weights files of a running `fit`."""

import keras
import numpy as np
import pytest

from kerasopt.training import TrainingCallback, ride_in_checkpoints

X, Y = np.eye(4, dtype="float32"), np.ones((4, 1), "float32")


class Counter(TrainingCallback):
    """Counts batches, and goes on counting where the checkpoint was."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.count = 0
        self.loaded = None

    def prepare(self):
        self.remove = ride_in_checkpoints(
            self.model, self.name, lambda: {"count": np.array(self.count)}, self.load
        )

    def load(self, state):
        self.count = self.loaded = int(state["count"])

    def begin(self):
        self.session.on_release(self, self.remove)

    def before_batch(self, epoch, batch):
        self.count += 1


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def model_of():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    return model


def fit(model, *callbacks, epochs=1, **options):
    model.fit(X, Y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def left_on(model):
    return {"one", "two", "save_weights", "load_weights"} & set(vars(model))


def test_two_states_in_one_file(tmp_path):
    one, two, model = Counter("one"), Counter("two"), model_of()
    path = tmp_path / "m.weights.h5"
    fit(model, one, keras.callbacks.ModelCheckpoint(path, save_weights_only=True), two, epochs=3)
    assert not left_on(model)

    class Load(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.load_weights(path)

    other = model_of()
    one, two = Counter("one"), Counter("two")
    fit(other, Load(), one, two)
    assert (one.loaded, two.loaded) == (6, 6)
    assert one.count == 8
    # A file is a weights file like any other.
    plain = model_of()
    plain.load_weights(path)
    assert not left_on(plain)


def test_a_file_without_the_state(tmp_path):
    model_of().save_weights(tmp_path / "m.weights.h5")

    class Load(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.load_weights(tmp_path / "m.weights.h5")

    one = Counter("one")
    fit(model_of(), one, Load())
    assert one.loaded is None


def test_the_models_own_methods_come_back(tmp_path):
    model, calls = model_of(), []

    def save_weights(*args, **kwargs):
        calls.append(args)
        return type(model).save_weights(model, *args, **kwargs)

    vars(model)["save_weights"] = save_weights
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "m.weights.h5", save_weights_only=True)
    fit(model, Counter("one"), checkpoint)
    assert len(calls) == 1
    assert vars(model)["save_weights"] is save_weights
    assert left_on(model) == {"save_weights"}


@pytest.mark.parametrize("then", ["fit", "save"])
def test_nothing_is_left_of_an_interrupted_fit(tmp_path, then):
    model = model_of()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Counter("one"), Interrupt())
    assert left_on(model) == {"save_weights", "load_weights"}
    if then == "fit":
        fit(model, Counter("two"))
    else:
        model.save_weights(tmp_path / "m.weights.h5")
    assert not left_on(model)


def test_outside_of_fit_nothing_happens():
    model = model_of()
    model.evaluate(X, Y, verbose=0, callbacks=[Counter("one")])
    assert not left_on(model)
