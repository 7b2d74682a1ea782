"""Weights that a subclassed model owns itself, and the operations that compute with them."""

import itertools
from collections.abc import Sequence
from typing import Any

from kerasopt._backend import keras
from kerasopt._serialization import serializable

_TENSOR, _VARIABLE = "tensor ", "variable "


@serializable
class WithVariables(keras.layers.Layer):
    """An operation of which some arguments are variables, held as its own weights.

    So they train with the graph, are saved with it, and go into the file.

    Args:
        op: a layer or operation.
        arguments: `"args"` and `"kwargs"` of its call, with `"tensor 0"` for the first input and
            `"variable 0"` for the first variable.
        own: the variables, or their configs, from which new ones are made.
        name: name of the layer; default is that of the operation.

    Call arguments:
        inputs: list of the tensors that the operation reads.

    Raises:
        TypeError: `op` is neither a layer nor an operation.
    """

    def __init__(
        self, op: Any, arguments: Any, own: Sequence[Any], name: str | None = None, **kwargs: Any
    ) -> None:
        if isinstance(op, dict):
            op = keras.saving.deserialize_keras_object(op)
            arguments = keras.saving.deserialize_keras_object(arguments)
        if not isinstance(op, keras.Operation):
            raise TypeError(f"`op` must be a Keras layer or operation. Received: op={op!r}.")
        super().__init__(name=name or op.name, **kwargs)
        self.op = op
        self.arguments = {"args": tuple(arguments["args"]), "kwargs": dict(arguments["kwargs"])}
        self.own = [self.add_weight(**v) if isinstance(v, dict) else v for v in own]
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Returns what the operation returns."""
        return self.compute(inputs, self.own)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Returns the operation's own specification."""
        return self.compute(inputs, self.own, self.op.compute_output_spec)

    def compute(self, inputs: Any, own: Sequence[Any], function: Any = None) -> Any:
        """Calls the operation, or another function, with values in place of the variables."""

        def value(leaf: Any) -> Any:
            for prefix, values in ((_TENSOR, inputs), (_VARIABLE, own)):
                if isinstance(leaf, str) and leaf.startswith(prefix):
                    return values[int(leaf.removeprefix(prefix))]
            return leaf

        filled = keras.tree.map_structure(value, self.arguments)
        return (function or self.op)(*filled["args"], **filled["kwargs"])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "op": keras.saving.serialize_keras_object(self.op),
            "arguments": keras.saving.serialize_keras_object(self.arguments),
            "own": [
                {
                    "shape": tuple(v.shape),
                    "dtype": v.dtype,
                    "trainable": v.trainable,
                    "name": v.name,
                }
                for v in self.own
            ],
        }


def variables_in(arguments: Any) -> list[Any]:
    """Lists the variables in a structure of arguments."""
    return [leaf for leaf in keras.tree.flatten(arguments) if isinstance(leaf, keras.Variable)]


def with_variables(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls an operation on symbolic tensors so that the graph owns the variables it reads."""
    own = variables_in((args, kwargs))
    if not own:
        return op(*args, **kwargs)
    tensors: list[Any] = []
    numbers = itertools.count()

    def name(leaf: Any) -> Any:
        if isinstance(leaf, keras.Variable):
            return f"{_VARIABLE}{next(numbers)}"
        if keras.backend.is_keras_tensor(leaf):
            tensors.append(leaf)
            return f"{_TENSOR}{len(tensors) - 1}"
        return leaf

    arguments = keras.tree.map_structure(name, {"args": args, "kwargs": kwargs})
    return WithVariables(op, arguments, own)(tensors)
