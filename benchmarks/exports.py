"""Files beside their models, measured: EfficientNet-Lite0 with its ImageNet weights as int8.

    python benchmarks/exports.py imagenet [--folder FOLDER]

`imagenet`: the weights in `../shared`, 1,000 classes. `FOLDER` holds photos of ImageNet, one of
each class, named by its WordNet id (`n01440764_tench.JPEG`), as in the public repository
`EliSchwartz/imagenet-sample-images`: ranges come from every fifth, and the files and Keras are
asked about the other 800, of which the middle is cut out as in the network's own evaluation.
Without `FOLDER` the photos are those of flowers17: ranges come from 200, and 1,000 others are
asked about. ImageNet knows few flowers by name: the answers are less sure, and part sooner.
"""

import argparse
import os
import pathlib
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _record import SHARED, record_part

import kerasopt as ko

BARS = {"agreement": 0.97, "bytes": 5_300_000}
OBSERVERS = ("minmax", "moving_average", "percentile", "mse")
CROP, SIZE = 256, 224

Photos = tuple[np.ndarray, np.ndarray | None]
"""Photos (count, 224, 224, 3) and, where they are known, their classes."""


def imagenet_photos(folder: pathlib.Path) -> tuple[Photos, Photos]:
    """Returns photos to take ranges from, and others to ask about."""
    files = sorted(folder.glob("n*.*"))
    if len({file.name[:9] for file in files}) != 1000 or len(files) != 1000:
        raise SystemExit(f"{folder} must hold a photo of each class. Received: {len(files)}.")
    edge = (CROP - SIZE) // 2
    photos = [ko.datasets.load_image(file, (CROP, CROP)) for file in files]
    pixels = np.stack([photo[edge:-edge, edge:-edge] for photo in photos]).astype("float32")
    classes = np.arange(len(files))  # WordNet ids in order are the classes in order
    fifth = classes % 5 == 0
    return (pixels[fifth], classes[fifth]), (pixels[~fifth], classes[~fifth])


def flower_photos() -> tuple[Photos, Photos]:
    """Returns photos to take ranges from, and others to ask about."""
    files = sorted((SHARED / "data" / "flowers17").glob("*/*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(files))[:1200]
    pixels = np.stack([ko.datasets.load_image(files[i]) for i in chosen]).astype("float32")
    return (pixels[:200], None), (pixels[200:], None)


def imagenet(folder: pathlib.Path | None) -> dict[str, Any]:
    """Compares int8 files with Keras, ranges taken by the converter and by each observer."""
    model = keras.saving.load_model(SHARED / "weights" / "efficientnet_lite0_imagenet.keras")
    (ranges, _), asked = imagenet_photos(folder) if folder else flower_photos()
    expected = model.predict(asked[0], verbose=0)
    options = {"representative_data": ranges, "verify": False}
    files = {"converter": ko.export.to_tflite(model, quantize="int8", **options)}
    for observer in OBSERVERS:
        aware = ko.quantization.quantize_aware(model)
        ko.quantization.calibrate(aware, ranges, observer)
        files[observer] = ko.export.to_tflite(aware, quantize="int8", verify=False)
    rows = {name: described(file, expected, asked) for name, file in files.items()}
    known = {} if asked[1] is None else {"accuracy": share(expected.argmax(-1) == asked[1])}
    return {"photos": len(asked[0]), "ranges": len(ranges), "keras": known, **rows}


def described(result: Any, expected: np.ndarray, asked: Photos) -> dict[str, Any]:
    """Returns size and agreement with the float model, on all inputs and on the sure ones."""
    found = ko.export.TFLiteModel(result.content).predict(asked[0])
    same = expected.argmax(-1) == found.argmax(-1)
    sure = np.sort(expected, axis=-1)[:, -1] >= 0.5
    known = {} if asked[1] is None else {"accuracy": share(found.argmax(-1) == asked[1])}
    return {
        "bytes": result.size,
        "agreement": share(same),
        **known,
        "agreement_of_the_sure": share(same[sure]),
        "sure": int(sure.sum()),
    }


def share(hits: np.ndarray) -> float:
    """Returns a fraction to four digits."""
    return round(float(hits.mean()), 4)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("imagenet",))
    parser.add_argument("--folder", type=pathlib.Path)
    options = parser.parse_args()
    name = "imagenet" if options.folder else "imagenet_on_flowers"
    record_part("exports", name, {"bars": BARS, **imagenet(options.folder)})


if __name__ == "__main__":
    main()
