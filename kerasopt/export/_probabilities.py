"""Probabilities from a model that ends in logits."""

from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt.export._convert import packed


def ends_in_probabilities(model: Any) -> bool:
    """Whether the outputs are probabilities: a softmax or a sigmoid, or rows that sum to 1.

    Of several outputs nobody can tell: they count as such.
    """
    if len(model.outputs) > 1:
        return True  # they are left as they are
    last = model.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    kinds = (keras.activations.softmax, keras.activations.sigmoid)
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) in kinds:
        return True
    if model.outputs[0].shape[-1] == 1:
        return False
    rng = np.random.default_rng(0)
    samples = [
        keras.ops.cast(rng.uniform(0, 255, (3, *[size or 1 for size in t.shape[1:]])), t.dtype)
        for t in model.inputs
    ]
    outputs = np.asarray(model(packed(model, samples), training=False))
    return bool(outputs.min() >= 0.0 and np.allclose(outputs.sum(axis=-1), 1.0, atol=1e-3))


def with_probabilities(model: Any, *, quantized_output: bool = False) -> Any:
    """Returns the model with a softmax behind it, a sigmoid behind a single output.

    Args:
        model: a model with one output that ends in logits.
        quantized_output: give the result the range that TFLite has for both.
    """
    logits = model.outputs[0]
    kind = "sigmoid" if logits.shape[-1] == 1 else "softmax"
    taken = {layer.name for layer in model.layers}
    name = "probabilities" if "probabilities" not in taken else f"{model.name}_probabilities"
    outputs = keras.layers.Activation(kind, name=name, dtype="float32")(logits)
    if quantized_output:
        outputs = _Range(name=f"{name}_range")(outputs)
    return keras.Model(packed(model, list(model.inputs)), outputs, name=model.name)


class _Range(keras.layers.Layer):
    """The levels 0/256 to 255/256, which are fixed for softmax and sigmoid in TFLite."""

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def call(self, inputs: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_args(inputs, 0.0, 255.0 / 256.0)
