"""Quantization-aware training, measured: the price of a step, and what int8 costs in accuracy.

    python benchmarks/quantization.py step
    python benchmarks/quantization.py convert
    python benchmarks/quantization.py flowers17 [--seeds 0 1 2]
    python benchmarks/quantization.py cifar10 [--seeds 0 1 2] [--networks NAME]
    python benchmarks/quantization.py small [--seeds 0 1 2]

`step` trains MobileNetV2 0.35 (96×96, batches of 32) in real `fit` calls that take turns batch by
batch, so that what else the machine does hits all alike; TF-MOT on tf_keras beside it. `convert`
makes EfficientNetB0 (224×224) quantization-aware and a file of it. `flowers17`
trains the fine-tuned EfficientNet-Lite0 that `transfer.py` left in `runs/` on, as float and from
the same weights quantization-aware, for as many epochs at the same rates, and exports it, with
post-training int8 of the same float model beside it. `cifar10` does so with MobileNetV3Small and
EfficientNetB0, trained from scratch on a sample of CIFAR-10, which is scaled up to 64×64 for
EfficientNetB0 (at 32×32 its last maps are one pixel, and it gets to a third of the images), and
`small` with ResNet-8 on 20,000 images of CIFAR-10 and a net of three convolutions on Fashion-MNIST.
All 10,000 test images are asked.
Each training goes into `results/quantization.json` when it is done and is not run again.
"""

import argparse
import gzip
import itertools
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from _cifar import augmented, cifar, resnet8
from _record import RUNS, SHARED, record_part, recorded
from _turns import Training, fit_in_turns
from transfer import pipeline, split

import kerasopt as ko

BATCH, STEPS, WARM_UP = 32, 150, 10
BARS: dict[str, dict[str, float]] = {
    "step": {"aware_over_plain": 1.25},
    "convert": {"seconds": 60},
    "flowers17": {"aware_points_lost": 0.2, "same_class": 0.99},
    "cifar10": {"aware_points_lost": 0.5},
    "small": {"same_class": 0.99},
}
EPOCHS = {"flowers17": 3, "cifar10": 3, "small": 3}
CIFAR = {  # pixels, images to train on, epochs in float
    "MobileNetV3Small": (32, 5_000, 20),
    "EfficientNetB0": (64, 10_000, 15),
}
FLOAT_EPOCHS = {
    "ResNet8 CIFAR-10": 15,
    "CNN Fashion-MNIST": 6,
    **{name: epochs for name, (*_, epochs) in CIFAR.items()},
}
BATCHES = {"flowers17": 32, "cifar10": 64, "small": 128}


# The step


def mobilenet(host: Any, **options: Any) -> Any:
    """Returns MobileNetV2 0.35 for 96×96 of Keras 3 or tf_keras, and compiles it."""
    net = host.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, weights=None, classes=17, classifier_activation=None
    )
    if options.pop("tfmot", False):
        import tensorflow_model_optimization as tfmot

        net = tfmot.quantization.keras.quantize_model(net)
    loss = host.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(host.optimizers.Adam(1e-3), loss, **options)
    return net


def step(_: argparse.Namespace) -> None:
    """Measures a training step with and without fake quantization, in Keras 3 and in tf_keras."""
    aware = ko.quantization.QuantizeAware
    never = {"freeze_batch_norm": 1.0, "freeze_ranges": 1.0}  # one phase, the dearest
    settings: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "plain": (keras, {}, list),
        "aware": (keras, {}, lambda: [aware(**never)]),
        "aware_frozen": (keras, {}, lambda: [aware(freeze_batch_norm=0.05, freeze_ranges=0.05)]),
        "tf_keras_plain": (tf_keras, {}, list),
        "tf_keras_tfmot": (tf_keras, {"tfmot": True}, list),
    }
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (BATCH * STEPS, 96, 96, 3)).astype("float32")
    y = rng.integers(0, 17, BATCH * STEPS)
    data = {"x": x, "y": y, "batch_size": BATCH, "shuffle": False}

    def training(name: str) -> Training:
        host, options, callbacks = settings[name]
        return Training(host.callbacks.Callback, mobilenet(host, **options), data, callbacks())

    times = dict(zip(settings, fit_in_turns([partial(training, n) for n in settings]), strict=True))
    medians = {name: 1e3 * statistics.median(row[WARM_UP:]) for name, row in times.items()}
    pairs = {
        "aware_over_plain": ("aware", "plain"),
        "aware_frozen_over_plain": ("aware_frozen", "plain"),
        "tfmot_over_plain_on_tf_keras": ("tf_keras_tfmot", "tf_keras_plain"),
    }
    figures = {
        "bars": BARS["step"],
        "steps": STEPS - WARM_UP,
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "ratio": {name: round(medians[a] / medians[b], 3) for name, (a, b) in pairs.items()},
    }
    record_part("quantization", "step", figures)


def convert(_: argparse.Namespace) -> None:
    """Measures how long it takes from a float EfficientNetB0 to its int8 file."""
    model = keras.applications.EfficientNetB0(weights=None, classes=17, classifier_activation=None)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 224, 224, 3)).astype("float32")
    clock = [time.perf_counter()]
    aware = ko.quantization.quantize_aware(model)
    clock.append(time.perf_counter())
    ko.quantization.calibrate(aware, pixels)
    clock.append(time.perf_counter())
    file = ko.export.to_tflite(aware, quantize="int8", verify=False)
    clock.append(time.perf_counter())
    seconds = [round(after - before, 2) for before, after in itertools.pairwise(clock)]
    named = dict(zip(("quantize_aware", "calibrate", "to_tflite"), seconds, strict=True))
    record_part(
        "quantization", "convert", {"bars": BARS["convert"], "seconds": named, "bytes": file.size}
    )


# What int8 costs in accuracy


def compiled(model: Any, rate: float, steps: int) -> Any:
    """Compiles a classifier with a cosine schedule."""
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(rate, steps), weight_decay=1e-4
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # compiling each phase would take longer than it saves
    )
    return model


def measured(model: Any, train: Any, parts: dict[str, Any], part: str) -> dict[str, Any]:
    """Trains on, float and quantization-aware, and returns accuracies in Keras and of the files."""
    epochs, steps = EPOCHS[part], EPOCHS[part] * -(-len(parts["train"][0]) // BATCHES[part])
    test, weights = parts["test"], model.get_weights()
    before = accuracy(model, test)
    compiled(model, 1e-4, steps).fit(train, epochs=epochs, verbose=2)
    trained_on = accuracy(model, test)
    # Whatever the file is, it is measured.
    options = {
        "verify": test,
        "min_agreement": 0.0,
        "max_accuracy_drop": 1.0,
        "max_relative_error": 1e9,
    }
    representative = parts["train"][0][:: len(parts["train"][0]) // 200].astype("float32")
    after = ko.export.to_tflite(
        model, quantize="int8", representative_data=representative, **options
    )
    model.set_weights(weights)
    quantize = ko.quantization.QuantizeAware(calibration=representative)
    compiled(model, 1e-4, steps).fit(train, epochs=epochs, verbose=2, callbacks=[quantize])
    aware = ko.export.to_tflite(quantize.quantized_model, quantize="int8", **options)
    return {
        "float_before": round(before, 4),
        "float": round(trained_on, 4),
        "post_training": round(after.accuracy, 4),
        "aware": round(aware.accuracy, 4),
        "aware_in_keras": round(aware.keras_accuracy, 4),
        "same_class": round(aware.agreement, 4),
        "bytes": aware.size,
    }


def accuracy(model: Any, part: tuple[np.ndarray, np.ndarray]) -> float:
    """Returns the accuracy on a part of the data."""
    data = tf.data.Dataset.from_tensor_slices(part[0]).batch(64)
    predicted = model.predict(data.map(lambda x: tf.cast(x, "float32")), verbose=0)
    return float(np.mean(predicted.argmax(-1) == part[1]))


def flowers17(options: argparse.Namespace) -> None:
    """Trains the fine-tuned EfficientNet-Lite0 on, once for each seed."""

    def trained(seed: int) -> tuple[Any, Any, dict[str, Any]]:
        parts = split(seed)
        model = keras.models.load_model(RUNS / f"fine_tune_{seed}.keras")
        return model, pipeline(parts["train"], seed), parts

    run("flowers17", "EfficientNetLite0", trained, options)


def cifar10(options: argparse.Namespace) -> None:
    """Trains the networks that collapse in int8, float first, once for each seed."""
    for name in options.networks:
        size, images, _ = CIFAR[name]
        parts = {part: (larger(x, size), y) for part, (x, y) in cifar(images).items()}

        def build(name: str = name, size: int = size) -> Any:
            model = getattr(keras.applications, name)(
                input_shape=(size, size, 3), weights=None, classes=10, classifier_activation=None
            )
            for layer in model.layers:  # statistics that follow a training as short as this
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.momentum = 0.9
            return model

        run("cifar10", name, from_scratch("cifar10", name, build, parts), options)


def larger(images: np.ndarray, size: int) -> np.ndarray:
    """Scales photos of bytes (n, height, width, 3) up, if they are not as large."""
    if images.shape[1] == size:
        return images
    scaled = [tf.image.resize(part, (size, size)) for part in np.array_split(images, 20)]
    return np.concatenate([tf.cast(tf.round(part), tf.uint8) for part in scaled])


def small(options: argparse.Namespace) -> None:
    """Trains small nets on all of CIFAR-10 and of Fashion-MNIST, once for each seed."""
    for name, build, load in (
        ("ResNet8 CIFAR-10", lambda: resnet8(keras), lambda: cifar(20_000)),
        ("CNN Fashion-MNIST", three_convolutions, fashion_mnist),
    ):
        rows = recorded_runs("small").get(name, {})
        if all(str(seed) in rows for seed in options.seeds):
            continue
        run("small", name, from_scratch("small", name, build, load()), options)


def three_convolutions() -> Any:
    """Returns a small net for grey images (28, 28, 1)."""
    layers: list[Any] = [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)]
    for filters in (16, 32, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    return keras.Sequential(
        [*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    )


def fashion_mnist() -> dict[str, Any]:
    """Reads the four IDX files."""

    def read(name: str, offset: int) -> np.ndarray:
        path = SHARED / "data" / "fashion_mnist" / f"{name}.gz"
        return np.frombuffer(gzip.decompress(path.read_bytes()), "uint8", offset=offset)

    return {
        part: (
            read(f"{prefix}-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1),
            read(f"{prefix}-labels-idx1-ubyte", 8).astype("int64"),
        )
        for part, prefix in (("train", "train"), ("test", "t10k"))
    }


def from_scratch(part: str, name: str, build: Callable[[], Any], parts: dict[str, Any]) -> Any:
    """Returns what trains a float model from the beginning, or finds it in `runs/`."""
    size = BATCHES[part]

    def trained(seed: int) -> tuple[Any, Any, dict[str, Any]]:
        path = RUNS / f"{part}_{name.replace(' ', '_')}_{seed}.keras"
        train = augmented(parts["train"], seed, size)
        if path.exists():
            return keras.models.load_model(path, compile=False), train, parts
        model, epochs = build(), FLOAT_EPOCHS[name]
        compiled(model, 2e-3, epochs * (len(parts["train"][0]) // size))
        model.fit(train, epochs=epochs, verbose=2)
        path.parent.mkdir(exist_ok=True)
        model.save(path)
        return model, train, parts

    return trained


def run(part: str, name: str, trained: Any, options: argparse.Namespace) -> None:
    """Measures one network with each seed that is not recorded yet."""
    for seed in options.seeds:
        if str(seed) in recorded_runs(part).get(name, {}):
            continue
        keras.utils.set_random_seed(seed)
        row = measured(*trained(seed), part)
        runs = recorded_runs(part)  # another process may have recorded meanwhile
        runs.setdefault(name, {})[str(seed)] = row
        record_part("quantization", part, summary(part, runs))


def recorded_runs(part: str) -> dict[str, Any]:
    """Returns what was recorded of a part: network -> seed -> figures."""
    runs: dict[str, Any] = recorded("quantization").get(part, {}).get("runs", {})
    return runs


def summary(part: str, runs: dict[str, Any]) -> dict[str, Any]:
    """Returns the runs with the points that int8 loses in the mean."""
    lost = {
        name: {
            arm: round(100 * statistics.fmean(r["float"] - r[arm] for r in rows.values()), 2)
            for arm in ("post_training", "aware")
        }
        for name, rows in runs.items()
        if rows
    }
    return {
        "bars": BARS[part],
        "float_epochs": {name: FLOAT_EPOCHS[name] for name in runs if name in FLOAT_EPOCHS},
        "sizes_and_images": {name: CIFAR[name][:2] for name in runs if name in CIFAR},
        "epochs": EPOCHS[part],
        "points_lost": lost,
        "runs": runs,
    }


PARTS = {
    "step": step,
    "convert": convert,
    "flowers17": flowers17,
    "cifar10": cifar10,
    "small": small,
}


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    names = list(CIFAR)
    parser.add_argument("--networks", nargs="+", choices=names, default=names, help="for cifar10")
    options = parser.parse_args()
    PARTS[options.part](options)


if __name__ == "__main__":
    main()
