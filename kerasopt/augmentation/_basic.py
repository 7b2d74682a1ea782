"""The ready recipe: flip, rotation, scaling, crop, colour."""

from typing import Any

from kerasopt._backend import keras
from kerasopt._serialization import serializable
from kerasopt._validation import check_choice, check_number
from kerasopt.augmentation._container import Augmentation
from kerasopt.augmentation._keras_cv import keras_cv
from kerasopt.augmentation._rebuild import deserialize, serialize
from kerasopt.augmentation._value_range import check_value_range

_FLIPS = {
    "horizontal": "horizontal",
    "vertical": "vertical",
    "both": "horizontal_and_vertical",
}


def basic(
    *,
    flip: str | bool | None = True,
    rotation: float = 0.05,
    zoom: float = 0.15,
    crop: float = 0.1,
    brightness: float = 0.1,
    contrast: float = 0.2,
    saturation: float = 0.3,
    hue: float = 0.0,
    value_range: tuple[float, float] = (0, 255),
    seed: int | None = None,
    name: str | None = "augmentation",
) -> Augmentation:
    """Returns the five classical augmentations: flip, rotation, scaling, crop and colour.

    Each image of a batch gets its own random numbers, uniform in the ranges below; a strength of
    0 leaves its part out. The defaults are moderate: a label that does not hang on orientation or
    exact colour survives them. What a warp uncovers is filled by reflection. Images within
    `value_range` stay within it. Images of one channel work; `saturation` and `hue` leave them
    alone.

    Args:
        flip: `"horizontal"` (or True), `"vertical"`, `"both"`, or `None` (or False); each
            direction with probability 1/2.
        rotation: largest angle, as a fraction of a full turn, in [0, 1]; 0.05 is ±18°.
        zoom: largest change of scale, in [0, 1); 0.15 is 0.85 to 1.15 times.
        crop: largest shift of the window, as a fraction of height and width, in [0, 1]: a random
            crop of the image padded by reflection, so the size stays (He et al., "Deep Residual
            Learning for Image Recognition", arXiv:1512.03385, section 4.2).
        brightness: largest shift, as a fraction of the width of `value_range`, in [0, 1].
        contrast: largest change of the distance from the mean of the image, in [0, 1]; 0.2 is 0.8
            to 1.2 times.
        saturation: largest fading towards grey, in [0, 1]; 1 reaches grey.
        hue: largest shift of the hue, as a fraction of the colour circle, in [0, 1]. It costs as
            much time as a warp, and colour often tells classes apart: off by default.
        value_range: `(low, high)` of the pixels; `low` must be 0 where `hue` is used.
        seed: int >= 0 or `None`, see `Augmentation`.
        name: name of the layer.

    Returns:
        An `Augmentation` of KerasCV layers for images `(batch, height, width, channels)`.

    Raises:
        ValueError: a strength is out of range, every part is off, `value_range` is not increasing.
        TypeError: an argument has the wrong type.

    Example:
        >>> import keras
        >>> import kerasopt as ko
        >>> augmentation = ko.augmentation.basic(rotation=0.1, hue=0, seed=1)
        >>> [layer.__class__.__name__ for layer in augmentation.layers][:2]
        ['RandomFlip', 'RandomRotation']
    """
    low, high = check_value_range(value_range)
    mode = _check_flip(flip)
    strengths = {
        "rotation": rotation,
        "crop": crop,
        "brightness": brightness,
        "contrast": contrast,
        "saturation": saturation,
        "hue": hue,
    }
    checked = {key: check_number(key, value, low=0, high=1) for key, value in strengths.items()}
    checked["zoom"] = check_number("zoom", zoom, low=0, high=1, high_open=True)
    if mode is None and not any(checked.values()):
        raise ValueError(
            "`basic` must have at least one part. Received: no flip and every strength 0. "
            "For a model without augmentation leave the layer out."
        )
    if checked["hue"] and low != 0:
        raise ValueError(
            "`value_range` must begin at 0 where `hue` is used, for hue is defined by ratios. "
            f"Received: value_range={value_range!r}. Set hue=0."
        )
    layers = _layers(mode, checked, (low, high))
    return Augmentation(layers, value_range=(low, high), seed=seed, name=name)


def _layers(mode: str | None, part: dict[str, float], value_range: tuple[float, float]) -> Any:
    """Chooses the layers: the fastest right ones of KerasCV and Keras, see docs/augmentation.md."""
    cv = keras_cv().layers
    low, high = value_range
    layers: list[Any] = []
    if mode is not None:
        layers.append(cv.RandomFlip(mode))
    if part["rotation"]:
        layers.append(cv.RandomRotation(part["rotation"]))
    if part["zoom"]:
        layers.append(cv.RandomZoom((-part["zoom"], part["zoom"])))
    if part["crop"]:
        layers.append(cv.RandomTranslation(part["crop"], part["crop"]))
    if part["brightness"]:
        shift = (-part["brightness"], part["brightness"])
        layers.append(keras.layers.RandomBrightness(shift, value_range=(low, high)))
    if part["contrast"]:
        # KerasCV's: with one number, the one of Keras 3.15 only ever raises the contrast.
        layers.append(cv.RandomContrast((low, high), part["contrast"]))
    if part["saturation"]:
        # KerasCV's clips to 0-255 whatever the range.
        fading = (0.0, part["saturation"])
        layers.append(RGBOnly(keras.layers.RandomColorDegeneration(fading, (low, high))))
    if part["hue"]:
        layers.append(RGBOnly(cv.RandomHue(part["hue"], (low, high))))
    return layers


@serializable
class RGBOnly(keras.layers.Layer):
    """Runs a layer on images of three channels and leaves others as they are."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the layer if it is going to run."""
        if input_shape[-1] == 3 and not self.layer.built:
            self.layer.build(input_shape)

    def call(self, images: Any) -> Any:
        """Returns the images, changed if they have three channels."""
        return self.layer(images) if images.shape[-1] == 3 else images

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer, serialized, and what every Keras layer returns."""
        config: dict[str, Any] = super().get_config()
        config["layer"] = serialize(self.layer)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RGBOnly":
        """Builds the layer from `get_config`."""
        return cls(**{**config, "layer": deserialize(config["layer"])})


def _check_flip(flip: Any) -> str | None:
    if flip is None or flip is False:
        return None
    if flip is True:
        return _FLIPS["horizontal"]
    check_choice("flip", flip, [*_FLIPS, True, False, None])
    return _FLIPS[flip]
