"""What augmentation is worth: a small net from scratch on flowers17, three ways, same budget.

    python benchmarks/augmentation_benefit.py [--epochs 100] [--seeds 0 1 2] [--arms none basic ...]

680 training and 340 test photos of 96x96 (per class 40, 20 for validation, 20 for test). Every
arm has the same net, optimizer, learning-rate schedule, epochs and seeds; a seed sets weights,
shuffling and augmentation, the split stays. The accuracy is that of the last epoch, on test
photos that nothing was chosen by. Writes `results/augmentation_benefit.json`.
"""

import argparse
import statistics
import time
from typing import Any

import keras
import numpy as np
from _record import SHARED, record

import kerasopt as ko

SIZE = 96
BATCH = 32
TRAIN, VALIDATION, TEST = 40, 20, 20


def photos() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads flowers17 into memory, split class by class with a fixed seed."""
    folders = sorted(path for path in (SHARED / "data" / "flowers17").iterdir() if path.is_dir())
    splits: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    for label, folder in enumerate(folders):
        files = sorted(folder.glob("*.jpg"))
        np.random.default_rng(0).shuffle(files)
        bounds = np.cumsum([TRAIN, VALIDATION, TEST])
        for name, part in zip(splits, np.split(files, bounds)[:3], strict=True):
            splits[name] += [(ko.datasets.load_image(file, (SIZE, SIZE)), label) for file in part]
    return {
        name: (np.stack([x for x, _ in rows]), np.array([y for _, y in rows]))
        for name, rows in splits.items()
    }


def net(augmentation: Any, classes: int) -> keras.Model:
    """A residual net of four stages, about 300,000 parameters."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = inputs if augmentation is None else augmentation(inputs)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = norm_relu(keras.layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x))
    for stage, width in enumerate((16, 32, 64, 128)):
        x = block(x, width, strides=1 if stage == 0 else 2)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def block(x: Any, width: int, *, strides: int) -> Any:
    """Two 3x3 convolutions beside a shortcut."""
    options = {"padding": "same", "use_bias": False}
    y = norm_relu(keras.layers.Conv2D(width, 3, strides=strides, **options)(x))
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(width, 3, **options)(y))
    if strides > 1:
        x = keras.layers.AveragePooling2D(strides)(x)
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(width, 1, use_bias=False)(x))
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


def norm_relu(x: Any) -> Any:
    """Batch normalization, then ReLU."""
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))


ARMS: dict[str, Any] = {
    "none": lambda _: (None, []),
    "basic": lambda seed: (ko.augmentation.basic(seed=seed), []),
    "randaugment_mixup": lambda seed: (
        ko.augmentation.randaugment(seed=seed),
        [ko.augmentation.MixUp(0.2, end=0.9, seed=seed)],
    ),
}


def train(arm: str, seed: int, epochs: int, data: dict[str, Any]) -> dict[str, Any]:
    """Trains one arm once and returns its figures."""
    keras.utils.set_random_seed(seed)
    augmentation, callbacks = ARMS[arm](seed)
    x, y = data["train"]
    model = net(augmentation, int(y.max()) + 1)
    steps = epochs * -(-len(x) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, steps, warmup_target=3e-3, warmup_steps=steps // 20
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    history = model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks)
    seconds = time.perf_counter() - start
    found = {name: model.evaluate(*data[name], verbose=0)[1] for name in data}
    figures = {
        "parameters": model.count_params(),
        "loss": round(history.history["loss"][-1], 4),
        **{f"{name}_accuracy": round(accuracy, 4) for name, accuracy in found.items()},
        "seconds": round(seconds, 1),
    }
    print(arm, seed, figures, flush=True)
    return figures


def main() -> None:
    """Trains every arm with every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    chosen = parser.parse_args()
    data = photos()
    arms = {}
    for arm in chosen.arms:
        runs = {seed: train(arm, seed, chosen.epochs, data) for seed in chosen.seeds}
        found = [run["test_accuracy"] for run in runs.values()]
        arms[arm] = {
            "test_accuracy": round(statistics.mean(found), 4),
            "deviation": round(statistics.stdev(found), 4) if len(found) > 1 else None,
            "seconds": round(statistics.mean(run["seconds"] for run in runs.values()), 1),
            "seeds": runs,
        }
    record(
        "augmentation_benefit",
        {"epochs": chosen.epochs, "photos": {name: len(x) for name, (x, _) in data.items()}}
        | {"arms": arms},
    )


if __name__ == "__main__":
    main()
