"""The cases of `ko.distillation`."""

import atexit
import functools
import pathlib
import shutil
import tempfile
from typing import Any

import keras
import numpy as np

import kerasopt as ko
from tests.cases._case import IMAGES, UNBUILT, Case, fit
from tests.models import stripes

LOGITS = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]], "float32")
FEATURES = np.ones((2, 3, 3, 4), "float32")
CACHED_PHOTOS = stripes(count=8)[0]


def teacher(classes: int = 4, activation: Any = None) -> Any:
    """A teacher of the images of the contract tests."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(classes, activation=activation)]
    return keras.Sequential([keras.Input((12, 12, 3)), *layers], name="teacher")


TEACHER = teacher()


@functools.cache
def folder() -> pathlib.Path:
    """A folder for files of targets."""
    root = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def cached(photos: Any = CACHED_PHOTOS) -> pathlib.Path:
    """A file of targets."""
    return ko.distillation.cache_targets(photos, teacher(), folder() / "targets.npz")


def distill(**options: Any) -> Any:
    """Trains for two epochs with a teacher."""
    return fit(ko.distillation.Distill(**{"teacher": teacher(), **options}))


DISTILLATION = (
    Case(
        "distillation",
        "Distill",
        "callback",
        make=lambda: ko.distillation.Distill(TEACHER),
        bad=(
            ({"teacher": None}, ValueError, "needs either `teacher` or `targets`"),
            ({"teacher": 3}, TypeError, "`teacher` must be a keras.Model"),
            ({"teacher": []}, ValueError, "`teacher` must be a keras.Model"),
            ({"teacher": "model.h5"}, ValueError, "`teacher` must be a keras.Model"),
            ({"teacher": "no.keras"}, FileNotFoundError, "`teacher` must be a file that exists"),
            ({"teacher": UNBUILT}, ValueError, "`teacher` must be a trained model"),
            ({"targets": "no.npz"}, FileNotFoundError, "`targets` must be a file"),
            ({"teacher": "ema", "ema_momentum": 1.0}, ValueError, "`ema_momentum` must be"),
            ({"teacher": "ema", "temperature": 0}, ValueError, "`temperature` must be a number"),
            ({"teacher": "ema", "temperature": "4"}, TypeError, "`temperature` must be a number"),
            ({"teacher": "ema", "alpha": 1.5}, ValueError, r"`alpha` must be a number in \[0, 1\]"),
            ({"teacher": "ema", "alpha": {0.0: 2}}, ValueError, "`alpha` must be a number"),
            ({"teacher": "ema", "alpha": {}}, ValueError, "`alpha` must have at least one moment"),
            ({"teacher": "ema", "alpha": {2.5: 1}}, ValueError, "`alpha moment` must be"),
            ({"teacher": "ema", "loss": "l1"}, ValueError, "`loss` must be one of"),
            ({"teacher": "ema", "weights": [1, 2]}, ValueError, "`weights` must be a number > 0"),
            ({"teacher": "ema", "class_map": "abc"}, TypeError, "`class_map` must give"),
            ({"teacher": "ema", "class_map": {0: 1}}, ValueError, "at least two classes"),
            ({"teacher": "ema", "class_map": [0, 1, 1]}, ValueError, "must be a map"),
            ({"teacher": "ema", "features": "conv"}, TypeError, "`features` must be a dict"),
            (
                {"teacher": "ema", "features": {"a": "b"}, "feature_loss": "l7"},
                ValueError,
                "`feature_loss` must be",
            ),
            ({"teacher": "ema", "teacher_outputs": "raw"}, ValueError, "`teacher_outputs` must be"),
            ({"teacher": "ema", "unlabelled": "photos"}, TypeError, "`unlabelled` must be"),
            (
                lambda: distill(teacher=teacher(7)),
                ValueError,
                "`class_map` is needed where teacher and student have other classes",
            ),
            (
                lambda: distill(teacher=teacher(activation="softmax"), loss="mse"),
                ValueError,
                "`loss='mse'` compares logits",
            ),
            (
                lambda: distill(features={"stem_cnov": "teacher"}),
                ValueError,
                "Did you mean 'stem_conv'",
            ),
            (
                lambda: distill(teacher=teacher(activation="relu")),
                ValueError,
                "`teacher_outputs` must be 'logits' or 'probabilities' where the last operation",
            ),
        ),
    ),
    Case(
        "distillation",
        "attention_loss",
        "function",
        make=lambda: ko.distillation.attention_loss(FEATURES, FEATURES),
    ),
    Case(
        "distillation",
        "cache_targets",
        "function",
        make=cached,
        bad=(
            (
                lambda: ko.distillation.cache_targets(IMAGES, "ema", "targets.npz"),
                ValueError,
                "`teacher` must be one teacher",
            ),
            (
                lambda: ko.distillation.cache_targets(IMAGES, 3, "targets.npz"),
                TypeError,
                "`teacher` must be a keras.Model",
            ),
            (
                lambda: ko.distillation.cache_targets(IMAGES, "no.keras", "targets.npz"),
                FileNotFoundError,
                "`teacher` must be a file that exists",
            ),
            (
                lambda: ko.distillation.cache_targets(IMAGES, teacher(), folder() / "no" / "t.npz"),
                ValueError,
                "`path` must be a file in an existing folder",
            ),
        ),
    ),
    Case(
        "distillation",
        "dist_loss",
        "function",
        make=lambda: ko.distillation.dist_loss(LOGITS, LOGITS),
    ),
    Case(
        "distillation",
        "kl_loss",
        "function",
        make=lambda: ko.distillation.kl_loss(LOGITS, LOGITS),
    ),
    Case(
        "distillation",
        "mse_loss",
        "function",
        make=lambda: ko.distillation.mse_loss(LOGITS, LOGITS),
    ),
)
