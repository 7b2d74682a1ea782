"""Learning curves as geometry: which panels, which ticks, where lines and events lie.

Positions are percentages of the plot area with the origin at the top left, so that one drawing
fits every width while its text and strokes keep their size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from kerasopt.report import _format as fmt
from kerasopt.report._data import Event

# Two pins closer than this many percent would overlap on a phone; the later one moves up.
_PIN_WIDTH = 8.0
_MAX_DOTS = 40
_Place = Callable[[float, float], tuple[float, float]]
_FRACTIONS = ("sparsity", "trainable_fraction")


@dataclass(frozen=True)
class Curve:
    """One line: `epochs` are positions on the axis, `values` may hold NaN.

    The role gives the colour, and the name where there is no label.
    """

    role: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    label: str = ""

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        pairs = zip(self.epochs, self.values, strict=True)
        return [(e, v) for e, v in pairs if math.isfinite(v)]


@dataclass(frozen=True)
class Panel:
    """One metric with its training and validation curves."""

    key: str
    title: str
    is_fraction: bool
    curves: tuple[Curve, ...]

    def text(self, value: float) -> str:
        """Returns a value of this metric as it is written."""
        return fmt.percent(value) if self.is_fraction else fmt.short(value)


def is_accuracy(key: str) -> bool:
    """Returns whether a metric of that name is a fraction of right answers."""
    return key == "acc" or key.endswith(("accuracy", "_acc"))


def panels(history: dict[str, list[float]]) -> list[Panel]:
    """Returns loss first, then accuracy, then what else was logged."""
    epochs = num_epochs(history)
    keys = list(dict.fromkeys(key.removeprefix("val_") for key in history))
    accuracies = [key for key in keys if is_accuracy(key)]
    main = accuracies[0] if accuracies else None
    keys.sort(key=lambda key: (key != "loss", key != main))
    return [_panel(key, history, epochs, "Accuracy" if key == main else None) for key in keys]


def num_epochs(history: dict[str, list[float]]) -> int:
    """Returns the number of epochs the longest series covers."""
    return max((len(values) for values in history.values()), default=0)


def _panel(key: str, history: dict[str, list[float]], epochs: int, title: str | None) -> Panel:
    curves = []
    for role, name in (("training", key), ("validation", f"val_{key}")):
        values = tuple(float(v) for v in history.get(name, ()))
        if values:
            # With `validation_freq=k` Keras keeps one value for every k-th epoch only.
            step = max(epochs // len(values), 1)
            places = tuple(float(step * (i + 1)) for i in range(len(values)))
            curves.append(Curve(role, places, values))
    words = title or key.replace("_", " ").capitalize()
    return Panel(key, words, is_accuracy(key) or key in _FRACTIONS, tuple(curves))


def axis_end(history: dict[str, list[float]], events: Sequence[Event]) -> float:
    """Returns the last position of the epoch axis, at least 1."""
    latest = max((event.epoch for event in events), default=0.0)
    return float(max(num_epochs(history), math.ceil(latest), 1))


def geometry(panel: Panel, end: float, *, max_ticks: int = 5) -> dict:
    """Returns what the template draws for one panel."""
    values = [v for curve in panel.curves for _, v in curve.finite]
    ticks = value_ticks(values, max_ticks, is_fraction=panel.is_fraction)
    low, high = ticks[0], ticks[-1]

    def place(epoch: float, value: float) -> tuple[float, float]:
        return round(epoch / end * 100, 2), round((high - value) / (high - low) * 100, 2)

    dots = len(panel.curves) * end <= 2 * _MAX_DOTS
    return {
        "key": panel.key,
        "title": panel.title,
        "lines": [_line(panel, curve, place, dots=dots) for curve in panel.curves],
        "y_ticks": [(place(0, t)[1], tick_text(t, ticks, panel.is_fraction)) for t in ticks],
        "x_ticks": [(round(t / end * 100, 2), t) for t in _epoch_ticks(end)],
        "best": _best(panel),
        "gaps": sum(len(c.values) - len(c.finite) for c in panel.curves),
    }


def _line(panel: Panel, curve: Curve, place: _Place, *, dots: bool) -> dict:
    path, pen_down, points = [], False, []
    name = curve.label or curve.role
    for epoch, value in zip(curve.epochs, curve.values, strict=True):
        if not math.isfinite(value):
            pen_down = False
            continue
        x, y = place(epoch, value)
        path.append(f"{'L' if pen_down else 'M'}{x:g} {y:g}")
        pen_down = True
        points.append((x, y, f"epoch {epoch:g}, {name}: {panel.text(value)}"))
    last = panel.text(curve.finite[-1][1]) if curve.finite else fmt.MISSING
    return {
        "role": curve.role,
        "label": name,
        "path": "".join(path),
        "points": points,
        "quiet": not dots and len(points) > 1,  # there to be asked, not to be seen
        "last": last,
    }


def _best(panel: Panel) -> str:
    curve = panel.curves[-1] if panel.curves else None
    if curve is None or curve.role != "validation" or len(curve.finite) < 2:
        return ""
    if panel.key == "loss":
        epoch, value = min(curve.finite, key=lambda point: point[1])
        return f"lowest validation {panel.text(value)} in epoch {epoch:g}"
    if is_accuracy(panel.key):
        epoch, value = max(curve.finite, key=lambda point: point[1])
        return f"best validation {panel.text(value)} in epoch {epoch:g}"
    return ""


def value_ticks(values: Sequence[float], max_ticks: int, *, is_fraction: bool) -> list[float]:
    """Returns round values around all of them, evenly apart."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(high), 1e-6):
        margin = abs(high) * 0.1 or 0.5
        low, high = low - margin, high + margin
    if low > 0 and low < 0.35 * high:
        low = 0.0
    if is_fraction:
        low, high = max(low, 0.0), min(high, 1.0)
    locator = MaxNLocator(nbins=max_ticks, steps=[1, 2, 2.5, 5, 10])
    return [float(round(t, 12)) for t in locator.tick_values(low, high)]


def tick_text(value: float, ticks: Sequence[float], is_fraction: bool) -> str:
    """Returns one of `ticks` as it is written at the axis."""
    scale = 100 if is_fraction else 1
    step = (ticks[1] - ticks[0]) * scale
    largest = max(abs(t) for t in ticks)
    if not is_fraction and (largest >= 1e6 or largest < 1e-3):
        return f"{value:.3g}"
    digits = next((d for d in range(7) if abs(round(step, d) - step) < 1e-9), 6)
    return f"{value * scale:.{digits}f}" + (f"{fmt.NARROW}%" if is_fraction else "")


def _epoch_ticks(end: float) -> list[int]:
    step = next(s for k in range(9) for s in (10**k, 2 * 10**k, 5 * 10**k) if end / s <= 8)
    return list(range(0, int(end) + 1, step))


def pins(events: Sequence[Event], end: float) -> list[dict]:
    """Returns the numbered pins of the events, in order of time, none over another."""
    placed: list[dict] = []
    for number, event in enumerate(sorted(events, key=lambda e: e.epoch), start=1):
        x = round(event.epoch / end * 100, 2)
        taken = {p["level"] for p in placed if x - p["x"] < _PIN_WIDTH}
        level = next(k for k in range(len(placed) + 1) if k not in taken)
        row = {"number": number, "x": x, "level": level, "kind": event.kind}
        placed.append({**row, "label": event.label, "when": _when(event.epoch)})
    return placed


def _when(epoch: float) -> str:
    if epoch == 0:
        return "before epoch 1"
    if epoch == int(epoch):
        return f"after epoch {int(epoch)}"
    return f"in epoch {int(epoch) + 1}"
