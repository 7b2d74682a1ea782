"""The layer behind each quantized tensor of a quantization-aware model: it holds the range."""

import sys
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._serialization import serializable
from kerasopt._validation import check_choice, check_int, check_number
from kerasopt.quantization._fake_quant import (
    away_from_zero_level,
    check_num_bits,
    fake_quantize,
    symmetric_range,
    tie_to_even,
    tie_upwards,
)

FIXED_INT16 = (-1.0, 32767.0 / 32768.0)
"""TFLite gives all 16-bit outputs of known range (softmax, sigmoid, tanh) the scale 1/32768."""
_DEEPEST = 10_000
"""Keras walks a graph by recursion, when it is built and when it is loaded. With a range behind
each operation EfficientNetV2L is deeper than the 1,000 calls that Python allows."""


@serializable
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to integer levels and learns their range from what passes in training.

    Each call site keeps an average of the smallest and the largest value of each batch, and the
    range that counts is the widest over all sites, because tensors that meet in a concatenation
    need one range. Zero always lies inside. In its batch number `n` (from 0) a site's

        average = keep * average + (1 - keep) * batch,  keep = min(momentum, n / (n + 1))

    which is the mean of the first batches and then a moving average. An 8-bit range of activations
    is 1/2000 wider at both ends, so that values on the grid of what was seen do not lie exactly
    halfway between two levels, where nobody can say to which they go. Before the first batch the
    layer is the identity. A tensor that was never anything but zero gets the range 0 to 1.

    Args:
        num_sites: how many call sites have a range of their own, >= 1.
        momentum: of the moving average, in [0, 1). Default 0.97.
        fixed_range: `(low, high)` for tensors whose range is known, such as softmax; nothing is
            learned then.
        role: `"activation"`, or `"input"` for the model's input: the widest range seen, and
            pixel ranges are taken whole (0 to 255, 0 to 1, -1 to 1), so that in the file a byte
            is a pixel.
        num_bits: 2 to 16. Default 8.
        symmetric: whether the range is widened until its zero point is 0.
        frozen: whether the range stays as it is in training. May be set later, also by `freeze`; a
            compiled step has to be traced anew then.
        name: name of the layer.

    Call arguments:
        inputs: float tensor of any shape.
        site: which call site, 0 to `num_sites - 1`; -1 uses the range and does not watch.
        pooled: the input is an average pooling, whose ties round away from integer zero; `"up"`
            for an interpolation, whose ties round up; `"even"` for a mean in the range of what it
            is the mean of, whose ties round to even integers.
        training: whether to update the range.

    Raises:
        TypeError: `num_sites`, `num_bits` or `momentum` is not a number.
        ValueError: a value is out of range, or `fixed_range` does not hold 0.
    """

    def __init__(
        self,
        num_sites: int = 1,
        momentum: float = 0.97,
        fixed_range: tuple[float, float] | None = None,
        role: str = "activation",
        num_bits: int = 8,
        symmetric: bool = False,
        frozen: bool = False,
        name: str | None = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _DEEPEST))
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
        self.num_bits = check_num_bits(num_bits)
        self.symmetric = bool(symmetric)
        self.frozen = bool(frozen)
        self.supports_masking = True
        self.minimum = self._add_state("minimum")
        self.maximum = self._add_state("maximum")
        self.seen = self._add_state("seen")
        self.built = True

    def _add_state(self, name: str) -> Any:
        # Every replica computes the same values, see `_batch_range`.
        return self.add_weight(
            shape=(self.num_sites,),
            initializer="zeros",
            trainable=False,
            name=name,
            aggregation="only_first_replica",
        )

    def call(
        self, inputs: Any, site: int = 0, pooled: bool | str = False, training: bool | None = None
    ) -> Any:
        """Returns the rounded tensor, same shape and dtype float32."""
        watching = training and site >= 0 and self.fixed_range is None and not self.frozen
        if watching:
            self._watch(tf.stop_gradient(inputs), site)
        low, high = self._range()
        high = tf.maximum(high, low + 1e-6)
        x = inputs
        if pooled:
            shift = {"up": tie_upwards, "even": tie_to_even}.get(str(pooled), away_from_zero_level)
            x = shift(inputs, low, high, num_bits=self.num_bits)
        # The gradient of `where` costs as much as all else of the layer.
        if watching or ((self.frozen or self.fixed_range) and self._has_range_now()):
            return fake_quantize(x, low, high, num_bits=self.num_bits)
        quantized = fake_quantize(x, low, high, num_bits=self.num_bits)
        return tf.where(tf.reduce_max(tf.convert_to_tensor(self.seen)) > 0.0, quantized, inputs)

    def _has_range_now(self) -> bool:
        """Tells the same while a step is traced, of the values that the variables have then."""
        with tf.init_scope():
            return self.has_range

    @property
    def has_range(self) -> bool:
        """Whether the range is fixed, or data were seen."""
        return self.fixed_range is not None or bool(tf.reduce_max(self.seen.value) > 0.0)

    def freeze(self) -> None:
        """Keeps the range that there is from now on; a compiled step has to be traced anew.

        Raises:
            ValueError: there is none yet.
        """
        if not self.has_range:
            raise ValueError(
                f"{self.name!r} must have seen data before its range is frozen. Received: none. "
                "Call the model with training=True, or calibrate it, first."
            )
        self.frozen = True

    def range_value(self) -> tuple[float, float]:
        """Returns the range as two floats, `(0.0, 0.0)` before the first training batch."""
        if not self.has_range:
            return 0.0, 0.0
        low, high = self._range()
        return float(low), float(high)

    def hide(self, inputs: Any, hidden: Any) -> Any:
        """Lowers values until a softmax gives them 0, and rounds to a range with room for that.

        What is hidden goes below all that the range can hold, to one level, so that nothing of it
        is left.

        Args:
            inputs: float tensor on the levels of this range, such as the scores of attention.
            hidden: 1.0 where a value must not count, else 0.0; broadcast against `inputs`.

        Returns:
            The tensor on the levels of `hidden_range`.
        """
        low, high = self._range()
        lowest, highest = self._hidden(low, high)
        lowered = inputs - hidden * (high - lowest)
        rounded = fake_quantize(lowered, lowest, highest, num_bits=self.num_bits)
        is_known = self.fixed_range is not None or tf.reduce_max(self.seen) > 0.0
        return tf.where(is_known, rounded, inputs - hidden * 1e9)

    def hidden_range(self) -> tuple[float, float]:
        """Returns the range of what `hide` returns as two floats."""
        low, high = self._hidden(*self._range())
        return float(low), float(high)

    def _hidden(self, low: Any, high: Any) -> tuple[Any, Any]:
        if self.symmetric:
            return symmetric_range(low - _HIDDEN, high, num_bits=self.num_bits)
        return _off_ties(low - _HIDDEN, high)

    def set_range(self, low: Any, high: Any, *, batches: int = 1) -> None:
        """Sets the range, as if it had been seen in training.

        Args:
            low: a number for each call site, <= 0.
            high: a number for each call site, >= 0.
            batches: how many batches it counts for when training goes on, >= 1; so many that a
                batch moves it by `1 / (batches + 1)`, or by `1 - momentum`, what is more.
        """
        self.minimum.assign(low)
        self.maximum.assign(high)
        self.seen.assign(tf.fill([self.num_sites], float(batches)))

    def _range(self) -> tuple[Any, Any]:
        if self.fixed_range is not None:
            low, high = tf.constant(self.fixed_range[0]), tf.constant(self.fixed_range[1])
        else:
            low = tf.reduce_min(tf.convert_to_tensor(self.minimum))
            high = tf.reduce_max(tf.convert_to_tensor(self.maximum))
            if self.role == "input":
                low, high = _whole_pixels(low, high)
            elif self.num_bits == 8 and not self.symmetric:
                low, high = low * _STRETCH, high * _STRETCH
            high = tf.where(high - low < _NARROWEST, 1.0, high)
            if self.num_bits == 8 and not self.symmetric:
                low, high = _off_ties(low, high)
        if self.symmetric:
            low, high = symmetric_range(low, high, num_bits=self.num_bits)
        return low, high

    def _watch(self, x: Any, site: int) -> None:
        old_low, old_high = tf.convert_to_tensor(self.minimum), tf.convert_to_tensor(self.maximum)
        seen = tf.convert_to_tensor(self.seen)
        low, high = _batch_range(x)
        if self.role == "input":
            new_low, new_high = tf.minimum(old_low, low), tf.maximum(old_high, high)
        else:
            keep = tf.minimum(self.momentum, seen / (seen + 1.0))
            new_low = keep * old_low + (1.0 - keep) * low
            new_high = keep * old_high + (1.0 - keep) * high
        count = seen + 1.0
        if self.num_sites > 1:
            here = tf.range(self.num_sites) == site
            new_low, new_high = tf.where(here, new_low, old_low), tf.where(here, new_high, old_high)
            count = tf.where(here, count, seen)
        self.minimum.assign(new_low)
        self.maximum.assign(new_high)
        self.seen.assign(count)

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
            "num_bits": self.num_bits,
            "symmetric": self.symmetric,
            "frozen": self.frozen,
        }


_HIDDEN = 16.0
"""How far below the lowest score the hidden ones lie. `exp(-16)` is far below the 1/256 in which
the file gives its softmax, also a thousandfold, and leaves levels for the scores themselves, which
-1e9 would not."""

_NARROWEST = 1e-6
"""What is narrower was never anything but zero, and any range holds it."""

_STRETCH = 2001.0 / 2000.0
"""How much wider than what it saw an 8-bit range of activations is.

What an operation makes of int8 inputs lies on a grid, and so do the ends of its range: the ends of
a mean of 8 values are `n` eighths of an input step apart, and its levels `n / 255` of that. When
`n` and 510 have a divisor in common, some values of the grid, up to every second, lie exactly
halfway between two levels, and the last bit of a float decides to which they go. Stretched, they
lie off the middle by far more than float32 errs, and next to none of the others comes there."""


def _batch_range(x: Any) -> tuple[Any, Any]:
    """Returns the smallest and largest value of a batch with zero, over all replicas."""
    low, high = tf.minimum(tf.reduce_min(x), 0.0), tf.maximum(tf.reduce_max(x), 0.0)
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        ends = replica.all_gather(tf.stack([low, high])[None], axis=0)
        return tf.reduce_min(ends[:, 0]), tf.reduce_max(ends[:, 1])
    return low, high


def _off_ties(low: Any, high: Any) -> tuple[Any, Any]:
    """Moves a range whose zero lies halfway between two levels, as that of -1 to 1 does.

    TensorFlow computes in float32 to which of the two it goes, and the converter in float64; and
    pixels scaled to -1 to 1 would all lie halfway between two levels. The highest value is clipped
    by up to a step.
    """
    step = (high - low) / 255.0
    zero = -low / tf.maximum(step, 1e-30)
    is_tie = (low < 0.0) & (tf.abs(zero - tf.floor(zero) - 0.5) < 0.001)
    level = tf.floor(zero) + 1.0
    return low, tf.where(is_tie, -low / level * (255.0 - level), high)


def _whole_pixels(low: Any, high: Any) -> tuple[Any, Any]:
    positive = low >= 0.0
    unit = positive & (high > 0.5) & (high <= 1.0)
    byte = positive & (high > 127.0) & (high <= 255.0)
    signed = (low < -0.5) & (low >= -1.0) & (high > 0.5) & (high <= 1.0)
    low = tf.where(signed, -1.0, low)
    high = tf.where(unit | signed, 1.0, tf.where(byte, 255.0, high))
    return low, high
