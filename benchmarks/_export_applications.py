"""Converts every model of `keras.applications`: the part `export` of applications.py.

Random weights, the smallest legal input, with the classifier that each has: a float32, a float16, a
dynamic and an int8 file, each run beside Keras. Untrained networks amplify single steps of rounding
from layer to layer, so that the last outputs of quantized files say little about them: an int8 file
is proven operation by operation in the part `quantization`. Here its operators are looked at, and
how far the outputs are.
"""

import pathlib
import re
import resource
import time

from _int8_applications import smallest_size
from _record import RESULTS

RESULT = RESULTS / "applications_export.json"
DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "export.md"
TABLE = re.compile(r"(<!-- applications -->\n).*(<!-- /applications -->)", re.DOTALL)
MODES = ("float32", "float16", "dynamic", "int8")
ERRORS = {"float32": 1e-3, "float16": 0.05, "dynamic": 0.2, "int8": 0.3}
CHANGES = {"float32": 1e-6, "float16": 2.0**-11, "dynamic": 2.0**-8, "int8": 2.0**-8}
"""A network may amplify rounding: outputs that Keras itself moves farther, when its pixels change
by this share to either side, may differ by twice as much."""
VANISHING = 1e-3
"""Outputs smaller than this are lost in the levels of int8, whatever the file does. They come of
the initializer of depthwise kernels, which counts all channels where each is filtered alone."""
CHECKS = ("no_flex", "finite", *(f"{mode}_equal" for mode in MODES), "every_setting")
CLASSES = 5
SAMPLES = 4


def prove(name, folder):  # noqa: ARG001 - as every part
    """Returns what was found out about one model, the entries of `CHECKS` as booleans."""
    import keras
    import numpy as np

    import kerasopt as ko

    keras.utils.set_random_seed(0)
    size = smallest_size(name)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=CLASSES, classifier_activation=None
    )
    pixels = smooth(size)
    expected = np.asarray(model.predict(pixels, verbose=0))
    if np.abs(expected).max() < VANISHING:
        for layer in model.layers:
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                kernel = layer.kernel
                kernel.assign(kernel * kernel.shape[2] ** 0.5)
        expected = np.asarray(model.predict(pixels, verbose=0))
    moved = {mode: moves(np, model, pixels, expected, share) for mode, share in CHANGES.items()}
    found = {"size": size, "parameters": model.count_params(), "seconds": {}, "files": {}}
    found["keras_moves"] = moved
    for mode in MODES:
        start = time.perf_counter()
        result = ko.export.to_tflite(
            model,
            quantize=None if mode == "float32" else mode,
            representative_data=pixels if mode == "int8" else None,
            verify=pixels,
            min_agreement=0.0,
            max_relative_error=1e9,
        )
        found["seconds"][mode] = round(time.perf_counter() - start, 1)
        found["files"][mode] = described(ko, np, result, expected, pixels)
    return {**found, **checks(found["files"], moved), "peak_mib": peak()}


def distance(np, outputs, expected):
    """Returns the norm of the difference over the norm of what was expected."""
    return float(np.linalg.norm(outputs - expected) / np.linalg.norm(expected))


def moves(np, model, pixels, expected, share):
    """Returns how far Keras' own outputs go, at most, when each pixel changes by a share."""
    rng = np.random.default_rng(0)
    signs = (rng.choice((-1.0, 1.0), pixels.shape) for _ in range(4))
    changed = [(pixels * (1.0 + share * sign)).astype("float32") for sign in signs]
    return max(distance(np, model.predict(x, verbose=0), expected) for x in changed)


def smooth(size):
    """Returns images without hard edges, as photos are: noise of 4 x 4 values, enlarged."""
    import numpy as np
    import tensorflow as tf

    noise = np.random.default_rng(0).uniform(0, 255, (SAMPLES, 4, 4, 3)).astype("float32")
    return np.asarray(tf.image.resize(noise, (size, size), method="bicubic")).clip(0, 255)


def described(ko, np, result, expected, pixels):
    """Returns size, operators and distance from Keras of one file."""
    outputs = ko.export.TFLiteModel(result.content).predict(pixels)
    return {
        "bytes": result.size,
        "flex": sorted({name for name in result.operators if name.startswith("Flex")}),
        "operators": len(result.operators),
        "finite": bool(np.isfinite(outputs).all()),
        "relative_error": distance(np, outputs, expected),
        "settings": [run.max_error for run in result.runs],
        "largest": float(np.abs(expected).max()),
    }


def checks(files, moved):
    """Returns what must hold."""
    bars = {mode: max(bar, 2.0 * moved[mode]) for mode, bar in ERRORS.items()}
    settings, largest = files["float32"]["settings"], files["float32"]["largest"]
    return {
        "no_flex": not any(file["flex"] for file in files.values()),
        "finite": all(file["finite"] for file in files.values()),
        **{f"{mode}_equal": files[mode]["relative_error"] <= bar for mode, bar in bars.items()},
        "every_setting": len(settings) == 4 and max(settings) <= bars["float32"] * largest,
    }


def peak():
    """Returns the most memory the process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def table(figures):
    """The table of docs/export.md."""
    lines = [
        "| model | input | float32 | float16 | dynamic | int8 | errors, in this order |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name in sorted(figures):
        row = figures[name]
        sizes = " | ".join(f"{row['files'][mode]['bytes'] / 2**20:.1f} MiB" for mode in MODES)
        errors = ", ".join(f"{row['files'][mode]['relative_error']:.0e}" for mode in ERRORS)
        lines.append(f"| `{name}` | {row['size']} | {sizes} | {errors} |")
    return "\n".join(lines) + "\n"
