"""What a model is made of, where its memory and bytes go, and where two models part."""

from kerasopt.profiling._arena import arena_bytes
from kerasopt.profiling._compare import ProfileComparison, compare
from kerasopt.profiling._diff import diff
from kerasopt.profiling._diff_report import Disagreement, LayerDifference, ModelDiff
from kerasopt.profiling._profile import profile
from kerasopt.profiling._report import LayerProfile, Profile
from kerasopt.profiling._tflite_file import tflite_operators

__all__ = [
    "Disagreement",
    "LayerDifference",
    "LayerProfile",
    "ModelDiff",
    "Profile",
    "ProfileComparison",
    "arena_bytes",
    "compare",
    "diff",
    "profile",
    "tflite_operators",
]
