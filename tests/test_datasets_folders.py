"""What is found in folders of photos, bad files, and the errors."""

import warnings

import numpy as np
import pytest

from kerasopt.datasets import BadFile, image_folder, load_image
from kerasopt.datasets._folders import SPLITS
from tests.photo_folders import SIZE, collect, make_root, write_photos


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "photos", {"tulip": 20, "daisy": 30, "aster": 10})


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
