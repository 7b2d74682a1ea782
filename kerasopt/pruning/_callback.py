"""`PruneLowMagnitude`: masks as constraints, applied by the optimizer inside the compiled step."""

import warnings
from typing import Any

from kerasopt._backend import tf
from kerasopt._layer_filter import LayerFilter
from kerasopt.pruning._pruner import DEFAULT_SPARSITY, ScheduledPruner, Settings
from kerasopt.training import TrainingCallback


class PruneLowMagnitude(TrainingCallback):
    """Sets the weights of smallest magnitude to zero while the model trains.

    The mask becomes the kernel's `constraint`, which the optimizer applies inside the compiled
    step. The model stays an ordinary model: nothing is wrapped and nothing has to be stripped,
    and it can be saved at any time. Constraints of the user's own are applied first and given
    back after `fit`.

    Kernels of frozen layers are left as they are, bit for bit; they get their zeros with their
    first step after unfreezing.

    Args:
        final_sparsity: fraction of the weights that is zero in the end, in [0, 1). Default 0.8.
            With a TF-MOT schedule the schedule's own target counts; an M:N structure sets M/N.
        schedule: a `ko.pruning.FractionSchedule` (default: from the start of training to three
            quarters of it), `StepSchedule` or `ConstantSchedule`, or a schedule of
            `tfmot.sparsity.keras`. Steps are counted from the first batch of this `fit`.
        layers: which layers to prune: `None` for every layer with a kernel except depthwise
            convolutions (they hold few weights and lose most, and TF-MOT leaves them too), a
            regex on the name or path, a list of them, or a callable `layer -> bool`, which is
            asked about the layers that Keras lists; what is inside one goes with it.
        structure: `"element"`; `"block:RxC"`, blocks of R inputs by C outputs; or `"M:N"`,
            M zeros in every N inputs, such as `"2:4"`.
        scope: `"layer"`, every kernel reaches the target by itself; `"global"`, all weights are
            ranked together; `"erk"`, large kernels lose more than small ones.
        targets: dict from a regex on the layer's name or path to its own sparsity, in [0, 1);
            the first that finds a layer counts. These layers are outside of `final_sparsity`
            and `scope`. 0.0 keeps a layer dense.
        block_pooling_type: `"AVG"` or `"MAX"`, how a block is judged by its weights.
        verbose: 1 prints a line at each update of the masks.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: at construction for values out of range; before the first batch for a filter
            that finds no kernel, a model that is not built, a pattern that does not fit a layer,
            a second pruning callback on the same layers, or a schedule that cannot finish in
            the planned steps; at the first batch for a training that resumes behind the end of
            the schedule without the zeros.

    Example:
        >>> PruneLowMagnitude(0.5, layers="conv").final_sparsity
        0.5

    The history gets `sparsity`, the fraction of zeros in the pruned kernels. When the target was
    not reached at the end, a warning says in which layers.

    A training that resumes (`BackupAndRestore`, `initial_epoch`, or an optimizer that has taken
    steps) keeps the zeros it finds, and the schedule goes on at the step of the first batch.

    Reference:
        Zhu & Gupta, To prune, or not to prune: exploring the efficacy of pruning for model
        compression, arXiv:1710.01878. Masks equal those of TF-MOT 0.8.1.
    """

    def __init__(
        self,
        final_sparsity: float = DEFAULT_SPARSITY,
        *,
        schedule: Any = None,
        layers: LayerFilter = None,
        structure: str = "element",
        scope: str = "layer",
        targets: dict[str, float] | None = None,
        block_pooling_type: str = "AVG",
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self._settings = Settings(
            final_sparsity,
            schedule=schedule,
            layers=layers,
            structure=structure,
            scope=scope,
            targets=targets,
            block_pooling_type=block_pooling_type,
        )
        self.final_sparsity = self._settings.final_sparsity
        self.schedule = self._settings.schedule
        self.layers = layers
        self.structure = structure
        self.scope = scope
        self.targets = targets
        self.block_pooling_type = block_pooling_type
        self.verbose = verbose
        self._pruner: ScheduledPruner | None = None
        self._first: int | None = None
        self._seen = 0

    def begin(self) -> None:
        """Finds the kernels, resolves the schedule and puts the masks in place."""
        pruner = ScheduledPruner(self.model, self._settings, self.timeline, type(self).__name__)
        self._pruner, self._first, self._seen = pruner, None, 0
        pruner.attach()
        self.session.on_release(self, pruner.detach)
        self.session.retrace()

    def before_batch(self, epoch: int, batch: int) -> None:
        """Updates the masks when the schedule says so."""
        if self._first is None:
            self._first = self._resume(epoch, batch)
        steps = self.timeline.steps_per_epoch
        if steps is None:
            step, self._seen = self._first + self._seen, self._seen + 1
        else:
            step = epoch * steps + batch
        self._advance(step)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Logs `sparsity`."""
        pruner = self._running()
        if getattr(self.model.optimizer, "use_ema", False) and pruner.updates:
            pruner.apply()  # `SwapEMAWeights` has put averages there, in which zeros are blurred
        if logs is not None:
            logs["sparsity"] = self.sparsity

    def end(self) -> None:
        """Makes sure of the zeros (averaging optimizers blur them) and checks the target."""
        pruner, total = self._running(), self.timeline.total_steps
        if total is not None and not self.model.stop_training:
            self._advance(total)
            pruner.finish()
        pruner.apply()
        short = pruner.short()
        if short:
            listed = ", ".join(f"{path} ({zeros:.1%})" for path, zeros in short[:5]) + (
                f" and {len(short) - 5} more" if len(short) > 5 else ""
            )
            warnings.warn(
                f"PruneLowMagnitude did not reach its sparsity of {pruner.plan.final:.1%} in "
                f"{listed}. Layers that stay frozen keep their weights; training that stops early "
                "ends the schedule early; a frequency that does not divide the steps of a TF-MOT "
                "schedule leaves its end out.",
                stacklevel=2,
            )

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in the kernels that are pruned, in [0, 1]."""
        return 0.0 if self._pruner is None else self._pruner.sparsity

    def _running(self) -> ScheduledPruner:
        if self._pruner is None:
            raise RuntimeError(
                "`PruneLowMagnitude` must be given to `fit`. Received: no training. "
                "Use ko.pruning.Masks for a training loop of your own."
            )
        return self._pruner

    def _resume(self, epoch: int, batch: int) -> int:
        """Holds the zeros of an interrupted training; returns the step of the first batch."""
        # Only now, for `BackupAndRestore` may load the weights after this callback began.
        pruner, steps = self._running(), self.timeline.steps_per_epoch
        taken = int(tf.convert_to_tensor(self.model.optimizer.iterations))
        if steps is None:
            first = taken if epoch else 0  # epochs of unknown length: what the optimizer counted
        else:
            first = epoch * steps + batch
        end = pruner.plan.end_step
        if end is not None and first > end and pruner.short():
            path, zeros = pruner.short()[0]
            self.session.release(self)
            raise ValueError(
                f"The pruning schedule is already over: it ends at step {end}. Received: training "
                f"that resumes at step {first}, with {zeros:.1%} zeros in {path}. "
                "Let the schedule end later, or start from initial_epoch=0."
            )
        if epoch or taken:
            pruner.go_on()
        return first

    def _advance(self, step: int) -> None:
        pruner = self._running()
        due = pruner.advance(step)
        if due is None:
            return
        end = pruner.plan.end_step
        if pruner.updates == 1:
            self.mark("prune", "pruning begins")
        elif end is not None and step >= end:
            self.mark("prune", f"{due:.0%} sparsity reached")
        if self.verbose:
            print(f"\nPruneLowMagnitude: step {step}, sparsity {due:.3f}")  # noqa: T201
