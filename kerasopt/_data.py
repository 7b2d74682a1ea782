"""Data in the forms that users have it, as one stream of batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf

Batch = tuple[Any, np.ndarray | None]


def batches(
    data: Any,
    *,
    name: str,
    batch_size: int = 32,
    shuffle: bool = False,
    several_labels: bool = False,
) -> Iterator[Batch]:
    """Yields `(x, y)` batches as arrays; `y` is `None` where the data has no labels.

    Args:
        data: an array `x`, a tuple `(x, y)` of arrays, a batched `tf.data.Dataset`, a
            `keras.utils.PyDataset`, or an iterable of batches `x` or `(x, y)`. For a model with
            several inputs every `x` is a dict of arrays by name.
        name: the argument's name, for errors.
        batch_size: used for arrays.
        shuffle: whether arrays come in another order, always the same one.
        several_labels: whether labels may also be a dict or list of arrays, one for each output;
            `y` is `None` then, for they name no class of an input.

    Raises:
        TypeError: the data is none of these.
        ValueError: it is empty, or `x` and `y` differ in length.
    """
    empty = True
    for batch in _stream(data, name, batch_size, shuffle):
        parts = batch if isinstance(batch, tuple | list) else (batch,)
        x = _arrays(parts[0])
        y = _labels(parts[1] if len(parts) > 1 else None, name, several_labels)
        if y is not None and count_of(x) != len(y):
            raise ValueError(
                f"`{name}` must hold as many labels as inputs. "
                f"Received: {count_of(x)} and {len(y)}."
            )
        empty = empty and not count_of(x)
        yield x, y
    if empty:
        raise ValueError(f"`{name}` must hold at least one example. Received: no data.")


def _stream(data: Any, name: str, batch_size: int, shuffle: bool) -> Iterator[Any]:
    if isinstance(data, tf.data.Dataset):
        yield from data.as_numpy_iterator()
    elif isinstance(data, keras.utils.PyDataset):
        yield from (data[index] for index in range(len(data)))
    elif _is_array(data) or _is_dict(data):
        yield from _slices((data,), batch_size, shuffle)
    elif (
        isinstance(data, tuple)
        and len(data) in (2, 3)
        and (_is_array(data[0]) or _is_dict(data[0]))
        and (_is_array(data[1]) or _is_label_dict(data[1], data[0]))
    ):
        if count_of(data[0]) != count_of(data[1]):
            raise ValueError(
                f"`{name}` must hold as many labels as inputs. "
                f"Received: {count_of(data[0])} and {count_of(data[1])}."
            )
        yield from _slices(data[:2], batch_size, shuffle)
    elif hasattr(data, "__iter__") and not isinstance(data, str | bytes | dict):
        yield from data
    else:
        raise TypeError(
            f"`{name}` must be an array, a tuple (x, y), a tf.data.Dataset or an iterable of "
            f"batches. Received: {name} of type {type(data).__name__}."
        )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or tf.is_tensor(value)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_array, value.values()))


def _is_label_dict(value: Any, x: Any) -> bool:
    """Tells labels by output from a second batch of inputs by name."""
    return _is_dict(value) and not (_is_dict(x) and set(x) == set(value))


def _labels(y: Any, name: str, several: bool) -> np.ndarray | None:
    if several and (isinstance(y, dict) or (isinstance(y, list | tuple) and _is_array(y[0]))):
        return None
    if isinstance(y, dict):
        raise TypeError(
            f"`{name}` must have its labels in one array. Received: labels in a dict of "
            f"{', '.join(map(repr, y))}. Pass those of one output, or none."
        )
    return None if y is None else np.asarray(y)


def _arrays(x: Any) -> Any:
    return {k: np.asarray(v) for k, v in x.items()} if isinstance(x, dict) else np.asarray(x)


def count_of(x: Any) -> int:
    """Returns how many inputs a batch holds."""
    return len(next(iter(x.values()), ())) if isinstance(x, dict) else len(x)


def predict_batch(model: Any, x: Any) -> list[np.ndarray]:
    """Returns a Keras model's outputs for a batch, one behind the other.

    Under a strategy each replica is given the whole batch, and all of them answer.
    """
    outputs = keras.tree.flatten(model.predict_on_batch(x))
    return [np.asarray(output)[: count_of(x)] for output in outputs]


def _slices(arrays: tuple[Any, ...], batch_size: int, shuffle: bool) -> Iterator[Any]:
    count = count_of(arrays[0])
    order = np.random.default_rng(0).permutation(count) if shuffle else None

    def part(array: Any, start: int) -> Any:
        if isinstance(array, dict):
            return {k: part(v, start) for k, v in array.items()}
        if order is None:
            return np.asarray(array[start : start + batch_size])
        return np.asarray(array)[order[start : start + batch_size]]

    for start in range(0, count, batch_size):
        yield tuple(part(array, start) for array in arrays)


def class_indices(labels: np.ndarray) -> np.ndarray:
    """Returns integer classes (n,) from integer or one-hot labels."""
    if labels.ndim == 2 and labels.shape[-1] > 1:
        return labels.argmax(axis=-1)
    return labels.reshape(len(labels)).astype("int64")


def border_of(outputs: np.ndarray) -> float:
    """Returns from where on a single output is class 1: 0.5 for probabilities, 0 for logits."""
    return 0.5 if bool(np.all((outputs >= 0.0) & (outputs <= 1.0))) else 0.0


def top_class(outputs: np.ndarray, *, border: float = 0.5) -> np.ndarray:
    """Returns the class (n,) of highest output, or `output > border` of a single one."""
    flat = outputs.reshape(len(outputs), -1)
    return flat.argmax(axis=-1) if flat.shape[-1] > 1 else (flat[:, 0] > border).astype("int64")
