"""Pruning, measured: the price of a step, and what zeros cost in accuracy, TF-MOT beside it.

    python benchmarks/pruning.py step
    python benchmarks/pruning.py flowers17 [--seeds 0 1 2] [--epochs 6] [--arms dense ...]
    python benchmarks/pruning.py cifar10 [--seeds 0] [--epochs 6] [--dense-epochs 12]

`step` trains MobileNetV2 0.35 (96×96, batches of 32) in real `fit` calls that take turns batch by
batch, so that what else the machine does hits all alike, and writes medians. The other two train
on real data and take hours on two cores. Each part goes into `results/pruning.json` when it is
done; parts that were not asked for stay as they are.
"""

import argparse
import gzip
import json
import os
import statistics
import tarfile
import threading
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from _record import RESULTS, SHARED, record

import kerasopt as ko
from kerasopt.pruning._schedules import tfmot_schedules

BATCH, STEPS, WARM_UP = 32, 160, 10
SPARSITIES = (0.5, 0.75, 0.875, 0.9375)
BARS = {
    "step_over_plain": 1.03,
    "flowers17_points_lost": {"80": 0.5, "2:4": 0.5},
}


# The step


class Turns:
    """Lets several trainings run one batch after the other, each in a thread of its own."""

    def __init__(self, count: int) -> None:
        self._turn, self._count = 0, count
        self._active = set(range(count))
        self._changed = threading.Condition()

    def wait(self, index: int) -> None:
        """Returns when it is this training's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == index)

    def next(self, *, leaving: int | None = None) -> None:
        """Passes the turn on."""
        with self._changed:
            self._active.discard(-1 if leaving is None else leaving)
            for _ in range(self._count):
                self._turn = (self._turn + 1) % self._count
                if self._turn in self._active:
                    break
            self._changed.notify_all()


def stopwatch(base: Any, turns: Turns, index: int, times: list[float]) -> tuple[Any, Any]:
    """Returns a callback that opens a batch, before all others, and one that closes it."""

    class Open(base):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            turns.wait(index)
            times.append(-time.perf_counter())

    class Close(base):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            float(logs["loss"])
            times[-1] += time.perf_counter()
            turns.next()

    return Open(), Close()


def mobilenet(host: Any, **options: Any) -> Any:
    """Returns MobileNetV2 0.35 for 96×96 of Keras 3 or tf_keras, and compiles it."""
    net = host.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, weights=None, classes=17, classifier_activation=None
    )
    if options.pop("tfmot", False):
        schedule = tfmot_schedules().PolynomialDecay(
            0.0, 0.8, begin_step=0, end_step=STEPS * 3 // 4, frequency=STEPS // 13
        )
        net = tfmot_schedules().prune_low_magnitude(net, pruning_schedule=schedule)
    loss = host.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(host.optimizers.Adam(1e-3), loss, **options)
    return net


def step() -> dict[str, Any]:
    """Measures a training step with and without pruning, in Keras 3 and in tf_keras."""
    prune = ko.pruning.PruneLowMagnitude
    settings: dict[str, tuple[Any, dict[str, Any], Callable[[], list[Any]]]] = {
        "plain": (keras, {}, list),
        "pruned": (keras, {}, lambda: [prune(0.8)]),
        "pruned_2by4": (keras, {}, lambda: [prune(structure="2:4")]),
        "pruned_global": (keras, {}, lambda: [prune(0.8, scope="global")]),
        "plain_xla": (keras, {"jit_compile": True}, list),
        "pruned_xla": (keras, {"jit_compile": True}, lambda: [prune(0.8)]),
        "tf_keras_plain": (tf_keras, {}, list),
        "tf_keras_tfmot": (
            tf_keras,
            {"tfmot": True},
            lambda: [tfmot_schedules().UpdatePruningStep()],
        ),
    }
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (BATCH * STEPS, 96, 96, 3)).astype("float32")
    y = rng.integers(0, 17, BATCH * STEPS)
    turns = Turns(len(settings))
    times: dict[str, list[float]] = {name: [] for name in settings}
    failures: list[BaseException] = []

    def train(index: int, name: str) -> None:
        host, options, callbacks = settings[name]
        turns.wait(index)
        model = mobilenet(host, **options)
        turns.next()
        opened, closed = stopwatch(host.callbacks.Callback, turns, index, times[name])
        try:
            data = {"x": x, "y": y, "batch_size": BATCH, "shuffle": False, "verbose": 0}
            model.fit(**data, callbacks=[opened, *callbacks(), closed])
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            turns.next(leaving=index)

    threads = [
        threading.Thread(target=train, args=item, daemon=True) for item in enumerate(settings)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    kept = {name: [1e3 * seconds for seconds in row[WARM_UP:]] for name, row in times.items()}
    medians = {name: statistics.median(row) for name, row in kept.items()}
    means = {name: statistics.fmean(sorted(row)[: -len(row) // 20]) for name, row in kept.items()}
    pairs = {
        "pruned_over_plain": ("pruned", "plain"),
        "pruned_2by4_over_plain": ("pruned_2by4", "plain"),
        "pruned_global_over_plain": ("pruned_global", "plain"),
        "pruned_over_plain_xla": ("pruned_xla", "plain_xla"),
        "tfmot_over_plain_on_tf_keras": ("tf_keras_tfmot", "tf_keras_plain"),
    }
    return {
        "steps": len(kept["plain"]),
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "ratio": {name: round(medians[a] / medians[b], 3) for name, (a, b) in pairs.items()},
        # With the updates of the masks, without the slowest twentieth of the steps.
        "ratio_of_means": {name: round(means[a] / means[b], 3) for name, (a, b) in pairs.items()},
    }


# Accuracy


def sizes(model: Any) -> dict[str, int]:
    """Returns the bytes of the float TFLite file, as it is and after gzip."""
    content = ko.export.to_tflite(model).content
    return {"tflite": len(content), "gzip": len(gzip.compress(content, mtime=0))}


def flowers(size: int = 224) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads flowers17, split class by class with a fixed seed: 40, 20 and 20 photos."""
    folders = sorted(path for path in (SHARED / "data" / "flowers17").iterdir() if path.is_dir())
    splits: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    for label, folder in enumerate(folders):
        files = sorted(folder.glob("*.jpg"))
        np.random.default_rng(0).shuffle(files)
        for name, part in zip(splits, np.split(files, [40, 60, 80])[:3], strict=True):
            splits[name] += [(ko.datasets.load_image(file, (size, size)), label) for file in part]
    return {
        name: (np.stack([x for x, _ in rows]), np.array([y for _, y in rows]))
        for name, rows in splits.items()
    }


def compiled(model: Any, rate: float, steps: int) -> Any:
    """Compiles a classifier with a cosine schedule."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def frozen_norms(model: Any) -> Any:
    """Freezes batch normalization, as fine-tuning on few photos wants it."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return model


def flowers17(options: argparse.Namespace) -> dict[str, Any]:
    """Prunes a fine-tuned EfficientNet-Lite0; the dense arm trains on for as many epochs."""
    data = flowers()
    x, y = data["train"]
    steps = -(-len(x) // BATCH)
    arms = {
        "dense": lambda: None,
        "80": lambda: ko.pruning.PruneLowMagnitude(0.8),
        "80_global": lambda: ko.pruning.PruneLowMagnitude(0.8, scope="global"),
        "80_erk": lambda: ko.pruning.PruneLowMagnitude(0.8, scope="erk"),
        "2:4": lambda: ko.pruning.PruneLowMagnitude(structure="2:4"),
    }
    rows: dict[str, Any] = {}
    for seed in options.seeds:
        keras.utils.set_random_seed(seed)
        base = ko.transfer.build_classifier(
            str(SHARED / "weights" / "efficientnet_lite0_imagenet.keras"),
            17,
            augmentation=ko.augmentation.basic(rotation=0.05, seed=seed),
        )
        head = ko.transfer.Unfreeze({0.25: "all"})
        compiled(base, 3e-4, steps * 8)
        base.fit(x, y, batch_size=BATCH, epochs=8, verbose=2, callbacks=[head])
        base.save(f"/tmp/flowers17_{seed}.keras")
        for arm in options.arms or ["dense", "80", "2:4"]:
            keras.utils.set_random_seed(seed)
            model = frozen_norms(keras.models.load_model(f"/tmp/flowers17_{seed}.keras"))
            callback = arms[arm]()
            compiled(model, 1e-4, steps * options.epochs)
            model.fit(
                x,
                y,
                batch_size=BATCH,
                epochs=options.epochs,
                verbose=2,
                callbacks=[callback] if callback else [],
            )
            rows.setdefault(arm, {})[str(seed)] = {
                "test_accuracy": round(model.evaluate(*data["test"], verbose=0)[1], 4),
                "validation_accuracy": round(model.evaluate(*data["validation"], verbose=0)[1], 4),
                "sparsity": round(callback.sparsity, 5) if callback else 0.0,
                "bytes": sizes(model),
            }
            print(arm, seed, rows[arm][str(seed)], flush=True)
    means = {
        arm: round(100 * statistics.fmean(row["test_accuracy"] for row in seeds.values()), 2)
        for arm, seeds in rows.items()
    }
    lost = {arm: round(means["dense"] - mean, 2) for arm, mean in means.items() if "dense" in means}
    return {"epochs": options.epochs, "accuracy": means, "points_lost": lost, "seeds": rows}


def cifar(limit: int | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads CIFAR-10 from the archive of JPEG files."""
    rows: dict[str, list[Any]] = {"train": [], "test": []}
    with tarfile.open(SHARED / "data" / "cifar10" / "cifar10_jpeg.tar.xz") as archive:
        for member in archive:
            part, label = member.name.split("/")[-3:-1] if member.isfile() else ("", "")
            if part in rows:
                image = tf.io.decode_jpeg(archive.extractfile(member).read()).numpy()
                rows[part].append((image, label))
    names = sorted({label for _, label in rows["train"]})
    splits = {}
    for part, images in rows.items():
        order = np.random.default_rng(0).permutation(len(images))[:limit]
        splits[part] = (
            np.stack([images[i][0] for i in order]),
            np.array([names.index(images[i][1]) for i in order]),
        )
    return splits


def resnet8(host: Any) -> Any:
    """Returns the ResNet-8 of MLPerf Tiny, in Keras 3 or tf_keras."""
    layers = host.layers

    def normed(x: Any, filters: int, strides: int) -> Any:
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = host.Input((32, 32, 3))
    x = layers.ReLU()(normed(layers.Rescaling(1 / 127.5, offset=-1)(inputs), 16, 1))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = normed(layers.ReLU()(normed(x, filters, strides)), filters, 1)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    return host.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def augmented(x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    """Returns flipped and shifted batches: the same for Keras 3 and tf_keras."""

    def change(image: Any, label: Any) -> Any:
        image = tf.image.random_flip_left_right(tf.cast(image, tf.float32))
        image = tf.image.random_crop(tf.pad(image, [[4, 4], [4, 4], [0, 0]]), (32, 32, 3))
        return image, label

    tf.random.set_seed(seed)
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    return data.map(change, num_parallel_calls=2).batch(128, drop_remainder=True).prefetch(2)


def cifar10(options: argparse.Namespace) -> dict[str, Any]:
    """Prunes one trained ResNet-8 to every sparsity in every scope, and with TF-MOT."""
    data = cifar(options.limit)
    steps = len(data["train"][0]) // 128
    curves: dict[str, dict[str, list[float]]] = {}
    for seed in options.seeds:
        keras.utils.set_random_seed(seed)
        base = compiled(resnet8(keras), 2e-3, steps * options.dense_epochs)
        base.fit(augmented(*data["train"], seed), epochs=options.dense_epochs, verbose=2)
        weights = base.get_weights()
        for name, sparsity in [
            ("dense", 0.0),
            *((scope, s) for scope in ("layer", "global", "erk", "tfmot") for s in SPARSITIES),
        ]:
            budget = (data, steps, options.epochs, seed)
            accuracy = (
                train_tfmot(weights, sparsity, *budget)
                if name == "tfmot"
                else train_pruned(weights, name, sparsity, *budget)
            )
            curves.setdefault(name, {}).setdefault(str(sparsity), []).append(round(accuracy, 4))
            print(name, sparsity, seed, accuracy, flush=True)
    return {
        "dense_epochs": options.dense_epochs,
        "epochs": options.epochs,
        "images": len(data["train"][0]),
        "seeds": options.seeds,
        "test_accuracy": curves,
    }


def train_pruned(
    weights: Any, scope: str, sparsity: float, data: Any, steps: int, epochs: int, seed: int
) -> float:
    """Prunes with kerasopt and returns the accuracy."""
    keras.utils.set_random_seed(seed)
    model = compiled(resnet8(keras), 1e-3, steps * epochs)
    model.set_weights(weights)
    callbacks = [ko.pruning.PruneLowMagnitude(sparsity, scope=scope)] if sparsity else []
    model.fit(augmented(*data["train"], seed), epochs=epochs, verbose=2, callbacks=callbacks)
    return float(model.evaluate(*data["test"], batch_size=256, verbose=0)[1])


def train_tfmot(
    weights: Any, sparsity: float, data: Any, steps: int, epochs: int, seed: int
) -> float:
    """Prunes with TF-MOT on tf_keras: the same weights, schedule, rate and batches."""
    tfmot = tfmot_schedules()
    tf_keras.utils.set_random_seed(seed)
    model = resnet8(tf_keras)
    model.set_weights(weights)
    end = steps * epochs * 3 // 4
    frequency = min(100, max(1, end // 10))
    schedule = tfmot.PolynomialDecay(0.0, sparsity, end % frequency, end, frequency=frequency)
    model = tfmot.prune_low_magnitude(model, pruning_schedule=schedule)
    rate = tf_keras.optimizers.schedules.CosineDecay(1e-3, steps * epochs)
    model.compile(
        tf_keras.optimizers.AdamW(rate, weight_decay=1e-4),
        loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        augmented(*data["train"], seed),
        epochs=epochs,
        verbose=2,
        callbacks=[tfmot.UpdatePruningStep()],
    )
    return float(model.evaluate(*data["test"], batch_size=256, verbose=0)[1])


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["step"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--dense-epochs", type=int, default=12)
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--limit", type=int, help="images of each part of CIFAR-10")
    options = parser.parse_args()
    file = RESULTS / "pruning.json"
    figures = json.loads(file.read_text())["figures"] if file.exists() else {}
    figures["bars"] = BARS
    measures = {"flowers17": flowers17, "cifar10": cifar10}
    for part in options.parts:
        figures[part] = step() if part == "step" else measures[part](options)
        record("pruning", figures)


if __name__ == "__main__":
    main()
