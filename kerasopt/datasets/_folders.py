"""Which photos a folder holds, by class, and which split each belongs to."""

import hashlib
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence

SPLITS = ("train", "validation", "test")
MIN_PHOTOS = 3

# What people and their tools call an image. A file with one of these suffixes has to be one.
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
_SPLIT_OF_NAME = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
# Folders that archivers and file servers leave behind.
_NOT_A_CLASS = frozenset({"__MACOSX", "@eaDir"})

Classes = dict[str, list[pathlib.Path]]


def existing_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder as a path after checking that it is there."""
    root = pathlib.Path(path).expanduser()
    if not root.exists():
        raise ValueError(f"`path` must be an existing folder. Received: path={str(root)!r}.")
    if not root.is_dir():
        raise ValueError(
            f"`path` must be a folder, not a file. Received: path={str(root)!r}. "
            "Give the folder that holds one folder per class."
        )
    return root


def list_photos(path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Lists the photos of a folder and its sub-folders, by the rules of `image_folder`.

    Files without an image suffix, hidden files, and links to folders are left out.

    Args:
        path: the folder.

    Returns:
        Their paths, sorted by their names below `path`, so class by class where each class has a
        folder.

    Raises:
        ValueError: the folder is missing, a file, or holds no photos.

    Example:
        >>> files = list_photos("flowers")  # doctest: +SKIP
        >>> classes = [file.parent.name for file in files]  # doctest: +SKIP
    """
    root = existing_folder(path)
    photos = _photos(root, [])
    if not photos:
        raise ValueError(
            f"`path` must hold at least one photo. Received: path={str(root)!r} without any."
        )
    return photos


def find_ready_splits(root: pathlib.Path) -> dict[str, Classes] | None:
    """Returns split, class, photos for ready-made splits; `None` for one folder per class.

    A class may well be called "train": ready-made means that a validation folder stands beside
    it, or that nothing but splits does.
    """
    folders = {f: _SPLIT_OF_NAME.get(f.name.lower()) for f in _folders(root)}
    names = list(folders.values())
    if "train" not in names or not ("validation" in names or set(names) <= set(SPLITS)):
        return None
    for split in SPLITS[:2]:
        if names.count(split) != 1:
            listed = sorted(f.name for f in folders)
            raise ValueError(
                f"Ready-made splits need exactly one {split} folder. Received: {listed} in "
                f"{str(root)!r}. Name them train, val and (if there is one) test."
            )
    found = {split: find_classes(f) for f, split in folders.items() if split is not None}
    if not any(found.get("test", {}).values()):
        found.pop("test", None)  # an empty test folder is no test folder
    return found


def find_classes(root: pathlib.Path) -> Classes:
    """Returns class name and sorted photos for every folder directly inside `root`."""
    links: list[str] = []
    classes = {f.name: _photos(f, links) for f in _folders(root, links)}
    if links:
        warnings.warn(
            "Symbolic links to folders are not followed, their photos are left out: "
            f"{', '.join(sorted(links))}.",
            UserWarning,
            stacklevel=3,
        )
    return classes


def check_classes(root: pathlib.Path, classes: Classes) -> None:
    """Raises ValueError unless there are photos in at least two class folders."""
    layout = "Put each photo into a folder named after its class: daisy/1.jpg, tulip/2.jpg."
    if not any(classes.values()):
        loose = sum(1 for f in root.iterdir() if _is_photo(f.name) and f.is_file())
        what = f"{loose} photos but no class folders with photos" if loose else "no photos"
        raise ValueError(
            f"`path` must hold one folder of photos per class. Received: path={str(root)!r}, "
            f"which holds {what}. {layout}"
        )
    if len(classes) < 2:
        raise ValueError(
            "A classifier needs photos of at least two classes. "
            f"Received: {str(root)!r} with the one class {next(iter(classes))!r}. {layout}"
        )


def check_counts(classes: Classes, minimum: int, where: str) -> None:
    """Raises ValueError if a class has fewer than `minimum` photos."""
    few = {name: len(photos) for name, photos in classes.items() if len(photos) < minimum}
    if few:
        listed = ", ".join(f"{name!r} ({count})" for name, count in sorted(few.items()))
        raise ValueError(
            f"Every class needs at least {minimum} readable photo{'s'[: minimum - 1]} {where}. "
            f"Received: {listed}. Add photos, or move these folders away."
        )


def check_same_classes(splits: Mapping[str, Classes]) -> None:
    """Raises ValueError unless all ready-made splits have the same class folders."""
    train = set(splits["train"])
    for split, classes in splits.items():
        missing, extra = sorted(train - set(classes)), sorted(set(classes) - train)
        if missing or extra:
            raise ValueError(
                f"train and {split} must have the same class folders. "
                f"Received: only in train: {missing}, only in {split}: {extra}. "
                "Rename, add or remove class folders until they agree."
            )


def split_classes(
    root: pathlib.Path, classes: Classes, fractions: Sequence[float], seed: int
) -> dict[str, Classes]:
    """Distributes the photos of each class; see `assign_splits`."""
    splits: dict[str, Classes] = {split: {name: [] for name in classes} for split in SPLITS}
    for name, photos in classes.items():
        by_name = {photo.relative_to(root).as_posix(): photo for photo in photos}
        for relative, split in assign_splits(list(by_name), fractions, seed).items():
            splits[split][name].append(by_name[relative])
    return splits


def assign_splits(names: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Returns the split of every name, by a hash of the seed and the name alone.

    Where a split stays empty, the name whose hash lies nearest to the split's interval moves in,
    taken from a split that has more than one. Needs at least three names.
    """
    bounds = (0.0, fractions[0], fractions[0] + fractions[1], 1.0)
    hashes = {name: _hash(name, seed) for name in names}
    assigned = {
        name: SPLITS[(value >= bounds[1]) + (value >= bounds[2])] for name, value in hashes.items()
    }
    for index, split in enumerate(SPLITS):
        sizes = {s: list(assigned.values()).count(s) for s in SPLITS}
        if sizes[split]:
            continue
        low, high = bounds[index], bounds[index + 1]
        movable = [name for name in names if sizes[assigned[name]] > 1]
        nearest = min(movable, key=lambda n: (max(low - hashes[n], hashes[n] - high), n))
        assigned[nearest] = split
    return assigned


def _hash(name: str, seed: int) -> float:
    # surrogatepass: names that are no valid UTF-8 reach Python with lone surrogates.
    key = f"{seed}/{name}".encode("utf-8", "surrogatepass")
    # 53 bits: what a float holds exactly, so that the result stays below 1.
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 11) / 2**53


def _is_photo(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_A_CLASS


def _folders(root: pathlib.Path, links: list[str] | None = None) -> list[pathlib.Path]:
    found = []
    for folder in sorted(root.iterdir()):
        if _is_hidden(folder.name) or not folder.is_dir():
            continue
        if not folder.is_symlink():
            found.append(folder)
        elif links is not None:
            links.append(str(folder))
    return found


def _photos(folder: pathlib.Path, links: list[str]) -> list[pathlib.Path]:
    """Lists the photos of a class, its sub-folders included, sorted by relative name."""
    found: list[pathlib.Path] = []
    for where, folders, files in os.walk(folder):
        here = pathlib.Path(where)
        links.extend(str(here / f) for f in folders if (here / f).is_symlink())
        folders[:] = [f for f in folders if not _is_hidden(f)]
        found.extend(here / file for file in files if _is_photo(file))
    return sorted(found, key=lambda photo: photo.relative_to(folder).as_posix())
