"""Transfer learning: a pretrained backbone with a new head, its blocks, its unfreezing."""

from kerasopt.transfer._blocks import Block, Blocks, blocks
from kerasopt.transfer._classifier import build_classifier, split_layers
from kerasopt.transfer._features import FeatureExtractor
from kerasopt.transfer._preprocessing import Preprocess
from kerasopt.transfer._probe import LinearProbe, linear_probe
from kerasopt.transfer._unfreeze import Unfreeze

__all__ = [
    "Block",
    "Blocks",
    "FeatureExtractor",
    "LinearProbe",
    "Preprocess",
    "Unfreeze",
    "blocks",
    "build_classifier",
    "linear_probe",
    "split_layers",
]
