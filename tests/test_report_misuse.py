"""What a report and its parts refuse."""

import numpy as np
import pytest

from kerasopt import report as kr
from tests.report_page import picture, row, sample


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"predictions": np.array([0, 1])}, ValueError, r"same length.*lengths=\[6, 2, 6\]"),
        ({"confidences": np.ones(5)}, ValueError, r"same length.*lengths=\[6, 6, 5\]"),
        ({"labels": np.array([0, 0, 1, 1, 2, 3])}, ValueError, r"in \[0, 2\]. Received: 3 in lab"),
        ({"predictions": np.array([0, -1, 1, 1, 2, 2])}, ValueError, r"Received: -1 in predict"),
        ({"predictions": np.zeros((6, 3), int)}, ValueError, r"vector.*shape=\(6, 3\).*argmax"),
        ({"labels": np.zeros(6)}, TypeError, r"`labels` must hold integers.*float64"),
        ({"confidences": np.full(6, 7.5)}, ValueError, r"in \[0, 1\]. Received: 7.5.*softmax"),
        ({"confidences": np.full(6, np.nan)}, ValueError, r"`confidences`.*Received: nan"),
        ({"class_names": ()}, ValueError, r"`class_names` must name at least one"),
        ({"augmented": (np.zeros((2, 8, 8, 3)),)}, TypeError, r"`augmented\[0\]`.*float64.*astype"),
        ({"augmented": (picture(),)}, ValueError, r"`augmented\[0\]`.*count.*shape=\(20, 20, 3\)"),
        ({"keras_predictions": np.zeros(5, int)}, ValueError, r"lengths=\[6, 6, 6, 5\]"),
        ({"keras_predictions": np.zeros(6)}, TypeError, r"`keras_predictions` must hold integers"),
        ({"layers": ({}, {"error": -0.1})}, ValueError, r"layers\[1\].*>= 0.*error=-0.1"),
        ({"layers": ({"error": float("nan")},)}, ValueError, r"layers\[0\].*error=nan"),
        ({"files": (row(), row(name="b"))}, ValueError, r"at most one shipped.*'b'"),
    ],
)
def test_bad_reports_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        sample(**changes)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: kr.Event(-1.0, "prune", "x"), ValueError, r"`epoch`.*\[0, inf\].*epoch=-1"),
        (lambda: kr.Event(1.0, "unfreze", "x"), ValueError, r"Did you mean 'unfreeze'"),
        (
            lambda: kr.Mistake(np.zeros((8, 8, 3)), "a", "b", 0.5),
            TypeError,
            r"`image` must hold uint8.*float64",
        ),
        (lambda: kr.Mistake([[0]], "a", "b", 0.5), TypeError, r"of type list.*np.asarray"),
        (lambda: kr.Mistake(picture(8, 4), "a", "b", 0.5), ValueError, r"1 or 3 channels"),
        (lambda: kr.Mistake(picture(8), "a", "b", 1.5), ValueError, r"confidence=1.5"),
        (lambda: kr.Flip(picture(8), "a", "b", "c", 0.5), ValueError, r"Exactly one.*before='b'"),
        (lambda: kr.Flip(picture(8), "a", "a", "b", 1.5), ValueError, r"confidence=1.5"),
        (lambda: kr.Flip(picture(8, 4), "a", "a", "b", 0.5), ValueError, r"1 or 3 channels"),
        (lambda: row(kind="int4"), ValueError, r"`kind` must be one of.*kind='int4'"),
        (lambda: row(size=-1), ValueError, r"size=-1"),
        (lambda: row(accuracy=93.5), ValueError, r"`accuracy`.*\[0, 1\].*accuracy=93.5"),
        (lambda: row(milliseconds={0: 1.0}), ValueError, r"milliseconds"),
        (lambda: row(milliseconds={1: -2.0}), ValueError, r"milliseconds\[1\]=-2.0"),
    ],
)
def test_bad_parts_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
