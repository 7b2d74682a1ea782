"""The cases of `ko.datasets`."""

import pathlib

import kerasopt as ko
from tests.cases._case import Case, photos

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
            ({"path": "none.jpg", "channels": 4}, ValueError, "`channels` must be one of 1, 3"),
        ),
    ),
)
