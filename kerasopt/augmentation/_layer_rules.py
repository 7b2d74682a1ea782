"""What single layers ask of the container: sizes, labels, values, a loop over the images."""

from collections.abc import Iterator, Sequence
from typing import Any

from kerasopt._backend import keras

# Layers of KerasCV draw each image by itself, in a loop whose order TensorFlow leaves open. Of
# Keras's, RandomCrop would cut the same window out of all images of a batch, and
# RandomElasticTransform, where the batch size is unknown, put the first image for all others.
_PER_IMAGE = frozenset({"keras.RandomCrop", "keras.RandomElasticTransform"}) | frozenset(
    f"keras_cv.{name}"
    for name in (
        "AugMix",
        "GridMask",
        "RandomApply",
        "RandomAspectRatio",
        "RandomAugmentationPipeline",
        "RandomChoice",
    )
)
_MIXES_LABELS = frozenset(
    {"keras.CutMix", "keras.MixUp"}
    | {f"keras_cv.{name}" for name in ("CutMix", "FourierMix", "MixUp", "Mosaic")}
)
# Batches grow, so everything beside the images has to go through the layer too.
_REPEATS = frozenset({"keras_cv.RepeatedAugmentation"})
_NEEDS_BOXES = frozenset({"keras.MaxNumBoundingBoxes"})
# They move pixels and leave boxes where they are, or move the masks by numbers drawn anew.
_IMAGES_ONLY = frozenset({"keras.AugMix", "keras.RandomElasticTransform", "keras_cv.AugMix"})
_PREPROCESSES = frozenset({"keras.Normalization", "keras.Rescaling", "keras_cv.Rescaling"})
_MAKES_RAGGED = frozenset({"keras_cv.RandomAspectRatio"})
_FIXED_RESIZE = frozenset({"keras.CenterCrop", "keras.Resizing", "keras_cv.Resizing"})
_SIZE_ARGUMENTS = {
    "keras.CenterCrop": ("height", "width"),
    "keras.RandomCrop": ("height", "width"),
    "keras.Resizing": ("height", "width"),
    "keras_cv.JitteredResize": ("target_size",),
    "keras_cv.RandomCrop": ("height", "width"),
    "keras_cv.RandomCropAndResize": ("target_size",),
    "keras_cv.Resizing": ("height", "width"),
}


def kinds(layer: Any) -> frozenset[str]:
    """Returns `"keras_cv.Name"` and `"keras.Name"` for every class of the hosts in its bases."""
    classes = ((cls.__module__.split(".")[0], cls.__name__) for cls in type(layer).__mro__)
    return frozenset(f"{host}.{name}" for host, name in classes if host in ("keras", "keras_cv"))


def is_keras_cv(layer: Any) -> bool:
    """Tells whether KerasCV's base class takes the call: it opens dictionaries by itself."""
    return any(kind.startswith("keras_cv.") for kind in kinds(layer))


def unwrapped(layer: Any) -> Any:
    """Returns the layer of KerasCV that stands in an `Adapted`, else the layer itself."""
    return getattr(layer, "adapted", layer)


def flat(layers: Sequence[Any]) -> list[Any]:
    """Lists layers, with those of a Keras `Pipeline` in its place."""
    nested = [
        flat(layer.layers) if isinstance(layer, keras.layers.Pipeline) else [layer]
        for layer in layers
    ]
    return [layer for part in nested for layer in part]


def walk(layer: Any) -> Iterator[Any]:
    """Yields a layer and the augmentation layers that stand in its config or its `layers`."""
    yield layer
    nested = getattr(layer, "layers", None)
    found = list(nested) if isinstance(nested, list | tuple) else []
    found.append(getattr(layer, "layer", None))
    try:
        values = list(layer.get_config().values())
    except (NotImplementedError, AttributeError, TypeError):
        values = []  # `rebuild` says what is wrong
    for value in values:
        found += value if isinstance(value, list | tuple) else [value]
    seen: set[int] = set()
    for inner in found:
        if isinstance(inner, keras.layers.Layer) and id(inner) not in seen:
            seen.add(id(inner))
            yield from walk(inner)


def box_format(layer: Any) -> str:
    """Returns the format of boxes that a layer transforms rightly, whatever the image's size.

    KerasCV's `RandomCropAndResize` converts pixels back with the size before the crop; several
    layers of Keras take fractions for pixels.
    """
    return "rel_xyxy" if is_keras_cv(unwrapped(layer)) else "xyxy"


def draws_per_image(layer: Any) -> bool:
    """Tells whether the container loops over the images, in order, instead of the layer."""
    inner = unwrapped(layer)
    batchwise = getattr(inner, "batchwise", False) or getattr(inner, "auto_vectorize", False)
    return bool(kinds(inner) & _PER_IMAGE) and not batchwise


def mixes(layer: Any) -> bool:
    """Tells whether the layer, or one in it, changes labels or the number of images."""
    return any(kinds(inner) & (_MIXES_LABELS | _REPEATS) for inner in walk(layer))


def mixing_layer(layers: Sequence[Any]) -> Any:
    """Returns the first layer that mixes labels, or `None`."""
    return _first(layers, _MIXES_LABELS)


def repeating_layer(layers: Sequence[Any]) -> Any:
    """Returns the first layer that changes the number of images, or `None`."""
    return _first(layers, _REPEATS)


def boxes_layer(layers: Sequence[Any]) -> Any:
    """Returns the first layer that works on boxes alone, or `None`."""
    return _first(layers, _NEEDS_BOXES)


def preprocessing_layer(layers: Sequence[Any]) -> Any:
    """Returns the first layer that belongs into the model itself, or `None`."""
    return _first(layers, _PREPROCESSES)


def makes_ragged(layer: Any) -> bool:
    """Tells whether the images of a batch have different sizes behind the layer."""
    return bool(kinds(layer) & _MAKES_RAGGED)


def moves_images_only(layer: Any) -> bool:
    """Tells whether boxes and masks would no longer fit the images behind the layer."""
    return bool(kinds(unwrapped(layer)) & _IMAGES_ONLY)


def output_shape(layer: Any, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the shape `(batch, height, width, channels)` of the images behind a layer."""
    if makes_ragged(layer):
        return (shape[0], None, None, shape[3])
    size = _target(layer)
    if size is not None:
        return (shape[0], *size, shape[3])
    if type(layer).compute_output_shape is not keras.layers.Layer.compute_output_shape:
        return tuple(layer.compute_output_shape(shape))
    return shape


def at_inference(layer: Any, before: tuple[Any, ...], after: tuple[Any, ...]) -> Any:
    """Returns what stands for the layer at inference, or `None` where the images pass."""
    if before[1:3] == after[1:3] or makes_ragged(layer):
        return None
    if kinds(layer) & _FIXED_RESIZE:
        return layer
    return keras.layers.Resizing(
        *after[1:3],
        crop_to_aspect_ratio=True,
        bounding_box_format="xyxy",
        data_format="channels_last",
        dtype="float32",
    )


def _target(layer: Any) -> tuple[int, int] | None:
    for kind in kinds(layer):
        if kind in _SIZE_ARGUMENTS:
            config = layer.get_config()
            values = [config[name] for name in _SIZE_ARGUMENTS[kind]]
            height, width = values if len(values) == 2 else values[0]
            return int(height), int(width)
    return None


def _first(layers: Sequence[Any], wanted: frozenset[str]) -> Any:
    every = (inner for layer in layers for inner in walk(layer))
    return next((layer for layer in every if kinds(layer) & wanted), None)
