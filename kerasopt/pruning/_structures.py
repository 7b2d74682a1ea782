"""Which weights go together: element, block or M:N, from the name that the user gives."""

import dataclasses
import re
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt._validation import check_choice
from kerasopt.pruning._masks import (
    POOLINGS,
    block_counts,
    block_scores,
    keep_largest,
    m_by_n_mask,
    spread_blocks,
)


@dataclasses.dataclass(frozen=True)
class Structure:
    """One way to group the weights of a kernel; kernels are (positions, inputs, outputs) here.

    Attributes:
        name: what the user wrote.
        block: inputs and outputs of a block; (1, 1) is element by element.
        pooling: of the magnitudes in a block.
        m_by_n: zeros in a group and size of the group, or `None`.
    """

    name: str
    block: tuple[int, int] = (1, 1)
    pooling: str = "AVG"
    m_by_n: tuple[int, int] | None = None

    @property
    def fixed_sparsity(self) -> float | None:
        """The sparsity that the pattern itself sets, or `None`."""
        return None if self.m_by_n is None else self.m_by_n[0] / self.m_by_n[1]

    def scores(self, kernel: Any) -> Any:
        """Returns a score for each unit."""
        return (
            tf.abs(kernel)
            if self.block == (1, 1)
            else block_scores(kernel, self.block, self.pooling)
        )

    def spread(self, kept: Any, shape: Any) -> Any:
        """Returns a mask of booleans from the booleans of the units."""
        return kept if self.block == (1, 1) else spread_blocks(kept, self.block, shape)

    def mask(self, kernel: Any, sparsity: float) -> Any:
        """Returns the mask of one kernel, in its dtype."""
        if self.m_by_n is not None:
            return m_by_n_mask(kernel, m=self.m_by_n[0], n=self.m_by_n[1])
        kept = keep_largest(self.scores(kernel), sparsity)
        return tf.cast(self.spread(kept, kernel.shape), kernel.dtype)

    def fits(self, shape: tuple[int, int, int]) -> bool:
        """Tells whether the pattern takes any weight from a kernel of this shape."""
        return self.m_by_n is None or shape[1] > self.m_by_n[1] - self.m_by_n[0]

    def units(self, kernel: np.ndarray) -> tuple[int, int]:
        """Returns how many units there are, and how many of them are zero."""
        if self.block == (1, 1):
            return kernel.size, int(np.sum(kernel == 0))
        height, width = self.block
        positions, inputs, outputs = kernel.shape
        pad = [(0, 0), (0, -inputs % height), (0, -outputs % width)]
        cut = np.pad(kernel != 0, pad)
        cut = cut.reshape(positions, cut.shape[1] // height, height, -1, width)
        used = int(np.sum(cut.any(axis=(2, 4))))
        count = block_counts(kernel.shape, self.block)
        return count, count - used

    def holds(self, kernel: np.ndarray) -> bool:
        """Tells whether a kernel has the M:N pattern."""
        if self.m_by_n is None:
            return True
        zeros, size = self.m_by_n
        groups = np.pad(kernel != 0, [(0, 0), (0, -kernel.shape[1] % size), (0, 0)])
        groups = groups.reshape(len(kernel), -1, size, kernel.shape[2])
        return bool((groups.sum(axis=2) <= size - zeros).all())


def parse_structure(text: Any, pooling: Any = "AVG") -> Structure:
    """Reads `"element"`, `"block:RxC"` or `"M:N"`.

    Raises:
        TypeError: it is not a string.
        ValueError: it is none of these, or its numbers do not fit.
    """
    if not isinstance(text, str):
        raise TypeError(
            '`structure` must be a string: "element", "block:1x4", "2:4". '
            f"Received: structure={text!r}."
        )
    check_choice("block_pooling_type", pooling, POOLINGS)
    if text == "element":
        return Structure(text)
    if found := re.fullmatch(r"block:(\d+)x(\d+)", text):
        block = int(found[1]), int(found[2])
        if 0 in block:
            raise ValueError(
                "A block of `structure` must have at least one row and one column. "
                f"Received: structure={text!r}. TF-MOT's block_size=(1, 4) is 'block:1x4'."
            )
        return Structure(text, block=block, pooling=pooling)
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        zeros, size = int(found[1]), int(found[2])
        if not 0 < zeros < size:
            raise ValueError(
                "`structure` M:N must have M zeros in every N weights, with 0 < M < N. "
                f"Received: structure={text!r}. Half of four is '2:4'."
            )
        return Structure(text, m_by_n=(zeros, size))
    raise ValueError(
        '`structure` must be one of "element", "block:RxC" (rows of inputs, columns of outputs) '
        f'or "M:N" (M zeros in every N inputs). Received: structure={text!r}. '
        'Examples: "block:1x4", "2:4".'
    )
