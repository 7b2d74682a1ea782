"""`PruneLowMagnitude`: masks as constraints, applied by the optimizer inside the compiled step."""

import math
import warnings
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._layer_filter import LayerFilter, select_layers, walk_layers
from kerasopt._validation import check_choice, check_number
from kerasopt.pruning._masks import MaskConstraint, magnitude_mask
from kerasopt.pruning._schedules import (
    FractionSchedule,
    check_finishes,
    check_schedule,
    final_sparsity_of,
)
from kerasopt.training import TrainingCallback

_KERNELS: dict[Any, tuple[str, ...]] = {
    keras.layers.Dense: ("kernel",),
    keras.layers.EinsumDense: ("kernel",),
    keras.layers.Conv1D: ("kernel",),
    keras.layers.Conv2D: ("kernel",),
    keras.layers.Conv3D: ("kernel",),
    keras.layers.Conv1DTranspose: ("kernel",),
    keras.layers.Conv2DTranspose: ("kernel",),
    keras.layers.Conv3DTranspose: ("kernel",),
    keras.layers.DepthwiseConv1D: ("kernel",),
    keras.layers.DepthwiseConv2D: ("kernel",),
    keras.layers.SeparableConv1D: ("depthwise_kernel", "pointwise_kernel"),
    keras.layers.SeparableConv2D: ("depthwise_kernel", "pointwise_kernel"),
    keras.layers.Embedding: ("embeddings",),
}


class PruneLowMagnitude(TrainingCallback):
    """Sets the weights of smallest magnitude to zero while the model trains, layer by layer.

    The mask becomes the kernel's `constraint`, which the optimizer applies inside the compiled
    step. The model stays an ordinary model: nothing is wrapped and nothing has to be stripped,
    and it can be saved at any time. Constraints of the user's own are applied first and given
    back after `fit`.

    Kernels of frozen layers are left as they are, bit for bit; they get their zeros with their
    first step after unfreezing.

    Args:
        final_sparsity: fraction of each kernel that is zero in the end, in [0, 1). Default 0.8.
            With a TF-MOT schedule the schedule's own target counts.
        schedule: a `ko.pruning.FractionSchedule` (default: from the start of training to three
            quarters of it) or a schedule of `tfmot.sparsity.keras`, whose steps are counted from
            the first batch of this `fit`.
        layers: which layers to prune: `None` for every layer with a kernel except depthwise
            convolutions (they hold few weights and lose most, and TF-MOT leaves them too), a
            regex on the name or path, a list of them, or a callable `layer -> bool`.
        structure: `"element"`.
        scope: `"layer"`, every kernel reaches the target by itself.
        verbose: 1 prints a line at each update of the masks.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: at construction for values out of range, before the first batch for a filter
            that finds no kernel, a model that is not built, or a schedule that cannot finish in
            the planned steps.

    Example:
        >>> PruneLowMagnitude(0.5, layers="conv").final_sparsity
        0.5

    The history gets `sparsity`, the fraction of zeros in the pruned kernels. When the target was
    not reached at the end, a warning says in which layers.

    Reference:
        Zhu & Gupta, To prune, or not to prune: exploring the efficacy of pruning for model
        compression, arXiv:1710.01878. Masks equal those of TF-MOT 0.8.1.
    """

    def __init__(
        self,
        final_sparsity: float = 0.8,
        *,
        schedule: Any = None,
        layers: LayerFilter = None,
        structure: str = "element",
        scope: str = "layer",
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.final_sparsity = check_number(
            "final_sparsity", final_sparsity, low=0.0, high=1.0, high_open=True
        )
        check_choice("structure", structure, ("element",))
        check_choice("scope", scope, ("layer",))
        self.schedule = check_schedule(schedule)
        self.layers = layers
        self.structure = structure
        self.scope = scope
        self.verbose = verbose
        self._kernels: list[tuple[str, Any, Any]] = []
        self._resolved: Any = None
        self._step = -1
        self._started = False

    def begin(self) -> None:
        """Finds the kernels, resolves the schedule and puts the masks in place."""
        found = _find_kernels(self.model, self.layers)
        if isinstance(self.schedule, FractionSchedule):
            self._resolved = self.schedule.resolve(self.final_sparsity, self.timeline)
        else:
            check_finishes(self.schedule, self.timeline)
            self._resolved = self.schedule
        self._kernels = []
        for path, kernel in found:
            mask = tf.Variable(tf.ones(kernel.shape, kernel.dtype), trainable=False)
            self._kernels.append((path, kernel, mask))
            self.session.on_release(self, _restorer(kernel, kernel.constraint))
            kernel.constraint = MaskConstraint(mask, kernel.constraint)
        self._update = tf.function(self._compute_masks)
        self._step, self._started = -1, False
        self.session.retrace()

    def before_batch(self, epoch: int, batch: int) -> None:
        """Updates the masks when the schedule says so."""
        steps = self.timeline.steps_per_epoch
        self._catch_up(self._step + 1 if steps is None else epoch * steps + batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Logs `sparsity`."""
        if logs is not None:
            logs["sparsity"] = self.sparsity

    def end(self) -> None:
        """Makes sure of the zeros (averaging optimizers blur them) and checks the target."""
        total = self.timeline.total_steps
        if total is not None and not self.model.stop_training:
            self._catch_up(total - 1)
        self._apply()
        target = final_sparsity_of(self._resolved)
        if target is None:
            return
        short = []
        for path, kernel, _ in self._kernels:
            zeros = _count_zeros(kernel)
            if zeros < math.floor(math.prod(kernel.shape) * target):
                short.append(f"{path} ({zeros / math.prod(kernel.shape):.1%})")
        if short:
            listed = ", ".join(short[:5]) + (
                f" and {len(short) - 5} more" if len(short) > 5 else ""
            )
            warnings.warn(
                f"PruneLowMagnitude did not reach its sparsity of {target:.1%} in {listed}. Layers "
                "that stay frozen keep their weights; training that stops early ends the "
                "schedule early.",
                stacklevel=2,
            )

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in the kernels that are pruned, in [0, 1]."""
        size = sum(math.prod(kernel.shape) for _, kernel, _ in self._kernels)
        return sum(_count_zeros(kernel) for _, kernel, _ in self._kernels) / max(1, size)

    def _catch_up(self, step: int) -> None:
        due = None
        for passed in range(self._step + 1, step + 1):
            should_prune, sparsity = self._resolved(tf.constant(passed, tf.int64))
            if bool(should_prune):
                due = float(sparsity)
        self._step = max(self._step, step)
        if due is None:
            return
        self._update(tf.constant(due, tf.float32))
        self._apply()
        if not self._started:
            self.mark("prune", "pruning begins")
        elif step >= getattr(self._resolved, "end_step", math.inf) >= 0:
            self.mark("prune", f"{due:.0%} sparsity reached")
        self._started = True
        if self.verbose:
            print(f"\nPruneLowMagnitude: step {step}, sparsity {due:.3f}")  # noqa: T201

    def _compute_masks(self, sparsity: Any) -> None:
        for _, kernel, mask in self._kernels:
            mask.assign(magnitude_mask(tf.convert_to_tensor(kernel), sparsity))

    def _apply(self) -> None:
        for _, kernel, mask in self._kernels:
            if kernel.trainable:
                kernel.assign(kernel * tf.convert_to_tensor(mask))


def _find_kernels(model: Any, chosen: LayerFilter) -> list[tuple[str, Any]]:
    if not model.built:
        raise ValueError(
            "`PruneLowMagnitude` needs a model that is built. Received: built=False. "
            "Call it on a batch first, or give it an Input."
        )
    depthwise = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
    able = [(path, layer) for path, layer in walk_layers(model) if _kernel_names(layer)]
    if chosen is None:
        able = [(path, layer) for path, layer in able if not isinstance(_inner(layer), depthwise)]
    kernels = [
        (path, getattr(_inner(layer), name))
        for path, layer in select_layers(able, chosen)
        for name in _kernel_names(layer)
    ]
    if not kernels:
        raise ValueError(
            "`PruneLowMagnitude` needs a layer with a kernel (Dense, convolutions, Embedding). "
            f"Received: model {model.name!r} without any."
        )
    return kernels


def _inner(layer: Any) -> Any:
    """Returns the layer inside a wrapper such as the one of quantization-aware training."""
    return _inner(layer.layer) if isinstance(layer, keras.layers.Wrapper) else layer


def _kernel_names(layer: Any) -> tuple[str, ...]:
    inner = _inner(layer)
    for kind in type(inner).__mro__:
        if kind in _KERNELS:
            return _KERNELS[kind]
    return ()


def _restorer(kernel: Any, constraint: Any) -> Any:
    def restore() -> None:
        kernel.constraint = constraint

    return restore


def _count_zeros(kernel: Any) -> int:
    return int(np.sum(keras.ops.convert_to_numpy(kernel) == 0))
