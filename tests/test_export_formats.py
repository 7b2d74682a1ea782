"""SavedModel and ONNX: the same answers as Keras, under the same rules as a TFLite file."""

import sys

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.export import VerificationError, to_onnx, to_saved_model
from tests.models import compiled, small_cnn, stripes

pytestmark = pytest.mark.slow
FORMATS = ("saved_model", "onnx")
NAMES = ["north west", "north east", "south west", "süd-ost"]


def need_onnx():
    for name in ("onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(name, reason='needs pip install "kerasopt[onnx]"')


def export(kind, model, folder, name="net", **options):
    if kind == "saved_model":
        return to_saved_model(model, folder / name, **options)
    need_onnx()
    return to_onnx(model, folder / f"{name}.onnx", **options)


def answers(path, x, *, optimized=True):
    """Runs what was written with the format's own loader, nothing of ours in between."""
    inputs = x if isinstance(x, dict) else {"image": x}
    inputs = {name: np.asarray(value, "float32") for name, value in inputs.items()}
    if path.is_dir():
        serve = tf.saved_model.load(str(path)).signatures["serving_default"]
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in serve(**tensors).items()}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimized:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.fixture(scope="module")
def trained():
    model = compiled(small_cnn())
    x, y = stripes(128)
    model.fit(x, y, epochs=6, batch_size=16, verbose=0)
    return model


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_answers_as_keras_does(kind, trained, tmp_path):
    x, y = stripes(40)
    result = export(kind, trained, tmp_path, labels=NAMES, verify=(x, y))
    expected = trained.predict(x, verbose=0)
    found = answers(result.path, x)
    assert list(found) == ["logits"]
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5)
    assert result.max_error == pytest.approx(np.abs(found["logits"] - expected).max(), abs=1e-6)
    assert (result.samples, result.agreement) == (40, 1.0)
    assert result.accuracy == result.keras_accuracy == np.mean(expected.argmax(-1) == y)
    assert (result.input_dtype, result.output_dtype) == ("float32", "float32")
    assert result.quantize is None
    assert result.labels == tuple(NAMES)
    labels = (tmp_path / "net.labels.txt").read_text(encoding="utf-8")
    assert labels.splitlines() == NAMES
    files = [result.path] if kind == "onnx" else [p for p in result.path.rglob("*") if p.is_file()]
    assert result.size == sum(file.stat().st_size for file in files)
    assert 0 < result.gzip_size < result.size
    assert {p.name for p in tmp_path.iterdir()} == {result.path.name, "net.labels.txt"}


@pytest.mark.parametrize("kind", FORMATS)
def test_augmentation_and_dropout_are_gone(kind, tmp_path):
    inputs = keras.Input((12, 12, 3), name="image")
    x = ko.augmentation.Augmentation([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.2)])(
        inputs
    )
    x = keras.layers.Conv2D(4, 3)(x)
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(2, name="scores")(x))
    result = export(kind, model, tmp_path, verify=stripes(8)[0])
    kinds = set(result.operators)
    assert kinds & {"Conv2D", "Conv"}
    assert not [name for name in kinds if "Random" in name or "If" in name or "Image" in name]
    x = stripes(8)[0]
    np.testing.assert_array_equal(
        answers(result.path, x)["scores"], answers(result.path, x)["scores"]
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_augmentation_that_is_never_off_is_refused(kind, tmp_path):
    """KerasCV's layers augment at inference too, when nothing is around them."""
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras_cv.layers.RandomBrightness(0.5, value_range=(0, 255))(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ValueError, match="`model` must ") as caught:
        export(kind, model, tmp_path)
    assert kind == "onnx" or "ko.augmentation.Augmentation" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_batches(kind, batch_size, tmp_path):
    x = stripes(7)[0]
    model = small_cnn()
    result = export(kind, model, tmp_path, batch_size=batch_size, verify=x)
    assert (result.samples, result.agreement) == (7, 1.0)
    count = batch_size or 5
    expected = model.predict(x[:count], verbose=0)
    np.testing.assert_allclose(answers(result.path, x[:count])["logits"], expected, atol=1e-5)
    if kind == "onnx":
        import onnx

        graph = onnx.load_from_string(result.content).graph
        sizes = [v.type.tensor_type.shape.dim[0] for v in (*graph.input, *graph.output)]
        assert {size.dim_value or size.dim_param for size in sizes} == {batch_size or "batch"}


@pytest.mark.parametrize("kind", FORMATS)
def test_several_inputs_and_outputs_keep_their_names(kind, tmp_path):
    photo, hour = keras.Input((6, 6, 3), name="photo"), keras.Input((1,), name="hour")
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(photo), hour])
    weather = keras.layers.Dense(3, name="weather")(x)
    warmth = keras.layers.Dense(1, name="a_warmth")(x)
    model = keras.Model([photo, hour], [weather, warmth])
    rng = np.random.default_rng(0)
    inputs = {"photo": rng.uniform(0, 255, (6, 6, 6, 3)), "hour": rng.uniform(0, 24, (6, 1))}
    result = export(kind, model, tmp_path, verify=inputs)
    assert result.agreement == 1.0
    found = answers(result.path, inputs)
    expected = model.predict([inputs["photo"], inputs["hour"]], verbose=0)
    for name, value in zip(("weather", "a_warmth"), expected, strict=True):
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", FORMATS)
def test_probabilities(kind, trained, tmp_path):
    x = stripes(8)[0]
    result = export(kind, trained, tmp_path, probabilities=True, verify=x)
    found = answers(result.path, x)["probabilities"]
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(
        found, keras.ops.softmax(trained.predict(x, verbose=0)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_a_quantization_aware_model_keeps_its_rounding(kind, trained, tmp_path):
    aware = ko.quantization.quantize_aware(trained)
    x = stripes(32)[0]
    ko.quantization.calibrate(aware, x)
    result = export(kind, aware, tmp_path, verify=x)
    assert result.agreement >= 0.97
    expected = aware.predict(x, verbose=0)
    found = next(iter(answers(result.path, x, optimized=False).values()))
    step = np.ptp(expected) / 255
    assert np.mean(np.abs(found - expected) > step / 10) < 0.02  # on a border
    # The optimizations of ONNX Runtime merge ranges: near, but not the same any more.
    found = next(iter(answers(result.path, x).values()))
    assert np.abs(found - expected).max() <= 12 * step
    if kind == "onnx":
        assert result.operators.count("QuantizeLinear") >= 5
        assert result.operators.count("QuantizeLinear") == result.operators.count(
            "DequantizeLinear"
        )


class Wrong(keras.layers.Layer):
    """Adds another number in a graph than outside of one: a file that cannot match."""

    def call(self, inputs):
        if tf.inside_function() and not isinstance(inputs, keras.KerasTensor):
            return inputs * keras.ops.convert_to_tensor([[-1.0, 1.0, -1.0, 1.0]])
        return inputs


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_does_not_match_is_kept_under_another_name(kind, trained, tmp_path):
    model = keras.Model(trained.input, Wrong(name="wrong")(trained.output))
    model.compile(run_eagerly=True)
    x = stripes(32)[0]
    suffix = ".onnx" if kind == "onnx" else ""
    older = tmp_path / f"net{suffix}"
    export(kind, trained, tmp_path)
    before = older.stat().st_mtime_ns
    for _ in range(2):  # an older rejected one gives way
        with pytest.raises(VerificationError, match="does not match the model on 32") as caught:
            export(kind, model, tmp_path, labels=NAMES, verify=x)
    assert caught.value.result.path == tmp_path / f"net.rejected{suffix}"
    assert caught.value.result.agreement < 0.9
    assert answers(caught.value.result.path, x)
    assert older.stat().st_mtime_ns == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"net{suffix}", f"net.rejected{suffix}"]
    assert (
        export(kind, model, tmp_path, verify=x, min_agreement=0.0, max_relative_error=9).path
        == older
    )


def test_an_older_saved_model_is_replaced_and_nothing_else(tmp_path):
    x = stripes(4)[0]
    for seed in (1, 2):
        model = small_cnn(seed=seed)
        result = to_saved_model(model, tmp_path / "net", verify=x)
        np.testing.assert_allclose(
            answers(result.path, x)["logits"], model.predict(x, verbose=0), atol=1e-5
        )
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else"):
        to_saved_model(small_cnn(), tmp_path / "thesis")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        to_saved_model(small_cnn(), tmp_path / "file")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("opset", [13, 17])
def test_opsets(opset):
    need_onnx()
    import onnx

    result = to_onnx(small_cnn(), opset=opset, verify=stripes(4)[0])
    assert result.path is None
    assert onnx.load_from_string(result.content).opset_import[0].version == opset


def test_an_operation_that_onnx_has_not():
    need_onnx()

    class Igamma(keras.layers.Layer):
        def call(self, inputs):
            return tf.math.igamma(inputs, inputs)

    model = keras.Sequential([keras.Input((4,)), Igamma()])
    with pytest.raises(ValueError, match=r"operations that the format 'onnx' has.*Igamma"):
        to_onnx(model)


def test_without_the_packages_it_says_what_to_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"Received: no .*onnxruntime") as caught:
        to_onnx(small_cnn())
    assert str(caught.value).endswith('Run: pip install "kerasopt[onnx]"')
