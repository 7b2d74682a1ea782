"""The one layer filter: a regex on name or path, a list of them, or a callable."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kerasopt._backend import keras
from kerasopt._validation import nearest

LayerFilter = str | Sequence[str] | Callable[[Any], bool] | None


def walk_layers(model: Any) -> list[tuple[str, Any]]:
    """Lists `(path, layer)` for every layer of a model, nested models opened, each layer once.

    The path joins the names of the models around a layer: `"backbone/block_1_conv"`.
    """
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()

    def visit(layers: Iterable[Any], prefix: str) -> None:
        for layer in layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            inner = getattr(layer, "layers", None)
            if isinstance(inner, list) and inner:
                visit(inner, f"{prefix}{layer.name}/")
            else:
                found.append((f"{prefix}{layer.name}", layer))

    visit(model.layers, "")
    return found


def select_layers(
    layers: list[tuple[str, Any]], chosen: LayerFilter, *, argument: str = "layers"
) -> list[tuple[str, Any]]:
    """Keeps the layers that a filter chooses, in model order.

    Args:
        layers: what `walk_layers` returned.
        chosen: `None` for all, a regex searched in the layer's path (so that `"block_1"` finds
            all of block 1; anchor with `^` and `$` for one layer), a list of regexes of which
            each must find a layer, or a callable `layer -> bool`.
        argument: the name of the argument, for the error.

    Raises:
        ValueError: a regex is malformed or finds no layer; the nearest names are offered.
        TypeError: the filter is none of the above.
    """
    if chosen is None:
        return layers
    if callable(chosen):
        picked = [(path, layer) for path, layer in layers if chosen(layer)]
        if not picked:
            raise ValueError(
                f"`{argument}` must choose at least one layer. "
                f"Received: {argument}={chosen!r}, which chose none of {len(layers)}."
            )
        return picked
    patterns = [chosen] if isinstance(chosen, str) else list(chosen)
    if not patterns or not all(isinstance(p, str) for p in patterns):
        raise TypeError(
            f"`{argument}` must be a regex, a list of regexes or a callable. "
            f"Received: {argument}={chosen!r}."
        )
    keep: set[int] = set()
    for pattern in patterns:
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"`{argument}` must hold valid regexes ({error}). Received: {argument}={chosen!r}."
            ) from error
        hits = {id(layer) for path, layer in layers if regex.search(path)}
        if not hits:
            hint = nearest(pattern, [path for path, _ in layers])
            raise ValueError(
                f"`{argument}` must choose at least one layer. "
                f"Received: {argument}={pattern!r}. {hint}"
            )
        keep |= hits
    return [(path, layer) for path, layer in layers if id(layer) in keep]


def layers_inside(layer: Any) -> list[Any]:
    """Lists the layers directly inside a layer: `layers` of a model, attributes of any other.

    Keras has no public list of the layers inside a layer (the projections of attention, the cell
    of a recurrent layer), so the attributes are read by their values, whatever their names.
    """
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    found: dict[int, Any] = {}
    for value in vars(layer).values():
        for item in _layers_in(value):
            found.setdefault(id(item), item)
    return list(found.values())


def _layers_in(value: Any) -> Iterable[Any]:
    if isinstance(value, keras.Layer):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _layers_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _layers_in(item)
