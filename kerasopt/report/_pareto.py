"""What a file costs and what it is worth: accuracy against bytes and milliseconds, as geometry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.ticker import MaxNLocator

from kerasopt.report import _format as fmt
from kerasopt.report._curves import tick_text, value_ticks
from kerasopt.report._labels import Spot, place_labels

_LONGEST_LABEL = 18
_LEAST_SPAN = 0.02  # of the axis of accuracy
_SAME_PLACE = 1.5  # percent of the plot: points that cannot be told apart


@dataclass(frozen=True)
class TradeOff:
    """One file with what it costs and gives.

    Attributes:
        label: what stands beside its point.
        size: bytes.
        milliseconds: median for one image with 1 thread, or `None`.
        accuracy: of the file, 0-1, or `None`.
        shipped: whether it is the file that ships.
        group: which of several runs it belongs to, from 0.
        name: what it is called when it is asked; the label by default.
    """

    label: str
    size: int
    milliseconds: float | None
    accuracy: float | None
    shipped: bool = False
    group: int = 0
    name: str = ""


class _Point(NamedTuple):
    cost: float
    accuracy: float
    file: TradeOff


def front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Returns the points that no other one beats: none costs less and gives as much or more.

    Of points that are equal in both the first one counts.

    Returns:
        Their indices, the cheapest first.

    >>> front([10, 20, 30, 40], [0.8, 0.9, 0.85, 0.95])
    [0, 1, 3]
    """
    found: list[int] = []
    best = -math.inf
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i], i)):
        if gains[index] > best:
            best = gains[index]
            found.append(index)
    return found


def pareto(files: Sequence[TradeOff], error: float | None = None) -> list[dict[str, Any]]:
    """Returns what the template draws: accuracy against bytes, and against milliseconds.

    A panel has no points where fewer than two files were measured. Its axis of accuracy spans at
    least four standard errors, so that what is only chance does not look like a difference.

    Args:
        files: what to draw.
        error: standard error of an accuracy, 0-1, or `None` where it is not known.
    """
    largest = max((file.size for file in files), default=0)
    unit, scale = next(
        (name, float(step))
        for name, step in (("MiB", 1024**2), ("KiB", 1024), ("B", 1))
        if largest >= 2 * step or step == 1
    )
    sizes = [_Point(f.size / scale, f.accuracy, f) for f in files if f.accuracy is not None]
    times = [
        _Point(f.milliseconds, f.accuracy, f)
        for f in files
        if f.accuracy is not None and f.milliseconds is not None
    ]
    span = max(4.0 * (error or 0.0), _LEAST_SPAN)
    return [
        _panel("Accuracy and size", unit, "an accuracy", sizes, span),
        _panel("Accuracy and time", "ms, 1 thread", "an accuracy and a time", times, span),
    ]


def _panel(
    title: str, axis: str, needs: str, points: Sequence[_Point], span: float
) -> dict[str, Any]:
    if len(points) < 2:
        return {"title": title, "needs": needs, "points": []}
    best = front([p.cost for p in points], [p.accuracy for p in points])
    y_ticks = value_ticks(_at_least([p.accuracy for p in points], span), 5, is_fraction=True)
    x_ticks = [float(t) for t in MaxNLocator(nbins=4).tick_values(0.0, max(p.cost for p in points))]
    low, high, end = y_ticks[0], y_ticks[-1], x_ticks[-1] or 1.0

    def down(accuracy: float) -> float:
        return round((high - accuracy) / (high - low) * 100, 2)

    places = [(round(p.cost / end * 100, 2), down(p.accuracy)) for p in points]
    return {
        "title": title,
        "axis": axis,
        "needs": needs,
        "front": _steps([places[i] for i in best]),
        "best": [points[i].file.name or points[i].file.label for i in best],
        "x_ticks": [(round(t / end * 100, 2), tick_text(t, x_ticks, False)) for t in x_ticks],
        "y_ticks": [(down(t), tick_text(t, y_ticks, True)) for t in y_ticks],
        "points": [
            {
                "x": x,
                "y": y,
                "text": _text(point.file),
                "shipped": point.file.shipped,
                "group": point.file.group,
                "best": index in best,
            }
            for index, (point, (x, y)) in enumerate(zip(points, places, strict=True))
        ],
        "names": _names(points, places, best),
    }


def _at_least(values: Sequence[float], span: float) -> list[float]:
    """Returns lowest and highest, drawn apart to `span` where they are closer, within 0-1."""
    low, high = min(values), max(values)
    margin = max(span - (high - low), 0.0) / 2
    return [max(low - margin, 0.0), min(high + margin, 1.0)]


def _names(
    points: Sequence[_Point], places: Sequence[tuple[float, float]], best: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns the names that have a place; points on top of each other share one."""
    # The shipped file's name has the first choice, then those of the front.
    order = sorted(range(len(points)), key=lambda i: (not points[i].file.shipped, i not in best))
    piles: list[list[int]] = []
    for index in order:
        x, y = places[index]
        pile = next((p for p in piles if math.dist(places[p[0]], (x, y)) < _SAME_PLACE), None)
        if pile is None:
            piles.append([index])
        else:
            pile.append(index)
    labels = [" · ".join(_short(points[i].file.label) for i in pile) for pile in piles]
    spots = [Spot(*places[p[0]], label) for p, label in zip(piles, labels, strict=True)]
    return [
        {"x": spot.x, "y": spot.y, "text": spot.label, "side": side, "shipped": is_shipped}
        for spot, side, is_shipped in zip(
            spots, place_labels(spots), (points[p[0]].file.shipped for p in piles), strict=True
        )
        if side
    ]


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _text(file: TradeOff) -> str:
    lines = [
        f"{file.name or file.label}{', shipped' if file.shipped else ''}",
        f"accuracy {fmt.percent(file.accuracy)}, {fmt.size(file.size)}",
    ]
    if file.milliseconds is not None:
        lines.append(f"{fmt.milliseconds(file.milliseconds)}{fmt.NARROW}ms with 1 thread")
    return "\n".join(lines)


def _steps(places: Sequence[tuple[float, float]]) -> str:
    """Returns the edge of what is reached: up to each point of the front, then on to the right."""
    (x, y), *rest = places
    return f"M{x:g} 100V{y:g}" + "".join(f"H{x:g}V{y:g}" for x, y in rest) + "H100"
