"""Checks of models and data that several parts of the room share."""

from typing import Any

import numpy as np

from kerasopt._backend import keras


def check_finite_weights(model: Any) -> None:
    """Raises ValueError if a weight of a model is NaN or infinite; names the weight."""
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise ValueError(
                "Quantization needs finite weights. "
                f"Received: NaN or infinity in {weight.path!r} of {model.name!r}. "
                "Lower the learning rate or clip gradients, and start from an earlier checkpoint."
            )
