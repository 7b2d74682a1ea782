"""Heads: from feature maps to logits, and how a saved model knows its own again."""

import types
from collections.abc import Sequence
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers
from kerasopt._validation import check_choice, check_int, check_number
from kerasopt.transfer._graph import (
    CannotCopyError,
    GraphCopier,
    first_line,
    is_graph,
    plain_names,
)

HEADS = ("features", "gap", "fc")
DEFAULT_UNITS = (256,)
DEFAULT_DROPOUT = 0.2

# The first layer's name is how a saved model knows its head again, and which kind of head it is.
FEATURES_POOL = "head_features_pool"
_POOL, _INPUT, _LOGITS = "head_pool", "head_input", "logits"
_MARKS = (FEATURES_POOL, _POOL, _INPUT)


def find_mark(names: Sequence[str]) -> int | None:
    """Returns where the head of `build_classifier` begins among the names of a model's layers."""
    found = [names.index(mark) for mark in _MARKS if mark in names]
    return found[0] if found and _LOGITS in names else None


class Head:
    """A checked head, which puts its layers behind feature maps.

    Args:
        head: `"features"`, `"gap"`, `"fc"`, or a layer or a list of layers.
        num_classes: the number of logits.
        fc_units: units of the dense layers of `"fc"`.
        dropout: fraction of features dropped before the logits and behind each dense layer.
    """

    def __init__(self, head: Any, num_classes: int, fc_units: Any, dropout: float) -> None:
        check_int("num_classes", num_classes, low=2)
        check_number("dropout", dropout, low=0.0, high=1.0, high_open=True)
        self.freezes = head == "features"
        self._num_classes = num_classes
        self._dropout = dropout
        self._units = _check_units(fc_units, head)
        self._layers: list[Any] = []
        if isinstance(head, str):
            check_choice("head", head, HEADS)
        else:
            self._layers = _flat(_check_layers(head))
            _check_left_alone(dropout)
        self._ends_in_logits = bool(self._layers) and _is_logits(_last(self._layers), num_classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names that the backbone's layers may not have."""
        numbered = (*self._numbered("dense"), *self._numbered("dropout"))
        return (*_MARKS, _LOGITS, "head_dropout", *numbered)

    def __call__(self, features: Any, copier: GraphCopier, image: Any) -> Any:
        """Returns the logits of feature maps; `copier` copied the backbone behind `image`."""
        if self._layers:
            x = self._own(features, copier, image)
            if self._ends_in_logits:
                return x
        else:
            x = self._named(features)
        # Logits in the variables' dtype: under mixed precision the loss must not see float16.
        dtype = keras.config.dtype_policy().variable_dtype
        return keras.layers.Dense(self._num_classes, name=_LOGITS, dtype=dtype)(x)

    def _named(self, x: Any) -> Any:
        pool = FEATURES_POOL if self.freezes else _POOL
        x = keras.layers.GlobalAveragePooling2D(name=pool)(x)
        names = zip(self._numbered("dense"), self._numbered("dropout"), strict=True)
        for units, (dense, dropout) in zip(self._units, names, strict=True):
            x = keras.layers.Dense(units, activation="relu", name=dense)(x)
            if self._dropout:
                x = keras.layers.Dropout(self._dropout, name=dropout)(x)
        if self._dropout and not self._units:
            x = keras.layers.Dropout(self._dropout, name="head_dropout")(x)
        return x

    def _numbered(self, kind: str) -> list[str]:
        return [f"head_{kind}_{n}" if n else f"head_{kind}" for n in range(len(self._units))]

    def _own(self, features: Any, copier: GraphCopier, image: Any) -> Any:
        inside = [layer for _, layer in walk_layers(types.SimpleNamespace(layers=self._layers))]
        names = plain_names(inside, "head_").items()
        changes: dict[int, dict[str, Any]] = {key: {"name": name} for key, name in names}
        # What was kept free of the backbone's names is free for these layers.
        taken = {*(copier.taken - set(self.names)), *_MARKS, _LOGITS}
        if self._ends_in_logits:
            last = _last(self._layers)
            changes[id(last)] = {"name": _LOGITS, "dtype": last.variable_dtype}
            taken.remove(_LOGITS)
        head = GraphCopier(image, taken, argument="head", changes=changes)
        x = keras.layers.Identity(name=_INPUT)(features)
        for layer in self._layers:
            x = _behind(x, layer, head)
        shape: tuple[int | None, ...] = tuple(getattr(x, "shape", ()))
        if len(shape) == 2 and shape[-1] is not None:
            return x
        raise ValueError(
            "`head` must turn feature maps into features of shape (batch, features). Received: "
            f"layers that return {_shapes(x)}. Put keras.layers.GlobalAveragePooling2D() or "
            "keras.layers.Flatten() into it (Flatten needs a fixed `input_shape`)."
        )


def _behind(x: Any, layer: Any, head: GraphCopier) -> Any:
    try:
        return head(layer, x)
    except CannotCopyError:
        raise
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`head` must be layers of which each takes what the one before it returns "
            f"({first_line(error)}). Received: {type(layer).__name__} {layer.name!r} behind "
            f"{_shapes(x)}. The first one gets the feature maps."
        ) from error


def _check_units(fc_units: Any, head: Any) -> tuple[int, ...]:
    if not isinstance(fc_units, tuple | list) or not fc_units:
        raise TypeError(
            "`fc_units` must be a tuple with the units of each dense layer, such as (512, 256). "
            f"Received: fc_units={fc_units!r}."
        )
    for units in fc_units:
        check_int("fc_units", units, low=1)
    if head != "fc" and tuple(fc_units) != DEFAULT_UNITS:
        raise ValueError(
            "`fc_units` must be left alone unless head='fc', the head that has dense layers. "
            f"Received: fc_units={fc_units!r}."
        )
    return tuple(fc_units) if head == "fc" else ()


def _check_left_alone(dropout: float) -> None:
    if dropout not in (0, DEFAULT_DROPOUT):
        raise ValueError(
            "`dropout` must be left alone when `head` is your own layers, to which none is added. "
            f"Received: dropout={dropout!r}. Put keras.layers.Dropout({dropout!r}) into `head`."
        )


def _check_layers(head: Any) -> list[Any]:
    layers = list(head) if isinstance(head, tuple | list) else [head]
    if layers and all(isinstance(layer, keras.layers.Layer) for layer in layers):
        return layers
    raise TypeError(
        "`head` must be 'features', 'gap', 'fc', a Keras layer or a list of Keras layers. "
        f"Received: head={head!r}."
    )


def _flat(layers: Sequence[Any]) -> list[Any]:
    """Opens the Sequential models of a list, which may not be built yet."""
    found: list[Any] = []
    for layer in layers:
        found += _flat(layer.layers) if isinstance(layer, keras.Sequential) else [layer]
    if not found:
        raise ValueError(
            "`head` must have at least one layer. Received: an empty keras.Sequential. "
            "Use head='gap' for the usual pooling and logits."
        )
    return found


def _last(layers: Sequence[Any]) -> Any:
    """Returns the layer that makes the output, that of a functional model opened."""
    last = layers[-1]
    if not is_graph(last):
        return last
    name = keras.tree.flatten(last.get_config()["output_layers"])[0]
    found = [layer for layer in last.layers if layer.name == name]
    return _last(_flat(found)) if found else last


def _is_logits(last: Any, num_classes: int) -> bool:
    """Tells whether a head's last layer gives the logits; probabilities are refused."""
    activation = getattr(last, "activation", None)
    units = last.units if isinstance(last, keras.layers.Dense) else None
    softmax = (keras.activations.softmax, keras.activations.log_softmax)
    ends = activation in softmax or isinstance(last, keras.layers.Softmax)
    if ends or (activation is keras.activations.sigmoid and units == num_classes):
        raise ValueError(
            "`head` must end in logits or in features, not in probabilities. Received: head "
            f"ending in {type(last).__name__} {last.name!r} with softmax or sigmoid. Leave the "
            "activation out and train with from_logits=True."
        )
    if units is None or activation is not keras.activations.linear:
        return False
    if units != num_classes:
        raise ValueError(
            f"`head` must end in {num_classes} logits, one per class, or in features. Received: "
            f"head ending in Dense {last.name!r} with units={units} and no activation. Give it "
            f"units={num_classes}, or an activation if it is a hidden layer."
        )
    return True


def _shapes(x: Any) -> str:
    return str(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), x))
