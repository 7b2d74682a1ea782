"""Masks outside of a callback: for training loops of one's own, and for going on from zeros."""

from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._layer_filter import LayerFilter
from kerasopt._validation import check_int
from kerasopt.pruning._kernels import find_kernels
from kerasopt.pruning._pruner import DEFAULT_SPARSITY, Pruner, ScheduledPruner, Settings
from kerasopt.training import Timeline, settle


class KeptMasks:
    """Masks that are on a model until `release()`; made by `keep_masks`.

    A context manager: `with keep_masks(model): model.fit(...)` takes them off at the end, and so
    does `release()`. They are constraints of the variables, which no file holds: a saved model is
    an ordinary one, also while they are on.

    Args:
        model: a built `keras.Model`.
        pruner: what holds the masks.
    """

    def __init__(self, model: Any, pruner: Pruner) -> None:
        self._model = model
        self._pruner = pruner
        pruner.attach()
        _retrace(model)

    @property
    def paths(self) -> tuple[str, ...]:
        """The kernels, by the names of the layers around them."""
        return tuple(kernel.path for kernel in self._pruner.kernels)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in these kernels, in [0, 1]."""
        return self._pruner.sparsity

    def apply(self) -> None:
        """Sets the weights to zero where the masks say so.

        A Keras optimizer does so after each of its steps; this is for weights that were changed
        in another way.
        """
        self._pruner.apply()

    def release(self) -> None:
        """Takes the masks off and gives the user's constraints back. The zeros stay."""
        self._pruner.detach()
        _retrace(self._model)

    def __enter__(self) -> "KeptMasks":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Masks(KeptMasks):
    """Magnitude pruning for a training loop of one's own: `PruneLowMagnitude` without `fit`.

    Make it before the step is traced, call `update(step)` before each step, outside of any
    `tf.function`. The zeros hold because a Keras optimizer applies the masks at the end of
    `optimizer.apply`; call `apply()` where weights change in another way.

    Args:
        model: a built `keras.Model`.
        final_sparsity: fraction of the weights that is zero in the end, in [0, 1). Default 0.8.
        total_steps: how many steps the training will have; needed by schedules in fractions of
            training (the default).
        schedule: as for `PruneLowMagnitude`.
        layers: as for `PruneLowMagnitude`.
        structure: `"element"`, `"block:RxC"` or `"M:N"`.
        scope: `"layer"`, `"global"` or `"erk"`.
        targets: dict from a regex to the sparsity of the layers it finds.
        block_pooling_type: `"AVG"` or `"MAX"`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: values out of range, no kernel, a model that is not built, layers that are
            pruned already, or a schedule that cannot finish.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> masks = Masks(model, 0.5, total_steps=100)
        >>> masks.update(75)
        0.5
        >>> masks.sparsity
        0.5
        >>> masks.release()
    """

    def __init__(
        self,
        model: Any,
        final_sparsity: float = DEFAULT_SPARSITY,
        *,
        total_steps: int | None = None,
        schedule: Any = None,
        layers: LayerFilter = None,
        structure: str = "element",
        scope: str = "layer",
        targets: dict[str, float] | None = None,
        block_pooling_type: str = "AVG",
    ) -> None:
        settings = Settings(
            final_sparsity,
            schedule=schedule,
            layers=layers,
            structure=structure,
            scope=scope,
            targets=targets,
            block_pooling_type=block_pooling_type,
        )
        if total_steps is not None:
            check_int("total_steps", total_steps, low=1)
        if isinstance(model, keras.Model):
            settle(model)
        self._scheduled = ScheduledPruner(model, settings, Timeline(1, total_steps), "Masks")
        super().__init__(model, self._scheduled)

    def update(self, step: int) -> float | None:
        """Brings the masks to a step, if the schedule has an update up to there.

        The first call may name any step: a training that goes on keeps the zeros that its kernels
        already have.

        Args:
            step: steps taken so far; 0 before the first one.

        Returns:
            The sparsity that the schedule asks for when the masks changed, else `None`.

        Raises:
            TypeError: `step` is not an integer.
            ValueError: `step` is negative.
            RuntimeError: it is called inside a `tf.function`.
        """
        if not tf.executing_eagerly():
            raise RuntimeError(
                "`Masks.update` must be called between steps. Received: a call inside a "
                "tf.function, where it would run once, at tracing. Call it before the function."
            )
        check_int("step", step, low=0)
        if step and self._scheduled.untouched:
            self._scheduled.go_on()
        return self._scheduled.advance(step)


def keep_masks(model: Any, *, layers: LayerFilter = None) -> KeptMasks:
    """Keeps the zeros that the kernels of a model have, in every training until released.

    For going on with a pruned model (a second `fit`, a loaded file, fine-tuning), without pruning
    further. A kernel without zeros, or of nothing but zeros, trains as ever.

    Args:
        model: a built `keras.Model`.
        layers: which layers: `None` for all with a kernel, a regex, a list of them, or a callable.

    Returns:
        `KeptMasks`; `release()` ends it, or use it in a `with` statement.

    Raises:
        TypeError: `model` is no Keras model, or the filter is of a wrong type.
        ValueError: the model is not built, no layer is chosen, no kernel has zeros, or something
            prunes these layers already.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> _ = model.layers[0].kernel.assign([[1.0], [0.0], [2.0], [0.0]])
        >>> with keep_masks(model) as masks:
        ...     print(masks.sparsity)
        0.5
    """
    if isinstance(model, keras.Model):
        settle(model)
    found = find_kernels(model, ".*" if layers is None else layers, who="keep_masks")
    kernels = [kernel for kernel in found if 0 < kernel.zeros() < kernel.size]
    if not kernels:
        raise ValueError(
            "`keep_masks` needs a model with zeros in its kernels. Received: model "
            f"{model.name!r} without any. Prune it first with ko.pruning.PruneLowMagnitude."
        )
    pruner = Pruner(model, kernels, "keep_masks")
    pruner.hold()
    return KeptMasks(model, pruner)


def _retrace(model: Any) -> None:
    # The constraints are read when the step is traced.
    if model.compiled:
        model.make_train_function(force=True)
