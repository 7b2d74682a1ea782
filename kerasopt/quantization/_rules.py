"""Which rule an operation follows in TFLite's int8: one table, measured operator by operator."""

import dataclasses
from typing import Any

from kerasopt._backend import keras

layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Rule:
    """How an operation is quantized.

    Args:
        kind: one of
            `"kernel"`: int8 kernel and own output range;
            `"norm"`: BatchNormalization, folded into the kernel before it, else like `"affine"`;
            `"affine"`: per-pixel affine map, a 1x1 convolution in the file;
            `"relu"`: fused into what is before it;
            `"add"`: sum, difference or product of two: own range;
            `"mean"`: own range;
            `"same"`: keeps the scale of its input;
            `"average"`: shares its input's range, ties rounded as TFLite does;
            `"concat"`: all inputs and the output share one range;
            `"fixed"`: output range known beforehand;
            `"own"`: own range; with a `reason` it may stay float between its ranges;
            `"float"`: stays float, and so does what reads it directly.
        reason: why it is or may be float, for the report.
        fixed_range: for `"fixed"`.
    """

    kind: str
    reason: str = ""
    fixed_range: tuple[float, float] | None = None


_KEEPS_SCALE = Rule("same")
_OWN = Rule("own")
_UNKNOWN = "no int8 rule for this operation yet"

_BY_LAYER: dict[Any, Rule] = {
    layers.Conv2D: Rule("kernel"),
    layers.DepthwiseConv2D: Rule("kernel"),
    layers.Dense: Rule("kernel"),
    layers.BatchNormalization: Rule("norm"),
    layers.Rescaling: Rule("affine"),
    layers.Normalization: Rule("affine"),
    layers.Add: Rule("add"),
    layers.Subtract: Rule("add"),
    layers.Multiply: Rule("add"),
    layers.LeakyReLU: _OWN,
    layers.PReLU: _OWN,
    layers.GlobalAveragePooling2D: Rule("mean"),
    layers.GlobalMaxPooling2D: _KEEPS_SCALE,
    layers.MaxPooling2D: _KEEPS_SCALE,
    layers.AveragePooling2D: Rule("average"),
    layers.Concatenate: Rule("concat"),
    layers.Flatten: _KEEPS_SCALE,
    layers.Reshape: _KEEPS_SCALE,
    layers.Permute: _KEEPS_SCALE,
    layers.ZeroPadding2D: _KEEPS_SCALE,
    layers.Cropping2D: _KEEPS_SCALE,
    layers.Dropout: _KEEPS_SCALE,
    layers.SpatialDropout2D: _KEEPS_SCALE,
    layers.GaussianNoise: _KEEPS_SCALE,
    layers.GaussianDropout: _KEEPS_SCALE,
    layers.Identity: _KEEPS_SCALE,
    layers.ActivityRegularization: _KEEPS_SCALE,
    layers.Softmax: Rule("fixed", fixed_range=(0.0, 255.0 / 256.0)),
    # These share scales between input and output inside TFLite in ways that a range of their own
    # would break silently, by up to 84 steps.
    layers.AveragePooling1D: Rule("float", _UNKNOWN),
    layers.AveragePooling3D: Rule("float", _UNKNOWN),
    layers.UpSampling2D: Rule("float", _UNKNOWN),
    layers.Resizing: Rule("float", _UNKNOWN),
    layers.Maximum: Rule("float", _UNKNOWN),
    layers.Minimum: Rule("float", _UNKNOWN),
    layers.SeparableConv1D: Rule("float", _UNKNOWN),
    layers.SeparableConv2D: Rule("float", _UNKNOWN),
    layers.Conv1D: Rule("float", _UNKNOWN),
    layers.Conv2DTranspose: Rule("float", _UNKNOWN),
    layers.MultiHeadAttention: Rule("float", _UNKNOWN),
    layers.LayerNormalization: Rule("float", _UNKNOWN),
}

# Activations by the name Keras gives the function.
_BY_ACTIVATION: dict[str, Rule] = {
    "linear": _KEEPS_SCALE,
    "relu": Rule("relu"),
    "relu6": Rule("relu"),
    "softmax": Rule("fixed", fixed_range=(0.0, 255.0 / 256.0)),
    "sigmoid": Rule("fixed", fixed_range=(0.0, 255.0 / 256.0)),
    "tanh": Rule("fixed", fixed_range=(-1.0, 127.0 / 128.0)),
    "leaky_relu": _OWN,
    "gelu": _OWN,
    "hard_silu": _OWN,
    "exponential": _OWN,
}

_BY_OPERATION: dict[str, Rule] = {
    "ConvertToTensor": _KEEPS_SCALE,
    "Add": Rule("add"),
    "Subtract": Rule("add"),
    "Multiply": Rule("add"),
    "Relu": Rule("relu"),
    "Relu6": Rule("relu"),
}

FUSED_ACTIVATIONS = ("linear", "relu", "relu6")
"""What a convolution, dense layer or addition can carry inside one TFLite operator."""


def rule_for(op: Any) -> Rule:
    """Returns the rule of an operation; an operation without a row runs between two ranges."""
    if getattr(op, "kerasopt_training_only", False):  # augmentation: identity in the file
        return _KEEPS_SCALE
    if getattr(op, "kerasopt_pixel_affine", False):  # preprocessing of a model family
        return Rule("affine")
    if isinstance(op, layers.ReLU):
        plain = not op.negative_slope and not op.threshold and op.max_value in (None, 6, 6.0)
        return Rule("relu") if plain else Rule("own", _UNKNOWN)
    if isinstance(op, layers.Activation):
        return activation_rule(op.activation)
    if isinstance(op, layers.BatchNormalization) and op.axis not in (-1, 3):
        return Rule("own", "BatchNormalization over another axis than the last")
    if isinstance(op, layers.Softmax) and op.axis != -1:
        return Rule("own", _UNKNOWN)
    for kind in type(op).__mro__:
        if kind in _BY_LAYER:
            own_call = getattr(type(op), "call", None) is not getattr(kind, "call", None)
            return (
                Rule("float", "a subclass with a call of its own") if own_call else _BY_LAYER[kind]
            )
    if not isinstance(op, keras.Layer):
        return _BY_OPERATION.get(type(op).__name__, Rule("own", _UNKNOWN))
    return Rule("own", _UNKNOWN)


def activation_rule(function: Any) -> Rule:
    """Returns the rule of an activation function."""
    return _BY_ACTIVATION.get(activation_name(function), Rule("own", _UNKNOWN))


def activation_name(function: Any) -> str:
    """Returns the name of an activation function."""
    return str(getattr(function, "__name__", type(function).__name__))
