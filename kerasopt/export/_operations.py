"""A file beside its quantization-aware model, operation by operation."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasopt._data import batches, count_of
from kerasopt._validation import check_int
from kerasopt.export._convert import packed
from kerasopt.export._interpreter import TFLiteModel
from kerasopt.export._tensors import FileContent, FileKernel, FileTensor
from kerasopt.quantization import (
    DecomposedLayer,
    FakeQuantize,
    KernelLevels,
    float_operations,
    kernel_levels,
    run_observed,
)

MAX_STEPS = 1
MIN_EQUAL = 0.995
_MANY = 1000
# The converter's: `kNearZeroTolerance`, and half of the largest int32.
_NARROWEST = 1e-6
_LARGEST_BIAS = 2**30
ROUND_TWICE = {
    "BATCH_MATMUL": 0.98,
    "DEPTHWISE_CONV_2D 1x1": 0.95,
    "HARD_SWISH": 0.98,
    "RESIZE_BILINEAR": 0.97,
    "RSQRT": 0.96,
}
"""Operators whose kernels round once more than their formula: products of activations to a fraction
of a step, the offset of a map per channel to 1/127 of an input step, hard SiLU in 16-bit fixed
point, weights of an interpolation to 1/1024, inverse roots to 2^-20, which may turn one level of
their input, and with it all values on that."""


@dataclasses.dataclass(frozen=True)
class OperationMatch:
    """An operation of the Keras model beside its int8 tensor in the file, both fed the same.

    Attributes:
        name: of the range behind the operation, without `_range`.
        equal: fraction of the values that are the same integer.
        max_steps: largest difference, in steps of the int8 output; -1 when the file has no tensor
            with that range and shape.
        count: how many values were compared.
        operator: the operator that makes the tensor in the file.
        is_island: whether it stands behind a float island, inside of which TFLite may round too.
    """

    name: str
    equal: float
    max_steps: int
    count: int
    operator: str = ""
    is_island: bool = False


@dataclasses.dataclass(frozen=True)
class OperationReport:
    """Every operation of a quantization-aware model beside the file.

    Attributes:
        operations: an `OperationMatch` for each rounded tensor, in the order of the model.
        kernels: how many kernels hold the same integers in the file.
        unequal_kernels: names of the layers whose kernel or bias does not.
        float_tensors: float tensors of the file that belong to no float island.
    """

    operations: tuple[OperationMatch, ...]
    kernels: int
    unequal_kernels: tuple[str, ...]
    float_tensors: tuple[str, ...]

    def faults(self, *, max_steps: int = MAX_STEPS, min_equal: float = MIN_EQUAL) -> list[str]:
        """Returns what is beyond the bounds, each with the Keras layer named.

        Args:
            max_steps: largest difference of a value, in steps of the int8 output.
            min_equal: smallest fraction of values of an operation that are the same integer.
        """
        found = [_fault(match, max_steps, min_equal) for match in self.operations]
        found += [f"{name}: other integers in its kernel or bias" for name in self.unequal_kernels]
        found += [f"{name}: a float tensor outside of the islands" for name in self.float_tensors]
        return [text for text in found if text]


def _fault(match: OperationMatch, max_steps: int, min_equal: float) -> str:
    if match.max_steps < 0:
        return f"{match.name}: no tensor with its range in the file"
    off = round((1.0 - match.equal) * match.count)
    # A few hundred values do not show a share: one border that they share may hit many.
    min_equal = min_equal if match.count >= _MANY else min(min_equal, 0.95)
    share = min(min_equal, 0.7 if match.is_island else ROUND_TWICE.get(match.operator, 1.0))
    if match.max_steps > max_steps or off > max(1, (1.0 - share) * match.count):
        return (
            f"{match.name}: {1.0 - match.equal:.2%} of {match.count} values differ, "
            f"by up to {match.max_steps} steps"
        )
    return ""


def compare_operations(model: Any, tflite: Any, data: Any, *, samples: int = 2) -> OperationReport:
    """Compares a file with its quantization-aware model, one operation at a time.

    Each operation of the Keras model is fed the file's own int8 input tensors, and its rounded
    output is compared with the file's. So one-step differences do not add up, and whatever is
    found belongs to that operation. Kernels and biases are compared as integers.

    Args:
        model: a quantization-aware model.
        tflite: its int8 file: path, bytes or a `TFLiteModel`.
        data: inputs, in any of the forms of `verify`; several inputs as dicts by name.
        samples: how many of them to use, >= 1.

    Returns:
        An `OperationReport`.

    Raises:
        ValueError: the model is not quantization-aware, there are no inputs, or they are not
            the file's.

    Example:
        >>> import keras, kerasopt as ko, numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> aware = ko.quantization.quantize_aware(model)
        >>> x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
        >>> _ = aware(x, training=True)
        >>> file = ko.export.to_tflite(aware, quantize="int8")
        >>> ko.export.compare_operations(aware, file.content, x).faults()
        []
    """
    check_int("samples", samples, low=1)
    islands = {name.split(" ")[0] for name, _ in float_operations(model)}
    lite = tflite if isinstance(tflite, TFLiteModel) else TFLiteModel(tflite)
    found = _first(data, samples, model, lite)
    content = FileContent(lite)
    matcher = _Matcher(content.run([found[t.name] for t in lite.inputs]), islands)
    names = [t.name for t in model.inputs] if len(found) > 1 else list(found)
    run_observed(model, packed(model, [found[name] for name in names]), matcher)
    kernels = kernel_levels(model)
    unequal = _unequal_kernels(kernels, content)
    return OperationReport(
        operations=tuple(matcher.matches),
        kernels=len(kernels) - len(unequal),
        unequal_kernels=unequal,
        float_tensors=_floats_outside(model, content, islands),
    )


def compare_kernels(model: Any, lite: TFLiteModel) -> OperationReport:
    """Compares the kernels alone, for a file whose ranges are not those of the model.

    A kernel that the file does not have in int8 is not compared: the converter left its operation
    float.
    """
    content = FileContent(lite)
    shapes = {kernel.levels.shape for kernel in content.kernels()}
    # Biases are multiples of a step of the input, which the model does not know.
    kernels = [dataclasses.replace(kernel, bias=None) for kernel in kernel_levels(model)]
    kernels = [kernel for kernel in kernels if kernel.levels.shape in shapes]
    unequal = _unequal_kernels(kernels, content)
    return OperationReport((), len(kernels) - len(unequal), unequal, ())


def _first(data: Any, samples: int, model: Any, lite: TFLiteModel) -> dict[str, np.ndarray]:
    """Returns the first inputs by name, the last one repeated to fill a batch of the file."""
    parts: list[dict[str, np.ndarray]] = []
    for batch, _ in batches(data, name="data"):
        parts.append(batch if isinstance(batch, dict) else {lite.inputs[0].name: batch})
        _check_inputs(parts[-1], model, lite)
        if sum(map(count_of, parts)) >= samples:
            break
    found = {t.name: np.concatenate([part[t.name] for part in parts]) for t in lite.inputs}
    count = min(samples, count_of(found))
    filled = count + -count % (lite.inputs[0].shape[0] or 1)
    rows = np.minimum(np.arange(filled), count - 1)
    return {name: x[rows] for name, x in found.items()}


def _check_inputs(found: dict[str, np.ndarray], model: Any, lite: TFLiteModel) -> None:
    expected = {tensor.name: tensor.shape[1:] for tensor in lite.inputs}
    received = {name: x.shape[1:] for name, x in found.items()}
    is_one = len(expected) == len(model.inputs) == 1
    if received == expected and (is_one or set(expected) == {t.name for t in model.inputs}):
        return
    if is_one and set(received) == set(expected):
        (shape,), (other,) = expected.values(), received.values()
        raise ValueError(
            f"`data` must have the shape {shape} behind the batch, as the file has. "
            f"Received: shape {other}."
        )
    raise ValueError(
        f"`data` and `model` must have the inputs of the file, {expected} behind the batch. "
        f"Received: {received}."
    )


class _Matcher:
    """Finds the file's tensor behind each range, and feeds the file's values on."""

    def __init__(self, tensors: Sequence[FileTensor], islands: set[str]) -> None:
        self._islands = islands
        self.matches: list[OperationMatch] = []
        self._tensors = tensors

    def __call__(self, layer: FakeQuantize, rounded: Any) -> Any:
        computed = np.asarray(rounded)
        scale, zero = levels_of(layer)
        levels = np.round(computed / np.float32(scale)).astype("int32") + zero
        name = layer.name.removesuffix("_range")
        candidates = [t for t in self._tensors if _may_be(t, levels, scale, zero)]
        if not candidates:
            self.matches.append(OperationMatch(name, 0.0, -1, levels.size))
            return computed
        differences = [np.abs(t.values.reshape(levels.shape) - levels) for t in candidates]
        # Operations that are one in the file share a tensor; else each has a tensor of its own.
        best = min(
            range(len(candidates)), key=lambda i: (*_badness(differences[i]), candidates[i].taken)
        )
        chosen, difference = candidates[best], differences[best]
        chosen.taken = True
        self.matches.append(
            OperationMatch(
                name,
                float(np.mean(difference == 0)),
                int(difference.max()),
                levels.size,
                chosen.operator,
                name in self._islands,
            )
        )
        values = chosen.values.reshape(levels.shape)
        return (values - zero).astype("float32") * np.float32(scale)


def levels_of(layer: FakeQuantize) -> tuple[float, int]:
    """Returns scale and int8 zero point of a range, as TensorFlow moves it onto its levels."""
    low, high = layer.range_value()
    scale = (np.float32(high) - np.float32(low)) / np.float32(255.0)
    return float(scale), int(np.floor(-low / scale + 0.5)) - 128


def _may_be(tensor: FileTensor, levels: np.ndarray, scale: float, zero: int) -> bool:
    return (
        tensor.values.size == levels.size
        and abs(tensor.scale - scale) <= 1e-4 * scale
        and tensor.zero_point == zero
    )


def _badness(difference: np.ndarray) -> tuple[float, int]:
    return float(np.mean(difference != 0)), int(difference.max())


def _unequal_kernels(kernels: Sequence[KernelLevels], content: FileContent) -> tuple[str, ...]:
    """Lists the layers whose integers no kernel of the file has."""
    found = content.kernels()
    unequal = []
    for kernel in kernels:
        match = next((k for k in found if not k.taken and _same_levels(kernel, k)), None)
        if match is None:
            unequal.append(kernel.layer)
            continue
        match.taken = True
        if not _same_bias(kernel, match):
            unequal.append(f"{kernel.layer} (bias)")
    return tuple(unequal)


def _same_levels(kernel: KernelLevels, file: FileKernel) -> bool:
    if kernel.levels.shape != file.levels.shape:
        return False
    # A BatchNormalization may turn the sign of a channel, and its factor may be 0.
    sign = np.ones(len(kernel.levels)) if kernel.factor is None else np.sign(kernel.factor)
    own, wider = _own_scale(kernel), _file_scale(kernel, file)
    is_wider = wider > 1.0001 * own
    ratio = np.where(is_wider, own / np.where(is_wider, wider, 1.0), 1.0)
    expected = np.round(kernel.levels * (sign * ratio)[:, None])
    # Where the step is the file's, a weight halfway between two levels falls to either side.
    return bool(np.all(np.abs(expected - file.levels) <= is_wider[:, None]))


def _own_scale(kernel: KernelLevels) -> np.ndarray:
    return kernel.scale if kernel.factor is None else kernel.scale * np.abs(kernel.factor)


def _file_scale(kernel: KernelLevels, file: FileKernel) -> np.ndarray:
    """Returns the step of each channel in the file, which is wider where a channel is dead.

    Ranges narrower than `_NARROWEST` are widened, and so is a kernel's whose bias, in steps of
    input and kernel, would not fit into `_LARGEST_BIAS`.
    """
    scale = np.maximum(_own_scale(kernel), _NARROWEST / 2 / 127)
    if kernel.bias is None:
        return scale
    return np.maximum(scale, np.abs(kernel.bias) / file.input_scale / _LARGEST_BIAS)


def _same_bias(kernel: KernelLevels, file: FileKernel) -> bool:
    if kernel.bias is None:
        return True
    step = _file_scale(kernel, file).astype("float64") * file.input_scale
    expected = np.round(kernel.bias / step)
    found = np.zeros(len(step)) if file.bias is None else file.bias
    # float32 has 24 bits: larger integers are equal up to those.
    return bool(np.all(np.abs(expected - found) <= 1.0 + 1e-6 * np.abs(expected)))


def _floats_outside(model: Any, content: FileContent, islands: set[str]) -> tuple[str, ...]:
    """Lists float tensors whose name holds no float island's."""
    plain = {layer.name for layer in model.layers if not isinstance(layer, DecomposedLayer)}
    # What is no layer has no scope of its own in the names of TensorFlow: `model/Softplus`,
    # `model/reduce_variance/Mean`.
    is_scoped = all(name in plain for name, _ in float_operations(model))
    names = {layer.name for layer in model.layers}
    return tuple(
        name
        for name in content.float_tensors()
        if not any(
            re.search(rf"/{re.escape(island)}(_wall|_range)?(_\d+)*/", f"/{name}/")
            for island in islands
        )
        and not (not is_scoped and _has_no_layer(name, names))
    )


def _has_no_layer(name: str, layers: set[str]) -> bool:
    """Tells whether a tensor of the file has no layer in its name, behind the model's."""
    scopes = re.split(r"[/;]", name)[1:]
    return not any(
        re.sub(r"(_\d+)$", "", scope) in layers or scope in layers for scope in scopes[:-1]
    )
