"""Where the names of points stand in a plot, so that none covers another at any width."""

from collections.abc import Sequence
from typing import NamedTuple

# The plot's sizes in pixels, from a phone of 320 to the widest column, and those of its text.
_WIDTHS = (200.0, 260.0, 360.0, 500.0, 800.0, 1060.0)
_HEIGHTS = (210.0, 250.0)
_CHARACTER, _LINE = 7.2, 16.0
_DOT, _GAP, _MARGIN = 6.0, 10.0, 8.0
_MOST_TRIED = 12  # points for which more than one order is tried
# Above a point of the front nothing is drawn.
_SIDES = ("above", "right", "below", "left", "above-left", "above-right")


class Spot(NamedTuple):
    """A point in percent of the plot from its top left corner, and the name that it wants."""

    x: float
    y: float
    label: str


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def place_labels(spots: Sequence[Spot]) -> list[str]:
    """Returns the side of each point on which its name stands, `""` where there is no room.

    The first points choose first, unless another order leaves room for more names. A name covers
    no other name and no point.

    >>> place_labels([Spot(50, 50, "int8"), Spot(51, 50, "float32")])
    ['above', 'right']
    """
    best = _place(spots, range(len(spots)))
    for first in range(len(spots)):  # another one may leave room for more
        if all(best) or len(spots) > _MOST_TRIED:
            break
        order = [first, *(i for i in range(len(spots)) if i != first)]
        best = max(best, _place(spots, order), key=lambda sides: sum(map(bool, sides)))
    return best


def _place(spots: Sequence[Spot], order: Sequence[int]) -> list[str]:
    chosen: dict[int, str] = {}
    for index in order:
        others = [*spots[:index], *spots[index + 1 :]]
        placed = [(spots[i], side) for i, side in chosen.items() if side]
        free = (side for side in _SIDES if _is_free(spots[index], side, placed, others))
        chosen[index] = next(free, "")
    return [chosen[index] for index in range(len(spots))]


def _is_free(
    spot: Spot, side: str, placed: Sequence[tuple[Spot, str]], others: Sequence[Spot]
) -> bool:
    for width in _WIDTHS:
        for height in _HEIGHTS:
            box = _label_box(spot, side, width, height)
            inside = box.left >= 0 and box.right <= width + _MARGIN
            if not inside or box.top < -2 * _LINE or box.bottom > height:
                return False
            taken = [_label_box(other, where, width, height) for other, where in placed]
            taken += [_dot_box(other, width, height) for other in others]
            if any(box.meets(other) for other in taken):
                return False
    return True


def _dot_box(spot: Spot, width: float, height: float) -> _Box:
    x, y = spot.x / 100 * width, spot.y / 100 * height
    return _Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT)


def _label_box(spot: Spot, side: str, width: float, height: float) -> _Box:
    x, y = spot.x / 100 * width, spot.y / 100 * height
    wide = _CHARACTER * len(spot.label)
    if side in ("right", "left"):
        left = x + _GAP if side == "right" else x - _GAP - wide
        return _Box(left, y - _LINE / 2, left + wide, y + _LINE / 2)
    top = y + _GAP if side == "below" else y - _GAP - _LINE
    shift = {"above-left": _DOT - wide, "above-right": -_DOT}.get(side, -wide / 2)
    return _Box(x + shift, top, x + shift + wide, top + _LINE)
