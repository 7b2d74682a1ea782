"""Augmentation, measured: kerasopt beside the libraries, on one batch of photos.

    python benchmarks/augmentation.py [chain] [layers] [policies] [step]

The same flip, rotation, zoom, translation, brightness, contrast and fading for all, on 64 photos
of 224×224; every round runs each of them once, so that what else the machine does hits all alike.
Writes `results/augmentation.json`: medians in milliseconds, images per second, ratios, bars. On a
machine that others use too, the processor's time says more than the clock's.
"""

import inspect
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _record import SHARED, record
from PIL import Image

import kerasopt as ko

tf.keras.__version__  # noqa: B018 - settled before KerasCV reads it
import keras_cv  # noqa: E402

BATCH, SIZE, ROUNDS = 64, 224, 21
BYTES = (0, 255)
BARS = {
    "fused_over_keras_cv": 10.0,
    "fused_over_albumentations": 0.9,
    "randaugment_over_keras_cv": 4.0,
    "step_with_over_without": 1.25,
}
CV, K = keras_cv.layers, keras.layers


def photos(count: int = BATCH, size: int = SIZE) -> np.ndarray:
    """Returns flowers as `uint8`, or noise where there are none."""
    paths = sorted((SHARED / "data" / "flowers17").glob("*/*"))[::17][:count]
    if len(paths) < count:
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), "uint8")
    opened = [Image.open(path).convert("RGB").resize((size, size)) for path in paths]
    return np.stack([np.asarray(image) for image in opened])


class Times(NamedTuple):
    """Medians of a task in milliseconds: by the clock, and of the processor's time."""

    wall: float
    cpu: float


def interleaved(tasks: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, Times]:
    """Measures each task in turn, `rounds` times after two warm-ups."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for index in range(rounds + 2):
        for name, task in tasks.items():
            wall, cpu = time.perf_counter(), time.process_time()
            task()
            if index >= 2:
                took = time.perf_counter() - wall, time.process_time() - cpu
                times[name].append(took)
    return {
        name: Times(*(1e3 * statistics.median(column) for column in zip(*rows, strict=True)))
        for name, rows in times.items()
    }


def compared(medians: dict[str, Times], one: str) -> dict[str, Any]:
    """Returns the milliseconds of every task, and their ratio to one of them."""
    return {
        "milliseconds": {name: round(times.wall, 1) for name, times in medians.items()},
        "cpu_milliseconds": {name: round(times.cpu, 1) for name, times in medians.items()},
        f"over_{one}": {
            name: round(times.wall / medians[one].wall, 2) for name, times in medians.items()
        },
        f"cpu_over_{one}": {
            name: round(times.cpu / medians[one].cpu, 2) for name, times in medians.items()
        },
    }


def in_graph(layers: list[Any], images: Any) -> Callable[[], Any]:
    """Returns a call of layers one after another in one `tf.function`, as their users write it."""

    @tf.function
    def run(batch: Any) -> Any:
        for layer in layers:
            takes = "training" in inspect.signature(layer.call).parameters
            batch = layer(batch, training=True) if takes else layer(batch)
        return batch

    return lambda: run(images).numpy()


def contained(augmentation: Any, images: Any) -> Callable[[], Any]:
    """Returns a call of kerasopt's container."""
    return lambda: augmentation(images, training=True).numpy()


def recipe() -> Any:
    """Returns the strengths that all libraries get, as kerasopt's recipe."""
    return ko.augmentation.basic(
        rotation=0.1, zoom=0.2, crop=0.1, brightness=0.2, contrast=0.2, saturation=0.3, seed=1
    )


def of_keras_cv() -> dict[str, Any]:
    """Returns KerasCV's layers of these strengths."""
    return {
        "flip": CV.RandomFlip("horizontal"),
        "rotation": CV.RandomRotation(0.1),
        "zoom": CV.RandomZoom((-0.2, 0.2)),
        "translation": CV.RandomTranslation(0.1, 0.1),
        "brightness": CV.RandomBrightness(0.2),
        "contrast": CV.RandomContrast(BYTES, 0.2),
        "fading": CV.RandomColorDegeneration(0.3),
    }


def of_keras() -> list[Any]:
    """Returns Keras's layers of these strengths."""
    return [
        K.RandomFlip("horizontal"),
        K.RandomRotation(0.1),
        K.RandomZoom((-0.2, 0.2)),
        K.RandomTranslation(0.1, 0.1),
        K.RandomBrightness(0.2),
        K.RandomContrast((0.2, 0.2)),
        K.RandomColorDegeneration((0.0, 0.3)),
    ]


def of_keras_aug(images: Any) -> Callable[[], Any] | None:
    """Returns a call of keras-aug's layers, its own fused affine among them."""
    try:
        import keras_aug.layers.vision as vision
    except ImportError:
        return None
    layers = [
        vision.RandomFlip("horizontal"),
        vision.RandomAffine(
            degree=36, translate=(0.1, 0.1), scale=(0.8, 1.2), padding_mode="reflect"
        ),
        vision.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.7, 1.0)),
    ]
    run = in_graph(layers, images)
    try:
        run()
    except (AttributeError, TypeError, ValueError) as error:
        print(f"keras-aug left out: {type(error).__name__}: {error}"[:500])
        return None
    return run


def of_albumentations(images: np.ndarray, threads: int = 2) -> dict[str, Callable[[], Any]]:
    """Returns calls of albumentations, with its own fused affine, on `uint8` in threads.

    Two ways to the colours: a table of brightness and contrast with saturation behind it, and all
    of them in `ColorJitter`; the faster one is the one to beat.
    """
    try:
        import albumentations
        import cv2
    except ImportError:
        return {}
    cv2.setNumThreads(0)
    pool = ThreadPoolExecutor(threads)
    geometry = [
        albumentations.HorizontalFlip(p=0.5),
        albumentations.Affine(
            scale=(0.8, 1.2),
            rotate=(-36, 36),
            translate_percent=(-0.1, 0.1),
            border_mode=cv2.BORDER_REFLECT,
            p=1,
        ),
    ]
    jitter = albumentations.ColorJitter
    colours = {
        "table": [
            albumentations.RandomBrightnessContrast(0.2, 0.2, p=1),
            jitter(brightness=(1, 1), contrast=(1, 1), saturation=(0.7, 1), hue=(0, 0), p=1),
        ],
        "jitter": [
            jitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.7, 1), hue=(0, 0), p=1)
        ],
    }

    def call(colour: list[Any]) -> Callable[[], Any]:
        composed = albumentations.Compose([*geometry, *colour])
        return lambda: np.stack(
            list(pool.map(lambda image: composed(image=image)["image"], images))
        )

    calls = {f"albumentations_{name}": call(colour) for name, colour in colours.items()}
    fastest = calls["albumentations_jitter"]
    # What all the others return: the floats that a model takes.
    return {**calls, "albumentations_floats": lambda: tf.cast(fastest(), tf.float32).numpy()}


def of_torchvision(images: np.ndarray) -> Callable[[], Any] | None:
    """Returns a call of torchvision v2 on the batch: one draw for all images."""
    try:
        import torch
        from torchvision.transforms import v2
    except ImportError:
        return None
    torch.set_num_threads(2)
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    composed = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(36, translate=(0.1, 0.1), scale=(0.8, 1.2)),
            v2.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.7, 1.0)),
        ]
    )
    return lambda: composed(batch).numpy()


def chain() -> dict[str, Any]:
    """Measures the whole chain in every library."""
    images = photos()
    batch = tf.constant(images)
    fused = recipe()
    tasks = {
        "kerasopt_fused": contained(fused, batch),
        "kerasopt_unfused": contained(
            ko.augmentation.Augmentation(list(fused.layers), fuse=False, seed=1), batch
        ),
        "keras_cv": in_graph(list(of_keras_cv().values()), batch),
        "keras_layers": in_graph(of_keras(), batch),
        "keras_aug": of_keras_aug(batch),
        "torchvision": of_torchvision(images),
        **of_albumentations(images),
    }
    medians = interleaved({name: task for name, task in tasks.items() if task is not None})
    per_second = {name: round(1e3 * BATCH / times.wall) for name, times in medians.items()}
    return {**compared(medians, "kerasopt_fused"), "images_per_second": per_second}


def layers() -> dict[str, Any]:
    """Measures each layer of KerasCV by itself, and fused alone."""
    batch = tf.cast(photos(), tf.float32)
    alone = {
        **of_keras_cv(),
        "shear": CV.RandomShear(0.2, 0.2),
        "crop_and_resize": CV.RandomCropAndResize((SIZE, SIZE), (0.6, 1.0), (0.8, 1.25)),
        "saturation": CV.RandomSaturation((0.3, 0.7)),
        "hue": CV.RandomHue(0.2, BYTES),
        "channel_shift": CV.RandomChannelShift(BYTES, 0.2),
        "grayscale": CV.Grayscale(3),
        "colour_jitter": CV.RandomColorJitter(BYTES, 0.2, 0.2, (0.3, 0.7), 0.1),
    }
    rows = {}
    for name, layer in alone.items():
        medians = interleaved(
            {
                "fused": contained(ko.augmentation.Augmentation([layer], seed=1), batch),
                "keras_cv": in_graph([layer], batch),
            },
            rounds=9,
        )
        rows[name] = compared(medians, "fused")
    return rows


def policies() -> dict[str, Any]:
    """Measures RandAugment beside KerasCV's, if it is there."""
    if not hasattr(ko.augmentation, "randaugment"):
        return {}
    batch = tf.cast(photos(), tf.float32)
    ours = contained(ko.augmentation.randaugment(seed=1), batch)
    medians = interleaved(
        {"kerasopt": ours, "keras_cv": in_graph([CV.RandAugment(BYTES)], batch)}, rounds=15
    )
    return compared(medians, "kerasopt")


def step() -> dict[str, Any]:
    """Measures a training step of MobileNetV2 0.35, 96×96, batches of 32."""
    images, labels = photos(32, 96), np.arange(32) % 17
    batch, targets = tf.cast(images, tf.float32), tf.constant(labels)

    def task(augmentation: Any, jit_compile: Any) -> Callable[[], Any]:
        inputs = keras.Input((96, 96, 3))
        x = inputs if augmentation is None else augmentation(inputs)
        x = K.Rescaling(1 / 127.5, -1.0)(x)
        net = keras.applications.MobileNetV2(
            (96, 96, 3), alpha=0.35, weights=None, classes=17, classifier_activation=None
        )
        model = keras.Model(inputs, net(x))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=jit_compile)
        return lambda: model.train_on_batch(batch, targets)

    medians = interleaved(
        {
            "without": task(None, "auto"),
            "without_xla": task(None, False),
            "with_basic": task(ko.augmentation.basic(seed=1), "auto"),
        },
        rounds=31,
    )
    return compared(medians, "without")


def main() -> None:
    """Measures what the command line names, or everything."""
    parts = {"chain": chain, "layers": layers, "policies": policies, "step": step}
    figures: dict[str, Any] = {"bars": BARS}
    for name in sys.argv[1:] or parts:
        figures[name] = parts[name]()
        print(name, figures[name], flush=True)
    record("augmentation", figures)


if __name__ == "__main__":
    main()
