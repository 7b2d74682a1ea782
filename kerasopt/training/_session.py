"""Everything that callbacks change on one model during one `fit`, and the way back.

A compiled train step reads `model.call`, `model.compute_loss`, `model.compute_metrics` and
`model.train_step` when it is traced. A hook is an instance attribute over one of these, a closure
around what was there before; hooks stack in a fixed order whatever the order of the callbacks.
`Session.retrace` asks Keras for a new step, which the running `fit` picks up at its next batch.

`fit` that ends in an exception never calls `on_train_end`. But `fit`, `evaluate` and `predict` all
start by asking the model for their compiled function, so a session puts itself in front of these
three methods and closes itself when one of them is called and its own `fit` is over: whatever
comes next is clean, with or without our callbacks.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from kerasopt._backend import tf
from kerasopt.training._optimizer import align_averages, late_starts, variable_key
from kerasopt.training._updates import Updates

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]

_HOOKED = ("call", "compute_loss", "compute_metrics", "train_step")
_GUARDED = ("make_train_function", "make_test_function", "make_predict_function")
_MARK = "kerasopt_session"


class Session:
    """The changes on one model during one `fit`. Get it with `session(model)`.

    Args:
        model: a compiled `keras.Model`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._hooks: dict[str, list[tuple[int, Any, Wrapper]]] = {kind: [] for kind in _HOOKED}
        self._before: dict[str, Any] = {}
        self._owners: list[Any] = []
        self._undo: list[tuple[Any, Callable[[], None]]] = []
        self._updates = Updates()
        self._guard()

    @property
    def owners(self) -> tuple[Any, ...]:
        """Who keeps the session open, in the order in which they came."""
        return tuple(self._owners)

    def acquire(self, owner: Any) -> None:
        """Keeps the session open until `owner` releases it."""
        if not any(known is owner for known in self._owners):
            self._owners.append(owner)

    def release(self, owner: Any) -> None:
        """Undoes what `owner` changed; the last owner to go closes the session."""
        changed = self._drop(owner)
        self._owners = [known for known in self._owners if known is not owner]
        if not self._owners:
            self.close()
        elif changed:
            self.retrace(evaluation=True)

    def hook(self, owner: Any, kind: str, wrapper: Wrapper, *, order: int) -> None:
        """Puts a function around one of the methods that a train step is made of.

        Args:
            owner: who asks; `release(owner)` takes the hook off.
            kind: `"call"`, `"compute_loss"`, `"compute_metrics"` or `"train_step"`.
            wrapper: receives the function that is there, returns the one to use instead.
            order: hooks with a lower order lie nearer to the model's own method.

        Raises:
            ValueError: `kind` is none of the four.
        """
        if kind not in _HOOKED:
            raise ValueError(f"`kind` must be one of {_HOOKED}. Received: kind={kind!r}.")
        self._hooks[kind].append((order, owner, wrapper))
        self._install(kind)

    def on_release(self, owner: Any, undo: Callable[[], None]) -> None:
        """Registers what else has to be undone when `owner` goes, last first."""
        self._undo.append((owner, undo))

    def scale_rates(self, owner: Any, factors: Sequence[tuple[Any, float]]) -> None:
        """Multiplies the learning rate of single variables, their weight decay with it.

        Takes effect at the next `retrace`. Factors of several owners multiply; an owner that asks
        again replaces its own.

        Args:
            owner: who asks; `release(owner)` takes the factors off.
            factors: pairs of a `keras.Variable` and the factor of its learning rate.
        """
        self._updates.scale(owner, factors)

    def start_counts(self, starts: Sequence[tuple[Any, int]]) -> None:
        """Lets variables that join late count their own steps in the optimizer.

        Takes effect at the next `retrace`. Optimizers that correct their averages by the iteration
        count (Adam and its kin) then treat such a variable as at the beginning of training. The
        optimizer is its memory: later sessions on it go on with the same counts.

        Args:
            starts: pairs of a `keras.Variable` and the batch, counted by the optimizer, before
                its first step.
        """
        optimizer = self._model.optimizer
        known = {variable_key(optimizer, variable): int(step) for variable, step in starts}
        late_starts(optimizer).update(known)

    def retrace(self, *, evaluation: bool = False) -> None:
        """Makes Keras trace a new train step (and evaluation and prediction) at the next batch."""
        if getattr(self._model, "optimizer", None) is not None:
            self._updates.install(self._model.optimizer)
            align_averages(self._model)
        model_type = type(self._model)
        model_type.make_train_function(self._model, force=True)
        if evaluation:
            model_type.make_test_function(self._model, force=True)
            model_type.make_predict_function(self._model, force=True)

    def close(self) -> None:
        """Takes everything off. The model has its own methods again and its functions are new."""
        for owner in [owner for owner, _ in self._undo]:
            self._drop(owner)
        for kind in _HOOKED:
            self._hooks[kind] = []
            self._install(kind)
        self._owners = []
        self._updates.clear()
        for name in _GUARDED:
            vars(self._model).pop(name, None)
        # Keras makes them again when it next needs them.
        self._model.train_function = None
        self._model.test_function = None
        self._model.predict_function = None

    def _drop(self, owner: Any) -> bool:
        changed = self._updates.drop(owner)
        for kind in _HOOKED:
            kept = [hook for hook in self._hooks[kind] if hook[1] is not owner]
            if len(kept) != len(self._hooks[kind]):
                self._hooks[kind] = kept
                self._install(kind)
                changed = True
        mine = [undo for who, undo in self._undo if who is owner]
        self._undo = [entry for entry in self._undo if entry[0] is not owner]
        for undo in reversed(mine):
            undo()
        return changed or bool(mine)

    def _install(self, kind: str) -> None:
        attributes = vars(self._model)
        if kind in self._before:
            attributes.pop(kind, None)
            previous = self._before.pop(kind)
            if previous is not None:
                attributes[kind] = previous
        if not self._hooks[kind]:
            return
        self._before[kind] = attributes.get(kind)
        function = getattr(self._model, kind)
        for _, _, wrapper in sorted(self._hooks[kind], key=lambda hook: hook[0]):
            function = wrapper(function)
        attributes[kind] = self._only_in_fit(kind, function)

    def _only_in_fit(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        model = self._model

        def hooked(*args: Any, **kwargs: Any) -> Any:
            # A trace may run in a thread of its own, which does not see `fit` above it.
            if tf.inside_function() or is_fitting(model):
                return function(*args, **kwargs)
            self.close()
            return getattr(model, kind)(*args, **kwargs)

        return hooked

    def _guard(self) -> None:
        for name in _GUARDED:
            vars(self._model)[name] = self._closing(name)

    def _closing(self, name: str) -> Callable[..., Any]:
        model, make = self._model, getattr(type(self._model), name)

        def make_function(force: bool = False) -> Any:
            # Inside its `fit`, validation asks for its function too; another `fit` is a new one.
            if not force and (name == "make_train_function" or not is_fitting(model)):
                self.close()
            return make(model, force=force)

        setattr(make_function, _MARK, self)
        return make_function


def is_fitting(model: Any) -> bool:
    """Tells whether a `fit` of this model is running, by looking for it up the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False


def settle(model: Any) -> None:
    """Closes what a `fit` that ended in an exception left open on a model, if anything.

    Args:
        model: any Keras model.
    """
    current = getattr(getattr(model, "make_train_function", None), _MARK, None)
    if current is not None and not is_fitting(model):
        current.close()


def session(model: Any) -> Session:
    """Returns the open session of a model, or opens one.

    Args:
        model: a compiled `keras.Model`.
    """
    current: Session | None = getattr(model.make_train_function, _MARK, None)
    return current if current is not None else Session(model)
