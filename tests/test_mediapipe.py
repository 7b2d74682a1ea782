"""The file as it is in a real client: MediaPipe Tasks' ImageClassifier, in a process of its own."""

import json
import os
import pathlib
import random
import subprocess

import numpy as np
import pytest
from PIL import Image

import kerasopt as ko
from kerasopt.export import Metadata, TFLiteModel, read_metadata, to_tflite
from tests.models import small_cnn, stripes

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYTHON = pathlib.Path(
    os.environ.get("KERASOPT_MEDIAPIPE_PYTHON", ROOT / ".venv" / "mediapipe" / "bin" / "python")
)
NAMES = ("north west", "north east", "south west", "süd-ost")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.is_file(),
        reason="needs a Python with MediaPipe (make test makes one; or set "
        "KERASOPT_MEDIAPIPE_PYTHON)",
    ),
]


def classify(model, photos=()):
    """Runs MediaPipe; returns its view of the metadata, and names, indices and scores."""
    done = subprocess.run(
        [PYTHON, ROOT / "tests" / "mediapipe_classify.py", model, *photos],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def scores(answer):
    """Scores in the order of the classes, after checking that each has its name."""
    ordered = sorted(answer, key=lambda category: category[1])
    return [name for name, _, _ in ordered], np.array([score for _, _, score in ordered])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    x = np.round(stripes(8)[0])
    paths = [folder / f"{index}.png" for index in range(len(x))]
    for path, image in zip(paths, x, strict=True):
        Image.fromarray(image.astype("uint8")).save(path)
    return x, paths


@pytest.mark.parametrize(
    ("quantize", "output_dtype", "probabilities"),
    [
        (None, "float32", False),
        ("float16", "float32", True),
        ("int8", "float32", False),
        ("int8", "uint8", True),
    ],
)
def test_scores_are_those_of_tflite_model(photos, tmp_path, quantize, output_dtype, probabilities):
    x, paths = photos
    result = to_tflite(
        small_cnn(),
        tmp_path / "m.tflite",
        quantize=quantize,
        output_dtype=output_dtype,
        representative_data=x if quantize == "int8" else None,
        labels=NAMES,
        probabilities=probabilities,
        verify=x,
        min_agreement=0.0 if quantize == "int8" else None,  # untrained: classes nearly tie
    )
    expected = TFLiteModel(result.content).predict(x)
    for answer, row in zip(classify(result.path, paths)["answers"], expected, strict=True):
        names, found = scores(answer)
        assert names == list(NAMES)
        np.testing.assert_allclose(found, row, atol=1e-5)


def test_normalization_is_applied(photos, tmp_path):
    """A model of inputs from −1 to 1 gets pixels from the client, and scores the same."""
    import keras

    inputs = keras.Input((12, 12, 3), name="image")
    outputs = small_cnn()(keras.layers.Rescaling(127.5, 127.5)(inputs))
    model = keras.Model(inputs, outputs)
    x, paths = photos
    metadata = Metadata(mean=(127.5, 127.5, 127.5), std=127.5, labels=NAMES)
    scaled = x / 127.5 - 1
    result = to_tflite(model, tmp_path / "m.tflite", metadata=metadata, verify=scaled)
    expected = TFLiteModel(result.content).predict(scaled)
    for answer, row in zip(classify(result.path, paths)["answers"], expected, strict=True):
        np.testing.assert_allclose(scores(answer)[1], row, atol=1e-4)


def test_scores_are_calibrated(photos, tmp_path):
    x, paths = photos
    lines = [(1.0, 0.5, 0.25), (0.75, 1.0, -2.0), (1.0, 1.0, 0.0), (1.0, 1.0, 0.0, 1000.0)]
    metadata = Metadata(labels=NAMES, score_calibration=lines)
    result = to_tflite(small_cnn(), tmp_path / "m.tflite", metadata=metadata)
    logits = TFLiteModel(result.content).predict(x)
    scale, slope, offset = np.array([line[:3] for line in lines]).T
    expected = scale / (1 + np.exp(-(slope * logits + offset)))
    expected[:, 3] = 0.0  # below min_score
    for answer, row in zip(classify(result.path, paths)["answers"], expected, strict=True):
        np.testing.assert_allclose(scores(answer)[1], row, atol=1e-4)


def test_a_float_file_without_metadata_is_what_mediapipe_refuses(photos, tmp_path):
    result = to_tflite(small_cnn(), tmp_path / "m.tflite", labels=NAMES, metadata=False)
    assert "NormalizationOptions" in classify(result.path, photos[1])["error"]


def test_the_reader_of_the_schema_finds_what_was_written(tmp_path):
    """The code that MediaPipe generated from the public schema is the oracle of our own tables."""
    metadata = Metadata(
        name="Stripes",
        description="Which quarter is bright.",
        version="1.2",
        author="A. Gärtner",
        license="Apache-2.0",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        labels=NAMES,
        score_calibration=[(1.0, 0.5, 0.25), (), (0.75, 1.0, -2.0, 0.125), (1.0, 1.0, 0.0)],
        score_transformation="log",
    )
    result = to_tflite(small_cnn(), tmp_path / "m.tflite", metadata=metadata)
    seen = classify(result.path)
    found = seen["metadata"]
    texts = {
        "name": "name",
        "description": "description",
        "version": "version",
        "author": "author",
        "license": "license",
    }
    assert {ours: found[theirs] for ours, theirs in texts.items()} == {
        ours: getattr(metadata, ours) for ours in texts
    }
    assert found["minParserVersion"] == "1.0.0"
    (graph,) = found["subgraphMetadata"]
    (image,), (output,) = graph["inputTensorMetadata"], graph["outputTensorMetadata"]
    assert image["name"] == "image"
    assert image["content"]["contentPropertiesType"] == 2
    assert image["content"]["contentProperties"] == {"colorSpace": 1}
    assert image["processUnits"][0]["options"] == {"mean": [127.5] * 3, "std": [127.5] * 3}
    assert image["stats"] == {"max": [1.0] * 3, "min": [-1.0] * 3}
    assert output["processUnits"][0]["options"]["scoreTransformation"] == 1
    assert [(file["name"], file["type"]) for file in output["associatedFiles"]] == [
        ("labels.txt", 2),
        ("score_calibration.txt", 4),
    ]
    assert seen["files"]["labels.txt"].split("\n") == list(NAMES)
    assert read_metadata(result.path) == metadata


@pytest.fixture(scope="module")
def flowers(shared, tmp_path_factory):
    """A classifier of flowers from deep features, and photos that it has not seen."""
    folder = shared / "data" / "flowers17"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [sorted((folder / name).glob("*.jpg")) for name in names]
    for paths in files:
        random.Random(0).shuffle(paths)
    train = [(path, index) for index, paths in enumerate(files) for path in paths[:15]]
    held_out = [(path, index) for index, paths in enumerate(files) for path in paths[-2:]]

    def load(pairs):
        images = np.stack([ko.datasets.load_image(path, (224, 224)) for path, _ in pairs])
        return images.astype("float32"), np.array([index for _, index in pairs])

    model = ko.transfer.build_classifier(
        str(shared / "weights" / "efficientnet_lite0_imagenet.keras"), len(names)
    )
    ko.transfer.linear_probe(model, load(train), c_values=(1.0,), folds=2)
    images, truth = load(held_out)
    home = tmp_path_factory.mktemp("flowers")
    paths = [home / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.astype("uint8")).save(path)
    return model, load(train)[0], images, truth, names, paths


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_flowers_by_name(flowers, tmp_path, quantize):
    model, train, images, truth, names, paths = flowers
    result = to_tflite(
        model,
        tmp_path / "flowers.tflite",
        quantize=quantize,
        representative_data=train[::15] if quantize else None,
        metadata=Metadata(name="Flowers", license="Apache-2.0", labels=names),
        probabilities=True,
        verify=(images, truth),
        min_agreement=0.9,
        max_accuracy_drop=0.1,
    )
    expected = TFLiteModel(result.content).predict(images)
    answers = classify(result.path, paths)["answers"]
    tops = [answer[0] for answer in answers]
    assert [name for name, _, _ in tops] == [names[row.argmax()] for row in expected]
    np.testing.assert_allclose([score for _, _, score in tops], expected.max(axis=-1), atol=1e-5)
    assert (
        np.mean([name == names[index] for (name, _, _), index in zip(tops, truth, strict=True)])
        > 0.8
    )
