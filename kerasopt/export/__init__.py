"""A TFLite file, run beside the Keras model it came from before it is written."""

from kerasopt.export._interpreter import TFLiteModel, Timing
from kerasopt.export._to_tflite import to_tflite
from kerasopt.export._verify import ExportResult, VerificationError

__all__ = ["ExportResult", "TFLiteModel", "Timing", "VerificationError", "to_tflite"]
