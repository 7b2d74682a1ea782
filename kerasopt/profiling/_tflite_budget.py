"""How much of a TFLite file is read: no more than it holds.

The offsets of a flatbuffer may share what they point to. A file of some kilobytes can name one
subgraph, tensor or text a thousand times, and takes minutes to read. Files that converters write
share nothing, so that all parts of a file together are no longer than the file.
"""

from typing import Any

MOST_TABLES = 100_000
"""Subgraphs, tensors, operators, buffers and so on. MobileNetV2 has 346 of them for 66 operators;
the largest of keras.applications have 1,364 operators."""
_SLACK = 2
_TABLE, _ENTRY = 8, 4
"""Bytes that a table takes at least, with the offset that leads to it, and a number of a list."""


class _Budget:
    def __init__(self, content: bytes) -> None:
        self._bytes, self._tables = _SLACK * len(content), MOST_TABLES

    def tables(self, count: int) -> range:
        """Takes a list of tables; returns their numbers."""
        self._tables -= count
        if self._tables < 0:
            raise ValueError(f"it has more than {MOST_TABLES:,} tensors, operators and other parts")
        self.bytes(_TABLE * count)
        return range(count)

    def bytes(self, count: int) -> None:
        """Takes some bytes."""
        self._bytes -= count
        if count < 0 or self._bytes < 0:
            raise ValueError("its parts take more room than the file has")

    def text(self, value: Any) -> None:
        """Takes a text, which may be left out."""
        self.bytes(len(value or b""))


def check_budget(model: Any, content: bytes) -> None:
    """Checks that reading a whole file takes no longer than its size allows.

    Every list of tables of the schema is walked here, and every text and list of numbers that is
    copied when it is read.

    Args:
        model: the root of the flatbuffer.
        content: the file.

    Raises:
        ValueError: its parts together are longer than the file, or there are too many.
    """
    budget = _Budget(content)
    for index in budget.tables(model.OperatorCodesLength()):
        budget.text(model.OperatorCodes(index).CustomCode())
    for index in budget.tables(model.BuffersLength()):
        buffer = model.Buffers(index)
        budget.bytes(buffer.Size() if buffer.Offset() > 1 else buffer.DataLength())
    for index in budget.tables(model.MetadataLength()):
        budget.text(model.Metadata(index).Name())
    for index in budget.tables(model.SignatureDefsLength()):
        _take_signature(budget, model.SignatureDefs(index))
    budget.tables(model.ExternalBufferGroupsLength())
    budget.tables(model.ExternalBuffersLength())
    for index in budget.tables(model.SubgraphsLength()):
        _take_subgraph(budget, model.Subgraphs(index))


def _take_signature(budget: _Budget, signature: Any) -> None:
    budget.text(signature.SignatureKey())
    for index in budget.tables(signature.InputsLength()):
        budget.text(signature.Inputs(index).Name())
    for index in budget.tables(signature.OutputsLength()):
        budget.text(signature.Outputs(index).Name())


def _take_subgraph(budget: _Budget, graph: Any) -> None:
    budget.text(graph.Name())
    for index in budget.tables(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        budget.text(tensor.Name())
        budget.bytes(_ENTRY * tensor.ShapeLength())
        budget.tables(tensor.VariantTensorsLength())
        sparsity = tensor.Sparsity()
        if sparsity is not None:
            budget.tables(sparsity.DimMetadataLength())
    for index in budget.tables(graph.OperatorsLength()):
        operator = graph.Operators(index)
        budget.bytes(_ENTRY * (operator.InputsLength() + operator.OutputsLength()))
