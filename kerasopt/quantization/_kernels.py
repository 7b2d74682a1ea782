"""The layer around each kernel of a quantization-aware model."""

import contextlib
from collections.abc import Iterator
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._layer_filter import layers_inside
from kerasopt._serialization import serializable
from kerasopt.quantization._fake_quant import fake_quantize_kernel

layers = keras.layers

_LAST = (layers.Conv1D, layers.Conv2D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose)
CARRYING = (*_LAST, *_DEPTHWISE, *_TRANSPOSED, layers.Dense, layers.EinsumDense)
"""The layers whose kernel is an int8 constant in the file."""
RECURRENT = (layers.RNN, layers.Bidirectional)
"""The layers that compute in float, with weights on int8 levels."""
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
_SEVERAL = (*_SEPARABLE, *_ATTENTION, layers.Embedding)
"""The layers that int8 takes apart, and tables, whose weights alone can be rounded too."""


def has_kernels(layer: Any) -> bool:
    """Tells whether `QuantizedLayer` can round the weights of a layer."""
    if isinstance(layer, layers.TimeDistributed):
        return isinstance(layer.layer, CARRYING)
    if isinstance(layer, CARRYING + RECURRENT + _SEVERAL):
        return True
    return is_users(layer) and bool(kernels_of(layer))


def is_users(layer: Any) -> bool:
    """Tells whether a layer is of a class that is neither of Keras nor of this package."""
    is_layer = isinstance(layer, keras.Layer)
    return is_layer and type(layer).__module__.split(".")[0] not in ("keras", "kerasopt")


@serializable
class QuantizedLayer(keras.layers.Wrapper):
    """Calls a layer with its kernel rounded to int8 levels, one scale per output channel.

    Args:
        layer: a convolution, transposed or depthwise convolution (1-D or 2-D), Dense, EinsumDense,
            a recurrent layer, whose input and recurrent kernels are rounded, a layer or model of
            your own, in which all kernels are, or with float activations also SeparableConv,
            TimeDistributed, attention of several heads or Embedding, whose table has one scale.
        linear: leave the layer's activation to an operation behind; only ReLU and ReLU6 fuse.
        float_activations: whether the layer computes in float, with only its weights on levels.
        name: name of the wrapper; default is the layer's own.

    Raises:
        TypeError: `layer` is none of these.
    """

    def __init__(
        self,
        layer: Any,
        linear: bool = False,
        float_activations: bool = False,
        name: str | None = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        if not has_kernels(layer):
            raise TypeError(
                "`layer` must be a convolution, a dense or a recurrent layer, attention or "
                "Embedding. "
                f"Received: layer={layer!r}."
            )
        # float32, so that rounding is exact; the layer inside keeps its own precision.
        super().__init__(layer, name=name or layer.name, dtype=dtype, **kwargs)
        self.linear = bool(linear)
        self.float_activations = bool(float_activations)
        self.supports_masking = True
        self.built = layer.built

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the mask that the layer hands on, if it hands one on."""
        return self.layer.compute_mask(inputs, mask) if self.layer.supports_masking else None

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer inside."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the layer's output, computed with the rounded kernel."""
        rounded = [
            (kernel, fake_quantize_kernel(tf.convert_to_tensor(kernel), axes))
            for kernel, axes in kernels_of(self.layer)
        ]
        activation = getattr(self.layer, "activation", None)
        try:
            if self.linear:
                self.layer.activation = keras.activations.linear
            with (
                own_call(self.layer),
                keras.StatelessScope(state_mapping=rounded, collect_losses=True) as scope,
            ):
                outputs = self.layer(inputs, *args, **kwargs)
        finally:
            if self.linear:
                self.layer.activation = activation
        if isinstance(self.layer, RECURRENT + _ATTENTION) or is_users(self.layer):
            _keep_state(self.layer, scope)
        if self.linear:
            regularize_activity(self.layer, keras.activations.get(activation)(outputs))
        else:
            self.layer.add_loss(scope.losses)
        return keras.tree.map_structure(
            lambda output: keras.ops.cast(output, self.compute_dtype), outputs
        )

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the layer's specification in float32."""
        kwargs.pop("training", None)
        with own_call(self.layer):
            spec = self.layer.compute_output_spec(inputs, *args, **kwargs)
        return keras.tree.map_structure(
            lambda tensor: keras.KerasTensor(tensor.shape, dtype="float32"), spec
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "linear": self.linear,
            "float_activations": self.float_activations,
        }


@contextlib.contextmanager
def own_call(layer: Any) -> Iterator[None]:
    """Gives a model its own `call` back for a while, which in `fit` is the graph that it is in."""
    is_hooked = isinstance(layer, keras.Model) and "call" in vars(layer)
    hooked = vars(layer).pop("call") if is_hooked else None
    try:
        yield
    finally:
        if is_hooked:
            vars(layer)["call"] = hooked


def regularize_activity(layer: Any, outputs: Any) -> None:
    """Adds the loss of a layer's activity, per input as Keras does where it calls the layer.

    The layer itself gets it, so that it counts in the user's own model too.
    """
    if getattr(layer, "activity_regularizer", None) is not None:
        loss = layer.activity_regularizer(outputs)
        count = keras.ops.cast(keras.ops.shape(outputs)[0], loss.dtype)
        layer.add_loss(keras.ops.divide_no_nan(loss, count))


def _keep_state(layer: Any, scope: Any) -> None:
    """Carries seeds and states over that the scope would forget."""
    for variable in layer.non_trainable_variables:
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)


def kernels_of(layer: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """Lists the kernels of a layer, each with the axes that do not count output channels."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [*kernels_of(layer.forward_layer), *kernels_of(layer.backward_layer)]
    if isinstance(layer, keras.layers.RNN):
        cells = layer.cell.cells if hasattr(layer.cell, "cells") else [layer.cell]
        return [
            (kernel, tuple(range(len(kernel.shape) - 1)))
            for cell in cells
            if hasattr(cell, "recurrent_kernel")
            for kernel in (cell.kernel, cell.recurrent_kernel)
        ]
    if isinstance(layer, layers.TimeDistributed):
        return kernels_of(layer.layer)
    if isinstance(layer, layers.Embedding):
        return [(layer.embeddings, (0, 1))]
    if isinstance(layer, _SEPARABLE):
        rank = len(layer.depthwise_kernel.shape)
        return [
            (layer.depthwise_kernel, tuple(range(rank - 2))),
            (layer.pointwise_kernel, tuple(range(rank - 1))),
        ]
    if isinstance(layer, _ATTENTION):
        # The last reduces heads and their features, the others the features of the input.
        kernels = [v for v in layer.weights if v.name == "kernel"]
        return [(v, (0, 1) if "attention_output" in v.path else (0,)) for v in kernels]
    if isinstance(layer, CARRYING):
        return [(layer.kernel, kernel_axes(layer))]
    inside = (pair for inner in _known_inside(layer, set()) for pair in kernels_of(inner))
    return list({id(kernel): (kernel, axes) for kernel, axes in inside}.values())


def _known_inside(layer: Any, seen: set[int]) -> Iterator[Any]:
    """Yields the nearest layers with kernels inside of a layer, each once."""
    for inner in layers_inside(layer):
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        if isinstance(inner, CARRYING + RECURRENT + _SEVERAL):
            yield inner
        else:
            yield from _known_inside(inner, seen)


def kernel_axes(layer: Any) -> tuple[int, ...]:
    """Returns the axes of a layer's kernel that do not count output channels."""
    rank = len(layer.kernel.shape)
    if isinstance(layer, _DEPTHWISE):
        return tuple(range(rank - 2))
    if isinstance(layer, _TRANSPOSED):
        return (*range(rank - 2), rank - 1)
    if isinstance(layer, keras.layers.EinsumDense):
        left, output = layer.equation.replace("...", "").replace(" ", "").split("->")
        return tuple(i for i, axis in enumerate(left.split(",")[1]) if axis not in output)
    return tuple(range(rank - 1))
