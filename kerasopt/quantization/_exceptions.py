"""Options of an operation that change its rule. Each returns a reason, changed fields, or None."""

import inspect
import math
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.quantization import _decompositions as parts

INTEGERS = "reads a tensor of integers"
_CHANNELS_FIRST = "channels-first layout"


def kernel(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Kernels and pooling over channels that come first."""
    if getattr(op, "data_format", "channels_last") != "channels_last":
        return _CHANNELS_FIRST
    return None


def einsum(op: Any, node: Any) -> Any:  # noqa: ARG001
    """A kernel whose axes stand in the input and in the output too."""
    left, out = op.equation.replace("...", "").replace(" ", "").split("->")
    x, weights = left.split(",")
    if any(axis in x and axis in out for axis in weights):
        return "an equation with a kernel for each position"
    return None


def time_distributed(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Layers inside that are no kernels."""
    layers = keras.layers
    if type(op.layer) not in (layers.Dense, layers.Conv1D, layers.Conv2D):
        return "not a Dense, Conv1D or Conv2D layer at each step"
    return kernel(op.layer, None)


def norm(op: Any, node: Any) -> Any:
    """BatchNormalization over another axis than the last."""
    rank = len(node.inputs[0].shape) if node is not None else 4
    return None if op.axis in (-1, rank - 1) else "another axis than the last"


def affine(op: Any, node: Any) -> Any:
    """Normalization over other axes than the last, and of integers."""
    if node is not None and "int" in str(node.inputs[0].dtype):
        return INTEGERS
    axis = getattr(op, "axis", None)
    if axis is None or node is None:
        return None
    rank = len(node.inputs[0].shape)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    return None if axes in ((), (-1,), (rank - 1,)) else "another axis than the last"


def relu(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Slope, threshold and another ceiling than 6, of the layer or of the activation called."""
    if not hasattr(op, "max_value"):
        return None
    if op.threshold:
        return {"kind": "float", "reason": "a threshold", "leaks": True}
    if op.negative_slope:
        if op.max_value is not None:
            return "a slope and a ceiling"
        return {"kind": "shared", "steps": parts.leaky_relu}
    if op.max_value in (None, 6, 6.0):
        return None
    return {"fixed_range": (0.0, float(op.max_value))}


def leaky(op: Any, node: Any) -> Any:  # noqa: ARG001
    """A slope above 1."""
    return None if 0.0 <= parts.slope_of(op) <= 1.0 else "a slope that is not in [0, 1]"


def merge(op: Any, node: Any) -> Any:
    """More than two tensors at once, or a constant that is not a number."""
    if node is None:
        return None
    if _changes_nothing(op, node):
        return {"kind": "dropped"}
    if len(node.inputs) > 2:
        return {"steps": parts.chain}
    if any(np.size(c) > 1 for c in constants(node)):
        return {"steps": parts.with_constant}
    return None


def variables(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Anything but a sum, difference or product with one weight."""
    is_layer = isinstance(op.op, keras.Layer)
    if is_layer or type(op.op).__name__ not in ("Add", "Subtract", "Multiply") or len(op.own) > 1:
        return "computes with a weight of the model itself"
    return None


def join(op: Any, node: Any) -> Any:
    """A ReLU that is written as the larger of a tensor and 0."""
    is_maximum = node is not None and type(op).__name__ == "Maximum" and len(node.inputs) == 1
    return {"kind": "relu"} if is_maximum and not np.any(constants(node)[0]) else None


def pad(op: Any, node: Any) -> Any:
    """A constant that the range of the input may not hold."""
    if node is None or op.mode != "constant":
        return None
    return {"kind": "join"} if np.any(arguments(op, node).get("constant_values") or 0) else None


def converted(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Another dtype behind it."""
    if node is None or node.inputs[0].dtype == node.outputs[0].dtype:
        return None
    return {"kind": "same"}


def augmentation(op: Any, node: Any) -> Any:
    """What is no identity in the file."""
    if type(op).__module__.split(".")[0] != "keras":
        return "a subclass of an augmentation layer"
    if node is not None and node.inputs[0].shape != node.outputs[0].shape:
        return "it crops in training alone"
    return None


def fixed(op: Any, node: Any) -> Any:  # noqa: ARG001
    """A mask."""
    return _MASK if node is not None and node.kwargs.get("mask") is not None else None


_NEUTRAL = {"Add": 0, "Subtract": 0, "Multiply": 1, "Divide": 1, "TrueDivide": 1}


def _changes_nothing(op: Any, node: Any) -> bool:
    """Tells sums with 0 and products with 1, which the converter leaves out."""
    if len(node.inputs) != 1 or type(op).__name__ not in _NEUTRAL:
        return False
    found = constants(node)
    order = type(op).__name__ in ("Add", "Multiply") or keras.backend.is_keras_tensor(node.args[0])
    same = (node.inputs[0].shape, node.inputs[0].dtype) == (
        node.outputs[0].shape,
        node.outputs[0].dtype,
    )
    neutral = _NEUTRAL[type(op).__name__]
    return order and same and len(found) == 1 and bool(np.all(np.equal(found[0], neutral)))


def divide(op: Any, node: Any) -> Any:
    """A divisor that is a tensor."""
    if node is not None and _changes_nothing(op, node):
        return {"kind": "dropped"}
    if node is None or (len(node.inputs) == 1 and keras.backend.is_keras_tensor(node.args[0])):
        return None
    return {
        "kind": "float",
        "reason": "a quotient has no scale that holds near 0",
        "leaks": True,
    }


def clip(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Bounds that are no numbers around 0."""
    low, high = getattr(op, "x_min", None), getattr(op, "x_max", None)
    if isinstance(low, int | float) and isinstance(high, int | float) and low <= 0.0 <= high:
        return {"fixed_range": _on_levels(float(low), float(high))}
    return {"kind": "float", "steps": None, "reason": "bounds not around 0", "leaks": True}


def power(op: Any, node: Any) -> Any:
    """Another exponent than 2."""
    if type(op).__name__ != "Power" or node is None:
        return None
    return None if list(constants(node)) in ([2], [2.0]) else "TFLite has no int8 power"


def own(op: Any, node: Any) -> Any:
    """Products with a constant tensor, means of one value or of what a mask leaves."""
    if node is not None and node.kwargs.get("mask") is not None:
        return _MASK
    if node is not None and type(op).__name__.startswith(("Mean", "GlobalAverage")):
        values = math.prod(size or 0 for size in node.inputs[0].shape[1:])
        if values and values == math.prod(size or 0 for size in node.outputs[0].shape[1:]):
            return {"kind": "shared"}
    is_product = node is not None and type(op).__name__ in ("Matmul", "Einsum")
    if is_product and any(np.size(c) > 1 for c in constants(node)):
        return "a product with a constant tensor"
    return kernel(op, node)


def _on_levels(low: float, high: float) -> tuple[float, float]:
    """Moves a range, by half a step at most, until 0 is a level, so that all round alike."""
    scale = (high - low) / 255.0
    zero = math.floor(-low / scale + 0.5)
    return -zero * scale, (255 - zero) * scale


def resize(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Nearest keeps the range; what is neither nearest nor bilinear has no operator."""
    if op.data_format != "channels_last":
        return _CHANNELS_FIRST
    if op.interpolation == "nearest":
        return {"kind": "same"}
    return None if op.interpolation == "bilinear" else "TFLite resizes nearest or bilinear only"


def layer_norm(op: Any, node: Any) -> Any:
    """Normalization over other axes than the last."""
    return affine(op, node)


def group_norm(op: Any, node: Any) -> Any:
    """Channels that are not last, images of any size."""
    if node is not None and None in node.inputs[0].shape[1:]:
        return "groups of any number of values"
    return affine(op, node)


def total(op: Any, node: Any) -> Any:
    """Any number of values."""
    if node is None:
        return None
    shape = node.inputs[0].shape
    axes = range(len(shape)) if op.axis is None else np.atleast_1d(op.axis)
    if any(shape[axis] is None for axis in axes):
        return {"kind": "float", "steps": None, "reason": "a sum of any number of values"}
    return None


def attention(op: Any, node: Any) -> Any:
    """Masks given as tensors, gates, windows, several axes."""
    if node is not None:
        if any(len(tensor.shape) != 3 for tensor in node.inputs):
            return "attention over other tensors than (batch, steps, features)"
        given = arguments(op, node)
        if any(given.get(name) is not None for name in _MASKS):
            return "a mask given as a tensor"
        if given.get("return_attention_scores"):
            return "the attention scores are an output"
        if node.masked:
            return _MASKED
        if given.get("use_causal_mask") and _of_any_length(node):
            return _ANY_LENGTH
    config = op.get_config()
    if config.get("use_gate") or config.get("sliding_window") or config.get("output_shape"):
        return "a gate, a window or another output shape"
    return None


_MASKS = ("attention_mask", "query_mask", "value_mask", "key_mask")
_MASK = "a mask"
_MASKED = "masks from an Embedding or Masking layer"
_ANY_LENGTH = "a causal mask on any number of steps"


def _of_any_length(node: Any) -> bool:
    return any(tensor.shape[1] is None for tensor in node.inputs)


def dot_attention(op: Any, node: Any) -> Any:
    """Scores other than plain products."""
    if op.use_scale or op.score_mode != "dot":
        return "a learned scale or another score than the product"
    if node is None:
        return None
    given = arguments(op, node)
    if node.masked or given.get("mask") is not None:
        return _MASK
    if given.get("return_attention_scores"):
        return "the attention scores are an output"
    return _ANY_LENGTH if given.get("use_causal_mask") and _of_any_length(node) else None


def dot(op: Any, node: Any) -> Any:  # noqa: ARG001
    """Vectors normalized first."""
    return "TFLite has no int8 normalization of vectors" if op.normalize else None


def arguments(op: Any, node: Any) -> dict[str, Any]:
    """Returns the arguments of a call by name, however they were given."""
    return dict(inspect.signature(op.call).bind(*node.args, **node.kwargs).arguments)


def constants(node: Any) -> list[Any]:
    """Lists the numbers and arrays among the arguments of a call."""
    leaves = keras.tree.flatten((node.args, node.kwargs))
    return [
        leaf
        for leaf in leaves
        if not keras.backend.is_keras_tensor(leaf) and not isinstance(leaf, str | bool | type(None))
    ]
