"""One voice for all teachers: the logits that the student is to follow."""

import contextlib
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt.distillation._class_map import ClassMap
from kerasopt.distillation._losses import dist_loss, kl_loss, mse_loss
from kerasopt.distillation._outputs import as_logits
from kerasopt.distillation._targets import CachedTeacher
from kerasopt.distillation._teachers import make_teachers

LOSSES = ("kl", "mse", "dist")


def choose_teachers(
    teacher: Any, targets: Any, kind: str | None, preprocessing: Any, *, ema_momentum: float
) -> list[Any]:
    """Returns live teachers, or those whose outputs stand in files.

    Raises:
        ValueError: both are given, or neither; or as in `make_teachers` and `CachedTeacher`.
    """
    if (teacher is None) == (targets is None):
        raise ValueError(
            "`Distill` needs either `teacher` or `targets`. "
            f"Received: {'none' if teacher is None else 'both'} of them."
        )
    if targets is None:
        return make_teachers(teacher, kind, preprocessing, ema_momentum=ema_momentum)
    paths = targets if isinstance(targets, list | tuple) else [targets]
    return [CachedTeacher(path) for path in paths]


class Panel:
    """Teachers, their weights, their classes, and the loss that compares.

    Args:
        teachers: at least one.
        weights: a number for each, or `None` for equal ones.
        class_map: what the user gave.
        loss: `"kl"`, `"mse"`, `"dist"`, a `keras.distillation.DistillationLoss` or a function
            `(teacher_logits, student_logits) -> number`.
    """

    def __init__(self, teachers: list[Any], weights: Any, class_map: Any, loss: Any) -> None:
        self.teachers = teachers
        self._weights = _checked_weights(weights, len(teachers))
        self._map = ClassMap(class_map)
        self.loss_name = loss if isinstance(loss, str) else None
        self._compare = _checked_loss(loss)
        self._student_kind = "logits"

    def begin(self, model: Any, student_kind: str) -> None:
        """Checks what can be checked before the first batch.

        Raises:
            ValueError: classes do not fit, or probabilities cannot be compared as logits.
        """
        self._student_kind = student_kind
        for teacher in self.teachers:
            if self.loss_name == "mse" and "probabilities" in (teacher.kind, student_kind):
                whose = "teacher" if teacher.kind == "probabilities" else "student"
                name = teacher.name if whose == "teacher" else model.name
                raise ValueError(
                    "`loss='mse'` compares logits, which probabilities do not determine. "
                    f"Received: loss='mse' and probabilities of the {whose} {name!r}. Use "
                    f"loss='kl', or a {whose} without its softmax."
                )
            outputs = getattr(model, "outputs", None)
            if teacher.num_classes is not None and outputs:
                self._check(teacher, teacher.num_classes, int(model.output_shape[-1]))

    def logits(
        self, photo: Any, x: Any, temperature: Any, noting: dict[str, Any] | None
    ) -> tuple[Any, Any]:
        """Returns the logits (batch, classes) to follow, and how many photos no file knew.

        Args:
            photo: what the live teachers see, in the range of the student's input.
            x: what `fit` read, by which stored outputs are found.
            temperature: at which several teachers are averaged.
            noting: a place for the teacher's features, or `None`.
        """
        answers, missing = [], None
        for teacher in self.teachers:
            if isinstance(teacher, CachedTeacher):
                outputs, lost = teacher(x, noting)
                missing = lost if missing is None else missing + lost
            else:
                scope = contextlib.nullcontext() if noting is None else teacher.noting(noting)
                with scope:
                    outputs = teacher(photo)
            if len(outputs.shape) < 2:
                raise ValueError(
                    "`teacher` must return (batch, classes). "
                    f"Received: shape {tuple(outputs.shape)} of {teacher.name!r}."
                )
            answers.append((teacher, tf.stop_gradient(as_logits(outputs, teacher.kind))))
        return self._average(answers, temperature), missing

    def of_student(self, y_pred: Any) -> Any:
        """Returns the student's logits (batch, classes) of the teacher's classes."""
        if keras.tree.is_nested(y_pred):
            raise ValueError(
                "`Distill` needs a student with one output. "
                f"Received: {len(keras.tree.flatten(y_pred))} outputs."
            )
        logits = as_logits(y_pred, self._student_kind)
        self._classes = int(logits.shape[-1])
        return self._map.of_student(logits)

    def compare(self, teacher: Any, student: Any, temperature: Any) -> Any:
        """Returns the soft loss, a float32 scalar."""
        if tuple(teacher.shape[1:]) != tuple(student.shape[1:]):
            raise ValueError(
                "Teacher and student must return outputs of one shape. "
                f"Received: {tuple(teacher.shape)} and {tuple(student.shape)}."
            )
        value = self._compare(teacher, student, temperature)
        return tf.reduce_mean(tf.cast(value, "float32"))

    def _average(self, answers: list[tuple[Any, Any]], temperature: Any) -> Any:
        """Averages softened probabilities, or for the mean squared error the logits."""
        mapped = []
        for teacher, logits in answers:
            self._check(teacher, int(logits.shape[-1]), self._classes)
            mapped.append(self._map.of_teacher(logits))
        if len(mapped) == 1:
            return mapped[0]
        if self.loss_name == "mse":
            return tf.add_n([w * z for w, z in zip(self._weights, mapped, strict=True)])
        terms = [
            float(np.log(w)) + keras.ops.log_softmax(z / temperature)
            for w, z in zip(self._weights, mapped, strict=True)
        ]
        return temperature * keras.ops.logsumexp(keras.ops.stack(terms), axis=0)

    def _check(self, teacher: Any, theirs: int, students: int) -> None:
        self._map.check(max(2, theirs), max(2, students), teacher.name)


def _checked_weights(weights: Any, count: int) -> list[float]:
    if weights is None:
        return [1.0 / count] * count
    valid = isinstance(weights, list | tuple) and len(weights) == count
    if not valid or not all(type(w) in (int, float) and 0 < w < float("inf") for w in weights):
        raise ValueError(
            f"`weights` must be a number > 0 for each of the {count} teachers. "
            f"Received: weights={weights!r}."
        )
    return [float(weight) / sum(weights) for weight in weights]


def _checked_loss(loss: Any) -> Any:
    if isinstance(loss, keras.distillation.DistillationLoss):
        return lambda t, s, temperature: loss.compute_loss(t, s)  # noqa: ARG005
    known = {"kl": kl_loss, "dist": dist_loss, "mse": lambda t, s, temperature: mse_loss(t, s)}  # noqa: ARG005
    if isinstance(loss, str) and loss in known:
        return known[loss]
    if callable(loss):
        return lambda t, s, temperature: loss(t, s)  # noqa: ARG005
    raise ValueError(
        f"`loss` must be one of {', '.join(map(repr, LOSSES))}, a keras.distillation loss or a "
        f"function (teacher_logits, student_logits) -> number. Received: loss={loss!r}."
    )
