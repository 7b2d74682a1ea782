"""What `diff` finds, as values, JSON and text."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kerasopt.profiling._report import short_name

_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """A layer or operator in two models, on the same inputs.

    Attributes:
        name: of the layer or tensor in the first model.
        other: in the second.
        relative_error: root of the mean squared difference over that of the first model's values;
            0 for equal ones, infinite where one is not finite.
        max_error: largest difference of a value.
        cosine: cosine between the values of both, 1 for the same direction.
    """

    name: str
    other: str
    relative_error: float
    max_error: float
    cosine: float


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An input for which two models choose different classes.

    Attributes:
        index: number of the input in the data.
        classes: chosen by the first and the second model.
        confidences: probability that each gives to its class.
        label: the true class, or `None`.
        photo: path of the photo, or `None` for arrays.
    """

    index: int
    classes: tuple[int, int]
    confidences: tuple[float, float]
    label: int | None = None
    photo: str | None = None


@dataclasses.dataclass(frozen=True)
class ModelDiff:
    """Where two models part; `print` shows a table.

    Attributes:
        names: of the two.
        samples: inputs that both have classified.
        layer_samples: inputs on which the layers were compared.
        layers: a `LayerDifference` for each pair of layers, in the order of the first model; the
            layer that makes the output is not among them.
        output: the same for the outputs, on all inputs.
        disagreements: a `Disagreement` for each input with different classes.
        tolerance: the relative error from which a layer counts as parted.
        accuracy: of the two, or `None` without labels.
        class_names: names of the classes, or `None`.
    """

    names: tuple[str, str]
    samples: int
    layer_samples: int
    layers: tuple[LayerDifference, ...]
    output: LayerDifference
    disagreements: tuple[Disagreement, ...]
    tolerance: float
    accuracy: tuple[float, float] | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def agreement(self) -> float:
        """Fraction of the inputs with the same class, 0-1."""
        return 1.0 - len(self.disagreements) / self.samples

    @property
    def parting(self) -> LayerDifference | None:
        """The first layer whose relative error is above the tolerance, or `None`."""
        return next((layer for layer in self.layers if layer.relative_error > self.tolerance), None)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything in values that JSON holds; an infinite error is `None`."""
        parting = self.parting
        found = dataclasses.asdict(self)
        found["layers"] = [_finite(layer) for layer in found["layers"]]
        found["output"] = _finite(found["output"])
        found["agreement"] = self.agreement
        found["parting"] = None if parting is None else parting.name
        return found

    def table(self) -> str:
        """Returns layers and disagreements as aligned text."""
        first, second = self.names
        headings = ("layer", f"in {second}", "rel. error", "max error", "cosine")
        rows = [headings, *map(_cells, (*self.layers, self.output))]
        heading = (
            f"{first} beside {second}: {self.samples} inputs, {self.agreement:.2%} of the same "
            f"class; layers on {self.layer_samples} of them"
        )
        lines = [
            heading,
            "",
            *_aligned(rows, left=2),
            "",
            self._verdict(),
        ]
        if self.accuracy is not None:
            lines.append(f"Accuracy: {self.accuracy[0]:.2%} and {self.accuracy[1]:.2%}.")
        if self.disagreements:
            lines += ["", *self._disagreements()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def _verdict(self) -> str:
        parting = self.parting
        if not self.layers:
            return "No layer has a name and a size in common: only the outputs were compared."
        if parting is None:
            return f"No layer differs by a relative error of more than {self.tolerance:g}."
        return (
            f"They part at {short_name(parting.name)}: the first layer with a relative error of "
            f"more than {self.tolerance:g}."
        )

    def _disagreements(self) -> list[str]:
        rows: list[tuple[str, ...]] = [("input", *self.names, "label")]
        for each in self.disagreements[:_SHOWN]:
            chosen = [
                f"{self._class(index)} {confidence:.0%}"
                for index, confidence in zip(each.classes, each.confidences, strict=True)
            ]
            label = "" if each.label is None else self._class(each.label)
            rows.append((each.photo or str(each.index), *chosen, label))
        more = len(self.disagreements) - _SHOWN
        return [*_aligned(rows, left=1), *([f"and {more} more"] if more > 0 else [])]

    def _class(self, index: int) -> str:
        names = self.class_names
        return names[index] if names is not None and index < len(names) else str(index)


def _finite(layer: dict[str, Any]) -> dict[str, Any]:
    return {k: None if v in (float("inf"),) else v for k, v in layer.items()}


def _cells(layer: LayerDifference) -> tuple[str, ...]:
    numbers = f"{layer.relative_error:.4f}", f"{layer.max_error:.4g}", f"{layer.cosine:.4f}"
    return short_name(layer.name), short_name(layer.other), *numbers


def _aligned(rows: Sequence[tuple[str, ...]], *, left: int) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
