"""The recipes of the papers: RandAugment, TrivialAugment, AutoAugment, AugMix."""

from typing import Any

from kerasopt._validation import check_choice, check_int, check_number
from kerasopt.augmentation._container import Augmentation
from kerasopt.augmentation._policy_layers import AugMixPolicy, PolicyAugment
from kerasopt.augmentation._policy_tables import AUTOAUGMENT, MAX_MAGNITUDE
from kerasopt.augmentation._random_erasing import RandomErasing
from kerasopt.augmentation._value_range import check_value_range


def randaugment(
    num_ops: int = 2,
    magnitude: float = 9,
    *,
    random_erasing: float = 0.0,
    fill_value: float | None = None,
    value_range: tuple[float, float] = (0, 255),
    seed: int | None = None,
    name: str | None = "augmentation",
) -> Augmentation:
    """Returns RandAugment: a few operations, drawn anew for each image, at one magnitude.

    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search
    space", arXiv:1909.13719. Each of the 14 operations of the paper has the same chance, identity
    among them. The magnitude runs from 0 to 30, where every strength is at its largest (shear
    0.3, translation 150/331 of the side, rotation 30°, enhancement factor 1 ± 0.9, four bits
    dropped, all levels solarized), the scale of torchvision. The paper states 0 to 10 for the
    same strengths and goes beyond it in its experiments: its 10 is 30 here. With probability 1/2
    each, shears, translations, rotations and enhancements have the opposite sign. The authors'
    code draws the sign of the geometric ones alone, and its enhancement factor rises with the
    magnitude from 0.1 to 1.9, so that a weak magnitude changes much; here 0 changes nothing.

    The operations are those of Pillow. Colour leaves images of one channel alone. The paper flips
    and crops beside it; see docs/augmentation.md for how to add that.

    Args:
        num_ops: operations that each image goes through, >= 1. The paper takes 1 to 3.
        magnitude: strength of all of them, in [0, 30].
        random_erasing: probability in [0, 1] that a rectangle of the image, 2 to 33 % of it, is
            replaced by noise at the end (Zhong et al., arXiv:1708.04896).
        fill_value: value of pixels that a warp uncovers, within `value_range`, or `None`: the
            middle grey of the authors' code.
        value_range: `(low, high)` of the pixels.
        seed: int >= 0 or `None`, see `Augmentation`.
        name: name of the layer.

    Returns:
        An `Augmentation` for images `(batch, height, width, channels)`.

    Raises:
        ValueError: a number is out of its range, `value_range` is not increasing.
        TypeError: an argument has the wrong type.

    Example:
        >>> import numpy as np
        >>> import kerasopt as ko
        >>> augmentation = ko.augmentation.randaugment(magnitude=12, seed=1)
        >>> images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
        >>> augmentation(images, training=True).shape
        TensorShape([4, 32, 32, 3])
    """
    check_int("num_ops", num_ops, low=1)
    magnitude = check_number("magnitude", magnitude, low=0, high=MAX_MAGNITUDE)
    common = _check(value_range, fill_value)
    layer = PolicyAugment("randaugment", num_draws=num_ops, magnitude=magnitude, **common)
    return _with_erasing(layer, random_erasing, seed=seed, name=name)


def trivialaugment(
    *,
    random_erasing: float = 0.0,
    fill_value: float | None = None,
    value_range: tuple[float, float] = (0, 255),
    seed: int | None = None,
    name: str | None = "augmentation",
) -> Augmentation:
    """Returns TrivialAugment: one operation for each image, at a random strength; nothing to set.

    Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
    arXiv:2103.10158, in its wide space: the 14 operations of RandAugment, each with the same
    chance, and one of 31 magnitudes evenly spaced up to shear 0.99, translation 32 pixels,
    rotation 135°, enhancement factor 1 ± 0.99, six bits dropped, all levels solarized. Signs are
    random, for enhancements too, as in torchvision; the authors draw their factor between 0.01 and
    2. Translations are in pixels whatever the size of the image, as in the paper.

    Args:
        random_erasing: probability in [0, 1] that a rectangle of the image, 2 to 33 % of it, is
            replaced by noise at the end (Zhong et al., arXiv:1708.04896).
        fill_value: value of pixels that a warp uncovers, within `value_range`, or `None`: the
            black of the authors' code, the low end of `value_range`.
        value_range: `(low, high)` of the pixels.
        seed: int >= 0 or `None`, see `Augmentation`.
        name: name of the layer.

    Returns:
        An `Augmentation` for images `(batch, height, width, channels)`.

    Raises:
        ValueError: a number is out of its range, `value_range` is not increasing.
        TypeError: an argument has the wrong type.

    Example:
        >>> import numpy as np
        >>> import kerasopt as ko
        >>> augmentation = ko.augmentation.trivialaugment(random_erasing=0.1, seed=1)
        >>> augmentation(np.zeros((4, 32, 32, 3)), training=True).shape
        TensorShape([4, 32, 32, 3])
    """
    layer = PolicyAugment("trivialaugment", **_check(value_range, fill_value))
    return _with_erasing(layer, random_erasing, seed=seed, name=name)


def autoaugment(
    policy: str = "imagenet",
    *,
    random_erasing: float = 0.0,
    fill_value: float | None = None,
    value_range: tuple[float, float] = (0, 255),
    seed: int | None = None,
    name: str | None = "augmentation",
) -> Augmentation:
    """Returns AutoAugment: one of 25 pairs of operations for each image, found by search.

    Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data", arXiv:1805.09501. Each
    image draws one of the 25 sub-policies of the paper's tables; each of its two operations runs
    with its own probability, at its own one of ten magnitudes. The largest strengths are those of
    RandAugment. Signs are random, for enhancements too, as in torchvision; the paper's factor
    rises with the magnitude from 0.1 to 1.9.

    Args:
        policy: `"imagenet"` (mostly colour and rotation, for photos) or `"cifar10"` (mostly
            colour and translation, for small images).
        random_erasing: probability in [0, 1] that a rectangle of the image, 2 to 33 % of it, is
            replaced by noise at the end (Zhong et al., arXiv:1708.04896).
        fill_value: value of pixels that a warp uncovers, within `value_range`, or `None`: the
            middle grey of the authors' code.
        value_range: `(low, high)` of the pixels.
        seed: int >= 0 or `None`, see `Augmentation`.
        name: name of the layer.

    Returns:
        An `Augmentation` for images `(batch, height, width, channels)`.

    Raises:
        ValueError: `policy` is unknown, a number is out of its range, `value_range` is not
            increasing.
        TypeError: an argument has the wrong type.

    Example:
        >>> import numpy as np
        >>> import kerasopt as ko
        >>> augmentation = ko.augmentation.autoaugment("cifar10", seed=1)
        >>> augmentation(np.zeros((4, 32, 32, 3)), training=True).shape
        TensorShape([4, 32, 32, 3])
    """
    check_choice("policy", policy, [*AUTOAUGMENT])
    layer = PolicyAugment(policy, **_check(value_range, fill_value))
    return _with_erasing(layer, random_erasing, seed=seed, name=name)


def augmix(
    severity: float = 3,
    *,
    width: int = 3,
    depth: int | None = None,
    alpha: float = 1.0,
    all_operations: bool = False,
    random_erasing: float = 0.0,
    fill_value: float | None = None,
    value_range: tuple[float, float] = (0, 255),
    seed: int | None = None,
    name: str | None = "augmentation",
) -> Augmentation:
    """Returns AugMix: each image mixed with a few chains of weak operations on it.

    Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and
    Uncertainty", arXiv:1912.02781: `(1 - m) * image + m * sum(w * chain(image))` with `m` of a
    beta and `w` of a Dirichlet distribution. Operations and levels are those of the authors' code:
    autocontrast, equalize, posterize, rotate, solarize, shears and translations, each at a level
    uniform between 0.1 and `severity`. Colour, contrast, brightness and sharpness overlap with
    the corruptions of ImageNet-C and stand aside by default. The paper's consistency loss is a
    matter of the training loop and not part of the recipe.

    Args:
        severity: largest level of an operation, in [1, 10].
        width: number of chains, >= 1.
        depth: operations in a chain, >= 1, or `None`: 1, 2 or 3, drawn for each chain.
        alpha: parameter of both distributions, > 0; 1 makes them uniform.
        all_operations: bool; whether colour, contrast, brightness and sharpness are drawn too.
        random_erasing: probability in [0, 1] that a rectangle of the image, 2 to 33 % of it, is
            replaced by noise at the end (Zhong et al., arXiv:1708.04896).
        fill_value: value of pixels that a warp uncovers, within `value_range`, or `None`: the
            black of the authors' code, the low end of `value_range`.
        value_range: `(low, high)` of the pixels.
        seed: int >= 0 or `None`, see `Augmentation`.
        name: name of the layer.

    Returns:
        An `Augmentation` for images `(batch, height, width, channels)`.

    Raises:
        ValueError: a number is out of its range, `value_range` is not increasing.
        TypeError: an argument has the wrong type.

    Example:
        >>> import numpy as np
        >>> import kerasopt as ko
        >>> augmentation = ko.augmentation.augmix(severity=5, seed=1)
        >>> augmentation(np.zeros((4, 32, 32, 3)), training=True).shape
        TensorShape([4, 32, 32, 3])
    """
    options: dict[str, Any] = {
        "severity": check_number("severity", severity, low=1, high=10),
        "width": check_int("width", width, low=1),
        "depth": None if depth is None else check_int("depth", depth, low=1),
        "alpha": check_number("alpha", alpha, low=0, low_open=True),
        "all_operations": all_operations,
    }
    if not isinstance(all_operations, bool):
        raise TypeError(
            f"`all_operations` must be True or False. Received: all_operations={all_operations!r}."
        )
    layer = AugMixPolicy(**options, **_check(value_range, fill_value))
    return _with_erasing(layer, random_erasing, seed=seed, name=name)


def _check(value_range: Any, fill_value: Any) -> dict[str, Any]:
    """Checks what every recipe takes, and returns it for its layer."""
    low, high = check_value_range(value_range)
    if fill_value is not None:
        fill_value = check_number("fill_value", fill_value, low=low, high=high)
    return {"value_range": (low, high), "fill_value": fill_value}


def _with_erasing(layer: Any, probability: Any, *, seed: Any, name: Any) -> Augmentation:
    """Puts a layer into a container, with random erasing behind it if there is a chance of it."""
    layers = [layer]
    if check_number("random_erasing", probability, low=0, high=1):
        layers.append(RandomErasing(float(probability), value_range=layer.value_range))
    return Augmentation(layers, seed=seed, name=name)
