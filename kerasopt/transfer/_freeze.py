"""Freezing during `fit`."""

from kerasopt.training import trim_optimizer
from kerasopt.transfer._flags import close_layers, open_containers
from kerasopt.transfer._switching import (
    Schedule,
    Switch,
    Switching,
    check_schedule,
    describe,
    find_layers,
)


class Freeze(Switching):
    """Freezes parts of the backbone at given moments of `fit`, from the input up.

    The counterpart of `Unfreeze`: what is chosen stops to train at its moment, weights and
    BatchNormalization statistics, bit for bit. `Freeze({0: 3})` keeps the first three blocks as
    they are for the whole `fit`; `Freeze({0.8: "all"})` trains the head alone at the end;
    `Freeze({0.5: lambda layer: isinstance(layer, keras.layers.BatchNormalization)})` stops all
    statistics halfway. Each moment costs one new trace. After `fit` the layers stay frozen.

    Freezing and unfreezing of the same layer in one `fit` follow the order of their moments; at
    the same moment the order of the callbacks decides.

    Args:
        schedule: moments and what they freeze. A float moment is a fraction of training, an int
            an epoch (from 0). The value is the number of first blocks (see `ko.transfer.blocks`),
            `"all"` of the backbone, a regex on the layer's name or path, or a callable
            `layer -> bool`.
        verbose: 1 prints a line at each moment.

    Raises:
        TypeError: the schedule is not a dict of moments and what they freeze.
        ValueError: a moment lies outside training, or a block number or regex finds no layer.

    Example:
        >>> Freeze({0.8: "all"}).schedule
        {0.8: 'all'}

    The history gets `trainable_fraction`, the share of the model's weights that train.

    Reference:
        Brock et al., FreezeOut: Accelerate Training by Progressively Freezing Layers,
        arXiv:1706.04983 (freezing from the input up; without its per-layer rate schedule).
    """

    kind = "freeze"
    verb = "frozen"

    def __init__(self, schedule: Schedule, *, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.schedule = check_schedule(schedule, what="freeze", which="first")

    def begin(self) -> None:
        """Makes the plan."""
        plan = [
            Switch(
                self.timeline.resolve(moment, name="schedule"),
                describe(chosen, last=False),
                tuple(find_layers(self.model, chosen, last=False)),
            )
            for moment, chosen in self.schedule.items()
        ]
        self._pending = sorted(plan, key=lambda entry: entry.position)

    def switch(self, due: list[Switch]) -> None:
        """Freezes the layers."""
        if not self.model.trainable:
            open_containers(self.model)
        for entry in due:
            close_layers(entry.layers)

    def end(self) -> None:
        """Drops the optimizer's state of what is frozen now, so that a saved model loads."""
        trim_optimizer(self.model)
