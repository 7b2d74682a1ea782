"""Whether a model ends in logits or in probabilities, read from its last operation."""

from typing import Any

from kerasopt._backend import keras
from kerasopt._validation import check_choice

KINDS = ("logits", "probabilities")

_SEE_THROUGH = (
    "Cast",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "Identity",
    "Reshape",
    "Squeeze",
)
"""Operations that make no probabilities of logits: what counts stands before them."""
_SMALLEST = 1e-7


def output_kind(model: Any, given: str | None, argument: str) -> str:
    """Returns `"logits"` or `"probabilities"`, as the caller said or as the graph shows.

    Args:
        model: a Keras model.
        given: what the caller said, or `None`.
        argument: the name of that argument.

    Raises:
        ValueError: `given` is neither, the graph does not tell and nothing was given, or the
            model ends in independent probabilities of several classes.
    """
    if given is not None:
        return given
    last, activation = _ending(model)
    if activation in ("linear", "log_softmax"):
        return "logits"
    if activation == "softmax":
        return "probabilities"
    if activation == "sigmoid":
        if model.output_shape[-1] == 1:
            return "probabilities"
        raise ValueError(
            f"`{argument}` must be one of 'logits', 'probabilities' of classes that exclude each "
            f"other. Received: model {model.name!r}, which ends in a sigmoid of "
            f"{model.output_shape[-1]} outputs."
        )
    raise ValueError(
        f"`{argument}` must be 'logits' or 'probabilities' where the last operation does not tell. "
        f"Received: {argument}=None and model {model.name!r}, which ends in {last}."
    )


def check_kind(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is `None` or a kind of outputs."""
    if value is not None:
        check_choice(name, value, KINDS)


def of_student(model: Any, given: str | None) -> str:
    """Returns the kind of the student's outputs; a compiled loss tells of a hidden graph."""
    try:
        return output_kind(model, given, "student_outputs")
    except ValueError:
        losses = keras.tree.flatten(model.loss)
        configs: list[Any] = [getattr(loss, "get_config", dict)() for loss in losses]
        said = {config["from_logits"] for config in configs if "from_logits" in config}
        if _ending(model)[1] is not None or len(said) != 1:
            raise
        return "logits" if said.pop() else "probabilities"


def as_logits(outputs: Any, kind: str) -> Any:
    """Returns float32 logits (batch, ..., classes) of at least two classes.

    Logarithms of probabilities are logits, up to a constant that no softmax sees. A single output
    is the second of two classes, and the first has the logit 0.
    """
    outputs = keras.ops.cast(outputs, "float32")
    single = outputs.shape[-1] == 1
    if kind == "probabilities":
        outputs = keras.ops.clip(outputs, _SMALLEST, 1.0 - _SMALLEST if single else 1.0)
        other = keras.ops.log1p(-outputs) if single else 0.0
        outputs = keras.ops.log(outputs) - other
    if single:
        return keras.ops.concatenate([keras.ops.zeros_like(outputs), outputs], axis=-1)
    return outputs


def _ending(model: Any) -> tuple[str, str | None]:
    """Returns what a model ends in, for people, and the name of the activation if it is known."""
    if not getattr(model, "outputs", None) or not isinstance(
        model, keras.Function | keras.Sequential
    ):
        return "an operation that Keras does not know (a subclassed model)", None
    wanted = model.outputs[0]
    operations = list(getattr(model, "operations", model.layers))
    while True:
        producer = next((op for op in operations if _tensor(op, "output") is wanted), None)
        if producer is None:
            return "an operation that is called more than once", None
        if isinstance(producer, keras.Function | keras.Sequential):
            return _ending(producer)
        kind = type(producer).__name__
        activation = _activation(producer)
        if kind not in _SEE_THROUGH and not (kind == "Activation" and activation == "linear"):
            return f"{kind} {producer.name!r}", activation
        wanted = _tensor(producer, "input")


def _activation(operation: Any) -> str | None:
    kind = type(operation).__name__
    if kind in ("Softmax", "Sigmoid", "LogSoftmax"):
        return {"LogSoftmax": "log_softmax"}.get(kind, kind.lower())
    function = getattr(operation, "activation", None)
    if function is None:
        return None
    name = getattr(function, "__name__", "")
    known = getattr(keras.activations, name, None) is function
    return name if known else None


def _tensor(operation: Any, side: str) -> Any:
    try:
        return getattr(operation, side)
    except (AttributeError, ValueError):  # called more than once, or never by itself
        return None
