"""The index of every callback, because that is where a Keras user looks."""

from kerasopt.augmentation import CutMix, MixUp
from kerasopt.pruning import PruneLowMagnitude
from kerasopt.quantization import QuantizeAware
from kerasopt.transfer import (
    Freeze,
    GradualUnfreeze,
    LayerwiseLearningRate,
    LearningRateFinder,
    Unfreeze,
    WarmupCosine,
    WeightAveraging,
)

__all__ = [
    "CutMix",
    "Freeze",
    "GradualUnfreeze",
    "LayerwiseLearningRate",
    "LearningRateFinder",
    "MixUp",
    "PruneLowMagnitude",
    "QuantizeAware",
    "Unfreeze",
    "WarmupCosine",
    "WeightAveraging",
]
