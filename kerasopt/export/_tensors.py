"""All tensors of a TFLite file: what runs through it, and the constants in it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasopt.export._child import open_runner
from kerasopt.export._interpreter import TFLiteModel, quantize_input

_FILE_IDENTIFIER = b"TFL3"
_KERNEL_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}


@dataclasses.dataclass
class FileTensor:
    """An int8 tensor of the file with its values for all samples."""

    name: str
    scale: float
    zero_point: int
    values: np.ndarray
    operator: str = ""
    taken: bool = False


@dataclasses.dataclass
class FileKernel:
    """An int8 kernel of the file, a row for each output channel, and its int32 bias."""

    levels: np.ndarray
    scale: np.ndarray
    input_scale: float
    bias: np.ndarray | None
    taken: bool = False


class FileContent:
    """The main graph of a TFLite file.

    Args:
        lite: the file, which was loaded: what is none does not get here.
    """

    def __init__(self, lite: TFLiteModel) -> None:
        self._lite = lite
        self._model = schema.ModelT.InitFromPackedBuf(lite.content)
        self._graph = self._model.subgraphs[0]

    def run(self, arrays: Sequence[np.ndarray]) -> list[FileTensor]:
        """Returns every int8 tensor that an operator makes, and the int8 inputs, for some inputs.

        All of them are made outputs of the graph, so that the very kernels run that run in an
        app, XNNPACK included, which keeps its inner tensors to itself otherwise. A file from
        elsewhere runs in a process of its own here too.

        Args:
            arrays: an array for each input of the file, of a multiple of its batch size.
        """
        made = [index for op in self._graph.operators for index in op.outputs]
        watched = [*self._graph.inputs, *made]
        watched = [i for i in dict.fromkeys(watched) if self._is_activation(i)]
        inputs = [int(index) for index in self._graph.inputs]
        outputs = [i for i in dict.fromkeys([*watched, *self._graph.outputs]) if i not in inputs]
        runner = open_runner(
            self._with_outputs(outputs),
            1,
            operators=self._lite.operators,
            isolated=self._lite.isolated,
        )
        values: dict[int, list[np.ndarray]] = {index: [] for index in watched}
        size = self._lite.inputs[0].shape[0] or 1
        for start in range(0, len(arrays[0]), size):
            taken = [
                quantize_input(x[start : start + size], tensor)
                for x, tensor in zip(arrays, self._lite.inputs, strict=True)
            ]
            given = runner.run(taken)
            found = dict(zip([*inputs, *outputs], [*taken, *given], strict=True))
            for index in watched:
                values[index].append(found[index])
        runner.close()
        return [self._file_tensor(index, values[index]) for index in watched]

    def kernels(self) -> list[FileKernel]:
        """Lists the int8 kernels."""
        found = []
        for op in self._graph.operators:
            kind = self._kind(op)
            if kind not in _KERNEL_OPERATORS:
                continue
            weights, bias = op.inputs[1], op.inputs[2] if len(op.inputs) > 2 else -1
            data = op.inputs[0]
            if kind == "TRANSPOSE_CONV":
                data, bias = op.inputs[2], op.inputs[3] if len(op.inputs) > 3 else -1
            levels = self._constant(weights)
            if levels is None or levels.dtype != np.int8:
                continue
            if kind == "DEPTHWISE_CONV_2D":
                levels = np.moveaxis(levels, -1, 0)
            scale = np.asarray(self._graph.tensors[weights].quantization.scale, "float32")
            input_scale = self._graph.tensors[data].quantization.scale
            found.append(
                FileKernel(
                    levels.reshape(len(levels), -1),
                    np.broadcast_to(scale, len(levels)),
                    float(input_scale[0]) if input_scale is not None else 0.0,
                    None if bias < 0 else self._constant(bias),
                )
            )
        return found

    def float_tensors(self) -> list[str]:
        """Lists the names of the float tensors that operators make inside the file."""
        outputs = set(self._graph.outputs)
        return [
            (self._graph.tensors[index].name or b"").decode()
            for op in self._graph.operators
            for index in op.outputs
            if self._graph.tensors[index].type == schema.TensorType.FLOAT32
            and index not in outputs
            and self._kind(op) != "DEQUANTIZE"
        ]

    def _kind(self, op: Any) -> str:
        code = self._model.operatorCodes[op.opcodeIndex]
        return _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def _maker(self, index: int) -> str:
        """Names the operator behind a tensor, looking through those that only move values."""
        for op in reversed(self._graph.operators):
            if index in op.outputs:
                kind = self._kind(op)
                if kind in ("RESHAPE", "TRANSPOSE", "TILE"):
                    return self._maker(op.inputs[0])
                if kind == "DEPTHWISE_CONV_2D":
                    is_point = tuple(self._graph.tensors[op.inputs[1]].shape[1:3]) == (1, 1)
                    return f"{kind} 1x1" if is_point else kind
                return kind
        return ""

    def _is_activation(self, index: int) -> bool:
        tensor = self._graph.tensors[index]
        scaled = tensor.quantization is not None and tensor.quantization.scale is not None
        return bool(
            tensor.type == schema.TensorType.INT8
            and scaled
            and len(tensor.quantization.scale) == 1
            and self._constant(index) is None
        )

    def _file_tensor(self, index: int, values: list[np.ndarray]) -> FileTensor:
        tensor = self._graph.tensors[index]
        return FileTensor(
            (tensor.name or b"").decode(),
            float(tensor.quantization.scale[0]),
            int(tensor.quantization.zeroPoint[0]),
            np.stack(values).astype("int32"),
            self._maker(index),
        )

    def _constant(self, index: int) -> np.ndarray | None:
        tensor = self._graph.tensors[index]
        data = self._model.buffers[tensor.buffer].data
        if data is None or not len(data):
            return None
        kind = {schema.TensorType.INT8: "int8", schema.TensorType.INT32: "<i4"}.get(tensor.type)
        return None if kind is None else np.asarray(data).view(kind).reshape(tensor.shape)

    def _with_outputs(self, outputs: list[int]) -> bytes:
        before = self._graph.outputs, self._model.signatureDefs
        self._graph.outputs = np.asarray(outputs, "int32")
        self._model.signatureDefs = None
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), _FILE_IDENTIFIER)
        self._graph.outputs, self._model.signatureDefs = before
        return bytes(builder.Output())
