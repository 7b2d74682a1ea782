"""Rates and step counts of single variables, on top of the optimizer's own.

Every Keras optimizer steps one variable at a time, through its public method `update_step`. An
instance attribute over it can hand on another learning rate, or let a variable that joined late
count its own steps: Adam's bias correction is a function of the iteration count, and with slots
that start at zero late in training the first steps would be several times too long.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.training._optimizer import (
    inner_optimizer,
    iteration_variable,
    late_starts,
    variable_key,
)

_ATTRIBUTES = ("update_step", "_apply_weight_decay")


class Updates:
    """What differs from variable to variable in the optimizer's step of one model."""

    def __init__(self) -> None:
        self._rates: list[tuple[Any, Any, float]] = []
        self._installed: Any = None
        self._before: dict[str, Any] = {}

    def scale(self, owner: Any, factors: Sequence[tuple[Any, float]]) -> None:
        """Replaces the owner's factors of the learning rate: pairs of a variable and a factor."""
        self._rates = [entry for entry in self._rates if entry[0] is not owner]
        self._rates += [(owner, variable, float(factor)) for variable, factor in factors]

    def drop(self, owner: Any) -> bool:
        """Forgets an owner's factors; tells whether there were any."""
        before = len(self._rates)
        self._rates = [entry for entry in self._rates if entry[0] is not owner]
        return len(self._rates) != before

    def clear(self) -> None:
        """Forgets all factors and gives the optimizer its own methods back."""
        self._rates = []
        self._remove()

    def install(self, optimizer: Any) -> None:
        """Puts the present state in front of the optimizer's methods, for the next trace."""
        self._remove()
        inner = inner_optimizer(optimizer)
        starts = dict(late_starts(inner))
        if not (self._rates or starts):
            return
        factors: dict[Any, float] = {}
        for _, variable, factor in self._rates:
            key = variable_key(inner, variable)
            factors[key] = factors.get(key, 1.0) * factor
        attributes = vars(inner)
        self._installed = inner
        self._before = {name: attributes.get(name) for name in _ATTRIBUTES}
        step = _stepping(inner, inner.update_step, factors, starts)
        attributes.update(update_step=step, _apply_weight_decay=_decaying(inner, factors))

    def _remove(self) -> None:
        if self._installed is None:
            return
        for name, previous in self._before.items():
            vars(self._installed).pop(name, None)
            if previous is not None:
                vars(self._installed)[name] = previous
        self._installed = None


def _stepping(
    optimizer: Any,
    update_step: Callable[..., Any],
    factors: dict[Any, float],
    starts: dict[Any, int],
) -> Callable[..., Any]:
    count = iteration_variable(optimizer)

    def step(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        key = variable_key(optimizer, variable)
        factor, start = factors.get(key, 1.0), starts.get(key, 0)
        if not factor:
            return None  # Ftrl divides by its rate, and schedule-free averages move without one
        rate = learning_rate if factor == 1.0 else learning_rate * factor
        if not start:
            return update_step(gradient, variable, rate)
        # Only the count is another one in this scope; slots and weights are assigned as ever.
        own = count.value - start
        with keras.StatelessScope([(count, own), *_nadam_product(optimizer, own)]):
            return update_step(gradient, variable, rate)

    return step


# Two things have no public method. Decoupled weight decay multiplies a weight by 1 - rate * decay,
# and with a rate of its own a variable's decay must follow, but nothing sees rate and variable
# together. And Nadam keeps the product of its momentum schedule, a function of the iteration count
# that begins with that of the variable. The functions below hold that exception. Pinned by
# tests/test_updates.py.


def _decaying(optimizer: Any, factors: dict[Any, float]) -> Callable[..., Any]:
    apply_weight_decay = type(optimizer)._apply_weight_decay

    def decay(variables: Sequence[Any]) -> None:
        groups: dict[float, list[Any]] = {}
        for variable in variables:
            factor = factors.get(variable_key(optimizer, variable), 1.0)
            groups.setdefault(factor, []).append(variable)
        for factor, members in groups.items():
            apply_weight_decay(_with_decay(optimizer, factor), members)

    return decay


def _with_decay(optimizer: Any, factor: float) -> Any:
    """Returns an optimizer that shares everything with the given one but its weight decay.

    The optimizer's own must not change: replicas decay at the same time, and one that begins
    would find what another one has set.
    """
    view = object.__new__(type(optimizer))
    attributes = vars(view)
    attributes.update(vars(optimizer))
    for name in ("weight_decay", "adam_weight_decay"):
        if attributes.get(name) is not None:
            attributes[name] = attributes[name] * factor
    return view


_NADAM_DECAY = 0.96  # fixed in Keras; its powers are 0 in float32 long before the table ends
_NADAM_TABLE = np.cumprod(1.0 - 0.5 * np.concatenate([[0.0], _NADAM_DECAY ** np.arange(1, 600)]))


def _nadam_product(optimizer: Any, count: Any) -> list[tuple[Any, Any]]:
    """Pairs Nadam's product with its value after `count` batches and one more; else no pair."""
    product = vars(optimizer).get("_u_product")
    if product is None:
        return []
    steps = count // (optimizer.gradient_accumulation_steps or 1) + 1
    schedule = keras.ops.take(_NADAM_TABLE, keras.ops.minimum(steps, len(_NADAM_TABLE) - 1))
    power = keras.ops.power(float(optimizer.beta_1), keras.ops.cast(steps, "float32"))
    return [(product, keras.ops.cast(schedule, "float32") * power)]
