"""The index of every callback, because that is where a Keras user looks."""

from kerasopt.augmentation import CutMix, MixUp
from kerasopt.distillation import Distill
from kerasopt.pruning import PruneLowMagnitude
from kerasopt.quantization import QuantizationGap, QuantizeAware
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
    "Distill",
    "Freeze",
    "GradualUnfreeze",
    "LayerwiseLearningRate",
    "LearningRateFinder",
    "MixUp",
    "PruneLowMagnitude",
    "QuantizationGap",
    "QuantizeAware",
    "Unfreeze",
    "WarmupCosine",
    "WeightAveraging",
]
