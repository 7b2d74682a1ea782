"""What zeros cost in accuracy, TF-MOT beside it, and what they save after gzip.

    python benchmarks/pruning_accuracy.py flowers17 [--seeds 0 1 2] [--arms dense 80 2:4]
    python benchmarks/pruning_accuracy.py cifar10 [--seeds 0] [--images 20000]
    python benchmarks/pruning_accuracy.py figure

`flowers17` prunes the fine-tuned EfficientNet-Lite0 that `transfer.py` left in `runs/`, on the same
split. All arms train on alike, for as many epochs with the same rate: BatchNormalization follows
the batches again, and the fine-tuned model teaches. Beside it stands the accuracy with statistics
that were measured anew at the end. `cifar10`
prunes one trained ResNet-8 (the one of MLPerf Tiny) in every scope, and with TF-MOT on tf_keras:
same weights, steps and rate. Each training goes into `results/pruning.json` when it is done and is
not run again. `figure` draws the curve of docs/pruning.md.
"""

import argparse
import gzip
import os
import pathlib
import statistics
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tf_keras
from _cifar import augmented, cifar, resnet8
from _record import RUNS, record_part, recorded
from transfer import pipeline, split

import kerasopt as ko
from kerasopt.pruning._schedules import tfmot_schedules

SPARSITIES = (0.5, 0.75, 0.875, 0.9375)
EPOCHS = {"flowers17": 12, "cifar10": 4}
DENSE_EPOCHS = 10
RATE = {"flowers17": 5e-4, "cifar10": 1e-3}
BARS = {"80": 0.5, "2:4": 0.5}
IMAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "images" / "pruning_cifar10.png"


def compiled(model: Any, rate: float, steps: int) -> Any:
    """Compiles a classifier with a cosine schedule behind a short warm-up."""
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 20, steps - steps // 20, warmup_target=rate, warmup_steps=steps // 20
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


# flowers17


def flowers17(options: argparse.Namespace) -> None:
    """Trains each arm once for each seed."""
    arms = {
        "dense": lambda _: [],
        "80": lambda _: [ko.pruning.PruneLowMagnitude(0.8, scope="erk", schedule=half())],
        "80_layer": lambda _: [ko.pruning.PruneLowMagnitude(0.8)],
        "80_global": lambda _: [ko.pruning.PruneLowMagnitude(0.8, scope="global")],
        "2:4": two_of_four,
        "2:4_at_once": lambda _: [ko.pruning.PruneLowMagnitude(structure="2:4")],
    }
    runs = recorded("pruning").get("flowers17", {}).get("runs", {})
    for seed in options.seeds:
        parts = split(seed)
        for arm in options.arms or ["dense", "80", "2:4"]:
            if str(seed) in runs.setdefault(arm, {}):
                continue
            runs[arm][str(seed)] = train_flowers(parts, seed, arms[arm])
            record_part("pruning", "flowers17", flowers_summary(runs))


def half() -> Any:
    """Reaches the target in the middle, where the learning rate is still high enough to mend."""
    return ko.pruning.FractionSchedule(end=0.5)


def two_of_four(model: Any, groups: int = 6) -> list[Any]:
    """Gives the pattern to the blocks from the head down, over the first half of training.

    The first block, with three input channels, and the logits stay dense.
    """
    last_first = [*ko.transfer.blocks(model)][:0:-1]
    parts = np.array_split(np.arange(len(last_first)), groups)
    callbacks = []
    for number, part in enumerate(parts):
        inside = {id(layer) for index in part for layer in last_first[index].layers}
        callbacks.append(
            ko.pruning.PruneLowMagnitude(
                structure="2:4",
                layers=lambda layer, inside=inside: (
                    id(layer) in inside and not isinstance(layer, keras.layers.DepthwiseConv2D)
                ),
                schedule=ko.pruning.ConstantSchedule(0.5 * number / groups),
            )
        )
    return callbacks


def train_flowers(parts: dict[str, Any], seed: int, arm: Any) -> dict[str, Any]:
    """Trains on from the fine-tuned model and returns the figures."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    epochs = EPOCHS["flowers17"]
    file = RUNS / f"fine_tune_{seed}.keras"
    model = keras.models.load_model(file)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Of sparse weights the statistics are others, and there are few steps to learn them.
            layer.trainable, layer.momentum = True, 0.9
    prune = arm(model)
    teach = ko.distillation.Distill(file, temperature=2.0, alpha=0.7)
    compiled(model, RATE["flowers17"], epochs * -(-len(parts["train"][0]) // 32))
    test = pipeline(parts["test"])
    before = model.evaluate(test, verbose=0)[1]
    model.fit(
        pipeline(parts["train"], seed),
        epochs=epochs,
        verbose=2,
        callbacks=[*prune, teach],
    )
    trained = model.evaluate(test, verbose=0)[1]
    ko.transfer.recalibrate_batch_norm(model, parts["train"])
    content = ko.export.to_tflite(model).content
    return {
        "before": round(before, 4),
        "test_accuracy": round(trained, 4),
        "recalibrated": round(model.evaluate(test, verbose=0)[1], 4),
        "sparsity": round(statistics.fmean(c.sparsity for c in prune), 5) if prune else 0.0,
        "bytes": {"tflite": len(content), "gzip": len(gzip.compress(content, mtime=0))},
    }


def flowers_summary(runs: dict[str, Any]) -> dict[str, Any]:
    """Returns the runs with the points that each arm loses, on the seeds it shares with dense."""
    lost: dict[str, dict[str, float]] = {"test_accuracy": {}, "recalibrated": {}}
    for arm, seeds in runs.items():
        both = [seed for seed in seeds if seed in runs.get("dense", {})]
        for kind, found in lost.items() if both else ():
            points = [runs["dense"][seed][kind] - seeds[seed][kind] for seed in both]
            found[arm] = round(100 * statistics.fmean(points), 2)
    return {
        "bars": BARS,
        "epochs": EPOCHS["flowers17"],
        "points_lost": lost["test_accuracy"],
        "points_lost_recalibrated": lost["recalibrated"],
        "runs": runs,
    }


# CIFAR-10


def cifar10(options: argparse.Namespace) -> None:
    """Prunes one trained ResNet-8 to every sparsity in every scope, and with TF-MOT."""
    data = cifar(options.images)
    steps = len(data["train"][0]) // 128
    runs = recorded("pruning").get("cifar10", {}).get("runs", {})
    points = [(scope, s) for s in SPARSITIES for scope in ("layer", "global", "erk", "tfmot")]
    for seed in options.seeds:
        RUNS.mkdir(exist_ok=True)
        file = RUNS / f"resnet8_{options.images}_{seed}.weights.h5"
        keras.utils.set_random_seed(seed)
        base = compiled(resnet8(keras), 2e-3, steps * DENSE_EPOCHS)
        if not file.exists():
            base.fit(augmented(data["train"], seed), epochs=DENSE_EPOCHS, verbose=2)
            base.save_weights(file)
        base.load_weights(file)
        for name, sparsity in [("dense", 0.0), *points]:
            row = runs.setdefault(name, {}).setdefault(str(sparsity), {})
            if str(seed) in row:
                continue
            train = train_tfmot if name == "tfmot" else train_pruned
            row[str(seed)] = round(train(base, name, sparsity, data, steps, seed), 4)
            record_part(
                "pruning",
                "cifar10",
                {
                    "images": options.images,
                    "dense_epochs": DENSE_EPOCHS,
                    "epochs": EPOCHS["cifar10"],
                    "runs": runs,
                },
            )


def train_pruned(base: Any, scope: str, sparsity: float, data: Any, steps: int, seed: int) -> float:
    """Prunes with kerasopt and returns the accuracy."""
    keras.utils.set_random_seed(seed)
    epochs = EPOCHS["cifar10"]
    model = compiled(resnet8(keras), RATE["cifar10"], steps * epochs)
    model.set_weights(base.get_weights())
    callbacks = [ko.pruning.PruneLowMagnitude(sparsity, scope=scope)] if sparsity else []
    model.fit(augmented(data["train"], seed), epochs=epochs, verbose=2, callbacks=callbacks)
    return float(model.evaluate(*data["test"], batch_size=256, verbose=0)[1])


def train_tfmot(
    base: Any,
    name: str,  # noqa: ARG001 - as `train_pruned`
    sparsity: float,
    data: Any,
    steps: int,
    seed: int,
) -> float:
    """Prunes with TF-MOT on tf_keras: the same weights, schedule, rate and batches."""
    tfmot = tfmot_schedules()
    tf_keras.utils.set_random_seed(seed)
    epochs = EPOCHS["cifar10"]
    model = resnet8(tf_keras)
    model.set_weights(base.get_weights())
    end = steps * epochs * 3 // 4
    frequency = min(100, max(1, end // 10))
    schedule = tfmot.PolynomialDecay(0.0, sparsity, end % frequency, end, frequency=frequency)
    model = tf_keras.models.clone_model(
        model,  # TF-MOT does not take Rescaling, so it gets the layers that it prunes
        clone_function=lambda layer: (
            tfmot.prune_low_magnitude(layer, pruning_schedule=schedule)
            if isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense)
            else layer
        ),
    )
    total, rate = steps * epochs, RATE["cifar10"]
    warm = total // 20
    model.compile(
        tf_keras.optimizers.AdamW(
            tf_keras.optimizers.schedules.CosineDecay(
                rate / 20, total - warm, warmup_target=rate, warmup_steps=warm
            ),
            weight_decay=1e-4,
        ),
        loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        augmented(data["train"], seed),
        epochs=epochs,
        verbose=2,
        callbacks=[tfmot.UpdatePruningStep()],
    )
    return float(model.evaluate(*data["test"], batch_size=256, verbose=0)[1])


def figure(_: argparse.Namespace) -> None:
    """Draws the accuracies on CIFAR-10 over the share of zeros."""
    from matplotlib.figure import Figure

    part = recorded("pruning")["cifar10"]
    canvas = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = canvas.add_subplot()
    dense = 100 * statistics.fmean(part["runs"]["dense"]["0.0"].values())
    axes.axhline(dense, color="0.5", linewidth=1, linestyle=":")
    axes.annotate("dense, trained as long", (0, dense), (4, 4), textcoords="offset points")
    looks = {
        "erk": ("scope='erk'", "#3a4fd0", "o-"),
        "global": ("scope='global'", "#0a7f75", "s-"),
        "layer": ("scope='layer'", "#a86407", "^-"),
        "tfmot": ("TF-MOT", "#b4307c", "x--"),
    }
    for name, (label, color, style) in looks.items():
        rows = [part["runs"][name][str(s)] for s in SPARSITIES]
        means = [100 * statistics.fmean(row.values()) for row in rows]
        axes.plot(range(len(SPARSITIES)), means, style, color=color, label=label)
    axes.set_xticks(range(len(SPARSITIES)), [f"{s:.4g} %" for s in np.multiply(100, SPARSITIES)])
    axes.set(xlabel="zeros in the kernels", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    IMAGE.parent.mkdir(exist_ok=True)
    canvas.savefig(IMAGE, dpi=130)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("flowers17", "cifar10", "figure"))
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--images", type=int, default=20_000)
    options = parser.parse_args()
    options.seeds = options.seeds or ([0, 1, 2] if options.part == "flowers17" else [0])
    {"flowers17": flowers17, "cifar10": cifar10, "figure": figure}[options.part](options)


if __name__ == "__main__":
    main()
