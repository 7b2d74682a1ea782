"""One small case for every image augmentation layer of KerasCV and of Keras."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import kerasopt as ko
from kerasopt.augmentation._fusion import plan

tf.keras.__version__  # noqa: B018 - settled before KerasCV reads it
import keras_cv  # noqa: E402

CV = keras_cv.layers
K = keras.layers
RANGE = (0, 255)
SIZE = (16, 18)  # of the images that the layers are tried on

# What stands in the same folders of the two libraries, and why it is not listed below.
EXCLUDED = {
    "BaseImageAugmentationLayer": "abstract",
    "VectorizedBaseImageAugmentationLayer": "abstract",
    "CategoryEncoding": "for features that are no images",
    "Discretization": "for features that are no images",
    "HashedCrossing": "for features that are no images",
    "Hashing": "for features that are no images",
    "IntegerLookup": "for features that are no images",
    "MelSpectrogram": "for sound",
    "STFTSpectrogram": "for sound",
    "StringLookup": "for text",
    "TextVectorization": "for text",
}


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """A layer, and what it asks of the container."""

    make: Callable[[], Any]
    size: tuple[int, int] | None = None  # of its images, where it changes the size
    needs: str | None = None  # what it needs beside images
    refused: bool = False
    draws: bool = True  # it is random
    behind: Callable[[], Any] | None = None  # a layer that has to follow it
    reproducible: bool = True  # the same seed gives the same images
    slow: bool = False  # takes over a second to trace
    note: str = ""

    def layers(self):
        """Returns a fresh list for the container."""
        return [self.make(), *([self.behind()] if self.behind else [])]


def flip():
    return CV.RandomFlip("horizontal")


KERAS_CV = {
    "AugMix": LayerCase(
        lambda: CV.AugMix(RANGE),
        reproducible=False,
        slow=True,
        note="draws in no fixed order, so no seed holds it",
    ),
    "AutoContrast": LayerCase(lambda: CV.AutoContrast(RANGE), draws=False),
    "ChannelShuffle": LayerCase(lambda: CV.ChannelShuffle(3)),
    "CutMix": LayerCase(lambda: CV.CutMix(), needs="labels"),
    "Equalization": LayerCase(lambda: CV.Equalization(RANGE), draws=False),
    "FourierMix": LayerCase(lambda: CV.FourierMix(), needs="labels"),
    "Grayscale": LayerCase(lambda: CV.Grayscale(3), draws=False),
    "GridMask": LayerCase(lambda: CV.GridMask((0.2, 0.5))),
    "JitteredResize": LayerCase(lambda: CV.JitteredResize((8, 10), (0.8, 1.25)), (8, 10)),
    "MixUp": LayerCase(lambda: CV.MixUp(), needs="labels"),
    "Mosaic": LayerCase(lambda: CV.Mosaic(), needs="labels"),
    "Posterization": LayerCase(lambda: CV.Posterization(RANGE, 3), draws=False),
    "RandAugment": LayerCase(lambda: CV.RandAugment(RANGE), slow=True),
    "RandomApply": LayerCase(lambda: CV.RandomApply(CV.RandomRotation(0.2))),
    "RandomAspectRatio": LayerCase(
        lambda: CV.RandomAspectRatio((0.8, 1.25)),
        (8, 10),
        behind=lambda: CV.Resizing(8, 10),
        note="needs a layer behind it that makes one size",
    ),
    "RandomAugmentationPipeline": LayerCase(
        lambda: CV.RandomAugmentationPipeline([flip(), CV.RandomRotation(0.2)], 1)
    ),
    "RandomBrightness": LayerCase(lambda: CV.RandomBrightness(0.2)),
    "RandomChannelShift": LayerCase(lambda: CV.RandomChannelShift(RANGE, 0.4)),
    "RandomChoice": LayerCase(lambda: CV.RandomChoice([flip(), CV.RandomRotation(0.2)])),
    "RandomColorDegeneration": LayerCase(lambda: CV.RandomColorDegeneration(0.8)),
    "RandomColorJitter": LayerCase(lambda: CV.RandomColorJitter(RANGE, 0.2, 0.2, (0.3, 0.7), 0.2)),
    "RandomContrast": LayerCase(lambda: CV.RandomContrast(RANGE, 0.4)),
    "RandomCrop": LayerCase(lambda: CV.RandomCrop(8, 10), (8, 10)),
    "RandomCropAndResize": LayerCase(
        lambda: CV.RandomCropAndResize((8, 10), (0.5, 1.0), (0.8, 1.25)),
        (8, 10),
        note="fused where it keeps it",
    ),
    "RandomCutout": LayerCase(lambda: CV.RandomCutout(0.4, 0.4)),
    "RandomFlip": LayerCase(flip),
    "RandomGaussianBlur": LayerCase(lambda: CV.RandomGaussianBlur(3, (0.5, 2.0))),
    "RandomHue": LayerCase(lambda: CV.RandomHue(0.4, RANGE)),
    "RandomJpegQuality": LayerCase(lambda: CV.RandomJpegQuality((5, 60))),
    "RandomRotation": LayerCase(lambda: CV.RandomRotation(0.2)),
    "RandomSaturation": LayerCase(lambda: CV.RandomSaturation((0.2, 0.8))),
    "RandomSharpness": LayerCase(lambda: CV.RandomSharpness(0.8, RANGE)),
    "RandomShear": LayerCase(lambda: CV.RandomShear(0.3, 0.3)),
    "RandomTranslation": LayerCase(lambda: CV.RandomTranslation(0.3, 0.3)),
    "RandomZoom": LayerCase(lambda: CV.RandomZoom((-0.3, 0.3))),
    "RepeatedAugmentation": LayerCase(
        lambda: CV.RepeatedAugmentation([flip(), CV.RandomRotation(0.2)]),
        needs="labels",
        note="makes the batch larger",
    ),
    "Rescaling": LayerCase(lambda: CV.Rescaling(1 / 255), refused=True),
    "Resizing": LayerCase(lambda: CV.Resizing(8, 10), (8, 10), draws=False),
    "Solarization": LayerCase(lambda: CV.Solarization(RANGE, threshold_factor=(100, 200))),
}

KERAS = {
    "AugMix": LayerCase(
        lambda: K.AugMix(RANGE), note="draws its operations once, when it is traced"
    ),
    "AutoContrast": LayerCase(lambda: K.AutoContrast(RANGE), draws=False),
    "CenterCrop": LayerCase(lambda: K.CenterCrop(8, 10), (8, 10), draws=False),
    "ContrastLimitedAdaptiveHistogramEqualization": LayerCase(
        lambda: K.ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(2, 2)), draws=False
    ),
    "CutMix": LayerCase(lambda: K.CutMix(), needs="labels"),
    "Equalization": LayerCase(lambda: K.Equalization(RANGE), draws=False),
    "MaxNumBoundingBoxes": LayerCase(lambda: K.MaxNumBoundingBoxes(3), needs="boxes", draws=False),
    "MixUp": LayerCase(lambda: K.MixUp(), needs="labels"),
    "Normalization": LayerCase(lambda: K.Normalization(mean=0, variance=1), refused=True),
    "Pipeline": LayerCase(lambda: K.Pipeline([K.RandomFlip(), K.RandomRotation(0.2)])),
    "RandAugment": LayerCase(
        lambda: K.RandAugment(RANGE), slow=True, note="draws its operations for a whole batch"
    ),
    "RandomBrightness": LayerCase(lambda: K.RandomBrightness(0.2)),
    "RandomColorDegeneration": LayerCase(lambda: K.RandomColorDegeneration(0.8)),
    "RandomColorJitter": LayerCase(lambda: K.RandomColorJitter(RANGE, 0.2, 0.2, 0.2, 0.2)),
    "RandomContrast": LayerCase(lambda: K.RandomContrast((0.4, 0.4))),
    "RandomCrop": LayerCase(
        lambda: K.RandomCrop(8, 10), (8, 10), note="the size of the images must be known"
    ),
    "RandomElasticTransform": LayerCase(lambda: K.RandomElasticTransform()),
    "RandomErasing": LayerCase(lambda: K.RandomErasing()),
    "RandomFlip": LayerCase(lambda: K.RandomFlip()),
    "RandomGaussianBlur": LayerCase(lambda: K.RandomGaussianBlur(kernel_size=3, sigma=(0.5, 2.0))),
    "RandomGrayscale": LayerCase(lambda: K.RandomGrayscale(0.5)),
    "RandomHue": LayerCase(lambda: K.RandomHue(0.4)),
    "RandomInvert": LayerCase(lambda: K.RandomInvert((0.5, 0.9))),
    "RandomPerspective": LayerCase(lambda: K.RandomPerspective()),
    "RandomPosterization": LayerCase(lambda: K.RandomPosterization(3)),
    "RandomRotation": LayerCase(lambda: K.RandomRotation(0.2)),
    "RandomSaturation": LayerCase(lambda: K.RandomSaturation((0.2, 0.8))),
    "RandomSharpness": LayerCase(lambda: K.RandomSharpness(0.8)),
    "RandomShear": LayerCase(lambda: K.RandomShear(0.3, 0.3)),
    "RandomTranslation": LayerCase(lambda: K.RandomTranslation(0.3, 0.3)),
    "RandomZoom": LayerCase(lambda: K.RandomZoom((-0.3, 0.3))),
    "Rescaling": LayerCase(lambda: K.Rescaling(1 / 255), refused=True),
    "Resizing": LayerCase(lambda: K.Resizing(8, 10), (8, 10), draws=False),
    "Solarization": LayerCase(lambda: K.Solarization(0.1, (0.4, 0.8))),
}

CASES = {
    **{f"keras_cv.layers.{name}": case for name, case in KERAS_CV.items()},
    **{f"keras.layers.{name}": case for name, case in KERAS.items()},
}


def container(case, **options):
    """Returns a fresh container with the layer, and with what has to follow it."""
    return ko.augmentation.Augmentation(CASES[case].layers(), seed=3, **options)


def is_fused(case):
    """Tells whether a layer is computed as a part of a warp, or of a pass over the colours."""
    layers = container(case).layers
    return plan(layers, range(len(layers)), (*SIZE, 3))[0].kind != "layer"


def table():
    """Writes the table of docs/augmentation.md; the tests prove its columns."""
    lines = ["| layer | in `fit` | saved | mixed precision | `tf.data` | fused | |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, case in CASES.items():
        if case.refused:
            cells = ["—"] * 5 + ["refused: the model needs it at inference too"]
        elif case.needs:
            cells = ["—", "yes", "yes", "yes", "—", f"needs {case.needs}: dictionaries only"]
        else:
            fused = "yes" if is_fused(name) else "—"
            size = "changes the size" if case.size and not case.behind else ""
            cells = ["yes", "yes", "yes", "yes", fused, size]
        cells[-1] = "; ".join(filter(None, [cells[-1], case.note]))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)
