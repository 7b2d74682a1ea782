"""Distillation, measured: the price of a step, and what a teacher is worth to a small student.

    python benchmarks/distillation.py step
    python benchmarks/distillation.py cifar10 [--seeds 0 1 2] [--epochs 8] [--images 10000]
    python benchmarks/distillation.py flowers17 [--seeds 0 1 2] [--epochs 24] [--versions 12]
        [--arms plain distilled unlabelled]

`step`: MobileNetV2 0.35 learns from MobileNetV2 1.0 (96×96, batches of 32) in real `fit` calls that
take turns batch by batch, so that what else the machine does hits all alike. `cifar10`: the
ResNet-8 of MLPerf Tiny, with and without a teacher of twice its width that was trained on the same
images. `flowers17`: a net of under 100,000 parameters from scratch, with and without the
fine-tuned EfficientNet-Lite0 of `transfer.py` (made here when it is missing), both on the same
augmented versions of the same 680 photos, which the teacher has seen once (`cache_targets`, with
its features). The arm `unlabelled` has versions of the 340 photos of validation beside them, half a
batch in each step, without their labels: what only a teacher can use. Arms of a seed start from the
same weights and run as many epochs. Each part goes into `results/distillation.json` when it is
done.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _cifar import augmented, cifar, resnet8
from _record import RUNS, SHARED, record_part, recorded
from _turns import Training, fit_in_turns
from transfer import split

import kerasopt as ko

BATCH, STEPS, WARM_UP = 32, 120, 10
ARMS = ("plain", "distilled", "unlabelled")
BARS: dict[str, dict[str, float]] = {
    "step": {"distill_over_its_parts": 1.05, "stored_over_plain": 1.05},
    "cifar10": {},
    "flowers17": {"points_gained": 5.0},
}


# The step


def mobilenet(width: float) -> Any:
    """Returns MobileNetV2 for 96×96, compiled."""
    net = keras.applications.MobileNetV2(
        (96, 96, 3), alpha=width, weights=None, classes=17, classifier_activation=None
    )
    net.compile(keras.optimizers.Adam(1e-3), cross_entropy())
    return net


def cross_entropy() -> Any:
    """Returns the loss of all students."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def step() -> dict[str, Any]:
    """Measures a plain step, the teacher alone, both together, and stored targets."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (BATCH * STEPS, 96, 96, 3)).astype("float32")
    y = rng.integers(0, 17, BATCH * STEPS)
    teacher = mobilenet(1.0)
    path = pathlib.Path(tempfile.mkdtemp()) / "teacher.npz"
    ko.distillation.cache_targets(x, teacher, path)
    arguments = {"x": x, "y": y, "batch_size": BATCH, "shuffle": False}

    def student(*callbacks: Any) -> Training:
        return Training(keras.callbacks.Callback, mobilenet(0.35), arguments, list(callbacks))

    arms = {
        "plain": student,
        "distill": lambda: student(ko.distillation.Distill(teacher)),
        "stored": lambda: student(ko.distillation.Distill(targets=path)),
        "teacher": lambda: Training(keras.callbacks.Callback, Asked(teacher), arguments, []),
    }
    times = dict(zip(arms, fit_in_turns(list(arms.values())), strict=True))
    kept = {name: [1e3 * seconds for seconds in row[WARM_UP:]] for name, row in times.items()}
    median = {name: statistics.median(row) for name, row in kept.items()}
    parts = median["plain"] + median["teacher"]
    return {
        "steps": len(kept["plain"]),
        "milliseconds": {name: round(value, 2) for name, value in median.items()},
        "ratio": {
            "distill_over_its_parts": round(median["distill"] / parts, 3),
            "stored_over_plain": round(median["stored"] / median["plain"], 3),
        },
    }


class Asked:
    """The teacher's forward pass on each batch, compiled as the students are, and nothing else."""

    def __init__(self, teacher: Any) -> None:
        self.teacher = teacher

    def fit(self, x: np.ndarray, callbacks: list[Any], **_: Any) -> None:
        """Takes its turns as a `fit` does."""
        run = tf.function(
            lambda batch: tf.reduce_mean(self.teacher(batch, training=False)),
            jit_compile=self.teacher.jit_compile,
        )
        for number, batch in enumerate(tf.data.Dataset.from_tensor_slices(x).batch(BATCH)):
            for callback in callbacks:
                callback.on_train_batch_begin(number)
            logs = {"loss": run(batch)}
            for callback in callbacks:
                callback.on_train_batch_end(number, logs)


# What a teacher is worth


def train(model: Any, data: Any, steps: int, epochs: int, rate: float, *callbacks: Any) -> Any:
    """Trains with a cosine schedule and returns the model."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-4)
    one_hot = len(data.element_spec[1].shape) == 2
    loss = keras.losses.CategoricalCrossentropy(from_logits=True) if one_hot else cross_entropy()
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(data, epochs=epochs, verbose=2, callbacks=list(callbacks))
    return model


def accuracy(model: Any, part: tuple[np.ndarray, np.ndarray]) -> float:
    """Returns the accuracy on a part of the data."""
    predicted = model.predict(part[0], batch_size=64, verbose=0).argmax(-1)
    return round(float(np.mean(predicted == part[1])), 4)


def summary(rows: dict[str, dict[str, float]], **facts: Any) -> dict[str, Any]:
    """Returns the runs, the means of the arms in percent, and the points gained."""
    means = {arm: round(100 * statistics.fmean(r.values()), 2) for arm, r in rows.items() if r}
    plain = rows["plain"]
    gained = {
        arm: round(100 * statistics.fmean(row[seed] - plain[seed] for seed in row), 2)
        for arm, row in rows.items()
        if arm != "plain" and row
    }
    return {**facts, "accuracy": means, "points_gained": gained, "seeds": rows}


def cifar10(options: argparse.Namespace) -> dict[str, Any]:
    """Trains ResNet-8 with and without a wider teacher."""
    epochs, images = options.epochs or 8, options.images
    data = cifar(images)
    steps = images // 64
    rows: dict[str, dict[str, float]] = {"plain": {}, "distilled": {}}
    keras.utils.set_random_seed(100)
    teacher = train(resnet8(keras, 2), augmented(data["train"], 100, 64), steps, epochs, 3e-3)
    for seed in options.seeds:
        for arm, row in rows.items():
            keras.utils.set_random_seed(seed)
            callbacks = (
                [ko.distillation.Distill(teacher, temperature=4.0, alpha=0.7)]
                if arm == "distilled"
                else []
            )
            model = resnet8(keras)
            train(model, augmented(data["train"], seed, 64), steps, epochs, 3e-3, *callbacks)
            row[str(seed)] = accuracy(model, data["test"])
            print(arm, seed, row[str(seed)], flush=True)
    return summary(
        rows,
        epochs=epochs,
        images=images,
        teacher=accuracy(teacher, data["test"]),
        parameters=resnet8(keras).count_params(),
    )


def flower_teacher(seed: int, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    """Returns the EfficientNet-Lite0 that was fine-tuned on these photos."""
    file = RUNS / f"fine_tune_{seed}.keras"
    if not file.is_file():
        keras.utils.set_random_seed(seed)
        teacher = ko.transfer.build_classifier(
            SHARED / "weights" / "efficientnet_lite0_imagenet.keras",
            17,
            augmentation=ko.augmentation.basic(seed=seed),
        )
        ko.transfer.fine_tune(teacher, parts["train"], parts["validation"], epochs=10, verbose=2)
        RUNS.mkdir(exist_ok=True)
        teacher.save(file)
    return keras.saving.load_model(file, compile=False)


def versions(part: tuple[np.ndarray, np.ndarray], count: int, seed: int) -> Any:
    """Returns the photos and `count - 1` other versions of each, 224×224 bytes, and their labels.

    Every second version is two augmented photos mixed, and so are its labels (MixUp): of the
    photos that it was trained on a teacher is all but certain, of two at once it is not.
    """
    augmentation = ko.augmentation.basic(seed=seed)
    rng = np.random.default_rng(seed)
    photos, labels = [part[0]], [np.eye(17, dtype="float32")[part[1]]]
    for number in range(1, count):
        batches = np.array_split(part[0], max(1, len(part[0]) // BATCH))
        changed = np.concatenate([np.asarray(augmentation(b, training=True)) for b in batches])
        label = labels[0]
        if number % 2:
            share, other = rng.uniform(size=len(changed)), rng.permutation(len(changed))
            label = share[:, None] * label + (1 - share[:, None]) * label[other]
            share = share[:, None, None, None].astype("float32")
            changed = share * changed + (1 - share) * changed[other]
        photos.append(changed.round().clip(0, 255).astype("uint8"))
        labels.append(label.astype("float32"))
    return np.concatenate(photos), np.concatenate(labels)


def small_net() -> Any:
    """Returns a net of under 100,000 parameters, which shrinks photos of 224×224 to 56×56."""
    layers = keras.layers
    inputs = keras.Input((224, 224, 3))
    x = layers.RandomFlip("horizontal")(layers.AveragePooling2D(4)(inputs))
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)

    def normed(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    x = normed(layers.Conv2D(24, 3, strides=2, padding="same", use_bias=False)(x))
    for filters, strides in ((48, 2), (48, 1), (96, 2), (96, 1), (128, 2), (128, 1), (192, 1)):
        x = normed(layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x))
        x = normed(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(17)(x))


def flower_arm(arm: str, path: pathlib.Path, more: np.ndarray, seed: int) -> list[Any]:
    """Returns the callbacks of an arm."""
    if arm == "plain":
        return []
    stream = None
    if arm == "unlabelled":
        stream = tf.data.Dataset.from_tensor_slices(more).shuffle(len(more), seed=seed)
        stream = stream.batch(BATCH // 2).prefetch(2)
    distill = ko.distillation.Distill(
        targets=path,
        # It is all but certain of the photos it was trained on; what it sees in them says more.
        features={"pool": "head_pool"},
        feature_weight=3.0,
        temperature=4.0,
        alpha=0.9,
        allow_augmented=True,  # a teacher does not care for left and right
        unlabelled=stream,
    )
    return [distill]


def flowers17(options: argparse.Namespace) -> dict[str, Any]:
    """Trains the small net from scratch with and without the fine-tuned teacher."""
    epochs = options.epochs or 24
    known = recorded("distillation").get("flowers17", {})
    rows: dict[str, dict[str, float]] = known.get("seeds", {})
    teachers: dict[str, float] = known.get("teacher", {})
    facts = {"epochs": epochs, "versions": options.versions, "teacher": teachers}
    facts["parameters"] = small_net().count_params()
    for seed in options.seeds:
        missing = [arm for arm in options.arms if str(seed) not in rows.setdefault(arm, {})]
        if not missing:
            continue
        parts = split(seed)
        teacher = flower_teacher(seed, parts)
        teachers[str(seed)] = accuracy(teacher, parts["test"])
        photos = versions(parts["train"], options.versions, seed)
        more = photos[0][:0]
        if "unlabelled" in missing:
            more = versions(parts["validation"], options.versions, seed + 50)[0]
        path = pathlib.Path(tempfile.mkdtemp()) / "teacher.npz"
        every = np.concatenate([photos[0], more])
        ko.distillation.cache_targets(every, teacher, path, features=["head_pool"])
        steps = -(-len(photos[0]) // BATCH)
        for arm in missing:
            keras.utils.set_random_seed(seed)
            data = tf.data.Dataset.from_tensor_slices(photos)
            data = data.shuffle(len(photos[0]), seed=seed).batch(BATCH).prefetch(2)
            callbacks = flower_arm(arm, path, more, seed)
            model = train(small_net(), data, steps, epochs, 4e-3, *callbacks)
            rows[arm][str(seed)] = accuracy(model, parts["test"])
            part = {"bars": BARS["flowers17"], **summary(rows, **facts)}
            record_part("distillation", "flowers17", part)
    return summary(rows, **facts)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["step"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10, to train on")
    parser.add_argument("--versions", type=int, default=12, help="of each flower")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="of flowers17")
    options = parser.parse_args()
    measures = {"step": lambda _: step(), "flowers17": flowers17, "cifar10": cifar10}
    for part in options.parts:
        record_part("distillation", part, {"bars": BARS[part], **measures[part](options)})


if __name__ == "__main__":
    main()
