"""Step times of several trainings that take turns batch by batch, so that noise hits all alike."""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any


class Turns:
    """Lets several trainings run one batch after the other, each in a thread of its own."""

    def __init__(self, count: int) -> None:
        self._turn, self._count = 0, count
        self._active = set(range(count))
        self._changed = threading.Condition()

    def wait(self, index: int) -> None:
        """Returns when it is this training's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == index)

    def next(self, *, leaving: int | None = None) -> None:
        """Passes the turn on."""
        with self._changed:
            self._active.discard(-1 if leaving is None else leaving)
            for _ in range(self._count):
                self._turn = (self._turn + 1) % self._count
                if self._turn in self._active:
                    break
            self._changed.notify_all()


def stopwatch(base: Any, turns: Turns, index: int, times: list[float]) -> tuple[Any, Any]:
    """Returns a callback that opens a batch, before all others, and one that closes it."""

    class Open(base):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            turns.wait(index)
            times.append(-time.perf_counter())

    class Close(base):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            float(logs["loss"])
            times[-1] += time.perf_counter()
            turns.next()

    return Open(), Close()


@dataclasses.dataclass
class Training:
    """One `fit`.

    Attributes:
        base: the callback class of the library that trains, Keras 3 or tf_keras.
        model: a compiled model.
        arguments: of `fit`, without callbacks.
        callbacks: those that are measured with the step.
    """

    base: Any
    model: Any
    arguments: dict[str, Any]
    callbacks: list[Any]


def fit_in_turns(make: Sequence[Callable[[], Training]]) -> list[list[float]]:
    """Runs real `fit` calls side by side and returns the seconds of each batch, for each."""
    turns = Turns(len(make))
    times: list[list[float]] = [[] for _ in make]
    failures: list[BaseException] = []

    def train(index: int) -> None:
        try:
            turns.wait(index)
            training = make[index]()
            turns.next()
            opened, closed = stopwatch(training.base, turns, index, times[index])
            callbacks = [opened, *training.callbacks, closed]
            training.model.fit(**training.arguments, verbose=0, callbacks=callbacks)
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            turns.next(leaving=index)

    threads = [threading.Thread(target=train, args=(i,), daemon=True) for i in range(len(make))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return times
