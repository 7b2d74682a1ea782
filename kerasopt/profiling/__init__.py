"""What a model is made of: parameters, zeros, distinct values, bits, bytes and MACs, per layer."""

from kerasopt.profiling._arena import arena_bytes
from kerasopt.profiling._profile import profile
from kerasopt.profiling._report import LayerProfile, Profile
from kerasopt.profiling._tflite_file import tflite_operators

__all__ = ["LayerProfile", "Profile", "arena_bytes", "profile", "tflite_operators"]
