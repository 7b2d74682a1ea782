"""State of a callback in the checkpoints of a running `fit`.

`BackupAndRestore` saves the weights of the model and nothing else. What a callback has beside
them has to stand in the same file, or a kill between two files leaves them apart. Keras writes
whatever saveable objects it finds among a model's attributes, so the state is made one, for as
long as `save_weights` or `load_weights` runs inside `fit`. A model that is saved to `.keras`
meanwhile does not have it, and a weights file with it loads into a model without.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.training._session import is_fitting

State = Mapping[str, np.ndarray]

_CALLS = ("save_weights", "load_weights")


class _Rider(keras.layers.Layer):
    """What Keras finds: reads and writes arrays instead of variables."""

    def __init__(self, name: str, save: Callable[[], State], load: Callable[[State], None]) -> None:
        super().__init__(name=name)
        self._save, self._load = save, load

    def save_own_variables(self, store: Any) -> None:
        """Writes the state into the file."""
        for key, value in self._save().items():
            store[key] = np.asarray(value)

    def load_own_variables(self, store: Any) -> None:
        """Reads the state; a file from a training without it has none."""
        found = {key: np.array(store[key]) for key in store.keys()}  # noqa: SIM118 - no mapping
        if found:
            self._load(found)


def ride_in_checkpoints(
    model: Any, name: str, save: Callable[[], State], load: Callable[[State], None]
) -> Callable[[], None]:
    """Puts the state of a callback into the weights files that this `fit` writes and reads.

    To be called in `TrainingCallback.prepare`, before another callback restores a checkpoint, and
    to be taken off by the session: `session.on_release(self, remove)`. Outside of `fit` nothing
    happens.

    Args:
        model: a `keras.Model`.
        name: of the state; an identifier that no attribute of the model has. The last state of a
            name counts.
        save: returns the arrays to write, by name.
        load: takes the arrays that were read; not called for files without them.

    Returns:
        A function that takes the state off the model again.
    """
    if not is_fitting(model):
        return lambda: None
    riders = getattr(vars(model).get(_CALLS[0]), "riders", None)
    if riders is None:
        riders = _install(model)
    riders[name] = rider = _Rider(name, save, load)

    def remove() -> None:
        if riders.get(name) is rider:
            del riders[name]
            if not riders:
                _take_off(model)

    return remove


def _install(model: Any) -> dict[str, _Rider]:
    attributes, riders = vars(model), dict[str, _Rider]()

    def around(function: Callable[..., Any], before: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not is_fitting(model):  # left by a `fit` that ended in an exception
                _take_off(model)
                return function(*args, **kwargs)
            attributes.update(riders)
            try:
                return function(*args, **kwargs)
            finally:
                for name in riders:
                    del attributes[name]

        call.riders, call.before = riders, before  # type: ignore[attr-defined]
        return call

    for kind in _CALLS:
        attributes[kind] = around(getattr(model, kind), attributes.get(kind))
    return riders


def _take_off(model: Any) -> None:
    attributes = vars(model)
    for kind in _CALLS:
        before = attributes.pop(kind).before
        if before is not None:
            attributes[kind] = before
