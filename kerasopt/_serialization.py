"""The one decorator for everything that may stand inside a saved model."""

from typing import Any, TypeVar

from kerasopt._backend import keras

T = TypeVar("T", bound=type[Any])


def serializable(cls: T) -> T:
    """Registers a class as `kerasopt>Name`, so that files load without custom objects."""
    registered: T = keras.saving.register_keras_serializable(package="kerasopt")(cls)
    return registered
