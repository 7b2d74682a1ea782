"""The cases of `ko.augmentation`."""

import keras

import kerasopt as ko
from tests.cases._case import IMAGES, Case, chain, fit
from tests.models import small_cnn

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
