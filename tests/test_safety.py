"""Files from anywhere: an answer or one clear error, in time, and this process goes on."""

import io
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest

from kerasopt._keras_file import load_keras
from kerasopt.datasets import load_image
from kerasopt.export import TFLiteModel, read_metadata, to_tflite
from kerasopt.export import _child as child
from kerasopt.export._photos import at_once
from kerasopt.export._timing import random_sample
from kerasopt.profiling import arena_bytes, profile
from tests.models import small_cnn, stripes
from tests.mutations import (
    crowded,
    greedy,
    image_files,
    keras_file,
    mutate,
    mutate_inside,
    repacked,
    seeds,
    tflite_files,
)

LONGEST = 40.0
"""Seconds: the limits below, and a busy machine."""


@pytest.fixture(scope="module")
def content():
    return to_tflite(small_cnn()).content


def elsewhere(content):
    """The file as another process would have it: byte for byte the same, but not ours."""
    child._TRUSTED.clear()
    return content


# Processes


def test_our_own_files_run_here_and_others_in_a_child(content):
    assert not TFLiteModel(content).isolated
    assert TFLiteModel(content, trusted=False).isolated
    other = TFLiteModel(elsewhere(content), num_threads=1)
    assert other.isolated
    assert not TFLiteModel(content, trusted=True).isolated
    x, _ = stripes(5)
    np.testing.assert_array_equal(
        other.predict(x), TFLiteModel(content, trusted=True, num_threads=1).predict(x)
    )
    timing = other.benchmark(threads=(1,), runs=3, warmup=1)[0]
    assert 0 < timing.median_ms <= timing.p90_ms


def test_the_child_ends_with_the_object(content):
    model = TFLiteModel(content, trusted=False)
    process = model._runner._process
    assert process.poll() is None
    del model
    assert process.poll() is not None
    model = TFLiteModel(content, trusted=False)
    model.close()
    with pytest.raises(ValueError, match="it was closed"):
        model.predict(stripes(1)[0])


def test_a_child_that_crashes_is_an_error_here(content):
    """What a hostile file does at last: the process is gone in the middle of an inference."""
    model = TFLiteModel(content, trusted=False)
    os.kill(model._runner._process.pid, 11)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"SIGSEGV\. This process is unharmed"):
            model.predict(stripes(1)[0])


def test_a_child_that_hangs_is_ended(content, monkeypatch):
    model = TFLiteModel(content, trusted=False, time_limit=1.0)
    os.kill(model._runner._process.pid, 19)  # SIGSTOP
    start = time.monotonic()
    with pytest.raises(ValueError, match="took longer than 1 seconds"):
        model.predict(stripes(1)[0])
    assert time.monotonic() - start < LONGEST


def test_the_time_that_a_file_gets_goes_with_its_size(content, monkeypatch):
    """A small file that hangs is ended in seconds, and a large one has time to load."""
    model = TFLiteModel(content, trusted=False)
    assert model.time_limit == pytest.approx(5.0, abs=0.1)
    assert TFLiteModel(content, time_limit=7).time_limit == 7.0
    photo = 4 * 224 * 224 * 3
    assert child.default_time_limit(14 * 2**20, photo) == pytest.approx(6.4, abs=0.1)
    assert child.default_time_limit(13 * 10**8, photo) > 80
    assert child.default_time_limit(0, 2**30) == 30.0
    os.kill(model._runner._process.pid, 19)  # SIGSTOP
    with pytest.raises(ValueError, match="took longer than 5 seconds"):
        model.predict(stripes(9)[0])


def test_a_child_that_was_taken_over_is_not_believed(content, tmp_path, monkeypatch):
    """Whatever it says, nothing of it is unpickled or run."""
    for answer in (
        b"\xff" * 64,
        b"\x05\0\0\0\0\0\0\0hello",
        b"\x0e\0\0\0\0\0\0\0" + b'{"arrays": 17}',
        b"\x22\0\0\0\0\0\0\0" + b'{"arrays": [["<f4", [900000000]]]}',
    ):
        script = tmp_path / "program.py"
        script.write_text(f"import sys; sys.stdout.buffer.write({answer!r})")
        monkeypatch.setattr(child.program, "__file__", str(script))
        with pytest.raises(ValueError, match="cannot run this TFLite file"):
            TFLiteModel(content, trusted=False)


# TFLite files


@pytest.mark.parametrize(
    "many", [{"subgraphs": 600, "tensors": 600}, {"tensors": 400, "variants": 400}]
)
def test_a_small_file_that_would_be_read_for_minutes(many):
    """Some kilobytes, whose offsets name one subgraph, or one part of a tensor, again and again."""
    np.testing.assert_array_equal(TFLiteModel(crowded(), trusted=True).predict([-1.0]), [0.0])
    file = crowded(**many)
    assert len(file) < 6_000
    start = time.monotonic()
    for read in (TFLiteModel, profile, read_metadata, arena_bytes):
        with pytest.raises(ValueError, match="parts take more room than the file has"):
            read(file)
    assert time.monotonic() - start < 2.0


def test_a_small_file_that_asks_for_gigabytes():
    """Of inputs, of which the parent would make some random ones, and of outputs."""
    with pytest.raises(ValueError, match=r"at most 536,870,912 bytes\. Received: 2,147,483,648"):
        TFLiteModel(crowded(size=2**28))
    model = TFLiteModel(crowded(size=2**25))
    assert at_once(model) == 1
    assert at_once(TFLiteModel(crowded())) == 32
    (values,) = random_sample(model).inputs
    assert values.dtype == "float32"
    assert values.max() == 254.0


def test_an_answer_that_is_too_long_is_not_read():
    stream = io.BytesIO()
    child.program.send(stream, {}, [np.zeros(3), np.zeros(2)])
    stream.seek(0)
    assert len(child.program.receive(stream, longest=40)[1]) == 2
    stream.seek(0)
    with pytest.raises(child.program.TooLongError, match="40 bytes, more than 39"):
        child.program.receive(stream, longest=39)


# .keras files


def with_weights(whole, kind):
    file = io.BytesIO()
    with h5py.File(file, "w") as weights:
        if kind == "link":
            weights["layers"] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == "external":
            weights.create_dataset("layers", (8,), "u1", external=[("/etc/passwd", 0, 8)])
        elif kind == "packed":
            for part in range(4):
                weights.create_dataset(f"{part}", (2**23,), "f4", chunks=(2**20,), compression=9)
        else:
            weights.create_dataset("layers", (2**38,), "f8", chunks=(2**20,), compression="gzip")
    return repacked(whole, model_weights_h5=file.getvalue())


def bomb():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, bytes(2**25))
    return packed.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return keras_file(tmp_path_factory.mktemp("keras"))


def test_a_config_gets_no_more_memory_than_the_weights_need(whole, tmp_path):
    """Some kilobytes that ask for 80 million numbers: nothing of it is allocated."""
    file = tmp_path / "model.keras"
    file.write_bytes(greedy(whole))
    add_weight = keras.layers.Layer.add_weight
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="ask for more weights than the file holds"):
        load_keras(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert keras.layers.Layer.add_weight is add_weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: b"PK", "no whole zip"),
        (lambda whole: b"", "no whole zip"),
        (lambda whole: whole[:-200], "no whole zip"),
        (lambda whole: repacked(whole, config_json=None), "has no 'config.json'"),
        (lambda whole: repacked(whole, added={"../../evil.txt": b"x"}), "leads out of a folder"),
        (lambda whole: repacked(whole, added={"/etc/evil.txt": b"x"}), "leads out of a folder"),
        (lambda whole: repacked(whole, added={"a\\..\\b": b"x"}), "leads out of a folder"),
        (lambda whole: bomb(), "unpacks to"),
        (lambda whole: repacked(whole, model_weights_h5=b"\x89HDF no"), "weights cannot be read"),
        (lambda whole: with_weights(whole, "link"), "lead to another"),
        (lambda whole: with_weights(whole, "external"), "lead to another"),
        (lambda whole: with_weights(whole, "huge"), "weights unpack to"),
        (lambda whole: with_weights(whole, "packed"), "weights unpack to"),
        (lambda whole: greedy(whole), "ask for more weights than the file holds"),
        (lambda whole: repacked(whole, config_json=b"{}"), "that Keras can load"),
        (lambda whole: repacked(whole, config_json=b"[" * 100_000), "that Keras can load"),
    ],
)
def test_keras_files_that_are_refused(whole, change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.keras").write_bytes(change(whole))
    with pytest.raises(ValueError, match=message):
        profile("model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_code_in_a_keras_file_is_not_run(tmp_path):
    inputs = keras.Input((2,))
    mark = str(tmp_path / "mark")
    layer = keras.layers.Lambda(lambda x, mark=mark: os.mkdir(mark) or x, output_shape=(2,))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"that Keras can load.*unsafe"):
        load_keras(tmp_path / "model.keras")
    assert not os.path.exists(mark)


def test_whole_keras_files_load(whole, tmp_path):
    (tmp_path / "model.keras").write_bytes(whole)
    assert profile(tmp_path / "model.keras").parameters == 62
    assert load_keras(tmp_path / "model.keras").output_shape == (None, 4, 4, 2)
    with pytest.raises(FileNotFoundError, match=r"Received: 'none\.keras'"):
        load_keras("none.keras")


# Many files


def outcome(action):
    """Runs one reader on one damaged file; anything but an answer or these errors is a failure."""
    start = time.monotonic()
    try:
        action()
        told = None
    except (FileNotFoundError, ValueError) as error:
        told = str(error)
    assert time.monotonic() - start < LONGEST
    return told


@pytest.mark.slow
def test_mutated_tflite_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, _ = stripes(1)
    files, told = tflite_files(), []
    child._TRUSTED.clear()
    for index, rng in enumerate(seeds(80)):
        damaged = mutate(files[index % 2], rng)
        told.append(outcome(lambda damaged=damaged: TFLiteModel(damaged).predict(x[:, :12, :12])))
        outcome(lambda damaged=damaged: read_metadata(damaged))
        outcome(lambda damaged=damaged: profile(damaged))
    assert sum(text is not None for text in told) > 20
    assert all("TFLite file" in text or "`images`" in text for text in told if text)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_mutated_keras_files(whole, tmp_path):
    file = tmp_path / "model.keras"
    told = []
    for index, rng in enumerate(seeds(60, seed=1)):
        file.write_bytes((mutate, mutate_inside)[index % 2](whole, rng))
        told.append(outcome(lambda: load_keras(file)))
    assert sum(text is not None for text in told) > 30
    assert all(".keras file" in text for text in told if text)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_mutated_images(tmp_path):
    files = list(image_files().items())
    told = []
    for index, rng in enumerate(seeds(240, seed=2)):
        kind, content = files[index % len(files)]
        file = tmp_path / f"photo.{kind.lower()}"
        file.write_bytes(mutate(content, rng))
        told.append(outcome(lambda file=file: load_image(file, (16, 16))))
    assert sum(text is not None for text in told) > 40
    assert all("`path` must be a whole image file" in text for text in told if text)
    assert len(list(tmp_path.iterdir())) == len(files)


@pytest.mark.slow
def test_inspect_of_a_damaged_file_is_one_line(content, tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes(content[: len(content) // 2])
    command = pathlib.Path(sys.executable).parent / "kerasopt"
    clean = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [command, "inspect", file], capture_output=True, text=True, timeout=300, env=clean
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert json.dumps(done.stderr).count("\\n") <= 2
