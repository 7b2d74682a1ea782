"""Folders of photos as pipelines: the split, the labels, the errors."""

import warnings

import numpy as np
import pytest
from PIL import Image

from kerasopt._backend import tf
from kerasopt.datasets import BadFile, image_folder, load_image
from kerasopt.datasets._folders import SPLITS

SIZE = (8, 8)


def write_photos(folder, count, *, start=0, suffix=".png", grey=0):
    """Every photo has its own flat colour, so that pixels tell which file they came from."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + count):
        Image.new("RGB", (10, 9), (grey, index, 7)).save(folder / f"{index:03d}{suffix}")


def make_root(root, classes):
    for grey, (name, count) in enumerate(classes.items()):
        write_photos(root / name, count, grey=grey)
    return root


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "photos", {"tulip": 20, "daisy": 30, "aster": 10})


def collect(dataset):
    images, labels = zip(*((x.numpy(), y.numpy()) for x, y in dataset), strict=True)
    return np.concatenate(images), np.concatenate(labels)


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


# What is found


def test_other_files_hidden_files_and_leftovers_are_no_photos(root):
    for name in ("notes.txt", "labels.csv", "Thumbs.db", ".DS_Store", "._000.png", ".hidden.jpg"):
        (root / "daisy" / name).write_bytes(b"not an image")
    for folder in (".git", "__MACOSX", "daisy/.thumbnails", "daisy/@eaDir"):
        write_photos(root / folder, 3)
    (root / "loose.txt").write_text("x")
    data = image_folder(root, image_size=SIZE)
    assert data.class_names == ("aster", "daisy", "tulip")
    assert sum(data.counts[s]["daisy"] for s in SPLITS) == 30


def test_subfolders_upper_case_and_odd_names_belong_to_the_class(root):
    write_photos(root / "daisy" / "2024 trip" / "día", 2)
    write_photos(root / "daisy", 1, start=200, suffix=".PNG")
    data = image_folder(str(root), image_size=SIZE)
    assert sum(data.counts[s]["daisy"] for s in SPLITS) == 33


def test_links_to_folders_are_reported_and_not_followed(root, tmp_path):
    outside = tmp_path / "outside"
    write_photos(outside, 5)
    (root / "daisy" / "loop").symlink_to(root, target_is_directory=True)
    (root / "zinnia").symlink_to(outside, target_is_directory=True)
    (root / "daisy" / "linked.png").symlink_to(outside / "001.png")
    with pytest.warns(UserWarning, match="not followed.*daisy/loop.*zinnia"):
        data = image_folder(root, image_size=SIZE)
    assert data.class_names == ("aster", "daisy", "tulip")
    assert sum(data.counts[s]["daisy"] for s in SPLITS) == 31  # a link to a file is a file


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_ready_made_splits_are_taken_as_they_are(tmp_path, validation):
    for folder, count in (("train", 4), (validation, 2), ("test", 1)):
        make_root(tmp_path / folder, {"b": count, "a": count})
    data = image_folder(tmp_path, image_size=SIZE, batch_size=3)
    assert data.counts == {
        s: dict.fromkeys("ab", n) for s, n in zip(SPLITS, (4, 2, 1), strict=True)
    }
    assert all(f.parts[-3] == "train" for f in data.files["train"])
    assert all(f.parts[-3] == validation for f in data.files["validation"])
    np.testing.assert_array_equal(collect(data.validation)[1], [0, 0, 1, 1])


@pytest.mark.parametrize("empty_folder", [True, False])
def test_ready_made_splits_without_test(tmp_path, empty_folder):
    for folder in ("train", "val"):
        make_root(tmp_path / folder, {"a": 2, "b": 2})
    if empty_folder:
        (tmp_path / "test" / "a").mkdir(parents=True)
    data = image_folder(tmp_path, image_size=SIZE)
    assert data.test is None
    assert data.files["test"] == []
    assert data.labels["test"].shape == (0,)
    assert data.counts["test"] == {"a": 0, "b": 0}
    assert "total" in data.summary()


def test_a_class_may_be_called_train(tmp_path):
    data = image_folder(make_root(tmp_path, {"train": 5, "car": 5, "test": 5}), image_size=SIZE)
    assert data.class_names == ("car", "test", "train")


# Bad files


@pytest.fixture
def with_bad(root):
    (root / "daisy" / "zero.jpg").write_bytes(b"")
    (root / "tulip" / "page.jpg").write_bytes(b"<html>404</html>")
    content = (root / "aster" / "003.png").read_bytes()
    (root / "aster" / "cut.png").write_bytes(content[: len(content) - 30])
    return root


def test_all_bad_files_are_listed_in_one_error(with_bad):
    with pytest.raises(ValueError, match="3 of 63 files with the name of a photo") as caught:
        image_folder(with_bad, image_size=SIZE)
    message = str(caught.value)
    assert f"{with_bad / 'daisy' / 'zero.jpg'}: empty file (0 bytes)" in message
    assert "page.jpg: not an image" in message
    assert "cut.png: cannot be decoded" in message
    assert 'on_bad="skip"' in message


def test_skip_leaves_bad_files_out_and_warns_once(with_bad):
    with pytest.warns(UserWarning, match="3 of 63 files.*are left out") as caught:
        data = image_folder(with_bad, image_size=SIZE, on_bad="skip")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert [f.path.name for f in data.skipped] == ["cut.png", "zero.jpg", "page.jpg"]
    assert data.skipped[1] == BadFile(with_bad / "daisy" / "zero.jpg", "empty file (0 bytes)")
    assert data.summary().endswith("left out: 3 bad files, see .skipped")
    assert sum(len(data.files[s]) for s in SPLITS) == 60
    expected = [load_image(f, SIZE) for f in data.files["validation"]]
    np.testing.assert_array_equal(collect(data.validation)[0], expected)


def test_skipping_moves_no_good_photo(root):
    before = image_folder(root, image_size=SIZE)
    (root / "daisy" / "zero.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 61"):
        after = image_folder(root, image_size=SIZE, on_bad="skip")
    assert after.files == before.files


def test_long_lists_are_cut(root):
    for index in range(25):
        (root / "daisy" / f"bad{index:02d}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"25 of 85 files") as caught:
        image_folder(root, image_size=SIZE)
    assert "bad19.jpg" in str(caught.value)
    assert "bad20.jpg" not in str(caught.value)
    assert "... and 5 more" in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_too_few_photos_after_skipping(tmp_path):
    make_root(tmp_path, {"a": 5, "b": 2})
    (tmp_path / "b" / "zero.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"at least 3 readable photos.*Received: 'b' \(2\)"):
        image_folder(tmp_path, image_size=SIZE, on_bad="skip")


def test_the_callers_warning_filters_stay(root):
    before = list(warnings.filters)
    image_folder(root, image_size=SIZE)
    assert list(warnings.filters) == before


# Errors


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"must be an existing folder\. Received: path='.*none'"):
        image_folder(tmp_path / "none")


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="must be a folder, not a file"):
        image_folder(tmp_path / "a.jpg")


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"one folder of photos per class.*which holds no photos"):
        image_folder(tmp_path)
    (tmp_path / "daisy").mkdir()
    with pytest.raises(ValueError, match=r"which holds no photos"):
        image_folder(tmp_path)


def test_photos_without_class_folders(tmp_path):
    write_photos(tmp_path, 4)
    with pytest.raises(ValueError, match=r"4 photos but no class folders.*Put each photo into"):
        image_folder(tmp_path)


def test_one_class_only(tmp_path):
    with pytest.raises(ValueError, match=r"at least two classes.*the one class 'daisy'"):
        image_folder(make_root(tmp_path, {"daisy": 5}))


def test_classes_with_too_few_photos_are_all_named(tmp_path):
    make_root(tmp_path, {"daisy": 5, "aster": 2})
    (tmp_path / "zinnia").mkdir()
    with pytest.raises(ValueError, match=r"Received: 'aster' \(2\), 'zinnia' \(0\)\. Add photos"):
        image_folder(tmp_path)


def test_ready_made_splits_without_validation(tmp_path):
    make_root(tmp_path / "train", {"a": 2, "b": 2})
    make_root(tmp_path / "test", {"a": 2, "b": 2})
    with pytest.raises(ValueError, match=r"exactly one validation folder\. .*\['test', 'train'\]"):
        image_folder(tmp_path)


def test_ready_made_splits_with_two_validations(tmp_path):
    for folder in ("train", "val", "valid"):
        make_root(tmp_path / folder, {"a": 2, "b": 2})
    with pytest.raises(ValueError, match="exactly one validation folder"):
        image_folder(tmp_path)


def test_ready_made_splits_with_different_classes(tmp_path):
    make_root(tmp_path / "train", {"a": 2, "b": 2})
    make_root(tmp_path / "val", {"a": 2, "c": 2})
    with pytest.raises(
        ValueError, match=r"only in train: \['b'\], only in validation: \['c'\]\. Rename"
    ):
        image_folder(tmp_path)


def test_ready_made_splits_with_an_empty_class(tmp_path):
    make_root(tmp_path / "train", {"a": 2, "b": 2})
    make_root(tmp_path / "val", {"a": 2, "b": 0})
    with pytest.raises(ValueError, match=r"1 readable photo in the validation folder.*'b' \(0\)"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image_size": 224}, ValueError, "`image_size` must be two integers"),
        ({"image_size": (0, 8)}, ValueError, r"`image_size\[0\]` must be an integer >= 1"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
        ({"batch_size": 2.5}, TypeError, "`batch_size` must be an integer >= 1"),
        ({"seed": -1}, ValueError, "`seed` must be an integer >= 0"),
        ({"split": (0.8, 0.2)}, ValueError, "`split` must be three fractions"),
        ({"split": 0.8}, ValueError, "`split` must be three fractions"),
        ({"split": (0.8, 0.2, 0.0)}, ValueError, r"`split\[2\]` must be a number in \(0, 1\)"),
        ({"split": (0.5, 0.2, 0.2)}, ValueError, "`split` must have the sum 1"),
        ({"split": ("a", 0.2, 0.2)}, TypeError, r"`split\[0\]` must be a number in \(0, 1\)"),
        ({"on_bad": "skipp"}, ValueError, "`on_bad` must be one of 'raise', 'skip'.*mean 'skip'"),
    ],
)
def test_bad_arguments(root, arguments, error, message):
    with pytest.raises(error, match=message):
        image_folder(root, **arguments)


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
