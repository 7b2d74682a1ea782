"""A run of the command line: train once, ship every kind of file, tell it in one folder."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt import augmentation, datasets, pruning, quantization, transfer
from kerasopt._backend import keras
from kerasopt._files import write_atomic
from kerasopt._run_report import ship, tell
from kerasopt._validation import check_int, check_number


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run trains.

    Args:
        epochs: passes over the training photos, >= 1.
        batch_size: photos in a step, >= 1.
        learning_rate: peak of the cosine schedule, > 0.
        sparsity: fraction of zeros in the kernels, in [0, 1); 0 prunes nothing.
        quantize_start: fraction of training after which it is quantization-aware, in [0, 1).
        augment: augment in training.
        seed: of weights, split and shuffling.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    sparsity: float = 0.5
    quantize_start: float = 0.7
    augment: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("epochs", self.epochs, low=1)
        check_int("batch_size", self.batch_size, low=1)
        check_number("learning_rate", self.learning_rate, low=0.0, low_open=True)
        check_number("sparsity", self.sparsity, low=0.0, high=1.0, high_open=True)
        check_number("quantize_start", self.quantize_start, low=0.0, high=1.0, high_open=True)


@dataclasses.dataclass
class Trained:
    """What training left: the model, its quantization-aware graph, and the story."""

    model: Any
    quantized: Any
    history: dict[str, list[float]]
    events: list[Any]
    seconds: float
    train: Any
    validation: Any
    test: Any
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    recipe: Recipe
    settings: dict[str, str]
    summary: list[str]
    notes: list[str]


Say = Callable[[str], None]


def new_folder(path: pathlib.Path) -> pathlib.Path:
    """Makes the folder of a run.

    Raises:
        ValueError: it exists, or its parent does not.
    """
    if path.exists():
        raise ValueError(
            f"`out` must name a folder that does not exist yet. Received: out={str(path)!r}. "
            "Choose another name or remove it."
        )
    if not path.absolute().parent.is_dir():
        raise ValueError(
            f"`out` must lie in an existing folder. Received: out={str(path)!r}. "
            f"Create {str(path.parent)!r} first."
        )
    path.mkdir()
    return path


def train_folder(
    photos: pathlib.Path,
    backbone: str,
    recipe: Recipe,
    *,
    weights: str | None,
    image_size: int | None,
    on_bad: str,
    progress: Any,
    say: Say,
) -> Trained:
    """Fine-tunes a backbone on a folder of photos."""
    keras.utils.set_random_seed(recipe.seed)
    # The model comes first: a misspelt backbone should not wait for the photos.
    shape: dict[str, Any] = (
        {} if image_size is None else {"input_shape": (image_size, image_size, 3)}
    )
    probe = transfer.build_classifier(backbone, 2, weights=weights, **shape)
    size = tuple(probe.input_shape[1:3])
    data = datasets.image_folder(
        photos, image_size=size, batch_size=recipe.batch_size, seed=recipe.seed, on_bad=on_bad
    )
    say(data.summary())
    model = transfer.build_classifier(
        backbone,
        len(data.class_names),
        weights=weights,
        augmentation=augmentation.basic(seed=recipe.seed) if recipe.augment else None,
        **shape,
    )
    pretrained = weights is not None or backbone.endswith(".keras")
    callbacks = []
    if pretrained:
        stages = len(transfer.blocks(model))
        # The whole backbone opens when the rate has come down to half: early, it forgets.
        callbacks.append(transfer.Unfreeze({0.2: max(1, stages // 3), 0.5: "all"}))
    trained = _train(model, data, recipe, callbacks, progress)
    trained.counts = data.counts
    trained.settings["photos"] = f"{sum(len(files) for files in data.files.values()):,}"
    name = pathlib.Path(backbone).stem if backbone.endswith(".keras") else backbone
    trained.settings["backbone"] = name
    trained.summary.insert(0, f"Fine-tuned {name} on photos of {len(data.class_names)} classes.")
    if data.skipped:
        trained.notes.append(f"{len(data.skipped)} unreadable files were left out.")
    return trained


def train_demo(recipe: Recipe, *, progress: Any) -> Trained:
    """Trains a small net from scratch on the data set that ships with the package."""
    keras.utils.set_random_seed(recipe.seed)
    data = datasets.fashion_mnist_mini()
    held = 5000  # the last thousand training images validate
    train = _pipeline(data.x_train[:held], data.y_train[:held], recipe, shuffle=True)
    validation = _pipeline(data.x_train[held:], data.y_train[held:], recipe)
    test = _pipeline(data.x_test, data.y_test, recipe)
    model = _demo_net(len(data.class_names), recipe)
    arrays = _Arrays(train, validation, test, data.class_names)
    trained = _train(model, arrays, recipe, [], progress)
    parts = {
        "train": data.y_train[:held],
        "validation": data.y_train[held:],
        "test": data.y_test,
    }
    trained.counts = {
        split: {name: int(np.sum(labels == i)) for i, name in enumerate(data.class_names)}
        for split, labels in parts.items()
    }
    trained.settings["photos"] = f"{len(data.x_train) + len(data.x_test):,}"
    trained.settings["backbone"] = "a small net from scratch"
    trained.summary.insert(0, "Trained a small residual net on 28 x 28 pictures of clothes.")
    return trained


def write_run(trained: Trained, folder: pathlib.Path, *, say: Say) -> dict[str, Any]:
    """Writes model, file, labels, metrics and report; returns the metrics."""
    temporary = folder / ".model.keras"
    trained.model.save(temporary)
    temporary.replace(folder / "model.keras")
    write_atomic(folder / "labels.txt", "\n".join(trained.class_names) + "\n")
    shipped = ship(trained, folder, say=say)
    write_atomic(folder / "metrics.json", json.dumps(shipped.metrics, indent=2) + "\n")
    tell(trained, shipped, folder / "report.html")
    return shipped.metrics


@dataclasses.dataclass(frozen=True)
class _Arrays:
    train: Any
    validation: Any
    test: Any
    class_names: tuple[str, ...]


def _train(model: Any, data: Any, recipe: Recipe, callbacks: list[Any], progress: Any) -> Trained:
    steps = len(data.train)
    warm_up = max(1, steps // 3)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, recipe.epochs * steps - warm_up),
        alpha=0.01,
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )
    # Adam's second moment starts from zero in each layer that opens later, without the correction
    # of the first steps; with 0.999 those steps would be up to six times too long, for long.
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, beta_2=0.99, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    if recipe.sparsity:
        callbacks.append(pruning.PruneLowMagnitude(recipe.sparsity))
    aware = quantization.QuantizeAware(start=recipe.quantize_start)
    callbacks.append(aware)
    start = time.perf_counter()
    try:
        history = model.fit(
            data.train,
            validation_data=data.validation,
            epochs=recipe.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, progress],
        )
    finally:
        progress.stop()
    return Trained(
        model=model,
        quantized=aware.quantized_model,
        history=history.history,
        events=sorted((e for c in callbacks for e in c.events), key=lambda event: event.epoch),
        seconds=time.perf_counter() - start,
        train=data.train,
        validation=data.validation,
        test=data.validation if data.test is None else data.test,
        class_names=tuple(data.class_names),
        counts={},
        recipe=recipe,
        settings=_settings(model, recipe),
        summary=_summary(recipe),
        notes=[],
    )


def _settings(model: Any, recipe: Recipe) -> dict[str, str]:
    height, width, channels = model.input_shape[1:]
    return {
        "input": f"{height} x {width} x {channels}",
        "epochs": str(recipe.epochs),
        "batch size": str(recipe.batch_size),
        "learning rate": f"{recipe.learning_rate:g}, warm-up and cosine, AdamW",
        "sparsity": f"{recipe.sparsity:.0%}",
        "quantization-aware from": f"{recipe.quantize_start:.0%} of training",
        "augmentation": "basic" if recipe.augment else "none",
        "seed": str(recipe.seed),
    }


def _summary(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.augment:
        lines.append("Augmented every photo inside the model: flip, rotation, scale, crop, colour.")
    if recipe.sparsity:
        lines.append(f"Pruned the kernels to {recipe.sparsity:.0%} zeros while training.")
    lines.append("Trained the last part quantization-aware, and shipped it as int8.")
    lines.append("Ran every file beside the Keras model on the test photos.")
    return lines


def _pipeline(x: np.ndarray, y: np.ndarray, recipe: Recipe, *, shuffle: bool = False) -> Any:
    from kerasopt._backend import tf

    data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y))
    if shuffle:
        data = data.shuffle(len(x), seed=recipe.seed, reshuffle_each_iteration=True)
    return data.batch(recipe.batch_size).prefetch(2)


def _demo_net(num_classes: int, recipe: Recipe) -> Any:
    inputs = keras.Input((28, 28, 1), name="image")
    x = inputs
    if recipe.augment:
        # The clothes stand upright and fill the picture, so every strength is small.
        x = augmentation.basic(
            rotation=0.01, zoom=0.05, crop=0.05, brightness=0.05, contrast=0.1, seed=recipe.seed
        )(x)
    x = keras.layers.Rescaling(1 / 255.0, name="rescale")(x)
    for index, filters in enumerate((24, 48, 96)):
        strides = 1 if index == 0 else 2
        x = _conv(x, filters, f"block{index + 1}_conv1", strides)
        y = _conv(x, filters, f"block{index + 1}_conv2", 1)
        x = keras.layers.Add(name=f"block{index + 1}_add")([x, y])
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dropout(0.2, name="head_dropout")(x)
    return keras.Model(
        inputs, keras.layers.Dense(num_classes, name="logits")(x), name="fashion_net"
    )


def _conv(x: Any, filters: int, name: str, strides: int) -> Any:
    x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False, name=name)(
        x
    )
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
