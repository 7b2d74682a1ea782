"""Where backbones come from: `keras.applications`, a `.keras` file, a model."""

import http.client
import math
import os
import pathlib
import re
import warnings
import zipfile
from typing import Any

from kerasopt._backend import keras
from kerasopt._keras_file import load_keras
from kerasopt._validation import nearest
from kerasopt.transfer._graph import GraphCopier, find_pool, first_line, is_graph
from kerasopt.transfer._heads import find_mark

Shape = tuple[int | None, ...]
DEFAULT_SHAPE = (224, 224, 3)
_USUAL = DEFAULT_SHAPE[0]
_UNREADABLE = (ValueError, OSError, KeyError, zipfile.BadZipFile)
APPLICATIONS = tuple(name for name in dir(keras.applications) if name[0].isupper())


def get_backbone(backbone: Any, *, input_shape: Shape, weights: Any) -> Any:
    """Returns the model behind `backbone`, with its weights, as a model of feature maps."""
    if isinstance(backbone, str) and backbone in APPLICATIONS:
        return _application(backbone, input_shape, weights)
    if weights not in ("imagenet", None):
        raise ValueError(
            "`weights` must be left alone for a backbone that is a file or a model: it brings its "
            f"own. Received: weights={weights!r}. Load them into the model first."
        )
    if isinstance(backbone, str | os.PathLike):
        backbone = _load(backbone)
    if not isinstance(backbone, keras.Model):
        raise TypeError(
            "`backbone` must be a keras.applications name, the path of a .keras file or a "
            f"keras.Model. Received: backbone={backbone!r}."
        )
    return _feature_model(backbone)


def resolve_shape(model: Any, requested: Shape) -> Shape:
    """Returns the input shape of the classifier: the model's own unless another was asked for."""
    if not is_graph(model):
        return requested
    own = model.inputs[0].shape[1:]
    if requested == DEFAULT_SHAPE:
        return tuple(r if o is None else o for o, r in zip(own, requested, strict=True))
    if own[-1] not in (None, requested[-1]):
        raise ValueError(
            f"`input_shape` must have the {own[-1]} channels of the backbone, whose input is "
            f"{own}. Received: input_shape={requested}."
        )
    return requested


def _application(name: str, input_shape: Shape, weights: Any) -> Any:
    if weights == "imagenet" and input_shape[-1] != 3:
        raise ValueError(
            "`input_shape` must have 3 channels with weights='imagenet'. "
            f"Received: input_shape={input_shape}. Use 3 channels or weights=None."
        )
    if weights is None:
        return _build(name, input_shape, None)
    if weights != "imagenet":
        return _load_weights(name, input_shape, _weights_file(weights))
    try:
        return _build(name, input_shape, "imagenet")
    except Exception as error:  # keras.utils.get_file raises the bare class
        if not _is_download_failure(error):
            raise
        raise RuntimeError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). "
            "Received: weights='imagenet'. Download the file on a machine with a network and pass "
            "weights='path/to/weights.h5', pass a .keras file as `backbone`, or start from random "
            "weights with weights=None."
        ) from error


def _build(name: str, input_shape: Shape, weights: str | None) -> Any:
    build = getattr(keras.applications, name)
    try:
        with warnings.catch_warnings():
            # Other channels than 1 or 3 are no accident here: `input_shape` has no default for it.
            warnings.filterwarnings("ignore", "This model usually expects 1 or 3 input channels")
            return build(include_top=False, weights=weights, input_shape=input_shape)
    except ValueError as error:
        smallest = re.search(r"must be at least (\d+)x\d+", str(error))
        if smallest is None and (input_shape == DEFAULT_SHAPE or _is_download_failure(error)):
            raise
        needed = (
            f"at least {smallest[1]} pixels high and wide"
            if smallest
            else f"one that the network can be built for ({first_line(error)})"
        )
        raise ValueError(
            f"`input_shape` for {name} must be {needed}. Received: input_shape={input_shape}. "
            f"Give a larger one, such as ({_USUAL}, {_USUAL}, {input_shape[-1]}), and images of "
            "that size, or another backbone."
        ) from error


def _is_download_failure(error: Exception) -> bool:
    text = str(error)
    return (
        isinstance(error, OSError | http.client.HTTPException)
        or text.startswith("URL fetch failure")
        or "Incomplete or corrupted file" in text
    )


def _weights_file(weights: Any) -> pathlib.Path:
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(
            "`weights` must be 'imagenet', None or the path of a weights file. "
            f"Received: weights={weights!r}."
        )
    path = pathlib.Path(weights)
    if not path.is_file():
        raise ValueError(
            "`weights` must be 'imagenet', None or an existing .h5 or .weights.h5 file. "
            f"Received: weights={str(weights)!r}, which is not a file."
        )
    return path


def _load_weights(name: str, input_shape: Shape, path: pathlib.Path) -> Any:
    model = _build(name, input_shape, None)
    try:
        model.load_weights(path)
    except _UNREADABLE as error:
        legacy = path.suffix == ".h5" and not path.name.endswith(".weights.h5")
        if not (legacy and isinstance(error, ValueError) and _load_without_top(model, name, path)):
            raise ValueError(
                f"`weights` must be a weights file of {name}, for {input_shape[-1]} channels "
                f"({first_line(error)}). Received: weights={str(path)!r}. Use the file without "
                "the top, of this very network."
            ) from error
    if re.fullmatch(r"efficientnetb\d(_notop)?\.h5", path.name):
        return _with_efficientnet_scale(model)
    return model


def _load_without_top(model: Any, name: str, path: pathlib.Path) -> bool:
    """Loads a file of the network with its 1,000 classes into the model without them."""
    whole = getattr(keras.applications, name)(weights=None)
    try:
        whole.load_weights(path)
    except _UNREADABLE:
        return False
    values = _feature_model(whole).get_weights()
    if [value.shape for value in values] != [tuple(weight.shape) for weight in model.weights]:
        return False  # ConvNeXt normalizes in another place when it has a top
    model.set_weights(values)
    return True


def _with_efficientnet_scale(model: Any) -> Any:
    # Keras adds this layer, which the published weights were trained with, for
    # weights="imagenet" only, not for the same file given by its path.
    scale = [1.0 / math.sqrt(deviation) for deviation in (0.229, 0.224, 0.225)]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.Normalization):
            return keras.layers.Rescaling(scale, name="rescaling_deviation")(output)
        return output

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def _load(backbone: str | os.PathLike[str]) -> Any:
    path = pathlib.Path(backbone)
    if path.suffix != ".keras":
        raise ValueError(
            "`backbone` must be a keras.applications name, the path of a .keras file or a "
            f"keras.Model. Received: backbone={str(backbone)!r}. "
            f"{nearest(str(backbone), APPLICATIONS)}"
        )
    if not path.is_file():
        raise ValueError(
            f"`backbone` must be an existing .keras file. Received: backbone={str(path)!r}, "
            "which is not a file."
        )
    try:
        return load_keras(path, name="backbone")
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`backbone` must be a .keras file that Keras can load ({first_line(error)}). "
            f"Received: backbone={str(path)!r}."
        ) from error


def _feature_model(model: Any) -> Any:
    if not model.built:
        raise ValueError(
            "`backbone` must be a built model. "
            f"Received: backbone={model.name!r}. Call it once on a batch of images."
        )
    inputs = getattr(model, "inputs", None) or [None]
    if len(inputs) > 1:
        raise ValueError(
            "`backbone` must have one input, the image. "
            f"Received: a model with {len(inputs)} inputs."
        )
    if not is_graph(model):
        return model  # what it returns is seen when its copy is called
    image = model.inputs[0]
    if len(image.shape) != 4:
        raise ValueError(
            "`backbone` must take images of shape (batch, height, width, channels). "
            f"Received: a model with input shape {image.shape}."
        )
    if len(model.outputs[0].shape) == 4:
        return model
    # Cut in a copy, where nested models are open and each layer is called by this graph only.
    copied = keras.Input(batch_shape=image.shape, dtype=image.dtype)
    flat = keras.Model(copied, GraphCopier(copied)(model, copied))
    mark = find_mark([layer.name for layer in flat.layers])
    pool = find_pool(flat) if mark is None else flat.layers[mark]
    if pool is None:
        raise no_feature_maps(tuple(model.outputs[0].shape))
    return keras.Model(copied, pool.input, name=model.name)


def no_feature_maps(shapes: Any) -> ValueError:
    """The error for a model that has no feature maps to put a head on."""
    return ValueError(
        "`backbone` must end in feature maps of shape (batch, height, width, channels), or have a "
        "GlobalAveragePooling2D, GlobalMaxPooling2D or Flatten layer before its own head. "
        f"Received: a model with output shape {shapes}. "
        "Pass keras.Model(model.input, layer.output) of its last convolutional layer."
    )
