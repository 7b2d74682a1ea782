"""Quantization-aware training, measured: the price of a step, and what int8 costs in accuracy.

    python benchmarks/quantization.py step
    python benchmarks/quantization.py flowers17 [--seeds 0 1 2]
    python benchmarks/quantization.py cifar10 [--seeds 0 1 2] [--images 5000]

`step` trains MobileNetV2 0.35 (96×96, batches of 32) in real `fit` calls that take turns batch by
batch, so that what else the machine does hits all alike; TF-MOT on tf_keras beside it. `flowers17`
trains the fine-tuned EfficientNet-Lite0 that `transfer.py` left in `runs/` on, quantization-aware,
and exports it, with post-training int8 of the same float model beside it. `cifar10` trains
MobileNetV3Small and EfficientNetB0 from scratch on a sample of CIFAR-10, once as float and once
from the same float weights quantization-aware. Each training goes into `results/quantization.json`
when it is done and is not run again.
"""

import argparse
import os
import statistics
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from _cifar import augmented, cifar
from _record import RUNS, record_part, recorded
from _turns import Training, fit_in_turns
from transfer import pipeline, split

import kerasopt as ko

BATCH, STEPS, WARM_UP = 32, 150, 10
BARS: dict[str, dict[str, float]] = {
    "step": {"aware_over_plain": 1.25},
    "flowers17": {"aware_points_lost": 0.2, "same_class": 0.99},
    "cifar10": {"aware_points_lost": 0.5, "same_class": 0.99},
}
EPOCHS = {"flowers17": 3, "cifar10": 4}
FLOAT_EPOCHS = 20


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


# What int8 costs in accuracy


def compiled(model: Any, rate: float, steps: int) -> Any:
    """Compiles a classifier with a cosine schedule."""
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(rate, steps), weight_decay=1e-4
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def measured(model: Any, train: Any, parts: dict[str, Any], epochs: int, steps: int) -> Any:
    """Trains on, float and quantization-aware, and returns accuracies in Keras and of the files."""
    test = parts["test"]
    rows = {"float": round(accuracy(model, test), 4)}
    options = {"verify": test, "min_agreement": 0.0, "max_accuracy_drop": 1.0}
    representative = parts["train"][0][:: len(parts["train"][0]) // 200].astype("float32")
    after = ko.export.to_tflite(
        model, quantize="int8", representative_data=representative, **options
    )
    quantize = ko.quantization.QuantizeAware(calibration=representative)
    compiled(model, 1e-4, steps * epochs)
    model.fit(train, epochs=epochs, verbose=2, callbacks=[quantize])
    aware = ko.export.to_tflite(quantize.quantized_model, quantize="int8", **options)
    return {
        **rows,
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
    runs = recorded("quantization").get("flowers17", {}).get("runs", {})
    rows = runs.setdefault("EfficientNetLite0", {})
    for seed in options.seeds:
        if str(seed) in rows:
            continue
        keras.utils.set_random_seed(seed)
        parts = split(seed)
        model = keras.models.load_model(RUNS / f"fine_tune_{seed}.keras")
        train, epochs = pipeline(parts["train"], seed), EPOCHS["flowers17"]
        rows[str(seed)] = measured(model, train, parts, epochs, -(-len(parts["train"][0]) // 32))
        record_part("quantization", "flowers17", summary("flowers17", runs))


def cifar10(options: argparse.Namespace) -> None:
    """Trains the networks that collapse in int8, float first, once for each seed."""
    parts = cifar(options.images)
    parts["test"] = tuple(array[: options.test] for array in parts["test"])
    runs = recorded("quantization").get("cifar10", {}).get("runs", {})
    steps = options.images // BATCH
    for name in ("MobileNetV3Small", "EfficientNetB0"):
        rows = runs.setdefault(name, {})
        for seed in options.seeds:
            if str(seed) in rows:
                continue
            keras.utils.set_random_seed(seed)
            model = getattr(keras.applications, name)(
                input_shape=(32, 32, 3), weights=None, classes=10, classifier_activation=None
            )
            for layer in model.layers:  # statistics that follow a training as short as this
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.momentum = 0.9
            train = augmented(parts["train"], seed, BATCH)
            compiled(model, 2e-3, steps * FLOAT_EPOCHS)
            model.fit(train, epochs=FLOAT_EPOCHS, verbose=2)
            rows[str(seed)] = measured(model, train, parts, EPOCHS["cifar10"], steps)
            figures = summary("cifar10", runs, images=options.images, test_images=options.test)
            record_part("quantization", "cifar10", {**figures, "float_epochs": FLOAT_EPOCHS})


def summary(part: str, runs: dict[str, Any], **facts: Any) -> dict[str, Any]:
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
        **facts,
        "epochs": EPOCHS[part],
        "points_lost": lost,
        "runs": runs,
    }


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("step", "flowers17", "cifar10"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=5000, help="of CIFAR-10, to train on")
    parser.add_argument("--test", type=int, default=2000, help="images of CIFAR-10 to test on")
    options = parser.parse_args()
    {"step": step, "flowers17": flowers17, "cifar10": cifar10}[options.part](options)


if __name__ == "__main__":
    main()
