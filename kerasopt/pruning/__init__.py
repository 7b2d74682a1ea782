"""Magnitude pruning as a callback: nothing to wrap, nothing to strip."""

from kerasopt.pruning._callback import PruneLowMagnitude
from kerasopt.pruning._masks import magnitude_mask
from kerasopt.pruning._schedules import FractionSchedule

__all__ = ["FractionSchedule", "PruneLowMagnitude", "magnitude_mask"]
