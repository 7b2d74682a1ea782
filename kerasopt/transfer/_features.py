"""Deep features for classical learners: a scikit-learn transformer on images."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Costs nothing: Keras has loaded it by now for its own scikit-learn wrappers.
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from kerasopt._backend import keras, tf
from kerasopt._data import batches, class_indices
from kerasopt._validation import check_int
from kerasopt.datasets import list_photos, load_image
from kerasopt.transfer._backbones import DEFAULT_SHAPE, Shape
from kerasopt.transfer._classifier import build_classifier, split_layers

Function = Callable[[Any], Any]


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Turns images into the features of a pretrained backbone, for any scikit-learn estimator.

    The features are the backbone's last feature maps, averaged over height and width: what
    `build_classifier` puts its head on. The network runs in inference mode, so augmentation and
    dropout are off. Nothing is learned from the data: `fit` builds the network, and `X` may be
    left out.

    A copy of the backbone is made in `fit`; training the given model later changes no feature
    until `fit` is called again. The clones that `cross_val_score` and `GridSearchCV` make share
    the given model instead of copying it. Pickles hold the network as `.keras` bytes.

    Args:
        backbone: as for `build_classifier`: a name of `keras.applications`, the path of a `.keras`
            file, or a built `keras.Model`. A classification head is cut off, so that a classifier
            of `build_classifier` gives the features that its head gets.
        input_shape: `(height, width, channels)` in pixels; photo files are read at this size. The
            default `(224, 224, 3)` stands for the model's own shape when `backbone` is a file or
            a model.
        weights: as for `build_classifier`. Default `"imagenet"`.
        preprocessing: as for `build_classifier`. Default None.
        batch_size: images in one pass through the network, >= 1; batches that come ready stay as
            they are. Default 32.

    Attributes:
        model_: the network, from raw pixels to features.
        n_features_out_: number of features.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)])
        >>> images = np.zeros((2, 8, 8, 3), "uint8")
        >>> FeatureExtractor(model).fit_transform(images).shape
        (2, 5)

    Reference:
        Donahue et al., DeCAF: A Deep Convolutional Activation Feature for Generic Visual
        Recognition, arXiv:1310.1531.
    """

    def __init__(
        self,
        backbone: str | os.PathLike[str] | Any,
        *,
        input_shape: Shape = DEFAULT_SHAPE,
        weights: str | os.PathLike[str] | None = "imagenet",
        preprocessing: Any = None,
        batch_size: int = 32,
    ) -> None:
        self.backbone = backbone
        self.input_shape = input_shape
        self.weights = weights
        self.preprocessing = preprocessing
        self.batch_size = batch_size

    def fit(self, X: Any = None, y: Any = None) -> "FeatureExtractor":  # noqa: ARG002, N803
        """Builds the network.

        Args:
            X: not read.
            y: not read.

        Returns:
            The extractor itself.

        Raises:
            TypeError: an argument of the constructor has a wrong type.
            ValueError: an argument of the constructor is out of range; see `build_classifier`.
            RuntimeError: the ImageNet weights could not be downloaded.
        """
        check_int("batch_size", self.batch_size, low=1)
        classifier = build_classifier(
            self.backbone,
            2,  # its logits are cut off again
            head="features",
            input_shape=self.input_shape,
            weights=self.weights,
            preprocessing=self.preprocessing,
            dropout=0.0,
        )
        pool = split_layers(classifier)[1][0]
        self.model_ = keras.Model(classifier.inputs[0], pool.output, name="features")
        self.n_features_out_ = int(pool.output.shape[-1])
        self._function = inference(self.model_)
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Returns the features of images, in their order.

        Args:
            X: raw 0–255 pixels as an array `(batch, height, width, channels)`, a batched
                `tf.data.Dataset` or an iterable of batches, labels in them being ignored; or
                photo files as a list of paths or as a folder, whose photos are taken in the order
                of `ko.datasets.list_photos` and read as `ko.datasets.load_image` does.

        Returns:
            A float32 array of shape `(batch, n_features_out_)`.

        Raises:
            TypeError: `X` is none of these.
            ValueError: it is empty or has no end, the images have another shape than the network
                takes, or a file is no photo.
            sklearn.exceptions.NotFittedError: `fit` was not called.
        """
        return self._run(X, "X")[0]

    def features_and_labels(self, data: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns features and labels of the same pass over data, also of a shuffled pipeline.

        Args:
            data: what `transform` takes, with labels: `(x, y)`, a `tf.data.Dataset` or an
                iterable of `(x, y)` batches. Labels are integers or one-hot.

        Returns:
            Features as of `transform`, and integer classes of shape `(batch,)`.

        Raises:
            TypeError: the data is none of these.
            ValueError: it has no labels, or is what `transform` refuses.
            sklearn.exceptions.NotFittedError: `fit` was not called.
        """
        features, labels = self._run(data, "data")
        if labels is None:
            raise no_labels("data", data)
        return features, class_indices(labels)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002
        """Returns `feature0`, `feature1`, ...

        Args:
            input_features: not read; pixels have no names.
        """
        check_is_fitted(self, "model_")
        return np.array([f"feature{index}" for index in range(self.n_features_out_)], object)

    def _run(self, data: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        check_is_fitted(self, "model_")
        return extract(self.model_, data, self._function, name=name, batch_size=self.batch_size)

    def __sklearn_clone__(self) -> "FeatureExtractor":
        # The default copies each parameter, which for a model means to save and load it.
        return type(self)(**self.get_params(deep=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        tags.no_validation = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # A compiled function cannot be pickled; models can.
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_function", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            self._function = inference(self.model_)


def inference(model: Any) -> Function:
    """Returns a compiled function of a model in inference mode, traced once for every length.

    A concrete function: TensorFlow warns of retracing where ordinary ones are made in a loop, as
    a cross-validation does.
    """
    image = model.inputs[0]
    signature = tf.TensorSpec((None, *image.shape[1:]), image.dtype)
    function = tf.function(lambda x: model(x, training=False), input_signature=[signature])
    return function.get_concrete_function()


def extract(
    model: Any, data: Any, function: Function, *, name: str, batch_size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Runs data through a feature model.

    Args:
        model: tells shape and dtype of the images.
        data: what `FeatureExtractor.transform` takes.
        function: what `inference(model)` returned.
        name: the argument's name, for errors.
        batch_size: for data that does not come in batches.

    Returns:
        Float32 features `(batch, features)`, and the labels or `None`.
    """
    shape, dtype = model.inputs[0].shape[1:], model.inputs[0].dtype
    features, labels = [], []
    for x, y in _image_batches(data, shape, name, batch_size):
        _check_images(x, shape, name)
        features.append(np.asarray(function(tf.constant(x, dtype)), "float32"))
        labels.append(y)
    if any(y is None for y in labels):
        return np.concatenate(features), None
    return np.concatenate(features), np.concatenate(labels)


def no_labels(name: str, data: Any) -> ValueError:
    """The error for data that should have labels."""
    return ValueError(
        f"`{name}` must have labels: a tuple (x, y), or batches of (x, y). "
        f"Received: {name} of type {type(data).__name__} without any."
    )


def _image_batches(
    data: Any, shape: Shape, name: str, batch_size: int
) -> Iterator[tuple[np.ndarray, Any]]:
    if isinstance(data, str | os.PathLike):
        data = list_photos(data)
    if _are_paths(data):
        yield from _read(data, None, shape, batch_size)
    elif isinstance(data, tuple) and len(data) == 2 and _are_paths(data[0]):
        files, labels = data
        if len(files) != len(labels):
            raise ValueError(
                f"`{name}` must hold as many labels as inputs. "
                f"Received: {len(files)} and {len(labels)}."
            )
        yield from _read(files, np.asarray(labels), shape, batch_size)
    else:
        if isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"`{name}` must have an end. Received: a tf.data.Dataset that repeats for ever. "
                "Leave out `.repeat()`, or add `.take(batches)`."
            )
        yield from batches(data, name=name, batch_size=batch_size)


def _are_paths(data: Any) -> bool:
    if isinstance(data, np.ndarray):
        return data.ndim == 1 and len(data) > 0 and isinstance(data[0], str | os.PathLike)
    return (
        isinstance(data, list | tuple)
        and len(data) > 0
        and all(isinstance(item, str | os.PathLike) for item in data)
    )


def _read(
    files: Any, labels: np.ndarray | None, shape: Shape, batch_size: int
) -> Iterator[tuple[np.ndarray, Any]]:
    height, width, channels = (
        size or default for size, default in zip(shape, DEFAULT_SHAPE, strict=True)
    )
    if channels != 3:
        raise ValueError(
            "Photo files are read as RGB, and need a backbone of 3 channels. "
            f"Received: a backbone that takes images of shape {tuple(shape)}. Pass arrays."
        )
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), batch_size):
            rows = slice(start, start + batch_size)
            images = pool.map(lambda file: load_image(file, (height, width)), files[rows])
            yield np.stack([*images]), None if labels is None else labels[rows]


def _check_images(x: np.ndarray, shape: Shape, name: str) -> None:
    fits = x.ndim == 4 and all(
        own in (None, size) for own, size in zip(shape, x.shape[1:], strict=True)
    )
    if not fits or x.dtype.kind not in "uif":
        raise ValueError(
            f"`{name}` must hold batches of images of shape (batch, {', '.join(map(str, shape))}), "
            f"numbers 0–255. Received: shape {x.shape}, dtype {x.dtype}. Resize the images, or "
            "choose `input_shape`; stack single images with np.stack or `.batch(32)`."
        )
