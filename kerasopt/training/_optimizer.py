"""An optimizer that knows every variable that may ever train, and how far it has come."""

import weakref
from typing import Any

import numpy as np

from kerasopt._backend import keras

# By optimizer: the batch count at which a variable that joined late began, by the variable's key.
_STARTS: "weakref.WeakKeyDictionary[Any, dict[Any, int]]" = weakref.WeakKeyDictionary()


def build_optimizer(model: Any, variables: list[Any]) -> None:
    """Builds the model's optimizer on `variables` before the first step needs it.

    An optimizer keeps slots only for the variables it was built on and refuses others later
    ("Unknown variable"). One that was built on fewer variables is replaced by its copy on all of
    them, with every slot and the iteration count carried over.

    Args:
        model: a compiled `keras.Model`.
        variables: every variable that may train at any time of the coming `fit`.

    Raises:
        ValueError: the optimizer is a `MultiOptimizer`, which in Keras takes no step unless every
            variable it was built on has a gradient.
    """
    optimizer = model.optimizer
    if hasattr(optimizer, "optimizers"):
        raise ValueError(
            "`optimizer` must be one that can leave variables alone, and a MultiOptimizer needs a "
            "gradient for all of its variables at every step. "
            f"Received: optimizer={optimizer.name!r}. Compile with one optimizer and give groups "
            "of layers their own rates with ko.transfer.LayerwiseLearningRate."
        )
    if not optimizer.built:
        with model.distribute_strategy.scope():
            optimizer.build(variables)
        return
    places = slot_places(optimizer)
    if all(variable_key(optimizer, variable) in places for variable in variables):
        return
    # What it knew before comes along, so that no state is lost.
    wanted = {id(variable) for variable in variables}
    known = [v for v in model.variables if variable_key(optimizer, v) in places]
    _replace_optimizer(model, variables + [v for v in known if id(v) not in wanted])


def trim_optimizer(model: Any) -> None:
    """Leaves a model an optimizer of the variables that train now, as a saved file needs it.

    Keras builds the optimizer of a loaded model on what trains, and drops a saved state of more.

    Args:
        model: a compiled `keras.Model`.
    """
    optimizer = model.optimizer
    if not optimizer.built or hasattr(optimizer, "optimizers"):
        return
    training = {variable_key(optimizer, variable) for variable in model.trainable_variables}
    if training < set(slot_places(optimizer)):
        _replace_optimizer(model, model.trainable_variables)


def _replace_optimizer(model: Any, variables: list[Any]) -> None:
    """Replaces the optimizer by its copy on other variables, its state carried over."""
    optimizer = model.optimizer
    with model.distribute_strategy.scope():
        copy = type(optimizer).from_config(optimizer.get_config())
        # What is excluded from weight decay stands in no config.
        inner_optimizer(copy).exclude_from_weight_decay(_without_decay(optimizer, model))
        copy.build(variables)
    places, new_places = slot_places(optimizer), slot_places(copy)
    common = {places[key]: new_places[key] for key in places if key in new_places}
    _carry(optimizer, copy, common, len(places))
    averages = _averages(inner_optimizer(optimizer)), _averages(inner_optimizer(copy))
    for old, new in common.items() if averages[0] else ():
        _copy(averages[0][old], averages[1][new])
    late_starts(copy).update(late_starts(optimizer))
    model.optimizer = copy
    # The step traced before holds the old optimizer.
    type(model).make_train_function(model, force=True)


def count_steps(optimizer: Any) -> int:
    """Returns how many batches an optimizer has seen (gradient accumulation counts each).

    Args:
        optimizer: a Keras optimizer, built or not.
    """
    return int(keras.ops.convert_to_numpy(iteration_variable(optimizer)))


def late_starts(optimizer: Any) -> dict[Any, int]:
    """Returns when variables that joined late began, by key: what an optimizer is told of it."""
    return _STARTS.setdefault(inner_optimizer(optimizer), {})


def iteration_variable(optimizer: Any) -> Any:
    """Returns the variable that counts an optimizer's batches."""
    # `optimizer.iterations` is a quotient when gradients accumulate; the variable comes first.
    return inner_optimizer(optimizer).variables[0]


def inner_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer behind a `LossScaleOptimizer`, else the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


# Keras has no public way to tell which variables an optimizer was built on, nor which slot belongs
# to which of them (Adafactor gives all its slots the same few names). The functions below hold
# that exception: slots are lists in the order of the variables, and `_trainable_variables_indices`
# maps a variable's key to its place. Pinned by tests/test_training.py.


def variable_key(optimizer: Any, variable: Any) -> Any:
    """Returns the key of a variable, also of one replica's part of it."""
    return inner_optimizer(optimizer)._var_key(variable)


def slot_places(optimizer: Any) -> dict[Any, int]:
    """Maps the key of each variable an optimizer was built on to its place in the slot lists."""
    return dict(inner_optimizer(optimizer)._trainable_variables_indices)


def is_untouched(optimizer: Any, variable: Any) -> bool:
    """Tells whether an optimizer has not stepped on a variable yet: its slots are as built.

    Args:
        optimizer: a Keras optimizer.
        variable: a `keras.Variable`; one that the optimizer does not know is untouched.
    """
    places = slot_places(optimizer)
    key = variable_key(optimizer, variable)
    if key not in places:
        return True
    for name, slots in vars(inner_optimizer(optimizer)).items():
        if not _is_slot_list(name, slots, len(places)):
            continue
        slot = slots[places[key]]
        if isinstance(slot, keras.Variable) and np.any(keras.ops.convert_to_numpy(slot)):
            # Averages and copies begin with the variable's own value.
            if slot.shape == variable.shape and bool(keras.ops.all(slot.value == variable.value)):
                continue
            return False
    return True


def align_averages(model: Any) -> None:
    """Makes an optimizer's moving averages those of the variables that train now.

    Keras pairs the averages with `model.trainable_variables` by position, at every step, in
    `SwapEMAWeights` and at the end of `fit`. Frozen variables need none: they are their average.
    """
    optimizer = inner_optimizer(model.optimizer)
    if not (optimizer.built and optimizer.use_ema):
        return
    places = slot_places(optimizer)
    training = [v for v in model.trainable_variables if variable_key(optimizer, v) in places]
    averages = _averages(optimizer)
    chosen = [averages[places[variable_key(optimizer, variable)]] for variable in training]
    for variable, average in zip(training, chosen, strict=True):
        # Keras begins an average at the optimizer's first step, which these variables missed.
        if not np.any(keras.ops.convert_to_numpy(average)):
            average.assign(variable)
    store = vars(optimizer)  # an assignment would have Keras track the variables once more
    store["_trainable_variables"] = training
    store["_model_variables_moving_average"] = chosen


def _averages(optimizer: Any) -> list[Any]:
    """Lists the moving averages of all variables an optimizer was built on."""
    if not optimizer.use_ema:
        return []
    return [v for v in optimizer.variables if v.name.endswith("_average")]


def _without_decay(optimizer: Any, model: Any) -> list[Any]:
    """Lists the variables whose weight decay was switched off, by themselves or by a name."""
    uses_decay = inner_optimizer(optimizer)._use_weight_decay
    return [variable for variable in model.variables if not uses_decay(variable)]


def _is_slot_list(name: str, value: Any, length: int) -> bool:
    if name in ("_variables", "_trainable_variables", "_model_variables_moving_average"):
        return False  # the model's own variables; averages have a function of their own
    if name.startswith("_self_"):
        return False  # TensorFlow's bookkeeping
    return isinstance(value, list) and len(value) == length


def _carry(old: Any, new: Any, places: dict[int, int], length: int) -> None:
    """Copies slots of `old`, lists of `length`, to `new`; `places` maps old index to new."""
    for name, value in vars(old).items():
        target = vars(new).get(name)
        if isinstance(value, keras.optimizers.Optimizer):
            _carry(value, target, places, length)
        elif _is_slot_list(name, value, length):
            for index, place in places.items():
                _copy(value[index], target[place])
        elif isinstance(value, dict):
            for key in value.keys() & (target or {}).keys():
                _copy(value[key], target[key])
        elif isinstance(value, keras.Variable):
            _copy(value, target)


def _copy(source: Any, target: Any) -> None:
    if isinstance(source, keras.Variable) and isinstance(target, keras.Variable):
        target.assign(source)
