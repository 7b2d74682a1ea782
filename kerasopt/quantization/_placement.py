"""Where the ranges go: a plan made from the recorded graph and the table of rules."""

import dataclasses
from collections.abc import Callable
from typing import Any

from kerasopt.quantization._exceptions import INTEGERS, constants
from kerasopt.quantization._fusion import (
    is_output,
    is_pooling,
    maker,
    only_reader,
    readers,
    takes_norm,
)
from kerasopt.quantization._graph import Graph, Node, is_table
from kerasopt.quantization._rules import (
    activation_of,
    activation_rule,
    end_rule,
    function_name,
    rule_for,
)
from kerasopt.quantization._steps import FUSED_ACTIVATIONS, activation_name
from kerasopt.quantization._table import Rule

_LEFT_OUT = "left out by `layers` or `scheme`"


@dataclasses.dataclass
class Range:
    """One range, shared by every tensor of its group.

    Attributes:
        name: after the first operation that fills it.
        fixed: `(low, high)` when it is known beforehand.
        num_sites: how many places watch it.
        role: `"activation"` or `"input"`.
        parent: another range this one was merged into.
        op: the operation that fills it first; the first that reads it for a model's input.
    """

    name: str
    fixed: tuple[float, float] | None = None
    num_sites: int = 0
    role: str = "activation"
    parent: "Range | None" = None
    op: Any = None

    def root(self) -> "Range":
        """Returns the range that stands for the group."""
        return self if self.parent is None else self.parent.root()


@dataclasses.dataclass
class Point:
    """A fake quantization behind a tensor: which range, and how it is watched there."""

    range: Range
    site: int = 0
    pooled: bool | str = False


class Plan:
    """What to quantize in a graph.

    Args:
        graph: the recorded model.
        selected: tells for a layer whether the user wants it quantized.

    Attributes:
        points: tensor id -> `Point`.
        kernels: indices of nodes whose kernel is quantized.
        decomposed: node index -> the steps that the operation is taken apart into.
        moved: (node index, tensor id) -> `Point` between a tensor of a fixed range, or an input,
            and an operation that reads it on a shared one.
        split: node index -> `Point` between a kernel and an activation that does not fuse.
        floats: `(operation name, reason)` for everything that stays float.
    """

    def __init__(self, graph: Graph, selected: Callable[[Any], bool]) -> None:
        self.graph = graph
        self.points: dict[int, Point] = {}
        self.kernels: set[int] = set()
        self.decomposed: dict[int, Callable[..., Any]] = {}
        self.moved: dict[tuple[int, int], Point] = {}
        self.split: dict[int, Point] = {}
        self.floats: list[tuple[str, str]] = []
        self._grid: dict[int, Range] = {}  # tensor id -> the range it lies on
        self._open: set[int] = set()  # ids of tensors in a group, which never exist in the file
        self._same: dict[int, int] = {}  # tensor id -> the id of the one that it is in the file
        self._relus: dict[tuple[int, str, Any], Range] = {}
        self._means: list[Node] = []
        self._selected = selected
        if not any(selected(node.op) for node in graph.nodes):
            return
        for tensor in graph.inputs:
            if _is_float(tensor):
                reader = next((node.op for node in graph.consumers[id(tensor)]), None)
                self._watch(tensor, Range(f"{tensor.name}_range", role="input", op=reader))
        for node in graph.nodes:
            self._place(node)
        self._number_sites()
        self._mark_means()

    def _place(self, node: Node) -> None:
        if not any(_is_float(tensor) for tensor in node.outputs):
            return
        rule = rule_for(node.op, node)
        if rule.kind == "dropped":
            self._place_dropped(node)
            return
        if not self._selected(node.op):
            rule = dataclasses.replace(rule, reason=_LEFT_OUT, weights=False)
            self._place_island(node, rule)
            return
        if rule.kind not in ("same", "float") and len(node.outputs) > 1:
            rule = Rule("float", reason="several outputs")
        unfit = _reads_integers(node) or self._reads_floats(node)
        if rule.kind not in ("same", "join", "float") and unfit:
            reason = INTEGERS if _reads_integers(node) else "reads a tensor that is float"
            self.floats.append((node.op.name, reason))
            self._own(node)
            return
        if rule.steps is not None:
            self.decomposed[node.index] = rule.steps
            if rule.reason:
                self.floats.append((node.op.name, rule.reason))
            rule = end_rule(node.op, node)
        getattr(self, f"_place_{rule.kind}")(node, rule)

    def _place_kernel(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        name = activation_name(activation_of(node.op))
        if node.index not in self.decomposed:
            self.kernels.add(node.index)
            if name not in FUSED_ACTIVATIONS:
                self._split(node, name)
                return
        if name == "linear":
            self._end_group(node)
        else:
            self._watch(
                node.outputs[0],
                self._range_behind(node, activation_rule(activation_of(node.op))),
            )

    def _split(self, node: Node, name: str) -> None:
        self.split[node.index] = Point(Range(f"{node.op.name}_linear_range", op=node.op))
        behind = activation_rule(node.op.activation)
        if behind.reason:
            self.floats.append((f"{node.op.name} ({name})", behind.reason))
        if behind.kind == "shared":
            self._share(node, self.split[node.index].range, behind)
        else:
            self._watch(node.outputs[0], self._range_behind(node, behind))

    def _place_norm(self, node: Node, rule: Rule) -> None:
        if self._is_folded(node):
            self._end_group(node)
        else:
            self._place_affine(node, rule)

    def _place_affine(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        self._end_group(node)

    def _place_relu(self, node: Node, rule: Rule) -> None:
        pooling = maker(self.graph, node.inputs[0])
        if pooling is not None and rule.fixed_range is None and is_pooling(pooling):
            # TFLite's pooling carries a ReLU, and keeps the range of its input.
            self._share(node, self._grid[id(node.inputs[0])], rule_for(pooling.op, pooling))
            return
        # Equal operations on one tensor become one, which has one range.
        key = self._original(node.inputs[0]), relu_name(node.op), rule.fixed_range
        if key not in self._relus:
            self._relus[key] = self._range_behind(node, rule)
        self._watch(node.outputs[0], self._relus[key])

    def _place_sum(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        self._end_group(node)

    def _place_own(self, node: Node, rule: Rule) -> None:
        self._own(node)
        if rule.ties:
            self._means.append(node)

    def _place_same(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        grids = [self._grid.get(id(tensor)) for tensor in node.inputs if _is_float(tensor)]
        if len(grids) == 1 and grids[0] is not None:
            for tensor in node.outputs:
                self._grid[id(tensor)] = grids[0]

    def _place_dropped(self, node: Node) -> None:
        before, behind = node.inputs[0], node.outputs[0]
        self._same[id(behind)] = self._original(before)
        if id(before) in self._grid:
            self._grid[id(behind)] = self._grid[id(before)]
        if id(before) in self._open:
            self._open.add(id(behind))

    def _place_shared(self, node: Node, rule: Rule) -> None:
        grid, tensor = self._grid[id(node.inputs[0])], node.outputs[0]
        if is_pooling(node) and self._reads_only_relu(tensor):
            self._grid[id(tensor)] = grid  # rounded behind the ReLU
        else:
            self._share(node, grid, rule)

    def _share(self, node: Node, grid: Range, rule: Rule) -> None:
        self._grid[id(node.outputs[0])] = grid
        self.points[id(node.outputs[0])] = Point(
            grid, site=-1, pooled="up" if rule.ties == "up" else bool(rule.ties)
        )

    def _place_join(self, node: Node, rule: Rule) -> None:  # noqa: ARG002
        read = [tensor for tensor in node.inputs if _is_float(tensor)]
        grids = [self._grid.get(id(tensor)) for tensor in read]
        if any(grid is None for grid in grids):
            self.floats.append((node.op.name, "its inputs share no range"))
            self._own(node)
            return
        roots = [grid.root() for grid in grids if grid is not None]
        has_constants = bool(constants(node))
        if len({id(root) for root in roots}) == 1 and not has_constants:
            self._grid[id(node.outputs[0])] = roots[0]
            return
        shared = Range(f"{node.op.name}_range", op=node.op)
        for tensor, root in zip(read, roots, strict=True):
            if root.fixed is not None or root.role == "input":
                # Its own range has to stay: one more range, and a QUANTIZE in the file.
                self.moved[node.index, id(tensor)] = Point(shared)
            elif root.root() is not shared:
                root.root().parent = shared
        if has_constants:
            self._watch(node.outputs[0], shared)  # the range has to hold them too
        else:
            self._grid[id(node.outputs[0])] = shared

    def _place_fixed(self, node: Node, rule: Rule) -> None:
        self._watch(node.outputs[0], self._range_behind(node, rule))

    def _place_float(self, node: Node, rule: Rule) -> None:
        if rule.weights and not self._reads_floats(node):
            self.kernels.add(node.index)
        self._place_island(node, rule)

    def _place_island(self, node: Node, rule: Rule) -> None:
        """Leaves an operation float; what reads it is int8 again."""
        self.floats.append((node.op.name, rule.reason))
        if len(node.outputs) == 1 and rule.kind == "kernel":
            self._end_group(node)  # its BatchNormalization and ReLU belong to it
        else:
            self._own(node)

    def _range_behind(self, node: Node, rule: Rule) -> Range:
        return Range(f"{node.op.name}_range", fixed=rule.fixed_range, op=node.op)

    def _own(self, node: Node) -> None:
        for number, tensor in enumerate(node.outputs):
            # The converter would drop a range between a float operation and the output.
            is_exit = self._is_island(node) and self._leads_out(tensor)
            if _is_float(tensor) and not is_exit:
                suffix = f"_{number}" if number else ""
                self._watch(tensor, Range(f"{node.op.name}{suffix}_range", op=node.op))

    def _watch(self, tensor: Any, grid: Range) -> None:
        self._grid[id(tensor)] = grid
        self.points[id(tensor)] = Point(grid)

    def _end_group(self, node: Node) -> None:
        """Puts the range behind a node, unless the next operation is fused with it."""
        tensor = node.outputs[0]
        reader = only_reader(self.graph, tensor)
        folds = (
            reader is not None
            and self._selected(reader.op)
            and rule_for(node.op, node).kind == "kernel"
            and rule_for(reader.op, reader).kind == "norm"
            and takes_norm(node.op)
        )
        if folds or self._reads_only_relu(tensor):
            self._open.add(id(tensor))
        else:
            self._own(node)

    def _reads_only_relu(self, tensor: Any) -> bool:
        """Tells whether a ReLU alone reads a tensor, or several that are one in the file."""
        found = readers(self.graph, tensor)
        rules = {rule_for(reader.op, reader) for reader in found}
        names = {relu_name(reader.op) for reader in found}
        return (
            not is_output(self.graph, tensor)
            and len(rules) == len(names) == 1
            and next(iter(rules)).kind == "relu"
            and all(self._selected(reader.op) for reader in found)
        )

    def _original(self, tensor: Any) -> int:
        return self._same.get(id(tensor), id(tensor))

    def _is_folded(self, node: Node) -> bool:
        return id(node.inputs[0]) in self._open

    def _leads_out(self, tensor: Any) -> bool:
        """Tells whether nothing reads a tensor but what only passes it on to the output."""
        return all(
            rule_for(reader.op, reader).kind == "same"
            and all(self._leads_out(output) for output in reader.outputs)
            for reader in readers(self.graph, tensor)
        )

    def _is_island(self, node: Node) -> bool:
        named = any(name == node.op.name for name, _ in self.floats)
        return named and node.index not in self.decomposed

    def _reads_floats(self, node: Node) -> bool:
        return any(
            _is_float(tensor) and id(tensor) not in self._grid and id(tensor) not in self._open
            for tensor in node.inputs
        )

    def _number_sites(self) -> None:
        for point in [*self.points.values(), *self.split.values(), *self.moved.values()]:
            point.range = point.range.root()
            if point.site >= 0:
                point.site = point.range.num_sites
                point.range.num_sites += 1

    def _mark_means(self) -> None:
        """Finds the means that a concatenation gave the range of their input, where ties are."""
        for node in self._means:
            before, behind = self._grid.get(id(node.inputs[0])), self.points[id(node.outputs[0])]
            if before is not None and before.root() is behind.range:
                behind.pooled = "even"


def relu_name(op: Any) -> str:
    """Tells kinds of ReLU apart, however they are written."""
    if hasattr(op, "max_value"):
        return "relu" if op.max_value is None else f"relu{op.max_value:g}"
    name = function_name(activation_name(getattr(op, "activation", op)))
    return "relu" if name == "maximum" else str(name)


def _reads_integers(node: Node) -> bool:
    """Tells whether an operation computes with integers, as one that looks them up does not."""
    return any("int" in str(tensor.dtype) for tensor in node.inputs) and not is_table(node.op)


def _is_float(tensor: Any) -> bool:
    return str(tensor.dtype) in ("float32", "float16", "bfloat16", "float64")
