"""What every public object promises, checked over the table of `tests/cases`."""

import copy
import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import json
import os
import pathlib
import pkgutil
import random
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt._saved_classes import ROOM_OF
from tests.cases import CASES, IMAGES, ROOMS
from tests.models import compiled, small_cnn, stripes

X, Y = stripes(count=16)
EPOCHS, BATCH = 3, 4
HOOKS = {"call", "compute_loss", "train_step", "make_train_function"}


def of_kind(*kinds):
    return [pytest.param(case, id=str(case)) for case in CASES if case.kind in kinds]


def bad_cases():
    for case in CASES:
        for index, bad in enumerate(case.bad):
            yield pytest.param(case, bad, id=f"{case}-{index}")


EVERY = [pytest.param(case, id=str(case)) for case in CASES]
LAYERS, CALLBACKS = of_kind("layer"), of_kind("callback")


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


# The table and the names


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_one_case(room):
    names = getattr(ko, room).__all__
    assert names == sorted(names)
    assert sorted(case.name for case in CASES if case.room == room) == names


def test_every_room_is_in_the_table():
    assert sorted([*ROOMS, "callbacks", "__version__"]) == sorted(ko.__all__)


def test_callbacks_lists_every_callback():
    cases = [case for case in CASES if case.kind == "callback"]
    assert ko.callbacks.__all__ == sorted(case.name for case in cases)
    for case in cases:
        assert getattr(ko.callbacks, case.name) is case.target


# Docstrings


@pytest.mark.parametrize(
    "case", of_kind("layer", "callback", "transform", "function", "result", "class")
)
def test_docstring_names_what_there_is(case):
    text = inspect.getdoc(case.target)
    assert text
    assert text.splitlines()[0].rstrip().endswith(".")
    parameters = inspect.signature(case.target).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.POSITIONAL_ONLY)]
    hosts = {"layer": {"dtype"}, "class": {"message"}}  # as for every layer, every exception
    named = [name for name in named if name not in hosts.get(case.kind, ())]
    if named:
        assert re.search(r"^(Args|Attributes):", text, re.MULTILINE)
    missing = [name for name in named if not re.search(rf"^ +{name}: ", text, re.MULTILINE)]
    assert not missing, f"no word on {missing}"


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in CASES if c.bad])
def test_docstring_says_what_is_raised(case):
    texts = [inspect.getdoc(case.target) or ""]
    if inspect.isclass(case.target):  # what a method raises stands with the method
        texts += [inspect.getdoc(m) or "" for m in vars(case.target).values() if callable(m)]
    raises = " ".join(text.split("Raises:")[1] for text in texts if "Raises:" in text)
    missing = {error.__name__ for _, error, _ in case.bad} - set(re.findall(r"\w+Error", raises))
    assert not missing


def _modules_with_examples():
    for module in pkgutil.walk_packages(ko.__path__, "kerasopt."):
        source = pathlib.Path(importlib.util.find_spec(module.name).origin)
        if ">>> " in source.read_text(encoding="utf-8"):
            slow = module.name in SLOW_EXAMPLES
            yield pytest.param(module.name, marks=[pytest.mark.slow] if slow else [])


# These build MobileNetV2 or convert a model.
SLOW_EXAMPLES = {
    "kerasopt.transfer._blocks",
    "kerasopt.transfer._classifier",
}


@pytest.mark.parametrize("name", [*_modules_with_examples()])
def test_docstring_examples_run(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert not outcome.failed
    source = inspect.getsource(importlib.import_module(name))
    assert outcome.attempted or "# doctest: +SKIP" in source


# Use and misuse


@pytest.mark.parametrize("case", EVERY)
def test_example_works(case):
    if case.kind == "alias":
        assert case.make is None
        return
    made = case.example()
    if inspect.isclass(case.target):
        assert isinstance(made, case.target)


@pytest.mark.parametrize(("case", "bad"), [*bad_cases()])
def test_bad_input_is_refused(case, bad):
    how, error, message = bad
    with pytest.raises(error, match=message) as caught:
        how() if callable(how) else case.target(**how)
    assert type(caught.value) is error
    assert "Received: " in str(caught.value)


@pytest.mark.parametrize("case", of_kind("result"))
def test_results_are_immutable(case):
    made = case.example()
    if isinstance(made, tuple):
        return
    assert dataclasses.is_dataclass(made)
    field = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, field, None)


def _state(model):
    return {
        "config": json.dumps(model.get_config(), default=str, sort_keys=True),
        "trainable": [layer.trainable for layer in model.layers],
        "attributes": sorted(vars(model)),
        "constraints": [weight.constraint for weight in model.weights],
    }


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in CASES if c.of_model])
def test_models_are_left_alone(case):
    model = small_cnn()
    model.get_layer("stem_conv").trainable = False
    state, weights = _state(model), model.get_weights()
    made = case.of_model(model)
    if case.kind == "transform":
        assert isinstance(made, keras.Model)
        made.trainable = not made.trainable
        made.set_weights([np.zeros_like(weight) for weight in made.get_weights()])
    assert _state(model) == state
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


# Layers


def _model_of(case):
    """A model of the layer alone, behind a training batch so that it has something to remember."""
    inputs = keras.Input(case.sample_input.shape[1:])
    model = keras.Model(inputs, case.example()(inputs))
    model(case.sample_input, training=True)
    return model


def _as_json(config):
    """Text of a config: tuples equal lists, and numbers that Keras gives to shared objects go."""
    text = json.dumps(keras.saving.serialize_keras_object(config), sort_keys=True)
    return re.sub(r'"shared_object_id": \d+', "", text)


@pytest.mark.parametrize("case", LAYERS)
def test_layer_config_round_trip(case):
    layer = case.example()
    config = layer.get_config()
    # A copy, for Keras's wrappers take their layer out of the config that they are given.
    again = type(layer).from_config(copy.deepcopy(config)).get_config()
    assert again.keys() == config.keys()
    assert _as_json(again) == _as_json(config)
    parameters = inspect.signature(case.target).parameters.values()
    assert {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} <= set(config)


@pytest.mark.parametrize("case", LAYERS)
def test_layer_is_registered(case):
    assert case.serializable
    assert ROOM_OF[case.name] == case.room
    assert keras.saving.get_registered_name(case.target) == f"kerasopt>{case.name}"


@pytest.mark.parametrize("case", LAYERS)
def test_layer_survives_a_keras_file(case, tmp_path):
    model = _model_of(case)
    expected = model.predict(case.sample_input, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(case.sample_input, verbose=0), expected)
    assert _as_json(loaded.layers[-1].get_config()) == _as_json(model.layers[-1].get_config())


@pytest.mark.slow
def test_keras_files_load_in_a_process_that_imported_the_room_alone(tmp_path):
    cases = [case for case in CASES if case.kind == "layer"]
    for case in cases:
        model = _model_of(case)
        model.save(tmp_path / f"{case}.keras")
        np.save(tmp_path / f"{case}.output.npy", model.predict(case.sample_input, verbose=0))
        np.save(tmp_path / f"{case}.input.npy", case.sample_input)
    code = """
import importlib, pathlib, sys
import keras, numpy as np

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    importlib.import_module("kerasopt." + path.name.split(".")[0])
    given, expected = (np.load(path.with_suffix(f".{n}.npy")) for n in ("input", "output"))
    found = keras.saving.load_model(path).predict(given, verbose=0)
    np.testing.assert_array_equal(found, expected)
    print(path.stem)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(str(case) for case in cases)


def _check_dtypes(case):
    layer = case.example()
    inputs = keras.Input(case.sample_input.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    for training in (False, True):
        output = model(case.sample_input, training=training)
        assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    assert model.output.dtype == layer.compute_dtype
    assert model.predict(case.sample_input, verbose=0).dtype == layer.compute_dtype


@pytest.mark.parametrize("case", LAYERS)
def test_layer_keeps_its_dtype(case):
    _check_dtypes(case)


@pytest.mark.parametrize("case", LAYERS)
def test_layer_keeps_its_dtype_in_mixed_precision(case, mixed_float16):
    _check_dtypes(case)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", LAYERS)
def test_layer_is_traced_once(case, training):
    layer, traces = case.example(), []
    layer(case.sample_input)

    @tf.function
    def call(x):
        traces.append(x.shape)
        return layer(x, training=training) if "training" in parameters else layer(x)

    parameters = inspect.signature(layer.call).parameters
    first = call(tf.constant(case.sample_input))
    second = call(tf.constant(case.sample_input) * 0.5)
    assert len(traces) == 1
    assert first.shape == second.shape


# Callbacks


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


@pytest.mark.parametrize("case", CALLBACKS)
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
