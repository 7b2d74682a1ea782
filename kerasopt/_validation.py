"""Checks of arguments, with one voice: what is required, what was received, how to mend it."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Returns a sentence with the names closest to `name`, or the first few known ones.

    >>> nearest("MobilNetV2", ["MobileNetV2", "ResNet50"])
    "Did you mean 'MobileNetV2'?"
    """
    names = list(known)
    lowered = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(repr(lowered[c]) for c in close)}?"
    shown = ", ".join(repr(n) for n in names[:8])
    return f"Known: {shown}{', ...' if len(names) > 8 else ''}."


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        listed = ", ".join(repr(c) for c in choices)
        hint = (
            nearest(value, [c for c in choices if isinstance(c, str)])
            if isinstance(value, str)
            else ""
        )
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: {name}={value!r}. {hint}".rstrip()
        )


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Returns `value` as a float after checking that it is a finite number of the interval.

    >>> check_number("final_sparsity", 1.0, low=0.0, high=1.0, high_open=True)
    Traceback (most recent call last):
    ...
    ValueError: `final_sparsity` must be a number in [0, 1). Received: final_sparsity=1.0.
    """
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"`{name}` must be a number in {interval}. Received: {name}={value!r}.")
    too_low = value < low or (low_open and value == low)
    too_high = value > high or (high_open and value == high)
    if too_low or too_high or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a number in {interval}. Received: {name}={value!r}.")
    return float(value)


def check_int(name: str, value: Any, *, low: int, high: int | None = None) -> int:
    """Returns `value` after checking that it is an int of `[low, high]`."""
    interval = f">= {low}" if high is None else f"in [{low}, {high}]"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an integer {interval}. Received: {name}={value!r}.")
    if value < low or (high is not None and value > high):
        raise ValueError(f"`{name}` must be an integer {interval}. Received: {name}={value!r}.")
    return value


def loss_not_asked(callback: Any, model: Any) -> ValueError:
    """Returns the error for a model whose train_step computes its loss by itself."""
    return ValueError(
        f"`{type(callback).__name__}` needs a train_step that calls self.compute_loss. "
        f"Received: model {model.name!r} of class {type(model).__name__}, "
        "whose own train_step does not. Compute the loss with self.compute_loss("
        "x=x, y=y, y_pred=y_pred, sample_weight=sample_weight) there."
    )
