"""A TFLite file, run beside the Keras model it came from before it is written."""

from kerasopt.export._c_array import to_c_array
from kerasopt.export._interpreter import TFLiteModel, TFLiteTensor, Timing
from kerasopt.export._metadata import Metadata, read_metadata
from kerasopt.export._operations import OperationMatch, OperationReport, compare_operations
from kerasopt.export._to_tflite import to_tflite
from kerasopt.export._verify import ExportResult, VerificationError

__all__ = [
    "ExportResult",
    "Metadata",
    "OperationMatch",
    "OperationReport",
    "TFLiteModel",
    "TFLiteTensor",
    "Timing",
    "VerificationError",
    "compare_operations",
    "read_metadata",
    "to_c_array",
    "to_tflite",
]
