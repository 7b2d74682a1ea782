"""The rows of a Keras model: weights read from the layers, MACs and shapes from one trace."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from kerasopt._backend import keras, tf
from kerasopt._layer_filter import walk_layers
from kerasopt.profiling._activations import Activations, LiveTensors, activations_of
from kerasopt.profiling._macs import count_macs, layer_macs
from kerasopt.profiling._report import LayerProfile, Profile, Shape
from kerasopt.profiling._weights import Weight, count

_REST = "(outside of layers)"


class _Call(NamedTuple):
    output_shape: Shape | None
    dtype: str
    macs: int | None  # of one image
    graph_macs: int | None  # of the batch, as far as the graph of the model shows them
    activations: Activations | None = None


def profile_keras(
    model: Any, *, source: str | None = None, file_bytes: int | None = None
) -> Profile:
    """Profiles a built model.

    Raises:
        ValueError: the model is not built.
    """
    if not model.built:
        raise ValueError(
            "`model_or_tflite` must be a built model. "
            f"Received: {model.name!r} without weights. "
            "Call it on a batch, or give its first layer keras.Input(shape)."
        )
    layers = [
        (path, layer)
        for path, layer in walk_layers(model)
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    calls, rest, live, notes = _trace(model, [layer for _, layer in layers])
    seen: set[int] = set()
    rows = [_row(path, layer, calls.get(id(layer), []), live, seen) for path, layer in layers]
    outside = _counts(model.weights, seen)
    if outside["parameters"] or rest:
        rows.append(LayerProfile(_REST, type(model).__name__, None, "", macs=rest, **outside))
    if any(row.macs is None for row in rows):
        notes.append(
            "MACs with ? hang on a size that the model leaves open; totals leave them out."
        )
    return Profile(source or model.name, tuple(rows), file_bytes, tuple(notes))


def _row(
    path: str, layer: Any, calls: list[_Call], live: LiveTensors | None, seen: set[int]
) -> LayerProfile:
    counts = _counts(layer.weights, seen)
    macs = [call.macs for call in calls]
    kept = [call.activations for call in calls if call.activations is not None]
    return LayerProfile(
        path,
        type(layer).__name__,
        calls[0].output_shape if calls else None,
        calls[0].dtype if calls else "",
        macs=None if None in macs else sum(macs),  # type: ignore[arg-type]
        activation_bytes=_known(sum, [live.made(a) for a in kept] if live else []),
        live_bytes=_known(max, [live.live(a) for a in kept] if live else []),
        **counts,
    )


def _known(combine: Any, sizes: list[int | None]) -> int | None:
    return combine(sizes) if sizes and None not in sizes else None


def _counts(variables: list[Any], seen: set[int]) -> dict[str, int]:
    """Counts the variables that no earlier layer has."""
    weights = []
    for variable in variables:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        values = np.asarray(keras.ops.convert_to_numpy(variable))
        bits = values.dtype.itemsize * 8
        weights.append(Weight(values, bits, values.nbytes, values.size, values.ndim >= 2))
    return count(weights)._asdict()


def _trace(
    model: Any, layers: list[Any]
) -> tuple[dict[int, list[_Call]], int | None, LiveTensors | None, list[str]]:
    """Traces the model once for one image; returns calls, MACs outside, activations and notes."""
    specs = _input_specs(model)
    if specs is None:
        note = "Shapes and MACs are unknown: the model does not tell the shape of its input."
        return {id(layer): [_Call(None, "", None, None)] for layer in layers}, 0, None, [note]
    batch = keras.tree.flatten(specs)[0].shape[0]
    calls: dict[int, list[_Call]] = {}

    def record(layer: Any, call: Any) -> Any:
        return _recording(layer, call, calls.setdefault(id(layer), []), batch)

    with replaced_calls(layers, record):
        function = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
        graph = function.get_concrete_function(specs).graph
    every = [call for each in calls.values() for call in each]
    live = LiveTensors(graph, [call.activations for call in every if call.activations], batch)
    total = count_macs(graph.get_operations())
    inside = [call.graph_macs for call in every]
    if total is None or None in inside:
        return calls, 0, live, []
    return calls, max(0, total - sum(inside)) // batch, live, []  # type: ignore[arg-type]


def _input_specs(model: Any) -> Any:
    """Returns the structure of TensorSpecs that the model takes, with a batch of one."""

    def spec(shape: Any, dtype: Any) -> Any:
        return tf.TensorSpec([shape[0] or 1, *shape[1:]], dtype)

    inputs = getattr(model, "input", None)
    if inputs is not None:
        return keras.tree.map_structure(lambda x: spec(x.shape, x.dtype), inputs)
    shape = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shape, list | tuple) and all(s is None or isinstance(s, int) for s in shape):
        return spec(shape, model.compute_dtype)
    return None


@contextlib.contextmanager
def replaced_calls(layers: list[Any], wrap: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Replaces the `call` of the layers while the context is open.

    `call` is public and looked up on the instance, so an attribute of the same name stands before
    the method for a moment; one that was there already (a twin in training) is put back.

    Args:
        layers: those whose calls are replaced.
        wrap: called with a layer and its `call`; returns the new one.
    """
    saved = [(layer, vars(layer).get("call")) for layer in layers]
    try:
        for layer in layers:
            layer.call = wrap(layer, layer.call)
        yield
    finally:
        for layer, before in saved:
            if before is not None:
                layer.call = before
            elif "call" in vars(layer):
                del layer.call


def _recording(layer: Any, call: Any, calls: list[_Call], batch: int) -> Any:
    def recording_call(*args: Any, **kwargs: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        outputs = call(*args, **kwargs)
        added = graph.get_operations()[before:]
        first = keras.tree.flatten((args, kwargs))[0]
        macs = layer_macs(layer, first, outputs, added)
        per_image = None if macs is None else macs // batch
        read = activations_of(before, before + len(added), (args, kwargs), outputs)
        calls.append(_Call(*_describe(outputs), per_image, count_macs(added), read))
        return outputs

    recording_call.__name__ = f"recorded_{layer.name}"
    return recording_call


def _describe(outputs: Any) -> tuple[Shape | None, str]:
    tensors = [x for x in keras.tree.flatten(outputs) if hasattr(x, "shape")]
    if not tensors or tensors[0].shape.rank is None:
        return None, ""
    first = tensors[0]
    return (None, *first.shape.as_list()[1:]), first.dtype.name
