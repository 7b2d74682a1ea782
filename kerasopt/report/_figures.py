"""The learning curves and the confusion matrix as matplotlib figures.

Figures are made with `matplotlib.figure.Figure`, so no backend is chosen and no global state of
`pyplot` is touched.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kerasopt.report._curves import axis_end, panels
from kerasopt.report._data import Event

COLORS = {
    "training": "#8b93a3",
    "validation": "#3a4fd0",
    "unfreeze": "#b7700a",
    "freeze": "#2b6cb0",
    "average": "#5b7a1f",
    "prune": "#b4307c",
    "quantize": "#0b857a",
    "other": "#6b7280",
}
_MAX_NUMBERS = 25  # a matrix of more classes is drawn without counts


def plot_history(history: dict[str, list[float]], events: Sequence[Event] = ()) -> Figure:
    """Returns the learning curves, one panel for each metric, with the events marked.

    Args:
        history: `History.history` of Keras: metric name to one float per epoch. A `val_` series
            shares the panel of its metric; NaN leaves a gap.
        events: Moments to mark. Defaults to none.

    Returns:
        A `matplotlib.figure.Figure` with at most four panels: loss, accuracy, what comes next.

    Raises:
        ValueError: The history is empty.

    Example:
    >>> figure = plot_history({"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]})
    >>> len(figure.axes)
    1
    """
    shown = panels(history)[:4]
    if not shown:
        raise ValueError(
            "`history` must hold at least one metric. Received: history={}. "
            "Pass `model.fit(...).history`."
        )
    figure = Figure(figsize=(5.6 * min(len(shown), 2), 3.4 * ((len(shown) + 1) // 2)), dpi=120)
    grid = figure.subplots((len(shown) + 1) // 2, min(len(shown), 2), squeeze=False)
    for axes, panel in zip(grid.flat, shown, strict=False):
        for curve in panel.curves:
            color = COLORS[curve.role]
            axes.plot(curve.epochs, curve.values, color=color, marker="o", ms=3, label=curve.role)
        axes.set(title=panel.title, xlabel="epoch", xlim=(0, axis_end(history, events) * 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if panel.is_fraction:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _finish(axes, events, named=panel is shown[0])
        if panel is shown[0] or len(panel.curves) > 1:
            axes.legend(frameon=False, fontsize=8)
    for axes in list(grid.flat)[len(shown) :]:
        axes.remove()
    figure.tight_layout()
    return figure


def _finish(axes: Axes, events: Sequence[Event], *, named: bool) -> None:
    for event in events:
        color = COLORS[event.kind]
        label = event.label if named else None
        axes.axvline(event.epoch, color=color, lw=1.2, ls="--", label=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Returns the confusion matrix as a picture; colour is the share of the row.

    Args:
        matrix: Integer array of shape `(classes, classes)`, true classes in rows, as
            `confusion_matrix` returns it.
        class_names: One name for each class.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: The matrix is not square or the number of names differs.

    Example:
    >>> figure = plot_confusion(np.eye(2, dtype=int), ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
    ['cat', 'dog']
    """
    matrix = np.asarray(matrix)
    count = len(class_names)
    if matrix.shape != (count, count):
        raise ValueError(
            "`matrix` must have one row and one column for each of `class_names`. "
            f"Received: matrix.shape={matrix.shape}, len(class_names)={count}."
        )
    side = min(2.2 + 0.42 * count, 16)
    figure = Figure(figsize=(side, side), dpi=120)
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    # "$" would start matplotlib's own formula language.
    names = [name.replace("$", r"\$") for name in class_names]
    axes.set_xticks(range(count), names, rotation=90)
    axes.set_yticks(range(count), names)
    axes.set(xlabel="predicted", ylabel="actual")
    if count <= _MAX_NUMBERS:
        for i, j in np.argwhere(matrix):
            color = "white" if share[i, j] > 0.55 else "black"
            axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color=color, fontsize=8)
    figure.tight_layout()
    return figure
