"""Augmentation inside the model: on in training, absent from inference and from the TFLite file."""

from kerasopt.augmentation._basic import basic
from kerasopt.augmentation._container import Augmentation
from kerasopt.augmentation._preview import preview

__all__ = ["Augmentation", "basic", "preview"]
