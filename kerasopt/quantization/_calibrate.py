"""`calibrate`: the ranges of a quantization-aware model from data, without training."""

import dataclasses
import warnings
from functools import partial
from typing import Any

import numpy as np

from kerasopt._validation import check_int, check_number
from kerasopt.quantization import _observers as observers
from kerasopt.quantization._checks import check_finite_weights
from kerasopt.quantization._probe import Batch, Place, Probe
from kerasopt.quantization._samples import BATCH_SIZE, NUM_SAMPLES, collect
from kerasopt.quantization._twin import check_quantization_aware
from kerasopt.training import settle

_TOLERATED = 0.01
"""Fraction of a tensor's values that may leave its range before validation data warn of it."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What `calibrate` found.

    Attributes:
        observer: how the ranges were chosen.
        num_samples: how many samples were looked at.
        ranges: name of each range that was set -> `(low, high)`, in the order of the model.
        outside: name -> the fraction of the validation data's values that lie outside, in
            [0, 1]; empty without validation data.
    """

    observer: str
    num_samples: int
    ranges: dict[str, tuple[float, float]]
    outside: dict[str, float] = dataclasses.field(default_factory=dict)


def calibrate(
    model: Any,
    data: Any,
    observer: str = "moving_average",
    *,
    validation: Any = None,
    num_samples: int = NUM_SAMPLES,
    batch_size: int = BATCH_SIZE,
    percentile: float = 0.9999,
) -> Calibration:
    """Sets the ranges of a quantization-aware model from data.

    One pass over a few hundred samples, in which activations stay float and kernels are rounded,
    BatchNormalization uses its moving statistics, dropout and augmentation are off. Training that
    follows goes on from these ranges; without training they are post-training quantization. The
    observers:

        "moving_average"  the mean of the batches' extremes, then a moving average, as in training
        "minmax"          the extremes of all samples
        "percentile"      what leaves `1 - percentile` of the values outside, half at each end
        "mse"             what loses least by rounding and clipping, in mean squared error

    The last two count the values in 2,048 bins. Ranges that are known (softmax) stay as they are,
    and the model's input takes its extremes whatever the observer.

    Args:
        model: what `quantize_aware` returned. Its ranges are set; nothing else is touched.
        data: an array, `(x, y)`, a `tf.data.Dataset`, an iterable of batches, or the path of a
            folder of photos (one folder per class; as many are taken of each, as raw pixels 0 to
            255 of the model's size). Labels are not looked at.
        observer: `"moving_average"`, `"minmax"`, `"percentile"` or `"mse"`.
        validation: data of the same forms; a warning names the ranges that more than 1 % of
            their values leave.
        num_samples: how many samples to take of each, >= 1. Default 256.
        batch_size: for arrays and photos, >= 1. Default 32.
        percentile: fraction of the values inside of the range, in (0.5, 1]. Default 0.9999.

    Returns:
        A `Calibration`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: a float model, weights that are not finite (the first is named), data that
            are empty, constant, not finite or of a wrong shape, or an argument out of range.

    Example:
        >>> import keras, numpy as np, kerasopt as ko
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name="relu")])
        >>> aware = ko.quantization.quantize_aware(model)
        >>> found = calibrate(aware, np.array([[-4.0, 1.0], [0.0, 4.0]]))
        >>> [round(end, 3) for end in found.ranges["relu_range"]]
        [0.0, 4.002]

    Reference:
        Wu et al., Integer Quantization for Deep Learning Inference: Principles and Empirical
        Evaluation, arXiv:2004.09602 (percentile, and the comparison of observers); Choukroun et
        al., Low-bit Quantization of Neural Networks for Efficient Inference, arXiv:1902.06822
        (mean squared error).
    """
    observers.check_observer(observer)
    check_int("num_samples", num_samples, low=1)
    check_int("batch_size", batch_size, low=1)
    check_number("percentile", percentile, low=0.5, high=1.0, low_open=True)
    check_quantization_aware(model)
    settle(model)
    check_finite_weights(model)
    take = partial(collect, model=model, num_samples=num_samples, batch_size=batch_size)
    batches = take(data, name="data")
    held_out = None if validation is None else take(validation, name="validation", vary=False)
    probe = Probe(model)
    total = sum(len(batch[0]) for batch in batches)
    if not probe.places:
        return Calibration(observer, total, {})
    ends = np.stack([probe.ends(batch) for batch in batches])
    ranges = _choose(observer, probe, batches, ends, percentile)
    _set(probe.places, ranges, len(batches))
    result = Calibration(observer, total, _named(probe.places))
    return result if held_out is None else _validated(result, probe, held_out)


def _choose(
    observer: str, probe: Probe, batches: list[Batch], ends: np.ndarray, percentile: float
) -> list[tuple[float, float]]:
    widest = np.stack([ends[..., 0].min(axis=0), ends[..., 1].max(axis=0)], axis=1)
    counts = (
        probe.histograms(batches, _with_width(widest))
        if observers.needs_histogram(observer)
        else np.zeros((len(widest), 1))
    )
    found = []
    for index, place in enumerate(probe.places):
        low, high = _with_width(widest)[index]
        if place.layer.role == "input" or observer == "minmax":
            found.append(observers.minmax(ends[:, index]))
        elif observer == "moving_average":
            found.append(observers.moving_average(ends[:, index], place.layer.momentum))
        elif observer == "percentile":
            found.append(observers.percentile(counts[index], low, high, percentile))
        else:
            symmetric = place.layer.symmetric
            bits = place.layer.num_bits
            found.append(observers.least_error(counts[index], low, high, bits, symmetric=symmetric))
    return found


def _with_width(ranges: np.ndarray) -> np.ndarray:
    """Gives a tensor of one value a little width, so that it falls into a bin."""
    width = np.maximum(np.abs(ranges).max(axis=1) * 1e-5, 1e-12)
    narrow = ranges[:, 1] - ranges[:, 0] < width
    return np.stack([ranges[:, 0], np.where(narrow, ranges[:, 0] + width, ranges[:, 1])], axis=1)


def _set(places: list[Place], ranges: list[tuple[float, float]], batches: int) -> None:
    layers = {id(place.layer): place.layer for place in places}
    for key, layer in layers.items():
        low, high = np.zeros(layer.num_sites), np.zeros(layer.num_sites)
        for place, found in zip(places, ranges, strict=True):
            if id(place.layer) == key:
                # A model that is nested and called twice watches a site in two places.
                low[place.site] = min(low[place.site], found[0])
                high[place.site] = max(high[place.site], found[1])
        layer.set_range(low, high, batches=batches)


def _named(places: list[Place]) -> dict[str, tuple[float, float]]:
    return {place.layer.name: place.layer.range_value() for place in places}


def _validated(result: Calibration, probe: Probe, held_out: list[Batch]) -> Calibration:
    ranges = np.array([place.layer.range_value() for place in probe.places])
    # A value on the border is inside, also in float32.
    slack = 1e-6 * (ranges[:, 1] - ranges[:, 0])
    shares = probe.outside(held_out, ranges + slack[:, None] * [-1.0, 1.0])
    outside: dict[str, float] = {}
    for place, share in zip(probe.places, shares, strict=True):
        name = place.layer.name
        outside[name] = max(outside.get(name, 0.0), float(share))
    far = sorted((n for n in outside if outside[n] > _TOLERATED), key=lambda n: -outside[n])
    if far:
        listed = ", ".join(f"{name!r} ({outside[name]:.1%} of the values)" for name in far[:5])
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        warnings.warn(
            f"Validation data leave {len(far)} of {len(outside)} calibrated ranges: {listed}{more}."
            " Calibrate on more samples, on such as will be met in use, or with observer='minmax'.",
            stacklevel=3,
        )
    return dataclasses.replace(result, outside=outside)
