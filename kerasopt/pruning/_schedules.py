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
        begin, last = _first_step(self.begin, timeline)
        end = timeline.step_of(timeline.resolve(self.end, name="end")) or 0
        end = min(end, last)
        if begin >= end:
            raise ValueError(
                "The pruning schedule cannot finish in the planned steps: it begins at step "
                f"{begin} and must end by step {end}. Received: {last + 1} steps of training. "
                "Train longer, or begin earlier."
            )
        return _polynomial(self, final_sparsity, begin, end)


class StepSchedule:
    """Sparsity that grows along TF-MOT's polynomial between two steps.

    The same curve as `FractionSchedule`, for those who count in steps. Step 0 is the first batch
    of the `fit`, or what `Masks.update` is told.

    Args:
        begin_step: step of the first update, >= 0.
        end_step: step at which the final sparsity is reached, > `begin_step`.
        initial_sparsity: sparsity at the first update, in [0, 1). Default 0.0.
        power: exponent, > 0. Default 3.
        frequency: steps between updates; `None` (default) makes it 100, or fewer in a short span.

    Raises:
        TypeError: a value is not a number.
        ValueError: a value out of range, or `begin_step` not before `end_step`.

    Example:
        >>> schedule = StepSchedule(0, 1000, frequency=100)
        >>> schedule.begin_step, schedule.end_step
        (0, 1000)
    """

    def __init__(
        self,
        begin_step: int,
        end_step: int,
        *,
        initial_sparsity: float = 0.0,
        power: float = 3.0,
        frequency: int | None = None,
    ) -> None:
        self.begin_step = check_int("begin_step", begin_step, low=0)
        self.end_step = check_int("end_step", end_step, low=0)
        if begin_step >= end_step:
            raise ValueError(
                "`begin_step` must lie before `end_step`. "
                f"Received: begin_step={begin_step}, end_step={end_step}."
            )
        self.initial_sparsity = check_number(
            "initial_sparsity", initial_sparsity, low=0.0, high=1.0, high_open=True
        )
        self.power = check_number("power", power, low=0.0, low_open=True)
        if frequency is not None:
            check_int("frequency", frequency, low=1)
        self.frequency = frequency

    def resolve(self, final_sparsity: float, timeline: Timeline) -> Any:
        """Returns TF-MOT's `PolynomialDecay` between the two steps.

        Raises:
            ValueError: the training is planned to end before.
        """
        resolved = _polynomial(self, final_sparsity, self.begin_step, self.end_step)
        check_finishes(resolved, timeline)
        return resolved


class ConstantSchedule:
    """The whole sparsity at one moment, and training from there on.

    Args:
        begin: moment of the cut; a float is a fraction of training, an int an epoch. Default 0.0.

    Raises:
        TypeError: `begin` is not a number.
        ValueError: a fraction outside [0, 1] or a negative epoch.

    Example:
        >>> ConstantSchedule(begin=0.1).begin
        0.1
    """

    def __init__(self, begin: Moment = 0.0) -> None:
        check_moment("begin", begin)
        self.begin = begin

    def resolve(self, final_sparsity: float, timeline: Timeline) -> Any:
        """Returns TF-MOT's `ConstantSparsity` for a training of known length.

        Raises:
            ValueError: the moment lies behind the last step, or the length is unknown and the
                moment is not the start.
        """
        begin, last = (0, None) if self.begin == 0 else _first_step(self.begin, timeline)
        if last is not None and begin > last:
            raise ValueError(
                "The pruning schedule cannot finish in the planned steps: it begins at step "
                f"{begin}. Received: {last + 1} steps of training. Begin earlier."
            )
        return tfmot_schedules().ConstantSparsity(
            final_sparsity, begin_step=begin, frequency=_FREQUENCY
        )


def _first_step(begin: Moment, timeline: Timeline) -> tuple[int, int]:
    """Returns the step of a moment, and the last step of training."""
    if timeline.steps_per_epoch is None:
        raise ValueError(
            "A pruning schedule in fractions needs the number of steps of an epoch. Received: "
            "data of unknown length. Pass steps_per_epoch to fit (total_steps to Masks), or use "
            "ko.pruning.StepSchedule."
        )
    step = timeline.step_of(timeline.resolve(begin, name="begin")) or 0
    return step, (timeline.total_steps or 0) - 1


def _polynomial(schedule: Any, final_sparsity: float, begin: int, end: int) -> Any:
    # A frequency that divides the span, so that the last update falls on the end itself.
    wanted = schedule.frequency or min(_FREQUENCY, max(1, (end - begin) // 10))
    updates = max(1, (end - begin) // wanted)
    frequency = max(1, (end - begin) // updates)
    return tfmot_schedules().PolynomialDecay(
        # A layer with a target of its own may end below where the others begin.
        initial_sparsity=min(schedule.initial_sparsity, final_sparsity),
        final_sparsity=final_sparsity,
        begin_step=end - updates * frequency,
        end_step=end,
        power=schedule.power,
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
    if isinstance(schedule, (*OWN, tfmot_schedules().PruningSchedule)):
        return schedule
    raise TypeError(
        "`schedule` must be a ko.pruning.FractionSchedule, StepSchedule or ConstantSchedule, or a "
        "schedule of tfmot.sparsity.keras (PolynomialDecay, ConstantSparsity). "
        f"Received: schedule={schedule!r}."
    )


def final_sparsity_of(schedule: Any) -> float | None:
    """Returns the sparsity a TF-MOT schedule ends with, if it says so."""
    value = getattr(schedule, "final_sparsity", getattr(schedule, "target_sparsity", None))
    return None if value is None else float(value)


def end_step_of(schedule: Any) -> int | None:
    """Returns the step at which a TF-MOT schedule is over; `None` if it never is."""
    end = getattr(schedule, "end_step", None)
    return None if end is None or end < 0 else int(end)


def last_due(schedule: Any, after: int, upto: int) -> int | None:
    """Returns the last step in (`after`, `upto`] at which a TF-MOT schedule prunes, or `None`."""
    tfmot = tfmot_schedules()
    if type(schedule) in (tfmot.PolynomialDecay, tfmot.ConstantSparsity):
        # Their rule is known, and asking them costs TensorFlow operations at every batch.
        end = end_step_of(schedule)
        last = upto if end is None else min(upto, end)
        last -= (last - schedule.begin_step) % schedule.frequency
        return last if last >= schedule.begin_step and last > after else None
    for step in range(upto, after, -1):
        if bool(schedule(tf.constant(step, tf.int64))[0]):
            return step
    return None


def sparsity_at(schedule: Any, step: int) -> float:
    """Returns the sparsity of a TF-MOT schedule at a step."""
    return float(schedule(tf.constant(step, tf.int64))[1])


def check_finishes(schedule: Any, timeline: Timeline) -> None:
    """Raises ValueError when a TF-MOT schedule cannot reach its end in the planned steps.

    TF-MOT counts the first batch as step 1, so its schedules may end at the number of steps; the
    update that is due then happens behind the last batch.
    """
    total = timeline.total_steps
    if total is None:
        return
    end = end_step_of(schedule)
    needed = getattr(schedule, "begin_step", 0) if end is None else end
    if needed > total:
        raise ValueError(
            "The pruning schedule cannot finish in the planned steps: it needs step "
            f"{needed}. Received: {total} steps of training. "
            "Train longer, or use ko.pruning.FractionSchedule, which fits any length."
        )


OWN = (FractionSchedule, StepSchedule, ConstantSchedule)
