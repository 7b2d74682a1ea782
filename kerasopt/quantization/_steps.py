"""The steps into which an operation is taken apart so that each is one int8 operator."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from kerasopt._backend import tf
from kerasopt.quantization._fake_quant import fake_quantize

UNIT = (0.0, 255.0 / 256.0)
"""The range in which TFLite gives sigmoid and softmax."""
TANH = (-1.0, 127.0 / 128.0)
"""The range in which TFLite gives tanh."""

FUSED_ACTIVATIONS = ("linear", "relu", "relu6", "hard_tanh")
"""What a convolution, dense layer or addition can carry inside one TFLite operator."""

Fixed = tuple[float, float] | None


@dataclasses.dataclass
class Steps:
    """What a decomposition calls where the file rounds.

    The same function of steps runs while training, where ranges are learned, and builds the graph
    for the converter, where ranges and kernels are constants.

    Args:
        range: `(name, tensor, fixed range or None)` -> the tensor rounded to that range.
        kernel: `(variable, axes that do not count output channels)` -> its int8 levels.
        variable: a variable that is not rounded -> what stands for it.
        affine: `(tensor, scale, offset)` -> the per-channel map, one operator in the file.
        constant: a constant that is no weight -> its int8 levels.
        dropout: `(tensor, rate)` -> the tensor, in training with zeros.
        inverse_root: `1 / sqrt(x)` as int8 has it, where 0 gives the largest level.
        hide: `(name, tensor on the range of that name, 1 where hidden, else 0)` -> the tensor with
            what is hidden so low that a softmax gives it 0.
        activation_steps: an activation function -> the steps it is taken apart into, or `None`.
    """

    range: Callable[[str, Any, Fixed], Any]
    kernel: Callable[[Any, Sequence[int]], Any]
    variable: Callable[[Any], Any]
    affine: Callable[[Any, Any, Any], Any]
    constant: Callable[[Any], Any]
    dropout: Callable[[Any, float], Any]
    inverse_root: Callable[[Any], Any]
    hide: Callable[[str, Any, Any], Any]
    activation_steps: Callable[[Any], Any]

    def round(self, name: str, tensor: Any, fixed: Fixed = None) -> Any:
        """Rounds a tensor to the range of that name."""
        return self.range(name, tensor, fixed)


def activation_name(function: Any) -> str:
    """Returns the name of an activation function."""
    if function is None:
        return "linear"
    return str(getattr(function, "__name__", type(function).__name__))


def constant_levels(value: Any) -> Any:
    """Rounds a constant as the converter does: 256 levels between its extremes and 0."""
    value = tf.cast(value, "float32")
    low = tf.minimum(tf.reduce_min(value), 0.0)
    high = tf.maximum(tf.reduce_max(value), 0.0)
    return fake_quantize(value, low, tf.maximum(high, low + 1e-6))
