"""Unfreezing during `fit`, with the optimizer's state kept."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import LayerFilter, select_layers, walk_layers
from kerasopt._validation import check_choice
from kerasopt.training import Moment, TrainingCallback, build_optimizer, check_moment
from kerasopt.transfer._blocks import blocks
from kerasopt.transfer._classifier import is_feature_head, split_layers

Opened = int | str | Callable[[Any], bool]


class Unfreeze(TrainingCallback):
    """Freezes the backbone and opens parts of it at given moments of `fit`.

    Setting `layer.trainable` in an ordinary callback does nothing, silently: the train step was
    traced before. This callback builds the optimizer on every variable that will ever train,
    flips the flags and has Keras trace one new step. Moments of variables that were training
    already, the iteration count and the learning-rate schedule go on.

    The head always trains. What the schedule never opens stays frozen, bit for bit. After `fit`
    the layers stay as the last moment left them.

    Args:
        schedule: moments and what they open. A float moment is a fraction of training, an int
            an epoch (from 0). The value is the number of last blocks (see `ko.transfer.blocks`),
            `"all"`, a regex on the layer's name or path, or a callable `layer -> bool`.
            Openings add up.
        batch_norm: `"frozen"` (default): BatchNormalization layers of the backbone keep their
            statistics and affine weights also in opened blocks, the usual choice for small data
            sets; `"train"`: they open with their block.
        verbose: 1 prints a line at each opening.

    Raises:
        TypeError: the schedule is not a dict of moments and what they open.
        ValueError: at construction or before the first batch, when a moment lies outside
            training, a block number or regex finds no layer, or the model's head says that its
            backbone is frozen for good (`head="features"`).

    Example:
        >>> unfreeze = Unfreeze({0.25: 2, 0.5: "all"})
        >>> unfreeze.schedule
        {0.25: 2, 0.5: 'all'}

    The history gets `trainable_fraction`, the share of the model's weights that train.

    Reference:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification,
        arXiv:1801.06146 (gradual unfreezing, from the head down).
    """

    def __init__(
        self,
        schedule: Mapping[Moment, Opened],
        *,
        batch_norm: str = "frozen",
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(schedule, Mapping) or not schedule:
            raise TypeError(
                "`schedule` must be a dict of moments and what they open, such as "
                f"{{0.25: 2, 0.5: 'all'}}. Received: schedule={schedule!r}."
            )
        for moment, opened in schedule.items():
            check_moment("schedule", moment)
            if isinstance(opened, bool) or not (isinstance(opened, int | str) or callable(opened)):
                raise TypeError(
                    "`schedule` values must be a number of last blocks, 'all', a regex or a "
                    f"callable. Received: schedule[{moment!r}]={opened!r}."
                )
        check_choice("batch_norm", batch_norm, ("frozen", "train"))
        self.schedule = dict(schedule)
        self.batch_norm = batch_norm
        self.verbose = verbose
        self._pending: list[tuple[float, str, list[Any]]] = []

    def begin(self) -> None:
        """Freezes the backbone and builds the optimizer on all that will ever train."""
        if is_feature_head(self.model):
            raise ValueError(
                "`Unfreeze` needs a backbone that may train, and this model was built with "
                "head='features', which freezes it for good. Build it with head='gap' or 'fc'."
            )
        backbone, _ = split_layers(self.model)
        plan = [
            (self.timeline.resolve(moment, name="schedule"), _describe(opened), self._find(opened))
            for moment, opened in self.schedule.items()
        ]
        plan.sort(key=lambda entry: entry[0])
        self._freeze(backbone, [layer for _, _, layers in plan for layer in layers])
        self._pending = plan
        self.session.retrace()

    def before_batch(self, epoch: int, batch: int) -> None:
        """Opens what has come due; one new trace for all of it."""
        opened = False
        while self._pending and self.timeline.reached(self._pending[0][0], epoch, batch):
            _, text, layers = self._pending.pop(0)
            for layer in layers:
                layer.trainable = True
            opened = True
            self.mark("unfreeze", f"{text} unfrozen")
            if self.verbose:
                print(f"\nUnfreeze: {text}, {self._fraction():.0%} of the weights train")  # noqa: T201
        if opened:
            self.session.retrace()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Logs `trainable_fraction`."""
        if logs is not None:
            logs["trainable_fraction"] = self._fraction()

    def _find(self, opened: Opened) -> list[Any]:
        grouped = blocks(self.model)
        everything = [layer for block in grouped for layer in block.layers]
        if opened == "all":
            found = everything
        elif isinstance(opened, int):
            if not 1 <= opened <= len(grouped):
                raise ValueError(
                    f"`schedule` must open 1 to {len(grouped)} blocks of this model, or 'all'. "
                    f"Received: {opened}. `print(ko.transfer.blocks(model))` lists them."
                )
            found = [layer for block in tuple(grouped)[-opened:] for layer in block.layers]
        else:
            members = {id(layer) for layer in everything}
            inside = [
                (path, layer) for path, layer in walk_layers(self.model) if id(layer) in members
            ]
            chosen: LayerFilter = opened
            found = [layer for _, layer in select_layers(inside, chosen, argument="schedule")]
        if self.batch_norm == "frozen":
            found = [f for f in found if not isinstance(f, keras.layers.BatchNormalization)]
        return found

    def _freeze(self, backbone: list[Any], opened_later: list[Any]) -> None:
        leaves = [layer for _, layer in walk_layers(self.model)]
        flags = [layer.trainable for layer in leaves]
        # A frozen container hides the flags of its layers; opening it opens them all.
        for layer in _containers(self.model):
            layer.trainable = True
        for layer, flag in zip(leaves, flags, strict=True):
            layer.trainable = flag
        for layer in backbone:
            layer.trainable = False
        for layer in opened_later:
            layer.trainable = True
        build_optimizer(self.model, self.model.trainable_variables)
        for layer in opened_later:
            layer.trainable = False

    def _fraction(self) -> float:
        training = sum(_size(variable) for variable in self.model.trainable_variables)
        return training / max(1, sum(_size(variable) for variable in self.model.weights))


def _size(variable: Any) -> int:
    return math.prod(variable.shape)


def _containers(model: Any) -> list[Any]:
    """Lists the models nested in a model, outer ones first."""
    nested = [layer for layer in model.layers if getattr(layer, "layers", None)]
    return nested + [inner for layer in nested for inner in _containers(layer)]


def _describe(opened: Opened) -> str:
    if opened == "all":
        return "whole backbone"
    if isinstance(opened, int):
        return f"last {opened} block{'s' if opened > 1 else ''}"
    return repr(opened) if isinstance(opened, str) else getattr(opened, "__name__", "chosen layers")
