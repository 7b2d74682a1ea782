"""The cases of `ko.training`."""

import keras

import kerasopt as ko
from tests.cases._case import Case
from tests.models import compiled, small_cnn

TRAINING = (
    Case("training", "Moment", "alias"),
    Case(
        "training",
        "Session",
        "class",
        make=lambda: ko.training.Session(compiled(small_cnn())),
        bad=(
            (
                lambda: ko.training.Session(compiled(small_cnn())).hook(None, "fit", abs, order=0),
                ValueError,
                "`kind` must be one of",
            ),
        ),
    ),
    Case(
        "training",
        "Timeline",
        "result",
        make=lambda: ko.training.Timeline(epochs=2, steps_per_epoch=4),
        bad=(
            (
                lambda: ko.training.Timeline(2, 4).resolve(2, name="start"),
                ValueError,
                "`start` must be an epoch of the planned training",
            ),
        ),
    ),
    Case("training", "TrainingCallback", "class", make=lambda: ko.training.TrainingCallback()),
    Case(
        "training",
        "build_optimizer",
        "function",
        make=lambda: ko.training.build_optimizer(compiled(small_cnn()), []),
    ),
    Case(
        "training",
        "check_moment",
        "function",
        make=lambda: ko.training.check_moment("start", 0.5),
        bad=(
            ({"name": "start", "moment": -0.5}, ValueError, "`start` must be a fraction"),
            ({"name": "start", "moment": True}, TypeError, "`start` must be a fraction"),
        ),
    ),
    Case(
        "training",
        "count_steps",
        "function",
        make=lambda: ko.training.count_steps(keras.optimizers.Adam()),
    ),
    Case(
        "training",
        "is_untouched",
        "function",
        make=lambda: ko.training.is_untouched(keras.optimizers.Adam(), keras.Variable(1.0)),
    ),
    Case(
        "training",
        "ride_in_checkpoints",
        "function",
        make=lambda: ko.training.ride_in_checkpoints(small_cnn(), "state", dict, print),
    ),
    Case(
        "training",
        "session",
        "function",
        make=lambda: ko.training.session(compiled(small_cnn())),
    ),
    Case("training", "settle", "function", make=lambda: ko.training.settle(small_cnn())),
    Case(
        "training",
        "trim_optimizer",
        "function",
        make=lambda: ko.training.trim_optimizer(compiled(small_cnn())),
    ),
)
