"""What a switch in the middle of `fit` costs: step time against a model compiled that way.

    python benchmarks/unfreeze.py

MobileNetV2 0.35 at 96x96, batch 32, Adam. One `fit` opens the last six blocks and then everything;
beside it, models that are frozen so from the start, without any callback. The steps of all are
taken in turn, a few of each at a time, and medians are compared. Writes `results/unfreeze.json`:
bar 1.03. The seconds of the switch itself are those of the first step behind it, with its trace.
"""

import statistics
import time
from typing import Any

import keras
import numpy as np
from _record import record

import kerasopt as ko

STAGES = ("head", "last 6 blocks", "all")
ROUNDS, STEPS = 12, 5


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


class Steps(keras.callbacks.Callback):
    """Seconds of each step; beside each one of ours, one of the plain model."""

    def __init__(self, plain: dict[str, Any], x: Any, y: Any, per_stage: int) -> None:
        super().__init__()
        self.plain, self.x, self.y, self.per_stage = plain, x, y, per_stage
        self.ours: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self.theirs: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self.count = 0
        self.begun = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        stage = STAGES[min(self.count // self.per_stage, 2)]
        self.ours[stage].append(time.perf_counter() - self.begun)
        self.count += 1
        begun = time.perf_counter()
        self.plain[stage](self.x, self.y)
        self.theirs[stage].append(time.perf_counter() - begun)


def plain_step(stage: str) -> Any:
    """Returns one step of `fit` on a model frozen by hand before it was compiled."""
    model = classifier()
    freeze(model, stage)

    def step(x: Any, y: Any) -> None:
        iterator = iter(data(x, y, 1))
        model.train_function(iterator)

    x, y = batch()
    model.fit(data(x, y, 3), verbose=0)
    return step


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
    plain = {stage: plain_step(stage) for stage in STAGES}
    per_stage = ROUNDS * STEPS
    steps = Steps(plain, x, y, per_stage)
    unfreeze = ko.transfer.Unfreeze({1: 6, 2: "all"})
    classifier().fit(data(x, y, per_stage), epochs=3, verbose=0, callbacks=[unfreeze, steps])
    figures: dict[str, Any] = {"bar": 1.03}
    for stage in STAGES:
        ours = statistics.median(steps.ours[stage][3:])
        theirs = statistics.median(steps.theirs[stage][3:])
        figures[stage] = {
            "milliseconds": round(1000 * ours, 2),
            "compiled_so_milliseconds": round(1000 * theirs, 2),
            "ratio": round(ours / theirs, 3),
            "first_step_seconds": round(steps.ours[stage][0], 2),
        }
    record("unfreeze", figures)


if __name__ == "__main__":
    main()
