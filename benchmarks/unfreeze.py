"""What a switch in the middle of `fit` costs: step time against a model compiled that way.

    python benchmarks/unfreeze.py

MobileNetV2 0.35 at 96x96, batch 32, Adam. One `fit` opens the last six blocks and then everything;
beside it, a `fit` for each of these states on a model that is frozen so from the start. All take
turns batch by batch, and medians of the same batches are compared. Writes `results/unfreeze.json`:
bar 1.03. The seconds of the switch itself are those of the first step behind it, with its trace.
"""

import statistics
from functools import partial
from typing import Any

import keras
import numpy as np
from _record import record
from _turns import Training, fit_in_turns

import kerasopt as ko

STAGES = ("head", "last 6 blocks", "all")
PER_STAGE = 60


def classifier() -> Any:
    """A compiled classifier with random weights, the same each time."""
    keras.utils.set_random_seed(0)
    backbone = keras.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, include_top=False, weights=None
    )
    model = ko.transfer.build_classifier(backbone, 10, input_shape=(96, 96, 3))
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model


def freeze(model: Any, stage: str) -> None:
    """Freezes by hand what is frozen in a stage."""
    grouped = ko.transfer.blocks(model)
    opened = {"head": 0, "last 6 blocks": 6, "all": len(grouped)}[stage]
    for index, block in enumerate(grouped):
        for layer in block.layers:
            norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = index >= len(grouped) - opened and not norm


def batch() -> tuple[Any, Any]:
    """One batch of random photos."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (32, 96, 96, 3)).astype("float32"), rng.integers(0, 10, 32)


def data(x: Any, y: Any, count: int) -> Any:
    """The batch, `count` times."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensors((x, y)).repeat(count)


def main() -> None:
    """Measures and writes the results."""
    x, y = batch()
    arguments = {"x": data(x, y, PER_STAGE), "epochs": len(STAGES)}

    def switching() -> Training:
        unfreeze = ko.transfer.Unfreeze({1: 6, 2: "all"})
        return Training(keras.callbacks.Callback, classifier(), arguments, [unfreeze])

    def frozen(stage: str) -> Training:
        model = classifier()
        freeze(model, stage)
        return Training(keras.callbacks.Callback, model, arguments, [])

    times = fit_in_turns([switching, *(partial(frozen, stage) for stage in STAGES)])
    figures: dict[str, Any] = {"bar": 1.03}
    for number, stage in enumerate(STAGES):
        steps = slice(number * PER_STAGE + 3, (number + 1) * PER_STAGE)
        ours, theirs = (statistics.median(row[steps]) for row in (times[0], times[number + 1]))
        figures[stage] = {
            "milliseconds": round(1000 * ours, 2),
            "compiled_so_milliseconds": round(1000 * theirs, 2),
            "ratio": round(ours / theirs, 3),
            "first_step_seconds": round(times[0][number * PER_STAGE], 2),
        }
    record("unfreeze", figures)


if __name__ == "__main__":
    main()
