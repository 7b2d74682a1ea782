"""Which variables of a model are kernels, and how each is laid out."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._layer_filter import LayerFilter, layers_inside, select_layers

# What Keras calls the variables that a layer multiplies its input with. Biases, and the gains and
# statistics of normalization, have other names.
_NAMES = (
    "kernel",
    "recurrent_kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "embeddings",
    "reverse_embeddings",
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel and its layout.

    Attributes:
        path: the names of the models and layers around it, `"backbone/block_1_conv"`, with the
            variable's own name where its layer has several.
        layer: the layer that holds it.
        variable: the Keras variable.
        axes: the positions, inputs and outputs among the axes of the variable.
    """

    path: str
    layer: Any
    variable: Any
    axes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.variable.shape)

    @property
    def size(self) -> int:
        """How many weights there are."""
        return math.prod(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Positions, inputs and outputs."""
        positions, inputs, outputs = (
            math.prod(self.shape[axis] for axis in part) for part in self.axes
        )
        return positions, inputs, outputs

    @property
    def _order(self) -> list[int]:
        return [axis for part in self.axes for axis in part]

    def matrix(self) -> Any:
        """Returns the weights as a tensor (positions, inputs, outputs)."""
        value = tf.convert_to_tensor(self.variable)
        order = self._order
        if order != sorted(order):
            value = tf.transpose(value, order)
        return tf.reshape(value, self.matrix_shape)

    def restore(self, matrix: Any) -> Any:
        """Returns a tensor (positions, inputs, outputs) in the variable's own layout."""
        order = self._order
        value = tf.reshape(matrix, [self.shape[axis] for axis in order])
        if order == sorted(order):
            return value
        return tf.transpose(value, [order.index(axis) for axis in range(len(order))])

    def zeros(self) -> int:
        """Counts the zeros."""
        return int(np.sum(tf.convert_to_tensor(self.variable).numpy() == 0))


@dataclasses.dataclass(frozen=True, eq=False)
class _Holder:
    """A layer with kernels of its own, and the layers around it, outermost first."""

    chain: tuple[tuple[str, Any], ...]
    variables: tuple[Any, ...]

    @property
    def path(self) -> str:
        return self.chain[-1][0]

    @property
    def layer(self) -> Any:
        return self.chain[-1][1]


def find_kernels(model: Any, chosen: LayerFilter, *, who: str) -> list[Kernel]:
    """Returns the kernels that a layer filter chooses, each variable once, in model order.

    Raises:
        ValueError: the model is not built, or no layer with a kernel is chosen.
        TypeError: the filter is of a wrong type, or `model` is no Keras model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{who}` needs a Keras 3 model. Received: model of type {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"`{who}` needs a model that is built. Received: built=False. "
            "Call it on a batch first, or give it an Input."
        )
    holders = list(_holders(model))
    kernels = [kernel for holder in _select(holders, chosen) for kernel in _kernels_of(holder)]
    if not kernels:
        raise ValueError(
            f"`{who}` needs a layer with a kernel (Dense, convolutions, recurrent layers, "
            f"attention, Embedding). Received: model {model.name!r} without any."
        )
    return kernels


def _select(holders: list[_Holder], chosen: LayerFilter) -> list[_Holder]:
    if chosen is None:
        return [holder for holder in holders if not isinstance(holder.layer, _DEPTHWISE)]
    # A callable is asked about the layers that Keras lists, a regex may name what is inside too.
    depth = 1 if callable(chosen) else None
    candidates: dict[int, tuple[str, Any]] = {}
    for holder in holders:
        for path, layer in holder.chain[:depth]:
            candidates.setdefault(id(layer), (path, layer))
    picked = {id(layer) for _, layer in select_layers(list(candidates.values()), chosen)}
    return [holder for holder in holders if any(id(layer) in picked for _, layer in holder.chain)]


def _holders(model: Any) -> Iterator[_Holder]:
    """Visits every layer once, in model order, and yields those with kernels."""
    seen_layers: set[int] = set()
    seen_variables: set[int] = set()

    def visit(layer: Any, prefix: str, chain: tuple[tuple[str, Any], ...]) -> Iterator[_Holder]:
        if id(layer) in seen_layers:
            return
        seen_layers.add(id(layer))
        path = f"{prefix}{layer.name}"
        inside = [] if layer is model else [(path, layer)]
        own = [v for v in _own_kernels(layer) if id(v) not in seen_variables]
        seen_variables.update(id(variable) for variable in own)
        if own:
            yield _Holder((*chain, *(inside or [(layer.name, layer)])), tuple(own))
        # Models are what the user walks through; chains begin at the layers that Keras lists.
        below = chain if isinstance(layer, keras.Model) else (*chain, *inside)
        for child in layers_inside(layer):
            yield from visit(child, "" if layer is model else f"{path}/", below)

    yield from visit(model, "", ())


def _own_kernels(layer: Any) -> list[Any]:
    inner = {id(weight) for child in layers_inside(layer) for weight in child.weights}
    own = [weight for weight in layer.weights if id(weight) not in inner]
    named = [weight for weight in own if weight.name in _NAMES]
    # TF-MOT's `PrunableLayer` protocol, for layers whose kernels have other names.
    custom = getattr(layer, "get_prunable_weights", None)
    if callable(custom):
        named = [weight for weight in custom() if isinstance(weight, keras.Variable)]
    return [
        weight
        for weight in named
        if len(weight.shape) >= 2 and keras.backend.is_float_dtype(weight.dtype)
    ]


def _kernels_of(holder: _Holder) -> list[Kernel]:
    several = len(holder.variables) > 1
    return [
        Kernel(
            path=f"{holder.path}/{variable.name}" if several else holder.path,
            layer=holder.layer,
            variable=variable,
            axes=_axes(holder.layer, variable),
        )
        for variable in holder.variables
    ]


def _axes(layer: Any, variable: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    rank = len(variable.shape)
    if isinstance(layer, keras.layers.EinsumDense):
        inputs, right = layer.equation.replace(" ", "").split(",")
        labels, outputs = right.split("->")
        if len(labels) == rank:
            summed = tuple(i for i, label in enumerate(labels) if label not in outputs)
            both = tuple(
                i for i, label in enumerate(labels) if label in outputs and label in inputs
            )
            rest = tuple(i for i in range(rank) if i not in summed + both)
            return both, summed, rest
    return tuple(range(rank - 2)), (rank - 2,), (rank - 1,)
