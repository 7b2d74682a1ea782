"""The cases of `ko.transfer`."""

from typing import Any

import kerasopt as ko
from tests.cases._case import IMAGES, NO_WEIGHTS, PROBED, Case, fit
from tests.models import compiled, small_cnn, stripes


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
