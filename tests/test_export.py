"""Files that are run beside the model, by the real interpreter."""

import dataclasses
import gzip
import json

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.export import TFLiteModel, VerificationError, to_tflite
from kerasopt.quantization import quantize_aware
from tests.models import compiled, small_cnn, stripes


@pytest.fixture(scope="module")
def trained():
    model = compiled(small_cnn(), optimizer=keras.optimizers.Adam(1e-2))
    x, y = stripes(256)
    model.fit(x, y, batch_size=16, epochs=6, verbose=0)
    return model, x, y


@pytest.fixture(scope="module")
def aware(trained):
    model, x, y = trained
    copy = compiled(quantize_aware(model), optimizer=keras.optimizers.Adam(1e-4))
    copy.fit(x, y, batch_size=16, epochs=2, verbose=0)
    for layer in copy.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    compiled(copy, optimizer=keras.optimizers.Adam(1e-5)).fit(
        x, y, batch_size=16, epochs=4, verbose=0
    )
    return copy


@pytest.mark.parametrize(("mode", "error"), [(None, 1e-4), ("float16", 0.02), ("dynamic", 0.3)])
def test_float_files(trained, mode, error):
    model, x, y = trained
    result = to_tflite(model, quantize=mode, verify=(x, y))
    assert result.max_error < error
    assert result.agreement >= 0.99
    assert result.accuracy == pytest.approx(result.keras_accuracy, abs=0.01)
    assert (result.input_dtype, result.output_dtype) == ("float32", "float32")
    assert result.samples == 256
    assert result.size == len(result.content)
    assert result.gzip_size == len(gzip.compress(result.content, compresslevel=6, mtime=0))


@pytest.mark.slow
def test_int8_of_an_aware_model_equals_it(trained, aware):
    _, x, y = trained
    result = to_tflite(aware, quantize="int8", verify=(x, y))
    assert (result.input_dtype, result.output_dtype) == ("uint8", "float32")
    lite = TFLiteModel(result.content)
    assert lite.input_quantization == (1.0, 0)
    assert result.agreement >= 0.99
    assert result.operators[:2] == ("QUANTIZE", "DEPTHWISE_CONV_2D")
    float_operators = {"MUL", "RELU", "CAST"} & set(result.operators)
    assert not float_operators
    step = np.ptp(aware.get_layer("logits_range").range_value()) / 255
    steps = np.abs(lite.predict(x) - aware.predict(x, verbose=0)) / step
    assert np.mean(steps > 1.5) < 0.02
    assert steps.max() <= 4


@pytest.mark.slow
def test_files_run_under_every_setting_of_the_interpreter(trained, aware):
    _, x, y = trained
    for model, mode in ((trained[0], None), (aware, "int8")):
        result = to_tflite(model, quantize=mode, verify=(x, y))
        assert [(run.xnnpack, run.threads > 1) for run in result.runs] == [
            (True, False),
            (True, True),
            (False, False),
            (False, True),
        ]
        assert {run.samples for run in result.runs} == {16}
        assert all(run.agreement == 1.0 for run in result.runs)
        assert all(0.0 < run.max_error < 0.3 for run in result.runs)
    assert to_tflite(aware, quantize="int8").runs == ()


@pytest.mark.parametrize("trusted", [True, False], ids=["here", "child"])
def test_without_xnnpack_other_kernels_run(trained, trusted):
    model, x, _ = trained
    content = to_tflite(model, quantize="dynamic").content  # each has arithmetic of its own
    on, off = (TFLiteModel(content, trusted=trusted, xnnpack=way) for way in (True, False))
    a, b = on.predict(x), off.predict(x)
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=0.5)
    with pytest.raises(TypeError, match=r"`xnnpack` must be True or False\. Received: xnnpack=1\."):
        TFLiteModel(content, xnnpack=1)


def test_a_setting_that_disagrees_fails_the_file(trained):
    from kerasopt.export._verify import Limits, accept

    model, x, y = trained
    result = to_tflite(model, verify=(x, y))
    broken = dataclasses.replace(result.runs[2], agreement=0.75)
    result = dataclasses.replace(result, runs=(*result.runs[:2], broken))
    with pytest.raises(
        VerificationError,
        match=r"agreement 75.00% of the first 16 inputs without XNNPACK on 1 thread",
    ):
        accept(result, None, Limits(0.999, 0.01, 1e-3), reject=None)


def test_kernels_in_the_file_are_the_levels_of_the_model(aware):
    from ai_edge_litert.interpreter import Interpreter

    from kerasopt.quantization import export_twin

    kernel = export_twin(aware).get_layer("block2_conv").kernel.numpy()
    levels = np.round(kernel / (np.abs(kernel).max(axis=(0, 1, 2)) / 127)).astype("int8")
    interpreter = Interpreter(model_content=to_tflite(aware, quantize="int8").content)
    interpreter.allocate_tensors()
    found = [
        interpreter.get_tensor(detail["index"])
        for detail in interpreter.get_tensor_details()
        if tuple(detail["shape"]) == (16, 3, 3, 8) and detail["dtype"] == np.int8
    ]
    assert len(found) == 1
    np.testing.assert_array_equal(found[0].transpose(1, 2, 3, 0), levels)


@pytest.mark.parametrize(
    ("taken", "given"), [("int8", "int8"), ("float32", "float32"), ("uint8", "uint8")]
)
def test_types_as_asked(trained, aware, taken, given):
    _, x, y = trained
    result = to_tflite(aware, quantize="int8", input_dtype=taken, output_dtype=given, verify=(x, y))
    assert (result.input_dtype, result.output_dtype) == (taken, given)
    assert result.agreement >= 0.98


def test_int8_after_training(trained):
    model, x, y = trained
    result = to_tflite(
        model, quantize="int8", representative_data=x, verify=(x, y), min_agreement=0.95
    )
    assert TFLiteModel(result.content).input_quantization == (pytest.approx(1.0, abs=1e-6), 0)
    assert "DEQUANTIZE" in result.operators


def test_file_labels_and_result(trained, tmp_path):
    model, x, _ = trained
    names = ("north west", "north east", "south west", "süd-ost")
    result = to_tflite(model, tmp_path / "stripes.tflite", labels=names, verify=x)
    assert result.path == tmp_path / "stripes.tflite"
    assert result.path.read_bytes() == result.content
    assert (tmp_path / "stripes.labels.txt").read_text("utf-8").splitlines() == list(names)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stripes.labels.txt", "stripes.tflite"]
    values = json.loads(json.dumps(result.to_dict()))
    assert values["agreement"] == 1.0
    assert values["accuracy"] is None
    assert "content" not in values


@pytest.mark.slow
def test_augmentation_and_dropout_are_not_in_the_file():
    model = ko.transfer.build_classifier(
        small_cnn(), 4, input_shape=(12, 12, 3), augmentation=ko.augmentation.basic(), dropout=0.5
    )
    result = to_tflite(model)
    assert not [op for op in result.operators if "RANDOM" in op or "WHILE" in op or "IF" in op]
    x, _ = stripes(8)
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x, verbose=0))
    plain = to_tflite(ko.transfer.build_classifier(small_cnn(), 4, input_shape=(12, 12, 3)))
    assert plain.operators == result.operators


def test_a_file_that_differs_is_refused_and_kept_aside(trained, tmp_path, monkeypatch):
    """The model is changed behind the converter's back, as a converter bug would."""
    model, x, y = trained
    import kerasopt.export._to_tflite as room

    honest = room.convert
    other = small_cnn(seed=9)
    monkeypatch.setattr(
        room, "convert", lambda _, **options: honest(room.with_batch(other, 1), **options)
    )
    with pytest.raises(
        VerificationError, match=r"agreement \d+.\d+%, at least 99.90% is required"
    ) as caught:
        to_tflite(model, tmp_path / "model.tflite", verify=(x, y))
    assert "accuracy" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["model.rejected.tflite"]
    assert caught.value.result.agreement < 0.9


def test_tflite_model_like_keras(trained):
    model, x, y = trained
    lite = TFLiteModel(to_tflite(model).content, num_threads=1)
    np.testing.assert_allclose(lite.predict(x[:4]), model.predict(x[:4], verbose=0), atol=1e-4)
    accuracy = lite.evaluate((x, y))["accuracy"]
    assert accuracy == pytest.approx(model.evaluate(x, y, verbose=0)[1], abs=0.01)
    one_hot = keras.ops.convert_to_numpy(keras.ops.one_hot(y, 4))
    assert lite.evaluate((x, one_hot))["accuracy"] == accuracy
    timings = lite.benchmark(threads=(1, 2), runs=5, warmup=1)
    assert [t.threads for t in timings] == [1, 2]
    assert all(0 < t.median_ms <= t.p90_ms for t in timings)
    assert lite.predict(x[:0]).shape == (0, 4)


def test_tflite_model_from_a_path(trained, tmp_path):
    model, _, _ = trained
    result = to_tflite(model, tmp_path / "m.tflite")
    assert TFLiteModel(tmp_path / "m.tflite").operators == result.operators


def bad_calls():
    model = small_cnn()
    yield {"quantize": "int4"}, ValueError, "`quantize` must be one of None, 'float16'"
    yield {"quantize": "int8"}, ValueError, "need data to take their ranges from"
    yield {"labels": ["a", "b"]}, ValueError, "`labels` must be a list of 4 class names"
    yield {"labels": "abcd"}, ValueError, "`labels` must be a list of 4 class names"
    yield {"input_dtype": "uint8"}, ValueError, "`input_dtype` must be one of 'float32'"
    yield {"min_agreement": 2.0}, ValueError, "`min_agreement` must be a number in"
    yield {"model": "model.keras"}, TypeError, "`model` must be a keras.Model"
    yield (
        {"model": keras.Sequential([keras.layers.Dense(2)])},
        ValueError,
        "must be built on known inputs",
    )
    yield (
        {"verify": np.zeros((0, 12, 12, 3))},
        ValueError,
        "`verify` must hold at least one example",
    )
    yield {"verify": 3}, TypeError, "`verify` must be an array"
    yield (
        {"quantize": "int8", "representative_data": np.ones((4, 8, 8, 3))},
        ValueError,
        r"`representative_data` must have the shape \(batch, 12, 12, 3\)",
    )
    yield (
        {"quantize": "int8", "representative_data": np.full((4, 12, 12, 3), np.nan)},
        ValueError,
        "`representative_data` must be finite",
    )
    yield {"model": quantize_aware(model)}, ValueError, "becomes one kind of file"
    yield {"path": "no/such/folder/x.tflite"}, ValueError, "must be a file in an existing folder"
    open_size = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]
    )
    yield {"model": open_size}, ValueError, "must have a fixed input size"
    broken = small_cnn()
    broken.get_layer("logits").bias.assign([np.nan, 0, 0, 0])
    yield {"model": broken}, ValueError, "NaN or infinity in 'logits/bias'"


@pytest.mark.parametrize(("arguments", "error", "message"), list(bad_calls()))
def test_bad_input(arguments, error, message):
    arguments.setdefault("model", small_cnn())
    with pytest.raises(error, match=message):
        to_tflite(**arguments)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 64, b"\x1c\0\0\0TFL3" + b"\xff" * 200])
def test_files_that_are_not_tflite(content, tmp_path):
    with pytest.raises(ValueError, match="TFLite"):
        TFLiteModel(content)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a TFLite file"):
        TFLiteModel(tmp_path / "none.tflite")


def test_wrong_shape(trained):
    with pytest.raises(ValueError, match=r"must have the shape \(batch, 12, 12, 3\)"):
        TFLiteModel(to_tflite(trained[0]).content).predict(np.ones((1, 8, 8, 3)))
