"""What belongs to one step of one replica while it is traced."""

from typing import Any

from kerasopt._backend import keras


class Step:
    """The notes of a step.

    Attributes:
        labelled: how many photos of the batch have labels; `None` for all.
        noted: outputs of the student's layers, by their ids.
        taught: outputs of the teacher's layers, by their names.
        gradients: of the projections.
        used: whether the loss was asked for.
    """

    def __init__(self) -> None:
        self.labelled: Any = None
        self.noted: dict[int, Any] = {}
        self.taught: dict[str, Any] = {}
        self.gradients: list[Any] = []
        self.used = False

    def known(self, values: Any) -> Any:
        """Returns the part of a batch that has labels."""
        if self.labelled is None:
            return values
        return keras.tree.map_structure(lambda leaf: leaf[: self.labelled], values)
