"""Sparsity over time. TF-MOT's schedules are used as they are; this file alone imports TF-MOT."""

import os
from typing import Any

from kerasopt._backend import tf
from kerasopt._validation import check_int, check_number
from kerasopt.training import Moment, Timeline, check_moment

_FREQUENCY = 100


class FractionSchedule:
    """Sparsity that grows along TF-MOT's polynomial between two moments of training.

    `sparsity = final + (initial - final) * (1 - (step - begin) / (end - begin)) ** power`

    Args:
        initial_sparsity: sparsity at the first update, in [0, 1). Default 0.0.
        begin: moment of the first update; a float is a fraction of training, an int an epoch.
        end: moment at which the final sparsity is reached. Default 0.75, so that the last
            quarter of training mends what pruning broke.
        power: exponent, > 0; 3 removes much early and little late. 1 is linear.
        frequency: steps between updates; `None` (default) makes it 100, or fewer steps in a
            short training, so that there are at least ten updates.

    Raises:
        TypeError: a value is not a number.
        ValueError: a value out of range, or `begin` not before `end`.

    Reference:
        Zhu & Gupta, To prune, or not to prune, arXiv:1710.01878.
    """

    def __init__(
        self,
        *,
        initial_sparsity: float = 0.0,
        begin: Moment = 0.0,
        end: Moment = 0.75,
        power: float = 3.0,
        frequency: int | None = None,
    ) -> None:
        self.initial_sparsity = check_number(
            "initial_sparsity", initial_sparsity, low=0.0, high=1.0, high_open=True
        )
        check_moment("begin", begin)
        check_moment("end", end)
        self.begin, self.end = begin, end
        self.power = check_number("power", power, low=0.0, low_open=True)
        if type(begin) is type(end) and begin >= end:
            raise ValueError(f"`begin` must lie before `end`. Received: begin={begin}, end={end}.")
        if frequency is not None:
            check_int("frequency", frequency, low=1)
        self.frequency = frequency

    def resolve(self, final_sparsity: float, timeline: Timeline) -> Any:
        """Returns TF-MOT's `PolynomialDecay` for a training of known length.

        Raises:
            ValueError: the length is unknown, or the schedule has no step to run in.
        """
        if timeline.steps_per_epoch is None:
            raise ValueError(
                "A pruning schedule in fractions needs the number of steps of an epoch. Received: "
                "data of unknown length. Pass steps_per_epoch to fit, or a TF-MOT schedule."
            )
        begin = timeline.step_of(timeline.resolve(self.begin, name="begin")) or 0
        end = timeline.step_of(timeline.resolve(self.end, name="end")) or 0
        last = (timeline.total_steps or 0) - 1
        end = min(end, last)
        if begin >= end:
            raise ValueError(
                "The pruning schedule cannot finish in the planned steps: it begins at step "
                f"{begin} and must end by step {end}. Received: {last + 1} steps of training. "
                "Train longer, or begin earlier."
            )
        # A frequency that divides the span, so that the last update falls on the end itself.
        wanted = self.frequency or min(_FREQUENCY, max(1, (end - begin) // 10))
        updates = max(1, (end - begin) // wanted)
        frequency = max(1, (end - begin) // updates)
        begin = end - updates * frequency
        return tfmot_schedules().PolynomialDecay(
            initial_sparsity=self.initial_sparsity,
            final_sparsity=final_sparsity,
            begin_step=begin,
            end_step=end,
            power=self.power,
            frequency=frequency,
        )


def tfmot_schedules() -> Any:
    """Imports TF-MOT's schedules without changing the process.

    TF-MOT sets `TF_USE_LEGACY_KERAS=1`, which turns `tf.keras` into Keras 2 for everybody if it
    was not resolved before. So it is resolved first, and the variable is put back.
    """
    _ = tf.keras.Model
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tfmot.sparsity.keras


def check_schedule(schedule: Any) -> Any:
    """Returns a schedule after checking that it is ours or one of TF-MOT's.

    Raises:
        TypeError: it is neither.
    """
    if schedule is None:
        return FractionSchedule()
    if isinstance(schedule, FractionSchedule):
        return schedule
    if isinstance(schedule, tfmot_schedules().PruningSchedule):
        return schedule
    raise TypeError(
        "`schedule` must be a ko.pruning.FractionSchedule or a schedule of "
        "tfmot.sparsity.keras (PolynomialDecay, ConstantSparsity). "
        f"Received: schedule={schedule!r}."
    )


def final_sparsity_of(schedule: Any) -> float | None:
    """Returns the sparsity a TF-MOT schedule ends with, if it says so."""
    value = getattr(schedule, "final_sparsity", getattr(schedule, "target_sparsity", None))
    return None if value is None else float(value)


def check_finishes(schedule: Any, timeline: Timeline) -> None:
    """Raises ValueError when a TF-MOT schedule cannot reach its end in the planned steps."""
    total = timeline.total_steps
    if total is None:
        return
    end = getattr(schedule, "end_step", None)
    begin = getattr(schedule, "begin_step", 0)
    needed = begin if end is None or end == -1 else end
    if needed > total - 1:
        raise ValueError(
            "The pruning schedule cannot finish in the planned steps: it needs step "
            f"{needed}. Received: {total} steps of training, 0 to {total - 1}. "
            "Train longer, or use ko.pruning.FractionSchedule, which fits any length."
        )
