"""Masks on the kernels of one model: put on, brought up to date, held, taken off."""

import math
from collections.abc import Iterator
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._layer_filter import LayerFilter
from kerasopt._validation import check_choice, check_number
from kerasopt.pruning._kernels import Kernel, find_kernels
from kerasopt.pruning._plan import Plan, check_targets, own_targets
from kerasopt.pruning._schedules import check_schedule
from kerasopt.pruning._scopes import SCOPES, joint_masks
from kerasopt.pruning._structures import parse_structure
from kerasopt.training import Timeline

# The default of `final_sparsity`. An M:N pattern sets the sparsity itself and refuses another one,
# so it has to be told apart from a 0.8 that the user wrote; `is` does that.
DEFAULT_SPARSITY = 0.8 + 0.0


class MaskConstraint(keras.constraints.Constraint):
    """Multiplies a weight by its mask after every optimizer step, behind the user's constraint."""

    def __init__(self, mask: Any, inner: Any, who: str) -> None:
        self.mask = mask
        self.inner = inner
        self.who = who

    def __call__(self, w: Any) -> Any:
        """Returns the constrained weight, zero where the mask is zero."""
        if self.inner is not None:
            w = self.inner(w)
        return w * tf.cast(self.mask, w.dtype)


class Pruner:
    """The masks of some kernels of a model.

    Args:
        model: a built `keras.Model`.
        kernels: its kernels.
        who: the public name that asks, for errors.
    """

    def __init__(self, model: Any, kernels: list[Kernel], who: str) -> None:
        for kernel in kernels:
            other = kernel.variable.constraint
            if isinstance(other, MaskConstraint):
                raise ValueError(  # noqa: TRY004 - the type of a constraint is no type error
                    f"`{who}` must be the only one that prunes a layer. Received: {kernel.path!r}, "
                    f"which {other.who} prunes too. Give each its own `layers`, or take the other "
                    "one off (leave it out of `callbacks`; `release()` of Masks and keep_masks)."
                )
        self.kernels = kernels
        self._who = who
        # Variables of a model under a strategy exist once per replica, and so do their masks.
        with model.distribute_strategy.scope():
            self.masks = [
                tf.Variable(tf.ones(k.shape, k.variable.dtype), trainable=False) for k in kernels
            ]
        self._before = [kernel.variable.constraint for kernel in kernels]

    def attach(self) -> None:
        """Makes the masks the constraints of their kernels."""
        for kernel, mask, before in zip(self.kernels, self.masks, self._before, strict=True):
            kernel.variable.constraint = MaskConstraint(mask, before, self._who)

    def detach(self) -> None:
        """Gives the user's constraints back."""
        for kernel, before in zip(self.kernels, self._before, strict=True):
            kernel.variable.constraint = before

    def apply(self) -> None:
        """Sets to zero what the masks say; frozen kernels stay as they are."""
        for kernel, mask in zip(self.kernels, self.masks, strict=True):
            variable = kernel.variable
            if variable.trainable:
                variable.assign(tf.convert_to_tensor(variable) * tf.convert_to_tensor(mask))

    def hold(self) -> None:
        """Takes the zeros that the kernels have now as masks.

        A kernel of nothing but zeros was set so by its initializer, and is left to train.
        """
        for kernel, mask in zip(self.kernels, self.masks, strict=True):
            used = tf.convert_to_tensor(kernel.variable) != 0
            mask.assign(tf.cast(used | ~tf.reduce_any(used), mask.dtype))

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in the kernels, in [0, 1]."""
        size = sum(kernel.size for kernel in self.kernels)
        return sum(kernel.zeros() for kernel in self.kernels) / max(1, size)


class ScheduledPruner(Pruner):
    """Masks that follow a schedule.

    Args:
        model: a built `keras.Model`.
        settings: what the user asked for.
        timeline: how long training will be.
        who: the public name that asks, for errors.
    """

    def __init__(self, model: Any, settings: "Settings", timeline: Timeline, who: str) -> None:
        kernels = settings.kernels(model, who)
        targets = own_targets(kernels, settings.targets)
        self._structure = settings.structure
        self._scope = settings.scope
        self.plan = Plan(
            settings.schedule,
            settings.final_sparsity,
            kernels,
            targets,
            scope=settings.scope,
            structure=settings.structure,
            timeline=timeline,
        )
        super().__init__(model, kernels, who)
        self._shared = [target is None for target in targets]
        self._held: list[Any] | None = None
        self._step = -1
        self.updates = 0

    @property
    def untouched(self) -> bool:
        """Whether no step was seen yet."""
        return self._step < 0

    def go_on(self) -> None:
        """Holds the zeros of an earlier training, for good: they never come back to life."""
        self.hold()
        self._held = [tf.identity(mask) for mask in self.masks]

    def advance(self, step: int) -> float | None:
        """Brings the masks to a step.

        Returns:
            The sparsity that the schedule asks for if the masks were updated, else `None`.
        """
        due = self.plan.due(self._step, step)
        self._step = max(self._step, step)
        if due is None or (self.plan.once and self.updates):
            return None
        self._set(self.plan.levels(due), self.plan.overall(due))
        return self.plan.overall(due)

    def finish(self) -> None:
        """Closes the last bit that a frequency which does not divide the schedule leaves open."""
        end, final = self.plan.end_step, self.plan.final
        if self.plan.once or end is None or final is None or self._step < end:
            return
        last = self.plan.due(-1, end)
        if last is not None and last < end and final - self.plan.overall(last) <= _LAST_BIT:
            self._set(self.plan.levels(end), self.plan.overall(end))

    def short(self) -> list[tuple[str, float]]:
        """Lists the kernels that lack zeros for their target, with the zeros they have."""
        if self.plan.final is None:
            return []
        found = []
        needed = have = 0
        for kernel, target, shared in zip(
            self.kernels, self.plan.targets, self._shared, strict=True
        ):
            values = kernel.matrix().numpy()
            total, zero = self._structure.units(values)
            if self.plan.once:
                missing = not self._structure.holds(values)
            elif self._scope == "global" and shared:
                needed, have, missing = needed + total, have + zero, False
            else:
                missing = zero < math.floor(total * float(target or 0.0))
            if missing:
                found.append((kernel.path, float((values == 0).mean())))
        # Every kernel keeps one unit, also where the ranking would take the last one.
        if have < math.floor(needed * self.plan.final) - len(self.kernels):
            found.insert(0, ("all kernels together", have / needed))
        return found

    def _set(self, levels: list[float], overall: float) -> None:
        matrices = [kernel.matrix() for kernel in self.kernels]
        joint: Iterator[Any] = iter(())
        if self._scope == "global":
            shared = [m for m, ours in zip(matrices, self._shared, strict=True) if ours]
            joint = iter(joint_masks(shared, overall, self._structure) if shared else ())
        for index, (kernel, matrix) in enumerate(zip(self.kernels, matrices, strict=True)):
            if self._scope == "global" and self._shared[index]:
                mask = next(joint)
            else:
                mask = self._structure.mask(matrix, levels[index])
            mask = kernel.restore(mask)
            if self._held is not None:
                mask *= self._held[index]
            self.masks[index].assign(mask)
        self.updates += 1
        self.apply()


_LAST_BIT = 0.005  # half a point of sparsity may be closed without training behind it


class Settings:
    """The checked arguments that `PruneLowMagnitude` and `Masks` share."""

    def __init__(
        self,
        final_sparsity: float,
        *,
        schedule: Any,
        layers: LayerFilter,
        structure: str,
        scope: str,
        targets: Any,
        block_pooling_type: str,
    ) -> None:
        given = check_number("final_sparsity", final_sparsity, low=0.0, high=1.0, high_open=True)
        self.structure = parse_structure(structure, block_pooling_type)
        check_choice("scope", scope, SCOPES)
        self.scope = scope
        self.targets = check_targets(targets)
        fixed = self.structure.fixed_sparsity
        if fixed is not None:
            if final_sparsity is not DEFAULT_SPARSITY and not math.isclose(given, fixed):
                raise ValueError(
                    f"`final_sparsity` must be {fixed:g} or left out with structure "
                    f"{structure!r}, which sets it. Received: final_sparsity={final_sparsity}."
                )
            if scope != "layer" or self.targets:
                raise ValueError(
                    f"`structure` {structure!r} gives every layer the same sparsity. Received: "
                    f"scope={scope!r}, targets={targets!r}. Leave both out, and choose with "
                    "`layers`."
                )
        self.final_sparsity = given if fixed is None else fixed
        self.schedule = check_schedule(schedule)
        self.layers = layers

    def kernels(self, model: Any, who: str) -> list[Kernel]:
        """Returns the kernels to prune.

        Raises:
            ValueError: there is none, or a chosen one is too small for the pattern.
        """
        found = find_kernels(model, self.layers, who=who)
        unfit = [kernel for kernel in found if not self.structure.fits(kernel.matrix_shape)]
        if unfit and (self.layers is not None or len(unfit) == len(found)):
            kernel = unfit[0]
            zeros, size = self.structure.m_by_n or (0, 0)
            raise ValueError(
                f"`structure` {self.structure.name!r} must fit the layers: a kernel needs more "
                f"than {size - zeros} inputs. Received: {kernel.path!r} with "
                f"{kernel.matrix_shape[1]}. Leave this layer out of `layers`."
            )
        return [kernel for kernel in found if kernel not in unfit]
