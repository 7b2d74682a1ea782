"""Observers: from what passes a tensor to the range it gets. NumPy alone."""

import numpy as np
from numpy.typing import ArrayLike

from kerasopt._validation import check_choice

OBSERVERS = ("moving_average", "minmax", "percentile", "mse")
BINS = 2048
"""Of a histogram between the smallest and the largest value of a tensor."""

_CANDIDATES = 100


def check_observer(observer: str) -> None:
    """Raises ValueError unless an observer is one of the four."""
    check_choice("observer", observer, OBSERVERS)


def needs_histogram(observer: str) -> bool:
    """Tells whether an observer looks at the distribution and not at its ends alone."""
    return observer in ("percentile", "mse")


def moving_average(ends: ArrayLike, momentum: float) -> tuple[float, float]:
    """Averages the ends of the batches, as `FakeQuantize` does in training.

    Args:
        ends: `(low, high)` of each batch, in order.
        momentum: of the moving average, in [0, 1).

    Returns:
        `(low, high)`, with 0 inside.
    """
    average = np.zeros(2)
    for count, batch in enumerate(_with_zero(ends)):
        keep = min(momentum, count / (count + 1))
        average = keep * average + (1.0 - keep) * batch
    return float(average[0]), float(average[1])


def minmax(ends: ArrayLike) -> tuple[float, float]:
    """Returns the smallest and the largest value of all batches, with 0 inside."""
    every = _with_zero(ends)
    return float(every[:, 0].min()), float(every[:, 1].max())


def percentile(histogram: np.ndarray, low: float, high: float, share: float) -> tuple[float, float]:
    """Returns the range that leaves out the outermost values, half of them at each end.

    Args:
        histogram: counts (bins,) between `low` and `high`.
        low: smallest value.
        high: largest value.
        share: fraction of the values that lie inside, in (0, 1].

    Returns:
        `(low, high)`, to the width of a bin, with 0 inside.
    """
    below = np.cumsum(histogram) / max(1, histogram.sum())
    edges = np.linspace(low, high, len(histogram) + 1)
    outside = (1.0 - share) / 2
    first = int(np.searchsorted(below, outside, side="right"))
    last = int(np.searchsorted(below, 1.0 - outside, side="left"))
    last = min(last, len(histogram) - 1)
    return min(0.0, float(edges[min(first, last)])), max(0.0, float(edges[last + 1]))


def least_error(
    histogram: np.ndarray, low: float, high: float, num_bits: int, *, symmetric: bool = False
) -> tuple[float, float]:
    """Returns the range whose rounding and clipping lose least, in mean squared error.

    The ends move inwards one after the other, each to the best of 100 places between 1 % and all
    of where it began, with the middle of each bin standing for its values.

    Args:
        histogram: counts (bins,) between `low` and `high`.
        low: smallest value, <= 0.
        high: largest value, >= 0.
        num_bits: of the levels.
        symmetric: whether both ends move together.

    Returns:
        `(low, high)`, with 0 inside.
    """
    edges = np.linspace(low, high, len(histogram) + 1)
    values = (edges[:-1] + edges[1:]) / 2
    low, high = min(0.0, low), max(0.0, high)
    parts = np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    if symmetric:
        limit = max(-low, high)
        best = _best(histogram, values, [(-limit * p, limit * p) for p in parts], num_bits)
        return max(low, best[0]), min(high, best[1])
    for _ in range(2):
        low, high = _best(histogram, values, [(low, high * p) for p in parts], num_bits)
        low, high = _best(histogram, values, [(low * p, high) for p in parts], num_bits)
    return low, high


def _best(
    histogram: np.ndarray,
    values: np.ndarray,
    candidates: list[tuple[float, float]],
    num_bits: int,
) -> tuple[float, float]:
    ends = np.array(candidates)[:, :, None]
    scale = np.maximum(ends[:, 1] - ends[:, 0], 1e-30) / (2**num_bits - 1)
    zero = np.round(-ends[:, 0] / scale)
    levels = np.clip(np.round(values / scale) + zero, 0, 2**num_bits - 1)
    errors = (((levels - zero) * scale - values) ** 2 * histogram).sum(axis=1)
    # Of several that lose the same, the widest, which stands last.
    index = len(errors) - 1 - int(np.argmin(errors[::-1]))
    return candidates[index]


def _with_zero(ends: ArrayLike) -> np.ndarray:
    every = np.asarray(ends, "float64").reshape(-1, 2)
    return np.stack([np.minimum(every[:, 0], 0.0), np.maximum(every[:, 1], 0.0)], axis=1)
