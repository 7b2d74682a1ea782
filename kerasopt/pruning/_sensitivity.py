"""How much each layer minds being pruned, measured layer by layer without training."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._data import batches, class_indices, top_class
from kerasopt._layer_filter import LayerFilter
from kerasopt._validation import check_int, check_number
from kerasopt.pruning._kernels import Kernel, find_kernels
from kerasopt.pruning._structures import parse_structure

SPARSITIES = (0.5, 0.75, 0.875, 0.9375)


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """The score of a model with one layer pruned at a time. `print` shows it as a table.

    Attributes:
        baseline: the score of the model as it is.
        sparsities: the sparsities that were tried, increasing.
        paths: the layers, in model order; a kernel's own name follows where a layer has several.
        sizes: weights in each kernel.
        scores: for each layer the score at each sparsity.
    """

    baseline: float
    sparsities: tuple[float, ...]
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]

    def __str__(self) -> str:
        width = max(len("layer"), *(len(path) for path in self.paths))
        head = f"{'layer':<{width}}  {'weights':>10}" + "".join(
            f"  {sparsity:>7.2%}" for sparsity in self.sparsities
        )
        rows = [
            f"{path:<{width}}  {size:>10,}" + "".join(f"  {score:>7.4f}" for score in scores)
            for path, size, scores in zip(self.paths, self.sizes, self.scores, strict=True)
        ]
        return "\n".join([f"dense: {self.baseline:.4f}", head, *rows])

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def suggest(self, sparsity: float) -> dict[str, float]:
        """Returns a target for each layer that together make a wanted sparsity.

        Every layer gets the sparsity at which it loses the same score, the smallest loss that is
        enough for the whole; between the measured sparsities the loss is interpolated, and no
        layer goes above the highest one. Layers are measured one at a time and without training:
        the suggestion ranks them, it is no promise of the score.

        Args:
            sparsity: wanted fraction of zeros in these layers together, in [0, 1).

        Returns:
            A dict for `targets` of `PruneLowMagnitude`: regex of one layer to its sparsity. A
            layer of several kernels has an entry for each.

        Raises:
            TypeError: `sparsity` is not a number.
            ValueError: it is out of range, or more than the highest measured sparsity.
        """
        check_number("sparsity", sparsity, low=0.0, high=1.0, high_open=True)
        if sparsity > self.sparsities[-1]:
            raise ValueError(
                f"`sparsity` must be at most {self.sparsities[-1]:g}, the highest that was "
                f"measured. Received: sparsity={sparsity}. Measure with higher `sparsities`."
            )
        sizes = np.array(self.sizes, "float64")
        low, high = 0.0, max(self._losses(index)[-1] for index in range(len(sizes)))
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self._total(middle, sizes) >= sparsity else (middle, high)
        chosen = np.array(self._at_loss(high))
        total = float(chosen @ sizes / sizes.sum())
        # Layers that mind nothing would go to the limit though less is wanted.
        chosen *= sparsity / total if total > sparsity else 1.0
        return {
            f"^{re.escape(path)}$": round(float(value), 4)
            for path, value in zip(self.paths, chosen, strict=True)
        }

    def figure(self) -> Any:
        """Returns the loss of score by layer and sparsity as a heat map.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from kerasopt.pruning._heat_map import heat_map

        return heat_map(self)

    def _losses(self, index: int) -> np.ndarray:
        """Returns the loss at sparsity 0 and at each measured one, made increasing."""
        lost = [0.0, *(self.baseline - score for score in self.scores[index])]
        return np.maximum.accumulate(np.maximum(lost, 0.0))

    def _at_loss(self, loss: float) -> list[float]:
        """Returns for each layer the highest sparsity that loses no more than `loss`."""
        levels = np.array([0.0, *self.sparsities])
        found = []
        for index in range(len(self.paths)):
            losses = self._losses(index)
            last = int(np.flatnonzero(losses <= loss)[-1])
            value = levels[last]
            if last + 1 < len(levels):
                step = (loss - losses[last]) / (losses[last + 1] - losses[last])
                value += step * (levels[last + 1] - levels[last])
            found.append(float(value))
        return found

    def _total(self, loss: float, sizes: np.ndarray) -> float:
        return float(np.array(self._at_loss(loss)) @ sizes / sizes.sum())


def sensitivity(
    model: Any,
    data: Any,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    layers: LayerFilter = None,
    structure: str = "element",
    block_pooling_type: str = "AVG",
    score: Callable[[Any], float] | None = None,
    batch_size: int = 32,
) -> Sensitivity:
    """Measures the accuracy of a model with one layer pruned at a time.

    The weights of smallest magnitude go, nothing is trained, and the layer gets its weights back
    before the next one: the model is left as it was. It takes one pass over the data for every
    layer and sparsity; a few hundred examples are enough to tell the layers apart.

    Args:
        model: a built `keras.Model` that classifies.
        data: `(x, y)` arrays, a batched `tf.data.Dataset` or an iterable of batches `(x, y)`, with
            integer or one-hot labels. Is read once into memory.
        sparsities: what to try, in (0, 1), increasing. An M:N structure sets its own.
        layers: which layers: `None` for every layer with a kernel except depthwise convolutions,
            a regex, a list of them, or a callable.
        structure: `"element"`, `"block:RxC"` or `"M:N"`.
        block_pooling_type: `"AVG"` or `"MAX"`.
        score: what to measure instead of the accuracy: a function of the model, higher is better.
            `data` may then be `None`.
        batch_size: for arrays.

    Returns:
        `Sensitivity`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: no labels, no layers, a model that is not built, or sparsities out of range.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 2, 0])
        >>> found = sensitivity(model, (x, y), sparsities=[0.5])
        >>> found.paths, found.sparsities
        (('head',), (0.5,))

    Reference:
        Han et al., Learning both Weights and Connections, arXiv:1506.02626, figure 6.
    """
    pattern = parse_structure(structure, block_pooling_type)
    levels = (pattern.fixed_sparsity,) if pattern.fixed_sparsity else _levels(sparsities)
    check_int("batch_size", batch_size, low=1)
    kernels = [
        kernel
        for kernel in find_kernels(model, layers, who="sensitivity")
        if pattern.fits(kernel.matrix_shape)
    ]
    if not kernels:
        raise ValueError(
            f"`structure` {structure!r} must fit one of the layers. Received: layers={layers!r}, "
            "of which none has enough inputs."
        )
    measure = _accuracy(model, data, batch_size) if score is None else lambda: score(model)
    baseline = float(measure())
    rows = [
        tuple(_pruned(kernel, float(level), pattern, measure) for level in levels)
        for kernel in kernels
    ]
    return Sensitivity(
        baseline=baseline,
        sparsities=tuple(float(level) for level in levels),
        paths=tuple(kernel.path for kernel in kernels),
        sizes=tuple(kernel.size for kernel in kernels),
        scores=tuple(rows),
    )


def _pruned(kernel: Kernel, sparsity: float, pattern: Any, measure: Callable[[], float]) -> float:
    before = tf.identity(tf.convert_to_tensor(kernel.variable))
    matrix = kernel.matrix()
    try:
        kernel.variable.assign(kernel.restore(matrix * pattern.mask(matrix, sparsity)))
        return float(measure())
    finally:
        kernel.variable.assign(before)


def _levels(sparsities: Any) -> tuple[float, ...]:
    if isinstance(sparsities, str) or not hasattr(sparsities, "__iter__"):
        raise TypeError(
            "`sparsities` must be a list of numbers in (0, 1). "
            f"Received: sparsities={sparsities!r}."
        )
    found = [
        check_number("sparsities", value, low=0.0, high=1.0, low_open=True, high_open=True)
        for value in sparsities
    ]
    if not found or sorted(set(found)) != found:
        raise ValueError(
            "`sparsities` must hold at least one number, increasing. "
            f"Received: sparsities={sparsities!r}."
        )
    return tuple(found)


def _accuracy(model: Any, data: Any, batch_size: int) -> Callable[[], float]:
    kept = list(batches(data, name="data", batch_size=batch_size))
    if any(y is None for _, y in kept):
        raise ValueError(
            "`data` must hold labels: (x, y), or batches of (x, y). Received: data without. "
            "Or pass `score`, a function of the model."
        )
    labels = [class_indices(y) for _, y in kept if y is not None]
    # Traced once; weights are variables, so pruning them needs no other trace.
    run = tf.function(lambda x: model(x, training=False), reduce_retracing=True)

    def measure() -> float:
        right = [
            int(np.sum(top_class(np.asarray(run(tf.convert_to_tensor(x)))) == truth))
            for (x, _), truth in zip(kept, labels, strict=True)
        ]
        return math.fsum(right) / sum(len(truth) for truth in labels)

    return measure
