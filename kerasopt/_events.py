"""A moment of the training, as callbacks note it and reports draw it."""

from dataclasses import dataclass

from kerasopt._validation import check_choice, check_number

EVENT_KINDS = ("unfreeze", "freeze", "average", "prune", "quantize", "other")


@dataclass(frozen=True)
class Event:
    """A moment of the training, marked in the learning curves.

    Args:
        epoch: Float >= 0, position on the epoch axis; `0.0` is the start of the first epoch and
            `1.0` its end.
        kind: `"unfreeze"`, `"freeze"`, `"average"`, `"prune"`, `"quantize"` or `"other"`; gives the
            colour.
        label: What happened, such as `"block_6 and up unfrozen"`.

    Raises:
        ValueError: The epoch is negative or not finite, or the kind is unknown.
    """

    epoch: float
    kind: str
    label: str

    def __post_init__(self) -> None:
        check_number("epoch", self.epoch, low=0.0)
        check_choice("kind", self.kind, EVENT_KINDS)
