"""The base of every callback that changes a model during `fit`."""

from typing import Any

from kerasopt._backend import keras
from kerasopt._events import Event
from kerasopt.training._optimizer import count_steps
from kerasopt.training._session import Session, session
from kerasopt.training._timeline import Timeline


class TrainingCallback(keras.callbacks.Callback):
    """Base class: a session, a timeline, and a call before every batch.

    A subclass overrides `begin`, `before_batch` and `end`; what it changes goes through
    `self.session`, so that it comes off again also after an exception.

    Attributes:
        events: list of `ko.report.Event`, what happened in the last `fit` and when.
    """

    session: Session
    timeline: Timeline

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self._epoch = 0
        self._batch = 0
        self._steps_before = 0
        self._restored: float | None = None

    def prepare(self) -> None:
        """Called when `fit` names the model, before any callback restores a checkpoint into it.

        What decides which variables a checkpoint holds belongs here. Also called by `evaluate` and
        `predict`, and not paired with `end`.
        """

    def begin(self) -> None:
        """Called once before the first batch: validate first, then change."""

    def before_batch(self, epoch: int, batch: int) -> None:
        """Called before every batch with the epoch and the batch in it, both from 0."""

    def end(self) -> None:
        """Called once after the last batch."""

    def mark(self, kind: str, label: str) -> None:
        """Notes an event at the present position."""
        self.events.append(Event(self.timeline.position(self._epoch, self._batch), kind, label))

    def reached(self, position: float) -> bool:
        """Tells whether the batch about to run lies at or behind a position in epochs.

        A run that was restored in the middle of an epoch begins that epoch again; what was reached
        before it was interrupted counts as reached.
        """
        return position <= self.restored or self.timeline.reached(
            position, self._epoch, self._batch
        )

    @property
    def restored(self) -> float:
        """How far a checkpoint that was restored when `fit` began had come, in epochs; else 0."""
        return self._restored or 0.0

    def optimizer_step(self, position: float) -> int:
        """Returns the count of the optimizer's batches at a position in epochs, now at the latest.

        Without a known length of the data the present count stands for any position.
        """
        now = count_steps(self.model.optimizer)
        step = self.timeline.step_of(position)
        return now if step is None else max(0, min(now, self._steps_before + step))

    def set_model(self, model: Any) -> None:
        """Remembers the model, and calls `prepare`."""
        super().set_model(model)
        if getattr(model, "optimizer", None) is not None:
            self._steps_before = count_steps(model.optimizer)
            self.prepare()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Opens the session and calls `begin`."""
        self.events = []
        self._epoch = self._batch = 0
        self._restored = None
        self.timeline = Timeline(self.params["epochs"], self.params.get("steps"))
        self.session = session(self.model)
        self.session.acquire(self)
        try:
            self.begin()
        except BaseException:
            self.session.release(self)
            raise

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Calls `before_batch`."""
        self._batch = batch
        if self._restored is None:
            self._measure_restored()
        self.before_batch(self._epoch, batch)

    def _measure_restored(self) -> None:
        # Another callback may have loaded a checkpoint since `fit` named the model.
        steps = count_steps(self.model.optimizer) - self._steps_before
        per_epoch = self.timeline.steps_per_epoch
        if steps > 0:
            self._restored = float(self._epoch) if per_epoch is None else steps / per_epoch
        else:
            self._restored = 0.0
            # A model that comes with its optimizer's state, and `initial_epoch`.
            self._steps_before -= self._epoch * (per_epoch or 0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Calls `end` and takes this callback's changes off the model."""
        try:
            self.end()
        finally:
            self.session.release(self)
