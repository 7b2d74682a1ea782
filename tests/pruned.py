"""A small model whose zeros are counted and watched in training."""

import keras

from kerasopt.pruning._kernels import find_kernels
from tests.models import compiled, stripes

X, Y = stripes(64)


def tiny(**options):
    """Two layers with kernels, nothing random in a step."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=3, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, name="logits"),
        ]
    )
    return compiled(model, **{"jit_compile": False, **options})


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def share(model):
    return {k.path: k.zeros() / k.size for k in find_kernels(model, None, who="test")}


def assert_pruned(model, sparsity):
    for kernel in find_kernels(model, None, who="test"):
        assert abs(kernel.zeros() - kernel.size * sparsity) <= 1, kernel.path


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.zeros = []

    def on_train_batch_end(self, batch, logs=None):
        self.zeros.append(
            [k.variable.numpy() == 0 for k in find_kernels(self.model, None, who="test")]
        )
