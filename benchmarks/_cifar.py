"""CIFAR-10 and the small ResNet that several benchmarks train on it."""

import tarfile
from typing import Any

import numpy as np
from _record import SHARED

Part = tuple[np.ndarray, np.ndarray]


def cifar(limit: int) -> dict[str, Part]:
    """Reads CIFAR-10 from the archive of JPEG files: `limit` to train, all to test."""
    import tensorflow as tf

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
        order = np.random.default_rng(0).permutation(len(images))
        order = order[:limit] if part == "train" else order
        splits[part] = (
            np.stack([images[i][0] for i in order]),
            np.array([names.index(images[i][1]) for i in order]),
        )
    return splits


def resnet8(host: Any, width: int = 1) -> Any:
    """Returns the ResNet-8 of MLPerf Tiny, in Keras 3 or tf_keras, or a wider one."""
    layers = host.layers

    def normed(x: Any, filters: int, strides: int) -> Any:
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = host.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.ReLU()(normed(x, 16 * width, 1))
    for filters, strides in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        y = normed(layers.ReLU()(normed(x, filters, strides)), filters, 1)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    return host.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def augmented(part: Part, seed: int, batch_size: int = 128) -> Any:
    """Returns flipped and shifted batches: the same for Keras 3 and tf_keras."""
    import tensorflow as tf

    def change(image: Any, label: Any) -> Any:
        image = tf.image.random_flip_left_right(tf.cast(image, tf.float32))
        image = tf.image.random_crop(tf.pad(image, [[4, 4], [4, 4], [0, 0]]), part[0].shape[1:])
        return image, label

    tf.random.set_seed(seed)
    data = tf.data.Dataset.from_tensor_slices(part).shuffle(len(part[0]), seed=seed)
    data = data.map(change, num_parallel_calls=2)
    return data.batch(batch_size, drop_remainder=True).prefetch(2)
