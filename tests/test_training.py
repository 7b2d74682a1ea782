"""Sessions, moments and the optimizer."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kerasopt as ko
from kerasopt.training import Timeline, TrainingCallback, build_optimizer, session
from tests.models import compiled, small_cnn, stripes


class Doubler(TrainingCallback):
    """Doubles the loss through the session, from the second batch on."""

    def __init__(self, fail=False):
        super().__init__()
        self.fail = fail

    def before_batch(self, epoch, batch):
        if batch == 1:
            self.session.hook(self, "compute_loss", _double, order=0)
            self.session.retrace()
        if self.fail and batch == 2:
            raise KeyboardInterrupt


def _double(inner):
    return lambda *args, **kwargs: 2.0 * inner(*args, **kwargs)


@pytest.fixture
def model():
    return compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.0))


def test_hook_changes_the_step_and_comes_off(model):
    x, y = stripes(32)
    plain = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"][0]
    doubled = model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[Doubler()])
    assert doubled.history["loss"][0] > 1.5 * plain
    for name in ("call", "compute_loss", "train_step", "make_train_function"):
        assert name not in vars(model)
    again = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"][0]
    assert again == pytest.approx(plain, rel=0.2)


HOOKS = {"call", "compute_loss", "train_step"}
MAKERS = {"make_train_function", "make_test_function", "make_predict_function"}


@pytest.mark.parametrize(
    "use",
    [
        lambda model, x, y: model.evaluate(x, y, verbose=0),
        lambda model, x, y: model.predict(x, verbose=0),
        lambda model, x, y: model.compute_loss(x=x, y=y, y_pred=model(x)),
        lambda model, x, y: ko.training.settle(model),
    ],
)
def test_interrupted_fit_is_cleared_by_whatever_comes_next(model, use):
    x, y = stripes(32)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[Doubler(fail=True)])
    assert "compute_loss" in vars(model)
    use(model, x, y)
    assert not (HOOKS | MAKERS) & set(vars(model))


@pytest.mark.slow
def test_interrupted_fit_predicts_what_it_saves(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    model = compiled(small_cnn())
    x, y = stripes(32)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            x, y, batch_size=8, verbose=0, callbacks=[ko.quantization.QuantizeAware(), Stop()]
        )
    found = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), found)


def test_interrupted_fit_is_cleared_by_the_next(model):
    x, y = stripes(32)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[Doubler(fail=True)])
    assert "compute_loss" in vars(model)
    plain = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"][0]
    assert "compute_loss" not in vars(model)
    assert "make_train_function" not in vars(model)
    assert plain < 2.5


def test_hooks_stack_by_order_not_by_callback(model):
    log = []

    def tag(name):
        def wrapper(inner):
            def outer(*args, **kwargs):
                log.append(name)
                return inner(*args, **kwargs)

            return outer

        return wrapper

    current = session(model)
    current.hook("late", "compute_loss", tag("outer"), order=10)
    current.hook("early", "compute_loss", tag("inner"), order=1)
    x, y = stripes(8)

    def fit(self):  # hooks work inside a `fit` of the model alone
        self.compute_loss(x=x, y=y, y_pred=self(x))

    fit(model)
    assert log == ["outer", "inner"]
    current.close()
    assert "compute_loss" not in vars(model)


def test_users_own_instance_method_is_given_back(model):
    mine = model.compute_loss
    model.compute_loss = mine
    current = session(model)
    current.hook("me", "compute_loss", _double, order=0)
    assert model.compute_loss is not mine
    current.release("me")
    assert model.compute_loss is mine


def test_unknown_hook():
    model = compiled(small_cnn())
    current = session(model)
    with pytest.raises(ValueError, match="`kind` must be one of"):
        current.hook("me", "predict", _double, order=0)
    current.close()


@given(
    epochs=st.integers(1, 50),
    steps=st.integers(1, 500),
    fraction=st.floats(0.0, 1.0, exclude_max=True),
)
def test_a_fraction_is_reached_once_and_in_order(epochs, steps, fraction):
    timeline = Timeline(epochs, steps)
    position = timeline.resolve(fraction, name="moment")
    step = timeline.step_of(position)
    assert 0 <= step <= epochs * steps
    before, at = step - 1, step
    if before >= 0:
        assert not timeline.reached(position, before // steps, before % steps)
    assert timeline.reached(position, at // steps, at % steps)


def test_moments_without_known_length_fall_on_epochs():
    timeline = Timeline(4, None)
    position = timeline.resolve(0.4, name="start")
    assert not timeline.reached(position, 1, 999)
    assert timeline.reached(position, 2, 0)


@pytest.mark.parametrize(
    ("moment", "error", "message"),
    [
        (True, TypeError, "fraction of training"),
        ("half", TypeError, "fraction of training"),
        (1.5, ValueError, r"Did you mean the epoch 2\?"),
        (-0.1, ValueError, r"in \[0, 1\]"),
        (7, ValueError, r"an epoch of the planned training, 0 to 3. Received: start=7"),
    ],
)
def test_bad_moments(moment, error, message):
    with pytest.raises(error, match=message):
        Timeline(4, 10).resolve(moment, name="start")


@pytest.mark.parametrize(
    "name",
    [
        "Adam",
        "SGD",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("AdamW", "RMSprop", "Lion", "Adafactor", "Muon")
        ),
    ],
)
def test_optimizer_grows_and_keeps_its_slots(name):
    if name == "Muon" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15):
        pytest.skip("Muon of older Keras asks TensorFlow variables for a path they do not have")
    options = {"momentum": 0.9} if name == "SGD" else {}
    model = compiled(small_cnn(), optimizer=getattr(keras.optimizers, name)(1e-3, **options))
    for layer in model.layers[:-1]:
        layer.trainable = False
    x, y = stripes(32)
    model.fit(x, y, batch_size=8, verbose=0)
    before = [v.numpy() for v in model.optimizer.variables]
    for layer in model.layers:
        layer.trainable = True
    build_optimizer(model, model.trainable_variables)
    after = [v.numpy() for v in model.optimizer.variables]
    assert len(after) > len(before)
    # Every old slot is found again; the head's stand last among those of the same shape.
    for value in before:
        assert any(value.shape == a.shape and np.array_equal(value, a) for a in after)
    fresh = [a for a in after if a.size > 1 and np.any(a)]
    moved = [b for b in before if b.size > 1 and np.any(b)]
    assert len(fresh) == len(moved) > 0
    assert int(model.optimizer.iterations) == 4
    model.fit(x, y, batch_size=8, verbose=0)
    assert int(model.optimizer.iterations) == 8


def test_optimizer_that_knows_all_variables_is_left_alone():
    model = compiled(small_cnn())
    x, y = stripes(16)
    model.fit(x, y, verbose=0)
    optimizer = model.optimizer
    build_optimizer(model, model.trainable_variables)
    assert model.optimizer is optimizer


@pytest.mark.parametrize("choice", [{"var_names": ["kernel"]}, {"var_list": True}], ids=str)
def test_what_is_excluded_from_weight_decay_stays_so(choice):
    model = compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.0, weight_decay=0.1))
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    choice = {"var_list": kernels} if "var_list" in choice else choice
    model.optimizer.exclude_from_weight_decay(**choice)
    model.optimizer.build([model.layers[-1].kernel])
    build_optimizer(model, model.trainable_variables)
    optimizer = model.optimizer
    optimizer.learning_rate = 0.5
    before = {v.path: v.numpy() for v in model.trainable_variables}
    gamma = next(v for v in model.trainable_variables if v.name == "gamma")
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    np.testing.assert_allclose(gamma.numpy(), before[gamma.path] * 0.95, rtol=1e-6)
    for kernel in kernels:
        np.testing.assert_array_equal(kernel.numpy(), before[kernel.path])


def test_loss_scale_optimizer_grows_too():
    inner = keras.optimizers.Adam(1e-3)
    model = compiled(small_cnn(), optimizer=keras.optimizers.LossScaleOptimizer(inner))
    for layer in model.layers[:-1]:
        layer.trainable = False
    x, y = stripes(16)
    model.fit(x, y, batch_size=8, verbose=0)
    for layer in model.layers:
        layer.trainable = True
    build_optimizer(model, model.trainable_variables)
    model.fit(x, y, batch_size=8, verbose=0)
    assert int(model.optimizer.inner_optimizer.iterations) == 4


def test_room_is_reached_from_the_root():
    assert ko.training.session is session
