"""The ranges of a model as arrays, to go into a checkpoint and come back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers
from kerasopt.quantization._layers import FakeQuantize

_PARTS = ("minimum", "maximum", "seen")


class RangeState:
    """The ranges of one training: those of its quantization-aware graph, and those restored.

    A checkpoint may be read before that graph is there.

    Attributes:
        layers: the ranges that learn, in the order of the graph.
    """

    def __init__(self) -> None:
        self.layers: list[FakeQuantize] = []
        self._restored: dict[str, np.ndarray] = {}

    def attach(self, model: Any) -> None:
        """Names the graph."""
        ranges = [layer for _, layer in walk_layers(model) if isinstance(layer, FakeQuantize)]
        self.layers = [layer for layer in ranges if layer.fixed_range is None]

    def save(self) -> dict[str, np.ndarray]:
        """Returns all ranges, one behind the other."""
        if not self.layers:
            return {}
        return {
            part: np.concatenate(
                [keras.ops.convert_to_numpy(getattr(layer, part)) for layer in self.layers]
            )
            for part in _PARTS
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Keeps what a checkpoint holds, for `restore`."""
        self._restored = dict(state)

    def restore(self) -> bool:
        """Sets the ranges that a checkpoint held; tells whether there were any that had seen data.

        Raises:
            ValueError: the checkpoint is of a training with other ranges.
        """
        state, self._restored = self._restored, {}
        if not state or not state["seen"].any():
            return False
        sizes = [layer.num_sites for layer in self.layers]
        if len(state["seen"]) != sum(sizes):
            raise ValueError(
                "A checkpoint must hold the ranges of the model that is trained. "
                f"Received: {len(state['seen'])} ranges for {sum(sizes)}. "
                "Give QuantizeAware the scheme and layers it had before, or start anew."
            )
        ends = np.cumsum(sizes)[:-1]
        for part in _PARTS:
            for layer, values in zip(self.layers, np.split(state[part], ends), strict=True):
                getattr(layer, part).assign(values)
        return True
