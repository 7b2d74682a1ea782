"""What a file says of itself: written by hand, read back, and left in one piece by damage."""

import io
import json
import random
import time
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from kerasopt.export import Metadata, TFLiteModel, read_metadata, to_tflite
from kerasopt.export._metadata import write_tables
from kerasopt.export._metadata_file import attach
from kerasopt.export._metadata_tables import Model, Subgraph, Tensor
from tests.models import small_cnn, stripes

NAMES = ("north west", "north east", "south west", "süd-ost")
FULL = Metadata(
    name="Stripes",
    description="Which quarter is bright.",
    version="1.2",
    author="A. Gärtner",
    license="Apache-2.0",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    labels=NAMES,
    score_calibration=[(1.0, 0.5, 0.25), (), (0.75, 1.0, -2.0, 0.125), (1.0, 1.0, 0.0)],
    score_transformation="inverse_logistic",
)


@pytest.fixture(scope="module")
def model():
    return small_cnn()


@pytest.fixture(scope="module")
def plain(model):
    return to_tflite(model).content


def scaled(scale, offset=0.0, size=6, channels=3):
    """A classifier of images scaled by the caller."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, channels), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    # Neighbouring pixels are alike, as in photos.
    coarse = np.random.default_rng(0).integers(0, 256, (32, -(-size // 3), -(-size // 3), channels))
    pixels = coarse.repeat(3, axis=1).repeat(3, axis=2)[:, :size, :size]
    return keras.Model(inputs, outputs), (pixels * scale + offset).astype("float32")


def test_all_fields_come_back(model):
    result = to_tflite(model, metadata=FULL)
    assert read_metadata(result.content) == FULL
    assert result.labels == NAMES
    assert json.loads(json.dumps(FULL.to_dict()))["labels"] == list(NAMES)


@pytest.mark.slow
def test_labels_bring_metadata_and_false_leaves_them_out(model, plain, tmp_path):
    result = to_tflite(model, tmp_path / "m.tflite", labels=NAMES)
    found = read_metadata(tmp_path / "m.tflite")
    assert found == Metadata(name="small_cnn", mean=0.0, std=1.0, labels=NAMES)
    assert (tmp_path / "m.labels.txt").is_file()
    assert read_metadata(plain) is None
    assert read_metadata(to_tflite(model, metadata=False, labels=NAMES).content) is None
    inside = to_tflite(model, tmp_path / "n.tflite", metadata=Metadata(labels=NAMES))
    assert read_metadata(inside.content) == found
    assert inside.labels == result.labels
    assert not (tmp_path / "n.labels.txt").exists()
    assert read_metadata(to_tflite(model, metadata=True).content).labels is None


def described(plain, metadata=FULL):
    """The same file with metadata; two conversions of a model differ in names of tensors."""
    tables, files = write_tables(
        metadata, inputs=["image"], outputs=["logits"], channels=3, output_description=""
    )
    return attach(plain, tables, files)


def test_the_rest_of_the_file_stays(plain):
    content = described(plain)
    before, after = (
        schema.ModelT.InitFromObj(schema.Model.GetRootAs(c, 0)) for c in (plain, content)
    )
    assert [m.name for m in after.metadata] == [
        *(m.name for m in before.metadata),
        b"TFLITE_METADATA",
    ]
    assert len(after.buffers) == len(before.buffers) + 1
    for ours, theirs in zip(after.buffers, before.buffers, strict=False):
        np.testing.assert_array_equal(ours.data, theirs.data)
    signatures = [Interpreter(model_content=c).get_signature_list() for c in (plain, content)]
    assert signatures[0] == signatures[1]
    assert signatures[0]["serving_default"]["inputs"] == ["image"]
    x, _ = stripes(8)
    np.testing.assert_array_equal(TFLiteModel(plain).predict(x), TFLiteModel(content).predict(x))


def test_the_files_are_a_zip_that_an_app_can_map(plain):
    content = described(plain)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["labels.txt", "score_calibration.txt"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("labels.txt").decode().split("\n") == list(NAMES)
        lines = archive.read("score_calibration.txt").decode().split("\n")
    assert lines == ["1,0.5,0.25", "", "0.75,1,-2,0.125", "1,1,0"]
    assert described(plain) == described(plain)
    assert read_metadata(described(described(plain), Metadata(name="again"))).name == "again"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "offset", "mean", "std"),
    [(1, 0, 0, 1), (1 / 255, 0, 0, 255), (2 / 255, -1, 127.5, 127.5)],
)
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_normalization_is_true_of_file_and_data(scale, offset, mean, std, quantize):
    model, x = scaled(scale, offset)
    dim = x * 0.6 + offset * 0.4  # no photo is wholly white; a byte is a pixel all the same
    result = to_tflite(
        model,
        quantize=quantize,
        representative_data=dim if quantize else None,
        metadata=Metadata(mean=mean, std=std),
        verify=x,
        min_agreement=0.8,
        max_relative_error=1.0,  # ranges of dim photos cut bright ones off
    )
    if quantize:
        step, zero = TFLiteModel(result.content).input_quantization
        assert step == pytest.approx(1 / std, rel=1e-3)
        assert abs(zero - mean) <= 0.5
    with pytest.raises(ValueError, match=r"`metadata` must say how pixels from 0 to 255 become"):
        to_tflite(model, metadata=Metadata(mean=100, std=30), verify=x)


@pytest.mark.slow
def test_a_byte_that_is_no_pixel_is_refused():
    model, x = scaled(1.0)
    with pytest.raises(ValueError, match="`metadata` must be true of a uint8 input"):
        to_tflite(
            model,
            quantize="int8",
            representative_data=x,
            metadata=Metadata(mean=(0.0, 10.0, 0.0), std=1.0),
        )


@pytest.mark.slow
def test_other_models_have_no_normalization():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    found = read_metadata(to_tflite(model, labels=["a", "b"], verify=np.eye(8)).content)
    assert (found.normalization, found.labels) == ((), ("a", "b"))


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 4])
def test_probabilities(outputs):
    model, (x, _) = small_cnn(classes=outputs), stripes(16)
    kind = keras.activations.sigmoid if outputs == 1 else keras.activations.softmax
    expected = np.asarray(kind(model.predict(x, verbose=0)))
    found = TFLiteModel(to_tflite(model, probabilities=True, verify=x).content).predict(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    done = keras.Model(model.input, keras.layers.Activation(kind)(model.output))
    again = to_tflite(done, probabilities=True)
    assert again.operators == to_tflite(done).operators
    np.testing.assert_allclose(TFLiteModel(again.content).predict(x), expected, atol=1e-5)


@pytest.mark.slow
def test_operations_that_make_probabilities_are_seen():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.softmax(keras.layers.Dense(3)(inputs)))
    assert to_tflite(model, probabilities=True).operators.count("SOFTMAX") == 1


@pytest.mark.slow
@pytest.mark.parametrize("output_dtype", ["float32", "uint8", "int8"])
def test_probabilities_of_an_aware_model(output_dtype):
    from kerasopt.quantization import quantize_aware

    aware, (x, _) = quantize_aware(small_cnn()), stripes(32)
    for _ in range(3):
        aware(x, training=True)
    result = to_tflite(
        aware,
        quantize="int8",
        output_dtype=output_dtype,
        probabilities=True,
        verify=x,
        min_agreement=0.5,
    )
    assert result.output_dtype == output_dtype
    assert result.max_error < 0.05
    found = TFLiteModel(result.content).predict(x)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=0.02)


def bad_metadata():
    yield {"name": 3}, TypeError, "`name` must be text"
    yield {"std": 0.0}, ValueError, "`std` must be a positive number"
    yield {"std": (1.0, -1.0, 1.0)}, ValueError, "`std` must be a positive number"
    yield {"mean": float("nan")}, ValueError, "`mean` must be a finite number"
    yield {"mean": (1, 2, 3), "std": (1, 2)}, ValueError, "as many numbers as each other"
    yield {"labels": "cat"}, ValueError, "`labels` must be a list of class names"
    yield {"labels": ["cat", ""]}, ValueError, "each some text on one line"
    yield {"labels": ["cat\ndog"]}, ValueError, "each some text on one line"
    yield {"labels": ["cat", 3]}, ValueError, "each some text on one line"
    yield {"score_calibration": [(1.0, 2.0)]}, ValueError, "`score_calibration` must have"
    yield {"score_calibration": [(-1.0, 2.0, 3.0)]}, ValueError, "`score_calibration` must have"
    yield {"score_transformation": "exp"}, ValueError, "`score_transformation` must be one of"


@pytest.mark.parametrize(("fields", "error", "message"), [*bad_metadata()])
def test_bad_fields(fields, error, message):
    with pytest.raises(error, match=message):
        Metadata(**fields)


@pytest.mark.parametrize(
    ("metadata", "labels", "error", "message"),
    [
        ("yes", None, TypeError, "`metadata` must be a Metadata, True, False or None"),
        (Metadata(labels=["a"]), None, ValueError, "`labels` must be a list of 4 class names"),
        (Metadata(labels=NAMES), NAMES[::-1], ValueError, "`labels` must be said once"),
        (Metadata(mean=(1.0, 2.0)), None, ValueError, "`mean` must be one number, or 3"),
        (Metadata(score_calibration=[()]), None, ValueError, "a line for each of the 4 outputs"),
    ],
)
def test_metadata_that_do_not_fit(model, metadata, labels, error, message):
    with pytest.raises(error, match=message):
        to_tflite(model, metadata=metadata, labels=labels)


def test_damage_ends_in_a_value_error(plain):
    """Whatever a byte says, reading is an answer or one error, and ends."""
    content = described(plain)
    start = content.index(b"M001") - 4
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.randrange(start, len(content))] = rng.randrange(256)
        try:
            read_metadata(bytes(damaged))
        except ValueError as error:
            refused += "TFLite file" in str(error) or "Received: " in str(error)
    assert refused > 30


def packed(plain, name, data=b"a\nb\nc\nd"):
    """A file whose metadata name a label file of any name."""
    content = described(plain, Metadata(mean=0.0, std=1.0, labels=["a", "b", "c", "d"]))
    cut = content.index(b"PK\x03\x04")
    old = b"labels.txt"
    assert len(name) == len(old)
    file = io.BytesIO()
    file.write(content[:cut].replace(old, name.encode()))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    "name", ["../../a.tx", "/etc/a.txt", "a/../b.txt", "..\\..\\a.tx", "C:\\a.txt.x"]
)
def test_names_that_are_paths_are_refused(plain, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="which is a path"):
        read_metadata(packed(plain, name))
    assert not any(tmp_path.iterdir())


def test_lists_that_name_one_table_again_and_again(plain):
    """24 kB, in which 9 million process units would be looked at."""
    builder = flatbuffers.Builder(1024)

    def table(field, offset):
        builder.StartObject(field + 1)
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        return builder.EndObject()

    def vector(offset, count):
        builder.StartVector(4, count, 4)
        for _ in range(count):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    builder.StartObject(1)
    units = vector(builder.EndObject(), 3_000)
    inputs = vector(table(Tensor.PROCESS_UNITS, units), 3_000)
    graph = table(Subgraph.INPUTS, inputs)
    builder.Finish(table(Model.SUBGRAPHS, vector(graph, 1)), b"M001")
    start = time.monotonic()
    with pytest.raises(ValueError, match="their lists are longer than they are themselves"):
        read_metadata(attach(plain, bytes(builder.Output()), {}))
    assert time.monotonic() - start < 2.0


def test_a_zip_bomb_is_refused(plain):
    with pytest.raises(ValueError, match="longer than"):
        read_metadata(packed(plain, "labels.txt", b"\n" * 2**25))
