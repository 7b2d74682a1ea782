"""What every callback promises, alone and together with all others."""

import os
import random

import keras
import numpy as np
import pytest

import kerasopt as ko
from tests.cases import CASES, IMAGES
from tests.models import compiled, small_cnn, stripes

X, Y = stripes(count=16)
EPOCHS, BATCH = 3, 4
HOOKS = {"call", "compute_loss", "compute_metrics", "train_step", "make_train_function"}
CONVERTS = ("QuantizationGap",)  # makes a file in each epoch
FAST = ("Unfreeze", "PruneLowMagnitude", "MixUp", "Distill")  # one of each room
CALLBACKS = [
    pytest.param(case, id=str(case), marks=pytest.mark.slow if case.name in CONVERTS else ())
    for case in CASES
    if case.kind == "callback"
]
RUNS = [
    pytest.param(case, id=str(case), marks=() if case.name in FAST else pytest.mark.slow)
    for case in CASES
    if case.kind == "callback"
]


def train(model, callbacks=(), *, epochs=EPOCHS):
    keras.utils.set_random_seed(1)
    return model.fit(X, Y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=list(callbacks))


def assert_clean(model):
    """Nothing of a callback is left, and the next training is an ordinary one."""
    assert not HOOKS & set(vars(model))
    assert all(weight.constraint is None for weight in model.weights)
    history = train(model, epochs=1).history
    assert set(history) == {"accuracy", "loss"}
    assert np.isfinite(history["loss"]).all()
    assert not HOOKS & set(vars(model))
    assert all(weight.constraint is None for weight in model.weights)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def assert_reloads(model, path):
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    return loaded


def every_callback():
    return [
        ko.transfer.Unfreeze({0.25: 1, 0.5: "all"}),
        ko.pruning.PruneLowMagnitude(0.5),
        ko.quantization.QuantizeAware(start=0.5),
    ]


def augmented(**options):
    augmentation = ko.augmentation.basic(seed=1)
    model = ko.transfer.build_classifier(small_cnn(), 4, augmentation=augmentation)
    return compiled(model, **options)


class _Stop(keras.callbacks.Callback):
    """Raises behind a batch that comes after everything has begun."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations >= EPOCHS * len(X) // BATCH - 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("case", CALLBACKS)
def test_constructing_a_callback_changes_nothing(case):
    def state():
        numbers = np.random.get_state()  # noqa: NPY002
        return (
            dict(os.environ),
            random.getstate(),
            [numbers[0], numbers[1].tolist(), *numbers[2:]],
            keras.config.dtype_policy(),
            keras.config.floatx(),
            dict(keras.saving.get_custom_objects()),
        )

    before = state()
    case.example()
    assert state() == before


@pytest.mark.parametrize("case", RUNS)
def test_callback_runs_and_comes_off(case, tmp_path):
    model = compiled(small_cnn(), jit_compile=False)
    before = [layer.name for layer in model.layers], [w.path for w in model.weights]
    callback = case.example()
    train(model, [callback])
    assert callback.events
    if not model.optimizer.built:
        # The range test leaves it so, and Keras warns of such a one when it loads the file.
        model.optimizer.build(model.trainable_variables)
    assert ([layer.name for layer in model.layers], [w.path for w in model.weights]) == before
    assert_reloads(model, tmp_path / "model.keras")
    assert_clean(model)


@pytest.mark.slow
@pytest.mark.parametrize("case", CALLBACKS)
def test_callback_can_be_used_twice(case):
    callback = case.example()
    model = compiled(small_cnn())
    first = train(model, [callback]).history
    events = [(event.epoch, event.kind) for event in callback.events]
    second = train(model, [callback]).history
    assert [(event.epoch, event.kind) for event in callback.events] == events
    assert set(first) == set(second)
    assert_clean(model)


@pytest.mark.slow
@pytest.mark.parametrize("case", CALLBACKS)
def test_callback_comes_off_after_an_exception(case):
    model = compiled(small_cnn(), jit_compile=False)
    with pytest.raises(KeyboardInterrupt):
        train(model, [case.example(), _Stop()])
    train(model, epochs=1)
    assert_clean(model)
    assert all(layer.trainable for layer in model.layers if "bn" in layer.name) or (
        case.name in ("Unfreeze", "GradualUnfreeze", "Freeze")  # they say what stays frozen
    )


# All together


def _check_all_together(model, path):
    """One `fit` with every callback, and a second that goes on as a reloaded model would."""
    callbacks = every_callback()
    history = train(model, callbacks).history
    _, prune, aware = callbacks
    assert {"sparsity", "trainable_fraction"} <= set(history)
    assert history["sparsity"][-1] == pytest.approx(0.5, abs=0.05)
    assert prune.sparsity == pytest.approx(0.5, abs=0.05)
    assert history["trainable_fraction"] == sorted(history["trainable_fraction"])
    assert ko.quantization.is_quantization_aware(aware.quantized_model)
    assert not ko.quantization.is_quantization_aware(model)
    assert {event.kind for callback in callbacks for event in callback.events} == {
        "unfreeze",
        "prune",
        "quantize",
    }
    loaded = assert_reloads(model, path)
    loaded.compile(
        optimizer=loaded.optimizer,
        loss=loaded.loss,
        metrics=["accuracy"],
        jit_compile=model.jit_compile,
        steps_per_execution=model.steps_per_execution,
    )
    assert_clean(model)
    assert_clean(loaded)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": False}, {"steps_per_execution": 2}], ids=str
)
def test_all_together(options, tmp_path):
    _check_all_together(augmented(**options), tmp_path / "model.keras")


@pytest.mark.slow
def test_all_together_under_xla(tmp_path):
    # Without augmentation: image warps have no XLA kernel.
    _check_all_together(compiled(small_cnn(), jit_compile=True), tmp_path / "model.keras")


@pytest.mark.slow
def test_all_together_in_mixed_precision(mixed_float16, tmp_path):
    model = augmented()
    assert model.get_layer("stem_conv").compute_dtype == "float16"
    _check_all_together(model, tmp_path / "model.keras")


@pytest.mark.slow
def test_all_together_then_training_goes_on_as_if_nothing_had_been(tmp_path):
    # The oracle: the reloaded model has met no callback, so it cannot keep anything of one.
    model = small_cnn()
    model.get_layer("head_dropout").rate = 0.0  # Keras does not save where its dice stand
    train(compiled(model, optimizer="adam"), every_callback())
    loaded = assert_reloads(model, tmp_path / "model.keras")
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    train(model, epochs=1)
    train(loaded, epochs=1)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_all_together_come_off_after_an_exception():
    model = augmented()
    with pytest.raises(KeyboardInterrupt):
        train(model, [*every_callback(), _Stop()])
    train(model, epochs=1)
    assert_clean(model)


@pytest.mark.slow
def test_all_together_become_an_int8_file():
    model, callbacks = augmented(), every_callback()
    train(model, callbacks)
    made = ko.export.to_tflite(callbacks[-1].quantized_model, quantize="int8", verify=(X, Y))
    assert made.samples == len(X)
    assert not any("RANDOM" in operator.upper() for operator in made.operators)
    model.predict(IMAGES, verbose=0)
