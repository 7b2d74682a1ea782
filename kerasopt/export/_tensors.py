"""All tensors of a TFLite file: what runs through it, and the constants in it."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasopt.export._child import open_runner
from kerasopt.export._interpreter import TFLiteModel, input_arrays, quantize_input

FILE_IDENTIFIER = b"TFL3"
_KERNEL_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}


_NUMBERS = [
    getattr(schema.TensorType, name)
    for name in ("FLOAT32", "FLOAT16", "INT8", "UINT8", "INT16", "INT32", "INT64")
]


@dataclasses.dataclass(frozen=True)
class Activation:
    """A tensor inside a TFLite file with its values for some inputs.

    Attributes:
        name: of the tensor; the converter keeps the names of Keras layers in it.
        operator: the operator that makes it.
        values: real numbers (batch, ...), whatever the file computes in.
    """

    name: str
    operator: str
    values: np.ndarray = dataclasses.field(repr=False)


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

    Attributes:
        lite: the same.
        model: the file's objects, as the schema has them.
        graph: its main graph.
    """

    def __init__(self, lite: TFLiteModel) -> None:
        self.lite = lite
        self.model = schema.ModelT.InitFromPackedBuf(lite.content)
        self.graph = self.model.subgraphs[0]

    def run(self, arrays: Sequence[np.ndarray]) -> list[FileTensor]:
        """Returns every int8 tensor that an operator makes, and the int8 inputs, for some inputs.

        All of them are made outputs of the graph, so that the very kernels run that run in an
        app, XNNPACK included, which keeps its inner tensors to itself otherwise. A file from
        elsewhere runs in a process of its own here too.

        Args:
            arrays: an array for each input of the file, of a multiple of its batch size.
        """
        made = [index for op in self.graph.operators for index in op.outputs]
        watched = [*self.graph.inputs, *made]
        watched = [i for i in dict.fromkeys(watched) if self._is_activation(i)]
        return [self._file_tensor(i, values) for i, values in self.watch(watched, arrays)]

    def activations(self, arrays: Sequence[np.ndarray]) -> list[Activation]:
        """Returns every tensor that an operator makes from the inputs, as real numbers."""
        varying = set(map(int, self.graph.inputs))
        kinds: dict[int, str] = {}
        for op in self.graph.operators:
            if not varying.isdisjoint(map(int, op.inputs)):
                varying.update(map(int, op.outputs))
                kinds |= {int(i): self.kind_of(op) for i in op.outputs if self._is_real(i)}
        return [
            Activation(
                (self.graph.tensors[index].name or b"").decode(),
                kinds[index],
                self._real(index, np.concatenate(values)),
            )
            for index, values in self.watch(list(kinds), arrays)
        ]

    def watch(
        self, watched: list[int], arrays: Sequence[np.ndarray]
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yields the values of some tensors as the file holds them, for each batch of the inputs.

        Args:
            watched: their numbers in the main graph.
            arrays: real numbers for each input.
        """
        inputs = [int(index) for index in self.graph.inputs]
        outputs = [i for i in dict.fromkeys([*watched, *self.graph.outputs]) if i not in inputs]
        runner = open_runner(
            self._with_outputs(outputs),
            1,
            operators=self.lite.operators,
            isolated=self.lite.isolated,
            time_limit=self.lite.time_limit,
        )
        values: dict[int, list[np.ndarray]] = {index: [] for index in watched}
        size = self.lite.inputs[0].shape[0] or 1
        for start in range(0, len(arrays[0]), size):
            taken = [
                quantize_input(x[start : start + size], tensor)
                for x, tensor in zip(arrays, self.lite.inputs, strict=True)
            ]
            given = runner.run(taken)
            found = dict(zip([*inputs, *outputs], [*taken, *given], strict=True))
            for index in watched:
                values[index].append(found[index])
        runner.close()
        yield from values.items()

    def _is_real(self, index: int) -> bool:
        tensor = self.graph.tensors[index]
        scales = tensor.quantization.scale if tensor.quantization is not None else None
        return tensor.type in _NUMBERS and (scales is None or len(scales) <= 1)

    def _real(self, index: int, values: np.ndarray) -> np.ndarray:
        quantization = self.graph.tensors[index].quantization
        if quantization is None or quantization.scale is None or not len(quantization.scale):
            return values.astype("float32")
        steps = values.astype("float32") - np.float32(quantization.zeroPoint[0])
        return steps * np.float32(quantization.scale[0])

    def kernels(self) -> list[FileKernel]:
        """Lists the int8 kernels."""
        found = []
        for op in self.graph.operators:
            kind = self.kind_of(op)
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
            scale = np.asarray(self.graph.tensors[weights].quantization.scale, "float32")
            input_scale = self.graph.tensors[data].quantization.scale
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
        outputs = set(self.graph.outputs)
        return [
            (self.graph.tensors[index].name or b"").decode()
            for op in self.graph.operators
            for index in op.outputs
            if self.graph.tensors[index].type == schema.TensorType.FLOAT32
            and index not in outputs
            and self.kind_of(op) != "DEQUANTIZE"
        ]

    def kind_of(self, op: Any) -> str:
        """Names the kind of an operator."""
        code = self.model.operatorCodes[op.opcodeIndex]
        return _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def _maker(self, index: int) -> str:
        """Names the operator behind a tensor, looking through those that only move values."""
        # An operator stands behind what it reads, so one pass from the end follows the values.
        for op in reversed(self.graph.operators):
            if index in op.outputs:
                kind = self.kind_of(op)
                if kind in ("RESHAPE", "TRANSPOSE", "TILE"):
                    index = op.inputs[0]
                    continue
                if kind == "DEPTHWISE_CONV_2D":
                    is_point = tuple(self.graph.tensors[op.inputs[1]].shape[1:3]) == (1, 1)
                    return f"{kind} 1x1" if is_point else kind
                return kind
        return ""

    def _is_activation(self, index: int) -> bool:
        tensor = self.graph.tensors[index]
        scaled = tensor.quantization is not None and tensor.quantization.scale is not None
        return bool(
            tensor.type == schema.TensorType.INT8
            and scaled
            and len(tensor.quantization.scale) == 1
            and self._constant(index) is None
        )

    def _file_tensor(self, index: int, values: list[np.ndarray]) -> FileTensor:
        tensor = self.graph.tensors[index]
        return FileTensor(
            (tensor.name or b"").decode(),
            float(tensor.quantization.scale[0]),
            int(tensor.quantization.zeroPoint[0]),
            np.stack(values).astype("int32"),
            self._maker(index),
        )

    def _constant(self, index: int) -> np.ndarray | None:
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data):
            return None
        kind = {schema.TensorType.INT8: "int8", schema.TensorType.INT32: "<i4"}.get(tensor.type)
        return None if kind is None else np.asarray(data).view(kind).reshape(tensor.shape)

    def _with_outputs(self, outputs: list[int]) -> bytes:
        before = self.graph.outputs, self.model.signatureDefs
        self.graph.outputs = np.asarray(outputs, "int32")
        self.model.signatureDefs = None
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), FILE_IDENTIFIER)
        self.graph.outputs, self.model.signatureDefs = before
        return bytes(builder.Output())


def activations(file: Any, images: Any) -> tuple[Activation, ...]:
    """Runs a TFLite file, and returns every tensor that its operators make.

    All of them are made outputs of the graph, so that the very kernels run that run in an app.
    Everything is kept in memory: a few images at a time are enough.

    Args:
        file: path, bytes or a `TFLiteModel`.
        images: as `TFLiteModel.predict` takes them, but arrays only; a file with a fixed batch
            takes a multiple of it.

    Returns:
        An `Activation` for each tensor of the main graph that hangs on the inputs, in the order
        in which they are made.

    Raises:
        ValueError: it is not a TFLite file, or the shape is not the file's.
        FileNotFoundError: there is no such file.

    Example:
        >>> import keras, kerasopt as ko, numpy as np
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)]
        ... )
        >>> made = activations(ko.export.to_tflite(model).content, np.ones((3, 8)))
        >>> [(tensor.operator, tensor.values.shape) for tensor in made]
        [('FULLY_CONNECTED', (3, 4)), ('FULLY_CONNECTED', (3, 2))]
    """
    lite = file if isinstance(file, TFLiteModel) else TFLiteModel(file)
    arrays = input_arrays(lite, images)
    size = lite.inputs[0].shape[0] or 1
    if not len(arrays[0]) or len(arrays[0]) % size:
        raise ValueError(
            f"`images` must fill batches of {size}, which the file takes. "
            f"Received: {len(arrays[0])} images."
        )
    return tuple(FileContent(lite).activations(arrays))
