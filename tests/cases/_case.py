"""What the contract tests need to know of one public object, and what many cases share."""

import atexit
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from PIL import Image

import kerasopt as ko
from tests.models import compiled, small_cnn, stripes

Kind = Literal["layer", "callback", "transform", "function", "result", "class", "alias"]
Bad = tuple[dict[str, Any] | Callable[[], Any], type[Exception], str]


@dataclass(frozen=True)
class Case:
    """What the contract tests need to know of one public object.

    Attributes:
        room: where it is public, `"pruning"` for `ko.pruning`.
        name: its name there.
        kind: `"layer"`, `"callback"`, `"transform"` (model in, new model out), `"function"`,
            `"result"` (a value that is returned or passed), `"class"` or `"alias"` (of a type).
        make: makes an object of the class, or calls the function, in a valid way.
        of_model: for a function of a model, which must leave the model alone: the call.
        bad: `(keyword arguments or a call, error type, regex of the message)`.
        serializable: whether it may stand inside a saved model.
        sample_input: for a layer, a batch that it takes.
    """

    room: str
    name: str
    kind: Kind
    make: Callable[[], Any] | None = None
    of_model: Callable[[Any], Any] | None = None
    bad: tuple[Bad, ...] = ()
    serializable: bool = False
    sample_input: np.ndarray | None = None

    @property
    def target(self) -> Any:
        """The public object."""
        return getattr(getattr(ko, self.room), self.name)

    def example(self) -> Any:
        """Makes one, or calls it."""
        if self.make is not None:
            return self.make()
        return self.of_model(small_cnn())

    def __str__(self) -> str:
        return f"{self.room}.{self.name}"


IMAGES = stripes(count=4)[0]
PROBED = (stripes(count=8)[0], np.arange(8) % 4)
NO_WEIGHTS = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()], name="no_weights")
UNBUILT = keras.Sequential([keras.layers.Dense(2)], name="unbuilt")


def fit(callback: Any, model: Any = None, *, epochs: int = 2) -> Any:
    """Trains a small model for `epochs` of two steps with one callback."""
    x, y = stripes(count=8)
    model = compiled(small_cnn() if model is None else model)
    model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=[callback])
    return model


def chain() -> Any:
    """Keras layers as an `Augmentation` takes them."""
    return [keras.layers.RandomFlip("horizontal"), keras.layers.RandomBrightness(0.1)]


@functools.cache
def photos() -> pathlib.Path:
    """A folder of two classes with three photos each."""
    place = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    root = place / "photos"
    root.mkdir()
    for name in ("daisy", "tulip"):
        (root / name).mkdir()
        for index, image in enumerate(IMAGES[:3].astype("uint8")):
            Image.fromarray(image).save(root / name / f"{index}.png")
    return root


@functools.cache
def tflite() -> bytes:
    """The content of a TFLite file of one dense layer."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    return ko.export.to_tflite(model).content


@functools.cache
def aware() -> Any:
    """A quantization-aware model that has seen a batch."""
    model = ko.quantization.quantize_aware(small_cnn())
    model(IMAGES, training=True)
    return model


def run_report(**changes: Any) -> Any:
    """A report of a run with as little in it as is allowed."""
    return ko.report.RunReport(
        **{
            "title": "Run",
            "summary": (),
            "settings": {},
            "class_names": ("cat", "dog"),
            "counts": {},
            "history": {"loss": [1.0, 0.5]},
            "events": (),
            "augmented": (),
            "labels": np.array([0, 1]),
            "predictions": np.array([0, 0]),
            "confidences": np.array([0.9, 0.6]),
            "mistakes": (),
            "files": (),
            **changes,
        }
    )


def file_row(**changes: Any) -> Any:
    """A file of a report."""
    fields = {"name": "model.tflite", "kind": "int8", "size": 9, "gzip_size": 5}
    measured = {"accuracy": 0.9, "keras_accuracy": 0.9, "agreement": 1.0}
    return ko.report.FileRow(**{**fields, **measured, **changes})


def result(**changes: Any) -> Any:
    """What an export returns."""
    kinds = {"quantize": None, "input_dtype": "float32", "output_dtype": "float32"}
    fields = {"path": None, "content": b"", "size": 0, "gzip_size": 0, "operators": ()}
    return ko.export.ExportResult(**{**fields, **kinds, **changes})


def layer_profile() -> Any:
    """One row of a profile."""
    return ko.profiling.LayerProfile(
        "dense", "Dense", (None, 2), "float32", 10, 8, 4, 5, num_bits=32, bytes=40, macs=8
    )
