"""A number that may change in the course of training."""

from typing import Any

from kerasopt._validation import check_number
from kerasopt.training import Timeline, check_moment


class Schedule:
    """A constant, a line through values at moments, or a function of the fraction of training.

    Args:
        name: the argument's name, for errors.
        value: a number, a dict `{moment: number}`, or a callable `fraction -> number`.
        bounds: the interval of the number, as `check_number` takes it.
    """

    def __init__(self, name: str, value: Any, **bounds: Any) -> None:
        self._name, self._value, self._bounds = name, value, bounds
        self._points: list[tuple[float, float]] = []
        if isinstance(value, dict):
            if not value:
                raise ValueError(
                    f"`{name}` must have at least one moment. Received: {name}={{}}. "
                    f"Give a number, or a dict such as {{0.0: 0.9, 1.0: 0.5}}."
                )
            for moment, number in value.items():
                check_moment(f"{name} moment", moment)
                check_number(name, number, **bounds)
        elif not callable(value):
            check_number(name, value, **bounds)

    @property
    def lowest(self) -> float | None:
        """The smallest value it takes; `None` for a function, which is not known before."""
        if isinstance(self._value, dict):
            return min(map(float, self._value.values()))
        return None if callable(self._value) else float(self._value)

    def begin(self, timeline: Timeline) -> None:
        """Resolves the moments."""
        if isinstance(self._value, dict):
            self._points = sorted(
                (timeline.resolve(moment, name=f"{self._name} moment"), float(number))
                for moment, number in self._value.items()
            )

    def at(self, position: float, epochs: int) -> float:
        """Returns the value at a position in epochs."""
        if callable(self._value):
            return check_number(self._name, self._value(position / epochs), **self._bounds)
        if not self._points:
            return float(self._value)
        before = [point for point in self._points if point[0] <= position]
        after = [point for point in self._points if point[0] > position]
        if not before or not after:
            return (before[-1] if before else after[0])[1]
        (left, low), (right, high) = before[-1], after[0]
        return low + (high - low) * (position - left) / (right - left)
