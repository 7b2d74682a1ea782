"""An optimizer that knows every variable that may ever train."""

from collections import defaultdict, deque
from typing import Any


def build_optimizer(model: Any, variables: list[Any]) -> None:
    """Builds the model's optimizer on `variables` before the first step needs it.

    An optimizer keeps slots only for the variables it was built on and refuses others later
    ("Unknown variable"). One that was built on fewer variables is replaced by its copy on all of
    them, with every slot and the iteration count carried over.

    Args:
        model: a compiled `keras.Model`.
        variables: every variable that may train at any time of the coming `fit`.
    """
    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(variables)
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # behind a LossScaleOptimizer
    if _knows(inner, variables):
        return
    values: dict[str, deque[Any]] = defaultdict(deque)
    for variable in optimizer.variables:
        values[variable.path].append(variable.numpy())
    grown = type(optimizer).from_config(optimizer.get_config())
    grown.build(variables)
    for variable in grown.variables:
        if values[variable.path]:
            variable.assign(values[variable.path].popleft())
    model.optimizer = grown


def _knows(optimizer: Any, variables: list[Any]) -> bool:
    # Keras has no public list of the variables an optimizer was built on; `get_config` and
    # `variables` name slots only. Pinned by tests/test_training.py.
    known = {id(variable) for variable in optimizer._trainable_variables}
    return all(id(variable) in known for variable in variables)
