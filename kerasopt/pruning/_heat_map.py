"""The sensitivity of layers as a picture.

Made with `matplotlib.figure.Figure`: no backend is chosen and `pyplot` is not touched.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

_MAX_NUMBERS = 40  # more layers are drawn without numbers


def heat_map(found: Any) -> Figure:
    """Returns the loss of score of a `Sensitivity`, layers downwards, sparsities across."""
    lost = found.baseline - np.array(found.scores)
    count, columns = lost.shape
    figure = Figure(
        figsize=(3.2 + 0.9 * columns, 1.4 + min(0.3 * count, 24.0)), dpi=120, layout="constrained"
    )
    axes = figure.subplots()
    top = max(float(lost.max()), 1e-6)
    image = axes.imshow(lost, aspect="auto", cmap="magma_r", vmin=0.0, vmax=top)
    axes.set_xticks(range(columns), [f"{value:.2%}" for value in found.sparsities])
    axes.set_yticks(range(count), found.paths, fontsize=7)
    axes.set(xlabel="zeros in this layer alone", title=f"score lost, of {found.baseline:.3f} dense")
    if count <= _MAX_NUMBERS:
        for (row, column), value in np.ndenumerate(lost):
            axes.text(
                column,
                row,
                f"{value:.3f}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if value > 0.6 * top else "black",
            )
    figure.colorbar(image, ax=axes, label="score lost")
    return figure
