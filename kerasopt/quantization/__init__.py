"""Quantization-aware training whose result equals its int8 TFLite file."""

from kerasopt.quantization._callback import QuantizeAware
from kerasopt.quantization._fake_quant import fake_quantize, fake_quantize_kernel
from kerasopt.quantization._layers import FakeQuantize, QuantizedLayer
from kerasopt.quantization._twin import (
    export_twin,
    float_operations,
    is_quantization_aware,
    quantize_aware,
)

__all__ = [
    "FakeQuantize",
    "QuantizeAware",
    "QuantizedLayer",
    "export_twin",
    "fake_quantize",
    "fake_quantize_kernel",
    "float_operations",
    "is_quantization_aware",
    "quantize_aware",
]
