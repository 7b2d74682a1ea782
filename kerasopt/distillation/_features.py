"""Features of the student that follow features of the teacher."""

from collections.abc import Mapping
from typing import Any

from kerasopt._backend import keras, tf
from kerasopt.distillation._losses import attention_loss
from kerasopt.distillation._photos import resize
from kerasopt.distillation._taps import NamedTaps


class Features:
    """Pairs of layers, and the projections in between where their channels differ.

    The projections train themselves, and nobody but this object has them.

    Args:
        pairs: dict from student's to teacher's layer.
        loss: `"mse"`, `"attention"`, another loss that Keras knows, a `keras.losses.Loss` or a
            function `(teacher_features, student_features) -> number`.
        weight: of the sum of these losses in the total.
    """

    def __init__(self, pairs: Any, loss: Any, weight: float) -> None:
        if not isinstance(pairs, Mapping) or not pairs:
            raise TypeError(
                "`features` must be a dict of layer names, such as "
                f"{{'student_layer': 'teacher_layer'}}. Received: features={pairs!r}."
            )
        self._names = dict(pairs)
        self._attention = isinstance(loss, str) and loss == "attention"
        self._loss = attention_loss if self._attention else _loss(loss)
        self.weight = weight
        self._student: NamedTaps | None = None
        self._projections: list[Projection | None] = []

    @property
    def teacher_names(self) -> list[str]:
        """The teacher's layers, by the names that the user gave."""
        return list(self._names.values())

    @property
    def student_layers(self) -> list[Any]:
        """The student's layers, which need taps."""
        return [] if self._student is None else list(self._student.layers.values())

    def begin(self, model: Any, teacher: Any) -> None:
        """Finds the layers, looks at their shapes and makes the projections."""
        self._student = NamedTaps(model, self._names, "student")
        theirs = teacher.watch(self.teacher_names)
        mine = self._student.shapes()
        self._projections = []
        with model.distribute_strategy.scope():
            for name, other in self._names.items():
                self._projections.append(self._projection(mine[name], theirs[other], name))

    def loss(self, student: dict[int, Any], teacher: dict[str, Any]) -> tuple[Any, list[Any]]:
        """Returns the sum of the losses, and its gradients with respect to the projections."""
        kernels = [None if p is None else p.kernel.read_value() for p in self._projections]
        trained = [kernel for kernel in kernels if kernel is not None]
        pairs = zip(self.student_layers, self.teacher_names, kernels, strict=True)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            losses = [
                self._one(teacher[name], student[id(layer)], kernel)
                for layer, name, kernel in pairs
            ]
            total = tf.add_n(losses)
        return total, tape.gradient(total, trained)

    def learn(self, gradients: list[Any]) -> None:
        """Takes a step with the projections."""
        trained = [projection for projection in self._projections if projection is not None]
        for projection, gradient in zip(trained, gradients, strict=True):
            projection.step(gradient)

    def _projection(self, student: Any, teacher: Any, name: str) -> "Projection | None":
        both = {len(student), len(teacher)}
        if len(both) == 2 and both != {2, 4}:
            raise _no_pair(name, student, teacher)
        if self._attention:
            if both != {4}:
                raise ValueError(
                    "`feature_loss='attention'` needs features of images (batch, height, width, "
                    f"channels). Received: {tuple(student)} of {name!r}, {tuple(teacher)}."
                )
            return None
        if student[-1] == teacher[-1]:
            return None
        return Projection(int(student[-1]), int(teacher[-1]), seed=len(self._projections))

    def _one(self, teacher: Any, student: Any, kernel: Any) -> Any:
        teacher = tf.stop_gradient(tf.cast(teacher, "float32"))
        student = tf.cast(student, "float32")
        if len(teacher.shape) != len(student.shape):  # one of them is pooled
            teacher, student = (
                tf.reduce_mean(v, axis=(1, 2)) if len(v.shape) == 4 else v
                for v in (teacher, student)
            )
        if len(teacher.shape) == 4:
            size = tuple(
                None if None in pair else min(pair)
                for pair in zip(teacher.shape[1:3], student.shape[1:3], strict=True)
            )
            teacher, student = resize(teacher, size), resize(student, size)
        if kernel is not None:
            student = keras.ops.matmul(student, kernel)
        return tf.reduce_mean(self._loss(teacher, student))


class Projection:
    """A matrix from the student's channels to the teacher's, with its own Adam.

    It solves a linear regression, whatever optimizer the student has. Each replica learns its own:
    a second optimizer would need a second exchange of gradients in the step.
    """

    _RATE, _FIRST, _SECOND = 1e-3, 0.9, 0.999

    def __init__(self, student: int, teacher: int, *, seed: int) -> None:
        start = keras.initializers.GlorotUniform(seed=seed)((student, teacher), "float32")
        self.kernel = _local_variable(start)
        self._moments = [_local_variable(tf.zeros_like(start)) for _ in range(2)]
        self._count = _local_variable(tf.constant(0.0))

    def step(self, gradient: Any) -> None:
        """Takes one step of Adam."""
        count = self._count.read_value() + 1.0
        first, second = (moment.read_value() for moment in self._moments)
        first = self._FIRST * first + (1.0 - self._FIRST) * gradient
        second = self._SECOND * second + (1.0 - self._SECOND) * tf.square(gradient)
        self._count.assign(count)
        self._moments[0].assign(first)
        self._moments[1].assign(second)
        mean = first / (1.0 - self._FIRST**count)
        spread = tf.sqrt(second / (1.0 - self._SECOND**count)) + 1e-7
        self.kernel.assign(self.kernel.read_value() - self._RATE * mean / spread)


def _local_variable(value: Any) -> Any:
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.MEAN,
    )


def _loss(loss: Any) -> Any:
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError as error:
            raise ValueError(
                "`feature_loss` must be 'mse', 'attention', a loss of Keras or a function "
                f"(teacher_features, student_features) -> number. Received: feature_loss={loss!r}."
            ) from error
    if not callable(loss):
        raise TypeError(
            "`feature_loss` must be 'mse', 'attention', a loss of Keras or a function "
            f"(teacher_features, student_features) -> number. Received: feature_loss={loss!r}."
        )
    return loss


def _no_pair(name: str, student: Any, teacher: Any) -> ValueError:
    return ValueError(
        "`features` must pair layers whose outputs can be compared: of the same rank, or one of "
        f"images and one pooled. Received: {tuple(student)} of {name!r} and {tuple(teacher)}."
    )
