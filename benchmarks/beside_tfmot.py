"""int8 files beside those of TF-MOT on tf_keras, from the same weights.

    python benchmarks/beside_tfmot.py [NAME ...]

Each network gets one forward pass for its ranges, here and in TF-MOT, which runs in a process of
its own. Counted are the operators that the files hold, and the int8 kernels that are the same.
"""

import argparse
import collections
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NETWORKS = ("small", "MobileNet", "MobileNetV2", "ResNet50")
OPTIONS = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}, "ResNet50": {}}
KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def network(keras: Any, name: str) -> Any:
    """Returns a network with random weights, of Keras 3 or tf_keras."""
    if name != "small":
        return getattr(keras.applications, name)(
            input_shape=(32, 32, 3), weights=None, classes=4, **OPTIONS[name]
        )
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem_conv")(inputs)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = stem = layers.ReLU(name="stem_relu")(x)
    x = layers.Conv2D(8, 1, name="project")(x)
    x = layers.Add(name="add")([stem, x])
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(16, 3, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


def theirs(given: str, written: str) -> None:
    """Writes the file of TF-MOT; runs in a process in which `keras` is tf_keras."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    name, weights, x = pickle.loads(pathlib.Path(given).read_bytes())
    model = network(tf_keras, name)
    for layer in model.layers:
        if layer.name in weights:
            layer.set_weights(weights[layer.name])
    aware = tfmot.quantization.keras.quantize_model(model)
    aware(x, training=True)
    converter = tf.lite.TFLiteConverter.from_keras_model(aware)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    pathlib.Path(written).write_bytes(converter.convert())


def prove(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Returns what both files hold, and which kernels are the same."""
    import keras
    import numpy as np

    import kerasopt as ko

    keras.utils.set_random_seed(0)
    model = network(keras, name)
    size = model.input_shape[1]
    x = np.random.default_rng(0).normal(size=(8, size, size, 3)).astype("float32")
    weights = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    given, written = folder / "given.pickle", folder / "theirs.tflite"
    given.write_bytes(pickle.dumps((name, weights, x)))
    command = [sys.executable, __file__, "--theirs", str(given), str(written)]
    legacy = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=legacy)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    aware = ko.quantization.quantize_aware(model)
    aware(x, training=True)
    ours = ko.export.to_tflite(aware, quantize="int8", input_dtype="float32").content
    report = ko.export.compare_operations(aware, ours, x)
    return {
        "operators": {
            "kerasopt": counted(ours),
            "tfmot": counted(written.read_bytes()),
        },
        "more_of": {
            "kerasopt": more_of(ours, written.read_bytes()),
            "tfmot": more_of(written.read_bytes(), ours),
        },
        "kernels": compared(ours, written.read_bytes()),
        "faults": report.faults(),
    }


def counted(content: bytes) -> dict[str, int]:
    """Returns how many operators there are, how many give floats, and how many QUANTIZE."""
    from kerasopt.profiling._tflite_file import read_operators

    operators = read_operators(content)
    return {
        "all": len(operators),
        "float": sum(o.outputs[0].type == "FLOAT32" for o in operators),
        "quantize": sum(o.kind == "QUANTIZE" for o in operators),
    }


def more_of(one: bytes, other: bytes) -> dict[str, int]:
    """Returns the kinds of operators of which one file has more than the other, and how many."""
    from kerasopt.profiling import tflite_operators

    counts = [collections.Counter(tflite_operators(content)) for content in (one, other)]
    return dict(sorted((counts[0] - counts[1]).items()))


def compared(ours: bytes, theirs: bytes) -> dict[str, dict[str, int]]:
    """Returns for each kind of kernel how many weights are how far apart."""
    import numpy as np

    from kerasopt.profiling._tflite_file import constant_values, read_operators

    def kernels(content: bytes) -> dict[str, list[Any]]:
        found = collections.defaultdict(list)
        for operator in read_operators(content):
            if operator.kind in KERNELS:
                found[operator.kind].append(constant_values(operator.inputs[1]).astype(int))
        return found

    mine, others = kernels(ours), kernels(theirs)
    rows = {}
    for kind in sorted({*mine, *others}):
        pairs = list(zip(mine[kind], others[kind], strict=True))
        apart = [np.abs(a - b.reshape(a.shape)) for a, b in pairs]
        rows[kind] = {
            "kernels": len(pairs),
            "equal_kernels": sum(not one.any() for one in apart),
            "weights": sum(one.size for one in apart),
            "weights_a_level_off": sum(int((one == 1).sum()) for one in apart),
            "most_levels_off": max(int(one.max()) for one in apart),
        }
    return rows


def main() -> None:
    """Compares the networks that the command line names, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--theirs", nargs=2, metavar=("GIVEN", "WRITTEN"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if options.theirs:
        theirs(*options.theirs)
        return
    from _record import record, recorded

    figures = recorded("beside_tfmot")
    for name in options.names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = prove(name, pathlib.Path(folder))
        record("beside_tfmot", figures)


if __name__ == "__main__":
    main()
