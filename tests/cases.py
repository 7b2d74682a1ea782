"""One row for every public object: how to make it, how to misuse it, what it promises.

The contract tests run over this table. A new public object needs a new row, nothing else.
"""

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

ROOMS = (
    "augmentation",
    "datasets",
    "export",
    "profiling",
    "pruning",
    "quantization",
    "report",
    "training",
    "transfer",
)
"""Every room that has names of its own; `callbacks` lists some of them again."""

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
    root = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
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


AUGMENTATION = (
    Case(
        "augmentation",
        "Augmentation",
        "layer",
        make=lambda: ko.augmentation.Augmentation(chain(), seed=1, name="augment"),
        bad=(
            ({"layers": []}, ValueError, "`layers` must hold at least one layer"),
            ({"layers": "flip"}, TypeError, "`layers` must be a list of Keras layers"),
            ({"layers": [abs]}, TypeError, "`layers` must be a list of Keras 3 layers"),
            ({"layers": chain(), "seed": -1}, ValueError, "`seed` must be an integer >= 0"),
            ({"layers": chain(), "fuse": 1}, TypeError, "`fuse` must be True or False"),
            ({"layers": chain(), "value_range": 1}, TypeError, "`value_range` must be a pair"),
            ({"layers": chain(), "value_range": (1, 0)}, ValueError, "must be increasing"),
            (
                {"layers": chain(), "bounding_box_format": 4},
                TypeError,
                "`bounding_box_format` must be a string",
            ),
            (
                {"layers": [keras.layers.Rescaling(1 / 255)]},
                ValueError,
                "`layers` must hold augmentation, which is absent at inference",
            ),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "augmentation",
        "CutMix",
        "callback",
        make=lambda: ko.augmentation.CutMix(seed=1, end=0.9),
        bad=(
            ({"alpha": 0}, ValueError, r"`alpha` must be a number in \(0, inf\]"),
            ({"probability": 2}, ValueError, r"`probability` must be a number in \(0, 1\]"),
            ({"start": "0.5"}, TypeError, "`start` must be a fraction of training"),
            ({"start": 2, "end": 1}, ValueError, "`start` must lie before `end`"),
            (
                lambda: fit(ko.augmentation.CutMix(start=5)),
                ValueError,
                "`start` must be an epoch of the planned training",
            ),
        ),
    ),
    Case(
        "augmentation",
        "MixUp",
        "callback",
        make=lambda: ko.augmentation.MixUp(seed=1, end=0.9),
        bad=(
            ({"alpha": -1}, ValueError, r"`alpha` must be a number in \(0, inf\]"),
            ({"probability": 0}, ValueError, r"`probability` must be a number in \(0, 1\]"),
            ({"seed": 0.5}, TypeError, "`seed` must be an integer >= 0"),
            ({"start": 0.5, "end": 0.5}, ValueError, "`start` must lie before `end`"),
            (
                lambda: fit(ko.augmentation.MixUp(start=5)),
                ValueError,
                "`start` must be an epoch of the planned training",
            ),
        ),
    ),
    Case(
        "augmentation",
        "augmix",
        "function",
        make=lambda: ko.augmentation.augmix(seed=1),
        bad=(
            ({"severity": 0}, ValueError, r"`severity` must be a number in \[1, 10\]"),
            ({"width": 0}, ValueError, "`width` must be an integer >= 1"),
            ({"all_operations": 1}, TypeError, "`all_operations` must be True or False"),
        ),
    ),
    Case(
        "augmentation",
        "autoaugment",
        "function",
        make=lambda: ko.augmentation.autoaugment("cifar10", seed=1),
        bad=(
            ({"policy": "cifar"}, ValueError, "Did you mean 'cifar10'"),
            ({"random_erasing": 2}, ValueError, r"`random_erasing` must be a number in \[0, 1\]"),
            ({"fill_value": "grey"}, TypeError, "`fill_value` must be a number"),
        ),
    ),
    Case(
        "augmentation",
        "basic",
        "function",
        make=lambda: ko.augmentation.basic(seed=1),
        bad=(
            ({"flip": "diagonal"}, ValueError, "`flip` must be"),
            ({"rotation": 1.5}, ValueError, r"`rotation` must be a number in \[0, 1\]"),
            ({"zoom": 1.0}, ValueError, r"`zoom` must be a number in \[0, 1\)"),
            ({"hue": "much"}, TypeError, "`hue` must be a number"),
            ({"value_range": (255, 0)}, ValueError, "`value_range` must be"),
        ),
    ),
    Case(
        "augmentation",
        "predict_tta",
        "function",
        make=lambda: ko.augmentation.predict_tta(small_cnn(), IMAGES),
        bad=(
            ({"model": abs, "images": IMAGES}, TypeError, "`model` must have a method predict"),
            (
                lambda: ko.augmentation.predict_tta(small_cnn(), IMAGES, views=["flop"]),
                ValueError,
                "Did you mean 'flip'",
            ),
            (
                lambda: ko.augmentation.predict_tta(small_cnn(), IMAGES, views=[]),
                ValueError,
                "`views` must hold at least one view",
            ),
            (
                lambda: ko.augmentation.predict_tta(small_cnn(), IMAGES, views=3),
                TypeError,
                "`augmentation` must be a kerasopt.augmentation.Augmentation",
            ),
        ),
    ),
    Case(
        "augmentation",
        "preview",
        "function",
        make=lambda: ko.augmentation.preview(ko.augmentation.Augmentation(chain()), IMAGES),
        bad=(
            ({"augmentation": abs, "images": IMAGES}, TypeError, "`augmentation` must be a Keras"),
            (
                lambda: ko.augmentation.preview(keras.layers.ReLU(), IMAGES, columns=1),
                ValueError,
                "`columns` must be an integer >= 2",
            ),
            (
                lambda: ko.augmentation.preview(keras.layers.ReLU(), IMAGES[..., :2]),
                ValueError,
                "`images` must have the shape",
            ),
        ),
    ),
    Case(
        "augmentation",
        "randaugment",
        "function",
        make=lambda: ko.augmentation.randaugment(seed=1),
        bad=(
            ({"num_ops": 0}, ValueError, "`num_ops` must be an integer >= 1"),
            ({"magnitude": 31}, ValueError, r"`magnitude` must be a number in \[0, 30\]"),
            ({"magnitude": "strong"}, TypeError, "`magnitude` must be a number"),
        ),
    ),
    Case(
        "augmentation",
        "trivialaugment",
        "function",
        make=lambda: ko.augmentation.trivialaugment(seed=1),
        bad=(
            ({"value_range": (255, 0)}, ValueError, "`value_range` must be increasing"),
            ({"random_erasing": "often"}, TypeError, "`random_erasing` must be a number"),
        ),
    ),
)

DATASETS = (
    Case(
        "datasets",
        "BadFile",
        "result",
        make=lambda: ko.datasets.BadFile(pathlib.Path("a.png"), "empty file (0 bytes)"),
    ),
    Case(
        "datasets",
        "FashionMnistMini",
        "result",
        make=lambda: ko.datasets.fashion_mnist_mini(),
    ),
    Case(
        "datasets",
        "ImageDataset",
        "result",
        make=lambda: ko.datasets.image_folder(photos(), image_size=(8, 8)),
    ),
    Case(
        "datasets", "fashion_mnist_mini", "function", make=lambda: ko.datasets.fashion_mnist_mini()
    ),
    Case(
        "datasets",
        "image_folder",
        "function",
        make=lambda: ko.datasets.image_folder(photos(), image_size=(8, 8)),
        bad=(
            ({"path": "no/such/folder"}, ValueError, "`path` must be an existing folder"),
            ({"path": ".", "batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
            ({"path": ".", "seed": "a"}, TypeError, "`seed` must be an integer >= 0"),
            ({"path": ".", "on_bad": "hide"}, ValueError, "`on_bad` must be one of"),
            ({"path": ".", "image_size": 96}, ValueError, "`image_size` must be two integers"),
            ({"path": ".", "split": (0.5, 0.5, 0.5)}, ValueError, "`split` must have the sum 1"),
            (
                lambda: ko.datasets.image_folder(photos() / "daisy"),
                ValueError,
                "`path` must hold one folder of photos per class",
            ),
        ),
    ),
    Case(
        "datasets",
        "list_photos",
        "function",
        make=lambda: ko.datasets.list_photos(photos()),
        bad=(({"path": "no/such/folder"}, ValueError, "`path` must be an existing folder"),),
    ),
    Case(
        "datasets",
        "load_image",
        "function",
        make=lambda: ko.datasets.load_image(photos() / "daisy" / "0.png", (8, 8)),
        bad=(
            ({"path": "none.jpg"}, ValueError, "`path` must be a whole image file"),
            ({"path": "none.jpg", "image_size": (0, 8)}, ValueError, r"`image_size\[0\]` must be"),
        ),
    ),
)

EXPORT = (
    Case("export", "ExportResult", "result", make=result),
    Case(
        "export",
        "TFLiteModel",
        "class",
        make=lambda: ko.export.TFLiteModel(tflite(), num_threads=1),
        bad=(
            ({"path_or_bytes": "none.tflite"}, FileNotFoundError, "`path_or_bytes` must be"),
            ({"path_or_bytes": b"nothing"}, ValueError, "must be a TFLite file"),
            (
                lambda: ko.export.TFLiteModel(tflite(), num_threads=0),
                ValueError,
                "`num_threads` must be an integer >= 1",
            ),
            (
                lambda: ko.export.TFLiteModel(tflite()).predict(np.zeros((1, 3))),
                ValueError,
                "`images` must have the shape",
            ),
        ),
    ),
    Case("export", "Timing", "result", make=lambda: ko.export.Timing(1, 2.0, 3.0, 50)),
    Case(
        "export",
        "VerificationError",
        "class",
        make=lambda: ko.export.VerificationError("They differ.", result()),
    ),
    Case(
        "export",
        "to_tflite",
        "function",
        of_model=lambda model: ko.export.to_tflite(model, verify=IMAGES),
        bad=(
            ({"model": "model.keras"}, TypeError, "`model` must be a keras.Model"),
            ({"model": UNBUILT}, ValueError, "`model` must be built"),
            ({"model": NO_WEIGHTS, "quantize": "int4"}, ValueError, "`quantize` must be one of"),
            (
                {"model": NO_WEIGHTS, "quantize": "int8"},
                ValueError,
                "needs data to take its ranges",
            ),
            ({"model": NO_WEIGHTS, "labels": ["a"]}, ValueError, "`labels` must be a list of 4"),
            ({"model": NO_WEIGHTS, "input_dtype": "uint8"}, ValueError, "`input_dtype` must be"),
            ({"model": NO_WEIGHTS, "min_agreement": 2}, ValueError, "`min_agreement` must be"),
            (lambda: ko.export.to_tflite(aware()), ValueError, "becomes an int8 file"),
        ),
    ),
)

PROFILING = (
    Case("profiling", "LayerProfile", "result", make=layer_profile),
    Case(
        "profiling",
        "Profile",
        "result",
        make=lambda: ko.profiling.Profile("model", (layer_profile(),)),
    ),
    Case(
        "profiling",
        "profile",
        "function",
        of_model=lambda model: ko.profiling.profile(model),
        bad=(
            ({"model_or_tflite": 3}, TypeError, "`model_or_tflite` must be a Keras 3 model"),
            ({"model_or_tflite": UNBUILT}, ValueError, "`model_or_tflite` must be a built model"),
            ({"model_or_tflite": "none.tflite"}, FileNotFoundError, "none.tflite"),
            ({"model_or_tflite": b"nothing"}, ValueError, "must be a TFLite file"),
        ),
    ),
    Case(
        "profiling",
        "tflite_operators",
        "function",
        make=lambda: ko.profiling.tflite_operators(tflite()),
        bad=(
            ({"content": b"nothing"}, ValueError, "`content` must be a TFLite file"),
            ({"content": 3}, TypeError, "`content` must be the path or the bytes"),
        ),
    ),
)

LABELS = stripes(count=4)[1]
SCHEDULE = {"schedule": ko.pruning.ConstantSchedule()}


def pruned() -> Any:
    """A small model with zeros."""
    model = small_cnn()
    with ko.pruning.Masks(model, 0.5, **SCHEDULE) as masks:
        masks.update(0)
    return model


PRUNING = (
    Case(
        "pruning",
        "ConstantSchedule",
        "class",
        make=lambda: ko.pruning.ConstantSchedule(begin=0.1),
        bad=(
            ({"begin": 1.5}, ValueError, "`begin` must be a fraction"),
            ({"begin": "soon"}, TypeError, "`begin` must be a fraction"),
            (
                lambda: fit(
                    ko.pruning.PruneLowMagnitude(schedule=ko.pruning.ConstantSchedule(1.0))
                ),
                ValueError,
                "cannot finish in the planned steps",
            ),
        ),
    ),
    Case(
        "pruning",
        "FractionSchedule",
        "class",
        make=lambda: ko.pruning.FractionSchedule(begin=0.1, end=0.5),
        bad=(
            ({"initial_sparsity": 1.0}, ValueError, "`initial_sparsity` must be a number"),
            ({"begin": 1.5}, ValueError, "`begin` must be a fraction"),
            ({"begin": 0.8, "end": 0.2}, ValueError, "`begin` must"),
            ({"power": 0}, ValueError, "`power` must be a number"),
            ({"frequency": 0}, ValueError, "`frequency` must be"),
            ({"frequency": "often"}, TypeError, "`frequency` must be"),
        ),
    ),
    Case(
        "pruning",
        "KeptMasks",
        "class",
        make=lambda: ko.pruning.keep_masks(pruned()),
    ),
    Case(
        "pruning",
        "Masks",
        "class",
        make=lambda: ko.pruning.Masks(small_cnn(), 0.5, total_steps=4),
        bad=(
            ({"model": "model.keras", "total_steps": 4}, TypeError, "needs a Keras 3 model"),
            ({"model": UNBUILT, "total_steps": 4}, ValueError, "needs a model that is built"),
            ({"model": NO_WEIGHTS, "total_steps": 4}, ValueError, "needs a layer with a kernel"),
            (lambda: ko.pruning.Masks(small_cnn()), ValueError, "needs the number of steps"),
            (
                lambda: ko.pruning.Masks(small_cnn(), total_steps=4, layers="stem_cnov"),
                ValueError,
                "Did you mean 'stem_conv'",
            ),
            (
                lambda: ko.pruning.Masks(small_cnn(), total_steps=4).update(0.5),
                TypeError,
                "`step` must be an integer",
            ),
        ),
    ),
    Case(
        "pruning",
        "PruneLowMagnitude",
        "callback",
        make=lambda: ko.pruning.PruneLowMagnitude(0.5),
        bad=(
            ({"final_sparsity": 1.0}, ValueError, r"`final_sparsity` must be a number in \[0, 1\)"),
            ({"final_sparsity": "80%"}, TypeError, "`final_sparsity` must be a number"),
            ({"schedule": 0.5}, TypeError, "`schedule` must be a ko.pruning.FractionSchedule"),
            ({"structure": "row"}, ValueError, "`structure` must be one of"),
            ({"structure": "4:2"}, ValueError, "must have M zeros in every N weights"),
            (
                {"final_sparsity": 0.7, "structure": "2:4"},
                ValueError,
                "`final_sparsity` must be 0.5 or left out",
            ),
            ({"scope": "model"}, ValueError, "`scope` must be one of"),
            ({"targets": 0.5}, TypeError, "`targets` must be a dict"),
            (
                lambda: fit(ko.pruning.PruneLowMagnitude(layers="stem_cnov")),
                ValueError,
                "`layers` must choose at least one layer",
            ),
            (
                lambda: fit(ko.pruning.PruneLowMagnitude(layers=lambda layer: False)),
                ValueError,
                "`layers` must choose at least one layer",
            ),
            (
                lambda: fit(
                    ko.pruning.PruneLowMagnitude(
                        schedule=ko.pruning.FractionSchedule(begin=1, end=0.1)
                    )
                ),
                ValueError,
                "cannot finish in the planned steps",
            ),
        ),
    ),
    Case(
        "pruning",
        "Sensitivity",
        "result",
        make=lambda: ko.pruning.Sensitivity(0.9, (0.5,), ("a", "b"), (9, 9), ((0.9,), (0.8,))),
        bad=(
            (
                lambda: ko.pruning.Sensitivity(0.9, (0.5,), ("a",), (9,), ((0.9,),)).suggest(0.9),
                ValueError,
                "`sparsity` must be at most 0.5",
            ),
            (
                lambda: ko.pruning.Sensitivity(0.9, (0.5,), ("a",), (9,), ((0.9,),)).suggest("x"),
                TypeError,
                "`sparsity` must be a number",
            ),
        ),
    ),
    Case(
        "pruning",
        "SparseInferenceReport",
        "result",
        make=lambda: ko.pruning.sparse_inference_report(small_cnn()),
    ),
    Case(
        "pruning",
        "SparseLayer",
        "result",
        make=lambda: ko.pruning.sparse_inference_report(small_cnn()).layers[0],
    ),
    Case(
        "pruning",
        "StepSchedule",
        "class",
        make=lambda: ko.pruning.StepSchedule(0, 100),
        bad=(
            ({"begin_step": 9, "end_step": 9}, ValueError, "`begin_step` must lie before"),
            ({"begin_step": -1, "end_step": 9}, ValueError, "`begin_step` must be an integer"),
            ({"begin_step": 0.5, "end_step": 9}, TypeError, "`begin_step` must be an integer"),
            (
                lambda: fit(ko.pruning.PruneLowMagnitude(schedule=ko.pruning.StepSchedule(0, 99))),
                ValueError,
                "it needs step 99",
            ),
        ),
    ),
    Case(
        "pruning",
        "block_mask",
        "function",
        make=lambda: ko.pruning.block_mask([[0.1, -0.4]], 0.5, block=(1, 1)),
        bad=(
            ({"weights": [0.1], "sparsity": 0.5}, ValueError, "`weights` must have the shape"),
            (
                {"weights": [[0.1]], "sparsity": 0.5, "block": (0, 4)},
                ValueError,
                r"`block\[0\]` must be an integer",
            ),
            (
                {"weights": [[0.1]], "sparsity": 0.5, "block": (1, 0.5)},
                TypeError,
                r"`block\[1\]` must be an integer",
            ),
            (
                {"weights": [[0.1]], "sparsity": 0.5, "pooling": "MEAN"},
                ValueError,
                "`pooling` must be one of",
            ),
        ),
    ),
    Case(
        "pruning",
        "erk_sparsity",
        "function",
        make=lambda: ko.pruning.erk_sparsity([(3, 3, 8, 8), (8, 4)], 0.5),
        bad=(
            ({"shapes": [(3, 3)], "sparsity": 1.0}, ValueError, "`sparsity` must be a number"),
            ({"shapes": [(3, 3)], "sparsity": "x"}, TypeError, "`sparsity` must be a number"),
            ({"shapes": [], "sparsity": 0.5}, ValueError, "`shapes` must hold at least one"),
        ),
    ),
    Case(
        "pruning",
        "keep_masks",
        "function",
        make=lambda: ko.pruning.keep_masks(pruned()),
        bad=(
            ({"model": "model.keras"}, TypeError, "needs a Keras 3 model"),
            ({"model": UNBUILT}, ValueError, "needs a model that is built"),
            (lambda: ko.pruning.keep_masks(small_cnn()), ValueError, "a model with zeros"),
        ),
    ),
    Case(
        "pruning",
        "m_by_n_mask",
        "function",
        make=lambda: ko.pruning.m_by_n_mask([[0.1], [-0.4]], m=1, n=2),
        bad=(
            ({"weights": [[0.1]], "m": 4}, ValueError, r"`m` must be an integer in \[1, 3\]"),
            ({"weights": [[0.1]], "n": 2.5}, TypeError, "`n` must be an integer"),
        ),
    ),
    Case(
        "pruning",
        "magnitude_mask",
        "function",
        make=lambda: ko.pruning.magnitude_mask([0.1, -0.4], 0.5),
    ),
    Case(
        "pruning",
        "sensitivity",
        "function",
        of_model=lambda model: ko.pruning.sensitivity(model, (IMAGES, LABELS), sparsities=[0.5]),
        bad=(
            ({"model": UNBUILT, "data": None}, ValueError, "needs a model that is built"),
            ({"model": "model.keras", "data": None}, TypeError, "needs a Keras 3 model"),
            (
                lambda: ko.pruning.sensitivity(small_cnn(), IMAGES),
                ValueError,
                "`data` must hold labels",
            ),
        ),
    ),
    Case(
        "pruning",
        "sparse_inference_report",
        "function",
        of_model=lambda model: ko.pruning.sparse_inference_report(model),
        bad=(
            ({"model": UNBUILT}, ValueError, "needs a model that is built"),
            ({"model": "model.keras"}, TypeError, "needs a Keras 3 model"),
        ),
    ),
)

QUANTIZATION = (
    Case(
        "quantization",
        "FakeQuantize",
        "layer",
        make=lambda: ko.quantization.FakeQuantize(2, 0.9, role="input", name="range"),
        bad=(
            ({"num_sites": 0}, ValueError, "`num_sites` must be an integer >= 1"),
            ({"momentum": 1.0}, ValueError, "`momentum` must be a number"),
            ({"fixed_range": (1.0, 2.0)}, ValueError, "`fixed_range` must hold 0"),
            ({"role": "output"}, ValueError, "`role` must be one of"),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "QuantizeAware",
        "callback",
        make=lambda: ko.quantization.QuantizeAware(start=0.5),
        bad=(
            ({"scheme": "int4"}, ValueError, "`scheme` must be one of"),
            ({"start": 1.5}, ValueError, "`start` must be a fraction"),
            ({"freeze_batch_norm": "late"}, TypeError, "`freeze_batch_norm` must be a fraction"),
            (
                lambda: fit(ko.quantization.QuantizeAware(start=1.0)),
                ValueError,
                "`start` must lie before the end",
            ),
            (
                lambda: fit(ko.quantization.QuantizeAware(layers="stem_cnov")),
                ValueError,
                "`layers` must choose at least one layer",
            ),
        ),
    ),
    Case(
        "quantization",
        "QuantizedLayer",
        "layer",
        make=lambda: ko.quantization.QuantizedLayer(keras.layers.Conv2D(4, 3, name="conv")),
        bad=(
            ({"layer": "conv"}, TypeError, "`layer` must be"),
            ({"layer": keras.layers.ReLU()}, TypeError, "`layer` must be"),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "export_twin",
        "function",
        make=lambda: ko.quantization.export_twin(aware()),
        bad=(
            ({"model": NO_WEIGHTS}, ValueError, "A quantization-aware model is needed"),
            (
                lambda: ko.quantization.export_twin(ko.quantization.quantize_aware(small_cnn())),
                ValueError,
                "has seen none",
            ),
        ),
    ),
    Case(
        "quantization",
        "fake_quantize",
        "function",
        make=lambda: ko.quantization.fake_quantize([0.3], -1.0, 1.0),
    ),
    Case(
        "quantization",
        "fake_quantize_kernel",
        "function",
        make=lambda: ko.quantization.fake_quantize_kernel([[0.3, 0.2]], (0,)),
    ),
    Case(
        "quantization",
        "float_operations",
        "function",
        make=lambda: ko.quantization.float_operations(aware()),
        bad=(({"model": NO_WEIGHTS}, ValueError, "A quantization-aware model is needed"),),
    ),
    Case(
        "quantization",
        "is_quantization_aware",
        "function",
        of_model=lambda model: ko.quantization.is_quantization_aware(model),
    ),
    Case(
        "quantization",
        "quantize_aware",
        "transform",
        of_model=lambda model: ko.quantization.quantize_aware(model),
        bad=(
            ({"model": UNBUILT}, ValueError, "needs a model that is built"),
            ({"model": NO_WEIGHTS, "scheme": "int4"}, ValueError, "`scheme` must be one of"),
            ({"model": NO_WEIGHTS, "layers": "conv"}, ValueError, "`layers` must choose at least"),
            (lambda: ko.quantization.quantize_aware(aware()), ValueError, "needs a float model"),
        ),
    ),
)

REPORT = (
    Case(
        "report",
        "Event",
        "result",
        make=lambda: ko.report.Event(0.5, "prune", "pruning begins"),
        bad=(
            ({"epoch": -1.0, "kind": "prune", "label": ""}, ValueError, "`epoch` must be a number"),
            ({"epoch": 0.0, "kind": "trim", "label": ""}, ValueError, "`kind` must be one of"),
        ),
    ),
    Case(
        "report",
        "FileRow",
        "result",
        make=file_row,
        bad=(
            (lambda: file_row(kind="int4"), ValueError, "`kind` must be one of"),
            (lambda: file_row(size=1.5), TypeError, "`size` must be an integer"),
            (
                lambda: file_row(accuracy=93.5),
                ValueError,
                r"`accuracy` must be a number in \[0, 1\]",
            ),
        ),
    ),
    Case(
        "report",
        "Mistake",
        "result",
        make=lambda: ko.report.Mistake(IMAGES[0].astype("uint8"), "cat", "dog", 0.9),
        bad=(
            (
                lambda: ko.report.Mistake(IMAGES[0], "cat", "dog", 0.9),
                TypeError,
                "`image` must hold",
            ),
            (
                lambda: ko.report.Mistake(IMAGES[0].astype("uint8"), "cat", "dog", 90.0),
                ValueError,
                "`confidence` must be a number",
            ),
        ),
    ),
    Case(
        "report",
        "RunReport",
        "result",
        make=run_report,
        bad=(
            (
                lambda: run_report(class_names=()),
                ValueError,
                "`class_names` must name at least one",
            ),
            (lambda: run_report(labels=np.array([0])), ValueError, "must have the same length"),
            (lambda: run_report(labels=np.array([0, 2])), ValueError, "`labels` must be class"),
            (
                lambda: run_report(confidences=np.array([0.9, 60.0])),
                ValueError,
                "`confidences` must be probabilities",
            ),
        ),
    ),
    Case(
        "report",
        "confusion_matrix",
        "function",
        make=lambda: ko.report.confusion_matrix([0, 1], [0, 0], 2),
        bad=(
            (
                {"labels": [0], "predictions": [0, 1], "num_classes": 2},
                ValueError,
                "must have the same length",
            ),
            (
                {"labels": [0.5], "predictions": [0], "num_classes": 2},
                TypeError,
                "`labels` must hold integers",
            ),
        ),
    ),
    Case("report", "environment", "function", make=lambda: ko.report.environment()),
    Case(
        "report",
        "plot_confusion",
        "function",
        make=lambda: ko.report.plot_confusion(np.eye(2, dtype=int), ["cat", "dog"]),
        bad=(
            ({"matrix": np.eye(2), "class_names": ["cat"]}, ValueError, "`matrix` must have one"),
        ),
    ),
    Case(
        "report",
        "plot_history",
        "function",
        make=lambda: ko.report.plot_history({"loss": [1.0, 0.5]}),
        bad=(({"history": {}}, ValueError, "`history` must hold at least one metric"),),
    ),
    Case("report", "render", "function", make=lambda: ko.report.render(run_report())),
    Case(
        "report",
        "write_report",
        "function",
        make=lambda: ko.report.write_report(run_report(), photos() / "report.html"),
        bad=(
            (
                lambda: ko.report.write_report(run_report(), "no/such/folder/report.html"),
                ValueError,
                "`path` must be a file in an existing folder",
            ),
        ),
    ),
)

TRAINING = (
    Case("training", "Moment", "alias"),
    Case(
        "training",
        "Session",
        "class",
        make=lambda: ko.training.Session(compiled(small_cnn())),
        bad=(
            (
                lambda: ko.training.Session(compiled(small_cnn())).hook(None, "fit", abs, order=0),
                ValueError,
                "`kind` must be one of",
            ),
        ),
    ),
    Case(
        "training",
        "Timeline",
        "result",
        make=lambda: ko.training.Timeline(epochs=2, steps_per_epoch=4),
        bad=(
            (
                lambda: ko.training.Timeline(2, 4).resolve(2, name="start"),
                ValueError,
                "`start` must be an epoch of the planned training",
            ),
        ),
    ),
    Case("training", "TrainingCallback", "class", make=lambda: ko.training.TrainingCallback()),
    Case(
        "training",
        "build_optimizer",
        "function",
        make=lambda: ko.training.build_optimizer(compiled(small_cnn()), []),
    ),
    Case(
        "training",
        "check_moment",
        "function",
        make=lambda: ko.training.check_moment("start", 0.5),
        bad=(
            ({"name": "start", "moment": -0.5}, ValueError, "`start` must be a fraction"),
            ({"name": "start", "moment": True}, TypeError, "`start` must be a fraction"),
        ),
    ),
    Case(
        "training",
        "count_steps",
        "function",
        make=lambda: ko.training.count_steps(keras.optimizers.Adam()),
    ),
    Case(
        "training",
        "is_untouched",
        "function",
        make=lambda: ko.training.is_untouched(keras.optimizers.Adam(), keras.Variable(1.0)),
    ),
    Case(
        "training",
        "session",
        "function",
        make=lambda: ko.training.session(compiled(small_cnn())),
    ),
    Case("training", "settle", "function", make=lambda: ko.training.settle(small_cnn())),
    Case(
        "training",
        "trim_optimizer",
        "function",
        make=lambda: ko.training.trim_optimizer(compiled(small_cnn())),
    ),
)


def probe(model: Any = None) -> Any:
    """What a linear probe of a small model on a little data returns."""
    return ko.transfer.linear_probe(small_cnn() if model is None else model, PROBED, folds=2)


TRANSFER = (
    Case(
        "transfer",
        "Block",
        "result",
        make=lambda: ko.transfer.blocks(small_cnn())[0],
    ),
    Case("transfer", "Blocks", "result", make=lambda: ko.transfer.blocks(small_cnn())),
    Case(
        "transfer",
        "FeatureExtractor",
        "class",
        make=lambda: ko.transfer.FeatureExtractor(small_cnn()),
        bad=(
            (
                lambda: ko.transfer.FeatureExtractor("MobilNetV2").fit(),
                ValueError,
                "Did you mean 'MobileNetV2'",
            ),
            (
                lambda: ko.transfer.FeatureExtractor(small_cnn(), batch_size=0.5).fit(),
                TypeError,
                "`batch_size` must be an integer >= 1",
            ),
            (
                lambda: ko.transfer.FeatureExtractor(small_cnn()).fit_transform(IMAGES[0]),
                ValueError,
                "`X` must hold batches of images of shape",
            ),
            (
                lambda: ko.transfer.FeatureExtractor(small_cnn()).fit().features_and_labels(IMAGES),
                ValueError,
                "`data` must have labels",
            ),
        ),
    ),
    Case("transfer", "LinearProbe", "result", make=probe),
    Case(
        "transfer",
        "LayerwiseLearningRate",
        "callback",
        make=lambda: ko.transfer.LayerwiseLearningRate(0.5, lr_factors={"stem": 0.1}),
        bad=(
            ({}, ValueError, "`decay` must be a number in .* unless `lr_factors` is given"),
            ({"decay": 0.0}, ValueError, r"`decay` must be a number in \(0, 1\]"),
            ({"decay": 1.5}, ValueError, r"`decay` must be a number in \(0, 1\]"),
            ({"decay": "0.5"}, TypeError, "`decay` must be a number"),
            ({"decay": 0.5, "per": "stage"}, ValueError, "`per` must be one of 'block', 'layer'"),
            ({"lr_factors": [0.5]}, TypeError, "`lr_factors` must be a dict of factors by regexes"),
            ({"lr_factors": {3: 0.5}}, TypeError, "`lr_factors` must be a dict of factors"),
            (
                {"lr_factors": {"stem": "low"}},
                TypeError,
                r"`lr_factors\['stem'\]` must be a number",
            ),
            (
                {"lr_factors": {"stem": -1.0}},
                ValueError,
                r"`lr_factors\['stem'\]` must be a number",
            ),
            (
                lambda: fit(ko.transfer.LayerwiseLearningRate(lr_factors={"stem_cnv": 0.1})),
                ValueError,
                "Did you mean 'stem_conv'",
            ),
            (
                lambda: fit(ko.transfer.LayerwiseLearningRate(lr_factors={"(": 0.1})),
                ValueError,
                "`lr_factors` must hold valid regexes",
            ),
        ),
    ),
    Case(
        "transfer",
        "LearningRateFinder",
        "callback",
        make=lambda: ko.transfer.LearningRateFinder(num_steps=12, max_rate=1e-3),
        bad=(
            ({"min_rate": 0.0}, ValueError, r"`min_rate` must be a number in \(0, inf\]"),
            ({"min_rate": 1.0, "max_rate": 0.1}, ValueError, r"`max_rate` must be a number in \(1"),
            ({"num_steps": 9}, ValueError, "`num_steps` must be an integer >= 10"),
            ({"num_steps": 20.0}, TypeError, "`num_steps` must be an integer"),
            ({"smoothing": 1.0}, ValueError, r"`smoothing` must be a number in \[0, 1\)"),
            ({"stop_factor": 1.0}, ValueError, r"`stop_factor` must be a number in \(1, inf\]"),
            (
                lambda: fit(ko.transfer.LearningRateFinder()),
                ValueError,
                "`num_steps` must be at most the 4 steps",
            ),
            (
                lambda: ko.transfer.LearningRateFinder().find(small_cnn(), IMAGES),
                ValueError,
                "`model` must be compiled",
            ),
            (
                lambda: ko.transfer.LearningRateFinder().find(compiled(small_cnn()), "photos"),
                TypeError,
                "`data` must be an array",
            ),
            (
                lambda: ko.transfer.LearningRateFinder().suggestion,
                ValueError,
                "A learning-rate test must have run",
            ),
        ),
    ),
    Case(
        "transfer",
        "Preprocess",
        "layer",
        make=lambda: ko.transfer.Preprocess("mobilenet_v2", name="preprocess"),
        bad=(
            ({"family": "mobilnet_v2"}, ValueError, "Did you mean 'mobilenet_v2'"),
            (
                lambda: ko.transfer.Preprocess("resnet")(IMAGES[..., :1]),
                ValueError,
                "must get RGB images with 3 channels",
            ),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "transfer",
        "RateGroup",
        "result",
        make=lambda: ko.transfer.LayerwiseLearningRate(0.5).table(small_cnn())[0],
    ),
    Case(
        "transfer",
        "RateTable",
        "result",
        make=lambda: ko.transfer.LayerwiseLearningRate(0.5).table(small_cnn()),
    ),
    Case(
        "transfer",
        "Unfreeze",
        "callback",
        make=lambda: ko.transfer.Unfreeze({0.25: 1, 0.5: "all"}),
        bad=(
            ({"schedule": {}}, TypeError, "`schedule` must be a dict"),
            ({"schedule": {0.5: None}}, TypeError, "`schedule` values must be"),
            ({"schedule": {1.5: "all"}}, ValueError, "`schedule` must be a fraction"),
            ({"schedule": {0: "all"}, "batch_norm": "off"}, ValueError, "`batch_norm` must be one"),
            (lambda: fit(ko.transfer.Unfreeze({0: 9})), ValueError, "`schedule` must open 1 to 3"),
            (
                lambda: fit(ko.transfer.Unfreeze({2: "all"})),
                ValueError,
                "`schedule` must be an epoch of the planned training",
            ),
        ),
    ),
    Case(
        "transfer",
        "blocks",
        "function",
        of_model=lambda model: ko.transfer.blocks(model),
        bad=(({"model": NO_WEIGHTS}, ValueError, "`model` must be built and have a layer"),),
    ),
    Case(
        "transfer",
        "build_classifier",
        "transform",
        of_model=lambda model: ko.transfer.build_classifier(model, 5),
        bad=(
            (
                {"backbone": "MobilNetV2", "num_classes": 5},
                ValueError,
                "Did you mean 'MobileNetV2'",
            ),
            ({"backbone": 3, "num_classes": 5}, TypeError, "`backbone` must be"),
            (
                {"backbone": "none.keras", "num_classes": 5},
                ValueError,
                "must be an existing .keras",
            ),
            ({"backbone": NO_WEIGHTS, "num_classes": 5}, ValueError, "`backbone` must take images"),
            ({"backbone": "VGG16", "num_classes": 1}, ValueError, "`num_classes` must be"),
            (
                {"backbone": "VGG16", "num_classes": 5, "head": "x"},
                ValueError,
                "`head` must be one",
            ),
            (
                {"backbone": "VGG16", "num_classes": 5, "dropout": 1},
                ValueError,
                "`dropout` must be",
            ),
            ({"backbone": "VGG16", "num_classes": 5, "head": []}, TypeError, "`head` must be"),
            (
                {"backbone": "VGG16", "num_classes": 5, "fc_units": (8,)},
                ValueError,
                "`fc_units` must be left alone",
            ),
            (
                {"backbone": "VGG16", "num_classes": 5, "augmentation": abs},
                TypeError,
                "`augmentation` must be a Keras layer",
            ),
            (
                {"backbone": "VGG16", "num_classes": 5, "input_shape": (32, 32)},
                ValueError,
                "`input_shape` must be",
            ),
        ),
    ),
    Case(
        "transfer",
        "Freeze",
        "callback",
        make=lambda: ko.transfer.Freeze({0.5: 1}),
        bad=(
            ({"schedule": []}, TypeError, "`schedule` must be a dict"),
            ({"schedule": {-1: "all"}}, ValueError, "`schedule` must be an epoch"),
            (lambda: fit(ko.transfer.Freeze({0: 9})), ValueError, "`schedule` must freeze 1 to 3"),
            (lambda: fit(ko.transfer.Freeze({0: "stm"})), ValueError, "`schedule` must choose"),
        ),
    ),
    Case(
        "transfer",
        "GradualUnfreeze",
        "callback",
        make=lambda: ko.transfer.GradualUnfreeze(0.25, 0.75),
        bad=(
            ({"start": 1.5}, ValueError, "`start` must be a fraction"),
            ({"end": "late"}, TypeError, "`end` must be a fraction"),
            ({"groups": 0}, ValueError, "`groups` must be an integer"),
            ({"blocks": 0.5}, TypeError, "`blocks` must be an integer"),
            (
                lambda: fit(ko.transfer.GradualUnfreeze(0.5, 0.0)),
                ValueError,
                "`end` must not come before",
            ),
            (
                lambda: fit(ko.transfer.GradualUnfreeze(blocks=9)),
                ValueError,
                "`blocks` must open 1 to 3",
            ),
        ),
    ),
    Case(
        "transfer",
        "WarmupCosine",
        "callback",
        make=lambda: ko.transfer.WarmupCosine(1e-3),
        bad=(({"peak": -1.0}, ValueError, "`peak` must be a number"),),
    ),
    Case(
        "transfer",
        "WeightAveraging",
        "callback",
        make=lambda: ko.transfer.WeightAveraging(start=0.5),
        bad=(
            ({"kind": "mean"}, ValueError, "`kind` must be one of"),
            ({"momentum": 1.0}, ValueError, "`momentum` must be a number"),
            (
                lambda: fit(ko.transfer.WeightAveraging(start=1.0)),
                ValueError,
                "`start` must lie before the end",
            ),
        ),
    ),
    Case(
        "transfer",
        "fine_tune",
        "function",
        make=lambda: ko.transfer.fine_tune(
            compiled(small_cnn()), stripes(count=8), epochs=2, verbose=0
        ),
        bad=(
            (
                {"model": NO_WEIGHTS, "train": stripes(count=8), "epochs": 0},
                ValueError,
                "`epochs` must be an integer",
            ),
        ),
    ),
    Case(
        "transfer",
        "fine_tuning_callbacks",
        "function",
        of_model=lambda model: ko.transfer.fine_tuning_callbacks(model, 4),
        bad=(
            (
                lambda: ko.transfer.fine_tuning_callbacks(small_cnn(), 4, rate_span=0.1),
                ValueError,
                "`rate_span` must be a number",
            ),
        ),
    ),
    Case(
        "transfer",
        "recalibrate_batch_norm",
        "function",
        make=lambda: ko.transfer.recalibrate_batch_norm(small_cnn(), IMAGES),
        bad=(
            (
                {"model": NO_WEIGHTS, "data": IMAGES},
                ValueError,
                "`model` must have a BatchNormalization",
            ),
        ),
    ),
    Case(
        "transfer",
        "linear_probe",
        "function",
        make=probe,
        bad=(
            ({"model": "model.keras", "data": PROBED}, TypeError, "`model` must be a keras.Model"),
            ({"model": NO_WEIGHTS, "data": PROBED}, ValueError, "must end in a Dense layer"),
            (
                lambda: ko.transfer.linear_probe(small_cnn(), IMAGES),
                ValueError,
                "`data` must have labels",
            ),
            (
                lambda: ko.transfer.linear_probe(small_cnn(classes=5), PROBED, folds=2),
                ValueError,
                "images of every class of the model",
            ),
            (
                lambda: ko.transfer.linear_probe(small_cnn(), PROBED, folds=3),
                ValueError,
                "`folds` must be at most the number of images of each class",
            ),
        ),
    ),
    Case(
        "transfer",
        "split_layers",
        "function",
        of_model=lambda model: ko.transfer.split_layers(model),
        bad=(({"model": NO_WEIGHTS}, ValueError, "`model` must be built and have a layer"),),
    ),
)

CASES = (
    *AUGMENTATION,
    *DATASETS,
    *EXPORT,
    *PROFILING,
    *PRUNING,
    *QUANTIZATION,
    *REPORT,
    *TRAINING,
    *TRANSFER,
)
