"""Which sparsity every kernel has at every step."""

import re
from collections.abc import Mapping
from typing import Any

from kerasopt._layer_filter import select_layers
from kerasopt._validation import check_number
from kerasopt.pruning._kernels import Kernel
from kerasopt.pruning._schedules import (
    OWN,
    check_finishes,
    end_step_of,
    final_sparsity_of,
    last_due,
    sparsity_at,
)
from kerasopt.pruning._scopes import erk_sparsity
from kerasopt.pruning._structures import Structure
from kerasopt.training import Timeline


def check_targets(targets: Any) -> dict[str, float]:
    """Returns the sparsities by regex after checking what can be checked without a model.

    Raises:
        TypeError: it is not a dict from strings to numbers.
        ValueError: a regex is malformed or a sparsity out of range.
    """
    if targets is None:
        return {}
    if not isinstance(targets, Mapping) or not all(isinstance(key, str) for key in targets):
        raise TypeError(
            "`targets` must be a dict from a regex on the layer's name or path to a sparsity, "
            f'like {{"logits": 0.5}}. Received: targets={targets!r}.'
        )
    for pattern, value in targets.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"`targets` must hold valid regexes ({error}). Received: targets={targets!r}."
            ) from error
        check_number(f"targets[{pattern!r}]", value, low=0.0, high=1.0, high_open=True)
    return {pattern: float(value) for pattern, value in targets.items()}


def own_targets(kernels: list[Kernel], targets: Mapping[str, float]) -> list[float | None]:
    """Returns for each kernel the target of the first regex that finds it, or `None`.

    Raises:
        ValueError: a regex finds no kernel; the nearest names are offered.
    """
    found: dict[int, float] = {}
    named = [(kernel.path, kernel) for kernel in kernels]
    for pattern, value in targets.items():
        for _, kernel in select_layers(named, pattern, argument="targets"):
            found.setdefault(id(kernel), value)
    return [found.get(id(kernel)) for kernel in kernels]


class Plan:
    """The sparsity of every kernel over time.

    Args:
        schedule: one of ours, or TF-MOT's.
        final_sparsity: of the kernels without a target of their own; a TF-MOT schedule's own
            counts instead.
        kernels: the kernels.
        targets: for each kernel its own target, or `None`.
        scope: `"layer"`, `"global"` or `"erk"`.
        structure: an M:N pattern sets the sparsity itself, and is made once.
        timeline: how long training will be.

    Raises:
        ValueError: the schedule cannot finish, or does not say where it ends though it must.
    """

    def __init__(
        self,
        schedule: Any,
        final_sparsity: float,
        kernels: list[Kernel],
        targets: list[float | None],
        *,
        scope: str,
        structure: Structure,
        timeline: Timeline,
    ) -> None:
        self._own = isinstance(schedule, OWN)
        self.once = structure.fixed_sparsity is not None
        if self._own:
            self.clock = schedule.resolve(final_sparsity, timeline)
        else:
            check_finishes(schedule, timeline)
            self.clock = schedule
        final = final_sparsity_of(self.clock)
        if structure.fixed_sparsity is not None:
            final = structure.fixed_sparsity
        if final is None and (scope == "erk" or any(target is not None for target in targets)):
            raise ValueError(
                '`targets` and scope="erk" need a schedule that tells its final sparsity '
                "(an attribute final_sparsity or target_sparsity). "
                f"Received: schedule={schedule!r}."
            )
        self.final = final
        self.targets = _share_out(kernels, targets, final, scope)
        self._clocks: dict[float, Any] = {}
        if self._own:
            self._clocks = {
                target: schedule.resolve(target, timeline)
                for target in {*self.targets}
                if target is not None and target != final
            }

    @property
    def end_step(self) -> int | None:
        """The step at which the schedule is over; `None` if it never is."""
        return end_step_of(self.clock)

    def due(self, after: int, upto: int) -> int | None:
        """Returns the last step in (`after`, `upto`] at which masks change, or `None`."""
        return last_due(self.clock, after, upto)

    def overall(self, step: int) -> float:
        """Returns the sparsity at a step of kernels without a target of their own."""
        return self.final if self.once else sparsity_at(self.clock, step)  # type: ignore[return-value]

    def levels(self, step: int) -> list[float]:
        """Returns the sparsity of every kernel at a step."""
        now = self.overall(step)
        return [
            now if target is None or target == self.final else self._level(target, step, now)
            for target in self.targets
        ]

    def _level(self, target: float, step: int, now: float) -> float:
        if self._own:
            return sparsity_at(self._clocks[target], step)
        # TF-MOT's schedules as they are: the same curve, stretched to the kernel's own target.
        return target * (now / self.final if self.final else 1.0)


def _share_out(
    kernels: list[Kernel], targets: list[float | None], final: float | None, scope: str
) -> list[float | None]:
    if scope != "erk" or final is None:
        return [final if target is None else target for target in targets]
    rest = [kernel for kernel, target in zip(kernels, targets, strict=True) if target is None]
    shares = iter(erk_sparsity([kernel.shape for kernel in rest], final) if rest else [])
    return [next(shares) if target is None else target for target in targets]
