"""The one place that imports KerasCV."""

from typing import Any

from kerasopt._backend import tf


def keras_cv() -> Any:
    """Imports KerasCV, with `tf.keras` settled as Keras 3 before.

    KerasCV reads `tf.keras` to choose between its Keras 2 and Keras 3 modes. TensorFlow resolves
    that name on first use, so it is used here first: what another library does to the environment
    later changes neither.
    """
    if not tf.keras.__version__.startswith("3."):
        raise ImportError(
            "KerasCV must find Keras 3 as tf.keras. "
            f"Received: tf.keras.__version__={tf.keras.__version__!r}. "
            "Unset TF_USE_LEGACY_KERAS before the first import of tensorflow."
        )
    import keras_cv

    return keras_cv
