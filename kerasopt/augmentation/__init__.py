"""Augmentation inside the model: on in training, absent from inference and from the TFLite file."""

from kerasopt.augmentation._basic import basic
from kerasopt.augmentation._container import Augmentation
from kerasopt.augmentation._mixing import CutMix, MixUp
from kerasopt.augmentation._preview import preview
from kerasopt.augmentation._recipes import augmix, autoaugment, randaugment, trivialaugment
from kerasopt.augmentation._tta import predict_tta

__all__ = [
    "Augmentation",
    "CutMix",
    "MixUp",
    "augmix",
    "autoaugment",
    "basic",
    "predict_tta",
    "preview",
    "randaugment",
    "trivialaugment",
]
