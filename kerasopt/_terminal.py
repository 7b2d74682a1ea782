"""What the command line shows: a quiet start, a line for each epoch, errors without tracebacks."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EXPECTED_ERRORS = (ValueError, TypeError, RuntimeError, OSError)
"""What a user can mend; anything else is a fault of ours and keeps its traceback."""


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the C++ chatter of TensorFlow and LiteRT out of the terminal of a command.

    Their log lines go to the file descriptor itself, so the descriptor is pointed elsewhere while
    Python's own `sys.stderr` stays with the terminal. `TF_CPP_MIN_LOG_LEVEL` set by the user
    leaves everything as it is.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    sys.stderr.flush()
    saved, before = os.dup(2), sys.stderr
    void = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(void, 2)
        with os.fdopen(os.dup(saved), "w", buffering=1) as terminal:
            sys.stderr = terminal
            yield
    finally:
        sys.stderr = before
        os.dup2(saved, 2)
        os.close(saved)
        os.close(void)


def training_progress(console: Console) -> Any:
    """Returns a Keras callback that shows a bar while an epoch runs and a line when it ended."""
    from kerasopt._backend import keras

    class TrainingProgress(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=32),
                TextColumn("{task.completed}/{task.total}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            steps, epochs = self.params["steps"], self.params["epochs"]
            self._task = self._bar.add_task("training", total=steps and steps * epochs)
            self._epochs = epochs
            self._bar.start()

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            self._bar.update(self._task, description=f"epoch {epoch + 1}/{self._epochs}")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            self._bar.advance(self._task)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            console.print(f"epoch {epoch + 1:>3}/{self._epochs}  {_metrics(logs or {})}")

        def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
            self.stop()

        def stop(self) -> None:
            """Takes the bar away, also after an exception."""
            self._bar.stop()

    return TrainingProgress()


def _metrics(logs: dict[str, Any]) -> str:
    shown = {
        "loss": "loss {:.3f}",
        "accuracy": "accuracy {:.1%}",
        "val_loss": "val {:.3f}",
        "val_accuracy": "{:.1%}",
        "sparsity": "zeros {:.0%}",
        "trainable_fraction": "open {:.0%}",
    }
    return "  ".join(form.format(logs[name]) for name, form in shown.items() if name in logs)
