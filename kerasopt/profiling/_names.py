"""Which tensor of a file belongs to which layer: the converter keeps the places in the graph."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_MANY = 4
"""A word that more points than this have in both models is no layer, but a model around many."""
_INSIDE = ("batchnorm", "moments")
"""Places inside of a layer, of the same name in all layers of a kind."""


class Points(NamedTuple):
    """Places in a model that are to be paired with those of another model.

    Attributes:
        names: paths of layers, or names of tensors.
        kinds: whatever must be equal for two places to be the same, such as a number of values.
        is_file: whether the names are those of tensors.
    """

    names: Sequence[str]
    kinds: Sequence[object]
    is_file: bool


class _Point(NamedTuple):
    name: str
    words: dict[str, bool]  # whether the word names the operation that ends a fused group
    kind: object


def match_points(first: Points, second: Points) -> list[tuple[int, int]]:
    """Pairs the places of two models by name and kind, in the order of the first.

    Each place of the second goes with the one of the first that shares the rarest words with it,
    those of the operation that ends a fused group before all others. Of several that make parts
    of one layer the last is the layer's.
    """
    best: dict[int, int] = {}
    most = 0.0
    for one in _readings(first):
        for other in _readings(second):
            pairs, total = _match(one, other)
            if total > most:
                best, most = pairs, total
    return sorted(best.items())


def _readings(points: Points) -> list[list[_Point]]:
    """Returns the ways in which the names can be meant, the likelier first.

    A name of a file joins the places that were fused: `m_1/relu_1/Relu;m_1/conv_1/convolution`.
    TensorFlow numbers places that it has met before, so that `dense_1` is the layer `dense`, and
    `dense_1_2` the layer `dense_1`.
    """
    if not points.is_file:
        words = [dict.fromkeys(_layer_words(name), True) for name in points.names]
        return [_points(points, words)]
    words = [_places(name) for name in points.names]
    numbered = [{re.sub(r"_\d+$", "", word): end for word, end in w.items()} for w in words]
    return [_points(points, numbered), _points(points, words)]


def _layer_words(name: str) -> list[str]:
    # The range behind a layer of a quantization-aware model is the layer, rounded.
    return name.removesuffix("_range").split("/")


def _places(name: str) -> dict[str, bool]:
    words: dict[str, bool] = {}
    for index, place in enumerate(part for part in name.split(";") if part):
        for word in place.split("/")[:-1]:
            if word not in _INSIDE:
                words.setdefault(word, index == 0)
    return words


def _points(points: Points, words: Sequence[dict[str, bool]]) -> list[_Point]:
    return [_Point(*each) for each in zip(points.names, words, points.kinds, strict=True)]


def _match(first: Sequence[_Point], second: Sequence[_Point]) -> tuple[dict[int, int], float]:
    counts = [Counter(word for point in side for word in point.words) for side in (first, second)]
    pairs: dict[int, int] = {}
    total = 0.0
    for at, point in enumerate(second):
        scores = [(_score(other, point, counts), index) for index, other in enumerate(first)]
        score, index = max(scores, default=(0.0, -1))
        total += score
        if score > 0.0:
            pairs[index] = at
    return pairs, total


def _score(first: _Point, second: _Point, counts: Sequence[Counter[str]]) -> float:
    if first.kind != second.kind:
        return 0.0
    if first.name == second.name:
        return 200.0
    score = 0.0
    for word, is_end in second.words.items():
        often = [count[word] for count in counts]
        if first.words.get(word) and 0 < min(often) <= _MANY:
            score += (100.0 if is_end else 1.0) / (often[0] * often[1])
    return score
