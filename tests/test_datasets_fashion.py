"""The data set that ships with the package."""

import gzip
import os
import pathlib

import numpy as np
import pytest

import kerasopt as ko
from kerasopt.datasets import fashion_mnist_mini


def test_fashion_mnist_mini_is_balanced_and_small():
    data = fashion_mnist_mini()
    assert data.x_train.shape == (6000, 28, 28, 1)
    assert data.x_test.shape == (1000, 28, 28, 1)
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(data.y_train), [600] * 10)
    np.testing.assert_array_equal(np.bincount(data.y_test), [100] * 10)
    assert len(set(data.y_train[:30])) > 5  # mixed
    assert data.class_names[:2] == ("T-shirt/top", "Trouser")
    folder = pathlib.Path(ko.datasets.__file__).parent
    assert os.path.getsize(folder / "fashion_mnist_mini.npz") < 4_000_000
    licence = (folder / "FASHION_MNIST_LICENSE").read_text(encoding="utf-8")
    assert "The MIT License (MIT) Copyright © 2017 Zalando SE" in licence
    assert repr(data) == "FashionMnistMini(6000 training and 1000 test images)"


def test_fashion_mnist_mini_gives_fresh_arrays():
    fashion_mnist_mini().x_train[:] = 0
    assert fashion_mnist_mini().x_train.any()


@pytest.mark.parametrize(
    ("prefix", "part", "per_class"), [("train", "train", 600), ("t10k", "test", 100)]
)
def test_fashion_mnist_mini_equals_the_original(shared, prefix, part, per_class):
    folder = shared / "data" / "fashion_mnist"

    def read(kind, offset):
        content = gzip.decompress((folder / f"{prefix}-{kind}-ubyte.gz").read_bytes())
        return np.frombuffer(content, np.uint8, offset=offset)

    images, labels = read("images-idx3", 16).reshape(-1, 28, 28, 1), read("labels-idx1", 8)
    data = fashion_mnist_mini()
    x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
    for label in range(10):
        original = sorted(image.tobytes() for image in images[labels == label][:per_class])
        assert sorted(image.tobytes() for image in x[y == label]) == original
