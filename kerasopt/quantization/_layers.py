"""The two layers of a quantization-aware model: one for ranges, one around each kernel."""

from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt._validation import check_choice, check_int, check_number
from kerasopt.quantization._fake_quant import (
    away_from_zero_level,
    fake_quantize,
    fake_quantize_kernel,
)

CARRYING = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
"""The layers whose kernels are quantized."""


@serializable
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to int8 levels and learns their range from what passes in training.

    Each call site keeps a moving average of the batch minimum and maximum, started by its first
    batch; the range that counts is the widest over all sites, because tensors that meet in a
    concatenation need one range. Zero always lies inside. Before the first training batch the
    layer is the identity.

    Args:
        num_sites: how many call sites have a range of their own, >= 1.
        momentum: of the moving average, in [0, 1). Default 0.97.
        fixed_range: `(low, high)` for tensors whose range is known, such as softmax; nothing is
            learned then.
        role: `"activation"`, or `"input"` for the model's input: the widest range seen, and
            pixel ranges are taken whole (0 to 255, 0 to 1, -1 to 1), so that in the file a byte
            is a pixel.
        name: name of the layer.

    Call arguments:
        inputs: float tensor of any shape.
        site: which call site, 0 to `num_sites - 1`; -1 uses the range and does not watch.
        pooled: the input is an average pooling, whose ties round away from int8 zero.
        training: whether to update the range.

    Raises:
        TypeError: `num_sites` or `momentum` is not a number.
        ValueError: a value is out of range, or `fixed_range` does not hold 0.
    """

    def __init__(
        self,
        num_sites: int = 1,
        momentum: float = 0.97,
        fixed_range: tuple[float, float] | None = None,
        role: str = "activation",
        name: str | None = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, dtype=dtype, **kwargs)
        self.num_sites = check_int("num_sites", num_sites, low=1)
        self.momentum = check_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
        check_choice("role", role, ("activation", "input"))
        if fixed_range is not None and not fixed_range[0] <= 0.0 <= fixed_range[1]:
            raise ValueError(f"`fixed_range` must hold 0. Received: fixed_range={fixed_range}.")
        self.fixed_range = (
            None if fixed_range is None else (float(fixed_range[0]), float(fixed_range[1]))
        )
        self.role = role
        self.supports_masking = True
        shape = (self.num_sites,)
        self.minimum = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="minimum"
        )
        self.maximum = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="maximum"
        )
        self.built = True

    def call(
        self, inputs: Any, site: int = 0, pooled: bool = False, training: bool | None = None
    ) -> Any:
        """Returns the rounded tensor, same shape and dtype float32."""
        if training and site >= 0 and self.fixed_range is None:
            self._watch(tf.stop_gradient(inputs), site)
        low, high = self._range()
        x = away_from_zero_level(inputs, low, tf.maximum(high, low + 1e-6)) if pooled else inputs
        quantized = fake_quantize(x, low, tf.maximum(high, low + 1e-6))
        if training or self.fixed_range is not None:
            return quantized
        return tf.where(high > low, quantized, inputs)

    def range_value(self) -> tuple[float, float]:
        """Returns the range as two floats, `(0.0, 0.0)` before the first training batch."""
        low, high = self._range()
        return float(low), float(high)

    def _range(self) -> tuple[Any, Any]:
        if self.fixed_range is not None:
            return tf.constant(self.fixed_range[0]), tf.constant(self.fixed_range[1])
        low = tf.reduce_min(tf.convert_to_tensor(self.minimum))
        high = tf.reduce_max(tf.convert_to_tensor(self.maximum))
        return _whole_pixels(low, high) if self.role == "input" else (low, high)

    def _watch(self, x: Any, site: int) -> None:
        old_low, old_high = tf.convert_to_tensor(self.minimum), tf.convert_to_tensor(self.maximum)
        low, high = tf.minimum(tf.reduce_min(x), 0.0), tf.maximum(tf.reduce_max(x), 0.0)
        if self.role == "input":
            new_low, new_high = tf.minimum(old_low, low), tf.maximum(old_high, high)
        else:
            fresh = (old_low == 0.0) & (old_high == 0.0)
            keep = tf.where(fresh, 0.0, self.momentum)
            new_low = keep * old_low + (1.0 - keep) * low
            new_high = keep * old_high + (1.0 - keep) * high
        here = tf.range(self.num_sites) == site
        self.minimum.assign(tf.where(here, new_low, old_low))
        self.maximum.assign(tf.where(here, new_high, old_high))

    def compute_output_spec(self, inputs: Any, **_: Any) -> Any:
        """Returns a tensor spec of the input's shape."""
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_sites": self.num_sites,
            "momentum": self.momentum,
            "fixed_range": self.fixed_range,
            "role": self.role,
        }


def _whole_pixels(low: Any, high: Any) -> tuple[Any, Any]:
    positive = low >= 0.0
    unit = positive & (high > 0.5) & (high <= 1.0)
    byte = positive & (high > 127.0) & (high <= 255.0)
    signed = (low < -0.5) & (low >= -1.0) & (high > 0.5) & (high <= 1.0)
    low = tf.where(signed, -1.0, low)
    high = tf.where(unit | signed, 1.0, tf.where(byte, 255.0, high))
    return low, high


@serializable
class QuantizedLayer(keras.layers.Wrapper):
    """Calls a layer with its kernel rounded to int8 levels, one scale per output channel.

    Args:
        layer: a Conv2D, DepthwiseConv2D or Dense layer.
        linear: leave the layer's activation to an operation behind; only ReLU and ReLU6 fuse.
        name: name of the wrapper; default is the layer's own.

    Raises:
        TypeError: `layer` is none of these.
    """

    def __init__(
        self,
        layer: Any,
        linear: bool = False,
        name: str | None = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, CARRYING):
            raise TypeError(
                "`layer` must be a Conv2D, DepthwiseConv2D or Dense layer. "
                f"Received: layer={layer!r}."
            )
        # float32, so that rounding is exact; the layer inside keeps its own precision.
        super().__init__(layer, name=name or layer.name, dtype=dtype, **kwargs)
        self.linear = bool(linear)
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer inside."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Returns the layer's output, computed with the rounded kernel."""
        kernel = self.layer.kernel
        rounded = fake_quantize_kernel(tf.convert_to_tensor(kernel), kernel_axes(self.layer))
        activation = self.layer.activation
        try:
            if self.linear:
                self.layer.activation = keras.activations.linear
            with keras.StatelessScope(state_mapping=[(kernel, rounded)]):
                return keras.ops.cast(self.layer(inputs), self.compute_dtype)
        finally:
            self.layer.activation = activation

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "linear": self.linear}


def kernel_axes(layer: Any) -> tuple[int, ...]:
    """Returns the axes of a layer's kernel that do not count output channels."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (0, 1)
    return tuple(range(len(layer.kernel.shape) - 1))
