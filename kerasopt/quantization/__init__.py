"""Quantization-aware training whose result equals its int8 TFLite file."""

from kerasopt.quantization._calibrate import Calibration, calibrate
from kerasopt.quantization._callback import QuantizeAware
from kerasopt.quantization._decomposed import DecomposedLayer
from kerasopt.quantization._export_twin import export_twin
from kerasopt.quantization._fake_quant import fake_quantize, fake_quantize_kernel, symmetric_range
from kerasopt.quantization._float_weights import load_float_weights
from kerasopt.quantization._gap import Gap, QuantizationGap
from kerasopt.quantization._kernels import QuantizedLayer
from kerasopt.quantization._layers import FakeQuantize
from kerasopt.quantization._observe import KernelLevels, kernel_levels, run_observed
from kerasopt.quantization._renamed import RenamedLayer
from kerasopt.quantization._schemes import Scheme, resolve_scheme
from kerasopt.quantization._strip import strip
from kerasopt.quantization._twin import (
    float_operations,
    is_quantization_aware,
    quantize_aware,
    scheme_of,
)
from kerasopt.quantization._variables import WithVariables

__all__ = [
    "Calibration",
    "DecomposedLayer",
    "FakeQuantize",
    "Gap",
    "KernelLevels",
    "QuantizationGap",
    "QuantizeAware",
    "QuantizedLayer",
    "RenamedLayer",
    "Scheme",
    "WithVariables",
    "calibrate",
    "export_twin",
    "fake_quantize",
    "fake_quantize_kernel",
    "float_operations",
    "is_quantization_aware",
    "kernel_levels",
    "load_float_weights",
    "quantize_aware",
    "resolve_scheme",
    "run_observed",
    "scheme_of",
    "strip",
    "symmetric_range",
]
