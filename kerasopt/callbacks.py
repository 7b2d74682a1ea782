"""The index of every callback, because that is where a Keras user looks."""

from kerasopt.augmentation import CutMix, MixUp
from kerasopt.pruning import PruneLowMagnitude
from kerasopt.quantization import QuantizeAware
from kerasopt.transfer import LayerwiseLearningRate, LearningRateFinder, Unfreeze

__all__ = [
    "CutMix",
    "LayerwiseLearningRate",
    "LearningRateFinder",
    "MixUp",
    "PruneLowMagnitude",
    "QuantizeAware",
    "Unfreeze",
]
