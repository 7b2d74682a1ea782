"""A look at what an augmentation does."""

from typing import TYPE_CHECKING, Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._validation import check_int

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 1.5  # inches
_HEADER = 0.42
_GAP = 0.07
_INK = "#3c4043"


def preview(augmentation: Any, images: Any, *, rows: int = 4, columns: int = 6) -> "Figure":
    """Draws images beside augmented versions of them, one image a row, the original first.

    The figure is a plain `matplotlib.figure.Figure`: a notebook shows it, `figure.savefig` writes
    it, and no window is left open. The layer draws its next random numbers, as in training.

    Args:
        augmentation: an `Augmentation`, or another Keras layer.
        images: array or tensor `(batch, height, width, channels)`, channels 1 or 3, pixels 0–255,
            or floats 0–1; or one image without the batch axis.
        rows: largest number of images, >= 1; the first ones are shown.
        columns: number of columns, >= 2, the original included.

    Returns:
        A `matplotlib.figure.Figure` with `min(rows, batch) * columns` axes.

    Raises:
        TypeError: `augmentation` is not a Keras layer, or `rows` or `columns` is not an int.
        ValueError: `images` has another shape, or `rows` or `columns` is too small.

    Example:
        >>> import numpy as np
        >>> import kerasopt as ko
        >>> photos = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
        >>> figure = ko.augmentation.preview(ko.augmentation.basic(), photos, columns=3)
        >>> len(figure.axes)
        6
    """
    if not isinstance(augmentation, keras.layers.Layer):
        raise TypeError(
            "`augmentation` must be a Keras layer, such as kerasopt.augmentation.basic(). "
            f"Received: augmentation={augmentation!r}."
        )
    check_int("rows", rows, low=1)
    check_int("columns", columns, low=2)
    originals = _as_batch(images)[:rows]
    grid = [originals]
    grid += [np.asarray(augmentation(originals, training=True)) for _ in range(columns - 1)]
    scale = 1.0 if originals.max(initial=0.0) <= 1.0 else 255.0
    return _draw([np.clip(batch.astype("float32") / scale, 0, 1) for batch in grid])


def _as_batch(images: Any) -> np.ndarray:
    batch = np.asarray(images, dtype="float32")
    if batch.ndim == 3:
        batch = batch[None]
    if batch.ndim != 4 or batch.shape[-1] not in (1, 3) or 0 in batch.shape:
        raise ValueError(
            "`images` must have the shape (batch, height, width, channels) with 1 or 3 channels. "
            f"Received: images of shape {np.shape(images)}."
        )
    return batch


def _draw(grid: list[np.ndarray]) -> "Figure":
    from matplotlib.figure import Figure  # here, for it costs half a second to import

    rows, columns = len(grid[0]), len(grid)
    aspect = grid[0].shape[1] / grid[0].shape[2]
    width, height = columns * _CELL, rows * _CELL * aspect + _HEADER
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    top = 1 - _HEADER / height
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=top, wspace=_GAP, hspace=_GAP)
    for row in range(rows):
        for column in range(columns):
            cell = axes[row][column]
            cell.imshow(grid[column][row].squeeze(), cmap="gray", vmin=0, vmax=1)
            cell.set_axis_off()
    style = {"loc": "left", "fontsize": 10, "color": _INK}
    axes[0][0].set_title("original", fontweight="bold", **style)
    axes[0][1].set_title("in training", **style)
    return figure
