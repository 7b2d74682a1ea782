"""Which rule of the table an operation follows."""

import dataclasses
from collections.abc import Callable
from typing import Any

from kerasopt._backend import keras
from kerasopt.quantization import _decompositions as parts
from kerasopt.quantization import _exceptions as exceptions
from kerasopt.quantization._kernels import has_kernels, is_users
from kerasopt.quantization._renamed import original
from kerasopt.quantization._steps import FUSED_ACTIVATIONS, activation_name
from kerasopt.quantization._table import TABLE, Row, Rule
from kerasopt.quantization._variables import WithVariables

_UNKNOWN = Rule("float", reason="no int8 rule for this operation yet", leaks=True)
_OWN = Rule(
    "float",
    reason="a call that is no graph of layers and keras.ops, or another one in training",
    leaks=True,
)
_WITH_VARIABLES = Row(Rule("sum", parts.with_variable), unless=exceptions.variables)
_BY_LAYER = {name: row for row in TABLE for name in row.layers.split()}
_ONLY_SOMETIMES: tuple[Callable[..., Any], ...] = (
    parts.chain,
    parts.with_constant,
    parts.with_variable,
)
STEPS: dict[str, Callable[..., Any]] = {
    str(getattr(steps, "__name__", "")): steps
    for steps in (*(row.rule.steps for row in TABLE), *_ONLY_SOMETIMES)
    if steps is not None
}
"""Every decomposition by its name, which is what a saved model holds."""
_BY_FUNCTION = {
    name.replace("_", ""): (name, row) for row in TABLE for name in row.functions.split()
}


def rule_for(op: Any, node: Any = None) -> Rule:
    """Returns the rule of an operation.

    Args:
        op: a layer or an operation.
        node: its `Node` in the graph, for what depends on the tensors it reads.
    """
    op = original(op)
    if getattr(op, "kerasopt_training_only", False):  # augmentation: identity in the file
        return Rule("dropped")
    if getattr(op, "kerasopt_pixel_affine", False):  # preprocessing of a model family
        return Rule("affine")
    if isinstance(op, keras.layers.Activation):
        return activation_rule(op.activation)
    if isinstance(op, WithVariables):
        return _resolve(_WITH_VARIABLES, op, node)
    if not isinstance(op, keras.Layer):
        return _resolve(_row(type(op).__name__), op, node)
    for kind in type(op).__mro__:
        if kind.__name__ in _BY_LAYER and kind.__module__.split(".")[0] == "keras":
            if getattr(type(op), "call", None) is not getattr(kind, "call", None):
                return Rule("float", reason="a subclass with a call of its own", leaks=True)
            return _resolve(_BY_LAYER[kind.__name__], op, node)
    if is_users(op):
        return dataclasses.replace(_OWN, weights=has_kernels(op))
    return _UNKNOWN


def is_own(op: Any) -> bool:
    """Tells whether an operation is a layer or subclassed model of the user's own."""
    return rule_for(op).reason == _OWN.reason


def activation_rule(function: Any) -> Rule:
    """Returns the rule of an activation function."""
    return _resolve(_row(activation_name(function)), function, None)


def activation_of(op: Any) -> Any:
    """Returns the activation function of a layer, or of the one inside it."""
    op = original(op)
    inside = op.layer if isinstance(op, keras.layers.TimeDistributed) else op
    return getattr(inside, "activation", None)


def end_rule(op: Any, node: Any = None) -> Rule:
    """Returns the rule of the last step of an operation: of its activation, if it has one."""
    op, activation = original(op), activation_of(op)
    if isinstance(op, keras.layers.Activation) or activation_name(activation) in FUSED_ACTIVATIONS:
        return rule_for(op, node)
    return activation_rule(activation)


def function_name(name: str) -> str | None:
    """Returns the name in the table of a function or of its class: `leaky_relu`, `LeakyRelu`."""
    found = _BY_FUNCTION.get(name.replace("_", "").lower())
    return None if found is None else found[0]


def _row(name: str) -> Row | None:
    found = _BY_FUNCTION.get(name.replace("_", "").lower())
    return None if found is None else found[1]


def _resolve(row: Row | None, op: Any, node: Any) -> Rule:
    if row is None:
        return _UNKNOWN
    found = None if row.unless is None else row.unless(op, node)
    if found is None:
        return row.rule
    if isinstance(found, dict):
        return dataclasses.replace(row.rule, **found)
    return Rule("float", reason=found, leaks=True)
