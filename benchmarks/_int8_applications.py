"""Proves int8 on every model of `keras.applications`: the part `quantization` of applications.py.

Random weights, the smallest legal input, nested inside a classifier: `quantize_aware`, one training
step, save, load, int8 file, and the file beside the loaded model, operation by operation. And the
same for the smallest of each family with its own top, not nested.
"""

import pathlib
import re
import resource
import time

from _record import RESULTS

RESULT = RESULTS / "applications_quantization.json"
DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "quantization.md"
TABLE = re.compile(r"(<!-- applications -->\n).*(<!-- /applications -->)", re.DOTALL)
CHECKS = ("trained", "prediction_equal", "operations_equal", "kernels_equal")
CLASSES = 5
BATCH = 4
SMALLEST = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
)
SAMPLES = 256  # so that an operation with 4 values an image has 1,000


def smallest_size(name):
    """The smallest image that a family takes."""
    if name == "Xception":
        return 71
    return 75 if name.startswith("Inception") else 32


def prove(name, folder, *, plain=None, samples=SAMPLES):
    """Returns what was found out about one model, the entries of `CHECKS` as booleans.

    Args:
        name: of the function in `keras.applications`.
        folder: where a model may be saved.
        plain: whether to prove it with its own top as well, not nested. Default: for `SMALLEST`.
        samples: images to compare the operations on.
    """
    import keras

    size = smallest_size(name)
    make = getattr(keras.applications, name)

    def nested():
        backbone = make(include_top=False, weights=None, input_shape=(size, size, 3))
        inputs = keras.Input((size, size, 3), name="image")
        features = keras.layers.GlobalAveragePooling2D()(backbone(inputs))
        return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(features))

    def whole():
        return make(weights=None, input_shape=(size, size, 3), classes=CLASSES)

    found = {**_proven(nested, size, folder, samples), "size": size, "samples": samples}
    if plain or (plain is None and name in SMALLEST):
        own = _proven(whole, size, folder, samples)
        kept = ("ranges", "kernels", "float_operators", "islands", "least_equal", "faults")
        found["plain"] = {key: own[key] for key in (*CHECKS, *kept)}
        found["seconds"]["plain"] = sum(own["seconds"].values())
    return found


def _proven(build, size, folder, samples):
    """One training step, save, load, file, and the file beside the loaded model."""
    import keras
    import numpy as np

    import kerasopt as ko

    keras.utils.set_random_seed(0)
    pixels = np.random.default_rng(0).uniform(0, 255, (samples, size, size, 3)).astype("float32")
    batch, labels = pixels[:BATCH], np.arange(BATCH) % CLASSES
    seconds = {}
    start = time.perf_counter()
    model = ko.quantization.quantize_aware(build())
    seconds["quantize"] = time.perf_counter() - start
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    head = next(kernel for kernel in reversed(kernels) if kernel.shape[-1] == CLASSES)
    before = head.numpy()
    ends_in_logits = "logits" in [layer.name for layer in model.layers]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=ends_in_logits)
    model.compile(keras.optimizers.SGD(0.01, clipnorm=1.0), loss, run_eagerly=True)
    start = time.perf_counter()
    model.fit(batch, labels, batch_size=BATCH, epochs=1, verbose=0)
    seconds["step"] = time.perf_counter() - start
    found = {"trained": bool((head.numpy() != before).any())}

    expected = np.asarray(model(pixels[:1], training=False))
    model.save(folder / "model.keras")
    del model, head, kernels
    loaded = keras.models.load_model(folder / "model.keras")
    again = np.asarray(loaded(pixels[:1], training=False))
    found["prediction_equal"] = bool(np.array_equal(again, expected))
    start = time.perf_counter()
    result = ko.export.to_tflite(loaded, quantize="int8")
    seconds["convert"] = time.perf_counter() - start
    start = time.perf_counter()
    report = ko.export.compare_operations(loaded, result.content, pixels, samples=samples)
    seconds["compare"] = time.perf_counter() - start
    return {**found, **_figures(ko, result, report), "seconds": seconds}


def _figures(ko, result, report):
    rows = ko.profiling.profile(result.content).rows
    macs = sum(row.macs or 0 for row in rows)
    integer = sum(row.macs or 0 for row in rows if row.dtype == "int8")
    faults = report.faults()
    worst = min(report.operations, key=lambda match: match.equal)
    return {
        "operations_equal": not faults,
        "kernels_equal": not report.unequal_kernels,
        "faults": faults[:20],
        "ranges": len(report.operations),
        "kernels": report.kernels,
        "int8_macs": integer / macs,
        "float_operators": sum(row.dtype == "float32" for row in rows) - 1,
        "islands": [list(entry) for entry in result.float_operations],
        "least_equal": [worst.name, worst.equal, worst.max_steps],
        "bytes": result.size,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def table(figures):
    """The table of docs/quantization.md."""
    heads = "model|input|int8 MACs|float operators|ranges|kernels|least equal|float islands"
    lines = [f"| {heads.replace('|', ' | ')} |", "|---|---:|---:|---:|---:|---:|---:|---|"]
    for name in sorted(figures):
        row = figures[name]
        islands = "none"
        if row["islands"]:
            (op, reason), more = row["islands"][0], len(row["islands"]) - 1
            islands = f"`{op}` and {more} more ({reason})" if more else f"`{op}` ({reason})"
        few = "" if row.get("samples") == SAMPLES else " (4 images)"
        lines.append(
            f"| `{name}` | {row['size']} | {row['int8_macs']:.1%} "
            f"| {row['float_operators']} | {row['ranges']} | {row['kernels']} "
            f"| {row['least_equal'][1]:.2%}{few} | {islands} |"
        )
    return "\n".join(lines) + "\n"
