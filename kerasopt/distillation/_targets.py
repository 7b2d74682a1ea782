"""A teacher's outputs, stored once, found again by the photo itself."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._data import batches
from kerasopt._files import write_atomic
from kerasopt.distillation._outputs import check_kind
from kerasopt.distillation._teachers import ModelTeacher, make_teachers

_FORMAT = 1


def cache_targets(
    dataset: Any,
    teacher: Any,
    path: str | os.PathLike[str],
    *,
    features: Sequence[str] = (),
    preprocessing: Any = None,
    teacher_outputs: str | None = None,
) -> pathlib.Path:
    """Stores what a teacher says of every photo, for `Distill(targets=path)`.

    Each photo is known again by its own values, so `fit` may shuffle, repeat and batch the data
    as it likes. They must be the same values, to the last bit: no random augmentation in the
    pipeline. A file that already holds these photos and this teacher is left as it is.

    Args:
        dataset: the photos as `fit` will read them: an array, `(x, y)`, a batched
            `tf.data.Dataset` or an iterable of batches.
        teacher: a `keras.Model`, a `ko.export.TFLiteModel`, or the path of a `.keras` or
            `.tflite` file.
        path: where to, such as `"teacher.npz"`.
        features: names of layers of the teacher whose outputs are stored as well, for `features`
            of `Distill`. Pooled ones are small; a feature map may be larger than its photo.
        preprocessing: as in `Distill`.
        teacher_outputs: as in `Distill`.

    Returns:
        The path.

    Raises:
        TypeError: teacher or data have another form.
        ValueError: there are no photos, the teacher does not fit them or has no such layers.
        FileNotFoundError: there is no such teacher.

    Example:
        >>> import keras, numpy, os, tempfile
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> photos = numpy.eye(4, dtype="float32")
        >>> path = os.path.join(tempfile.mkdtemp(), "teacher.npz")
        >>> cache_targets(photos, teacher, path).name
        'teacher.npz'
    """
    check_kind("teacher_outputs", teacher_outputs)
    if isinstance(teacher, list | tuple) or teacher == "ema":
        raise ValueError(
            "`teacher` must be one teacher. Received: "
            f"teacher={'ema' if isinstance(teacher, str) else 'a list'!r}. Store several in files "
            "of their own, and give `targets` the list of files."
        )
    source = make_teachers(teacher, teacher_outputs, preprocessing, ema_momentum=0.0)[0]
    names = list(features)
    if names:
        if not isinstance(source, ModelTeacher):
            raise ValueError(
                "`features` needs a teacher that is a Keras model. "
                f"Received: features={names} and {source.name!r}."
            )
        source.watch(names)
    keys = np.concatenate([_keys(x).numpy() for x, _ in batches(dataset, name="dataset")])
    keys, first = np.unique(keys, return_index=True)
    target = pathlib.Path(path)
    facts = {
        "format": _FORMAT,
        "teacher": source.fingerprint(),
        "name": source.name,
        "outputs": source.kind,
        "features": names,
        "data": hashlib.sha256(keys.tobytes()).hexdigest(),
    }
    if target.is_file() and _facts(target) == facts:
        return target
    tables = [np.concatenate(rows)[first] for rows in _ask(source, dataset, names)]
    content = io.BytesIO()
    arrays: dict[str, Any] = {"facts": json.dumps(facts), "keys": keys}
    arrays |= {f"table_{index}": table for index, table in enumerate(tables)}
    np.savez(content, **arrays)
    return write_atomic(target, content.getvalue())


def _ask(source: Any, dataset: Any, names: list[str]) -> list[list[np.ndarray]]:
    """Returns the outputs, and the features of each name, batch by batch in float32."""

    @tf.function(reduce_retracing=True)
    def run(x: Any) -> list[Any]:
        store: dict[str, Any] = {}
        with source.noting(store) if names else contextlib.nullcontext():
            outputs = source(x)
        return [tf.cast(v, "float32") for v in (outputs, *(store[name] for name in names))]

    rows: list[list[np.ndarray]] = [[] for _ in range(1 + len(names))]
    for x, _ in batches(dataset, name="dataset"):
        for row, values in zip(rows, run(tf.constant(x)), strict=True):
            row.append(values.numpy())
    return rows


class CachedTeacher:
    """A teacher whose outputs stand in a file.

    Args:
        path: what `cache_targets` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another kind of file.
    """

    host = False

    def __init__(self, path: Any) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                "`targets` must be the path of a file of ko.distillation.cache_targets. "
                f"Received: targets={path!r}."
            )
        file = pathlib.Path(path)
        if not file.is_file():
            raise FileNotFoundError(
                "`targets` must be a file of ko.distillation.cache_targets. "
                f"Received: targets={str(file)!r}, no file."
            )
        facts = _facts(file)
        if facts is None:
            raise ValueError(
                "`targets` must be a file of ko.distillation.cache_targets. "
                f"Received: targets={str(file)!r}, which is another kind of file."
            )
        with np.load(file) as content:
            self._names = list(facts["features"])
            self._keys = content["keys"]
            self._tables = [content[f"table_{index}"] for index in range(1 + len(self._names))]
        self.path, self.name, self.kind = file, str(facts["name"]), str(facts["outputs"])
        self.teacher = str(facts["teacher"])
        self.num_classes = int(self._tables[0].shape[-1])
        self._tensors: list[Any] = []
        self._watched: list[str] = []

    def begin(self) -> None:
        """Makes tensors of the table, outside of any graph."""
        self._tensors = [tf.constant(array) for array in (self._keys, *self._tables)]

    def watch(self, names: Sequence[str]) -> dict[str, Any]:
        """Looks features up from now on; returns their shapes."""
        for name in names:
            if name not in self._names:
                raise ValueError(
                    f"`features` must name layers whose features {self.path.name!r} holds, "
                    f"{self._names}. Received: {name!r}. Store them with "
                    f"cache_targets(..., features=[{name!r}])."
                )
        self._watched = list(names)
        return {name: self._tables[1 + self._names.index(name)].shape for name in names}

    def __call__(self, x: Any, noting: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Returns the outputs (batch, classes) for photos, and how many were not found."""
        keys, *tables = self._tensors
        wanted = _keys(x)
        places = tf.minimum(tf.searchsorted(keys, wanted), len(self._keys) - 1)
        missing = tf.reduce_sum(tf.cast(tf.gather(keys, places) != wanted, "int32"))
        if noting is not None:
            for name in self._watched:
                noting[name] = tf.gather(tables[1 + self._names.index(name)], places)
        return tf.gather(tables[0], places), missing


def _keys(x: Any) -> Any:
    """Returns a 64-bit key (batch,) of each photo's values, the same for bytes and floats.

    Two multilinear hashes of the bits of the values in float32, with fixed random odd weights.
    The upper half of the bits is folded down first: whole numbers have zeros there.
    """
    x = tf.convert_to_tensor(x)
    flat = tf.reshape(tf.cast(x, "float32"), [tf.shape(x)[0], -1])
    size = int(np.prod(x.shape[1:])) if None not in x.shape[1:] else None
    if size is None:
        raise ValueError(
            f"Cached targets need photos of one known size. Received: shape {tuple(x.shape)}."
        )
    bits = tf.bitcast(flat, tf.int32)
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, 16))
    rng = np.random.default_rng(20221105)
    weights = rng.integers(-(2**31), 2**31, (2, size), dtype="int64").astype("int32") | 1
    high, low = (tf.reduce_sum(bits * row, axis=1) for row in weights)
    high, low = tf.cast(high, tf.int64), tf.cast(low, tf.int64)
    return high * 2**32 + tf.math.floormod(low, 2**32)


def _facts(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        with np.load(path) as content:
            facts = json.loads(str(content["facts"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return facts if facts.get("format") == _FORMAT else None
