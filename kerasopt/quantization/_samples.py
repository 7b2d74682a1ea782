"""Data to calibrate on, as a list of batches that was checked."""

import os
import pathlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt._data import batches
from kerasopt.datasets import list_photos, load_image
from kerasopt.quantization._probe import Batch

NUM_SAMPLES = 256
BATCH_SIZE = 32


def collect(
    data: Any,
    model: Any,
    *,
    name: str,
    num_samples: int = NUM_SAMPLES,
    batch_size: int = BATCH_SIZE,
    vary: bool = True,
) -> list[Batch]:
    """Returns the first samples of data as batches, one array for each input of the model.

    Args:
        data: an array, `(x, y)`, a `tf.data.Dataset`, an iterable of batches, or the path of a
            folder of photos, of which as many of each class are taken. For a model of several
            inputs `x` is a list or dict of arrays, alone or in the batches.
        model: the model that takes them.
        name: the argument's name, for errors.
        num_samples: how many to take at most.
        batch_size: for arrays and photos.
        vary: whether samples that are all the same are an error.

    Raises:
        TypeError: the data is none of these.
        ValueError: it is empty, has a wrong shape, is not finite, or does not vary.
    """
    found: list[Batch] = []
    left = num_samples
    for batch in _stream(data, model, name, batch_size, num_samples):
        _check(batch, model, name)
        found.append([x[:left] for x in batch])
        left -= len(found[-1][0])
        if left <= 0:
            break
    if not any(len(batch[0]) for batch in found):
        raise ValueError(f"`{name}` must hold at least one example. Received: no data.")
    if vary and all(_is_constant([batch[i] for batch in found]) for i in range(len(model.inputs))):
        raise ValueError(
            f"`{name}` must vary, or the ranges are of no use. "
            f"Received: {name} with the same value everywhere."
        )
    return found


def _stream(data: Any, model: Any, name: str, batch_size: int, num_samples: int) -> Iterator[Batch]:
    if isinstance(data, str | os.PathLike):
        yield from _photos(pathlib.Path(data), model, batch_size, num_samples)
    elif len(model.inputs) == 1:
        yield from ([x] for x, _ in batches(data, name=name, batch_size=batch_size) if len(x))
    else:
        yield from _several(data, model, name, batch_size)


def _several(data: Any, model: Any, name: str, batch_size: int) -> Iterator[Batch]:
    """Yields batches for a model of several inputs."""
    arrays = _by_input(data, model)
    if arrays is None and isinstance(data, tuple) and len(data) > 1:
        arrays = _by_input(data[0], model)
    if arrays is not None:
        for start in range(0, len(arrays[0]), batch_size):
            yield [x[start : start + batch_size] for x in arrays]
        return
    if not hasattr(data, "__iter__"):
        raise TypeError(
            f"`{name}` must be arrays for the {len(model.inputs)} inputs of the model, or an "
            f"iterable of batches of them. Received: {name} of type {type(data).__name__}."
        )
    for batch in data:
        found = _by_input(batch, model)
        if found is None and isinstance(batch, tuple) and batch:
            found = _by_input(batch[0], model)
        if found is None:
            raise ValueError(
                f"`{name}` must have an array for each of the {len(model.inputs)} inputs, as a "
                f"list or by name. Received: a batch of type {type(batch).__name__}."
            )
        yield found


def _by_input(x: Any, model: Any) -> Batch | None:
    if isinstance(x, dict):
        names = [tensor.name for tensor in model.inputs]
        return [np.asarray(x[n]) for n in names] if set(names) <= set(x) else None
    if isinstance(x, list | tuple) and len(x) == len(model.inputs):
        arrays = [np.asarray(part) for part in x if hasattr(part, "shape")]
        fits = [
            a.ndim == len(t.shape) for a, t in zip(arrays, model.inputs, strict=False)
        ]  # so that `(x, y)` is not taken for two inputs
        return arrays if len(arrays) == len(x) and all(fits) else None
    return None


def _photos(folder: pathlib.Path, model: Any, batch_size: int, num_samples: int) -> Iterator[Batch]:
    shape = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) != 1 or len(shape) != 3 or shape[-1] not in (1, 3) or None in shape:
        raise ValueError(
            "A folder of photos is for models that take one image of a fixed size. "
            f"Received: input shapes {[tuple(t.shape) for t in model.inputs]}. Pass batches."
        )
    files = _balanced(list_photos(folder), num_samples)
    for start in range(0, len(files), batch_size):
        chosen = files[start : start + batch_size]
        pixels = np.stack([load_image(f, shape[:2], channels=shape[-1]) for f in chosen])
        yield [pixels.astype("float32")]


def _balanced(files: list[pathlib.Path], number: int) -> list[pathlib.Path]:
    """Takes turns among the folders, and spreads what it takes evenly over each."""
    classes = defaultdict(list)
    for file in files:
        classes[file.parent].append(file)
    queues = [_spread(group, number) for group in classes.values()]
    turns = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
    return turns[:number]


def _spread(group: list[pathlib.Path], number: int) -> list[pathlib.Path]:
    count = min(number, len(group))
    order = np.random.default_rng(0).permutation(len(group))  # the same photos every time
    return [group[i] for i in order[:count]]


def _check(batch: Batch, model: Any, name: str) -> None:
    for x, tensor in zip(batch, model.inputs, strict=True):
        expected = tuple(tensor.shape[1:])
        fits = x.ndim == len(expected) + 1 and all(
            size in (None, found) for size, found in zip(expected, x.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"`{name}` must have the shape (batch, {', '.join(map(str, expected))}). "
                f"Received: shape {x.shape}."
            )
        if not np.isfinite(x.astype("float32")).all():
            raise ValueError(f"`{name}` must be finite. Received: NaN or infinity.")


def _is_constant(parts: list[np.ndarray]) -> bool:
    low = min(part.min() for part in parts if part.size)
    return all((part == low).all() for part in parts)
