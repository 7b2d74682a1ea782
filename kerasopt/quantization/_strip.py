"""`strip`: the float model inside a quantization-aware one."""

from typing import Any

from kerasopt.quantization._renamed import copy_model
from kerasopt.quantization._twin import check_quantization_aware, strip_ranges
from kerasopt.training import settle


def strip(model: Any) -> Any:
    """Returns the float model of a quantization-aware one, with the layers it was made from.

    Ranges, wrappers and activations that were taken out of their layers are undone; weights are
    those that were trained, not rounded, and what was frozen stays frozen. Nested models stay
    opened, as `quantize_aware` opens them.

    Args:
        model: what `quantize_aware` returned, a reloaded one too, or
            `QuantizeAware.quantized_model`. It is not changed.

    Returns:
        A functional `keras.Model` on layers of its own, not compiled, that needs no kerasopt to
        load, unless it was a subclassed model with weights of its own, which need a layer here.

    Raises:
        ValueError: the model is not quantization-aware.

    Example:
        >>> import keras, kerasopt as ko
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, name="dense")])
        >>> type(strip(ko.quantization.quantize_aware(model)).get_layer("dense")).__name__
        'Dense'
    """
    check_quantization_aware(model)
    settle(model)
    return copy_model(strip_ranges(model))
