"""New BatchNormalization statistics for weights that were averaged, pruned or frozen in place."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._data import batches, class_indices
from kerasopt._layer_filter import LayerFilter, select_layers, walk_layers
from kerasopt._validation import check_int
from kerasopt.training import settle
from kerasopt.transfer._flags import Flags, inner_layers, is_batch_norm


def recalibrate_batch_norm(
    model: Any,
    data: Any,
    *,
    layers: LayerFilter = None,
    num_batches: int | None = None,
    batch_size: int = 32,
) -> int:
    """Measures the statistics of a model's BatchNormalization layers anew, on data.

    Moving statistics belong to the weights that were there when they were collected. After
    averaging weights (SWA), or pruning or loading into another model, they are off. All batches
    are run through the model in inference mode (no dropout, no augmentation) with only the
    BatchNormalization layers on the statistics of the batch, and over `B` batches

        mean = sum(mean_b) / B,    variance = sum(variance_b + mean_b^2) / B - mean^2

    which are the exact statistics of the data where all batches are of one size and the layers
    before do not depend on the batch. All other weights stay as they are, bit for bit.

    It is for weights that were trained on batch statistics. A model that was fine-tuned with frozen
    statistics relies on those it has, and loses accuracy with others.

    Each batch must be a fair sample of the data, for it is normalized by itself. Arrays are
    shuffled here; a pipeline must come shuffled, and a warning says so when its labels show that
    each batch holds a single class.

    Args:
        model: a built Keras model.
        data: images, `(x, y)` arrays, a batched `tf.data.Dataset`, or an iterable of batches;
            labels are not used. Batches of 32 and more give good statistics.
        layers: which BatchNormalization layers, by regex, list or callable; None for all.
        num_batches: number of batches used, at least 1; None for all.
        batch_size: used for arrays.

    Returns:
        The number of layers that got new statistics.

    Raises:
        TypeError: the data is of a wrong type.
        ValueError: the model has no BatchNormalization layer, the filter finds none, or the data
            is empty.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        >>> recalibrate_batch_norm(model, np.full((8, 4), 3.0, "float32"))
        1
        >>> float(model.layers[0].moving_mean[0])
        3.0

    Reference:
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
        arXiv:1803.05407, section 3.
    """
    check_int("batch_size", batch_size, low=1)
    if num_batches is not None:
        check_int("num_batches", num_batches, low=1)
    settle(model)
    norms = _find(model, layers)
    stream = batches(data, name="data", batch_size=batch_size, shuffle=True)
    sums = [[0.0, 0.0] for _ in norms]
    count = 0
    classes: list[set[int]] = []
    before = Flags(model)
    momenta = [norm.momentum for norm in norms]
    values = [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]
    undo = [_use_batch_statistics(norm) for norm in norms]
    try:
        forward = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
        for x, y in itertools.islice(stream, num_batches):
            forward(tf.convert_to_tensor(x))
            classes.append(_classes(y))
            count += 1
            for total, norm in zip(sums, norms, strict=True):
                mean = norm.moving_mean.numpy().astype("float64")
                total[0] += mean
                total[1] += norm.moving_variance.numpy().astype("float64") + mean**2
        values = [_moments(total, count) for total in sums]
    finally:
        for give_back in undo:
            give_back()
        before.restore()
        for norm, momentum, (mean, variance) in zip(norms, momenta, values, strict=True):
            norm.momentum = momentum
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance)
    if _sorted_by_class(classes):
        warnings.warn(
            "The batches of `data` hold one class each, so the statistics are those of single "
            "classes. Shuffle the data and call recalibrate_batch_norm again.",
            stacklevel=2,
        )
    return len(norms)


def _classes(labels: np.ndarray | None) -> set[int]:
    one_hot = labels is not None and labels.ndim == 2 and labels.shape[-1] > 1
    if labels is None or not (one_hot or labels.size == len(labels)):
        return set()
    return set(class_indices(labels).tolist())


def _sorted_by_class(classes: list[set[int]]) -> bool:
    single = sum(len(batch) == 1 for batch in classes)
    return len(classes) > 2 and single > len(classes) / 2 and len(set().union(*classes)) > 1


def _find(model: Any, layers: LayerFilter) -> list[Any]:
    named = [
        (path if inner is layer else f"{path}/{inner.name}", inner)
        for path, layer in walk_layers(model)
        for inner in inner_layers(layer)
        if is_batch_norm(inner)
    ]
    if not named:
        raise ValueError(
            "`model` must have a BatchNormalization layer. "
            f"Received: model={model.name!r} without any; it needs no recalibration."
        )
    return [layer for _, layer in select_layers(named, layers)]


def _use_batch_statistics(norm: Any) -> Callable[[], None]:
    """Makes one layer normalize by the batch and keep its statistics; returns the way back."""
    mine = vars(norm).get("call")
    call = norm.call

    def on_batch(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: ARG001
        return call(inputs, training=True, mask=mask)

    vars(norm)["call"] = on_batch
    norm.trainable = True  # a frozen layer uses its moving statistics whatever the mode
    norm.momentum = 0.0

    def give_back() -> None:
        vars(norm).pop("call")
        if mine is not None:
            vars(norm)["call"] = mine

    return give_back


def _moments(total: list[Any], count: int) -> tuple[np.ndarray, np.ndarray]:
    mean = total[0] / count
    return mean, np.maximum(total[1] / count - mean**2, 0.0)
