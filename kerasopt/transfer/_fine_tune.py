"""The recipe of fine-tuning: head first, then gradual unfreezing with a rate for each layer."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._data import Batch, batches
from kerasopt._validation import check_int, check_number
from kerasopt.transfer._blocks import blocks
from kerasopt.transfer._layerwise import LayerwiseLearningRate
from kerasopt.transfer._pixels import warn_if_scaled
from kerasopt.transfer._schedule import WarmupCosine
from kerasopt.transfer._unfreeze import GradualUnfreeze


def fine_tuning_callbacks(
    model: Any,
    epochs: int,
    *,
    freeze_epochs: int = 1,
    base_learning_rate: float = 2e-3,
    rate_span: float = 100.0,
    unfreeze_end: float = 0.4,
    groups: int = 3,
    batch_norm: str = "frozen",
    verbose: int = 0,
) -> list[Any]:
    """Lists the callbacks of `fine_tune`, for those who call `fit` themselves.

    Args:
        model: the classifier that will be trained; its blocks give the rates.
        epochs: the epochs that `fit` is going to be given, at least 1.
        freeze_epochs: epochs in which the head trains alone, at least 0, fewer than `epochs`.
        base_learning_rate: peak learning rate, that of the head, > 0.
        rate_span: learning rate of the head over that of the first block, >= 1;
            the blocks between lie evenly on a logarithmic scale.
        unfreeze_end: fraction of training at which the whole backbone is open, in [0, 1].
        groups: number of openings between `freeze_epochs` and `unfreeze_end`, at least 1.
        batch_norm: `"frozen"`, `"affine"` or `"train"`, as in `Unfreeze`.
        verbose: 1 prints a line at each opening.

    Returns:
        `[GradualUnfreeze, LayerwiseLearningRate, WarmupCosine]`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range.

    Example:
        >>> from kerasopt.transfer import build_classifier
        >>> model = build_classifier("MobileNetV2", 2, input_shape=(32, 32, 3), weights=None)
        >>> [type(c).__name__ for c in fine_tuning_callbacks(model, epochs=10)]
        ['GradualUnfreeze', 'LayerwiseLearningRate', 'WarmupCosine']
    """
    check_int("epochs", epochs, low=1)
    check_int("freeze_epochs", freeze_epochs, low=0, high=epochs - 1)
    check_number("unfreeze_end", unfreeze_end, low=0.0, high=1.0)
    check_number("rate_span", rate_span, low=1.0)
    check_number("base_learning_rate", base_learning_rate, low=0.0, low_open=True)
    start = freeze_epochs / epochs
    return [
        GradualUnfreeze(
            start,
            max(start, float(unfreeze_end)),
            groups=groups,
            batch_norm=batch_norm,
            verbose=verbose,
        ),
        LayerwiseLearningRate(rate_span ** (-1.0 / len(blocks(model)))),
        WarmupCosine(base_learning_rate, warmup=min(0.1, 1 / epochs)),
    ]


def fine_tune(
    model: Any,
    train: Any,
    validation: Any = None,
    *,
    epochs: int,
    freeze_epochs: int = 1,
    base_learning_rate: float = 2e-3,
    rate_span: float = 100.0,
    unfreeze_end: float = 0.4,
    groups: int = 3,
    batch_norm: str = "frozen",
    weight_decay: float = 1e-4,
    batch_size: int = 32,
    callbacks: Sequence[Any] = (),
    verbose: str | int = "auto",
) -> Any:
    """Fine-tunes a pretrained classifier in one call, and returns the history.

    The head trains alone for `freeze_epochs`. Then the backbone opens from the head down, in
    `groups` steps until `unfreeze_end`, each block with a smaller learning rate than the one
    behind it. The rate warms up and follows a cosine over the whole training. All in one `fit`,
    so that the optimizer's state goes on; `fine_tuning_callbacks` lists the callbacks it is made
    of, for those who call `fit` themselves.

    A model that is not compiled is compiled with AdamW, cross-entropy on logits (sparse for
    integer labels) and accuracy. One that is compiled keeps its optimizer, loss and metrics.

    Warns when the first images lie within 0 and 1 although the model scales raw pixels itself.

    Args:
        model: a classifier of `build_classifier`, or any built model with a backbone and a head.
        train: `(x, y)` arrays, a batched `tf.data.Dataset`, a `PyDataset` or an iterable of
            batches, with labels.
        validation: the same, evaluated after each epoch; None for none.
        epochs: passes over the training data, at least 1.
        freeze_epochs: epochs in which the head trains alone, at least 0, fewer than `epochs`.
            0 suits a head that is solved already (`linear_probe`).
        base_learning_rate: peak learning rate, that of the head, > 0.
        rate_span: learning rate of the head over that of the first block, >= 1;
            the blocks between lie evenly on a logarithmic scale.
        unfreeze_end: fraction of training at which the whole backbone is open, in [0, 1].
        groups: number of openings, at least 1.
        batch_norm: `"frozen"`, `"affine"` or `"train"`, as in `Unfreeze`.
        weight_decay: of AdamW, used when the model is not compiled, >= 0.
        batch_size: used for arrays.
        callbacks: further callbacks, such as `ko.pruning.PruneLowMagnitude(0.5)`.
        verbose: as in `fit`; 0 is silent.

    Returns:
        The `keras.callbacks.History` of `fit`, with `trainable_fraction` among the logs.

    Raises:
        TypeError: an argument has a wrong type, or the model is not compiled and `train` is an
            iterator that can be read only once.
        ValueError: an argument is out of range, the training data has no labels, the model was
            built with `head="features"`, or its optimizer has a learning-rate schedule of its own.

    Example:
        >>> import kerasopt as ko
        >>> import numpy as np
        >>> model = ko.transfer.build_classifier(
        ...     "MobileNetV2", 2, input_shape=(32, 32, 3), weights=None
        ... )
        >>> x, y = np.zeros((4, 32, 32, 3), "float32"), np.array([0, 1, 0, 1])
        >>> history = ko.transfer.fine_tune(model, (x, y), epochs=2, groups=1, verbose=0)
        >>> len(history.history["loss"])
        2

    Reference:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification,
        arXiv:1801.06146 (gradual unfreezing, a rate for each layer); Loshchilov & Hutter,
        arXiv:1608.03983 (cosine).
    """
    check_number("weight_decay", weight_decay, low=0.0)
    check_int("batch_size", batch_size, low=1)
    recipe = fine_tuning_callbacks(
        model,
        epochs,
        freeze_epochs=freeze_epochs,
        base_learning_rate=base_learning_rate,
        rate_span=rate_span,
        unfreeze_end=unfreeze_end,
        groups=groups,
        batch_norm=batch_norm,
        verbose=int(bool(verbose)),
    )
    first_batch = functools.cache(lambda: _first_batch(train))
    if not model.compiled:
        _compile(model, train, first_batch(), base_learning_rate, weight_decay)
    warn_if_scaled(model, first_batch, name="train")
    arguments = _fit_arguments(train, validation, batch_size)
    return model.fit(epochs=epochs, callbacks=[*recipe, *callbacks], verbose=verbose, **arguments)


def _first_batch(train: Any) -> Batch | None:
    return None if hasattr(train, "__next__") else next(batches(train, name="train"))


def _compile(model: Any, train: Any, batch: Batch | None, rate: float, weight_decay: float) -> None:
    if batch is None:
        raise TypeError(
            "`train` must be data that can be read twice when the model is not compiled, to see "
            f"its labels. Received: train of type {type(train).__name__}. Compile the model first."
        )
    _, labels = batch
    if labels is None:
        raise ValueError(
            "`train` must hold labels: (x, y) arrays or batches of (x, y). Received: images alone."
        )
    one_hot = labels.ndim > 1 and labels.shape[-1] > 1
    loss = "CategoricalCrossentropy" if one_hot else "SparseCategoricalCrossentropy"
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=weight_decay),
        loss=getattr(keras.losses, loss)(from_logits=True),
        metrics=["accuracy"],
    )


def _fit_arguments(train: Any, validation: Any, batch_size: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if isinstance(train, tuple | list) and all(isinstance(part, np.ndarray) for part in train):
        arguments = dict(zip(("x", "y", "sample_weight"), train, strict=False))
        arguments["batch_size"] = batch_size
    else:
        arguments["x"] = train
    if validation is not None:
        arguments["validation_data"] = validation
        if isinstance(validation, tuple | list):
            arguments["validation_batch_size"] = batch_size
    return arguments
