"""Keras and TensorFlow for every room that needs them, after one check of the backend."""

import keras
import tensorflow as tf

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "kerasopt works on the TensorFlow backend of Keras. "
        f"Received: backend={keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before the first import of keras."
    )

__all__ = ["keras", "tf"]
