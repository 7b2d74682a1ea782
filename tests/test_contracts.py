"""What every public object promises, checked over the table of `tests/cases`."""

import copy
import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import json
import pathlib
import pkgutil
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt._saved_classes import ROOM_OF
from tests.cases import CASES, ROOMS
from tests.models import small_cnn


def of_kind(*kinds):
    return [pytest.param(case, id=str(case)) for case in CASES if case.kind in kinds]


def bad_cases():
    for case in CASES:
        for index, bad in enumerate(case.bad):
            yield pytest.param(case, bad, id=f"{case}-{index}")


EVERY = [pytest.param(case, id=str(case)) for case in CASES]
LAYERS = of_kind("layer")


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


# These build MobileNetV2, convert a model or make every recipe.
SLOW_EXAMPLES = {
    "kerasopt.transfer._blocks",
    "kerasopt.transfer._classifier",
    "kerasopt.transfer._fine_tune",
    "kerasopt.augmentation._recipes",
    "kerasopt.export._operations",
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
