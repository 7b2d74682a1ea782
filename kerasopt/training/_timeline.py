"""Moments of training: fractions and epochs, resolved to steps."""

import dataclasses
import math
from typing import Any

Moment = float | int
"""A float is a fraction of training (0.0 to 1.0), an int an epoch (counted from 0)."""


@dataclasses.dataclass(frozen=True)
class Timeline:
    """How long a `fit` will be.

    Args:
        epochs: planned epochs, at least 1.
        steps_per_epoch: batches in an epoch, or `None` when the length of the data is unknown;
            moments then fall on the nearest start of an epoch.
    """

    epochs: int
    steps_per_epoch: int | None

    @property
    def total_steps(self) -> int | None:
        """Planned batches in all, or `None` when unknown."""
        return None if self.steps_per_epoch is None else self.epochs * self.steps_per_epoch

    def resolve(self, moment: Any, *, name: str) -> float:
        """Returns a moment as a position in epochs.

        >>> Timeline(epochs=20, steps_per_epoch=100).resolve(0.25, name="start")
        5.0
        >>> Timeline(epochs=20, steps_per_epoch=100).resolve(3, name="start")
        3.0

        Raises:
            TypeError: the moment is not a number.
            ValueError: it lies outside the planned training.
        """
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            raise TypeError(
                f"`{name}` must be a fraction of training (float) or an epoch (int). "
                f"Received: {name}={moment!r}."
            )
        if isinstance(moment, int):
            if not 0 <= moment < self.epochs:
                raise ValueError(
                    f"`{name}` must be an epoch of the planned training, 0 to {self.epochs - 1}. "
                    f"Received: {name}={moment}. "
                    f"Train longer (epochs={moment + 1} or more) or move it to the front."
                )
            return float(moment)
        if not 0.0 <= moment <= 1.0:
            raise ValueError(
                f"`{name}` must be a fraction of training in [0, 1] (float) or an epoch (int). "
                f"Received: {name}={moment}. Did you mean the epoch {round(moment)}?"
            )
        return moment * self.epochs

    def step_of(self, position: float) -> int | None:
        """Returns the global step (from 0) at which a position in epochs is reached."""
        return None if self.steps_per_epoch is None else round(position * self.steps_per_epoch)

    def reached(self, position: float, epoch: int, batch: int) -> bool:
        """Tells whether the batch about to run lies at or behind a position in epochs."""
        if self.steps_per_epoch is None:
            return epoch >= math.floor(position + 0.5)
        return epoch * self.steps_per_epoch + batch >= round(position * self.steps_per_epoch)

    def position(self, epoch: int, batch: int) -> float:
        """Returns where a batch begins, in epochs."""
        return epoch + (batch / self.steps_per_epoch if self.steps_per_epoch else 0.0)


def check_moment(name: str, moment: Any) -> None:
    """Checks what can be checked of a moment before the length of training is known.

    Args:
        name: the argument's name, for the error.
        moment: what the user gave.

    Raises:
        TypeError: it is not a number.
        ValueError: a fraction outside [0, 1] or a negative epoch.
    """
    Timeline(epochs=10**9, steps_per_epoch=1).resolve(moment, name=name)
