"""Which layers of a model a runtime could compute faster because of their zeros, and which not.

The rules are those of XNNPACK's sparse inference as TensorFlow Lite documents them (README of the
XNNPACK delegate): one path of float operations from a 3×3 convolution with stride 2 on three
channels to a mean over the image, in which only 1×1 convolutions are computed sparsely, and only
when at least two thirds of their weights are zero.
"""

import dataclasses
from typing import Any

from kerasopt._backend import keras
from kerasopt.pruning._kernels import find_kernels
from kerasopt.pruning._layer_graph import Node, read_graph

NEEDED = 2 / 3

_L = keras.layers
_ACTIVATIONS = {"linear", "relu", "relu6", "leaky_relu", "elu", "sigmoid", "silu", "swish"}
_PASS = (
    *(_L.ReLU, _L.LeakyReLU, _L.ELU, _L.Activation, _L.ZeroPadding2D),
    *(_L.Dropout, _L.SpatialDropout2D, _L.GaussianNoise, _L.GaussianDropout, _L.Identity),
)
_BINARY = (_L.Add, _L.Multiply)
_NO_START = (
    "no 3x3 convolution with stride 2 on 3 channels and a padding of 1 on each side "
    "(padding='valid' behind ZeroPadding2D(1), or 'same' with an odd image size)"
)
_FOOTNOTE = (
    "A sparse file runs faster on ARM only, in float only (int8 gains nothing; on x86 with AVX the "
    "runtime computes zeros like any weight), and only when it was converted with TensorFlow "
    "Lite's EXPERIMENTAL_SPARSITY. Zeros make any file smaller after gzip."
)


@dataclasses.dataclass(frozen=True)
class SparseLayer:
    """A layer with a kernel, and whether its zeros could save time.

    Attributes:
        path: the layer.
        kind: its class.
        weights: weights in its kernel.
        zeros: how many of them are zero.
        qualifies: whether a runtime could skip its zeros.
        reason: why not, or an empty string.
    """

    path: str
    kind: str
    weights: int
    zeros: int
    qualifies: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class SparseInferenceReport:
    """What zeros are worth in time for one model. `print` shows it as a table.

    Attributes:
        layers: every layer with a kernel, in model order.
        blockers: what keeps the graph from running sparsely, one sentence each.
        sparsity: fraction of zeros in the layers that qualify; 0 without any.
        qualifies: whether the graph fits and has at least two thirds zeros there.
    """

    layers: tuple[SparseLayer, ...]
    blockers: tuple[str, ...]
    sparsity: float
    qualifies: bool

    def __str__(self) -> str:
        width = max(len("layer"), *(len(layer.path) for layer in self.layers))
        lines = [f"{'layer':<{width}}  {'weights':>10}  {'zeros':>7}  sparse inference"]
        for layer in self.layers:
            share = layer.zeros / layer.weights
            verdict = "could skip its zeros" if layer.qualifies else f"no: {layer.reason}"
            lines.append(f"{layer.path:<{width}}  {layer.weights:>10,}  {share:>7.1%}  {verdict}")
        lines += ["", *(f"Blocked: {blocker}" for blocker in self.blockers)]
        if self.qualifies:
            lines.append(f"This model qualifies: {self.sparsity:.1%} zeros in its 1x1 layers.")
        return "\n".join([*lines, _FOOTNOTE])


def sparse_inference_report(model: Any) -> SparseInferenceReport:
    """Tells which layers of a model could run faster because of their zeros.

    Nothing is measured and nothing is promised: the report says where the documented rules of
    TensorFlow Lite's runtime are met, and names what is in the way elsewhere.

    Args:
        model: a built `keras.Model`.

    Returns:
        `SparseInferenceReport`.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model is not built, or has no layer with a kernel.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 1, name="a")])
        >>> report = sparse_inference_report(model)
        >>> report.qualifies, report.layers[0].reason
        (False, 'not between a fitting first convolution and a global average')

    Reference:
        Elsen et al., Fast Sparse ConvNets, arXiv:1911.09723; README of TensorFlow Lite's XNNPACK
        delegate, "Sparse Inference".
    """
    kernels = find_kernels(model, ".*", who="sparse_inference_report")
    nodes, unreadable = read_graph(model)
    inside, blockers = _sparse_path(nodes) if nodes else (set(), [unreadable])
    owners = {id(node.layer): node for node in nodes}
    rows, zeros, weights = [], 0, 0
    for kernel in kernels:
        layer = kernel.layer
        reason = _why_not(layer, id(layer) in inside, owners.get(id(layer)))
        if not reason and id(layer) in inside:
            zeros, weights = zeros + kernel.zeros(), weights + kernel.size
        rows.append(
            SparseLayer(
                kernel.path, type(layer).__name__, kernel.size, kernel.zeros(), not reason, reason
            )
        )
    sparsity = zeros / weights if weights else 0.0
    if weights and sparsity < NEEDED:
        blockers.append(
            f"the 1x1 convolutions have {sparsity:.1%} zeros; at least two thirds are needed"
        )
    return SparseInferenceReport(
        layers=tuple(rows),
        blockers=tuple(blockers),
        sparsity=sparsity,
        qualifies=bool(weights) and not blockers,
    )


def _why_not(layer: Any, inside: bool, node: Node | None) -> str:
    if type(layer) is not _L.Conv2D:
        return "only 1x1 convolutions are computed sparsely"
    if layer.kernel_size != (1, 1):
        height, width = layer.kernel_size
        return f"its kernel is {height}x{width}, not 1x1"
    if not _plain(layer) or layer.strides != (1, 1):
        return "strides, dilation or groups"
    if node is None or not inside:
        return "not between a fitting first convolution and a global average"
    return ""


def _sparse_path(nodes: list[Node]) -> tuple[set[int], list[str]]:
    """Returns the layers of the sparse subgraph, and what keeps it from being one."""
    starts = [node for node in nodes if _starts(node)]
    if not starts:
        return set(), [_NO_START]
    inside: set[int] = set()
    blockers: list[str] = []
    ended = False
    reached = [reader for start in starts for reader in start.readers]
    seen: set[int] = set()
    while reached:
        node = reached.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node.layer, _L.GlobalAveragePooling2D):
            ended = True
            continue
        reason = _refused(node)
        if reason:
            blockers.append(f"{node.layer.name} ({type(node.layer).__name__}): {reason}")
            continue
        inside.add(id(node.layer))
        reached += node.readers
    if not ended and not blockers:
        blockers.append("no global average pooling at the end of the path")
    return (set() if blockers else inside), blockers


def _starts(node: Node) -> bool:
    layer = node.layer
    return (
        type(layer) is _L.Conv2D
        and layer.kernel_size == (3, 3)
        and layer.strides == (2, 2)
        and _plain(layer)
        and node.input_shape[-1] == 3
        and _padding(node) == 1
    )


def _refused(node: Node) -> str:
    """Returns why an operation may not stand in a sparse subgraph, or an empty string."""
    layer = node.layer
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if activation not in _ACTIVATIONS:
        return f"activation {activation!r}"
    if type(layer) is _L.Conv2D:
        fits = layer.kernel_size == (1, 1) and layer.strides == (1, 1) and _plain(layer)
        return "" if fits else "only 1x1 convolutions without strides, dilation and groups"
    if isinstance(layer, _L.DepthwiseConv2D):
        size = layer.kernel_size
        fits = (
            size in ((3, 3), (5, 5))
            and layer.strides in ((1, 1), (2, 2))
            and layer.dilation_rate == (1, 1)
            and layer.depth_multiplier == 1
            and _padding(node) == size[0] // 2
        )
        return "" if fits else "only 3x3 and 5x5, padded by the same number on each side"
    if isinstance(layer, _BINARY) or type(layer).__name__ in ("Add", "Multiply"):
        return "" if len(node.input_shape) == 4 else "both inputs must be images"
    # Opening a nested model leaves a conversion of its inputs in the graph.
    if isinstance(layer, _PASS) or type(layer).__name__ == "ConvertToTensor":
        return ""
    if isinstance(layer, _L.BatchNormalization):
        return "" if layer.axis in (-1, 3) else "must normalize the channels"
    if isinstance(layer, _L.UpSampling2D) and layer.interpolation == "bilinear":
        return ""
    return "this operation is not supported"


def _plain(layer: Any) -> bool:
    return layer.groups == 1 and layer.dilation_rate == (1, 1)


def _padding(node: Node) -> int | None:
    """Returns the padding if it is the same number on each side, else `None`."""
    layer = node.layer
    if layer.padding == "valid":
        before = node.sources[0].layer if len(node.sources) == 1 else None
        padding = before.padding if isinstance(before, _L.ZeroPadding2D) else ((0, 0), (0, 0))
        sides = {side for pair in padding for side in pair}
    else:
        sides = set()
        for axis in (0, 1):
            size, kernel = node.input_shape[1 + axis], layer.kernel_size[axis]
            stride = layer.strides[axis]
            if size is None and stride > 1:
                return None
            total = (
                kernel - stride if size is None or size % stride == 0 else kernel - size % stride
            )
            sides |= {total // 2, total - total // 2}
    return sides.pop() if len(sides) == 1 else None
