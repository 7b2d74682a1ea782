"""The report: one row per layer or operator, totals, a table."""

import dataclasses
from typing import Any

from kerasopt._text import one_line, ruled

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """The numbers of one layer of a Keras model, or of one operator of a TFLite file.

    Zeros and distinct values are those of the kernels: weights of rank 2 and more. A bias of
    zeros, or a fresh BatchNormalization, does not make a layer sparse.

    Attributes:
        name: path of the layer, or name of the operator's output tensor.
        kind: class of the layer, or name of the operator.
        output_shape: shape of the (first) output with the batch, `None` where unknown.
        dtype: dtype of the output.
        parameters: number of weights, biases and statistics included.
        kernel_parameters: number of weights in kernels.
        zeros: number of kernel weights that are exactly zero; of a quantized kernel, those that
            stand for zero.
        distinct: number of distinct values in the kernels, 0 without kernels.
        num_bits: bits of one kernel weight as it is stored, 0 without weights.
        bytes: bytes of the weights as they are stored.
        macs: multiply-accumulate operations for one image, all calls of the layer together;
            `None` if a size is unknown.
        activation_bytes: bytes of its outputs for one image; `None` if a size is unknown.
        live_bytes: bytes of all activations that are needed while it runs: its inputs and outputs,
            and what later layers wait for; `None` if a size is unknown.
    """

    name: str
    kind: str
    output_shape: Shape | None
    dtype: str
    parameters: int
    kernel_parameters: int
    zeros: int
    distinct: int
    num_bits: int
    bytes: int
    macs: int | None
    activation_bytes: int | None = None
    live_bytes: int | None = None

    @property
    def sparsity(self) -> float:
        """Fraction of the kernel weights that are zero, 0–1."""
        return self.zeros / self.kernel_parameters if self.kernel_parameters else 0.0


@dataclasses.dataclass(frozen=True)
class Profile:
    """The numbers of a model: rows, totals, and a table of them when printed.

    What several layers share is counted once, with the first of them, so totals are sums.

    Attributes:
        source: what was read: name of the model or path of the file.
        rows: a `LayerProfile` per layer or operator, in order.
        file_bytes: size of the file, `None` for a model in memory.
        notes: sentences on what could not be counted.
    """

    source: str
    rows: tuple[LayerProfile, ...]
    file_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of weights, biases and statistics included."""
        return sum(row.parameters for row in self.rows)

    @property
    def kernel_parameters(self) -> int:
        """Number of weights in kernels: weights of rank 2 and more."""
        return sum(row.kernel_parameters for row in self.rows)

    @property
    def zeros(self) -> int:
        """Number of kernel weights that are zero."""
        return sum(row.zeros for row in self.rows)

    @property
    def sparsity(self) -> float:
        """Fraction of the kernel weights that are zero, 0–1."""
        return self.zeros / self.kernel_parameters if self.kernel_parameters else 0.0

    @property
    def bytes(self) -> int:
        """Bytes of the weights as they are stored."""
        return sum(row.bytes for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one image, as far as they are known."""
        return sum(row.macs or 0 for row in self.rows)

    @property
    def peak_bytes(self) -> int | None:
        """Most bytes of activations that live at once, `None` where unknown.

        For a file it is what a phone needs beside the weights; for a Keras model nothing is fused.
        """
        return max((row.live_bytes or 0 for row in self.rows), default=0) or None

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, totals included, in values that JSON holds."""
        rows = []
        for row in self.rows:
            shape = None if row.output_shape is None else list(row.output_shape)
            values = {**dataclasses.asdict(row), "output_shape": shape, "sparsity": row.sparsity}
            rows.append(values)
        totals = (
            "parameters",
            "kernel_parameters",
            "zeros",
            "sparsity",
            "bytes",
            "macs",
            "peak_bytes",
        )
        return {
            "source": self.source,
            "file_bytes": self.file_bytes,
            **{name: getattr(self, name) for name in totals},
            "notes": list(self.notes),
            "rows": rows,
        }

    def table(self) -> str:
        """Returns the rows and totals as aligned text, without colours."""
        lines = [one_line(self.source, 200), "", *_aligned(self)]
        if self.file_bytes is not None:
            lines.append(f"File: {self.file_bytes:,} bytes.")
        return "\n".join([*lines, *self.notes])

    def __str__(self) -> str:
        return self.table()


_LONGEST_NAME = 48
_COLUMNS = (
    "layer",
    "kind",
    "output",
    "dtype",
    "params",
    "zeros",
    "sparsity",
    "distinct",
    "bits",
    "KiB",
    "MMACs",
    "out KiB",
    "live KiB",
)


def _aligned(profile: Profile) -> list[str]:
    total = (
        "total",
        "",
        "",
        "",
        f"{profile.parameters:,}",
        f"{profile.zeros:,}",
        f"{profile.sparsity:.1%}",
        "",
        "",
        f"{profile.bytes / 1024:,.1f}",
        f"{profile.macs / 1e6:,.2f}",
        "",
        kib(profile.peak_bytes),
    )
    rows = [(*_texts(row), *_numbers(row)) for row in profile.rows]
    *lines, last = ruled([_COLUMNS, *rows, total], texts=4)
    return [*lines, "", last, ""]


def _texts(row: LayerProfile) -> tuple[str, str, str, str]:
    shape, dtype = one_line(_shape(row.output_shape)), one_line(row.dtype)
    return short_name(row.name), one_line(row.kind), shape, dtype


def short_name(name: str) -> str:
    """Shortens the names of TFLite tensors, which join what was fused with `;`."""
    first = name.split(";")[0]
    if first != name or len(first) > _LONGEST_NAME:
        parts = first.split("/")
        first = "/".join(parts[-3 if parts[-2:-1] == ["batchnorm"] else -2 :])
    return one_line(first, _LONGEST_NAME)


def _numbers(row: LayerProfile) -> list[str]:
    """The numbers of a row; what a layer does not have stays blank."""
    has_kernel = row.kernel_parameters > 0
    macs = "?" if row.macs is None else f"{row.macs / 1e6:,.2f}" if row.macs else ""
    return [
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.zeros:,}" if has_kernel else "",
        f"{row.sparsity:.1%}" if has_kernel else "",
        f"{row.distinct:,}" if has_kernel else "",
        str(row.num_bits) if row.num_bits else "",
        f"{row.bytes / 1024:,.1f}" if row.bytes else "",
        macs,
        kib(row.activation_bytes),
        kib(row.live_bytes),
    ]


def kib(size: int | None) -> str:
    """Returns a size in KiB; nothing for none."""
    return f"{size / 1024:,.1f}" if size else ""


def _shape(shape: Shape | None) -> str:
    if shape is None:
        return ""
    return "×".join("?" if size is None else str(size) for size in shape)
