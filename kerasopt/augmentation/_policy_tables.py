"""What the policies draw from: operations, probabilities and strengths of the papers."""

from typing import NamedTuple

import numpy as np

from kerasopt.augmentation._policy_operations import OPERATIONS, index_of

MAX_MAGNITUDE = 30
_TRIVIAL_BINS = 31
_AUTOAUGMENT_BINS = 10

_PLAIN = {"Identity", "AutoContrast", "Equalize", "Invert"}
_UNSIGNED = {*_PLAIN, "Posterize", "Solarize"}

_STANDARD = {
    "Identity": 0.0,
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150 / 331,
    "TranslateY": 150 / 331,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
    "Posterize": 4.0,
    "Solarize": 256.0,
    "AutoContrast": 0.0,
    "Equalize": 0.0,
}
"""The 14 operations of RandAugment, with their strengths at the largest magnitude."""

_WIDE = {
    "Identity": 0.0,
    "ShearX": 0.99,
    "ShearY": 0.99,
    "TranslateXPixels": 32.0,
    "TranslateYPixels": 32.0,
    "Rotate": 135.0,
    "Brightness": 0.99,
    "Color": 0.99,
    "Contrast": 0.99,
    "Sharpness": 0.99,
    "Posterize": 6.0,
    "Solarize": 256.0,
    "AutoContrast": 0.0,
    "Equalize": 0.0,
}
"""The wide space of TrivialAugment."""

# Sub-policies of two operations: name, probability in tenths, magnitude bin (- where none is
# needed). Tables 9 (ImageNet) and 7 (CIFAR-10) of arXiv:1805.09501.
_IMAGENET = """
    Posterize 4 8, Rotate 6 9
    Solarize 6 5, AutoContrast 6 -
    Equalize 8 -, Equalize 6 -
    Posterize 6 7, Posterize 6 6
    Equalize 4 -, Solarize 2 4
    Equalize 4 -, Rotate 8 8
    Solarize 6 3, Equalize 6 -
    Posterize 8 5, Equalize 10 -
    Rotate 2 3, Solarize 6 8
    Equalize 6 -, Posterize 4 6
    Rotate 8 8, Color 4 0
    Rotate 4 9, Equalize 6 -
    Equalize 0 -, Equalize 8 -
    Invert 6 -, Equalize 10 -
    Color 6 4, Contrast 10 8
    Rotate 8 8, Color 10 2
    Color 8 8, Solarize 8 7
    Sharpness 4 7, Invert 6 -
    ShearX 6 5, Equalize 10 -
    Color 4 0, Equalize 6 -
    Equalize 4 -, Solarize 2 4
    Solarize 6 5, AutoContrast 6 -
    Invert 6 -, Equalize 10 -
    Color 6 4, Contrast 10 8
    Equalize 8 -, Equalize 6 -
"""
_CIFAR10 = """
    Invert 1 -, Contrast 2 6
    Rotate 7 2, TranslateX 3 9
    Sharpness 8 1, Sharpness 9 3
    ShearY 5 8, TranslateY 7 9
    AutoContrast 5 -, Equalize 9 -
    ShearY 2 7, Posterize 3 7
    Color 4 3, Brightness 6 7
    Sharpness 3 9, Brightness 7 9
    Equalize 6 -, Equalize 5 -
    Contrast 6 7, Sharpness 6 5
    Color 7 7, TranslateX 5 8
    Equalize 3 -, AutoContrast 4 -
    TranslateY 4 3, Sharpness 2 6
    Brightness 9 6, Color 2 8
    Solarize 5 2, Invert 0 -
    Equalize 2 -, AutoContrast 6 -
    Equalize 2 -, Equalize 6 -
    Color 9 9, Equalize 6 -
    AutoContrast 8 -, Solarize 2 8
    Brightness 1 3, Color 7 0
    Solarize 4 5, AutoContrast 9 -
    TranslateY 9 9, TranslateY 7 9
    AutoContrast 9 -, Solarize 8 3
    Equalize 8 -, Invert 1 -
    TranslateY 7 9, AutoContrast 9 -
"""
AUTOAUGMENT = {"imagenet": _IMAGENET, "cifar10": _CIFAR10}


class Table(NamedTuple):
    """Sub-policies to draw from with equal chances; arrays `(sub-policies, operations in one)`."""

    operations: np.ndarray
    probabilities: np.ndarray
    strengths: np.ndarray
    signed: np.ndarray


def randaugment_table(magnitude: float) -> Table:
    """Returns one sub-policy for each operation, at a magnitude in [0, 30]."""
    part = magnitude / MAX_MAGNITUDE
    return _table([[(name, 1.0, _strength(_STANDARD, name, part))] for name in _STANDARD])


def trivialaugment_table() -> Table:
    """Returns one sub-policy for each operation and each of 31 magnitudes."""
    parts = np.linspace(0, 1, _TRIVIAL_BINS)
    return _table([[(name, 1.0, _strength(_WIDE, name, part))] for name in _WIDE for part in parts])


def autoaugment_table(name: str) -> Table:
    """Returns the 25 sub-policies of a policy of `AUTOAUGMENT`."""
    rows = AUTOAUGMENT[name].strip().splitlines()
    return _table([[_parse(entry) for entry in row.split(",")] for row in rows])


def _parse(entry: str) -> tuple[str, float, float]:
    name, tenths, level = entry.split()
    part = 0.0 if level == "-" else int(level) / (_AUTOAUGMENT_BINS - 1)
    return name, int(tenths) / 10, _strength(_STANDARD, name, part)


def _strength(space: dict[str, float], name: str, part: float) -> float:
    if name in _PLAIN:
        return 0.0
    largest = space[name] * part
    if name == "Posterize":
        return 8 - round(largest)
    return 256 - largest if name == "Solarize" else largest


def _table(policy: list[list[tuple[str, float, float]]]) -> Table:
    names, probabilities, strengths = np.moveaxis(np.array(policy, dtype=object), -1, 0)
    return Table(
        np.vectorize(index_of)(names).astype("int32"),
        probabilities.astype("float32"),
        strengths.astype("float32"),
        np.vectorize(lambda name: name not in _UNSIGNED)(names),
    )


class Ramp(NamedTuple):
    """Strength of an AugMix operation as a function of its level: `start + slope * level`."""

    start: float
    slope: float
    whole: bool = False
    signed: bool = False


_AUGMIX = {
    "AutoContrast": Ramp(0, 0),
    "Equalize": Ramp(0, 0),
    "Posterize": Ramp(4, -0.4, whole=True),
    "Rotate": Ramp(0, 3.0, whole=True, signed=True),
    "Solarize": Ramp(256, -25.6, whole=True),
    "ShearX": Ramp(0, 0.03, signed=True),
    "ShearY": Ramp(0, 0.03, signed=True),
    "TranslateX": Ramp(0, 1 / 30, signed=True),
    "TranslateY": Ramp(0, 1 / 30, signed=True),
}
_AUGMIX_OVERLAPPING = dict.fromkeys(
    ("Color", "Contrast", "Brightness", "Sharpness"), Ramp(-0.9, 0.18)
)


def augmix_table(*, all_operations: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the operations `(count,)` and their ramps `(count, 4)`."""
    chosen = _AUGMIX | _AUGMIX_OVERLAPPING if all_operations else _AUGMIX
    operations = np.array([OPERATIONS.index(name) for name in chosen], "int32")
    return operations, np.array([*chosen.values()], "float32")
