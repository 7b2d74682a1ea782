"""Counts behind the pictures: who was taken for whom, and how often each class was right."""

import math
from typing import NamedTuple

import numpy as np

from kerasopt._validation import check_int


class Pair(NamedTuple):
    """One kind of mistake: `wrong` of the `total` photos of `actual` were called `predicted`."""

    actual: int
    predicted: int
    wrong: int
    total: int


def check_labels(name: str, values: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns `values` as a vector of int64 after checking that each is a class index."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"`{name}` must be a vector of class indices. Received: {name}.shape={array.shape}. "
            "Take the argmax over the classes first."
        )
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"`{name}` must hold integers. Received: {name}.dtype={array.dtype}. "
            "Take the argmax over the classes first."
        )
    if array.min() < 0 or array.max() >= num_classes:
        worst = int(array.min() if array.min() < 0 else array.max())
        raise ValueError(
            f"`{name}` must be class indices in [0, {num_classes - 1}]. "
            f"Received: {worst} in {name}. Pass the names of all classes."
        )
    return array.astype(np.int64)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how often each class was taken for each: `matrix[label, prediction]`.

    Args:
        labels: Integer array of shape `(n,)`, true classes in `[0, num_classes)`.
        predictions: Integer array of shape `(n,)`, predicted classes in `[0, num_classes)`.
        num_classes: Int >= 1.

    Returns:
        Int64 array of shape `(num_classes, num_classes)` that sums to `n`.

    Raises:
        ValueError: The lengths differ, or a class is outside the range.
        TypeError: The classes are not integers.

    Example:
    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2)
    array([[1, 1],
           [0, 1]])
    """
    check_int("num_classes", num_classes, low=1)
    labels = check_labels("labels", labels, num_classes)
    predictions = check_labels("predictions", predictions, num_classes)
    if len(labels) != len(predictions):
        raise ValueError(
            "`labels` and `predictions` must have the same length. "
            f"Received: len(labels)={len(labels)}, len(predictions)={len(predictions)}. "
            "Pass one prediction for each photo."
        )
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def class_accuracy(matrix: np.ndarray) -> list[tuple[int, float]]:
    """Returns `(class, accuracy)`, lowest accuracy first; classes without photos are left out."""
    totals = matrix.sum(axis=1)
    rows = [(i, float(matrix[i, i] / totals[i])) for i in range(len(matrix)) if totals[i]]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def confused_pairs(matrix: np.ndarray, limit: int) -> list[Pair]:
    """Returns the most frequent mistakes, most frequent first, at most `limit` of them."""
    totals = matrix.sum(axis=1)
    pairs = [
        Pair(int(i), int(j), int(matrix[i, j]), int(totals[i]))
        for i, j in np.argwhere(matrix)
        if i != j
    ]
    pairs.sort(key=lambda p: (-p.wrong, -p.wrong / p.total, p.actual, p.predicted))
    return pairs[:limit]


def chance(lost: int, won: int) -> float:
    """Returns how likely so uneven a split of changed answers is when neither model is better.

    The exact test of McNemar, two-sided: each changed answer is lost or won with probability 1/2.

    >>> chance(3, 0), chance(5, 5)
    (0.25, 1.0)
    """
    changed, fewer = lost + won, min(lost, won)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1))
    return float(min(2 * tail / 2**changed, 1.0))
