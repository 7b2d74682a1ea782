"""How long `kerasopt inspect` takes for files of 20 MB, the imports left out: at most 3 s.

    python benchmarks/inspect_time.py [repetitions]

The files hold a residual network of random weights, of 20 MB: as int8 and float32 TFLite, and as a
.keras file. The function of the command runs in this process and prints into memory; the median
counts. On a busy machine the seconds are those of everybody: the processor's are recorded too.
"""

import io
import os
import pathlib
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _record import record
from rich.console import Console

from kerasopt import cli
from kerasopt.export import to_tflite

BAR_SECONDS = 3.0


def network(width):
    """A ResNet of bottlenecks, 50 convolutions deep."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((96, 96, 3))
    x = keras.layers.Rescaling(1 / 255.0)(inputs)
    x = keras.layers.Conv2D(width, 7, strides=2, padding="same", activation="relu")(x)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width << stage
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            y = convolution(x, inner, 1, strides)
            y = convolution(y, inner, 3)
            y = convolution(y, 4 * inner, 1, activation=None)
            if not block:
                x = convolution(x, 4 * inner, 1, strides, activation=None)
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(100, activation="softmax")(x))


def convolution(x, filters, size, strides=1, activation="relu"):
    x = keras.layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    return x if activation is None else keras.layers.ReLU()(x)


def write_files(folder):
    """Writes a file of each kind, of 20 MB or a little more; returns their paths."""
    # A weight is a byte in an int8 file, and four in the others.
    large, small = network(60), network(30)
    photos = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3))
    photos = np.kron(photos, np.ones((1, 32, 32, 1))).astype("float32")
    to_tflite(
        large,
        folder / "int8.tflite",
        quantize="int8",
        representative_data=photos,
        verify=False,  # untrained
    )
    to_tflite(small, folder / "float32.tflite")
    small.save(folder / "model.keras")
    return [folder / name for name in ("int8.tflite", "float32.tflite", "model.keras")]


def measured(file):
    """Returns the seconds that a file takes, and the processor's, those of child processes too."""
    start, before = time.perf_counter(), os.times()
    cli.inspect(file)
    after = os.times()
    return round(time.perf_counter() - start, 3), round(sum(after[:4]) - sum(before[:4]), 3)


def main():
    """Measures and records."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cli.console = Console(file=io.StringIO(), markup=False, emoji=False)
    files = {}
    with tempfile.TemporaryDirectory() as name:
        for file in write_files(pathlib.Path(name)):
            runs = [measured(file) for _ in range(repetitions + 1)]
            # The first run imports what is imported when it is needed.
            seconds, processor = zip(*runs[1:], strict=True)
            files[file.name] = {
                "bytes": file.stat().st_size,
                "median_seconds": statistics.median(seconds),
                "median_processor_seconds": statistics.median(processor),
                "seconds": seconds,
                "first_seconds": runs[0][0],
            }
    figures = {"bar_seconds": BAR_SECONDS, "load": round(os.getloadavg()[0], 1), "files": files}
    record("inspect_time", figures)
    return 0 if max(f["median_seconds"] for f in files.values()) <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
