"""The learning-rate range test: a rate that grows at every step, and the loss that it brings."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._validation import check_int, check_number
from kerasopt.training import TrainingCallback, build_optimizer, settle
from kerasopt.transfer._finder_curve import averages, draw_curve, falls, valley

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MISSING = object()
_TAIL = 5  # fastai leaves out as many points at the end, where the loss explodes


class LearningRateFinder(TrainingCallback):
    """Suggests a learning rate: a short training whose rate grows from tiny to far too large.

    `rate(i) = min_rate · (max_rate / min_rate)^(i / (num_steps − 1))` for the steps `i` from 0.
    The test ends after `num_steps` batches, or earlier when the loss is not finite or its
    average exceeds `stop_factor` times its lowest value.

    As a call, which runs a training of its own, or as a callback of `fit`, which it ends:

        finder = ko.transfer.LearningRateFinder()
        rate = finder.find(model, train).suggestion
        finder.plot()

    Afterwards the model and its optimizer are bit for bit as they were: weights, statistics of
    BatchNormalization, metrics, `stop_training`, the generators of dropout and of Keras' random
    layers, slots, iteration count and learning rate. The test steps with a fresh copy of the
    optimizer, whose slots start empty, so that a schedule as learning rate and an optimizer that
    is not built yet stay what they are. After an exception in `fit` the next use of the model puts
    all back.

    Args:
        min_rate: Float > 0, the rate of the first step.
        max_rate: Float > `min_rate`, the rate of the last step.
        num_steps: Int >= 10, batches of the test. Data that holds fewer is repeated by `find`; a
            `fit` must be planned with as many.
        smoothing: Float in [0, 1), the weight of the past in the exponential moving average of
            the loss, whose start is corrected as in Adam. 0 takes the losses as they are.
        stop_factor: Float > 1, see above.
        verbose: 1 prints the suggestion at the end.

    Raises:
        TypeError: an argument has the wrong type, or `data` cannot be trained on.
        ValueError: a number lies outside its range, the model is not compiled or compiled with a
            `MultiOptimizer`, reports no `loss`, the planned `fit` is too short or has
            `steps_per_execution > 1` (`find` does without).

    Example:
        >>> import numpy as np
        >>> from kerasopt._backend import keras
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.5), "mse")
        >>> x = np.random.default_rng(0).normal(size=(64, 4))
        >>> finder = LearningRateFinder(num_steps=50).find(model, (x, x.sum(1)))
        >>> 0.001 < finder.suggestion < 1.0
        True
        >>> float(model.optimizer.learning_rate)
        0.5

    In a `fit`, put it first in the list of callbacks. Those that drive the learning rate
    themselves have no place beside it; `MixUp`, `LayerwiseLearningRate` and others that change
    the step do, and belong there when the training that follows has them.

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186. The defaults
        and both suggestions are those of fastai 2 (`lr_find`).
    """

    def __init__(
        self,
        *,
        min_rate: float = 1e-7,
        max_rate: float = 10.0,
        num_steps: int = 100,
        smoothing: float = 0.98,
        stop_factor: float = 4.0,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.min_rate = check_number("min_rate", min_rate, low=0.0, low_open=True)
        self.max_rate = check_number("max_rate", max_rate, low=min_rate, low_open=True)
        self.num_steps = check_int("num_steps", num_steps, low=10)
        self.smoothing = check_number("smoothing", smoothing, low=0.0, high=1.0, high_open=True)
        self.stop_factor = check_number("stop_factor", stop_factor, low=1.0, low_open=True)
        self.verbose = verbose
        self._losses: list[float] = []
        self._stopped = False
        self._bench: _Bench | None = None

    @property
    def rates(self) -> np.ndarray:
        """The learning rates of the steps that gave a finite loss, shape `(steps,)`."""
        return self._planned()[: len(self._losses)]

    @property
    def losses(self) -> np.ndarray:
        """The loss of each of these batches, before the step with its rate, shape `(steps,)`."""
        return np.array(self._losses)

    @property
    def smoothed_losses(self) -> np.ndarray:
        """The exponential moving average of `losses`, shape `(steps,)`."""
        return averages(len(self._losses), self.smoothing) @ self.losses

    @property
    def suggestion(self) -> float:
        """The rate to train with: fastai's *valley*.

        The longest run of ever lower losses is found (not all of its points need be neighbours),
        and the rate half-way down is returned. Compared with `steepest` it does not depend on
        two neighbouring points.

        Raises:
            ValueError: there was no test, or the loss did not fall in it beyond its noise.
        """
        rates, losses = self._curve()
        return float(rates[valley(losses)])

    @property
    def steepest(self) -> float:
        """The rate at which the average loss falls fastest against the logarithm of the rate.

        Raises:
            ValueError: as for `suggestion`.
        """
        rates, losses = self._curve()
        return float(rates[np.argmin(np.diff(losses) / np.diff(np.log(rates)))])

    def find(
        self, model: Any, data: Any, *, batch_size: int = 32, callbacks: Sequence[Any] = ()
    ) -> "LearningRateFinder":
        """Runs the test on a compiled model and returns this object.

        Args:
            model: a compiled `keras.Model`; it is left exactly as it was.
            data: an array `x`, a tuple `(x, y)` or `(x, y, sample_weight)`, a batched
                `tf.data.Dataset`, a `keras.utils.PyDataset` or an iterable of batches.
            batch_size: used for arrays.
            callbacks: further callbacks that the training will have, such as `MixUp` or
                `LayerwiseLearningRate`.

        Raises:
            TypeError: `data` is none of these.
            ValueError: the model is not compiled, or the test cannot run on it.
        """
        if not getattr(model, "compiled", False):
            raise ValueError(
                "`model` must be compiled with a loss and an optimizer. "
                f"Received: model={getattr(model, 'name', model)!r}, which is not."
            )
        arguments = _fit_arguments(data, check_int("batch_size", batch_size, low=1))
        settle(model)
        history = vars(model).get("history", _MISSING)
        self._stopped = bool(model.stop_training)
        self._bench = _Bench(model)
        try:
            model.steps_per_execution = 1
            # An epoch has at least one batch, and the test ends the training.
            model.fit(**arguments, epochs=self.num_steps, verbose=0, callbacks=[self, *callbacks])
        finally:
            settle(model)
            self._restore()
            vars(model).pop("history", None)
            if history is not _MISSING:
                model.history = history
        return self

    def plot(self) -> "Figure":
        """Draws the losses over the rates, with what is suggested.

        Returns:
            A `matplotlib.figure.Figure`: a notebook shows it, `figure.savefig` writes it.

        Raises:
            ValueError: there was no test yet.
        """
        self._check_run()
        try:
            suggestions = {"valley (suggestion)": self.suggestion, "steepest": self.steepest}
        except ValueError:  # a curve that does not fall is worth seeing all the more
            suggestions = {}
        return draw_curve(self.rates, self.losses, self.smoothed_losses, suggestions)

    def prepare(self) -> None:
        """Notes `stop_training`, which `fit` is about to reset."""
        if self._bench is None:
            self._stopped = bool(self.model.stop_training)

    def begin(self) -> None:
        """Checks the plan, keeps all that the test will change, and takes a fresh optimizer."""
        if self.model.steps_per_execution > 1:
            raise ValueError(
                "`steps_per_execution` must be 1, for each step has a rate and a loss of its own. "
                f"Received: steps_per_execution={self.model.steps_per_execution}. "
                "Compile with 1, or call `finder.find(model, data)`, which does without."
            )
        planned = self.timeline.total_steps
        if planned is not None and planned < self.num_steps:
            epochs = -(-self.num_steps // (self.timeline.steps_per_epoch or 1))
            raise ValueError(
                f"`num_steps` must be at most the {planned} steps of the planned training. "
                f"Received: num_steps={self.num_steps}. Plan epochs={epochs} (the test ends "
                "the training by itself), or call `finder.find(model, data)`."
            )
        if self._bench is None:
            self._bench = _Bench(self.model)
        self._bench.keep()
        self._losses = []
        self.session.on_release(self, self._restore)
        # Calling the model after an exception puts all back as well, for there is this hook.
        self.session.hook(self, "call", self._keeping, order=0)
        if self.model.built:
            build_optimizer(self.model, self.model.trainable_variables)
        self.session.retrace()
        self.mark("other", "learning-rate range test")

    def before_batch(self, epoch: int, batch: int) -> None:  # noqa: ARG002
        """Sets the rate of the step."""
        step = min(len(self._losses), self.num_steps - 1)
        self.model.optimizer.learning_rate = float(self._planned()[step])
        # Keras reports the mean over the epoch; with nothing before it, that is the batch's loss.
        self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Notes the loss, and ends the training when there is no more to learn."""
        if not logs or "loss" not in logs:
            raise ValueError(
                "`model` must report its `loss` at every batch, as Keras' own train step does. "
                f"Received: {sorted(logs or {})}. Return it from your `train_step`."
            )
        loss = float(logs["loss"])
        if not np.isfinite(loss):
            self.model.stop_training = True
            return
        self._losses.append(loss)
        average = self.smoothed_losses
        lowest = average.min()
        # As fastai's rule, and of use for losses below 0 too.
        exploded = average[-1] - lowest > (self.stop_factor - 1.0) * abs(lowest)
        if exploded or len(self._losses) == self.num_steps:
            self.model.stop_training = True

    def end(self) -> None:
        """Prints the suggestion, if asked for."""
        if self.verbose:
            try:
                text = f"{self.suggestion:.2g} (steepest: {self.steepest:.2g})"
            except ValueError as error:
                text = f"none. {error}"
            print(f"\nLearningRateFinder: {text}")  # noqa: T201

    def _keeping(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Keeps the first values of a model that is built by its first batch."""

        def kept(*args: Any, **kwargs: Any) -> Any:
            self._keep()  # what `__call__` has just built
            outputs = call(*args, **kwargs)
            self._keep()  # what `call` has built; a trace has changed nothing yet
            return outputs

        return kept

    def _keep(self) -> None:
        if self._bench is not None:
            with tf.init_scope():
                self._bench.keep()

    def _restore(self) -> None:
        if self._bench is not None:
            self._bench.restore()
            self.model.stop_training = self._stopped
            self._bench = None

    def _planned(self) -> np.ndarray:
        return np.geomspace(self.min_rate, self.max_rate, self.num_steps)

    def _check_run(self) -> None:
        if not self._losses:
            raise ValueError(
                "A learning-rate test must have run, with a finite loss. Received: no losses. "
                "Call `finder.find(model, data)`, and check that the loss of your model is finite."
            )

    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns rates and average losses without both ends, if there is something to find."""
        self._check_run()
        first, last = self.num_steps // 10, len(self._losses) - _TAIL
        average = self.smoothed_losses
        if last - first < 3 or not falls(self.losses):
            low, high = average.min(), average.max()
            raise ValueError(
                "The loss must fall in the test, by more than its noise, for a suggestion. "
                f"Received: an average loss of {low:.4g} to {high:.4g} in {len(average)} steps, "
                f"at rates up to {self.rates[-1]:.2g}. Does anything train? Look at "
                "`finder.plot()`, and try more steps, larger batches or another range of rates."
            )
        return self.rates[first:last], average[first:last]


class _Bench:
    """All that a range test changes on a model, and the way back."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._optimizer = model.optimizer
        self._steps_per_execution = model.steps_per_execution
        self._kept: dict[int, tuple[Any, Any]] = {}
        self.keep()
        with model.distribute_strategy.scope():
            model.optimizer = _fresh(model.optimizer)

    def keep(self) -> None:
        """Copies the values of all variables, of those that were made since the last time too."""
        for variable in [*self._model.variables, *self._model.metrics_variables]:
            if id(variable) not in self._kept:
                value = keras.ops.convert_to_numpy(variable)
                if value.shape == tuple(variable.shape):  # else it has no value yet
                    self._kept[id(variable)] = variable, value

    def restore(self) -> None:
        """Puts back values, optimizer and settings."""
        self._model.optimizer = self._optimizer
        self._model.steps_per_execution = self._steps_per_execution
        self._model.reset_metrics()  # those that the first batch has built begin so
        for variable, value in self._kept.values():
            variable.assign(value)


def _fresh(optimizer: Any) -> Any:
    """Returns an optimizer like the given one, unbuilt, with a learning rate that can be set."""
    if hasattr(optimizer, "optimizers"):
        raise ValueError(
            "`optimizer` must be one with one learning rate, which a MultiOptimizer has not. "
            f"Received: optimizer={optimizer.name!r}. Compile with one optimizer and give groups "
            "of layers their rates with ko.transfer.LayerwiseLearningRate."
        )
    config = optimizer.get_config()
    if hasattr(optimizer, "inner_optimizer"):
        return type(optimizer)(**{**config, "inner_optimizer": _fresh(optimizer.inner_optimizer)})
    return type(optimizer).from_config({**config, "learning_rate": 1.0})


def _fit_arguments(data: Any, batch_size: int) -> dict[str, Any]:
    if isinstance(data, tf.data.Dataset):
        return {"x": data, "shuffle": False}  # Keras warns of its own default
    if isinstance(data, keras.utils.PyDataset):
        return {"x": data}
    if isinstance(data, np.ndarray) or tf.is_tensor(data):
        return {"x": data, "batch_size": batch_size}
    if isinstance(data, tuple) and len(data) in (2, 3) and not isinstance(data[0], tuple):
        names = ("x", "y", "sample_weight")
        return {**dict(zip(names, data, strict=False)), "batch_size": batch_size}
    if hasattr(data, "__iter__") and not isinstance(data, str | bytes | dict):
        return {"x": _again_and_again(data), "shuffle": False}
    raise TypeError(
        "`data` must be an array, a tuple (x, y), a tf.data.Dataset, a PyDataset or an iterable "
        f"of batches. Received: data of type {type(data).__name__}."
    )


def _again_and_again(batches: Any) -> Any:
    seen = []
    for batch in batches:
        seen.append(tuple(batch) if isinstance(batch, list) else batch)
        yield seen[-1]
    while seen:
        yield from seen
