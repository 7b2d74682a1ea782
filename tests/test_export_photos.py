"""Photo files as inputs of a TFLite file."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import kerasopt as ko
from kerasopt.export import Metadata, TFLiteModel, to_tflite
from tests.models import small_cnn, stripes

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture(scope="module")
def model():
    """Answers with the brightest quarter, the class of `stripes`."""
    made = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.AveragePooling2D(6),
            layers.Flatten(),
            layers.Dense(4, use_bias=False, name="sum"),
        ]
    )
    made.get_layer("sum").set_weights([np.repeat(np.eye(4), 3, axis=0) / 765])
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of three classes; the last one has none, and larger ones are cut."""
    root = tmp_path_factory.mktemp("photos")
    x, y = stripes(40)
    for index, (image, label) in enumerate(zip(x.astype("uint8"), y, strict=True)):
        if label < 3:
            path = root / NAMES[label] / f"{index:02}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).resize((24, 24), Image.Resampling.NEAREST).save(path)
    return root


@pytest.fixture(scope="module")
def lite(model):
    return TFLiteModel(to_tflite(model, labels=NAMES).content)


def loaded(folder):
    paths = ko.datasets.list_photos(folder)
    return paths, np.stack([ko.datasets.load_image(path, (12, 12)) for path in paths])


def test_a_photo_a_list_and_a_folder(model, lite, folder):
    paths, pixels = loaded(folder)
    expected = model.predict(pixels.astype("float32"), verbose=0)
    np.testing.assert_allclose(lite.predict(folder), expected, atol=1e-5)
    np.testing.assert_allclose(lite.predict(str(paths[3])), expected[3:4], atol=1e-5)
    np.testing.assert_allclose(lite.predict(paths[4:1:-1]), expected[4:1:-1], atol=1e-5)


def test_accuracy_of_class_folders(lite, folder):
    paths, pixels = loaded(folder)
    truth = np.array([NAMES.index(path.parent.name) for path in paths])
    accuracy = float(np.mean(lite.predict(pixels).argmax(axis=1) == truth))
    assert accuracy > 0.9
    assert lite.evaluate(folder) == {"accuracy": accuracy}


def test_photos_are_normalized_as_the_file_says(folder):
    model = keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten()])
    metadata = Metadata(mean=127.5, std=127.5)
    lite = TFLiteModel(to_tflite(model, metadata=metadata).content)
    _, pixels = loaded(folder)
    expected = (pixels.astype("float32") / 127.5 - 1.0).reshape(len(pixels), -1)
    np.testing.assert_allclose(lite.predict(folder), expected, atol=1e-6)


def test_folders_that_are_not_the_classes(model, lite, folder, tmp_path):
    (tmp_path / "eel").mkdir()
    first = ko.datasets.list_photos(folder)[0]
    (tmp_path / "eel" / "a.png").write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"`data` must be a folder with .* 'eel'"):
        lite.evaluate(tmp_path)
    with pytest.raises(ValueError, match="with photos in itself"):
        TFLiteModel(to_tflite(model).content).evaluate(tmp_path / "eel")
    with pytest.raises(ValueError, match="3 folders, 4 outputs"):
        TFLiteModel(to_tflite(model).content).evaluate(folder)


def test_a_grey_model_takes_photos(folder, tmp_path):
    """Greys are those of Pillow's mode "L", for the ranges of an int8 file too."""
    model = keras.Sequential(
        [keras.Input((12, 12, 1)), layers.AveragePooling2D(6), layers.Flatten()]
    )
    paths, _ = loaded(folder)
    greys = [np.asarray(Image.open(path).convert("L").resize((12, 12), 2)) for path in paths]
    expected = np.stack(greys)[..., None].astype("float32")
    lite = TFLiteModel(to_tflite(model, metadata=Metadata(mean=127.5, std=127.5)).content)
    scaled = (expected - 127.5) / 127.5
    np.testing.assert_allclose(lite.predict(folder), lite.predict(scaled), atol=1e-6)
    made = to_tflite(model, quantize="int8", representative_data=folder, verify=expected)
    found = TFLiteModel(made.content).predict(folder)
    np.testing.assert_allclose(found, model.predict(expected, verbose=0), atol=1.0)


def test_what_takes_no_photos(folder, tmp_path):
    numbers = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    lite = TFLiteModel(to_tflite(numbers).content)
    with pytest.raises(ValueError, match="Photos need a file with one input, an RGB or grey image"):
        lite.predict(folder)
    with pytest.raises(ValueError, match="must be an existing folder"):
        lite.predict(tmp_path / "missing")
    (tmp_path / "text.png").write_text("no photo")
    rgb = TFLiteModel(to_tflite(small_cnn()).content)
    with pytest.raises(ValueError, match="must be a whole image file"):
        rgb.predict(tmp_path / "text.png")
