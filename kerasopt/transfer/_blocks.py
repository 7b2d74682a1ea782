"""The natural stages of a backbone."""

import dataclasses
import math
import re
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import walk_layers
from kerasopt.transfer._classifier import split_layers
from kerasopt.transfer._graph import bottlenecks

# Padding and activations of one cell of NASNet stand among the layers of another.
_NASNET = (
    r"^(?:(?:adjust|normal|reduction)_(?:conv|bn)|separable_conv_\d(?:_bn)?_(?:normal|reduction))"
    r"\w*?_((?:(?:stem|reduce)_)?\d+)$"
)
# What layers of one block have in common in their names, and the block's name made from it.
_PREFIXES = tuple(
    (re.compile(pattern), template)
    for pattern, template in (
        (_NASNET, r"cell_\1"),
        (r"^(.*?stage_?\d+_block_?\d+)(?:_|$)", r"\1"),  # ConvNeXt
        (r"^(\w+?_)(?:pre)?(stem)_(?!\d+$)", r"\1\2"),
        (r"^(\w+?_downsampling)_\w+?(_\d+)$", r"\1\2"),
        (r"^(block\d+_\d+)(?:_|$)", r"\1"),  # InceptionResNetV2
        (r"^(conv\d+_block_?\d+)(?:_|$)", r"\1"),  # ResNet, DenseNet
        (r"^(.*?block_?\d+[a-z]?)(?:_|$)", r"\1"),  # MobileNetV2, EfficientNet, VGG, Xception
        (r"^(expanded_conv(?:_\d+)?)(?:_|$)", r"\1"),  # MobileNetV3
        (r"^(conv)_(?:dw|pw|pad)(_\d+)(?:_|$)", r"\1\2"),  # MobileNet
        (r"^(mixed_?\d+[a-z]?)$", r"\1"),  # Inception
        (r"^(?:bn_)?(stem|top|head|pool\d+|Conv(?:_?\d+)?|conv\d*(?:_\d+[a-z]?)?)(?:_|$)", r"\1"),
        (r"^(.*?(?:stage|stack|dark)_?\d+)(?:_|$)", r"\1"),  # YOLO, CSPDarkNet
    )
)
# Inception layers have no names of their own until the concatenation that ends their block.
_CLOSER = re.compile(r"^mixed_?\d+[a-z]?$|^block\d+_\d+_mixed$")
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.UnitNormalization,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """One stage of a backbone.

    Args:
        name: what its layers' names have in common, or `"stage<n>"`.
        layers: its layers in model order, at least one with weights.
    """

    name: str
    layers: tuple[Any, ...]

    @property
    def num_parameters(self) -> int:
        """Number of parameters of its layers."""
        return sum(math.prod(w.shape) for layer in self.layers for w in layer.weights)

    @property
    def trainable(self) -> str:
        """`"yes"`, `"no"` or `"partly"`."""
        flags = {layer.trainable for layer in self.layers if layer.weights}
        return "partly" if len(flags) == 2 else "yes" if flags == {True} else "no"


class Blocks(tuple[Block, ...]):
    """The blocks of a backbone, from the input to the head; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("block", "layers", "parameters", "trainable")]
        rows += [(b.name, str(len(b.layers)), f"{b.num_parameters:,}", b.trainable) for b in self]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            f"{name:<{widths[0]}}  {layers:>{widths[1]}}  {size:>{widths[2]}}  {trainable}"
            for name, layers, size, trainable in rows
        )


def blocks(model: Any) -> Blocks:
    """Groups a model's backbone into its natural stages, from the input to the head.

    By the names of the layers, or of the models that they are nested in, where these follow a
    known pattern (all of `keras.applications`, the backbones of KerasCV, EfficientNet-Lite, and
    whatever is called `block1_...` or `stage1_block2_...`). Else a new block begins wherever a
    layer makes the feature maps smaller, and in a network that never does, such as a vision
    transformer, wherever a residual block or a plain layer begins. Every layer of the backbone
    that has weights is in exactly one block.

    Args:
        model: a built Keras model, for instance one of `build_classifier`.

    Returns:
        A tuple of `Block`; `print` shows names, layers, parameters and what is trainable.

    Raises:
        ValueError: the model has no layer with weights.

    Example:
        >>> from kerasopt.transfer import build_classifier
        >>> model = build_classifier("MobileNetV2", 5, input_shape=(32, 32, 3), weights=None)
        >>> [block.name for block in blocks(model)][-3:]
        ['block_15', 'block_16', 'Conv_1']
    """
    layers, _ = split_layers(model)
    paths = {id(layer): path for path, layer in walk_layers(model)}
    through = bottlenecks(model)
    passed = [id(layer) in through for layer in layers]
    keys = _by_name([paths[id(layer)] for layer in layers], layers, passed)
    keys = keys or _by_resolution(layers) or _by_residual(layers, passed)
    groups: list[tuple[str, list[Any]]] = []
    for key, layer in zip(keys, layers, strict=True):
        if not groups or groups[-1][0] != key:
            groups.append((key, []))
        groups[-1][1].append(layer)
    merged: list[tuple[str, list[Any]]] = []
    for key, members in groups:
        # The first layer of a backbone has weights, so there is always a block to join.
        if any(layer.weights for layer in members):
            merged.append((key, members))
        else:
            merged[-1][1].extend(members)
    return Blocks(Block(key, tuple(members)) for key, members in merged)


def _by_name(paths: list[str], layers: list[Any], passed: list[bool]) -> list[str] | None:
    found = [_prefix(path) for path in paths]
    closers = [bool(_CLOSER.match(layer.name)) for layer in layers]
    weighted = [key for key, layer in zip(found, layers, strict=True) if layer.weights]
    named = sum(key is not None for key in weighted)
    if len(set(found) - {None}) < 2 or not (any(closers) or 2 * named >= len(weighted)):
        return None
    if any(closers):
        # The branches of the first block begin behind the last layer that all of it goes through.
        branches = max((i for i in range(closers.index(True)) if passed[i]), default=-1) + 1
        found[:branches] = ["stem"] * branches
    keys = _fill(found, closers)
    starts = [key for index, key in enumerate(keys) if index == 0 or keys[index - 1] != key]
    # A name that comes back after another one is no name of a stage.
    return keys if len(starts) == len(set(starts)) else None


def _prefix(path: str) -> str | None:
    for name in reversed(path.split("/")):
        for pattern, template in _PREFIXES:
            if match := pattern.match(name):
                return match.expand(template)
    return None


def _fill(found: list[str | None], closers: list[bool]) -> list[str]:
    """Gives nameless layers the block before them, or the one that a concatenation closes."""
    keys: list[str | None] = []
    for index, key in enumerate(found):
        if key is None:
            following = next((i for i in range(index, len(found)) if found[i] is not None), None)
            if following is not None and (closers[following] or not any(keys)):
                key = found[following]  # noqa: PLW2901
            else:
                key = keys[-1]  # noqa: PLW2901
        keys.append(key)
    return [key for key in keys if key is not None]


def _by_resolution(layers: list[Any]) -> list[str] | None:
    keys: list[str] = []
    stage, smallest = 1, math.inf
    for layer in layers:
        before, after = _resolution(layer)
        if before is not None and after is not None and after < min(before, smallest):
            # The second of two parallel strided layers reaches a size that is known already.
            stage += bool(keys)
            smallest = after
        keys.append(f"stage{stage}")
    return keys if stage > 1 else None


def _by_residual(layers: list[Any], passed: list[bool]) -> list[str]:
    """A stage from one layer that everything goes through to the next, with weights of its own."""
    stages: list[list[int]] = [[]]
    for index, through in enumerate(passed):
        stages[-1].append(index)
        if through:
            stages.append([])
    keys: list[str] = []
    count = 0
    for stage in stages:
        # A normalization or an activation by itself belongs to what stands before it.
        count += not count or any(_has_kernel(layers[index]) for index in stage)
        keys += [f"stage{count}"] * len(stage)
    return keys


def _has_kernel(layer: Any) -> bool:
    return bool(layer.weights) and not isinstance(layer, _NORMALIZATIONS)


def _resolution(layer: Any) -> tuple[int | None, int | None]:
    """Height before and after a strided layer; global pooling in a block does not count."""
    if not hasattr(layer, "strides"):
        return None, None
    try:
        shapes = layer.input.shape, layer.output.shape
    except AttributeError:  # called more than once, or inside a subclassed model
        return None, None
    before, after = (shape[1] if len(shape) == 4 else None for shape in shapes)
    return before, after
