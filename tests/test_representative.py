"""The inputs from which ranges are taken: which ones, and which not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasopt.export._representative import generator_of, representative_samples
from tests.models import small_cnn, stripes


@pytest.fixture(scope="module")
def model():
    return small_cnn()


def taken(data, model, *, normalization=(), **options):
    """All samples, as one array for each input."""
    chosen = representative_samples(data, model, normalization=normalization)
    samples = list(generator_of(chosen, model, **options)())
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def brightness(count, classes, step):
    """Images that tell their class by their mean."""
    ramp = np.linspace(0, 10, 12)[:, None, None]
    y = np.repeat(np.arange(classes), count)
    return (ramp + y[:, None, None, None] * step + np.zeros((1, 12, 12, 3))).astype("float32"), y


@pytest.mark.parametrize("form", ["arrays", "dataset", "iterable", "one-hot"])
def test_as_many_of_each_class(model, form):
    """Sorted by class, as a folder is read: the first 200 would be of one class."""
    x, y = brightness(300, 4, 30)
    data = {
        "arrays": (x, y),
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(32),
        "iterable": ((x[i : i + 7], y[i : i + 7]) for i in range(0, len(x), 7)),
        "one-hot": (x, np.eye(4)[y]),
    }[form]
    found = taken(data, model)["image"]
    counts = np.bincount(np.round((found.mean(axis=(1, 2, 3)) - 5) / 30).astype(int))
    assert counts.tolist() == [50, 50, 50, 50]


def test_arrays_without_labels_are_taken_from_everywhere(model):
    x, _ = brightness(300, 4, 30)
    found = taken(x, model)["image"]
    assert len(found) == 200
    assert np.ptp(found.mean(axis=(1, 2, 3))) > 85


def test_missing_classes_are_filled_up(model):
    x, y = brightness(150, 2, 60)
    assert len(taken((x, y), model)["image"]) == 200


def test_a_folder_of_photos(model, tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 60, 40)[:, None, None], (40, 40, 3))
    for name, level, count in (("dark", 0, 6), ("light", 190, 2)):
        (tmp_path / name).mkdir()
        for index in range(count):
            photo = (ramp + level + index).astype("uint8")
            Image.fromarray(photo).save(tmp_path / name / f"{index}.png")
    found = taken(tmp_path, model)["image"]
    assert found.shape == (8, 12, 12, 3)
    assert (found[:4].mean(axis=(1, 2, 3)) > 128).tolist() == [False, True, False, True]
    scaled = taken(str(tmp_path), model, normalization=[(127.5, 127.5)], pixels=(-1.0, 1.0))[
        "image"
    ]
    np.testing.assert_allclose(scaled[1:], found[1:] / 127.5 - 1, atol=1e-6)


def test_black_and_white_are_in(model):
    x, _ = brightness(10, 4, 40)
    found = taken(x, model)["image"]
    assert (found.min(), found.max()) == (0.0, 255.0)
    assert x.max() == 130.0  # the caller's own array stays
    found = taken(x / 255, model, pixels=(0.0, 1.0))["image"]
    assert (found.min(), found.max()) == (0.0, 1.0)


def test_batches_of_the_size_that_is_converted(model):
    x, _ = brightness(5, 2, 40)
    chosen = representative_samples(x, model)
    sizes = [len(s["image"]) for s in generator_of(chosen, model, batch_size=4)()]
    assert sizes == [4, 4, 4]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, shape: rng.uniform(0, 255, shape),
        lambda rng, shape: rng.integers(0, 256, shape),
        lambda rng, shape: rng.normal(size=shape),
        lambda rng, shape: rng.random(shape) < 0.5,
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_refused(model, draw, seed):
    noise = draw(np.random.default_rng(seed), (8, 12, 12, 3))
    with pytest.raises(ValueError, match=r"Received for 'image': noise: neighbouring pixels"):
        taken(noise, model)


def test_what_is_no_noise(model, shared):
    x, _ = stripes(4)  # uniform noise on bright quarters
    assert len(taken(x, model)["image"]) == 4
    photos = sorted((shared / "data" / "flowers17").glob("*/*.jpg"))[::170]
    images = np.stack([np.array(Image.open(p).convert("RGB").resize((12, 12))) for p in photos])
    assert len(taken(images, model)["image"]) == len(photos)


def test_noise_on_features_is_no_matter():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(2)])
    assert (
        len(next(iter(taken(np.random.default_rng(0).normal(size=(50, 64)), model).values()))) == 50
    )


def bad_data():
    x, _ = stripes(4)
    yield np.zeros((4, 12, 12, 3)), ValueError, "the same input 4 times"
    yield x[:1].repeat(3, axis=0), ValueError, "the same input 3 times"
    yield np.full((1, 12, 12, 3), 7.0), ValueError, "a constant, 7.0 everywhere"
    yield x[:, :8], ValueError, r"must have the shape \(batch, 12, 12, 3\)"
    yield np.where(x > 250, np.inf, x) + np.nan, ValueError, "must be finite"
    yield {"other": x}, ValueError, "must have the inputs 'image'"
    yield x[:0], ValueError, "at least one example"
    yield np.full((2, 12, 12, 3), "x"), ValueError, "and be numbers"
    yield 3, TypeError, "`representative_data` must be an array"
    yield "no/such/folder", ValueError, "`path` must be an existing folder"


@pytest.mark.parametrize(("data", "error", "message"), [*bad_data()])
def test_bad_data(model, data, error, message):
    with pytest.raises(error, match=message):
        taken(data, model)


def test_a_folder_for_a_model_of_no_photo(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="may be a folder of photos for a model of one image"):
        taken(tmp_path, model)
