"""The layer around an operation that becomes several operators in int8."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt._validation import check_choice, check_int
from kerasopt.quantization._fake_quant import fake_quantize_kernel
from kerasopt.quantization._kernels import regularize_activity
from kerasopt.quantization._layers import FIXED_INT16, FakeQuantize
from kerasopt.quantization._rules import STEPS, activation_rule
from kerasopt.quantization._steps import Fixed, Steps, constant_levels

CALL_ONLY = ("site", "training")
"""Arguments of a call that are not the user's."""


@serializable
class DecomposedLayer(keras.layers.Layer):
    """Computes an operation in the steps that its int8 file takes, with a range behind each.

    The layer inside is the user's own, with its variables; what comes out is the same up to the
    rounding.

    Args:
        layer: a layer or a `keras.ops` operation, such as SeparableConv2D, LayerNormalization,
            MultiHeadAttention or a SiLU activation.
        steps: the name of the steps it is taken apart into.
        ranges: name of each inner range -> `(low, high)` where it is fixed, else `None`.
        num_sites: how many times the layer is called, each with ranges of its own values, >= 1.
        num_bits: of the inner ranges, 8 or 16 (symmetric).
        name: name of the wrapper; default is the layer's own.

    Call arguments:
        inputs: what the layer takes.
        site: which call it is, 0 to `num_sites - 1`.

    Raises:
        TypeError: `layer` is neither a layer nor an operation.
        ValueError: there are no `steps` of that name.
    """

    def __init__(
        self,
        layer: Any,
        steps: str,
        ranges: dict[str, Fixed],
        num_sites: int = 1,
        num_bits: int = 8,
        name: str | None = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        if isinstance(layer, dict):
            layer = keras.saving.deserialize_keras_object(layer)
        if not isinstance(layer, keras.Operation):
            raise TypeError(
                f"`layer` must be a Keras layer or operation. Received: layer={layer!r}."
            )
        check_choice("steps", steps, tuple(STEPS))
        super().__init__(name=name or layer.name, dtype=dtype, **kwargs)
        self.layer = layer
        self.steps = steps
        self.num_sites = check_int("num_sites", num_sites, low=1)
        check_choice("num_bits", num_bits, (8, 16))
        self.num_bits = num_bits
        self.ranges = {
            key: FakeQuantize(
                self.num_sites,
                fixed_range=fixed if fixed is None or num_bits == 8 else FIXED_INT16,
                num_bits=num_bits,
                symmetric=num_bits == 16,
                name=f"{self.name}_{key}_range",
            )
            for key, fixed in ranges.items()
        }
        rate = getattr(layer, "dropout", 0.0)
        self.seeds = keras.random.SeedGenerator() if isinstance(rate, float) and rate else None
        self.supports_masking = True
        self.built = True

    @property
    def layers(self) -> list[Any]:
        """The layer inside, if it is one, and the inner ranges."""
        inner = [self.layer] if isinstance(self.layer, keras.Layer) else []
        return [*inner, *self.ranges.values()]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the mask that the layer inside hands on, if it hands one on."""
        if not getattr(self.layer, "supports_masking", False):
            return None
        return self.layer.compute_mask(inputs, mask)

    def call(self, inputs: Any, *args: Any, site: int = 0, training: Any = None, **kwargs: Any):  # type: ignore[no-untyped-def]
        """Returns what the layer returns, before the range behind it."""

        def round_to(name: str, tensor: Any, fixed: Fixed) -> Any:  # noqa: ARG001
            return self.ranges[name](tensor, site=site, training=training)

        def drop(tensor: Any, rate: float) -> Any:
            if not (training and rate):
                return tensor
            return keras.random.dropout(tensor, rate, seed=self.seeds)

        def inverse_root(x: Any) -> Any:
            zero = x <= 0.0
            root = tf.math.rsqrt(tf.where(zero, tf.ones_like(x), x))
            # int8 gives the largest level there; in training that may not widen the range.
            top = tf.reduce_max(root) if training else tf.constant(1e30)
            return tf.where(zero, top, root)

        steps = Steps(
            range=round_to,
            kernel=lambda v, axes: fake_quantize_kernel(tf.convert_to_tensor(v), axes),
            variable=tf.convert_to_tensor,
            affine=affine,
            constant=constant_levels,
            dropout=drop,
            inverse_root=inverse_root,
            hide=lambda name, x, hidden: self.ranges[name].hide(x, hidden),
            activation_steps=activation_steps,
        )
        outputs = STEPS[self.steps](steps, self.layer, inputs, *args, **kwargs)
        regularize_activity(self.layer, outputs)
        return outputs

    def probe(
        self, note: Callable[[FakeQuantize, int, Any], None], *args: Any, **kwargs: Any
    ) -> Any:
        """Takes the steps on symbolic tensors without rounding what runs through them.

        Args:
            note: hears of each inner range, its site and the tensor that it watches.
            args: as for a call.
            kwargs: likewise.

        Returns:
            The symbolic output, with the weights of now as constants.
        """
        site = kwargs.pop("site", 0)
        kwargs.pop("training", None)

        def watch(name: str, tensor: Any, fixed: Fixed) -> Any:  # noqa: ARG001
            note(self.ranges[name], site, tensor)
            return tensor

        as_array = keras.ops.convert_to_numpy
        steps = Steps(
            range=watch,
            kernel=lambda v, axes: np.asarray(fake_quantize_kernel(as_array(v), axes)),
            variable=as_array,
            affine=affine,
            constant=lambda value: np.asarray(constant_levels(value)),
            dropout=lambda x, _rate: x,
            inverse_root=keras.ops.rsqrt,
            hide=lambda _name, x, hidden: x - hidden * 1e9,
            activation_steps=activation_steps,
        )
        return STEPS[self.steps](steps, self.layer, *args, **kwargs)

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the layer's own specification, in float32."""
        args, kwargs = self.as_called((inputs, *args), kwargs)
        spec = self.layer.compute_output_spec(*args, **kwargs)
        return keras.KerasTensor(spec.shape, dtype="float32")

    def as_called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns the arguments with which the user called the layer inside."""
        kwargs = {name: value for name, value in kwargs.items() if name not in CALL_ONLY}
        if "place" not in kwargs:
            return args, kwargs
        constant = np.asarray(kwargs["constant"], "float32")
        return ((constant, args[0]) if kwargs["place"] == 0 else (args[0], constant)), {}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "steps": self.steps,
            "ranges": {
                name: None if layer.fixed_range is None else list(layer.fixed_range)
                for name, layer in self.ranges.items()
            },
            "num_sites": self.num_sites,
            "num_bits": self.num_bits,
        }


def inner_ranges(op: Any, function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Fixed]:
    """Lists the inner ranges of a decomposition, by running it on symbolic tensors."""
    found: dict[str, Fixed] = {}

    def note(name: str, tensor: Any, fixed: Fixed) -> Any:
        found[name] = fixed
        return tensor

    function(
        Steps(
            range=note,
            kernel=lambda v, _axes: np.zeros(v.shape, "float32"),
            variable=lambda v: np.zeros(v.shape, "float32"),
            affine=lambda x, _scale, _offset: x,
            constant=lambda value: np.asarray(value, "float32"),
            dropout=lambda x, _rate: x,
            inverse_root=keras.ops.rsqrt,
            hide=lambda _name, x, hidden: x - hidden * 1e9,
            activation_steps=activation_steps,
        ),
        op,
        *args,
        **kwargs,
    )
    return found


def affine(x: Any, scale: Any, offset: Any) -> Any:
    """`x * scale + offset` along the last axis."""
    x = x if scale is None else x * scale
    return x if offset is None else x + offset


def activation_steps(function: Any) -> Callable[..., Any] | None:
    """Returns the steps of an activation function."""
    return activation_rule(function).steps
