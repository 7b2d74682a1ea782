"""Schemes: how many bits weights and activations get, for a model or layer by layer."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import LayerFilter, layers_inside, select_layers, walk_layers
from kerasopt._serialization import serializable
from kerasopt._validation import nearest
from kerasopt.quantization._kernels import has_kernels
from kerasopt.quantization._renamed import original
from kerasopt.quantization._rules import is_own, rule_for


@serializable
@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a layer is quantized: the bits of its weights and of its activations.

    Weights are symmetric with one scale per output channel. The presets, by name:

    | name | weights | activations |
    |---|---|---|
    | `"int8"` | 8 bits | 8 bits, asymmetric |
    | `"int16x8"` | 8 bits | 16 bits, symmetric |
    | `"int8_weights"` | 8 bits | float |

    Args:
        activation_num_bits: 8, 16 or `None` for float activations.
        symmetric: whether the zero point of activations is 0. TFLite asks for that with 16 bits
            and offers no 8-bit kernels that need it.
        weight_num_bits: 8; the one number for which the converter finds the levels of every
            kernel again, output channel by output channel.

    Raises:
        ValueError: TFLite has no kernels for the numbers.

    Example:
        >>> Scheme(16, symmetric=True) == Scheme.of("int16x8")
        True
    """

    activation_num_bits: int | None = 8
    symmetric: bool = False
    weight_num_bits: int = 8

    def __post_init__(self) -> None:
        if self.weight_num_bits != 8 or isinstance(self.weight_num_bits, float):
            raise ValueError(
                "`weight_num_bits` must be 8, which is what a TFLite file holds. "
                f"Received: weight_num_bits={self.weight_num_bits!r}."
            )
        if self.activation_num_bits not in (8, 16, None) or self.symmetric != (
            self.activation_num_bits == 16
        ):
            raise ValueError(
                "`activation_num_bits` must be 8, 16 (with symmetric=True) or None for float. "
                f"Received: activation_num_bits={self.activation_num_bits!r}, "
                f"symmetric={self.symmetric!r}."
            )

    @classmethod
    def of(cls, scheme: Any) -> "Scheme":
        """Returns the scheme of a name.

        Args:
            scheme: `"int8"`, `"int16x8"`, `"int8_weights"`, or a `Scheme`, which is returned.

        Raises:
            TypeError: it is neither a name nor a `Scheme`.
            ValueError: there is no such name.
        """
        if isinstance(scheme, cls):
            return scheme
        if not isinstance(scheme, str):
            raise TypeError(
                "`scheme` must be a name, a ko.quantization.Scheme, or a dict of regexes and "
                f"these. Received: scheme={scheme!r}."
            )
        if scheme not in PRESETS:
            listed = ", ".join(repr(name) for name in PRESETS)
            raise ValueError(
                f"`scheme` must be one of {listed}. Received: scheme={scheme!r}. "
                f"{nearest(scheme, PRESETS)}"
            )
        return PRESETS[scheme]

    @property
    def name(self) -> str:
        """The name of the preset."""
        return next(name for name, preset in PRESETS.items() if preset == self)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scheme":
        """Returns the scheme of a config."""
        return cls(**config)


PRESETS: dict[str, Scheme] = {
    "int8": Scheme(),
    "int16x8": Scheme(16, symmetric=True),
    "int8_weights": Scheme(None),
}
INT8 = PRESETS["int8"]

SchemeLike = str | Scheme | Mapping[str, "str | Scheme | None"]


def check_scheme(scheme: Any) -> None:
    """Checks what can be checked of a `scheme` argument without a model.

    Raises:
        TypeError: it is neither a name, a `Scheme`, nor a dict of regexes and these.
        ValueError: an unknown name, or an empty dict.
    """
    if not isinstance(scheme, Mapping):
        Scheme.of(scheme)
        return
    if not scheme:
        raise ValueError(
            "`scheme` must name at least one layer when it is a dict. Received: scheme={}. "
            "Pass 'int8' for all of them."
        )
    for pattern, value in scheme.items():
        if not isinstance(pattern, str):
            raise TypeError(
                "`scheme` must be a dict with regexes on layer names as keys. "
                f"Received: scheme={dict(scheme)!r}."
            )
        if value is not None:
            Scheme.of(value)


def resolve_scheme(
    model: Any, scheme: SchemeLike = "int8", *, layers: LayerFilter = None
) -> dict[str, Scheme | None]:
    """Returns which scheme each layer of a model gets.

    Args:
        model: a Keras model; nested models are opened, and paths join their names with `/`.
        scheme: the name of a preset, a `Scheme`, or a dict of regexes, searched in the layers'
            paths, and schemes. The first regex that finds a layer decides, and a layer that none
            finds gets `"int8"`. `None` and `"int8_weights"` are of those with kernels among the
            layers found, while what lies between them follows its neighbours, or of all of them
            where none has a kernel.
        layers: which layers to quantize at all: a regex, a list of them, or a callable. Again
            only layers with kernels are chosen one by one.

    Returns:
        Path of each layer -> its `Scheme`, or `None` for float, in model order.

    Raises:
        TypeError: the scheme is none of the above.
        ValueError: an unknown name, or a regex that finds no layer; the nearest are named.

    Example:
        >>> import keras
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), keras.layers.Dense(4, name="body"),
        ...      keras.layers.Dense(2, name="head")])
        >>> found = resolve_scheme(model, {"head": None, ".*": "int16x8"})
        >>> {path: layer and layer.name for path, layer in found.items()}
        {'body': 'int16x8', 'head': None}
    """
    check_scheme(scheme)
    every = every_layer(model)
    found: dict[str, Scheme | None] = {}
    if isinstance(scheme, Mapping):
        for pattern, value in scheme.items():
            hits = select_layers(every, pattern, argument="scheme")
            wanted = None if value is None else Scheme.of(value)
            if wanted is None or wanted.activation_num_bits is None:
                hits = _with_kernels(hits) or hits
            for path, _ in hits:
                found.setdefault(path, wanted)
    rest = INT8 if isinstance(scheme, Mapping) else Scheme.of(scheme)
    schemes: dict[str, Scheme | None] = {}
    for path, _ in every:  # parts of a layer of the user's own follow it
        schemes[path] = found[path] if path in found else schemes.get(_around(path), rest)
    if layers is not None:
        picked = {path for path, _ in select_layers(every, layers)}
        picked |= {path for path, _ in every if _around(path) in picked}
        for path, _ in _with_kernels(every):
            if path not in picked:
                schemes[path] = None
    return schemes


def _around(path: str) -> str:
    return path.rpartition("/")[0]


def every_layer(model: Any) -> list[tuple[str, Any]]:
    """Lists path and layer as `walk_layers`, and the layers inside of the user's own."""
    found = {id(layer): (path, layer) for path, layer in walk_layers(model)}

    def visit(path: str, layer: Any) -> None:
        for inner in layers_inside(layer):
            if id(inner) in found:
                continue
            found[id(inner)] = f"{path}/{inner.name}", inner
            if is_own(inner):
                visit(f"{path}/{inner.name}", inner)

    for path, layer in list(found.values()):
        if is_own(layer):
            visit(path, layer)
    return list(found.values())


def _with_kernels(layers: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    rules = [(path, layer, rule_for(layer)) for path, layer in layers]
    return [(path, layer) for path, layer, rule in rules if rule.kind == "kernel" or rule.weights]


def _of_one_file(schemes: dict[str, Scheme | None], kernels: set[str]) -> dict[str, Scheme | None]:
    """Gives layers of 16 bits among others of 8 float activations, as one TFLite file has them.

    Those without a kernel follow their neighbours.
    """
    bits = {scheme.activation_num_bits for scheme in schemes.values() if scheme is not None}
    if not {8, 16} <= bits:
        return schemes
    wide = [path for path, s in schemes.items() if s is not None and s.activation_num_bits == 16]
    warnings.warn(
        "TFLite has no file with 16-bit activations beside 8-bit ones, so layers of 'int16x8' "
        f"among others of 'int8' compute in float, with int8 levels for kernels: {wide[0]!r} and "
        f"{len(wide) - 1} more. Name 'int8_weights' to say so, or give all layers 'int16x8'.",
        stacklevel=4,
    )
    weights = PRESETS["int8_weights"]
    narrowed = {path: weights if path in kernels else INT8 for path in wide}
    return {**schemes, **narrowed}


class LayerSchemes:
    """The schemes of a model's layers, by the layers themselves.

    Args:
        model: the model that `scheme` and `layers` speak of.
        scheme: as in `resolve_scheme`.
        layers: likewise.
    """

    def __init__(self, model: Any, scheme: SchemeLike, layers: LayerFilter = None) -> None:
        every = every_layer(model)
        paths = resolve_scheme(model, scheme, layers=layers)
        paths = _of_one_file(paths, {path for path, _ in _with_kernels(every)})
        used = {s for s in paths.values() if s is not None}
        self._rest = used.pop() if len(used) == 1 else INT8
        self._by_id = {id(layer): paths[path] for path, layer in every}
        self._close(model, set())

    def _close(self, layer: Any, seen: set[int]) -> Scheme | None:
        """Leaves a layer of the user's own out, should it not be opened, where a part of it is."""
        if id(layer) in seen:
            return self.of(layer)
        seen.add(id(layer))
        inner = layers_inside(layer) if isinstance(layer, keras.Model) or is_own(layer) else []
        schemes = [(has_kernels(part), self._close(part, seen)) for part in inner]
        if is_own(layer) and (True, None) in schemes:
            self._by_id[id(layer)] = None
        return self.of(layer)

    def of(self, op: Any) -> Scheme | None:
        """Returns the scheme of a layer; operations that are no layers have that of all layers."""
        return self._by_id.get(id(original(op)), self._rest)

    def has_activations(self, op: Any) -> bool:
        """Tells whether an operation's activations are quantized."""
        scheme = self.of(op)
        return scheme is not None and scheme.activation_num_bits is not None

    def follow(self, pairs: Any) -> None:
        """Gives copies of layers the schemes of the layers; takes pairs of copy and layer."""
        self._by_id |= {id(copy): self.of(layer) for copy, layer in pairs}
