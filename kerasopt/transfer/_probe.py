"""The linear probe: a classifier's head, solved instead of trained."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._validation import check_int, check_number
from kerasopt.training import settle
from kerasopt.transfer._features import extract, inference, no_labels
from kerasopt.transfer._graph import GraphCopier, is_graph

C_VALUES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
# On smaller matrices two threads save little, and wait for each other as soon as another process
# has one of the cores: ten times slower.
_THREADS_FROM_ENTRIES = 10_000_000


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """What `linear_probe` found; prints as a table.

    Attributes:
        c: the chosen inverse strength of regularization.
        c_values: all that were tried, in ascending order.
        accuracy: mean cross-validated accuracy for each of them, 0–1.
        accuracy_std: its standard deviation over the folds.
        log_loss: mean cross-validated log loss for each of them, by which `c` was chosen.
        num_images: number of images.
        num_features: number of inputs of the Dense layer.
        num_classes: number of classes.
        folds: number of folds.
        seconds: how long features and solution took.
    """

    c: float
    c_values: tuple[float, ...]
    accuracy: tuple[float, ...]
    accuracy_std: tuple[float, ...]
    log_loss: tuple[float, ...]
    num_images: int
    num_features: int
    num_classes: int
    folds: int
    seconds: float

    def __str__(self) -> str:
        sizes = f"{self.num_images:,} images, {self.num_features:,} features"
        lines = [
            f"{sizes}, {self.num_classes} classes, {self.folds} folds, {self.seconds:.1f} s",
            f"{'C':>8}  accuracy     std  log loss",
        ]
        rows = zip(self.c_values, self.accuracy, self.accuracy_std, self.log_loss, strict=True)
        lines += [
            f"{c:>8g}  {mean:>8.4f}  {std:.4f}  {loss:>8.4f}{'  chosen' if c == self.c else ''}"
            for c, mean, std, loss in rows
        ]
        return "\n".join(lines)


def linear_probe(
    model: Any,
    data: Any,
    *,
    c_values: Sequence[float] = C_VALUES,
    folds: int = 5,
    batch_size: int = 32,
    seed: int = 0,
) -> LinearProbe:
    """Solves the head of a classifier by logistic regression, and writes it into the model.

    The features are what the last Dense layer gets at inference. With `W` and `b` its kernel and
    bias, and features scaled to mean 0 and, all together, variance 1, the solution minimizes

        ||W||² / 2 + C · Σ log loss(image; W, b)

    for the `C` with the smallest cross-validated log loss (accuracy has ties where photos are
    few). The scaling is folded into kernel and bias, so that the model's graph stays as it is.
    Nothing else changes: not the other weights, nor what is trainable, nor the compiled state.

    All features stand in memory at once, in float64. Where they are more than the images, the
    problem is solved on the principal axes of the images, which changes no solution and is
    faster. The order of the images does not matter, so that a shuffled pipeline gives the same
    head each time.

    Args:
        model: a functional or Sequential model from images to logits, such as one of
            `build_classifier`; nested models are allowed. Its last layer must be a Dense layer
            without activation: one unit per class, or a single one for two classes.
        data: raw pixels with labels: `(x, y)`, a batched `tf.data.Dataset`, an iterable of
            `(x, y)` batches, or a tuple of photo paths and labels. Labels are integers or
            one-hot, and every class occurs.
        c_values: the inverse strengths of regularization to try, each > 0. Default: the powers of
            ten from 0.0001 to 100.
        folds: parts of the stratified cross-validation, >= 2 and at most the images of the
            smallest class. Default 5.
        batch_size: images in one pass through the network, >= 1. Default 32.
        seed: of the folds, >= 0. Default 0.

    Returns:
        A `LinearProbe`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: the model does not end in a Dense layer of logits, or has another number of
            classes than the labels; labels are missing or not integers or one-hot; a class has no
            images, or fewer than folds; features are not finite or all the same; or an argument
            is out of range.

    Example:
        >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
        ...                           keras.layers.Dense(2)])
        >>> images = np.concatenate([np.zeros((8, 4, 4, 3)), np.full((8, 4, 4, 3), 255)])
        >>> result = linear_probe(model, (images, np.repeat([0, 1], 8)))
        >>> result.accuracy[-1]
        1.0
        >>> model.predict(images, verbose=0).argmax(-1)
        array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1])

    Reference:
        Alain & Bengio, Understanding intermediate layers using linear classifier probes,
        arXiv:1610.01644; Kumar et al., Fine-Tuning can Distort Pretrained Features and
        Underperform Out-of-Distribution, arXiv:2202.10054 (probe first, then fine-tune).
    """
    start = time.perf_counter()
    values = _check_c_values(c_values)
    check_int("folds", folds, low=2)
    check_int("batch_size", batch_size, low=1)
    check_int("seed", seed, low=0)
    source, dense = _cut(model)
    settle(model)

    features, labels = extract(source, data, inference(source), name="data", batch_size=batch_size)
    if labels is None:
        raise no_labels("data", data)
    num_classes = max(2, dense.units)
    classes = _check_labels(labels, num_classes, folds)
    order = np.lexsort((*features.T[:8], features.sum(axis=-1), classes))
    with _threads(features.size):
        problem = _Problem(features[order], classes[order], centered=dense.use_bias)
        scores = problem.cross_validate(values, folds, seed)
        c = values[int(np.argmin(scores[2]))]
        solution = problem.solve(c)
    _write(dense, *solution)
    accuracy, deviation, loss = (tuple(float(score) for score in row) for row in scores)
    return LinearProbe(
        c=c,
        c_values=values,
        accuracy=accuracy,
        accuracy_std=deviation,
        log_loss=loss,
        num_images=len(features),
        num_features=features.shape[-1],
        num_classes=num_classes,
        folds=folds,
        seconds=time.perf_counter() - start,
    )


def _threads(entries: int) -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1 if entries < _THREADS_FROM_ENTRIES else None)


class _Problem:
    """Multinomial logistic regression on scaled features, the solution in terms of raw ones."""

    def __init__(self, features: np.ndarray, classes: np.ndarray, *, centered: bool) -> None:
        x = features.astype("float64")
        if not np.isfinite(x).all():
            raise ValueError(
                "`model` must give finite features. Received: features with NaN or infinity. "
                "Check its weights and the images."
            )
        self._mean = x.mean(axis=0) if centered else np.zeros(x.shape[-1])
        x -= self._mean
        self._scale = float(np.sqrt(np.mean(x**2)))
        # Rounding alone makes features of equal images differ in their last bits.
        if self._scale <= 1e-6 * float(np.abs(features).max()):
            raise ValueError(
                "`model` must give features that differ between images. "
                "Received: the same features for all. Check its weights and the images."
            )
        x /= self._scale
        self._axes = None
        if len(x) < x.shape[-1]:
            # The penalty does not see a rotation, and weights outside the images' span are zero.
            left, lengths, axes = np.linalg.svd(x, full_matrices=False)
            kept = lengths > 1e-10 * lengths[0]
            x, self._axes = left[:, kept] * lengths[kept], axes[kept]
        self._x, self._classes, self._centered = x, classes, centered

    def cross_validate(self, values: Sequence[float], folds: int, seed: int) -> np.ndarray:
        """Returns mean accuracy, its deviation and mean log loss, each for every value of C."""
        from sklearn.metrics import log_loss
        from sklearn.model_selection import StratifiedKFold

        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        accuracy, loss = np.zeros((2, folds, len(values)))
        for fold, (train, test) in enumerate(splitter.split(self._x, self._classes)):
            learner = self._learner(tol=1e-6, warm_start=True)  # from strong regularization to weak
            truth = self._classes[test]
            for index, c in enumerate(values):
                learner.set_params(C=c).fit(self._x[train], self._classes[train])
                chances = learner.predict_proba(self._x[test])
                accuracy[fold, index] = np.mean(chances.argmax(axis=-1) == truth)
                loss[fold, index] = log_loss(truth, chances, labels=learner.classes_)
        return np.stack([accuracy.mean(axis=0), accuracy.std(axis=0), loss.mean(axis=0)])

    def solve(self, c: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns kernel (features, outputs) and bias for raw features; two classes, one output."""
        learner = self._learner(C=c, tol=1e-9).fit(self._x, self._classes)
        weights = learner.coef_ if self._axes is None else learner.coef_ @ self._axes
        kernel = weights.T / self._scale
        return kernel, learner.intercept_ - self._mean @ kernel

    def _learner(self, **options: Any) -> Any:
        from sklearn.linear_model import LogisticRegression

        # As fast as lbfgs at a tight tolerance; the default one leaves logits a tenth off where
        # regularization is weak.
        return LogisticRegression(
            solver="newton-cg", max_iter=1000, fit_intercept=self._centered, **options
        )


def _cut(model: Any) -> tuple[Any, Any]:
    """Returns the model of the last Dense layer's input, and that layer."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model of type {type(model).__name__}."
        )
    if not is_graph(model):
        raise ValueError(
            "`model` must be a built functional or Sequential model with one input and one output. "
            f"Received: model={model.name!r} of type {type(model).__name__}."
        )
    dense = _last_layer(model)
    _check_dense(model, dense)
    if dense in model.layers:
        try:
            return keras.Model(model.inputs[0], dense.input), dense
        except (AttributeError, ValueError):
            pass  # called more than once; the copy's layer is called by this graph only
    image = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype)
    flat = keras.Model(image, GraphCopier(image)(model, image))
    return keras.Model(image, _last_layer(flat).input), dense


def _last_layer(model: Any) -> Any:
    """Returns the layer (or operation) that a model's output comes from, nested models opened."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1]
    else:
        name = keras.tree.flatten(model.get_config()["output_layers"])[0]
        last = next(operation for operation in model.operations if operation.name == name)
    return _last_layer(last) if is_graph(last) else last


def _check_dense(model: Any, layer: Any) -> None:
    required = "`model` must end in a Dense layer of logits, without activation."
    kind = f"{type(layer).__name__} {layer.name!r}"
    is_dense = isinstance(layer, keras.layers.Dense)
    if not is_dense:
        raise ValueError(
            f"{required} Received: model={model.name!r}, which ends in {kind}. "
            "End it in Dense(num_classes) and train with from_logits=True."
        )
    if layer.activation is not keras.activations.linear:
        activation = getattr(layer.activation, "__name__", layer.activation)
        raise ValueError(
            f"{required} Received: {kind} with activation={activation!r}. "
            "Leave the activation out and train with from_logits=True."
        )
    if len(layer.output.shape) != 2:
        raise ValueError(
            f"{required} Received: {kind} with output shape {tuple(layer.output.shape)}. "
            "Pool over height and width before it."
        )
    kernel = layer.kernel
    if not isinstance(kernel, keras.Variable) or not str(kernel.dtype).endswith(("16", "32", "64")):
        raise ValueError(
            f"{required} Received: {kind} that is quantized or has a LoRA adapter. "
            "Probe the model before that."
        )


def _check_c_values(values: Any) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or not len(values):
        raise TypeError(
            f"`c_values` must be a list of at least one number > 0. Received: c_values={values!r}."
        )
    checked = [
        check_number(f"c_values[{i}]", value, low=0.0, low_open=True)
        for i, value in enumerate(np.asarray(values).tolist())
    ]
    return tuple(sorted(set(checked)))


def _check_labels(labels: np.ndarray, num_classes: int, folds: int) -> np.ndarray:
    """Returns integer classes (batch,) after checking that each occurs often enough."""
    if labels.ndim == 2 and labels.shape[-1] > 1:
        if labels.shape[-1] != num_classes:
            raise _wrong_count(num_classes, f"one-hot labels of {labels.shape[-1]} classes")
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all()):
            raise ValueError(
                "`data` must have labels that are integers or one-hot. "
                "Received: rows that are not one-hot. Pass the classes as integers."
            )
        classes = labels.argmax(axis=-1)
    else:
        if labels.size != len(labels) or labels.dtype.kind not in "uibf":
            raise ValueError(
                "`data` must have labels that are integers or one-hot. "
                f"Received: labels of shape {labels.shape} and dtype {labels.dtype}."
            )
        classes = labels.reshape(-1).astype("int64")
        if (classes != labels.reshape(-1)).any():
            raise ValueError(
                "`data` must have labels that are integers or one-hot. "
                "Received: labels with fractions. Pass the classes as integers."
            )
    if classes.min() < 0 or classes.max() >= num_classes:
        raise _wrong_count(num_classes, f"labels {classes.min()} to {classes.max()}")
    _check_counts(np.bincount(classes, minlength=num_classes), folds)
    return classes


def _wrong_count(num_classes: int, received: str) -> ValueError:
    return ValueError(
        f"`data` must have labels of the {num_classes} classes of the model, 0 to "
        f"{num_classes - 1}. Received: {received}. Build the model with as many classes."
    )


def _check_counts(counts: np.ndarray, folds: int) -> None:
    missing = np.flatnonzero(counts == 0).tolist()
    if missing:
        raise ValueError(
            f"`data` must hold images of every class of the model. Received: none of the classes "
            f"{missing[:20]}. Add some, or build the model with fewer classes."
        )
    few = int(counts.argmin())
    if counts[few] < folds:
        fix = f"Pass folds={counts[few]}, or add images." if counts[few] > 1 else "Add images."
        raise ValueError(
            "`folds` must be at most the number of images of each class. "
            f"Received: folds={folds}, and {counts[few]} images of class {few}. {fix}"
        )


def _write(dense: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
    if dense.units == 2:  # scikit-learn solves two classes with one output, their difference
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.hstack([-bias, bias]) / 2
    dense.kernel.assign(kernel)
    if dense.use_bias:
        dense.bias.assign(bias)
