"""Fashion-MNIST in small, shipped inside the package."""

import dataclasses
from importlib import resources

import numpy as np

_CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FashionMnistMini:
    """The arrays of `fashion_mnist_mini()`.

    Attributes:
        x_train: uint8 0–255, shape `(6000, 28, 28, 1)`.
        y_train: int32 labels, shape `(6000,)`, 600 of each class.
        x_test: uint8 0–255, shape `(1000, 28, 28, 1)`.
        y_test: int32 labels, shape `(1000,)`, 100 of each class.
        class_names: ten names, in the order of the labels.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"FashionMnistMini({len(self.x_train)} training and {len(self.x_test)} test images)"


def fashion_mnist_mini() -> FashionMnistMini:
    """Loads 6,000 training and 1,000 test images of Fashion-MNIST; needs no network.

    The classes are balanced and the order is mixed. The images are the first of each class in the
    original files (Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
    Machine Learning Algorithms", arXiv:1708.07747), under the MIT licence that ships beside them.

    Returns:
        A `FashionMnistMini` with arrays of its own: changing them changes no later call.

    Example:
        >>> data = fashion_mnist_mini()
        >>> data.x_train.shape, data.x_test.shape
        ((6000, 28, 28, 1), (1000, 28, 28, 1))
        >>> data.class_names[9]
        'Ankle boot'
    """
    source = resources.files("kerasopt.datasets").joinpath("fashion_mnist_mini.npz")
    with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return FashionMnistMini(
            x_train=arrays["x_train"],
            y_train=arrays["y_train"].astype(np.int32),
            x_test=arrays["x_test"],
            y_test=arrays["y_test"].astype(np.int32),
            class_names=_CLASS_NAMES,
        )
