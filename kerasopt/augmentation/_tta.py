"""Test-time augmentation: one prediction from several views of an image."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._validation import check_choice, check_int
from kerasopt.augmentation._container import Augmentation

View = str | Callable[[Any], Any]

_ZOOM = 0.875  # 224 of 256 pixels, the usual centre crop
_SHIFT = 1 / 16


def predict_tta(
    model: Any,
    images: Any,
    *,
    views: int | Sequence[View] = ("identity", "flip"),
    augmentation: Any = None,
    batch_size: int = 32,
    average: str = "logits",
) -> np.ndarray:
    """Predicts from several views of each image and returns the mean.

    Costs one prediction for each view. Worth it where a point of accuracy counts more than time;
    a file on a phone runs one view.

    Args:
        model: a `keras.Model`, or anything with `predict(images)`, such as
            `ko.export.TFLiteModel`; with one output (batch, classes).
        images: array (batch, height, width, channels), as the model takes it.
        views: names and functions, each counting once for every view it makes: `"identity"`;
            `"flip"` (left to right); `"zoom"` (the middle 7/8 of each side, bilinear); `"shift"`
            (four views: up, down, left and right by 1/16 of the side, filled by reflection); or a
            function `images -> images` of the same shape. An int >= 1 is a number of random
            views that `augmentation` makes.
        augmentation: an `Augmentation`, with an int in `views`. A fresh copy of it runs, so that
            its seed gives the same views each time and its own stream stays where it was.
        batch_size: int >= 1.
        average: `"logits"`: outputs are averaged as they are. `"probabilities"`: their softmax
            is, or they themselves where they are probabilities already (not negative, with the
            sum 1).

    Returns:
        float32 array (batch, classes).

    Raises:
        TypeError: `model` has no `predict`, a view is neither name nor function, or
            `augmentation` is no `Augmentation` or does not go with `views`.
        ValueError: a name is unknown, there is no view or no image, a shape is not as above.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
        >>> images = np.arange(64.0).reshape(1, 8, 8, 1)
        >>> outputs = predict_tta(model, images)
        >>> print(outputs.shape, outputs[0, :2])
        (1, 64) [3.5 3.5]

    Reference:
        Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural
        Networks, 2012, section 4.1 (the mean over crops and their reflections).
    """
    if not callable(getattr(model, "predict", None)):
        raise TypeError(
            "`model` must have a method predict(images), as a keras.Model and a TFLiteModel have. "
            f"Received: model={model!r}."
        )
    check_int("batch_size", batch_size, low=1)
    check_choice("average", average, ("logits", "probabilities"))
    makers = _makers(views, augmentation)
    batch = _check_images(images)
    total: Any = 0.0
    count = 0
    for make in makers:
        for view in make(batch):
            outputs = _predict(model, _check_view(view, batch), batch_size)
            total = total + (outputs if average == "logits" else _probabilities(outputs))
            count += 1
    return np.asarray(total / count, "float32")


def _identity(images: np.ndarray) -> Iterator[np.ndarray]:
    yield images


def _flip(images: np.ndarray) -> Iterator[np.ndarray]:
    yield images[:, :, ::-1]


def _zoom(images: np.ndarray) -> Iterator[np.ndarray]:
    height, width = images.shape[1:3]
    tall, wide = max(1, round(height * _ZOOM)), max(1, round(width * _ZOOM))
    top, left = (height - tall) // 2, (width - wide) // 2
    middle = images[:, top : top + tall, left : left + wide]
    yield np.asarray(tf.image.resize(middle, (height, width)))


def _shift(images: np.ndarray) -> Iterator[np.ndarray]:
    height, width = images.shape[1:3]
    down, right = max(1, round(height * _SHIFT)), max(1, round(width * _SHIFT))
    padded = np.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), mode="symmetric")
    for top, left in ((0, right), (2 * down, right), (down, 0), (down, 2 * right)):
        yield padded[:, top : top + height, left : left + width]


_NAMED: dict[str, Callable[[np.ndarray], Iterator[np.ndarray]]] = {
    "identity": _identity,
    "flip": _flip,
    "zoom": _zoom,
    "shift": _shift,
}


def _makers(views: Any, augmentation: Any) -> list[Callable[[np.ndarray], Iterator[Any]]]:
    if isinstance(views, int) and not isinstance(views, bool):
        check_int("views", views, low=1)
        if not isinstance(augmentation, Augmentation):
            raise TypeError(
                "`augmentation` must be a kerasopt.augmentation.Augmentation where `views` is a "
                f"number. Received: augmentation={augmentation!r}, views={views}. "
                "Pass augmentation=ko.augmentation.basic(seed=0)."
            )
        return [_random_views(augmentation, views)]
    if augmentation is not None:
        raise TypeError(
            "`views` must be a number where `augmentation` is given. "
            f"Received: views={views!r}. Pass views=8, or leave augmentation out."
        )
    if isinstance(views, str) or not isinstance(views, list | tuple):
        raise TypeError(
            "`views` must be a list of names and functions, or a number. "
            f"Received: views={views!r}. Put a single view in brackets: [{views!r}]."
        )
    if not views:
        raise ValueError(
            "`views` must hold at least one view. Received: views=[]. "
            "model.predict(images) predicts from the images as they are."
        )
    return [_maker(view) for view in views]


def _maker(view: Any) -> Callable[[np.ndarray], Iterator[Any]]:
    if callable(view):
        return lambda images: iter([view(images)])
    if not isinstance(view, str):
        raise TypeError(f"`views` must hold names and functions. Received: view={view!r}.")
    check_choice("views", view, [*_NAMED])
    return _NAMED[view]


def _random_views(augmentation: Augmentation, count: int) -> Callable[[np.ndarray], Iterator[Any]]:
    def make(images: np.ndarray) -> Iterator[Any]:
        # What an adapted layer has learned is not in the config; such a container runs itself.
        fresh = augmentation
        if not augmentation.weights:
            fresh = type(augmentation).from_config(augmentation.get_config())
        for _ in range(count):
            yield np.asarray(fresh(images, training=True), "float32")

    return make


def _check_images(images: Any) -> np.ndarray:
    batch = np.asarray(images)
    if batch.ndim != 4 or not batch.size:
        raise ValueError(
            "`images` must have the shape (batch, height, width, channels), with one image at "
            f"least. Received: images of shape {batch.shape}."
        )
    return batch


def _check_view(view: Any, batch: np.ndarray) -> np.ndarray:
    array = np.asarray(view)
    if array.shape != batch.shape:
        raise ValueError(
            "`views` must keep the shape of the images. "
            f"Received: a view of shape {array.shape} from images of shape {batch.shape}."
        )
    return array


def _predict(model: Any, view: np.ndarray, batch_size: int) -> np.ndarray:
    if isinstance(model, keras.Model):
        outputs = model.predict(view, batch_size=batch_size, verbose=0)
    else:
        parts = range(0, len(view), batch_size)
        outputs = np.concatenate(
            [np.asarray(model.predict(view[i : i + batch_size])) for i in parts]
        )
    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2:
        got = outputs.shape if isinstance(outputs, np.ndarray) else type(outputs).__name__
        raise ValueError(
            f"`model` must have one output (batch, classes). Received: outputs {got}. "
            "Take a model of that output alone: keras.Model(model.inputs, output)."
        )
    return outputs.astype("float32")


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """Returns the softmax of logits; int8 files round, so a sum of 1 is one within 2 %."""
    if outputs.shape[-1] < 2:
        raise ValueError(
            "`average` can be 'probabilities' for two classes or more. "
            f"Received: outputs of shape {outputs.shape}. Use average='logits', which averages "
            "the outputs as they are."
        )
    if (outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=0.02):
        return outputs
    powers = np.exp(outputs - outputs.max(-1, keepdims=True))
    result: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return result
