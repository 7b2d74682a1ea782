"""Transfer learning: a pretrained backbone with a new head, its blocks, its unfreezing."""

from kerasopt.transfer._averaging import WeightAveraging
from kerasopt.transfer._blocks import Block, Blocks, blocks
from kerasopt.transfer._classifier import build_classifier, split_layers
from kerasopt.transfer._features import FeatureExtractor
from kerasopt.transfer._finder import LearningRateFinder
from kerasopt.transfer._fine_tune import fine_tune, fine_tuning_callbacks
from kerasopt.transfer._freeze import Freeze
from kerasopt.transfer._layerwise import LayerwiseLearningRate, RateGroup, RateTable
from kerasopt.transfer._preprocessing import Preprocess
from kerasopt.transfer._probe import LinearProbe, linear_probe
from kerasopt.transfer._recalibrate import recalibrate_batch_norm
from kerasopt.transfer._schedule import WarmupCosine
from kerasopt.transfer._unfreeze import GradualUnfreeze, Unfreeze

__all__ = [
    "Block",
    "Blocks",
    "FeatureExtractor",
    "Freeze",
    "GradualUnfreeze",
    "LayerwiseLearningRate",
    "LearningRateFinder",
    "LinearProbe",
    "Preprocess",
    "RateGroup",
    "RateTable",
    "Unfreeze",
    "WarmupCosine",
    "WeightAveraging",
    "blocks",
    "build_classifier",
    "fine_tune",
    "fine_tuning_callbacks",
    "linear_probe",
    "recalibrate_batch_norm",
    "split_layers",
]
