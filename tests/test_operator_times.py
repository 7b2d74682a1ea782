"""The time of each operator, in a file of its own."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

import kerasopt as ko
from kerasopt.export._interpreter import TFLiteModel, quantize_input
from kerasopt.export._operator_times import _before, _parts
from kerasopt.export._runner import Runner
from kerasopt.export._tensors import FileContent
from tests.models import small_cnn, stripes

KINDS = (None, "float16", "int8")


@pytest.fixture(scope="module")
def files():
    model = small_cnn()
    return {
        kind: ko.export.to_tflite(
            model,
            quantize=kind,
            representative_data=stripes(16)[0] if kind == "int8" else None,
            verify=False,
        ).content
        for kind in KINDS
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_operator_alone_gives_what_it_gives_in_the_file(files, kind):
    """Fed with the file's own values, the parts make the file's values."""
    lite = TFLiteModel(files[kind], num_threads=1)
    x = stripes(1)[0]
    content = FileContent(lite)
    taken = quantize_input(x, lite.inputs[0])
    parts = _parts(content, [taken])
    made = {each.name: each for each in ko.export.activations(lite, x)}
    assert [part.name for part in parts] == list(made)
    by_name = {
        content.graph.tensors[i].name.decode(): i
        for op in content.graph.operators
        for i in op.outputs
    }
    for part in parts:
        runner = Runner(part.sample.content, 1)
        (found,) = runner.run(part.sample.inputs)
        real = content._real(by_name[part.name], found)
        expected = made[part.name].values
        np.testing.assert_allclose(real, expected, rtol=0 if kind == "int8" else 1e-5, atol=1e-6)


@pytest.mark.slow
def test_rows_are_the_operators_of_the_file(files):
    times = ko.export.time_operators(files[None], runs=3, warmup=1)
    assert [each.operator for each in times.operators] == list(
        ko.profiling.tflite_operators(files[None])
    )
    assert all(0 < each.median_ms <= each.p90_ms for each in times.operators)
    assert all(each.delegated is True for each in times.operators)
    assert times.sum_ms == pytest.approx(sum(each.median_ms for each in times.operators))
    assert times.whole.runs == 3
    assert times.whole.delegated == len(times.operators)
    text = str(times).splitlines()
    assert len(text) == len(times.operators) + 2
    assert text[-1].startswith("Sum ")
    values = json.loads(json.dumps(times.to_dict()))
    assert values["operators"][0]["operator"] == "CONV_2D"


@pytest.mark.slow
def test_constants_that_are_expanded_are_no_operators_of_their_own(files):
    assert "DEQUANTIZE" in ko.profiling.tflite_operators(files["float16"])
    times = ko.export.time_operators(files["float16"], runs=1, warmup=0, xnnpack=False)
    assert [each.operator for each in times.operators] == list(
        ko.profiling.tflite_operators(files[None])
    )
    assert not any(each.delegated for each in times.operators)


def test_the_heavy_operator_is_found():
    model = keras.Sequential(
        [
            keras.Input((64, 64, 8)),
            layers.ReLU(3.0),
            layers.Conv2D(32, 5, name="heavy"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    times = ko.export.time_operators(ko.export.to_tflite(model).content, runs=5)
    slowest = max(times.operators, key=lambda each: each.median_ms)
    assert "heavy" in slowest.name


@pytest.mark.slow
def test_loops_cannot_run_alone():
    model = keras.Sequential(
        [keras.Input((6, 3)), layers.GRU(4, unroll=False), layers.Dense(2, name="last")]
    )
    file = ko.export.to_tflite(model).content
    assert "WHILE" in ko.profiling.tflite_operators(file)
    times = ko.export.time_operators(file, runs=1, warmup=0)
    loops = [each for each in times.operators if each.operator == "WHILE"]
    assert len(loops) == 1
    assert loops[0].median_ms is None
    assert all(each.median_ms for each in times.operators if each.operator != "WHILE")
    assert "?" in str(times)
    assert json.dumps(times.to_dict())


def test_a_long_chain_of_constants_is_followed_in_order():
    """What one operator needs stands before it, each once, however deep the chain is."""
    ops = [SimpleNamespace(inputs=[n - 1, n - 1], outputs=[n]) for n in range(5_000)]
    makers = {op.outputs[0]: op for op in ops[:-1]}
    assert _before(ops[-1], makers) == ops[:-1]
