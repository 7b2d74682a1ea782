"""`MixUp` and `CutMix`: two images in one, during `fit`, for any compiled loss.

The hook on `train_step` mixes the images and leaves the labels alone: it hands on the label of
the larger part, which is what the metrics count. The hook on `compute_loss` asks the model's own
loss twice, for either label, with the shares as sample weights.
"""

import random
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._validation import check_int, check_number, loss_not_asked
from kerasopt.augmentation._mixing_loss import Mixed, check_loss
from kerasopt.augmentation._mixing_math import (
    blend,
    draw_beta,
    draw_boxes,
    draw_index,
    draw_partners,
    paste,
)
from kerasopt.training import Moment, TrainingCallback, check_moment

# The step's hook lies outside, so that whatever else looks at a batch sees the mixed images; the
# loss's hook lies inside, so that what others add to the loss is added once.
_STEP_ORDER = 100
_LOSS_ORDER = -100


class Mixing(TrainingCallback):
    """What MixUp and CutMix have in common; a subclass says how to mix.

    The first of them in a `fit` acts for all: it draws one of them for each batch.
    """

    def __init__(
        self, alpha: float, *, probability: float, start: Moment, end: Moment, seed: int | None
    ) -> None:
        super().__init__()
        self.alpha = check_number("alpha", alpha, low=0.0, low_open=True)
        self.probability = check_number(
            "probability", probability, low=0.0, low_open=True, high=1.0
        )
        check_moment("start", start)
        check_moment("end", end)
        if type(start) is type(end) and start >= end:
            raise _empty_window(start, end)
        if seed is not None:
            check_int("seed", seed, low=0)
        self.start = start
        self.seed = seed
        self._end = end  # `end` is what a callback does when training is over
        self._begins = self._ends = 0.0
        self._phase = ""
        self._rate: Any = None
        self._generator: Any = None
        self._mixed: Mixed | None = None

    def begin(self) -> None:
        """Resolves the moments and puts the hooks in place; the rate is a variable of the step."""
        name = type(self).__name__
        check_loss(self.model, name)
        self._begins = self.timeline.resolve(self.start, name="start")
        self._ends = self.timeline.resolve(self._end, name="end")
        first, last = (self.timeline.step_of(p) for p in (self._begins, self._ends))
        if self._begins >= self._ends or (first is not None and first == last):
            raise _empty_window(self.start, self._end)
        self._phase = "before"
        with self.model.distribute_strategy.scope():
            self._rate = tf.Variable(0.0, trainable=False)
            # Like Keras's own seed generators; nothing here is secret.
            self._generator = keras.random.SeedGenerator(
                random.getrandbits(31) if self.seed is None else self.seed
            )
        self.session.hook(self, "train_step", self._around_step, order=_STEP_ORDER)
        self.session.hook(self, "compute_loss", self._around_loss, order=_LOSS_ORDER)
        self.session.retrace()

    def before_batch(self, epoch: int, batch: int) -> None:
        """Switches the rate on and off when the moments come; the step is not traced again."""
        name = type(self).__name__
        if self._phase == "before" and self.timeline.reached(self._begins, epoch, batch):
            self._phase = "on"
            self._rate.assign(self.probability)
            self.mark(
                "other",
                f"{name} until epoch {self._ends:g}; accuracy is of the larger part's label",
            )
        if self._phase == "on" and self.timeline.reached(self._ends, epoch, batch):
            self._phase = "over"
            self._rate.assign(0.0)
            self.mark("other", f"{name} ends")

    def mix(self, images: Any, partners: Any, seed: Any) -> tuple[Any, Any]:
        """Returns the mixed images and the share (batch,) that each kept of its own."""
        raise NotImplementedError

    def check(self, images: Any, labels: Any) -> None:
        """Refuses what cannot be mixed, when the step is traced."""

    def _around_step(self, train_step: Any) -> Any:
        def step(data: Any) -> Any:
            peers = [owner for owner in self.session.owners if isinstance(owner, Mixing)]
            if peers[0] is not self:
                return train_step(data)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            images = _only_image(x, type(self).__name__)
            if y is None:
                raise ValueError(
                    f"`{type(self).__name__}` needs labels to mix. Received: y=None. "
                    "Train on (x, y)."
                )
            for peer in peers:
                peer.check(images, y)
            images, partners, lam = self._draw(images, peers)
            mixed = Mixed(self.model, y, sample_weight, partners, lam)
            self._mixed = mixed
            try:
                logs = train_step(mixed.repack(keras.tree.pack_sequence_as(x, [images])))
            finally:
                self._mixed = None
            if not mixed.used:
                raise loss_not_asked(self, self.model)
            return logs

        return step

    def _around_loss(self, compute_loss: Any) -> Any:
        def loss(
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            **training: Any,
        ) -> Any:
            mixed = self._mixed
            if mixed is None or not training.get("training", True):
                return compute_loss(x, y, y_pred, sample_weight, **training)

            def one(labels: Any, weights: Any) -> Any:
                return compute_loss(x, labels, y_pred, weights, **training)

            return mixed.loss(one, y_pred)

        return loss

    def _draw(self, images: Any, peers: "list[Mixing]") -> tuple[Any, Any, Any]:
        """Draws who acts on this batch, if anyone, and lets it act."""
        count = tf.shape(images)[0]
        seeds = [tf.cast(peer._generator.next(), tf.int32) for peer in peers]
        choice, order = tf.unstack(tf.random.experimental.stateless_split(seeds[0], 2))
        partners = draw_partners(order, count)
        index = draw_index(choice, tf.stack([peer._rate.value() for peer in peers]))

        def untouched() -> tuple[Any, Any]:
            return tf.identity(images), tf.ones([count])

        def acting(peer: "Mixing", seed: Any) -> Any:
            return lambda: peer.mix(
                images, partners, tf.random.experimental.stateless_fold_in(seed, 1)
            )

        branches = [acting(peer, seed) for peer, seed in zip(peers, seeds, strict=True)]
        mixed, lam = tf.switch_case(index, [*branches, untouched])
        return tf.ensure_shape(mixed, images.shape), partners, lam


class MixUp(Mixing):
    """Trains on blends of two images, and on both of their labels.

    Image `i` of a batch gets a partner `j` (a random permutation of the batch) and a share
    `λ ~ Beta(alpha, alpha)`; the model sees `λ·x_i + (1 - λ)·x_j` and the loss is
    `λ·loss(y_i) + (1 - λ)·loss(y_j)`. For a cross-entropy that is the loss of the mixed one-hot
    label; written so, it needs no one-hot labels and holds for every compiled loss. Data and
    model stay as they are.

    The images are mixed as they come in, before an `Augmentation` layer inside the model, which
    then augments the blend. Class weights and sample weights go with their label. Metrics count
    the label with the larger share (`y_i` if `λ >= 1/2`), so the training accuracy is lower than
    that on plain images would be; validation and `evaluate` are not touched.

    `MixUp` and `CutMix` in one `fit`: one of them is drawn for each batch, never both, in
    proportion to their probabilities; where these sum to less than 1, the other batches stay as
    they are. With the defaults each acts on half of the batches.

    Args:
        alpha: float > 0, of the Beta distribution. Small values keep most images close to one
            parent; 1 is uniform. Default 0.2, as for ImageNet in the paper.
        probability: of a batch to be mixed, in (0, 1]. Default 1.0.
        start: moment at which it begins; a float is a fraction of training, an int an epoch.
            Default 0.0.
        end: moment at which it ends. Default 1.0; 0.9 gives the last tenth plain images.
        seed: int >= 0 or `None`. `None` draws one from Python's `random`, which
            `keras.utils.set_random_seed` governs.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range; before the first batch when there is no loss to
            mix or nothing lies between `start` and `end`; at the first batch for data without
            labels, or with more than one input.

    Example:
        >>> MixUp(0.4, end=0.9).alpha
        0.4

    Reference:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412. The authors'
        code draws one λ for a batch; here each image has its own, as in KerasCV.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        *,
        probability: float = 1.0,
        start: Moment = 0.0,
        end: Moment = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(alpha, probability=probability, start=start, end=end, seed=seed)

    def mix(self, images: Any, partners: Any, seed: Any) -> tuple[Any, Any]:
        """Blends each image with its partner."""
        lam = draw_beta(seed, tf.shape(images)[0], self.alpha)
        return blend(images, partners, lam), lam


class CutMix(Mixing):
    """Trains on images with a box from another image, and on both of their labels.

    Image `i` of a batch gets a partner `j` (a random permutation of the batch), a share
    `λ ~ Beta(alpha, alpha)` and a box of `(1 - λ)` of the area and the image's own aspect ratio,
    with its centre anywhere, cut off at the edge. The model sees `x_i` with that box of `x_j`,
    and the loss is `λ·loss(y_i) + (1 - λ)·loss(y_j)` with the λ of the exact area. Everything
    else is as with `MixUp`, which see: labels, weights, metrics, and both in one `fit`.

    Args:
        alpha: float > 0, of the Beta distribution. Default 1.0 (uniform), as in the paper.
        probability: of a batch to be mixed, in (0, 1]. Default 1.0; the paper uses 0.5 on CIFAR.
        start: moment at which it begins; a float is a fraction of training, an int an epoch.
            Default 0.0.
        end: moment at which it ends. Default 1.0; 0.9 gives the last tenth plain images.
        seed: int >= 0 or `None`, see `MixUp`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: as with `MixUp`; at the first batch also for images of another shape than
            `(batch, height, width, channels)`, and for labels of pixels instead of images.

    Example:
        >>> CutMix(probability=0.5, end=0.9).probability
        0.5

    Reference:
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features, arXiv:1905.04899. The authors' code draws one λ and one box for a batch; here
        each image has its own, as in KerasCV.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        probability: float = 1.0,
        start: Moment = 0.0,
        end: Moment = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(alpha, probability=probability, start=start, end=end, seed=seed)

    def mix(self, images: Any, partners: Any, seed: Any) -> tuple[Any, Any]:
        """Pastes a box of its partner into each image."""
        one, two = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        lam = draw_beta(one, tf.shape(images)[0], self.alpha)
        return paste(images, partners, draw_boxes(two, lam, height, width))

    def check(self, images: Any, labels: Any) -> None:
        """Refuses what is no batch of images with a label each."""
        if len(images.shape) != 4 or keras.config.image_data_format() != "channels_last":
            raise ValueError(
                "`CutMix` needs images of shape (batch, height, width, channels). "
                f"Received: shape {tuple(images.shape)}, image_data_format="
                f"{keras.config.image_data_format()!r}. `MixUp` takes inputs of any shape."
            )
        shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten(labels)]
        if any(len(shape) > 2 for shape in shapes):
            raise ValueError(
                "`CutMix` needs a label for each image, (batch,) or (batch, classes). "
                f"Received: labels of shape {shapes}. Use MixUp for labels of pixels."
            )


def _only_image(x: Any, name: str) -> Any:
    leaves = keras.tree.flatten(x)
    if len(leaves) != 1:
        raise ValueError(
            f"`{name}` needs a model with one input. Received: {len(leaves)} inputs. "
            "Mix such data in tf.data."
        )
    return tf.convert_to_tensor(leaves[0])


def _empty_window(start: Moment, end: Moment) -> ValueError:
    return ValueError(
        f"`start` must lie before `end`. Received: start={start!r}, end={end!r}. "
        "A float is a fraction of training, an int an epoch."
    )
