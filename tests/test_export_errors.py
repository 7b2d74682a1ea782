"""What cannot be exported, and whose fault it is: layers, data, labels, folders."""

import pathlib
import resource
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt._files import write_atomic
from kerasopt.export import TFLiteModel, to_tflite
from kerasopt.export._metadata_plan import Observed
from tests.models import small_cnn, stripes

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Erf(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.erf(inputs)


class Igamma(keras.layers.Layer):
    def call(self, inputs):
        return tf.math.igamma(inputs, inputs)


def model_with(*layers):
    return keras.Sequential([keras.Input((6, 6, 3)), *layers])


@pytest.fixture(scope="module")
def flex():
    model = model_with(keras.layers.Conv2D(2, 3), Erf(name="error_function_1"))
    return to_tflite(model, allow_flex=True)


def nested():
    inner = keras.Sequential([keras.Input((6, 6, 3)), Erf(name="error_function_1")], name="block")
    return model_with(keras.layers.Conv2D(3, 3, padding="same"), inner)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nested,
            r"Received: Erf in the layer 'block/error_function_1'\. Use for Erf the tanh form",
        ),
        (lambda: model_with(Igamma(name="odd")), r"Received: Igamma in the layer 'odd'\. Build it"),
        (
            lambda: keras.Model(*(lambda x: (x, keras.ops.erf(x)))(keras.Input((4,)))),
            "Received: Erf in an operation of the model itself",
        ),
        pytest.param(
            lambda: model_with(
                keras.layers.Lambda(
                    lambda x: tf.numpy_function(np.sin, [x], tf.float32), (6, 6, 3), name="python"
                )
            ),
            r"Received: PyFunc in the layer 'python'\. Use for PyFunc keras\.ops",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_layer_of_an_operator_without_builtin(model, message):
    with pytest.raises(ValueError, match=message) as caught:
        to_tflite(model())
    # What Flex has as little is not offered.
    assert ("allow_flex=True" in str(caught.value)) == ("Erf" in message)


def test_flex_is_accepted_and_said(flex):
    assert flex.operators == ("CONV_2D", "FlexErf")
    assert flex.samples == 0
    lite = TFLiteModel(flex.content)
    assert lite.input_shape == (1, 6, 6, 3)
    with pytest.raises(ValueError, match="no interpreter for Python has the Flex delegate"):
        lite.predict(np.zeros((1, 6, 6, 3)))


def test_flex_cannot_be_verified():
    with pytest.raises(ValueError, match=r"`verify` must be None.*FlexErf"):
        to_tflite(model_with(Erf()), allow_flex=True, verify=np.ones((2, 6, 6, 3)))


def test_state_that_a_call_moves_on_moves_on_in_the_file():
    class Count(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return x * self.count

    content = to_tflite(keras.Sequential([keras.Input((3,)), Count()])).content
    lite = TFLiteModel(content)
    ones = np.ones((1, 3), "float32")
    assert [float(lite.predict(ones)[0, 0]) for _ in range(3)] == [1.0, 2.0, 3.0]


def test_a_lookup_table_goes_into_the_file():
    ids = keras.Input((4,), dtype="int64")
    found = keras.layers.IntegerLookup(vocabulary=[3, 5, 7])(ids)
    model = keras.Model(ids, keras.layers.Embedding(5, 2)(found))
    with pytest.raises(ValueError, match="LookupTableFindV2 in the layer 'integer_lookup'"):
        to_tflite(model)
    assert "FlexLookupTableFindV2" in to_tflite(model, allow_flex=True).operators


def labels_that_do_not_match():
    x, y = stripes(4)
    yield (x, y + 4), r"labels from \d+ to 7"
    yield (x, y - 5), r"labels from -\d to"
    yield (x, np.eye(5)[y]), "labels from 0 to 4"


@pytest.mark.parametrize(("verify", "message"), [*labels_that_do_not_match()])
def test_labels_of_other_classes(verify, message):
    with pytest.raises(ValueError, match=f"`verify` must have labels for the 4 outputs.*{message}"):
        list(Observed(small_cnn()).watch([verify]))
    assert len(list(Observed(small_cnn()).watch([(verify[0], np.arange(4))]))) == 1
    single = [(verify[0], np.array([0, 1, 1, 0]))]
    assert len(list(Observed(small_cnn(classes=1)).watch(single))) == 1


def test_labels_are_checked_in_an_export():
    x, y = stripes(4)
    with pytest.raises(ValueError, match="`verify` must have labels for the 4 outputs"):
        to_tflite(small_cnn(), verify=(x, y + 4))


def test_a_folder_without_permission_is_seen_before_the_work():
    """The superuser may write anywhere, so the check is made as somebody else."""
    folder = pathlib.Path(tempfile.mkdtemp())  # the folders of pytest are closed to others
    folder.chmod(0o555)
    code = (
        "import os, sys; from kerasopt._files import check_target\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "os.chdir('/')\n"
        "try: check_target(sys.argv[1])\n"
        "except PermissionError as error: print(error)"
    )
    target = folder / "model.tflite"
    done = subprocess.run(
        [sys.executable, "-c", code, target], capture_output=True, text=True, check=True
    )
    folder.rmdir()
    assert "`path` must be in a folder that may be written to. Received: path=" in done.stdout


@pytest.mark.parametrize("path", ["no/such/folder/m.tflite", "."])
def test_a_path_that_is_no_file_is_seen_before_the_work(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="`path` must be a file in an existing folder"):
        to_tflite(small_cnn(), path)


def test_no_room(tmp_path):
    """A limit on the size of files stands for a full disk; the older file stays as it was."""
    target = tmp_path / "model.tflite"
    target.write_bytes(b"older")
    code = (
        "import resource, sys; from kerasopt._files import write_atomic\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))\n"
        "try: write_atomic(sys.argv[1], b'x' * 5000)\n"
        "except OSError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, target], capture_output=True, text=True, check=True
    )
    assert "must have room and permission for a file of 5,000 bytes. Received: path=" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
    assert target.read_bytes() == b"older"


@pytest.mark.slow
def test_no_room_for_what_tensorflow_writes(tmp_path):
    code = (
        "import resource, sys, keras, kerasopt as ko\n"
        "model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(200)])\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, {resource.RLIM_INFINITY}))\n"
        "for write in (ko.export.to_tflite, ko.export.to_saved_model):\n"
        "    try: write(model, sys.argv[1] + '/net')\n"
        "    except OSError as error: print('OSError', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("OSError")]
    assert len(lines) == 2
    assert all("must have room and permission for" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_older_file(tmp_path):
    target = write_atomic(tmp_path / "a.txt", "older")
    with pytest.raises(TypeError):
        write_atomic(target, 3)
    assert target.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_layer_with_infinite_weights_is_named():
    model = small_cnn()
    kernel = np.array(model.get_layer("block1_project").kernel)
    kernel[0, 0, 0, 0] = np.inf
    model.get_layer("block1_project").kernel.assign(kernel)
    with pytest.raises(ValueError, match="NaN or infinity in 'block1_project/kernel'"):
        to_tflite(model)
