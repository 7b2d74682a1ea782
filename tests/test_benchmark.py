"""Time and memory of files, and who runs their operators."""

import json
import pathlib

import keras
import numpy as np
import pytest
from keras import layers
from typer.testing import CliRunner

import kerasopt as ko
from kerasopt.cli import app
from kerasopt.export import _child as child
from kerasopt.export._runner import Runner, take_turns
from tests.models import small_cnn

HAS_PROC = pathlib.Path("/proc/self/clear_refs").exists()


@pytest.fixture(scope="module")
def content():
    return ko.export.to_tflite(small_cnn()).content


def big(side):
    """One convolution with activations of `side * side * 16` float32 numbers."""
    model = keras.Sequential(
        [keras.Input((side, side, 1)), layers.Conv2D(16, 3), layers.GlobalMaxPooling2D()]
    )
    return ko.export.to_tflite(model).content


def test_several_files_and_thread_counts(content, tmp_path):
    path = tmp_path / "small.tflite"
    path.write_bytes(content)
    lite = ko.export.TFLiteModel(content)
    report = ko.export.benchmark([path, lite, content], threads=(1, 2), runs=4, warmup=1)
    names = [(timing.file, timing.threads) for timing in report.timings]
    files = ["small.tflite", "file 2", "file 3"]
    assert names == [(name, count) for name in files for count in (1, 2)]
    for timing in report.timings:
        assert 0 < timing.median_ms <= timing.p90_ms
        assert timing.runs == 4
        assert timing.operators == timing.delegated == len(lite.operators)
        assert timing.delegate == "XNNPACK"
        assert timing.processor == ko.report.environment()["processor"]
    assert json.loads(json.dumps(report.to_dict()))["timings"][0]["file"] == "small.tflite"
    lines = str(report).splitlines()
    assert len(lines) == 1 + 6 + 1
    assert len({len(line) for line in lines[:7]}) == 1
    assert "4 runs of each in turns on" in lines[-1]


def test_names_of_a_dict_and_equal_names(content, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.tflite").write_bytes(content)
    paths = [tmp_path / "a" / "m.tflite", tmp_path / "b" / "m.tflite"]
    report = ko.export.benchmark(paths, threads=1, runs=1, warmup=0)
    assert [timing.file for timing in report.timings] == ["m.tflite", "m.tflite (2)"]
    report = ko.export.benchmark({"ours": content}, threads=1, runs=1, warmup=0)
    assert [timing.file for timing in report.timings] == ["ours"]


def test_the_command_takes_several_files(content, tmp_path):
    paths = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    for path in paths:
        path.write_bytes(content)
    options = ["--threads", "1", "--runs", "2", "--warmup", "0", "--no-xnnpack"]
    result = CliRunner().invoke(app, ["benchmark", *map(str, paths), *options])
    assert result.exit_code == 0, result.output
    heading, *rows = result.output.splitlines()
    assert " ".join(heading.split()) == "file threads median ms p90 ms peak MiB XNNPACK"
    operators = len(ko.profiling.tflite_operators(content))
    for row, path in zip(rows, paths, strict=False):
        assert row.startswith(path.name)
        assert row.endswith(f"0 of {operators}")


def test_without_xnnpack(content):
    (timing,) = ko.export.TFLiteModel(content).benchmark(threads=1, runs=1, xnnpack=False)
    assert timing.delegated == 0
    assert timing.delegate is None


def test_operators_that_xnnpack_does_not_have(content):
    """Three graphs of it around two sums along an axis; the private list that tells is pinned."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.Conv2D(4, 3)(keras.ops.cumsum(x, axis=1))
    x = layers.Dense(2)(layers.Flatten()(keras.ops.cumsum(x, axis=2)))
    file = ko.export.to_tflite(keras.Model(inputs, x)).content
    (timing,) = ko.export.TFLiteModel(file).benchmark(threads=1, runs=1, warmup=0)
    operators = ko.profiling.tflite_operators(file)
    assert operators.count("CUMSUM") == 2
    assert 3 <= timing.delegated <= len(operators) - 2
    runner = Runner(content, 1)
    listed = [node["op_name"] for node in runner._interpreter._get_ops_details()]
    assert listed == [*ko.profiling.tflite_operators(content), "DELEGATE"]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROC, reason="only Linux tells the peak of a process")
def test_peak_of_memory_is_that_of_the_activations():
    small, large = big(32), big(512)
    timings = ko.export.benchmark([small, large], threads=1, runs=1, warmup=0).timings
    grown = timings[1].peak_bytes - timings[0].peak_bytes
    needed = ko.profiling.arena_bytes(large) - ko.profiling.arena_bytes(small)
    assert 0.9 * needed < grown < 3 * needed


def test_every_round_runs_each_file_once_in_an_order_of_its_own(content):
    ran = []

    class Recorded(Runner):
        def invoke(self):
            ran.append(self)
            return super().invoke()

    runners = [Recorded(content, 1) for _ in range(3)]
    for runner in runners:
        runner.run([np.zeros((1, 12, 12, 3), "float32")])
    times = take_turns(runners, warmup=2, runs=6)
    assert [len(found) for found in times] == [6, 6, 6]
    rounds = [tuple(map(runners.index, ran[i : i + 3])) for i in range(0, len(ran), 3)]
    assert len(rounds) == 8
    assert all(sorted(order) == [0, 1, 2] for order in rounds)
    assert len(set(rounds)) > 1


def test_several_inputs_of_other_types():
    words = keras.Input((4,), dtype="int32", name="words")
    photo = keras.Input((6,), name="photo")
    both = layers.Concatenate()([layers.Flatten()(layers.Embedding(5, 3)(words)), photo])
    file = ko.export.to_tflite(keras.Model([words, photo], layers.Dense(2)(both))).content
    (timing,) = ko.export.benchmark([file], threads=1, runs=1, warmup=0).timings
    assert timing.median_ms > 0


def test_answers_that_are_no_measurement(content, tmp_path, monkeypatch):
    """A file that took over its process may say what it wants."""
    folder = pathlib.Path(child.program.__file__).parent
    script = tmp_path / "program.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import _runner as r\n"
        "r.send(sys.stdout.buffer, {})\n"
        "while True:\n"
        "    r.receive(sys.stdin.buffer)\n"
        "    r.send(sys.stdout.buffer, {'peak': 'much', 'delegated': None, 'times': [[]]})\n"
    )
    lite = ko.export.TFLiteModel(content, trusted=True)
    monkeypatch.setattr(child.program, "__file__", str(script))
    with pytest.raises(ValueError, match="gave no measurement"):
        lite.benchmark(threads=1, runs=1)


def test_the_file_at_fault_is_told(content):
    broken = content[:100] + bytes(len(content) - 100)
    with pytest.raises(ValueError, match="TFLite file"):
        ko.export.benchmark([content, broken], runs=1)
