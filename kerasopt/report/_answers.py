"""What the file answered: class by class, its mistakes, and what compression changed."""

from typing import Any

import numpy as np

from kerasopt.report import _format as fmt
from kerasopt.report._data import Flip, RunReport
from kerasopt.report._metrics import chance, class_accuracy, confused_pairs, confusion_matrix
from kerasopt.report._pictures import data_uri, is_small

_MAX_MATRIX_CLASSES = 25
_MAX_MISTAKES = 24
_MAX_FLIPS = 12  # of either kind
_FLIP_SIDE = 112  # pixels: there may be twice as many as mistakes of this size


def answers(report: RunReport) -> dict[str, Any]:
    """The confusion matrix with colours, accuracy by class, and the most frequent mistakes."""
    names = report.class_names
    matrix = confusion_matrix(report.labels, report.predictions, len(names))
    totals = matrix.sum(axis=1)
    rows = []
    for i in range(len(names) if len(names) <= _MAX_MATRIX_CLASSES else 0):
        share = [float(n / totals[i]) if totals[i] else 0.0 for n in matrix[i]]
        cells = [(int(n), s, i == j) for j, (n, s) in enumerate(zip(matrix[i], share, strict=True))]
        rows.append({"name": names[i], "total": int(totals[i]), "cells": cells})
    pairs = confused_pairs(matrix, 6 if rows else 20)
    return {
        "count": int(matrix.sum()),
        "wrong": int(matrix.sum() - matrix.trace()),
        "rows": rows,
        "names": names,
        "classes": [
            (names[i], value, int(matrix[i, i]), int(totals[i]))
            for i, value in class_accuracy(matrix)
        ],
        "pairs": [(names[p.actual], names[p.predicted], p.wrong, p.total) for p in pairs],
        "confidence": _confidence(report),
    }


def _confidence(report: RunReport) -> list[tuple[str, str]]:
    right = np.asarray(report.labels) == np.asarray(report.predictions)
    confidences = np.asarray(report.confidences)
    groups = (("right", confidences[right]), ("wrong", confidences[~right]))
    return [(name, fmt.percent(float(values.mean()))) for name, values in groups if len(values)]


def mistakes(report: RunReport) -> list[dict[str, Any]]:
    """Returns the pictures of wrong answers."""
    return [
        {
            "picture": data_uri(mistake.image),
            "pixelated": is_small(mistake.image),
            "actual": mistake.actual,
            "predicted": mistake.predicted,
            "confidence": float(mistake.confidence),
        }
        for mistake in report.mistakes[:_MAX_MISTAKES]
    ]


def compression(report: RunReport) -> dict[str, Any] | None:
    """Returns what the shipped file lost and won against the float32 Keras model."""
    if report.keras_predictions is None or not len(report.labels):
        return None
    labels, after = np.asarray(report.labels), np.asarray(report.predictions)
    before = np.asarray(report.keras_predictions)
    was, is_right = before == labels, after == labels
    lost, won = int(np.sum(was & ~is_right)), int(np.sum(~was & is_right))
    return {
        "lost": lost,
        "won": won,
        "right": int(np.sum(was & is_right)),
        "wrong": int(np.sum(~was & ~is_right)),
        "other": int(np.sum(~was & ~is_right & (before != after))),
        "chance": chance(lost, won),
        "kinds": [
            ("Lost", lost, [_flip(flip) for flip in report.flips if flip.is_lost][:_MAX_FLIPS]),
            ("Won", won, [_flip(flip) for flip in report.flips if not flip.is_lost][:_MAX_FLIPS]),
        ],
    }


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "picture": data_uri(flip.image, _FLIP_SIDE),
        "pixelated": is_small(flip.image),
        "actual": flip.actual,
        "before": flip.before,
        "after": flip.after,
        "confidence": float(flip.confidence),
    }
