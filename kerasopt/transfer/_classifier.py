"""Image classifiers: a backbone with a new head, raw pixels in, logits out."""

import os
from collections.abc import Sequence
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers
from kerasopt.transfer._backbones import (
    APPLICATIONS,
    DEFAULT_SHAPE,
    Shape,
    get_backbone,
    no_feature_maps,
    resolve_shape,
)
from kerasopt.transfer._graph import (
    CannotCopyError,
    GraphCopier,
    find_pool,
    is_graph,
    plain_names,
    walk_operations,
)
from kerasopt.transfer._heads import (
    DEFAULT_DROPOUT,
    DEFAULT_UNITS,
    FEATURES_POOL,
    Head,
    find_mark,
)
from kerasopt.transfer._preprocessing import Preprocess, family_of, is_identity


def build_classifier(
    backbone: str | os.PathLike[str] | Any,
    num_classes: int,
    *,
    head: str | Any = "gap",
    fc_units: Sequence[int] = DEFAULT_UNITS,
    input_shape: Shape = DEFAULT_SHAPE,
    weights: str | os.PathLike[str] | None = "imagenet",
    augmentation: Any = None,
    dropout: float = DEFAULT_DROPOUT,
    preprocessing: Any = None,
    name: str | None = None,
) -> Any:
    """Builds an image classifier from a backbone: raw 0–255 pixels in, logits out.

    The result is an ordinary functional model. The backbone's layers stand flat in it, under
    their own names, behind the augmentation and the scaling of the pixels. Train it with
    `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`.

    The backbone starts trainable, except with `head="features"`. `ko.transfer.Unfreeze` freezes
    it when `fit` begins and opens it as its schedule says.

    Args:
        backbone: a name of `keras.applications` (`"MobileNetV2"`); the path of a `.keras` file;
            or a built `keras.Model`. Files and models keep their weights, their own
            classification head is cut off before its pooling (or flattening) layer, and they are
            copied, so that the given model stays as it was. Models nested in a functional model
            are opened (a `training=` argument given to a nested model is not kept); a subclassed
            model must have `get_config` and becomes one layer.
        num_classes: number of classes, at least 2.
        head: `"gap"`: global average pooling, dropout, logits. `"fc"`: global average pooling,
            dense ReLU layers of `fc_units`, each with dropout behind it, logits. `"features"`: as
            `"gap"`, with the backbone frozen for good. Or your own: a Keras layer, a
            `keras.Sequential` or a list of layers, which are copied (weights and `trainable`
            included) and take the feature maps. If the last of them is a Dense layer of
            `num_classes` units without activation, it is the logits and is called `"logits"`;
            behind anything else that returns features the logits layer is added.
        fc_units: units of each dense layer of `head="fc"`.
        input_shape: `(height, width, channels)` in pixels. Each family of `keras.applications`
            has a smallest size and, with random weights, takes any channels. The default stands
            for the model's own shape when `backbone` is a file or a model that has one; a fully
            convolutional model is rebuilt for another height and width.
        weights: for a `keras.applications` name: `"imagenet"` (downloaded by Keras), the path of
            a weights file (of a file with the 1,000-class top the top is left out), or None for
            random weights. A file or a model brings its own weights; `"imagenet"` and None both
            leave them.
        augmentation: a Keras layer that augments raw pixels in training, such as
            `ko.augmentation.basic()`; the first layer after the input.
        dropout: fraction of features dropped before the logits (with `"fc"`: behind each dense
            layer), in [0, 1). 0 leaves it out. Nothing is added to a head of your own.
        preprocessing: a Keras layer that maps raw pixels to what the backbone takes, such as
            `keras.layers.Rescaling(1 / 255)`. None: for a `keras.applications` name the family's
            own `Preprocess` (nothing where the family scales inside, and scaling to [-1, 1] for
            images without three channels); for a file or a model nothing, it takes raw pixels.
        name: the model's name.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` to `(batch, num_classes)` logits;
        its last layer is the Dense layer `"logits"`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, the backbone is unknown (the nearest names are
            offered), a file is missing or unreadable, size or channels do not match, the model is
            no image model, or the head's layers do not fit or end in probabilities.
        RuntimeError: the ImageNet weights could not be downloaded; says how to pass a local file.

    Example:
        >>> model = build_classifier("MobileNetV2", 5, input_shape=(32, 32, 3), weights=None)
        >>> model.output_shape
        (None, 5)
    """
    checked_head = Head(head, num_classes, fc_units, dropout)
    _check_layer("augmentation", augmentation)
    _check_layer("preprocessing", preprocessing)
    input_shape = _check_shape(input_shape)
    source = get_backbone(backbone, input_shape=input_shape, weights=weights)
    shape = resolve_shape(source, input_shape)
    application = isinstance(backbone, str) and backbone in APPLICATIONS
    if preprocessing is None and application:
        preprocessing = _family_preprocessing(str(backbone), shape, source)

    dtype = source.inputs[0].dtype if is_graph(source) else None
    image = x = keras.Input(shape, dtype=dtype, name="image")
    for layer in (augmentation, preprocessing):
        x = x if layer is None else layer(x)
    ours = [layer.name for layer in (augmentation, preprocessing) if layer is not None]
    names = plain_names(walk_operations(source)) if application else {}
    copier = GraphCopier(
        image,
        taken=("image", *checked_head.names, *ours),
        changes={key: {"name": plain} for key, plain in names.items()},
    )
    features = _features(copier, source, x, shape)
    for layer in copier.layers:
        layer.trainable = not checked_head.freezes
    logits = checked_head(features, copier, image)
    return keras.Model(image, logits, name=name or f"{source.name}_classifier")


def split_layers(model: Any) -> tuple[list[Any], list[Any]]:
    """Splits a model's layers into backbone and head, nested models opened.

    Works on any built model. One of `build_classifier`, also a reloaded one, is known by the
    names of its head's layers. Of another one the head begins with the first global pooling or
    flattening layer that every path to the output goes through, else with the last layer that
    has weights. Input layers, and what stands before the first layer with weights (augmentation,
    scaling), belong to neither.

    Args:
        model: a built Keras model.

    Returns:
        `(backbone_layers, head_layers)`, two lists in model order.

    Raises:
        ValueError: the model has no layer with weights.

    Example:
        >>> model = build_classifier("MobileNetV2", 5, input_shape=(32, 32, 3), weights=None)
        >>> [layer.name for layer in split_layers(model)[1]]
        ['head_pool', 'head_dropout', 'logits']
    """
    layers = [layer for _, layer in walk_layers(model)]
    layers = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
    weighted = [index for index, layer in enumerate(layers) if layer.weights]
    if not weighted:
        raise ValueError(
            "`model` must be built and have a layer with weights. "
            f"Received: model={model.name!r} without any. Call it once on a batch of images."
        )
    first = _head_start(model, layers, weighted[-1])
    return layers[weighted[0] : first], layers[first:]


def is_feature_head(model: Any) -> bool:
    """Tells whether a model was built with `head="features"`: its backbone never trains."""
    return any(layer.name == FEATURES_POOL for layer in model.layers)


def _head_start(model: Any, layers: list[Any], last_weighted: int) -> int:
    mark = find_mark([layer.name for layer in layers])
    if mark is not None:
        return mark
    found = find_pool(model)
    return last_weighted if found is None else next(i for i, f in enumerate(layers) if f is found)


def _features(copier: GraphCopier, source: Any, x: Any, shape: Shape) -> Any:
    try:
        features = copier(source, x)
    except CannotCopyError:
        raise
    except (ValueError, TypeError) as error:
        own = tuple(source.inputs[0].shape[1:]) if is_graph(source) else None
        if own is None or own == shape:
            raise
        raise ValueError(
            f"`input_shape` must be {own}, the input shape of the backbone, which is not fully "
            f"convolutional and cannot be rebuilt. Received: input_shape={shape}."
        ) from error
    if len(getattr(features, "shape", ())) == 4:
        return features
    raise no_feature_maps(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), features))


def _family_preprocessing(backbone: str, shape: Shape, source: Any) -> Any:
    family = family_of(backbone)
    # ConvNeXt scales inside, but leaves its scaling out for other images than RGB.
    scaling = keras.layers.Rescaling | keras.layers.Normalization
    scales_inside = any(isinstance(layer, scaling) for layer in source.layers)
    if is_identity(family) and (shape[-1] == 3 or scales_inside):
        return None
    if shape[-1] != 3:  # ImageNet's mean colour means nothing here
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocess")
    return Preprocess(family, name="preprocess")


def _check_layer(name: str, layer: Any) -> None:
    if layer is not None and not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"`{name}` must be a Keras layer or None. Received: {name}={layer!r}. "
            "Wrap several layers in keras.Sequential."
        )


def _check_shape(input_shape: Any) -> Shape:
    sizes = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    valid = all(size is None or (type(size) is int and size > 0) for size in sizes)
    if len(sizes) == 3 and sizes[2] is not None and valid:
        return sizes
    raise ValueError(
        "`input_shape` must be (height, width, channels), positive integers. "
        f"Received: input_shape={input_shape!r}."
    )
