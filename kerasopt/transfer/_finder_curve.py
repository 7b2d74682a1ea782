"""The curve of a learning-rate range test: averages, suggestions, figure."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {"line": "#3a4fd0", "points": "#8b93a3", "mark": "#b7700a", "ink": "#2b3040"}
_WINDOW = 5


def averages(count: int, smoothing: float) -> np.ndarray:
    """Returns the matrix that takes losses to their exponential moving averages."""
    ages = np.arange(count)[:, None] - np.arange(count)
    weights = np.where(ages >= 0, float(smoothing) ** np.maximum(ages, 0), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def falls(losses: np.ndarray) -> bool:
    """Tells whether the losses of the batches fall by more than noise would let them.

    The mean of the first fifth, where the rates are smallest, is compared with the lowest mean of
    five neighbours behind it. If nothing but noise moved the losses, the difference of two such
    means would have a known deviation; it must be exceeded four times, which of a hundred curves
    of noise less than one does.
    """
    if len(losses) < 2 * _WINDOW:
        return False
    count = max(_WINDOW, len(losses) // 5)
    start, later = losses[:count], losses[count:]
    means = np.convolve(later, np.full(_WINDOW, 1 / _WINDOW), mode="valid")
    noise = np.sqrt(np.mean(np.diff(losses[: len(losses) // 2]) ** 2) / 2)
    fall = start.mean() - means.min(initial=np.inf)
    deviation = noise * np.sqrt(1 / count + 1 / _WINDOW)
    return bool(fall > max(4.0 * deviation, 1e-3 * abs(start.mean())))


def valley(losses: np.ndarray) -> int:
    """Returns the index half-way down the longest falling subsequence, as fastai does."""
    lengths = np.ones(len(losses), int)
    for index in range(1, len(losses)):
        higher = lengths[:index][losses[:index] > losses[index]]
        lengths[index] = 1 + higher.max(initial=0)
    end = int(np.argmax(lengths))
    start, third = end - int(lengths[end]), lengths[end] / 3
    return max(0, start + int(third) + int(third / 2))


def draw_curve(
    rates: np.ndarray, losses: np.ndarray, average: np.ndarray, suggestions: dict[str, float]
) -> "Figure":
    from matplotlib.figure import Figure  # here, for it costs half a second to import

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.plot(rates, losses, ".", ms=4, color=_COLORS["points"], label="loss of a batch")
    axes.plot(rates, average, color=_COLORS["line"], lw=2, label="average")
    for (label, rate), style in zip(suggestions.items(), ("o", "D"), strict=False):
        height = np.interp(np.log(rate), np.log(rates), average)
        axes.plot(
            rate, height, style, ms=8, color=_COLORS["mark"], label=f"{label}: {rate:.2g}", zorder=3
        )
    # The explosion at the end would flatten all before it.
    lowest = int(np.argmin(average))
    bottom, top = average[lowest], average[: lowest + 1].max()
    margin = 0.25 * (top - bottom) or 0.1 * abs(top) or 1.0
    axes.set_ylim(min(bottom, np.min(losses)) - margin / 2, top + 2 * margin)
    axes.set(xlabel="learning rate", ylabel="training loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, labelcolor=_COLORS["ink"])
    return figure
