"""An optimizer that knows every variable that may ever train."""

from typing import Any

from kerasopt._backend import keras


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
    known = _built_on(optimizer)
    if {id(variable) for variable in variables} <= {id(variable) for variable in known}:
        return
    grown = type(optimizer).from_config(optimizer.get_config())
    grown.build(variables)
    place = {id(variable): index for index, variable in enumerate(variables)}
    _carry(optimizer, grown, [place.get(id(variable)) for variable in known])
    model.optimizer = grown
    # The step traced before holds the old optimizer.
    type(model).make_train_function(model, force=True)


# Keras has no public way to tell which variables an optimizer was built on, nor which slot belongs
# to which of them (Adafactor gives all its slots the same few names). These two functions hold
# that exception: slots are lists in the order of the variables. Pinned by tests/test_training.py.


def _built_on(optimizer: Any) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # behind a LossScaleOptimizer
    return list(inner._trainable_variables)


def _carry(old: Any, new: Any, places: list[int | None]) -> None:
    """Copies every slot of `old` to `new`; `places` maps an index of the old lists to the new."""
    for name, value in vars(old).items():
        target = vars(new).get(name)
        if name in ("_variables", "_trainable_variables") or name.startswith("_self_"):
            continue  # the model's own variables, and TensorFlow's bookkeeping
        if isinstance(value, keras.optimizers.Optimizer):
            _carry(value, target, places)
        elif isinstance(value, list) and len(value) == len(places):
            for slot, place in zip(value, places, strict=True):
                if place is not None:
                    _copy(slot, target[place])
        elif isinstance(value, dict):
            for key in value.keys() & (target or {}).keys():
                _copy(value[key], target[key])
        else:
            _copy(value, target)


def _copy(source: Any, target: Any) -> None:
    if isinstance(source, keras.Variable) and isinstance(target, keras.Variable):
        target.assign(source)
