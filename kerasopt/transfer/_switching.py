"""The base of the callbacks that freeze and unfreeze: a plan of switches during `fit`."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from kerasopt._layer_filter import LayerFilter, select_layers, walk_layers
from kerasopt.training import Moment, TrainingCallback, check_moment
from kerasopt.transfer._blocks import blocks
from kerasopt.transfer._flags import trainable_fraction

Chosen = int | str | Callable[[Any], bool]
Schedule = Mapping[Moment, Chosen]


@dataclasses.dataclass(frozen=True)
class Switch:
    """What is frozen or opened at a position of `fit`, in epochs."""

    position: float
    text: str
    layers: tuple[Any, ...]


class Switching(TrainingCallback, abc.ABC):
    """Base class: makes a plan in `begin`, carries it out between batches, logs what trains."""

    kind = ""
    verb = ""

    def __init__(self, verbose: int = 0) -> None:
        super().__init__()
        self.verbose = verbose
        self._pending: list[Switch] = []

    @abc.abstractmethod
    def switch(self, due: list[Switch]) -> None:
        """Sets the flags of the layers whose moment has come."""

    def before_batch(self, epoch: int, batch: int) -> None:  # noqa: ARG002
        """Carries out what has come due; one new trace for all of it."""
        due = []
        while self._pending and self.reached(self._pending[0].position):
            due.append(self._pending.pop(0))
        if not due:
            return
        self.switch(due)
        for entry in due:
            self.mark(self.kind, f"{entry.text} {self.verb}")
        if self.verbose:
            texts = ", ".join(entry.text for entry in due)
            share = trainable_fraction(self.model)
            print(f"\n{type(self).__name__}: {texts} {self.verb}, {share:.1%} of the weights train")  # noqa: T201
        self.session.retrace()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Logs `trainable_fraction`."""
        if logs is not None:
            logs["trainable_fraction"] = trainable_fraction(self.model)


def check_schedule(schedule: Any, *, what: str, which: str) -> dict[Moment, Chosen]:
    """Checks a dict of moments and layers, as far as it can be without a model."""
    if not isinstance(schedule, Mapping) or not schedule:
        raise TypeError(
            f"`schedule` must be a dict of moments and what they {what}, such as "
            f"{{0.25: 2, 0.5: 'all'}}. Received: schedule={schedule!r}."
        )
    for moment, chosen in schedule.items():
        check_moment("schedule", moment)
        if isinstance(chosen, bool) or not (isinstance(chosen, int | str) or callable(chosen)):
            raise TypeError(
                f"`schedule` values must be a number of {which} blocks, 'all', a regex or a "
                f"callable. Received: schedule[{moment!r}]={chosen!r}."
            )
    return dict(schedule)


def find_layers(model: Any, chosen: Chosen, *, last: bool, argument: str = "schedule") -> list[Any]:
    """Lists the backbone's layers that a schedule's value stands for.

    Args:
        model: a built Keras model.
        chosen: a number of blocks, `"all"`, a regex or a callable.
        last: whether a number counts from the head down (else from the input up).
        argument: the argument's name, for the error.
    """
    grouped = tuple(blocks(model))
    everything = [layer for block in grouped for layer in block.layers]
    if chosen == "all":
        return everything
    if isinstance(chosen, int):
        if not 1 <= chosen <= len(grouped):
            raise ValueError(
                f"`{argument}` must {'open' if last else 'freeze'} 1 to {len(grouped)} blocks of "
                f"this model, or 'all'. Received: {chosen}. "
                "`print(ko.transfer.blocks(model))` lists them."
            )
        part = grouped[-chosen:] if last else grouped[:chosen]
        return [layer for block in part for layer in block.layers]
    members = {id(layer) for layer in everything}
    inside = [(path, layer) for path, layer in walk_layers(model) if id(layer) in members]
    wanted: LayerFilter = chosen
    return [layer for _, layer in select_layers(inside, wanted, argument=argument)]


def describe(chosen: Chosen, *, last: bool) -> str:
    """Says in words what a schedule's value stands for."""
    if chosen == "all":
        return "whole backbone"
    if isinstance(chosen, int):
        return f"{'last' if last else 'first'} {chosen} block{'s' if chosen > 1 else ''}"
    if isinstance(chosen, str):
        return repr(chosen)
    return getattr(chosen, "__name__", "chosen layers")
