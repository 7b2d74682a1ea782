"""From a Keras model to TFLite bytes, with the converter of TensorFlow."""

import contextlib
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._files import file_errors
from kerasopt.export._blame import explain

_MANY_BYTES = 2**30
"""Of weights: constants stand in the graph itself, which holds less than 2 GiB."""


def convert(
    model: Any,
    *,
    quantize: str | None,
    representative: Callable[[], Iterator[dict[str, np.ndarray]]] | None,
    quantization_aware: bool,
    input_dtype: str,
    output_dtype: str,
    output_names: Sequence[str],
    allow_flex: bool = False,
) -> bytes:
    """Returns the TFLite file of a model, builtin operators only unless others are allowed.

    Raises:
        ValueError: an operator has no TFLite builtin.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        with file_errors(folder):
            _save(model, folder, output_names)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        builtins = tf.lite.OpsSet.TFLITE_BUILTINS
        flex = [tf.lite.OpsSet.SELECT_TF_OPS] if allow_flex else []
        converter.target_spec.supported_ops = [builtins, *flex]
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            if not input_dtype.startswith("int") or input_dtype == "int8":
                converter.inference_input_type = tf.as_dtype(input_dtype)
            converter.inference_output_type = tf.as_dtype(output_dtype)
            if not quantization_aware:
                converter.representative_dataset = representative
                converter.target_spec.supported_ops = [
                    tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                    builtins,
                    *flex,
                ]
        if quantize == "int16x8":
            converter.representative_dataset = representative
            int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            converter.target_spec.supported_ops = [int16, builtins, *flex]
        try:
            return bytes(converter.convert())
        except Exception as error:
            # The converter raises bare types of its own; its text names the operator.
            raise ValueError(explain(error, model)) from error


def with_batch(model: Any, batch_size: int | None) -> Any:
    """Returns the model on inputs with a batch size, `None` for an open one."""
    inputs = [
        keras.Input(batch_shape=(batch_size, *t.shape[1:]), dtype=t.dtype, name=t.name)
        for t in model.inputs
    ]
    structure = packed(model, inputs)
    return keras.Model(structure, model(structure, training=False), name=model.name)


def packed(model: Any, tensors: list[Any]) -> Any:
    """Returns tensors, given in the order of `model.inputs`, in the structure that it takes."""
    structure = getattr(model, "input", None)  # a Sequential model may have none yet
    if structure is None:
        return tensors[0] if len(tensors) == 1 else tensors
    return keras.tree.pack_sequence_as(structure, tensors)


def output_names(model: Any) -> tuple[str, ...]:
    """Returns a name for each output: those of the layers, numbered where two are the same."""
    names = [str(n) for n in getattr(model, "output_names", None) or [model.layers[-1].name]]
    count = len(model.outputs)
    if len(names) != count:
        names = [f"output_{index}" for index in range(count)]
    return tuple(
        name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)
    )


def _save(model: Any, folder: str, output_names: Sequence[str]) -> None:
    """Saves the model with a signature in which inputs and outputs have their Keras names."""

    def serve(*tensors: Any) -> dict[str, Any]:
        inputs = packed(model, list(tensors))
        outputs = keras.tree.flatten(model(inputs, training=False))
        return dict(zip(output_names, outputs, strict=True))

    signature = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    concrete = _trace(serve, signature, model)
    if _only_variables(concrete):
        # Keras' archive walks through all that a model holds and writes three functions of it,
        # and gradients need functions of their own: that takes several times as long.
        root = tf.Module()
        root.used = list(concrete.graph.variables)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(root, folder, signatures=concrete, options=options)
        return
    archive = keras.export.ExportArchive()  # it finds lookup tables too
    archive.track(model)
    archive.add_endpoint("serve", fn=serve, input_signature=signature)
    archive.write_out(folder, verbose=False)


def _trace(serve: Callable[..., Any], signature: Sequence[Any], model: Any) -> Any:
    """Returns the traced function, its weights as constants unless a call changes one.

    The converter makes constants of them anyway, but first variables are written, read, assigned
    and folded one by one, which takes longer than all the rest.
    """

    def traced(function: Callable[..., Any]) -> Any:
        compiled = tf.function(function, input_signature=signature, autograph=False)
        return compiled.get_concrete_function()

    variables = list({id(variable): variable for variable in model.variables}.values())
    if sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables) > _MANY_BYTES:
        return traced(serve)
    scope = keras.StatelessScope([(v, tf.constant(v.value)) for v in variables])
    before = [scope.get_current_value(variable) for variable in variables]

    def constant(*tensors: Any) -> Any:
        with scope:
            return serve(*tensors)

    function = traced(constant)
    after = [scope.get_current_value(variable) for variable in variables]
    moves_on = any(old is not new for old, new in zip(before, after, strict=True))
    return traced(serve) if moves_on else function


def _only_variables(function: Any) -> bool:
    """Returns whether a function uses no resource but variables."""
    handles = {id(variable.handle) for variable in function.graph.variables}
    used = (tensor for tensor, _ in function.graph.captures if tensor.dtype == tf.resource)
    return all(id(tensor) in handles for tensor in used)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the converter's chatter; its errors come as exceptions."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    before = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if before is not None:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = before
