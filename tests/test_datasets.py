"""Folders of photos as pipelines: the order, the epochs, the split."""

import numpy as np
import pytest

from kerasopt._backend import tf
from kerasopt.datasets import image_folder, load_image
from kerasopt.datasets._folders import SPLITS
from tests.photo_folders import SIZE, collect, make_root, write_photos


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "photos", {"tulip": 20, "daisy": 30, "aster": 10})


def test_pipelines_give_raw_rgb_with_labels_in_the_order_of_files(root):
    data = image_folder(root, image_size=SIZE, batch_size=4)
    assert data.class_names == ("aster", "daisy", "tulip")
    assert data.image_size == SIZE
    assert data.skipped == ()
    for split in SPLITS:
        expected = [data.class_names.index(f.parent.name) for f in data.files[split]]
        np.testing.assert_array_equal(data.labels[split], expected)
        assert data.labels[split].dtype == np.int32
    for split, pipeline in (("validation", data.validation), ("test", data.test)):
        images, labels = collect(pipeline)
        assert images.dtype == np.float32
        np.testing.assert_array_equal(labels, data.labels[split])
        expected = np.stack([load_image(f, SIZE) for f in data.files[split]])
        np.testing.assert_array_equal(images, expected)


def test_element_spec_and_length_are_known(root):
    data = image_folder(root, image_size=(8, 12), batch_size=7)
    images, labels = data.train.element_spec
    assert images == tf.TensorSpec((None, 8, 12, 3), tf.float32)
    assert labels == tf.TensorSpec((None,), tf.int32)
    for split in SPLITS:
        assert len(getattr(data, split)) == -(-len(data.files[split]) // 7)


def test_counts_add_up_and_no_photo_is_in_two_splits(root):
    data = image_folder(root, image_size=SIZE)
    for name, total in {"aster": 10, "daisy": 30, "tulip": 20}.items():
        assert sum(data.counts[s][name] for s in SPLITS) == total
        assert all(data.counts[s][name] >= 1 for s in SPLITS)
    files = [f for s in SPLITS for f in data.files[s]]
    assert len(files) == len(set(files)) == 60


@pytest.mark.parametrize("cache", [True, False])
def test_training_is_shuffled_anew_in_every_epoch(root, cache):
    data = image_folder(root, image_size=SIZE, batch_size=8, cache=cache)
    (first, first_labels), (second, _) = collect(data.train), collect(data.train)
    stored = np.stack([load_image(f, SIZE) for f in data.files["train"]]).astype(np.float32)
    colours = [tuple(image[0, 0]) for image in stored]
    for images in (first, second):
        assert sorted(tuple(i[0, 0]) for i in images) == sorted(colours)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, stored)
    np.testing.assert_array_equal(first[:, 0, 0, 0], [{0: 2, 1: 1, 2: 0}[y] for y in first_labels])


def test_same_seed_same_data_other_seed_other_data(root):
    one, two = (image_folder(root, image_size=SIZE, seed=3) for _ in range(2))
    other = image_folder(root, image_size=SIZE, seed=4)
    assert one.files == two.files
    assert one.files != other.files
    for _ in range(2):  # the second epochs agree too
        np.testing.assert_array_equal(collect(one.train)[0], collect(two.train)[0])


def test_cache_changes_nothing_but_time(root):
    kept = image_folder(root, image_size=SIZE, batch_size=8)
    read = image_folder(root, image_size=SIZE, batch_size=8, cache=False)
    for split in SPLITS:
        for one, two in zip(getattr(kept, split), getattr(read, split), strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])


def test_a_file_that_vanishes_later_is_named(root):
    data = image_folder(root, image_size=SIZE, cache=False)
    data.files["test"][0].unlink()
    with pytest.raises(tf.errors.OpError, match=f"{data.files['test'][0].name}.*no such file"):
        collect(data.test)


def test_fit_sees_the_length(root):
    from kerasopt._backend import keras

    data = image_folder(root, image_size=SIZE, batch_size=8)
    model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    seen = []

    class Steps(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(self.params["steps"])

    # Keras warns about its own default `shuffle=True` when it is given a tf.data pipeline.
    model.fit(
        data.train,
        validation_data=data.validation,
        callbacks=[Steps()],
        shuffle=False,
        verbose=0,
    )
    assert seen == [len(data.train)]


def test_summary_and_repr(root):
    data = image_folder(root, image_size=SIZE)
    lines = data.summary().splitlines()
    assert lines[0] == "60 photos of 3 classes, 8 x 8 pixels"
    assert lines[1].split() == ["class", "train", "validation", "test"]
    assert lines[3].split() == ["daisy", *(str(data.counts[s]["daisy"]) for s in SPLITS)]
    assert lines[-1].split() == ["total", *(str(len(data.files[s])) for s in SPLITS)]
    assert repr(data).startswith("ImageDataset(3 classes, train=")


# The split, on disk


def test_adding_photos_on_disk_moves_none(root):
    before = image_folder(root, image_size=SIZE)
    write_photos(root / "daisy", 10, start=100)
    write_photos(root / "zinnia", 12, grey=9)
    after = image_folder(root, image_size=SIZE)
    for split in SPLITS:
        assert set(before.files[split]) <= set(after.files[split])


def test_three_photos_give_one_each(tmp_path):
    data = image_folder(make_root(tmp_path, {"a": 3, "b": 3}), image_size=SIZE)
    assert data.counts == {s: {"a": 1, "b": 1} for s in SPLITS}


# Real photos


@pytest.mark.slow
def test_flowers17(shared):
    data = image_folder(shared / "data" / "flowers17", image_size=(64, 64))
    assert len(data.class_names) == 17
    for name in data.class_names:
        assert sum(data.counts[s][name] for s in SPLITS) == 80
    shares = [len(data.files[s]) / 1360 for s in SPLITS]
    np.testing.assert_allclose(shares, (0.7, 0.15, 0.15), atol=0.03)
    images, labels = collect(data.train)
    assert images.shape == (len(data.files["train"]), 64, 64, 3)
    assert images.min() >= 0
    assert images.max() > 250
    np.testing.assert_array_equal(np.bincount(labels), list(data.counts["train"].values()))
