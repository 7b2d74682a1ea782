"""A learning-rate schedule that needs no step counts: warm-up and cosine over the whole `fit`."""

import math

from kerasopt._validation import check_number
from kerasopt.training import TrainingCallback


class WarmupCosine(TrainingCallback):
    """Drives the learning rate through `fit`: linear warm-up, then a cosine down to `final`.

    With `p` the fraction of training that is done and `w = warmup`:

        p <  w:  rate = peak * (p + one step) / w
        p >= w:  rate = final + (peak - final) * (1 + cos(pi * (p - w) / (1 - w))) / 2

    The same curve as `keras.optimizers.schedules.CosineDecay`, stated in fractions of training, so
    that it fits any number of epochs and any data. It sets the one learning rate of the optimizer
    before each batch; `LayerwiseLearningRate` multiplies it per layer. When the length of the data
    is unknown, the rate changes from epoch to epoch.

    Args:
        peak: highest learning rate, > 0; None for the optimizer's own when `fit` begins.
        warmup: fraction of training until the peak, in [0, 1).
        final: last learning rate as a fraction of the peak, in [0, 1].

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, or, when `fit` begins, the optimizer's learning
            rate is a schedule of its own and cannot be set.

    Example:
        >>> callback = WarmupCosine(2e-3, warmup=0.1)
        >>> [round(callback.rate(p, 2e-3), 6) for p in (0.05, 0.1, 0.55, 1.0)]
        [0.001, 0.002, 0.00101, 2e-05]

    Reference:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts,
        arXiv:1608.03983 (the cosine, without restarts).
    """

    def __init__(
        self, peak: float | None = None, *, warmup: float = 0.1, final: float = 0.01
    ) -> None:
        super().__init__()
        if peak is not None:
            check_number("peak", peak, low=0.0, low_open=True)
        self.peak = peak
        self.warmup = check_number("warmup", warmup, low=0.0, high=1.0, high_open=True)
        self.final = check_number("final", final, low=0.0, high=1.0)
        self._top = 0.0

    def rate(self, fraction: float, peak: float) -> float:
        """Returns the learning rate at a fraction of training in [0, 1]."""
        if fraction < self.warmup:
            return peak * fraction / self.warmup
        progress = (min(fraction, 1.0) - self.warmup) / (1.0 - self.warmup)
        cosine = (1.0 + math.cos(math.pi * progress)) / 2.0
        return peak * (self.final + (1.0 - self.final) * cosine)

    def begin(self) -> None:
        """Checks that the optimizer's learning rate can be set."""
        optimizer = self.model.optimizer
        now = float(optimizer.learning_rate)
        try:
            optimizer.learning_rate = now
        except TypeError as error:
            raise ValueError(
                "`WarmupCosine` must drive the learning rate, and the optimizer has a schedule of "
                f"its own. Received: optimizer={optimizer.name!r}. Compile with a number, or "
                "leave this callback out."
            ) from error
        self._top = now if self.peak is None else self.peak

    def before_batch(self, epoch: int, batch: int) -> None:
        """Sets the learning rate of the batch."""
        steps = self.timeline.steps_per_epoch
        # The end of the first step, so that it has a rate above zero.
        ahead = 1.0 / steps if steps else 1.0
        position = self.timeline.position(epoch, batch)
        fraction = position / self.timeline.epochs
        if fraction >= self.warmup and not self.events:
            self.mark("other", f"learning rate peaks at {self._top:g}")
        if fraction < self.warmup:
            fraction = min((position + ahead) / self.timeline.epochs, self.warmup)
        self.model.optimizer.learning_rate = self.rate(fraction, self._top)
