"""What single layers return while a step is traced."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from kerasopt._layer_filter import walk_layers
from kerasopt._validation import nearest

_UNKNOWN_SIZE = 64
"""Of the empty photo, in pixels, where a model takes any size."""


class Taps:
    """Notes the outputs of layers, for the one who asks while a model is called.

    A tap is an instance attribute over `layer.call` that hands on what the layer returns. Replicas
    are traced in threads of their own, which take turns, so each notes in a place of its own.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def install(self, layers: Iterable[Any]) -> Callable[[], None]:
        """Puts taps on layers and returns the function that takes them off."""
        undo = [self._tap(layer) for layer in {id(layer): layer for layer in layers}.values()]

        def remove() -> None:
            for step in reversed(undo):
                step()

        return remove

    @contextlib.contextmanager
    def noting(self, store: dict[int, Any] | None) -> Iterator[None]:
        """Notes outputs in `store`, by the ids of the layers; `None` notes nothing."""
        before = getattr(self._local, "store", None)
        self._local.store = store
        try:
            yield
        finally:
            self._local.store = before

    def _tap(self, layer: Any) -> Callable[[], None]:
        attributes = vars(layer)
        previous, call = attributes.get("call"), layer.call

        def tapped(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            store = getattr(self._local, "store", None)
            if store is not None:
                store[id(layer)] = outputs
            return outputs

        def undo() -> None:
            if attributes.get("call") is tapped:
                attributes.pop("call")
                if previous is not None:
                    attributes["call"] = previous

        attributes["call"] = tapped
        return undo


class NamedTaps:
    """Features of a model, by the names that the user gave its layers.

    Args:
        model: the model.
        names: names or paths of layers.
        whose: `"student"` or `"teacher"`, for errors.
    """

    def __init__(self, model: Any, names: Iterable[str], whose: str) -> None:
        self._model = model
        self.layers = {name: find_layer(model, name, whose) for name in names}
        self._taps = Taps()

    @contextlib.contextmanager
    def noting(self, store: dict[str, Any]) -> Iterator[None]:
        """Notes the features while the model is called; its layers are bare before and after."""
        found: dict[int, Any] = {}
        remove = self._taps.install(self.layers.values())
        try:
            with self._taps.noting(found):
                yield
        finally:
            remove()
        store.update({name: found[id(layer)] for name, layer in self.layers.items()})

    def shapes(self) -> dict[str, Any]:
        """Returns the shapes of the features of one empty photo."""
        inputs = getattr(self._model, "inputs", None)
        if not inputs:
            raise ValueError(
                "`features` needs models whose input shape is known. Received: subclassed model "
                f"{self._model.name!r}. Build it from keras.Input and layers."
            )
        sizes = [size or _UNKNOWN_SIZE for size in inputs[0].shape[1:]]
        store: dict[str, Any] = {}
        with self.noting(store):
            self._model(np.zeros([1, *sizes], inputs[0].dtype), training=False)
        return {name: features.shape for name, features in store.items()}


def find_layer(model: Any, name: Any, whose: str) -> Any:
    """Returns the layer of a name or path, nested models included.

    Raises:
        TypeError: the name is no string.
        ValueError: there is no such layer; the nearest names are offered.
    """
    if not isinstance(name, str):
        raise TypeError(
            "`features` must be a dict of layer names, such as {'student_layer': 'teacher_layer'}. "
            f"Received: {name!r}."
        )
    known = {layer.name: layer for layer in model.layers}
    for path, layer in walk_layers(model):
        known.setdefault(layer.name, layer)
        known[path] = layer
    if name not in known:
        raise ValueError(
            f"`features` must name layers of the {whose} {model.name!r}. "
            f"Received: {name!r}. {nearest(name, known)}"
        )
    return known[name]
