"""Attention, from its dense layers, in steps that are int8 operators."""

import math
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt.quantization._steps import UNIT, Steps

ops = keras.ops


def multi_head_attention(
    steps: Steps,
    layer: Any,
    query: Any,
    value: Any,
    key: Any = None,
    *,
    use_causal_mask: bool = False,
    **_: Any,
) -> Any:
    """Projects queries, keys and values, multiplies, weighs, projects back.

    The factor `1 / sqrt(size of a head)` is folded into the weights of the queries.
    """
    key = value if key is None else key
    weights = {_part(variable): variable for variable in layer.weights}
    heads, size = weights["query/kernel"].shape[1:]
    factor = 1.0 / math.sqrt(size)
    q = _project(steps, weights, "query", query, factor)
    k = _project(steps, weights, "key", key)
    v = _project(steps, weights, "value", value)
    groups = heads // k.shape[2]
    if groups > 1:
        k, v = ops.repeat(k, groups, axis=2), ops.repeat(v, groups, axis=2)
    scores = steps.round("scores", ops.einsum("bqhd,bkhd->bhqk", q, k))
    if use_causal_mask:
        scores = steps.hide("scores", scores, _future(query, value)[None, None])
    seen = steps.round("weights", ops.softmax(scores, axis=-1), UNIT)
    seen = steps.dropout(seen, float(layer.dropout))
    context = steps.round("context", ops.einsum("bhqk,bkhd->bqhd", seen, v))
    return _output(steps, weights, context)


def dot_attention(
    steps: Steps, layer: Any, inputs: Any, *, use_causal_mask: bool = False, **_: Any
) -> Any:
    """`softmax(q k') v`."""
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    scores = steps.round("scores", ops.matmul(query, ops.transpose(key, (0, 2, 1))))
    if use_causal_mask:
        scores = steps.hide("scores", scores, _future(query, value)[None])
    seen = steps.round("weights", ops.softmax(scores, axis=-1), UNIT)
    return ops.matmul(steps.dropout(seen, float(layer.dropout)), value)


def _part(variable: Any) -> str:
    return "/".join(variable.path.split("/")[-2:])


def _project(steps: Steps, weights: dict[str, Any], name: str, x: Any, factor: float = 1.0) -> Any:
    kernel = steps.kernel(weights[f"{name}/kernel"], (0,))
    bias = weights.get(f"{name}/bias")
    y = ops.einsum("abc,cde->abde", x, kernel * factor)
    if bias is not None:
        y = y + steps.variable(bias) * factor
    return steps.round(name, y)


def _output(steps: Steps, weights: dict[str, Any], context: Any) -> Any:
    kernel = steps.kernel(weights["attention_output/kernel"], (0, 1))
    y = ops.einsum("abcd,cde->abe", context, kernel)
    bias = weights.get("attention_output/bias")
    return y if bias is None else y + steps.variable(bias)


def _future(query: Any, value: Any) -> Any:
    """Returns 1 where a key lies behind the query, (queries, keys)."""
    return 1.0 - np.tril(np.ones((query.shape[1], value.shape[1]), "float32"))
