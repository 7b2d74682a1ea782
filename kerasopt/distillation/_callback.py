"""`Distill`: a teacher's knowledge for any compiled student, inside `fit`."""

import threading
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt._validation import check_number, loss_not_asked
from kerasopt.distillation._checks import (
    check_photo,
    check_student,
    refuse_mixing,
    unknown_photos,
)
from kerasopt.distillation._features import Features
from kerasopt.distillation._metrics import build_metrics
from kerasopt.distillation._outputs import check_kind, of_student
from kerasopt.distillation._panel import Panel, choose_teachers
from kerasopt.distillation._photos import find_photo
from kerasopt.distillation._schedule import Schedule
from kerasopt.distillation._step import Step
from kerasopt.distillation._taps import Taps
from kerasopt.distillation._targets import CachedTeacher
from kerasopt.distillation._teachers import AverageTeacher
from kerasopt.distillation._unlabelled import Stream
from kerasopt.training import TrainingCallback, count_steps

# Inside MixUp's and CutMix's hook on the step, so that the teacher sees the mixed photo; outside of
# their hook on the loss, so that the teacher is asked once.
_STEP_ORDER = 50
_LOSS_ORDER = 100


class Distill(TrainingCallback):
    """Trains a student on its labels and on what a teacher says of the same photos.

    The student's loss becomes

        (1 − alpha) · hard + alpha · soft + feature_weight · Σ feature losses + regularization

    where `hard` is its own compiled loss, with its class and sample weights, and `soft` compares
    its outputs with the teacher's, for each photo alike:

        "kl"    T² · KL(softmax(z_teacher / T) ‖ softmax(z_student / T))    (`kl_loss`)
        "mse"   mean of (z_teacher − z_student)²                            (`mse_loss`)
        "dist"  one minus correlation, between classes and within them      (`dist_loss`)

    The teacher sees what the student sees: the same photo behind MixUp, CutMix and the
    augmentation layers that stand before the student's first layer with weights, in the range of
    the student's input, resized to the teacher's. It is called in inference mode, outside of the
    gradient, and never changed. The student stays an ordinary model: neither its optimizer nor
    its file knows of the teacher. Validation and `evaluate` see the student's own loss.

    Args:
        teacher: a `keras.Model`, the path of a `.keras` or `.tflite` file, a
            `ko.export.TFLiteModel`, a list of these, whose softened probabilities are averaged, or
            `"ema"`: the student's own moving average. A TFLite file runs on the host, photo by
            photo, and is refused under `jit_compile=True`.
        temperature: T > 0, softens both sides; or a schedule.
        alpha: share of the teacher in [0, 1]; or a schedule. 1.0 needs no labels.
        features: dict from a layer of the student to a layer of the teacher, by name or path.
            Where channels differ a projection is learned along, which nobody keeps.
        loss: `"kl"`, `"mse"`, `"dist"`, a loss of `keras.distillation`, or a function
            `(teacher_logits, student_logits) -> number`.
        class_map: where the classes are others: the teacher's class (or list of classes, which
            add up) for each class of the student, `None` for one that the teacher does not know;
            as a list, or a dict of the known ones. `soft` then compares the known classes.
        weights: of several teachers, each > 0. Default: equal.
        feature_loss: `"mse"`, `"attention"` (`attention_loss`), a loss of Keras, or a function.
        feature_weight: of the features in the loss, >= 0.
        targets: path of a file of `cache_targets`, or a list of paths, in place of `teacher`.
        allow_augmented: bool; whether stored targets may be used with augmentation in the
            student, of which they know nothing.
        unlabelled: a batched `tf.data.Dataset` or an array of photos without labels. A batch of
            it is joined to every batch of `fit`, for the teacher's part of the loss.
        preprocessing: function or layer that makes what the teacher takes of a batch of photos in
            the range of the student's input, such as `keras.layers.Rescaling(1 / 255)`; or a list,
            one for each teacher.
        photo_layer: name of the student's layer whose output is the photo; `"input"` for the
            input. Default: the last augmentation before the first layer with weights.
        teacher_outputs: `"logits"` or `"probabilities"`. Default: read from the last operation.
        student_outputs: likewise.
        ema_momentum: of `"ema"`, in [0, 1); smaller in the first steps.
        verbose: 1 prints what was found out about the teachers.

    A schedule is a dict `{moment: value}`, linear in between, or a function of the fraction of
    training. Moments are fractions (floats) or epochs (ints).

    The history gets `hard_loss`, `soft_loss` and `teacher_agreement`, the fraction of photos on
    which student and teacher choose the same class.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range; before the first batch for a student that is not
            compiled, classes that differ without a map, a map that is none, layers that do not
            exist, outputs of which the graph does not tell what they are, probabilities with
            `loss="mse"`, stored targets with augmentation; at the first batch for photos that the
            teacher cannot take or that the stored targets do not know.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> Distill(teacher, temperature=2.0, alpha={0.0: 0.9, 1.0: 0.5}).loss
        'kl'

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531; Romero et
        al., FitNets, arXiv:1412.6550 (features); Beyer et al., Knowledge distillation: A good
        teacher is patient and consistent, arXiv:2106.05237 (the same photo for both).
    """

    def __init__(
        self,
        teacher: Any = None,
        *,
        temperature: Any = 4.0,
        alpha: Any = 0.5,
        features: Any = None,
        loss: Any = "kl",
        class_map: Any = None,
        weights: Any = None,
        feature_loss: Any = "mse",
        feature_weight: float = 1.0,
        targets: Any = None,
        allow_augmented: bool = False,
        unlabelled: Any = None,
        preprocessing: Any = None,
        photo_layer: str | None = None,
        teacher_outputs: str | None = None,
        student_outputs: str | None = None,
        ema_momentum: float = 0.999,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.loss, self.alpha, self.temperature = loss, alpha, temperature
        self.verbose = verbose
        self._alpha = Schedule("alpha", alpha, low=0.0, high=1.0)
        self._temperature = Schedule("temperature", temperature, low=0.0, low_open=True)
        check_number("feature_weight", feature_weight, low=0.0)
        check_number("ema_momentum", ema_momentum, low=0.0, high=1.0, high_open=True)
        check_kind("teacher_outputs", teacher_outputs)
        check_kind("student_outputs", student_outputs)
        self._student_outputs, self._photo_layer = student_outputs, photo_layer
        self._preprocessed = preprocessing is not None
        self._allow_augmented = allow_augmented
        teachers = choose_teachers(
            teacher, targets, teacher_outputs, preprocessing, ema_momentum=ema_momentum
        )
        self._panel = Panel(teachers, weights, class_map, loss)
        self._features = None
        if features is not None:
            self._features = Features(features, feature_loss, feature_weight)
            self._check_features(teachers)
        self._stream = None if unlabelled is None else Stream(unlabelled)
        self._taps, self._steps = Taps(), threading.local()
        self._trackers: dict[str, Any] = {}
        self._numbers: dict[str, Any] = {}
        self._values: dict[str, float] = {}
        self._idle: tuple[str, ...] = ()
        self._begun, self._seen = False, 0

    def begin(self) -> None:
        """Looks at student and teachers, and puts the hooks in place."""
        model = self.model
        check_student(model, self._panel.teachers, self._alpha.lowest)
        photo = find_photo(model, self._photo_layer)
        check_photo(model, photo, self._panel.teachers, self._allow_augmented, self._preprocessed)
        kind = of_student(model, self._student_outputs)
        self._panel.begin(model, kind)
        for schedule in (self._alpha, self._temperature):
            schedule.begin(self.timeline)
        if self._stream is not None:
            self._stream.begin(model)
        for teacher in self._panel.teachers:
            if isinstance(teacher, AverageTeacher):
                teacher.begin(model, kind)
            elif isinstance(teacher, CachedTeacher):
                teacher.begin()
        if self._features is not None:
            self._features.begin(model, self._panel.teachers[0])
        self._make_variables()
        self._idle = ()
        self._photo, self._begun = photo, False
        tapped = [] if photo.layer is None else [photo.layer]
        tapped += [] if self._features is None else self._features.student_layers
        self.session.on_release(self, self._taps.install(tapped))
        self.session.hook(self, "train_step", self._around_step, order=_STEP_ORDER)
        self.session.hook(self, "compute_loss", self._around_loss, order=_LOSS_ORDER)
        self.session.hook(self, "compute_metrics", self._around_metrics, order=_LOSS_ORDER)
        self.session.retrace()
        for teacher in self._panel.teachers:
            self._tell(f"{teacher.name} teaches, its outputs are {teacher.kind}")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins new means."""
        super().on_epoch_begin(epoch, logs)
        for tracker in self._trackers.values():
            tracker.reset_state()

    def before_batch(self, epoch: int, batch: int) -> None:
        """Moves the schedules on, and brings the next photos without labels."""
        if not self._begun:
            self._begun = True
            refuse_mixing(self.session, self, self._panel.teachers)
            self._seen = count_steps(self.model.optimizer)
            for teacher in self._average:
                teacher.start()  # now, for a checkpoint may have been loaded
        position = self.timeline.position(epoch, batch)
        for name, schedule in (("alpha", self._alpha), ("temperature", self._temperature)):
            value = schedule.at(position, self.timeline.epochs)
            if value != self._values.get(name):
                self._values[name] = value
                self._numbers[name].assign(value)
        if self._stream is not None:
            self._stream.refill()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Moves the student's average, and looks whether the stored targets knew all photos."""
        for teacher in self._average:
            now = count_steps(self.model.optimizer)
            teacher.move(max(1, now - self._seen))
            self._seen = now
        if "missing" in self._trackers:
            missing = int(_number(self._trackers["missing"].result()))
            if missing:
                raise unknown_photos(missing, self._panel.teachers)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Logs `hard_loss`, `soft_loss` and `teacher_agreement`."""
        if logs is None:
            return
        for name in self._idle:
            logs.pop(name, None)
        for name, tracker in self._trackers.items():
            if name != "missing" and _number(tracker.count) > 0:
                logs[name] = _number(tracker.result())

    @property
    def _average(self) -> list[AverageTeacher]:
        return [one for one in self._panel.teachers if isinstance(one, AverageTeacher)]

    # The step

    def _around_step(self, train_step: Any) -> Any:
        def step(data: Any) -> Any:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            state = Step()
            if self._stream is not None:
                x, state.labelled = self._stream.join(x)
            self._steps.current = state
            try:
                with self._taps.noting(state.noted):
                    logs = train_step(keras.utils.pack_x_y_sample_weight(x, y, sample_weight))
            finally:
                self._steps.current = None
            if not state.used:
                raise loss_not_asked(self, self.model)
            if self._features is not None:
                self._features.learn(state.gradients)
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
            state = getattr(self._steps, "current", None)
            if state is None:
                return compute_loss(x, y, y_pred, sample_weight, **training)
            state.used = True
            replicas = _replicas(self.model)
            rest = self._regularization(replicas)
            alpha = self._numbers["alpha"]
            soft = self._soft_loss(state, x, y_pred)
            total = alpha * soft / replicas + rest
            if y is not None:
                hard = compute_loss(
                    state.known(x), y, state.known(y_pred), sample_weight, **training
                )
                hard = tf.cast(hard, "float32") - rest
                total += (1.0 - alpha) * hard
                self._trackers["hard_loss"].update_state(hard * replicas)
            elif self._alpha.lowest != 1.0:
                raise ValueError(
                    "`alpha` must be 1.0 for photos without labels. "
                    f"Received: y=None and alpha={self.alpha!r}. "
                    "Train on (x, y), or with alpha=1.0."
                )
            if self._features is not None:
                extra, state.gradients = self._features.loss(state.noted, state.taught)
                total += self._features.weight * extra / replicas
            return total

        return loss

    def _around_metrics(self, compute_metrics: Any) -> Any:
        def metrics(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            state = getattr(self._steps, "current", None)
            if state is not None and y is None:
                self._idle = self._idle or build_metrics(self.model)
                return self.model.get_metrics_result()  # as they are: there is nothing to count
            if state is None or state.labelled is None:
                return compute_metrics(x, y, y_pred, sample_weight)
            return compute_metrics(state.known(x), y, state.known(y_pred), sample_weight)

        return metrics

    def _soft_loss(self, state: Step, x: Any, y_pred: Any) -> Any:
        """Asks the teachers, compares and counts."""
        temperature = self._numbers["temperature"] + 0.0
        student = self._panel.of_student(y_pred)
        photo = None if "missing" in self._trackers else self._photo_of(state, x)
        with self._taps.noting(None):  # the average runs through the student's layers
            noting = None if self._features is None else state.taught
            teacher, missing = self._panel.logits(photo, x, temperature, noting)
        soft = self._panel.compare(teacher, student, temperature)
        if missing is not None:
            self._trackers["missing"].update_state(missing)
            soft = tf.where(missing > 0, 0.0, soft)  # this step's; the next thing is an error
        self._trackers["soft_loss"].update_state(soft)
        same = tf.argmax(teacher, axis=-1) == tf.argmax(student, axis=-1)
        self._trackers["teacher_agreement"].update_state(tf.cast(same, "float32"))
        return soft

    def _photo_of(self, state: Step, x: Any) -> Any:
        if self._photo.layer is not None:
            if id(self._photo.layer) not in state.noted:
                raise ValueError(
                    "`photo_layer` must be a layer that runs in a training step. Received: "
                    f"{self._photo.layer.name!r}, which did not. Name another, or 'input'."
                )
            return self._photo.raw(state.noted[id(self._photo.layer)])
        leaves = keras.tree.flatten(x)
        if len(leaves) != 1:
            raise ValueError(
                f"`Distill` needs a student with one input. Received: {len(leaves)} inputs."
            )
        return self._photo.raw(tf.convert_to_tensor(leaves[0]))

    def _regularization(self, replicas: int) -> Any:
        """Returns what the loss holds beside the labels' part; alpha leaves it alone."""
        own = type(self.model).compute_loss is not keras.Model.compute_loss
        losses = [] if own else [tf.reduce_sum(tf.cast(v, "float32")) for v in self.model.losses]
        return tf.add_n(losses) / replicas if losses else 0.0

    # Preparations

    def _check_features(self, teachers: list[Any]) -> None:
        if len(teachers) != 1 or not hasattr(teachers[0], "watch"):
            raise ValueError(
                "`features` needs one teacher that is a Keras model, or its stored features. "
                f"Received: {', '.join(repr(one.name) for one in teachers)}."
            )

    def _make_variables(self) -> None:
        stored = any(isinstance(one, CachedTeacher) for one in self._panel.teachers)
        self._values = {}
        with self.model.distribute_strategy.scope():
            self._numbers = {
                name: tf.Variable(1.0, trainable=False) for name in ("alpha", "temperature")
            }
            self._trackers = {
                name: keras.metrics.Mean(name=name)
                for name in ("hard_loss", "soft_loss", "teacher_agreement")
            }
            if stored:
                self._trackers["missing"] = keras.metrics.Sum(name="missing")

    def _tell(self, text: str) -> None:
        self.mark("other", text)
        if self.verbose:
            print(f"\nDistill: {text}")  # noqa: T201


def _replicas(model: Any) -> int:
    return int(model.distribute_strategy.num_replicas_in_sync)


def _number(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))
