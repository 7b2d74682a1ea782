"""Fine-tuning on flowers17, measured: kerasopt's recipe beside the Keras guide's, in equal time.

    python benchmarks/transfer.py [SEED ...]
    python benchmarks/transfer.py --figure

Every arm gets the same photos (per class 40 to train, 20 to validate, 20 to test, drawn by the
seed), backbone (EfficientNet-Lite0, ImageNet weights) and augmentation. `fine_tune` runs ten
epochs; the Keras guide's two `fit` calls (head alone with Adam at 1e-3, then everything with Adam
at 1e-5, https://keras.io/guides/transfer_learning) get as much processor time, two fifths of it
for the head, as in the guide's 20 and 10 epochs. The other arms are the solved head alone, and
`fine_tune` behind it. The test photos are looked at after each epoch, off the clock. Each arm and
seed is a process of its own, and what is in `results/transfer.json` is not run again. The models
that `fine_tune` trains stay in `runs/`, where `pruning_accuracy.py` finds them.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from _record import RESULTS, RUNS, SHARED, record, recorded

ARMS = ("fine_tune", "keras_guide", "linear_probe", "probe_then_fine_tune")
EPOCHS = 10
BATCH = 32


def split(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns photos (count, 224, 224, 3) uint8 and classes of the three parts."""
    from kerasopt import datasets

    rng = np.random.default_rng(seed)
    parts: dict[str, list[tuple[pathlib.Path, int]]] = {"train": [], "validation": [], "test": []}
    for label, folder in enumerate(sorted((SHARED / "data" / "flowers17").iterdir())):
        photos = sorted(folder.iterdir())
        shuffled = [photos[index] for index in rng.permutation(len(photos))]
        for name, part in zip(
            parts, (shuffled[:40], shuffled[40:60], shuffled[60:80]), strict=True
        ):
            parts[name] += [(photo, label) for photo in part]
    return {
        name: (
            np.stack([datasets.load_image(photo) for photo, _ in chosen]).astype("uint8"),
            np.array([label for _, label in chosen]),
        )
        for name, chosen in parts.items()
    }


def pipeline(part: tuple[np.ndarray, np.ndarray], seed: int | None = None) -> Any:
    """Returns batches of float photos, shuffled when there is a seed."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(part)
    if seed is not None:
        data = data.shuffle(len(part[0]), seed=seed)
    return data.batch(BATCH).map(lambda x, y: (tf.cast(x, "float32"), y)).prefetch(2)


def clocked(test: Any, budget: float | None = None) -> Any:
    """Returns a callback: test accuracy each epoch, off the clock, and an end by the clock."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.curve: list[dict[str, float]] = []
            self._wall, self._cpu = time.perf_counter(), time.process_time()
            self.budget = budget

        @property
        def cpu(self) -> float:
            """Processor seconds, both cores together."""
            return time.process_time() - self._cpu

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            if self.budget is not None and self.cpu > self.budget:
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            wall, cpu = time.perf_counter(), time.process_time()
            predicted = np.concatenate([self.model.predict_on_batch(x) for x, _ in test])
            truth = np.concatenate([y for _, y in test.as_numpy_iterator()])
            self.curve.append(
                {
                    "minutes": round((wall - self._wall) / 60, 2),
                    "processor_minutes": round((cpu - self._cpu) / 60, 2),
                    "test_accuracy": float(np.mean(predicted.argmax(-1) == truth)),
                }
            )
            self._wall += time.perf_counter() - wall
            self._cpu += time.process_time() - cpu

    return Clock()


def run(arm: str, seed: int, budget: float | None) -> dict[str, Any]:
    """Trains one arm once and returns its figures."""
    import keras

    import kerasopt as ko

    keras.utils.set_random_seed(seed)
    parts = split(seed)
    train, validation = pipeline(parts["train"], seed), pipeline(parts["validation"])
    test = pipeline(parts["test"])
    model = ko.transfer.build_classifier(
        SHARED / "weights" / "efficientnet_lite0_imagenet.keras",
        17,
        augmentation=ko.augmentation.basic(seed=seed),
    )
    clock = clocked(test, budget)
    if "probe" in arm:
        ko.transfer.linear_probe(model, parts["train"])
        clock.set_model(model)
        clock.on_epoch_end(0)
    if arm == "keras_guide":
        guide(model, train, validation, clock)
    elif "fine_tune" in arm:
        ko.transfer.fine_tune(model, train, validation, epochs=EPOCHS, callbacks=[clock], verbose=2)
    if arm == "fine_tune":
        RUNS.mkdir(exist_ok=True)
        model.save(RUNS / f"fine_tune_{seed}.keras")
    last = clock.curve[-1]
    return {**last, "epochs": len(clock.curve), "curve": clock.curve}


def guide(model: Any, train: Any, validation: Any, clock: Any) -> None:
    """The two `fit` calls of the Keras guide on transfer learning, with a new compile between."""
    import keras

    import kerasopt as ko

    def fit(rate: float) -> None:
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(train, validation_data=validation, epochs=1000, callbacks=[clock], verbose=2)

    backbone, _ = ko.transfer.split_layers(model)
    whole = clock.budget
    clock.budget = 0.4 * whole
    for layer in backbone:
        layer.trainable = False
    fit(1e-3)
    clock.budget = whole
    for layer in backbone:  # statistics stay: the guide calls the base model with training=False
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    fit(1e-5)


def draw() -> None:
    """Draws test accuracy over processor minutes, a line for each run, for the docs."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    runs = recorded("transfer")["runs"]
    names = {
        "fine_tune": ("fine_tune", "#0b6e4f"),
        "probe_then_fine_tune": ("linear_probe, then fine_tune", "#d1495b"),
        "keras_guide": ("two fits, as in the Keras guide", "#6c757d"),
    }
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for arm, (label, color) in names.items():
        for number, run in enumerate(runs[arm].values()):
            minutes = [point["processor_minutes"] for point in run["curve"]]
            accuracy = [100 * point["test_accuracy"] for point in run["curve"]]
            shown = label if number == 0 else None
            axes.plot(minutes, accuracy, color=color, label=shown, alpha=0.85, linewidth=1.6)
    axes.set(xlabel="processor minutes", ylabel="test accuracy in %", ylim=(80, 98), xlim=(0, None))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(RESULTS.parents[1] / "docs" / "images" / "fine_tune.png", dpi=150)


def main() -> None:
    """Measures what is not in the results yet, one process an arm and seed."""
    if sys.argv[1:2] == ["--figure"]:
        draw()
        return
    if sys.argv[1:2] == ["--one"]:
        arm, seed, budget, out = sys.argv[2:6]
        figures = run(arm, int(seed), float(budget) or None)
        pathlib.Path(out).write_text(json.dumps(figures))
        return
    seeds = [int(seed) for seed in sys.argv[1:]] or [0, 1, 2]
    runs: dict[str, dict[str, Any]] = recorded("transfer").get("runs", {})
    for arm in ARMS:
        for seed in seeds:
            if str(seed) in runs.setdefault(arm, {}):
                continue
            budget = 0.0
            if arm == "keras_guide":
                budget = 60 * runs["fine_tune"][str(seed)]["processor_minutes"]
            out = RESULTS / f".transfer_{arm}_{seed}.json"
            command = [sys.executable, __file__, "--one", arm, str(seed), str(budget), str(out)]
            subprocess.run(command, check=True)
            runs[arm][str(seed)] = json.loads(out.read_text())
            out.unlink()
            record("transfer", summary(runs))


def summary(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the runs with the means of each arm."""
    keys = ("test_accuracy", "minutes", "processor_minutes")
    means = {
        arm: {key: statistics.mean(run[key] for run in seeds.values()) for key in keys}
        for arm, seeds in runs.items()
        if seeds
    }
    return {"bars": {"fine_tune_accuracy": 0.955, "minutes": 15}, "mean": means, "runs": runs}


if __name__ == "__main__":
    main()
