"""Transfer learning: a pretrained backbone with a new head, its blocks, its unfreezing."""

from kerasopt.transfer._blocks import Block, Blocks, blocks
from kerasopt.transfer._classifier import build_classifier, split_layers
from kerasopt.transfer._finder import LearningRateFinder
from kerasopt.transfer._layerwise import LayerwiseLearningRate, RateGroup, RateTable
from kerasopt.transfer._preprocessing import Preprocess
from kerasopt.transfer._unfreeze import Unfreeze

__all__ = [
    "Block",
    "Blocks",
    "LayerwiseLearningRate",
    "LearningRateFinder",
    "Preprocess",
    "RateGroup",
    "RateTable",
    "Unfreeze",
    "blocks",
    "build_classifier",
    "split_layers",
]
