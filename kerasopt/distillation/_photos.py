"""The photo that the student saw, as the teacher needs it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._validation import nearest

_RANDOM = tuple(
    layer
    for name, layer in vars(keras.layers).items()
    if isinstance(layer, type)
    and (name.startswith("Random") or name in ("AugMix", "CutMix", "MixUp", "RandAugment"))
)
_KEEP_VALUES = ("CenterCrop", "Identity", "InputLayer", "Resizing")


class Photo:
    """Where in a student the photo stands that its teacher is to see.

    Args:
        layer: the student's layer that returns it, or `None` for the input of the model.
        scale: factor that layers before it have put on the values.
        offset: what they have added.
        augmented: whether an augmentation stands before it.
        opaque: name of an operation before it whose effect on the values is not known, if any.
    """

    def __init__(
        self, layer: Any, scale: Any, offset: Any, *, augmented: bool, opaque: str | None = None
    ) -> None:
        self.layer, self.augmented, self.opaque = layer, augmented, opaque
        self._scale, self._offset = np.asarray(scale), np.asarray(offset)

    def raw(self, photo: Any) -> Any:
        """Returns the photo in the range of the student's input, outside of the gradient."""
        photo = tf.stop_gradient(photo)
        if np.all(self._scale == 1.0) and np.all(self._offset == 0.0):
            return photo
        return (tf.cast(photo, "float32") - self._offset) / self._scale


def find_photo(model: Any, layer: str | None) -> Photo:
    """Finds the last augmentation before the student's first layer with weights.

    Args:
        model: the student.
        layer: the name of the layer whose output is the photo; `"input"` for the model's input;
            `None` to look for it.

    Raises:
        TypeError: the name is none.
        ValueError: there is no such layer.
    """
    operations = _opened(model)
    front = []
    for operation in operations:
        if getattr(operation, "weights", None):
            break
        front.append(operation)
    random = [index for index, operation in enumerate(front) if _augments(operation)]
    if layer is None:
        end = random[-1] + 1 if random else 0
    elif layer == "input":
        end = 0
    else:
        end = _place(operations, layer)
    before = operations[:end]
    scale: Any = np.float32(1.0)
    offset: Any = np.float32(0.0)
    for rescaling in (op for op in before if type(op).__name__ == "Rescaling"):
        scale = scale * np.asarray(rescaling.scale, "float32")
        offset = offset * np.asarray(rescaling.scale, "float32") + np.asarray(
            rescaling.offset, "float32"
        )
    known = (*_KEEP_VALUES, "Rescaling")
    opaque = [op for op in before if not _augments(op) and type(op).__name__ not in known]
    return Photo(
        before[-1] if before else None,
        scale,
        offset,
        augmented=bool(random),
        opaque=opaque[0].name if opaque and layer is None else None,
    )


def adapter(
    shape: tuple[Any, ...] | None, dtype: Any, preprocessing: Callable[[Any], Any] | None, name: str
) -> Callable[[Any], Any]:
    """Returns the function that makes a teacher's input of the student's photo.

    Args:
        shape: the teacher's input (height, width, channels) or (features,); `None` if not known.
        dtype: of the teacher's input.
        preprocessing: what the user wants done before, or `None`.
        name: the teacher's, for errors.
    """

    def adapt(photo: Any) -> Any:
        values = tf.convert_to_tensor(photo)
        if preprocessing is not None:
            values = tf.convert_to_tensor(preprocessing(values))
        given = tuple(values.shape[1:])
        if shape is not None:
            if len(given) == len(shape) == 3:
                values = _resized(_recoloured(values, shape), shape[:2])
            _check_made(tuple(values.shape[1:]), shape, given, name)
        return tf.cast(values, dtype) if values.dtype != dtype else values

    return adapt


def resize(images: Any, size: tuple[Any, ...]) -> Any:
    """Returns images of another size, bilinear, with antialiasing where they shrink.

    Of images of known size every row and column is a fixed mixture of others: two products with
    matrices, which XLA compiles as well.
    """
    height, width = images.shape[1:3]
    if height is None or width is None:
        size = tuple(wanted or tf.shape(images)[axis] for axis, wanted in enumerate(size, start=1))
        return tf.image.resize(images, size, antialias=True)
    for axis, (have, wanted) in enumerate(zip((height, width), size, strict=True), start=1):
        if wanted is not None and wanted != have:
            matrix = resize_matrix(have, wanted)
            images = tf.cast(images, "float32")
            images = tf.einsum("bhwc,Hh->bHwc" if axis == 1 else "bhwc,Ww->bhWc", images, matrix)
    return images


def resize_matrix(have: int, wanted: int) -> np.ndarray:
    """Returns the weights (wanted, have) of a bilinear resize of one axis; rows sum to 1."""
    step = have / wanted
    reach = max(1.0, step)
    centres = (np.arange(wanted) + 0.5) * step
    distance = np.abs(centres[:, None] - (np.arange(have) + 0.5)[None]) / reach
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")


def _opened(model: Any) -> list[Any]:
    """Lists a model's operations in order, with nested models opened."""
    found: list[Any] = []
    for operation in getattr(model, "operations", None) or model.layers:
        if isinstance(operation, keras.Function | keras.Sequential) and operation.layers:
            found += _opened(operation)
        else:
            found.append(operation)
    return found


def _augments(operation: Any) -> bool:
    return isinstance(operation, _RANDOM) or hasattr(type(operation), "kerasopt_training_only")


def _place(operations: list[Any], name: Any) -> int:
    if not isinstance(name, str):
        raise TypeError(
            "`photo_layer` must be the name of a layer of the student, 'input' or None. "
            f"Received: photo_layer={name!r}."
        )
    names = [operation.name for operation in operations]
    if name not in names:
        raise ValueError(
            "`photo_layer` must be the name of a layer of the student, 'input' or None. "
            f"Received: photo_layer={name!r}. {nearest(name, names)}"
        )
    return names.index(name) + 1


def _recoloured(images: Any, shape: tuple[Any, ...]) -> Any:
    channels, wanted = images.shape[-1], shape[-1]
    if channels == 1 and wanted == 3:
        return tf.repeat(images, 3, axis=-1)
    if channels == 3 and wanted == 1:
        return tf.image.rgb_to_grayscale(images)
    return images


def _resized(images: Any, size: tuple[Any, ...]) -> Any:
    same = all(wanted in (None, have) for have, wanted in zip(images.shape[1:3], size, strict=True))
    return images if same else resize(images, size)


def _check_made(
    made: tuple[Any, ...], shape: tuple[Any, ...], given: tuple[Any, ...], name: str
) -> None:
    fits = len(made) == len(shape) and all(
        None in (one, other) or one == other for one, other in zip(made, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"The input of the teacher {name!r}, {shape}, must be one that can be made of the "
            "student's photo: images can be resized, and grey made of colour and colour of grey. "
            f"Received: photo of shape {given}. Give `preprocessing`, a function that makes it."
        )
