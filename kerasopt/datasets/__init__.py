"""Photos as `tf.data` pipelines, and the small data set that ships with the package."""

from kerasopt.datasets._fashion_mnist import FashionMnistMini, fashion_mnist_mini
from kerasopt.datasets._folders import list_photos
from kerasopt.datasets._image_folder import ImageDataset, image_folder
from kerasopt.datasets._images import BadFile, load_image

__all__ = [
    "BadFile",
    "FashionMnistMini",
    "ImageDataset",
    "fashion_mnist_mini",
    "image_folder",
    "list_photos",
    "load_image",
]
