"""Where the ranges go: a plan made from the recorded graph and the table of rules."""

import dataclasses
from collections.abc import Callable
from typing import Any

from kerasopt.quantization._graph import Graph, Node
from kerasopt.quantization._rules import (
    FUSED_ACTIVATIONS,
    Rule,
    activation_name,
    activation_rule,
    rule_for,
)


@dataclasses.dataclass
class Range:
    """One range, shared by every tensor of its group.

    Attributes:
        name: after the first operation that fills it.
        fixed: `(low, high)` when it is known beforehand.
        num_sites: how many places watch it.
        role: `"activation"` or `"input"`.
        parent: another range this one was merged into.
    """

    name: str
    fixed: tuple[float, float] | None = None
    num_sites: int = 0
    role: str = "activation"
    parent: "Range | None" = None

    def root(self) -> "Range":
        """Returns the range that stands for the group."""
        return self if self.parent is None else self.parent.root()


@dataclasses.dataclass
class Point:
    """A fake quantization behind a tensor: which range, and how it is watched there."""

    range: Range
    site: int = 0
    pooled: bool = False


class Plan:
    """What to quantize in a graph.

    Args:
        graph: the recorded model.
        selected: tells for a layer whether the user wants it quantized.

    Attributes:
        points: tensor id -> `Point`.
        kernels: indices of nodes whose kernel is quantized.
        split: node index -> `Point` between a kernel and an activation that does not fuse.
        floats: `(operation name, reason)` for everything that stays float.
    """

    def __init__(self, graph: Graph, selected: Callable[[Any], bool]) -> None:
        self.graph = graph
        self.points: dict[int, Point] = {}
        self.kernels: set[int] = set()
        self.split: dict[int, Point] = {}
        self.floats: list[tuple[str, str]] = []
        self._grid: dict[int, Range] = {}  # tensor id -> the range it lies on
        self._selected = selected
        for tensor in graph.inputs:
            if _is_float(tensor):
                self._watch(tensor, Range(f"{tensor.name}_range", role="input"))
        for node in graph.nodes:
            self._place(node)
        self._number_sites()

    def _place(self, node: Node) -> None:
        rule = rule_for(node.op)
        if not self._selected(node.op):
            rule = Rule("float", "left out by `layers`")
        if len(node.outputs) != 1 or not _is_float(node.outputs[0]):
            rule = Rule("float", "several outputs or integers")
        getattr(self, f"_place_{rule.kind}")(node, rule)

    def _place_kernel(self, node: Node, rule: Rule) -> None:
        if getattr(node.op, "data_format", "channels_last") != "channels_last":
            self._place_float(node, dataclasses.replace(rule, reason="channels-first layout"))
            return
        if self._reads_floats(node):
            self.floats.append((node.op.name, "reads a tensor that is float"))
        else:
            self.kernels.add(node.index)
        name = activation_name(node.op.activation)
        if name in FUSED_ACTIVATIONS:
            self._end_group(node, open_end=name == "linear")
            return
        if node.index in self.kernels:
            self.split[node.index] = Point(Range(f"{node.op.name}_linear_range"))
        behind = activation_rule(node.op.activation)
        if behind.reason:
            self.floats.append((f"{node.op.name} ({name})", behind.reason))
        if behind.kind == "fixed":
            self._place_fixed(node, behind)
        else:
            self._own(node)

    def _place_norm(self, node: Node, rule: Rule) -> None:
        if self._fused_before(node, ("kernel",)):
            self._end_group(node, open_end=True)
        else:
            self._place_affine(node, rule)

    def _place_affine(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        if len(node.outputs[0].shape) != 4 or self._reads_floats(node):
            self.floats.append((node.op.name, "a scale and an offset of its own, not on an image"))
        self._end_group(node, open_end=rule_for(node.op).kind == "norm")

    def _place_relu(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        self._own(node)

    def _place_add(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        if len(node.inputs) > 2:
            self.floats.append((node.op.name, "three or more tensors at once"))
        self._end_group(node, open_end=len(node.inputs) <= 2)

    def _place_mean(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        self._own(node)

    def _place_same(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        if len(node.inputs) == 1 and id(node.inputs[0]) in self._grid:
            self._grid[id(node.outputs[0])] = self._grid[id(node.inputs[0])]

    def _place_average(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        grid = self._grid.get(id(node.inputs[0]))
        if grid is None:
            self.floats.append((node.op.name, "reads a tensor that is float"))
            return
        self._grid[id(node.outputs[0])] = grid
        self.points[id(node.outputs[0])] = Point(grid, site=-1, pooled=True)

    def _place_concat(self, node: Node, rule: Rule) -> None:
        grids = [self._grid.get(id(tensor)) for tensor in node.inputs]
        if any(grid is None or grid.root().fixed is not None for grid in grids):
            self._place_float(node, dataclasses.replace(rule, reason="its inputs share no range"))
            return
        first, *others = [grid.root() for grid in grids if grid is not None]
        for other in others:
            if other.root() is not first:
                other.root().parent = first
                first.role = "activation"
        self._grid[id(node.outputs[0])] = first

    def _place_fixed(self, node: Node, rule: Rule) -> None:
        self._watch(node.outputs[0], Range(f"{node.op.name}_range", fixed=rule.fixed_range))

    def _place_own(self, node: Node, rule: Rule) -> None:
        if rule.reason:
            self.floats.append((node.op.name, rule.reason))
        self._own(node)

    def _place_float(self, node: Node, rule: Rule) -> None:
        self.floats.append((node.op.name, rule.reason))

    def _own(self, node: Node) -> None:
        self._watch(node.outputs[0], Range(f"{node.op.name}_range"))

    def _watch(self, tensor: Any, grid: Range) -> None:
        self._grid[id(tensor)] = grid
        self.points[id(tensor)] = Point(grid)

    def _end_group(self, node: Node, *, open_end: bool) -> None:
        """Puts the range behind a node, unless the next operation is fused with it."""
        reader = self.graph.only_consumer(node.outputs[0]) if open_end else None
        if reader is not None and self._selected(reader.op):
            kind = rule_for(reader.op).kind
            mine = rule_for(node.op).kind
            if kind == "relu" or (kind == "norm" and mine == "kernel"):
                return
        self._own(node)

    def _fused_before(self, node: Node, kinds: tuple[str, ...]) -> bool:
        before = self.graph.producer.get(id(node.inputs[0]))
        return (
            before is not None
            and rule_for(before.op).kind in kinds
            and id(before.outputs[0]) not in self.points
            and id(before.outputs[0]) not in self._grid
        )

    def _reads_floats(self, node: Node) -> bool:
        return any(id(tensor) not in self._grid for tensor in node.inputs)

    def _number_sites(self) -> None:
        for point in [*self.points.values(), *self.split.values()]:
            point.range = point.range.root()
            if point.site >= 0:
                point.site = point.range.num_sites
                point.range.num_sites += 1


def _is_float(tensor: Any) -> bool:
    return str(tensor.dtype) in ("float32", "float16", "bfloat16", "float64")
