"""Files beside their models, measured: EfficientNet-Lite0 with its ImageNet weights as int8.

    python benchmarks/exports.py imagenet [--photos 1000]

`imagenet`: the weights in `../shared`, 1,000 classes. Ranges come from 200 photos, and the files
and Keras are asked about 1,000 others. They show flowers, of which ImageNet knows few by name: the
answers are less sure than for its own photos, and part sooner.
"""

import argparse
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _record import SHARED, record_part

import kerasopt as ko

RANGES = 200
BARS = {"imagenet": {"agreement": 0.97, "bytes": 5_300_000}}
OBSERVERS = ("minmax", "moving_average", "percentile", "mse")


def photos(count: int) -> np.ndarray:
    """Returns photos (count, 224, 224, 3) uint8, drawn from all classes."""
    files = sorted((SHARED / "data" / "flowers17").glob("*/*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(files))[:count]
    return np.stack([ko.datasets.load_image(files[i]) for i in chosen]).astype("uint8")


def imagenet(options: argparse.Namespace) -> dict[str, Any]:
    """Compares int8 files with Keras, ranges taken by the converter and by each observer."""
    model = keras.saving.load_model(SHARED / "weights" / "efficientnet_lite0_imagenet.keras")
    images = photos(RANGES + options.photos).astype("float32")
    ranges, asked = images[:RANGES], images[RANGES:]
    expected = model.predict(asked, verbose=0)
    files = {
        "float32": ko.export.to_tflite(model),
        "converter": ko.export.to_tflite(
            model, quantize="int8", representative_data=ranges, verify=False
        ),
    }
    for observer in OBSERVERS:
        aware = ko.quantization.quantize_aware(model)
        ko.quantization.calibrate(aware, ranges, observer)
        files[observer] = ko.export.to_tflite(aware, quantize="int8")
    rows = {name: described(file, expected, asked) for name, file in files.items()}
    return {"photos": len(asked), **rows}


def described(result: Any, expected: np.ndarray, asked: np.ndarray) -> dict[str, Any]:
    """Returns size and agreement with the float model, on all inputs and on the sure ones."""
    found = ko.export.TFLiteModel(result.content).predict(asked)
    same = expected.argmax(-1) == found.argmax(-1)
    sure = np.sort(expected, axis=-1)[:, -1] >= 0.5
    return {
        "bytes": result.size,
        "agreement": round(float(same.mean()), 4),
        "agreement_of_the_sure": round(float(same[sure].mean()), 4),
        "sure": int(sure.sum()),
    }


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("imagenet",))
    parser.add_argument("--photos", type=int, default=1000)
    options = parser.parse_args()
    figures = {"imagenet": imagenet}[options.part](options)
    record_part("exports", options.part, {"bars": BARS[options.part], **figures})


if __name__ == "__main__":
    main()
