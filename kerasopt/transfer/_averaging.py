"""Averages of the weights over the end of training."""

from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._validation import check_choice, check_number
from kerasopt.training import Moment, TrainingCallback, check_moment, count_steps
from kerasopt.transfer._recalibrate import recalibrate_batch_norm

KINDS = ("ema", "swa")


class WeightAveraging(TrainingCallback):
    """Averages the weights over the end of training, validates and ends with the average.

    From `start` on:

        "ema", after each batch:  average = momentum * average + (1 - momentum) * weights
        "swa", after each epoch:  average = (n * average + weights) / (n + 1)

    Training goes on with the weights themselves. Validation, and whatever the callbacks behind
    this one do at the end of an epoch (`ModelCheckpoint`), see the average; so does the model
    after `fit`. Statistics of BatchNormalization are averaged along; with `"swa"` they are better
    measured anew, which `recalibrate` does at the end.

    Keras has an average of its own, `use_ema=True` of the optimizer with `SwapEMAWeights`. It runs
    from the first step on, knows no SWA, leaves statistics alone and cannot follow layers that are
    unfrozen later. Weights that pruning holds at zero are zero in the average as well.

    Args:
        kind: `"ema"` or `"swa"`.
        start: moment from which on it averages; a float is a fraction of training, an int an
            epoch.
        momentum: share of the old average kept after each batch, in [0, 1); `"ema"` only.
        recalibrate: data (as for `recalibrate_batch_norm`) on which the statistics are measured
            for the final average; None to keep their averages.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, or the moment lies outside training.

    Example:
        >>> averaging = WeightAveraging("swa", start=0.75)
        >>> averaging.kind
        'swa'

    A run that `BackupAndRestore` goes on with begins a new average.

    Reference:
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
        arXiv:1803.05407; Polyak & Juditsky, Acceleration of stochastic approximation by
        averaging, 1992.
    """

    def __init__(
        self,
        kind: str = "ema",
        *,
        start: Moment = 0.75,
        momentum: float = 0.98,
        recalibrate: Any = None,
    ) -> None:
        super().__init__()
        check_choice("kind", kind, KINDS)
        check_moment("start", start)
        self.kind = kind
        self.momentum = check_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
        self._start = start
        self._data = recalibrate
        self._average: _Average | None = None
        self._count = self._steps = 0
        self._swapped = False

    def begin(self) -> None:
        """Resolves the moment."""
        self._position = self.timeline.resolve(self._start, name="start")
        if self._position >= self.timeline.epochs:
            raise ValueError(
                "`start` must lie before the end of training, or there is nothing to average. "
                f"Received: start={self._start}, epochs={self.timeline.epochs}."
            )
        self._average, self._count, self._swapped = None, 0, False
        self.session.on_release(self, self._swap_back)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights that train back."""
        super().on_epoch_begin(epoch, logs)
        self._swap_back()

    def before_batch(self, epoch: int, batch: int) -> None:  # noqa: ARG002
        """Begins the average when its moment has come."""
        if self._average is None and self.reached(self._position):
            self._average = _Average(self.model)
            self._steps = count_steps(self.model.optimizer)
            self.mark("average", f"{self.kind.upper()} begins")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Moves the average; several steps of one execution count as many."""
        if self._average is None or self.kind != "ema":
            return
        steps = count_steps(self.model.optimizer)
        self._average.move(self.momentum ** max(1, steps - self._steps))
        self._steps = steps
        self._count += 1

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Validation sees the average, with this epoch in it."""
        self._finish_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """So do the callbacks behind this one."""
        self._finish_epoch()

    def end(self) -> None:
        """Leaves the average in the model."""
        self._finish_epoch()
        if self._average is None or not self._count:
            return
        self._swapped = False  # for good
        self._average = None
        if self._data is not None:
            recalibrate_batch_norm(self.model, self._data)

    def _finish_epoch(self) -> None:
        if self._average is None or self._swapped:
            return
        if self.kind == "swa":
            self._average.move(self._count / (self._count + 1))
            self._count += 1
        if self._count:
            self._average.swap()
            self._swapped = True

    def _swap_back(self) -> None:
        if self._swapped and self._average is not None:
            self._average.swap_back()
        self._swapped = False


class _Average:
    """A second set of weights beside a model's own."""

    def __init__(self, model: Any) -> None:
        self._weights = [w for w in model.weights if keras.backend.is_float_dtype(w.dtype)]
        with model.distribute_strategy.scope():
            self._average = [keras.Variable(w, trainable=False) for w in self._weights]
            self._kept = [keras.Variable(w, trainable=False) for w in self._weights]
        self._move = tf.function(self._move_all)

    def move(self, momentum: float) -> None:
        """Moves the average towards the weights."""
        self._move(tf.constant(momentum, "float32"))

    def _move_all(self, momentum: Any) -> None:
        for average, weight in zip(self._average, self._weights, strict=True):
            # In this form a frozen weight, equal to its average, stays so bit for bit.
            step = keras.ops.cast(1.0 - momentum, average.dtype)
            average.assign(average + step * (weight - average))

    def swap(self) -> None:
        """Puts the average into the model; what pruning holds at zero stays zero."""
        for weight, average, kept in zip(self._weights, self._average, self._kept, strict=True):
            kept.assign(weight)
            weight.assign(keras.ops.where(weight == 0, weight, average))

    def swap_back(self) -> None:
        """Puts the weights back that were there before."""
        for weight, kept in zip(self._weights, self._kept, strict=True):
            weight.assign(kept)
