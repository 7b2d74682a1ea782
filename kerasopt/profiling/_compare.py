"""Profiles of several models side by side."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from kerasopt._text import one_line, ruled
from kerasopt.profiling._names import Points, match_points
from kerasopt.profiling._profile import profile
from kerasopt.profiling._report import LayerProfile, Profile, kib, short_name


@dataclasses.dataclass(frozen=True)
class ProfileComparison:
    """Profiles of several models side by side; `print` shows two tables.

    Attributes:
        profiles: a `Profile` for each model, by name, in order.
        layers: for each layer or operator of the first model its row and those that belong to it
            in the others, `None` where there is none.
    """

    profiles: dict[str, Profile]
    layers: tuple[tuple[LayerProfile | None, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything in values that JSON holds."""
        return {
            "profiles": {name: found.to_dict() for name, found in self.profiles.items()},
            "layers": [[row and row.name for row in rows] for rows in self.layers],
        }

    def table(self) -> str:
        """Returns totals, then the layers with weights, as aligned text."""
        names = [one_line(name) for name in self.profiles]
        totals = ruled([("", *names), *((what, *cells) for what, cells in self._totals())], texts=1)
        rows = [
            (short_name(row.name), *map(_cell, (row, *others)))
            for row, *others in self.layers
            if row is not None
            and any(each is not None and each.kernel_parameters for each in (row, *others))
        ]
        weights = ruled([("layer: KiB, bits, zeros", *names), *rows], texts=1)
        return "\n".join([*totals, "", *weights])

    def __str__(self) -> str:
        return self.table()

    def _totals(self) -> list[tuple[str, list[str]]]:
        found = list(self.profiles.values())
        return [
            ("layers or operators", [f"{len(p.rows):,}" for p in found]),
            ("parameters", [f"{p.parameters:,}" for p in found]),
            ("zeros in kernels", [f"{p.sparsity:.1%}" for p in found]),
            ("KiB of weights", _shares([p.bytes for p in found])),
            ("KiB of the file", _shares([p.file_bytes for p in found])),
            ("MMACs", [f"{p.macs / 1e6:,.2f}" for p in found]),
            ("KiB of activations at the peak", _shares([p.peak_bytes for p in found])),
        ]


def compare(models: Any) -> ProfileComparison:
    """Profiles several models or files and sets them side by side.

    Layers and operators are paired with those of the first model by name: the converter keeps the
    names of layers, and joins those that it fuses.

    Args:
        models: two models or more, each as `profile` takes it, in a list or in a dict by the
            names that the table shows.

    Returns:
        A `ProfileComparison`.

    Raises:
        TypeError: `models` is neither a list nor a dict, or holds something else.
        ValueError: there are fewer than two, or one cannot be profiled.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras
        >>> wide, slim = (
        ...     keras.Sequential([keras.Input((8,)), keras.layers.Dense(n, name="logits")])
        ...     for n in (4, 2)
        ... )
        >>> side_by_side = compare({"wide": wide, "slim": slim})
        >>> [report.parameters for report in side_by_side.profiles.values()]
        [36, 18]
    """
    if isinstance(models, Mapping):
        named = {str(name): profile(model) for name, model in models.items()}
    elif isinstance(models, list | tuple):
        named = {}
        for model in models:
            found = profile(model)
            name = os.path.basename(found.source)
            named[name if name not in named else f"{name} ({len(named) + 1})"] = found
    else:
        raise TypeError(
            "`models` must be a list of models and files, or a dict of them by name. "
            f"Received: models of type {type(models).__name__}. For one, use profile(model)."
        )
    if len(named) < 2:
        raise ValueError(
            f"`models` must hold two models or more. Received: {len(named)}. "
            "For one, use profile(model)."
        )
    return ProfileComparison(named, _paired(list(named.values())))


def _paired(profiles: list[Profile]) -> tuple[tuple[LayerProfile | None, ...], ...]:
    first, *others = profiles
    columns = []
    for other in others:
        pairs = dict(match_points(_points(first), _points(other)))
        last, others_last = _last_kernel(first), _last_kernel(other)
        # The converter gives the output of a model a name of its own.
        if None not in (last, others_last) and others_last not in pairs.values():
            pairs.setdefault(last, others_last)  # type: ignore[arg-type]
        columns.append([pairs.get(index) for index in range(len(first.rows))])
    return tuple(
        (
            row,
            *(
                None if (at := column[index]) is None else other.rows[at]
                for other, column in zip(others, columns, strict=True)
            ),
        )
        for index, row in enumerate(first.rows)
    )


def _last_kernel(report: Profile) -> int | None:
    return max((i for i, row in enumerate(report.rows) if row.kernel_parameters), default=None)


def _points(report: Profile) -> Points:
    """Those with a kernel go with each other: of a convolution and its ReLU the convolution."""
    names = [row.name for row in report.rows]
    kinds = [int(row.kernel_parameters > 0) for row in report.rows]
    is_file = bool(report.rows) and all(row.kind.isupper() for row in report.rows)
    return Points(names, kinds, is_file)


def _cell(row: LayerProfile | None) -> str:
    if row is None:
        return ""
    if not row.kernel_parameters:
        return kib(row.bytes)
    return f"{kib(row.bytes)}, {row.num_bits}, {row.sparsity:.0%}"


def _shares(sizes: list[int | None]) -> list[str]:
    """KiB, with the share of the first."""
    first = sizes[0]
    cells = []
    for index, size in enumerate(sizes):
        share = f" ({size / first:.0%})" if index and size and first else ""
        cells.append("?" if size is None else f"{size / 1024:,.1f}{share}")
    return cells
