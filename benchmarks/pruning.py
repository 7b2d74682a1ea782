"""What pruning costs a training step, TF-MOT beside it.

    python benchmarks/pruning.py

Trains MobileNetV2 0.35 (96×96, batches of 32) in real `fit` calls that take turns batch by batch,
so that what else the machine does hits all alike, and writes the medians as `step` in
`results/pruning.json`, where `pruning_accuracy.py` writes what zeros cost in accuracy.
"""

import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tf_keras
from _record import record_part
from _turns import Training, fit_in_turns

import kerasopt as ko
from kerasopt.pruning._schedules import tfmot_schedules

BATCH, STEPS, WARM_UP = 32, 160, 10


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
    data = {"x": x, "y": y, "batch_size": BATCH, "shuffle": False}

    def training(name: str) -> Training:
        host, options, callbacks = settings[name]
        model = mobilenet(host, **options)
        return Training(host.callbacks.Callback, model, data, callbacks())

    times = dict(zip(settings, fit_in_turns([partial(training, n) for n in settings]), strict=True))
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


if __name__ == "__main__":
    record_part("pruning", "step", {"bar": 1.03, **step()})
