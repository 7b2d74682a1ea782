"""A second stream of photos, which have no labels, beside the one that `fit` reads."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf

_BATCH = 32


class Stream:
    """Photos without labels, a batch for each step, joined to the labelled ones inside the step.

    They go through a variable, so that the compiled step needs no iterator, which XLA has not.

    Args:
        data: a batched `tf.data.Dataset` of photos or of tuples that begin with photos, or an
            array of photos.

    Raises:
        TypeError: the data is neither.
    """

    def __init__(self, data: Any) -> None:
        if isinstance(data, np.ndarray) or tf.is_tensor(data):
            data = tf.data.Dataset.from_tensor_slices(np.asarray(data))
            data = data.shuffle(len(data)).batch(min(_BATCH, len(data)))
        if not isinstance(data, tf.data.Dataset):
            raise TypeError(
                "`unlabelled` must be a batched tf.data.Dataset or an array of photos. "
                f"Received: unlabelled of type {type(data).__name__}."
            )
        self._data = data.map(_photos_of)
        self._batches: Iterator[Any] = iter(())
        self._buffer: Any = None
        self._index: Any = None
        self._steps = 1

    def begin(self, model: Any) -> None:
        """Looks at the first batch and makes the variable."""
        first = next(iter(self._data), None)
        if first is None or not len(first):
            raise ValueError("`unlabelled` must hold at least one photo. Received: no data.")
        size = len(first)
        batches = self._data.unbatch().repeat().batch(size, drop_remainder=True).prefetch(2)
        self._batches = iter(batches)
        self._steps = model.steps_per_execution
        with model.distribute_strategy.scope():
            zeros = tf.zeros([self._steps, *first.shape], first.dtype)
            self._buffer = tf.Variable(zeros, trainable=False)
            self._index = tf.Variable(
                0,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def refill(self) -> None:
        """Puts the photos of the next execution into the variable."""
        self._buffer.assign(tf.stack([next(self._batches) for _ in range(self._steps)]))
        self._index.assign(0)

    def join(self, x: Any) -> tuple[Any, Any]:
        """Returns labelled and unlabelled photos together, and how many are labelled."""
        leaves = keras.tree.flatten(x)
        if len(leaves) != 1:
            raise ValueError(
                f"`unlabelled` needs a student with one input. Received: {len(leaves)} inputs."
            )
        known = tf.convert_to_tensor(leaves[0])
        more = self._buffer[self._index] if self._steps > 1 else self._buffer[0]
        self._index.assign_add(1)
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            more = more[context.replica_id_in_sync_group :: context.num_replicas_in_sync]
        if known.shape[1:] != more.shape[1:]:
            raise ValueError(
                "`unlabelled` must hold photos of the shape that `fit` reads. "
                f"Received: {tuple(more.shape[1:])}, and {tuple(known.shape[1:])} in `fit`."
            )
        together = tf.concat([known, tf.cast(more, known.dtype)], axis=0)
        return keras.tree.pack_sequence_as(x, [together]), tf.shape(known)[0]


def _photos_of(*batch: Any) -> Any:
    first = batch[0]
    return first[0] if isinstance(first, tuple) else first
