"""A folder of photos as training, validation and test pipelines."""

import dataclasses
import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._validation import check_choice, check_int, check_number
from kerasopt.datasets import _folders
from kerasopt.datasets._folders import SPLITS, Classes
from kerasopt.datasets._images import BadFile, check_image_size, decode_all, load_image

_CACHE_LIMIT_BYTES = 512 * 2**20
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """What `image_folder` returns: three pipelines and all that is known about them.

    Each pipeline is a batched and prefetched `tf.data.Dataset` of `(images, labels)`: float32
    RGB 0–255 of shape `(batch, height, width, 3)` and int32 of shape `(batch,)`. The last batch
    may be smaller. `len()` of a pipeline is its number of batches.

    Attributes:
        train: shuffled anew in every epoch, over all files.
        validation: in the order of `files["validation"]`.
        test: in the order of `files["test"]`; `None` if ready-made splits have no test photos.
        class_names: sorted; a label is an index into it.
        counts: `counts["train"]["daisy"]` is a number of photos.
        files: the paths of each split, sorted by class and name.
        labels: the int32 labels of each split, in the order of `files`.
        skipped: the files that `on_bad="skip"` left out, with reasons.
        image_size: `(height, width)`.
    """

    train: Any
    validation: Any
    test: Any
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    files: dict[str, list[pathlib.Path]]
    labels: dict[str, np.ndarray]
    skipped: tuple[BadFile, ...]
    image_size: tuple[int, int]

    def summary(self) -> str:
        """Returns a table of classes and splits, and a line about the files left out."""
        height, width = self.image_size
        total = sum(len(files) for files in self.files.values())
        name_width = max(len("total"), *(len(name) for name in self.class_names))
        rows = [(name, [self.counts[s][name] for s in SPLITS]) for name in self.class_names]
        rows.append(("total", [len(self.files[s]) for s in SPLITS]))
        lines = [
            f"{total:,} photos of {len(self.class_names)} classes, {height} x {width} pixels",
            f"{'class':<{name_width}}" + "".join(f"{split:>12}" for split in SPLITS),
            *(f"{name:<{name_width}}" + "".join(f"{n:>12,}" for n in ns) for name, ns in rows),
        ]
        if self.skipped:
            lines.append(f"left out: {len(self.skipped)} bad files, see .skipped")
        return "\n".join(lines)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split}={len(self.files[split])}" for split in SPLITS)
        return f"ImageDataset({len(self.class_names)} classes, {sizes})"


def image_folder(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] = (224, 224),
    batch_size: int = 32,
    split: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    on_bad: str = "raise",
    cache: bool = True,
) -> ImageDataset:
    """Turns a folder of photos into training, validation and test pipelines.

    Two layouts: one folder per class (`daisy/1.jpg`, sub-folders included), which is split here;
    or ready-made `train/`, `val/` (also `valid/`, `validation/`) and, optionally, `test/`
    folders, each with one folder per class, which are taken as they are. Files without an image
    suffix, hidden files and links to folders are not photos; a file with an image suffix must be
    one. How pixels are made is told at `load_image`.

    The split depends on `seed` and on the photo's own name below `path`, nothing else: photos
    that are added later move no other photo. In a class so small that a split would stay empty,
    the photo whose hash is nearest to that split moves in.

    Every file is decoded once before the function returns, so that bad files are found before
    training and not during its third hour.

    Args:
        path: the folder.
        image_size: `(height, width)` in pixels, each >= 1. Default `(224, 224)`.
        batch_size: photos per batch, >= 1. Default 32.
        split: fractions for training, validation and test, each > 0, with sum 1. Not used with
            ready-made splits. Default `(0.7, 0.15, 0.15)`.
        seed: of the split and of the shuffling, >= 0. Default 0.
        on_bad: `"raise"` lists every bad file in one error; `"skip"` leaves them out with one
            warning and lists them in `.skipped`. Default `"raise"`.
        cache: keep the decoded photos in memory (uint8, height × width × 3 bytes each) if all of
            them fit in 512 MiB; otherwise each epoch decodes them again. Default `True`.

    Returns:
        An `ImageDataset`.

    Raises:
        ValueError: the folder is missing, a file or empty; photos lie outside class folders; there
            is one class only, or a class with fewer than three photos (one per split if
            ready-made); class names differ between ready-made splits; files are bad; or an
            argument is outside its range.
        TypeError: an argument is of the wrong type.

    Example:
        >>> data = image_folder("flowers", image_size=(96, 96))  # doctest: +SKIP
        >>> model.fit(data.train, validation_data=data.validation)  # doctest: +SKIP
    """
    size = check_image_size(image_size)
    check_int("batch_size", batch_size, low=1)
    check_int("seed", seed, low=0)
    check_choice("on_bad", on_bad, ("raise", "skip"))
    fractions = _check_split(split)
    root = _folders.existing_folder(path)

    ready = _folders.find_ready_splits(root)
    found = ready or {"": _folders.find_classes(root)}
    _check_found(root, found)
    paths = [photo for classes in found.values() for photos in classes.values() for photo in photos]
    keep = cache and len(paths) * math.prod(size) * 3 <= _CACHE_LIMIT_BYTES
    pixels, bad = decode_all(paths, size, keep=keep)
    if bad:
        _report_bad(bad, on_bad, len(paths))
        found = _without(found, bad)
        _check_found(root, found)
    splits = found if ready else _folders.split_classes(root, found[""], fractions, seed)
    source = _Source(paths, pixels, size)
    return _build(splits, source, batch_size=batch_size, seed=seed, skipped=bad)


class _Source:
    """Gives the pixels of a photo by its row, from memory or from its file."""

    def __init__(
        self, paths: list[pathlib.Path], pixels: np.ndarray | None, image_size: tuple[int, int]
    ) -> None:
        self.rows = {path: row for row, path in enumerate(paths)}
        self.paths = paths
        self.pixels = pixels
        self.image_size = image_size

    def pipeline(
        self, files: list[pathlib.Path], labels: np.ndarray, batch_size: int, seed: int | None
    ) -> Any:
        """Returns the dataset of some files; `seed` shuffles."""
        rows = np.array([self.rows[file] for file in files], np.int64)
        dataset = tf.data.Dataset.from_tensor_slices((rows, labels))
        if seed is not None:
            dataset = dataset.shuffle(len(files), seed=seed, reshuffle_each_iteration=True)
        auto = tf.data.AUTOTUNE
        if self.pixels is None:
            dataset = dataset.map(self._read, num_parallel_calls=auto).batch(batch_size)
        else:
            dataset = dataset.batch(batch_size).map(self._gather, num_parallel_calls=auto)
        return dataset.map(_to_float, num_parallel_calls=auto).prefetch(auto)

    def _read(self, row: Any, label: Any) -> tuple[Any, Any]:
        image = tf.numpy_function(
            lambda r: load_image(self.paths[r], self.image_size), [row], tf.uint8, stateful=False
        )
        return tf.ensure_shape(image, (*self.image_size, 3)), label

    def _gather(self, rows: Any, labels: Any) -> tuple[Any, Any]:
        pixels: Any = self.pixels
        images = tf.numpy_function(lambda r: pixels[r], [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (None, *self.image_size, 3)), labels


def _to_float(images: Any, labels: Any) -> tuple[Any, Any]:
    return tf.cast(images, tf.float32), labels


def _build(
    splits: dict[str, Classes],
    source: _Source,
    *,
    batch_size: int,
    seed: int,
    skipped: tuple[BadFile, ...],
) -> ImageDataset:
    names = tuple(sorted(splits["train"]))
    by_split = {s: splits.get(s, {name: [] for name in names}) for s in SPLITS}
    files = {s: [photo for name in names for photo in by_split[s][name]] for s in SPLITS}
    counts = {s: {name: len(by_split[s][name]) for name in names} for s in SPLITS}
    labels = {
        s: np.repeat(np.arange(len(names), dtype=np.int32), list(counts[s].values()))
        for s in SPLITS
    }
    pipelines = {
        s: source.pipeline(files[s], labels[s], batch_size, seed if s == "train" else None)
        if files[s]
        else None
        for s in SPLITS
    }
    return ImageDataset(
        **pipelines,
        class_names=names,
        counts=counts,
        files=files,
        labels=labels,
        skipped=skipped,
        image_size=source.image_size,
    )


def _check_split(split: Any) -> tuple[float, float, float]:
    fix = "For example split=(0.7, 0.15, 0.15)."
    if not isinstance(split, tuple | list) or len(split) != 3:
        raise ValueError(
            "`split` must be three fractions (train, validation, test). "
            f"Received: split={split!r}. {fix}"
        )
    train, validation, test = (
        check_number(f"split[{i}]", part, low=0, high=1, low_open=True, high_open=True)
        for i, part in enumerate(split)
    )
    if not math.isclose(train + validation + test, 1.0, abs_tol=1e-6):
        raise ValueError(f"`split` must have the sum 1. Received: split={split!r}. {fix}")
    return train, validation, test


def _check_found(root: pathlib.Path, found: dict[str, Classes]) -> None:
    if "" in found:
        _folders.check_classes(root, found[""])
        _folders.check_counts(found[""], _folders.MIN_PHOTOS, "to be split in three")
        return
    _folders.check_classes(root, found["train"])
    _folders.check_same_classes(found)
    for split, classes in found.items():
        _folders.check_counts(classes, 1, f"in the {split} folder")


def _without(found: dict[str, Classes], bad: tuple[BadFile, ...]) -> dict[str, Classes]:
    left_out = {file.path for file in bad}
    return {
        split: {name: [p for p in photos if p not in left_out] for name, photos in classes.items()}
        for split, classes in found.items()
    }


def _report_bad(bad: tuple[BadFile, ...], on_bad: str, total: int) -> None:
    listed = "".join(f"\n  {file}" for file in bad[:_MAX_LISTED])
    more = f"\n  ... and {len(bad) - _MAX_LISTED} more" if len(bad) > _MAX_LISTED else ""
    count = f"{len(bad)} of {total} files with the name of a photo"
    if on_bad == "raise":
        raise ValueError(
            f"{count} cannot be used:{listed}{more}\n"
            'Repair or remove them, or pass on_bad="skip" to leave them out.'
        )
    warnings.warn(f"{count} are left out:{listed}{more}", UserWarning, stacklevel=3)
