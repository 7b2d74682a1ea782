"""Unfreezing during `fit`, with the optimizer's state kept."""

import math
from typing import Any

from kerasopt._validation import check_choice, check_int
from kerasopt.training import Moment, build_optimizer, check_moment, is_untouched
from kerasopt.transfer._blocks import blocks
from kerasopt.transfer._classifier import is_feature_head, split_layers
from kerasopt.transfer._flags import BATCH_NORM, Flags, close_layers, open_containers, open_layers
from kerasopt.transfer._switching import (
    Chosen,
    Schedule,
    Switch,
    Switching,
    check_schedule,
    describe,
    find_layers,
)


class Unfreeze(Switching):
    """Freezes the backbone and opens parts of it at given moments of `fit`.

    Setting `layer.trainable` in an ordinary callback does nothing, silently: the train step was
    traced before. This callback builds the optimizer on every variable that will ever train,
    flips the flags and has Keras trace one new step. Slots of variables that were training
    already, the iteration count and the learning-rate schedule go on. Newly opened variables
    count their own steps, so that Adam's bias correction works for them too and their first steps
    are no longer than the first steps of training.

    The head always trains. What the schedule never opens stays frozen, bit for bit. After `fit`
    the layers stay as the last moment left them. A run that `BackupAndRestore` goes on with opens
    at its first batch what had been open when it was interrupted.

    Args:
        schedule: moments and what they open. A float moment is a fraction of training, an int
            an epoch (from 0). The value is the number of last blocks (see `ko.transfer.blocks`),
            `"all"`, a regex on the layer's name or path, or a callable `layer -> bool`.
            Openings add up.
        batch_norm: what BatchNormalization layers of opened blocks do. `"frozen"` (default): they
            keep their statistics and affine weights, the usual choice for small data sets;
            `"affine"`: gamma and beta train, the statistics stay; `"train"`: they train as any
            layer, on the statistics of the batch.
        verbose: 1 prints a line at each opening.

    Raises:
        TypeError: the schedule is not a dict of moments and what they open.
        ValueError: at construction or before the first batch, when a moment lies outside
            training, a block number or regex finds no layer, the model's head says that its
            backbone is frozen for good (`head="features"`), or the optimizer is a
            `MultiOptimizer`.

    Example:
        >>> unfreeze = Unfreeze({0.25: 2, 0.5: "all"})
        >>> unfreeze.schedule
        {0.25: 2, 0.5: 'all'}

    The history gets `trainable_fraction`, the share of the model's weights that train.

    Reference:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification,
        arXiv:1801.06146 (gradual unfreezing, from the head down).
    """

    kind = "unfreeze"
    verb = "unfrozen"
    _argument = "schedule"

    def __init__(self, schedule: Schedule, *, batch_norm: str = "frozen", verbose: int = 0) -> None:
        super().__init__(verbose)
        self.schedule = check_schedule(schedule, what="open", which="last")
        check_choice("batch_norm", batch_norm, BATCH_NORM)
        self.batch_norm = batch_norm

    def prepare(self) -> None:
        """Builds the optimizer on all that will ever train, as a checkpoint will need it."""
        if not is_feature_head(self.model):
            self._build(self._layers())

    def begin(self) -> None:
        """Freezes the backbone, and makes the plan."""
        if is_feature_head(self.model):
            raise ValueError(
                f"`{type(self).__name__}` needs a backbone that may train, and this model was "
                "built with head='features', which freezes it for good. Build it with head='gap' "
                "or 'fc'."
            )
        self._pending = sorted(self._plan(), key=lambda entry: entry.position)
        self._build([layer for entry in self._pending for layer in entry.layers])
        backbone, _ = split_layers(self.model)
        open_containers(self.model)
        close_layers(backbone)
        self.session.retrace()

    def switch(self, due: list[Switch]) -> None:
        """Opens layers; variables new to the optimizer begin to count their steps."""
        before = {id(variable) for variable in self.model.trainable_variables}
        starts = []
        for entry in due:
            open_layers(entry.layers, self.batch_norm)
            step = self.optimizer_step(entry.position)
            for variable in self.model.trainable_variables:
                if id(variable) in before:
                    continue
                before.add(id(variable))
                restored = 0 < self.restored >= entry.position
                if restored or is_untouched(self.model.optimizer, variable):
                    starts.append((variable, step))
        self.session.start_counts(starts)

    def _plan(self) -> list[Switch]:
        return [
            Switch(
                self.timeline.resolve(moment, name="schedule"),
                describe(chosen, last=True),
                tuple(self._find(chosen)),
            )
            for moment, chosen in self.schedule.items()
        ]

    def _layers(self) -> list[Any]:
        """Lists all layers that the plan will open; needs no timeline."""
        found = [self._find(value) for value in self.schedule.values()]
        return [layer for layers in found for layer in layers]

    def _find(self, chosen: Chosen) -> list[Any]:
        return find_layers(self.model, chosen, last=True, argument=self._argument)

    def _build(self, opened_later: list[Any]) -> None:
        flags = Flags(self.model)
        backbone, _ = split_layers(self.model)
        try:
            open_containers(self.model)
            close_layers(backbone)
            open_layers(opened_later, self.batch_norm)
            build_optimizer(self.model, self.model.trainable_variables)
        finally:
            flags.restore()


class GradualUnfreeze(Unfreeze):
    """Unfreezes the backbone group by group from the head down, evenly from `start` to `end`.

    The blocks of the backbone (`ko.transfer.blocks`) are put into `groups` of about equal number.
    The last group opens at `start`, the first one at `end`, and what was open stays open:

        opened after switch i of n  =  ceil(blocks * i / n),  i = 1 .. n

    Each switch costs one new trace of the train step, so few groups are enough. Everything else
    is as in `Unfreeze`.

    Args:
        start: moment of the first opening; a float is a fraction of training, an int an epoch.
        end: moment of the last one, not before `start`.
        groups: number of openings, at least 1; never more than there are blocks.
        blocks: how many of the last blocks are opened in all; None for the whole backbone.
        batch_norm: `"frozen"`, `"affine"` or `"train"`, as in `Unfreeze`.
        verbose: 1 prints a line at each opening.

    Raises:
        TypeError: a moment or number has a wrong type.
        ValueError: a moment lies outside training, `end` before `start`, or there are not so many
            blocks.

    Example:
        >>> callback = GradualUnfreeze(start=0.2, end=0.6)
        >>> callback.groups
        4

    Reference:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification,
        arXiv:1801.06146.
    """

    _argument = "blocks"

    def __init__(
        self,
        start: Moment = 0.1,
        end: Moment = 0.5,
        *,
        groups: int = 4,
        blocks: int | None = None,
        batch_norm: str = "frozen",
        verbose: int = 0,
    ) -> None:
        check_moment("start", start)
        check_moment("end", end)
        check_int("groups", groups, low=1)
        if blocks is not None:
            check_int("blocks", blocks, low=1)
        super().__init__(
            {start: "all" if blocks is None else blocks}, batch_norm=batch_norm, verbose=verbose
        )
        self.groups = groups
        self._start, self._end = start, end
        self._number = blocks

    def _plan(self) -> list[Switch]:
        first = self.timeline.resolve(self._start, name="start")
        last = self.timeline.resolve(self._end, name="end")
        if last < first:
            raise ValueError(
                "`end` must not come before `start`. "
                f"Received: start={self._start}, end={self._end}, which are the epochs {first:g} "
                f"and {last:g} of {self.timeline.epochs}."
            )
        number = self._number or len(blocks(self.model))
        groups = min(self.groups, number)
        plan = []
        for index in range(groups):
            opened = math.ceil(number * (index + 1) / groups)
            position = first + (last - first) * (index / (groups - 1) if groups > 1 else 0.0)
            text = describe(opened, last=True)
            plan.append(Switch(position, text, tuple(self._find(opened))))
        return plan
