"""The base of every callback that changes a model during `fit`."""

from typing import Any

from kerasopt._backend import keras
from kerasopt._events import Event
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

    def begin(self) -> None:
        """Called once before the first batch: validate first, then change."""

    def before_batch(self, epoch: int, batch: int) -> None:
        """Called before every batch with the epoch and the batch in it, both from 0."""

    def end(self) -> None:
        """Called once after the last batch."""

    def mark(self, kind: str, label: str) -> None:
        """Notes an event at the present position."""
        self.events.append(Event(self.timeline.position(self._epoch, self._batch), kind, label))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Opens the session and calls `begin`."""
        self.events = []
        self._epoch = self._batch = 0
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
        self.before_batch(self._epoch, batch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Calls `end` and takes this callback's changes off the model."""
        try:
            self.end()
        finally:
            self.session.release(self)
