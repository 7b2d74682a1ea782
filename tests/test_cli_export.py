"""The options of `kerasopt export`, each as `to_tflite` knows it."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from typer.testing import CliRunner

from kerasopt.cli import app
from kerasopt.export import Metadata, TFLiteModel, read_metadata
from tests.models import stripes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes: which half is bright."""
    folder = tmp_path_factory.mktemp("photos")
    x, y = stripes(40)
    for index, (image, label) in enumerate(zip(x.astype("uint8"), y, strict=True)):
        target = folder / ("left", "right")[label % 2]
        target.mkdir(exist_ok=True)
        Image.fromarray(image).save(target / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A sigmoid on grey images: whether the right half is the brighter one."""
    folder = tmp_path_factory.mktemp("saved")
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.AveragePooling2D((12, 6)),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid", use_bias=False, name="sum"),
        ]
    )
    model.get_layer("sum").set_weights([np.array([[-0.1], [0.1]])])
    model.save(folder / "sigmoid.keras")
    wide = keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten(), layers.Dense(3)])
    wide.save(folder / "three.keras")
    numbers = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    numbers.save(folder / "numbers.keras")
    return folder


def export(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.slow
def test_a_single_output_and_two_folders(saved, photos, tmp_path):
    target = tmp_path / "m.tflite"
    for kind in ("none", "int16x8"):
        done = export(
            saved / "sigmoid.keras", "--data", photos, "--out", target, "--quantize", kind
        )
        assert done.exit_code == 0, done.exception
        assert "accuracy" in done.stdout
        assert "100.00%" in done.stdout
    lite = TFLiteModel(target)
    assert lite.outputs[0].dtype == "float32"
    assert read_metadata(target) is None
    assert not (tmp_path / "m.labels.txt").exists()


def test_metadata_and_batch(saved, tmp_path):
    target = tmp_path / "m.tflite"
    texts = {"name": "n", "description": "d", "version": "1", "author": "a", "license": "MIT"}
    options = [part for name, value in texts.items() for part in (f"--{name}", value)]
    numbers = ["--mean", "127.5", "--std", "127.5", "--batch-size", "any"]
    done = export(saved / "sigmoid.keras", "--out", target, *options, *numbers)
    assert done.exit_code == 0, done.exception
    assert read_metadata(target) == Metadata(**texts, mean=127.5, std=127.5)
    assert TFLiteModel(target).input_shape == (None, 12, 12, 1)
    done = export(saved / "three.keras", "--out", target, "--mean", "1,2,3", "--batch-size", "4")
    assert done.exit_code == 0, done.exception
    assert read_metadata(target).mean == (1.0, 2.0, 3.0)
    assert TFLiteModel(target).input_shape == (4, 12, 12, 3)


def test_photos_are_normalized_as_the_metadata_will_say(tmp_path, photos):
    model = keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    done = export(tmp_path / "m.keras", "--data", photos, "--mean", "127.5", "--std", "127.5")
    assert done.exit_code == 0, done.exception
    assert read_metadata(tmp_path / "m.tflite").labels == ("left", "right")


def test_flex(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.ops.erf(inputs)).save(tmp_path / "m.keras")
    assert "FlexErf" not in export(tmp_path / "m.keras").stdout
    assert "FlexErf" in export(tmp_path / "m.keras", "--allow-flex").stdout


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("three", ["--data", "photos"], r"2 folders, a model of 3 outputs\. Pass 3 folders"),
        ("numbers", ["--data", "photos"], r"photos for a model of one image .* shape \(4,\)"),
        ("three", ["--quantize", "int4"], "`quantize` must be one of 'none', .*'int16x8'"),
        ("three", ["--batch-size", "all"], "`batch_size` must be a number or 'any'"),
        ("three", ["--batch-size", "0"], "`batch_size` must be an integer >= 1"),
        ("three", ["--mean", "grey"], "`mean` must be a number, or one for each channel"),
        ("three", ["--std", "0"], "`std` must be a positive number"),
        ("three", ["--mean", "1,2"], "`mean` must be one number, or 3"),
    ],
)
def test_mistakes(saved, photos, tmp_path, name, options, message):
    given = [photos if option == "photos" else option for option in options]
    done = export(saved / f"{name}.keras", "--out", tmp_path / "m.tflite", *given)
    assert isinstance(done.exception, ValueError)
    with pytest.raises(ValueError, match=message):
        raise done.exception
    assert not [*tmp_path.iterdir()]
