"""Photo files as inputs of a TFLite file."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerasopt.datasets import list_photos, load_image
from kerasopt.export._child import size_of
from kerasopt.export._metadata import Metadata, read_metadata

_AT_ONCE, _BYTES_AT_ONCE = 32, 2**28


def at_once(lite: Any) -> int:
    """Returns how many inputs are handed over at once: fewer where they or the outputs are large.

    Args:
        lite: the `TFLiteModel`.
    """
    size = sum(size_of(tensor.shape, tensor.dtype) for tensor in (*lite.inputs, *lite.outputs))
    return max(1, min(_AT_ONCE, _BYTES_AT_ONCE // max(1, size)))


def photo_paths(images: Any) -> list[pathlib.Path] | None:
    """Returns the photos that a path, a folder or a list of paths stands for, else `None`.

    Raises:
        ValueError: a folder is missing or holds no photos.
    """
    if isinstance(images, str | os.PathLike):
        path = pathlib.Path(images).expanduser()
        return [path] if path.is_file() else list_photos(path)
    is_list = isinstance(images, list | tuple) and bool(images)
    if is_list and all(isinstance(image, str | os.PathLike) for image in images):
        return [pathlib.Path(image).expanduser() for image in images]
    return None


def load_photos(paths: Sequence[pathlib.Path], lite: Any) -> Iterator[np.ndarray]:
    """Yields batches of photos, grey for a file of one channel, by the normalization it names.

    Args:
        paths: of the photos.
        lite: the `TFLiteModel`.

    Raises:
        ValueError: the file takes no image of a fixed size, or a photo is damaged.
    """
    shape = lite.inputs[0].shape[1:]
    if len(lite.inputs) > 1 or len(shape) != 3 or shape[-1] not in (1, 3) or None in shape:
        raise ValueError(
            "Photos need a file with one input, an RGB or grey image of a fixed size. "
            f"Received: {len(lite.inputs)} inputs, the first of shape {lite.inputs[0].shape}. "
            "Pass arrays."
        )
    metadata = read_metadata(lite.content) or Metadata()
    pairs = metadata.normalization or ((0.0, 1.0),)
    mean, std = (np.array(part, "float32") for part in zip(*pairs, strict=True))
    count = at_once(lite)
    for start in range(0, len(paths), count):
        chosen = paths[start : start + count]
        pixels = np.stack([load_image(path, shape[:2], channels=shape[-1]) for path in chosen])
        yield (pixels.astype("float32") - mean) / std


def labelled_photos(folder: Any, lite: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of the photos of class folders, with their classes.

    Classes are numbered as the file's labels say; without labels, by the names of the folders.

    Raises:
        ValueError: a folder is none of the file's classes, or there are more folders than
            outputs.
    """
    root = pathlib.Path(folder).expanduser()
    paths = list_photos(root)
    names = [path.relative_to(root).parts[0] for path in paths]
    metadata = read_metadata(lite.content)
    labels = metadata.labels if metadata is not None else None
    known = list(labels) if labels is not None else sorted(set(names))
    strange = sorted(set(names) - set(known))
    if strange or any(path.parent == root for path in paths):
        what = ", ".join(map(repr, strange[:3]))
        raise ValueError(
            "`data` must be a folder with a folder of photos for each class, named as the labels "
            f"of the file are. Received: {str(root)!r} with {what or 'photos in itself'}."
        )
    outputs = lite.outputs[0].shape[-1]
    if labels is None and outputs is not None and len(known) != max(outputs, 2):
        raise ValueError(
            "`data` must have a folder for each class, as the file has no labels. "
            f"Received: {len(known)} folders, {outputs} outputs. Export with labels=[...]."
        )
    classes = np.array([known.index(name) for name in names])
    start = 0
    for batch in load_photos(paths, lite):
        yield batch, classes[start : start + len(batch)]
        start += len(batch)
