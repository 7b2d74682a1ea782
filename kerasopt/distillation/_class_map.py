"""From the teacher's classes to the student's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras

_FORM = (
    "`class_map` must give the teacher's class, or classes, for each class of the student: a list "
    "in the order of the student's classes with None for one that the teacher does not know, or a "
    "dict of the known ones."
)


class ClassMap:
    """Which of the teacher's classes stand for which of the student's.

    Args:
        class_map: what the user gave, or `None` for the same classes.

    Raises:
        TypeError: it is neither a dict nor a list, or holds something other than class numbers.
        ValueError: it is empty, or a teacher's class stands for two of the student's.
    """

    def __init__(self, class_map: Any) -> None:
        self._length = None if isinstance(class_map, Mapping | None) else _length(class_map)
        self._groups = {} if class_map is None else _groups(class_map)
        self._given = class_map is not None
        if not self._given:
            return
        if len(self._groups) < 2:
            raise ValueError(
                f"{_FORM} It must name at least two classes. Received: class_map={class_map!r}."
            )
        used = [index for group in self._groups.values() for index in group]
        twice = sorted({index for index in used if used.count(index) > 1})
        if twice:
            raise ValueError(
                "`class_map` must be a map: a class of the teacher stands for one class of the "
                f"student. Received: teacher's class {twice[0]} for "
                f"{[s for s, group in self._groups.items() if twice[0] in group]}."
            )

    def check(self, teacher: int, student: int, name: str) -> None:
        """Refuses a map that does not fit the class counts, or counts that differ without one.

        Raises:
            ValueError: as said.
        """
        if not self._given:
            if teacher != student:
                raise ValueError(
                    "`class_map` is needed where teacher and student have other classes. "
                    f"Received: class_map=None, {teacher} classes of the teacher {name!r} and "
                    f"{student} of the student. List the teacher's class for each of the "
                    "student's, None for one that the teacher does not know."
                )
            return
        if self._length not in (None, student):
            raise ValueError(
                f"`class_map` must have an entry for each of the {student} classes of the "
                f"student. Received: class_map of length {self._length}."
            )
        wrong = [s for s in self._groups if not 0 <= s < student]
        if wrong:
            raise ValueError(
                f"`class_map` must name classes of the student, 0 to {student - 1}. "
                f"Received: class_map with {wrong[0]}."
            )
        unknown = [t for group in self._groups.values() for t in group if not 0 <= t < teacher]
        if unknown:
            raise ValueError(
                f"`class_map` must map to classes of the teacher, 0 to {teacher - 1}. "
                f"Received: class_map with {unknown[0]}."
            )

    def of_teacher(self, logits: Any) -> Any:
        """Returns the teacher's logits of the student's classes; merged ones add up.

        The logit of several classes together is the logarithm of their summed exponentials.
        """
        if not self._given:
            return logits
        groups = list(self._groups.values())
        size = max(map(len, groups))
        index = np.array([[*group, *[group[0]] * (size - len(group))] for group in groups])
        if size == 1:
            return keras.ops.take(logits, index[:, 0], axis=-1)
        absent = np.array([[0.0] * len(g) + [-1e9] * (size - len(g)) for g in groups], "float32")
        return keras.ops.logsumexp(keras.ops.take(logits, index, axis=-1) + absent, axis=-1)

    def of_student(self, logits: Any) -> Any:
        """Returns the student's logits of the classes that the teacher knows."""
        if not self._given or self._length == len(self._groups):
            return logits
        return keras.ops.take(logits, np.array(list(self._groups)), axis=-1)


def _length(class_map: Any) -> int:
    if isinstance(class_map, str | bytes) or not isinstance(class_map, Sequence | np.ndarray):
        raise TypeError(f"{_FORM} Received: class_map={class_map!r}.")
    return len(class_map)


def _groups(class_map: Any) -> dict[int, tuple[int, ...]]:
    pairs = class_map.items() if isinstance(class_map, Mapping) else enumerate(class_map)
    groups = {}
    for student, entry in pairs:
        if entry is None:
            continue
        group = (entry,) if _is_index(entry) else entry
        if (
            not _is_index(student)
            or isinstance(group, str)
            or not isinstance(group, Sequence | np.ndarray)
            or not len(group)
            or not all(map(_is_index, group))
        ):
            raise TypeError(f"{_FORM} Received: class_map with {student!r}: {entry!r}.")
        groups[int(student)] = tuple(int(index) for index in group)
    return groups


def _is_index(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
