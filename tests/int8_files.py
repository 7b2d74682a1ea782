"""A model's quantization-aware copy, its int8 file, and how the two compare."""

import keras
import numpy as np

import kerasopt as ko


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def chain(*parts):
    """Returns a function that calls one part behind the other."""

    def build(x):
        for part in parts:
            x = part(x)
        return x

    return build


def compared(model, x, samples=16):
    """Returns the copy, reloaded, its file, and the report on the two."""
    learned = ko.quantization.quantize_aware(model)
    learned(x, training=True)
    aware = keras.models.model_from_json(learned.to_json())
    aware.set_weights(learned.get_weights())
    file = ko.export.to_tflite(aware, quantize="int8")
    return aware, file, ko.export.compare_operations(aware, file.content, x, samples=samples)
