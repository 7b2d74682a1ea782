"""Checks of the container's arguments and inputs."""

from collections.abc import Sequence
from typing import Any

from kerasopt._backend import keras
from kerasopt.augmentation._layer_rules import preprocessing_layer, walk

_COLOURS = (1, 3)


def check_layers(layers: Any) -> None:
    """Raises unless `layers` is a list of Keras layers that have a place in the container."""
    if not isinstance(layers, list | tuple):
        raise TypeError(
            f"`layers` must be a list of Keras layers. Received: layers={layers!r}. "
            "Put a single layer in brackets: [layer]."
        )
    if not layers:
        raise ValueError(
            "`layers` must hold at least one layer. Received: layers=[]. "
            "For a model without augmentation leave the container out."
        )
    for index, layer in enumerate(layers):
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "`layers` must be a list of Keras 3 layers. "
                f"Received: layers[{index}]={layer!r}. Wrap a function in a class "
                "that derives from keras.layers.Layer."
            )
        _check_data_format(layer)
    prepares = preprocessing_layer(layers)
    if prepares is not None:
        raise ValueError(
            "`layers` must hold augmentation, which is absent at inference. "
            f"Received: layer {prepares.name!r} of class {type(prepares).__name__}, which the "
            "model needs at inference too. Put it into the model itself, behind the augmentation."
        )


def _check_data_format(layer: Any) -> None:
    for inner in walk(layer):
        if getattr(inner, "data_format", None) == "channels_first":
            raise ValueError(
                "`layers` must work on images (height, width, channels). "
                f"Received: layer {inner.name!r} with data_format='channels_first'. "
                "Make it with data_format='channels_last'."
            )


def agree_on_boxes(declared: str | None, layers: Sequence[Any]) -> str | None:
    """Returns the one format of boxes of a container and its layers.

    Raises:
        TypeError: `declared` is not a string.
        ValueError: two formats contradict each other.
    """
    if declared is not None and not isinstance(declared, str):
        raise TypeError(
            "`bounding_box_format` must be a string or None. "
            f"Received: bounding_box_format={declared!r}. Take one of KerasCV's, such as 'xyxy'."
        )
    chosen = declared
    for layer in layers:
        for inner in walk(layer):
            own = getattr(inner, "bounding_box_format", None)
            if own is None or own == chosen:
                continue
            if chosen is not None:
                raise ValueError(
                    "`bounding_box_format` must be one for all layers. "
                    f"Received: {chosen!r}, and layer {inner.name!r} with {own!r}."
                )
            chosen = own
    return chosen


def check_shape(shape: tuple[Any, ...]) -> None:
    """Raises ValueError unless `shape` is that of a batch of images, channels last."""
    if len(shape) != 4:
        raise ValueError(
            "`images` must have the shape (batch, height, width, channels). "
            f"Received: shape={shape}. Add a batch axis to a single image with images[None]."
        )
    if shape[1] in _COLOURS and shape[3] is not None and shape[3] > 4:
        raise ValueError(
            "`images` must have the shape (batch, height, width, channels). "
            f"Received: shape={shape}, which looks like channels first. "
            "Move the channels to the end with keras.ops.moveaxis(images, 1, -1)."
        )


def refuse_images_alone(layer: Any, needed: str) -> None:
    """Raises ValueError for images that meet a layer that needs more."""
    title = f"Layer {layer.name!r} of class {type(layer).__name__}"
    if needed == "labels":
        key = "'labels': labels"
        hint = " Or use the callback kerasopt.augmentation.MixUp or CutMix, which mixes in fit."
    else:
        key = "'bounding_boxes': {'boxes': ..., 'classes': ...}"
        hint = ""
    raise ValueError(
        f"{title} needs {needed}. Received: images alone. Call the layer in tf.data with "
        f"a dictionary, {{'images': images, {key}}}.{hint}"
    )


def check_same_shape(
    layer: Any, before: tuple[Any, ...], after: tuple[Any, ...], *, static: bool = False
) -> None:
    """Refuses a layer whose output has another shape than expected.

    Unknown sizes of a trace (`static`) are checked when it runs.
    """
    same = len(before) == len(after) and all(
        a == b or (static and None in (a, b)) for a, b in zip(before, after, strict=True)
    )
    if not same:
        raise ValueError(
            "`layers` must keep the shape of the images, but for resizing and cropping layers that "
            "do not stand inside of another layer. "
            f"Received: layer {layer.name!r} of class {type(layer).__name__}, which makes "
            f"{after} of {before}. Put it into the model, before the augmentation."
        )
