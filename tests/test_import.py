"""Importing kerasopt changes nothing and loads nothing; each check in a fresh process."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

HEAVY = {
    "PIL",
    "ai_edge_litert",
    "jinja2",
    "keras",
    "keras_cv",
    "matplotlib",
    "numpy",
    "rich",
    "tensorflow",
    "tensorflow_model_optimization",
    "tf_keras",
    "typer",
}
# What the process looks like; `changed` names what is no longer as it was.
LOOK = """
import json, os, sys, warnings
import keras, tensorflow

# What SciPy and setuptools, which TF-MOT imports, set up for warnings of their own.
THEIRS = ("scipy", "pkg_resources")

def look():
    return {
        "environment": dict(os.environ),
        "warning filters": [
            entry for entry in warnings.filters if not entry[2].__module__.startswith(THEIRS)
        ],
        "showwarning": warnings.showwarning,
        "dtype policy": keras.config.dtype_policy().name,
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image data format": keras.config.image_data_format(),
        "backend": keras.config.backend(),
        "eager": tensorflow.config.functions_run_eagerly(),
        "excepthook": sys.excepthook,
    }

def report():
    after = look()
    print(json.dumps({
        "changed": [name for name in before if before[name] != after[name]],
        "tf.keras": tensorflow.keras.__version__,
        "legacy": os.environ.get("TF_USE_LEGACY_KERAS"),
        "loaded": sorted({name.split(".")[0] for name in sys.modules}),
    }))

before = look()
"""
TOUCH = """
import kerasopt as ko
rooms = [getattr(ko, name) for name in ko.__all__ if name != "__version__"]
"""


def run(code, **variables):
    """Runs code in a fresh process and returns what its last line says, in JSON."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "TF_USE_LEGACY_KERAS")
    }
    environment = {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_the_standard_library_alone():
    loaded = run(
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "import kerasopt\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in set(sys.modules) - before})))"
    )
    assert not HEAVY & set(loaded)
    assert set(loaded) - set(sys.stdlib_module_names) == {"kerasopt", "wrapt"}


@pytest.mark.slow
def test_touching_every_room_changes_nothing():
    found = run(f"{LOOK}{TOUCH}report()")
    assert found["changed"] == []
    assert found["tf.keras"].startswith("3.")
    assert found["legacy"] is None
    # What only some work needs is loaded when that work begins.
    assert not {"keras_cv", "tensorflow_model_optimization", "tf_keras"} & set(found["loaded"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["", "import kerasopt.pruning\n"], ids=["keras-first", "ours-first"]
)
def test_tfmot_schedules_leave_keras_3_in_place(first):
    found = run(
        f"{first}{LOOK}{TOUCH}"
        "ko.pruning.PruneLowMagnitude(schedule=None)\n"
        "timeline = ko.training.Timeline(epochs=2, steps_per_epoch=10)\n"
        "ko.pruning.FractionSchedule().resolve(0.5, timeline)\n"
        "report()"
    )
    assert "tensorflow_model_optimization" in found["loaded"]
    assert found["legacy"] is None
    assert found["tf.keras"].startswith("3.")
    assert "environment" not in found["changed"]
    assert found["changed"] == []


@pytest.mark.slow
def test_keras_cv_leaves_keras_3_in_place():
    found = run(f"{LOOK}{TOUCH}ko.augmentation.basic()\nreport()")
    assert "keras_cv" in found["loaded"]
    assert found["tf.keras"].startswith("3.")
    assert found["changed"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "keras, kerasopt as ko",
        "kerasopt as ko, keras",
    ],
)
def test_keras_files_load_with_the_rooms_still_closed(imports, tmp_path):
    path = str(tmp_path / "model.keras")
    predict = "print(json.dumps(model.predict(numpy.ones((1, 4, 4, 3)), verbose=0).tolist()))"
    expected = run(
        f"import json, numpy, {imports}\n"
        "model = keras.Sequential([keras.Input((4, 4, 3)), ko.transfer.Preprocess('resnet')])\n"
        f"model.save({path!r})\n{predict}"
    )
    loaded = run(
        f"import json, numpy, {imports}\nmodel = keras.saving.load_model({path!r})\n{predict}"
    )
    assert loaded == expected


def test_unknown_attribute_names_the_rooms():
    import kerasopt as ko

    with pytest.raises(
        AttributeError, match=r"has no attribute 'foo'; it has augmentation.*transfer"
    ):
        _ = ko.foo


def test_dir_lists_the_rooms():
    import kerasopt as ko

    _ = ko.training  # a room that is open stands there once, too
    assert set(ko.__all__) <= set(dir(ko))
    assert dir(ko) == sorted(set(dir(ko)))


ASK_EVERY_ROOM = """
import json, kerasopt as ko
said = {}
for name in ko.__all__[1:]:
    try:
        getattr(ko, name)
    except ImportError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def _check_refusals(said, backend):
    works_anywhere = {"report"}
    import kerasopt as ko

    assert set(said) == set(ko.__all__) - {"__version__"} - works_anywhere
    for message in said.values():
        assert f"backend={backend!r}" in message
        assert "KERAS_BACKEND=tensorflow" in message


@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="every other backend of Keras needs jax or torch",
)
def test_another_backend_is_refused():
    _check_refusals(run(ASK_EVERY_ROOM, KERAS_BACKEND="jax"), "jax")


@pytest.mark.slow
def test_what_another_backend_is_told():
    # Keras itself cannot be imported on a backend that is not installed, so what it says is set.
    pretend = "import keras\nkeras.backend.backend = lambda: 'jax'\n"
    _check_refusals(run(pretend + ASK_EVERY_ROOM), "jax")
