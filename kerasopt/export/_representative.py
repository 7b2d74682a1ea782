"""The inputs from which a converter takes its ranges: chosen fairly, and refused when they lie."""

import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasopt._data import batches, class_indices, count_of
from kerasopt.datasets import list_photos, load_image
from kerasopt.export._metadata_plan import inputs_by_name

_MAX_SAMPLES = 200
"""Enough to find ranges; more costs time and changes little."""
_BATCH = 32
_LOOKED_AT = 10_000
"""Inputs of a stream among which the classes are sought."""
_MIN_PAIRS = 1_000
_NOISE = 0.05
"""Correlation of neighbouring pixels under which images are noise; photos have 0.8 and more."""

Sample = dict[str, np.ndarray]


def representative_samples(
    data: Any, model: Any, *, normalization: Sequence[tuple[float, float]] = ()
) -> list[Sample]:
    """Returns at most 200 of the inputs by name, chosen and checked.

    Args:
        data: the inputs, or a folder of photos.
        model: the model that takes them.
        normalization: `(mean, std)` of the channels, for photos of a folder.

    Raises:
        TypeError: the data have none of the accepted forms.
        ValueError: there are no data, or they do not fit the model, are not finite, are constant
            or noise.
    """
    if data is None:
        raise ValueError(
            "`quantize='int8'` of a float model and 'int16x8' of any need data to take their "
            "ranges from. Received: representative_data=None. Pass a hundred or so training "
            "inputs, a folder of photos, or for int8 a quantization-aware model."
        )
    samples = _chosen(data, model, normalization)
    for tensor in model.inputs:
        _refuse_useless(tensor.name, np.stack([sample[tensor.name] for sample in samples]))
    return samples


def generator_of(
    samples: Sequence[Sample],
    model: Any,
    *,
    pixels: tuple[float, float] | None = None,
    batch_size: int | None = 1,
) -> Callable[[], Iterator[Sample]]:
    """Returns the converter's generator of inputs.

    Black and white are put into a corner of the first image, so that a byte is a pixel: the
    input's scale is 1 for inputs of 0 to 255.

    Args:
        samples: what `representative_samples` chose.
        model: the model that takes them.
        pixels: what black and white become. Default: 0 and 255 when the data look like it.
        batch_size: of the model that is converted.
    """
    samples = [_spread(samples, model.inputs[0].name, pixels), *samples[1:]]
    size = batch_size or 1
    stacked = list(_stacked(samples, size))
    missing = size - len(next(iter(stacked[-1].values())))
    if missing:
        fill = (samples * size)[:missing]
        stacked[-1] = {
            name: np.concatenate([x, np.stack([sample[name] for sample in fill])])
            for name, x in stacked[-1].items()
        }
    return lambda: iter(stacked)


def as_data(samples: Sequence[Sample]) -> Iterator[Any]:
    """Yields the samples in batches, as `verify` takes them."""
    for batch in _stacked(samples, _BATCH):
        yield batch if len(batch) > 1 else next(iter(batch.values()))


def _stacked(samples: Sequence[Sample], size: int) -> Iterator[Sample]:
    for start in range(0, len(samples), size):
        group = samples[start : start + size]
        yield {name: np.stack([sample[name] for sample in group]) for name in group[0]}


def _chosen(data: Any, model: Any, normalization: Sequence[tuple[float, float]]) -> list[Sample]:
    if isinstance(data, str | os.PathLike):
        return _photos(pathlib.Path(data), model, normalization)
    if isinstance(data, np.ndarray) and len(data) > _MAX_SAMPLES:
        # Sorted by class as often as not: a few from everywhere.
        data = data[np.linspace(0, len(data) - 1, _MAX_SAMPLES).astype(int)]
    classes = model.outputs[0].shape[-1] if len(model.outputs) == 1 else None
    quota = max(1, _MAX_SAMPLES // (classes if isinstance(classes, int) else 1))
    by_class: dict[int, list[Sample]] = {}
    rest: list[Sample] = []
    full = 0
    stream = itertools.islice(_singles(data, model), _LOOKED_AT)
    for sample, label in stream:
        chosen = by_class.setdefault(label, [])
        if len(chosen) < (_MAX_SAMPLES if label < 0 else quota):
            chosen.append(sample)
            full += len(chosen) == quota
        elif len(rest) < _MAX_SAMPLES:
            rest.append(sample)
        if len(by_class.get(-1, ())) >= _MAX_SAMPLES or (label >= 0 and full == classes):
            break
    # One of each class in turn; where classes are missing, others fill up.
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_class.values()))
    fair = [sample for sample in turns if sample is not None]
    return [*fair, *rest][:_MAX_SAMPLES]


def _singles(data: Any, model: Any) -> Iterator[tuple[Sample, int]]:
    """Yields each input with its class, -1 where it has none."""
    several = len(model.outputs) > 1
    for x, y in batches(data, name="representative_data", several_labels=several):
        found = inputs_by_name(x, model, "representative_data")
        arrays = {t.name: found[t.name].astype(_dtype(t)) for t in model.inputs}
        labels = _classes(y) if y is not None else [-1] * count_of(x)
        for index, label in enumerate(labels):
            yield {name: array[index] for name, array in arrays.items()}, int(label)


def _dtype(tensor: Any) -> str:
    """Returns the type of an input in the file: whatever is real is float32."""
    kind = str(tensor.dtype)
    return "float32" if "float" in kind else kind


def _classes(labels: np.ndarray) -> Iterable[int]:
    known = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[-1] >= 1)
    return class_indices(labels).tolist() if known else [-1] * len(labels)


def _photos(
    folder: pathlib.Path, model: Any, normalization: Sequence[tuple[float, float]]
) -> list[Sample]:
    """Loads photos as an app will show them to the file, as many of each class folder."""
    shape = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) > 1 or len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            "`representative_data` may be a folder of photos for a model of one image. "
            f"Received: {str(folder)!r}, for {len(model.inputs)} inputs, the first of shape "
            f"{shape}. Pass arrays."
        )
    by_folder: dict[pathlib.Path, list[pathlib.Path]] = {}
    for photo in list_photos(folder):
        by_folder.setdefault(photo.relative_to(folder.expanduser()).parent, []).append(photo)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_folder.values()))
    photos = [photo for photo in turns if photo is not None][:_MAX_SAMPLES]
    mean, std = (
        np.array(part, "float32") for part in zip(*(normalization or [(0.0, 1.0)]), strict=True)
    )
    name = model.inputs[0].name
    return [
        {name: (load_image(photo, shape[:2], channels=shape[-1]) - mean) / std} for photo in photos
    ]


def _refuse_useless(name: str, values: np.ndarray) -> None:
    """Refuses what no ranges can be taken from.

    Raises:
        ValueError: all values are the same, all inputs are the same, or images are noise.
    """
    if len(values) > 1 and (values == values[:1]).all():
        what = f"the same input {len(values)} times"
    elif values.size > 1 and (values == values.flat[0]).all():
        what = f"a constant, {values.flat[0]!s} everywhere"
    elif _is_noise(values):
        what = "noise: neighbouring pixels have nothing to do with each other"
    else:
        return
    raise ValueError(
        f"`representative_data` must be like the data that the model will see. Received for "
        f"{name!r}: {what}. Ranges taken from it are wrong; pass training inputs."
    )


def _is_noise(values: np.ndarray) -> bool:
    """Whether pixels of images are drawn independently of their neighbours.

    The correlation of a pixel with the next one, along rows and along columns, is 0 within
    `1 / sqrt(pairs)` for independent draws of any distribution, and 0.8 to 0.99 in photos.
    """
    if values.ndim != 4:
        return False
    images = values.astype("float64")
    pairs = ((images[:, :, :-1], images[:, :, 1:]), (images[:, :-1], images[:, 1:]))
    if min(here.size for here, _ in pairs) < _MIN_PAIRS:
        return False
    return all(abs(_correlation(here, beside)) < _NOISE for here, beside in pairs)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else 1.0


def _spread(samples: Sequence[Sample], name: str, pixels: tuple[float, float] | None) -> Sample:
    """Returns the first sample with black and white in a corner, when the inputs are pixels."""
    first = samples[0][name]
    if first.dtype.kind != "f" or first.size < 2:
        return samples[0]
    low, high = min(s[name].min() for s in samples), max(s[name].max() for s in samples)
    if pixels is None and low >= 0.0 and 127.0 < high <= 255.0:
        pixels = (0.0, 255.0)
    if pixels is None:
        return samples[0]
    corner = first.copy()
    corner.flat[0], corner.flat[1] = pixels
    return {**samples[0], name: corner}
