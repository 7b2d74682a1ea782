"""The loss of a mixed batch: the model's own loss for either label, the shares as weights."""

from collections.abc import Callable
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt.augmentation._mixing_math import along


class Mixed:
    """Both labels of a mixed batch and their shares, for the time in which one step is traced.

    Args:
        model: the model that trains.
        labels: structure of tensors (batch, ...).
        weights: sample weights, a structure of tensors (batch, ...), or `None`.
        partners: int32 (batch,), the index of each image's partner.
        lam: float32 (batch,), the share of each image's own label.
    """

    def __init__(self, model: Any, labels: Any, weights: Any, partners: Any, lam: Any) -> None:
        self.used = False
        self._model = model
        self._partners = partners
        self._lam = lam
        self._labels = (labels, self._of_partner(labels))
        self._weights = (weights, self._of_partner(weights))

    def repack(self, x: Any) -> Any:
        """Returns the data of the step with the label, and its weight, of the larger share."""
        y, weights = (self._of_larger_share(*pair) for pair in (self._labels, self._weights))
        return keras.utils.pack_x_y_sample_weight(x, y, weights)

    def loss(self, compute_loss: Callable[[Any, Any], Any], y_pred: Any) -> Any:
        """Returns the loss of both labels, each in its share.

        `s·loss(y1, w1/s) + (1 - s)·loss(y2, w2/(1 - s))` with `w1 = λ·w` and `w2 = (1 - λ)·w` of
        the partner: whatever s, the shares come out right for every reduction that is linear in
        the weights, and what does not hang on the labels (`add_loss`, regularizers) counts once.

        Args:
            compute_loss: `(labels, sample_weight)` -> the model's loss.
            y_pred: what the model predicted, which tells the rank of the losses.
        """
        self.used = True
        rank = _rank_of_losses(y_pred)
        first = self._share(self._weights[0], self._lam, rank)
        second = self._share(self._weights[1], 1.0 - self._lam, rank)
        share = self._part(first, second)
        losses = []
        for labels, weights, part in zip(
            self._labels, (first, second), (share, 1.0 - share), strict=True
        ):
            scaled = keras.tree.map_structure(lambda leaf, part=part: leaf / part, weights)
            losses.append(part * self._checked(compute_loss, labels, scaled))
        return losses[0] + losses[1]

    def _of_partner(self, values: Any) -> Any:
        return keras.tree.map_structure(
            lambda leaf: None if leaf is None else tf.gather(leaf, self._partners), values
        )

    def _of_larger_share(self, own: Any, other: Any) -> Any:
        def choose(one: Any, two: Any) -> Any:
            return None if one is None else tf.where(along(self._lam, one) >= 0.5, one, two)

        return keras.tree.map_structure(choose, own, other)

    def _share(self, weights: Any, lam: Any, rank: int) -> Any:
        if weights is None:
            return tf.reshape(lam, [-1] + [1] * (rank - 1))
        return keras.tree.map_structure(
            lambda leaf: along(lam, leaf) * tf.cast(leaf, lam.dtype), weights
        )

    def _part(self, first: Any, second: Any) -> Any:
        """The s of `loss`: 1/2, by which the losses of several outputs are logged right too.

        A mean over the weights divides by their sum, so there it has to be their part of it.
        """
        reductions = {getattr(one, "reduction", "") for one in _losses(self._model)}
        if "mean_with_sample_weight" not in reductions:
            return tf.constant(0.5)
        sums = [
            tf.add_n([tf.reduce_sum(v) for v in keras.tree.flatten(w)]) for w in (first, second)
        ]
        return tf.clip_by_value(tf.math.divide_no_nan(sums[0], sums[0] + sums[1]), 1e-6, 1 - 1e-6)

    def _checked(self, compute_loss: Callable[[Any, Any], Any], labels: Any, weights: Any) -> Any:
        """Refuses a `compute_loss` of the model's own that leaves the weights out."""
        if type(self._model).compute_loss is keras.Model.compute_loss:
            return compute_loss(labels, weights)
        leaves = keras.tree.flatten(weights)
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            loss = compute_loss(labels, weights)
        if all(gradient is None for gradient in tape.gradient(loss, leaves)):
            raise ValueError(
                "`compute_loss` must use `sample_weight`, which carries the shares of the labels. "
                f"Received: model {self._model.name!r} of class {type(self._model).__name__}, "
                "whose own compute_loss does not."
            )
        return loss


def check_loss(model: Any, name: str) -> None:
    """Raises ValueError for a model that has no loss to mix."""
    own = type(model).compute_loss is not keras.Model.compute_loss
    if not own and not _losses(model):
        raise ValueError(
            f"`{name}` needs a compiled loss, which it asks for both labels. "
            f"Received: model {model.name!r} compiled with loss={model.loss!r}. "
            "Compile it with loss=..., such as keras.losses.SparseCategoricalCrossentropy()."
        )


def _losses(model: Any) -> list[Any]:
    return [loss for loss in keras.tree.flatten(model.loss) if loss is not None]


def _rank_of_losses(y_pred: Any) -> int:
    """Returns the rank of the unreduced losses: that of the outputs without the classes."""
    ranks = {max(1, len(leaf.shape) - 1) for leaf in keras.tree.flatten(y_pred)}
    if len(ranks) > 1:
        shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten(y_pred)]
        raise ValueError(
            f"`MixUp` and `CutMix` need outputs of one rank. Received: outputs of shape {shapes}."
        )
    return ranks.pop()
