"""A TFLite file, run beside the Keras model it came from before it is written."""

from kerasopt.export._benchmark import BenchmarkReport, benchmark
from kerasopt.export._c_array import to_c_array
from kerasopt.export._compare import InterpreterRun
from kerasopt.export._interpreter import TFLiteModel, TFLiteTensor
from kerasopt.export._metadata import Metadata, read_metadata
from kerasopt.export._operations import OperationMatch, OperationReport, compare_operations
from kerasopt.export._operator_times import OperatorTimes, OperatorTiming, time_operators
from kerasopt.export._tensors import Activation, activations
from kerasopt.export._timing import Timing
from kerasopt.export._to_onnx import to_onnx
from kerasopt.export._to_saved_model import to_saved_model
from kerasopt.export._to_tflite import to_tflite
from kerasopt.export._verify import ExportResult, VerificationError

__all__ = [
    "Activation",
    "BenchmarkReport",
    "ExportResult",
    "InterpreterRun",
    "Metadata",
    "OperationMatch",
    "OperationReport",
    "OperatorTimes",
    "OperatorTiming",
    "TFLiteModel",
    "TFLiteTensor",
    "Timing",
    "VerificationError",
    "activations",
    "benchmark",
    "compare_operations",
    "read_metadata",
    "time_operators",
    "to_c_array",
    "to_onnx",
    "to_saved_model",
    "to_tflite",
]
