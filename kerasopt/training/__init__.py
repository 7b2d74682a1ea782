"""The one place that touches the compiled train step: sessions, moments and the callback base."""

from kerasopt.training._callback import TrainingCallback
from kerasopt.training._checkpoints import ride_in_checkpoints
from kerasopt.training._optimizer import (
    build_optimizer,
    count_steps,
    is_untouched,
    trim_optimizer,
)
from kerasopt.training._session import Session, session, settle
from kerasopt.training._timeline import Moment, Timeline, check_moment

__all__ = [
    "Moment",
    "Session",
    "Timeline",
    "TrainingCallback",
    "build_optimizer",
    "check_moment",
    "count_steps",
    "is_untouched",
    "ride_in_checkpoints",
    "session",
    "settle",
    "trim_optimizer",
]
