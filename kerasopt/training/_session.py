"""Everything that callbacks change on one model during one `fit`, and the way back.

A compiled train step reads `model.call`, `model.compute_loss` and `model.train_step` when it is
traced. A hook is an instance attribute over one of these, a closure around what was there before;
hooks stack in a fixed order whatever the order of the callbacks. `Session.retrace` asks Keras for
a new step, which the running `fit` picks up at its next batch.

`fit` that ends in an exception never calls `on_train_end`. But every `fit` starts with
`model.make_train_function()`, so a session puts itself in front of that method and closes itself
when a later `fit` comes by: the next training starts clean, with or without our callbacks.
"""

from collections.abc import Callable
from typing import Any

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]

_HOOKED = ("call", "compute_loss", "train_step")
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
        self._guard()

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
        """Puts a function around `model.call`, `model.compute_loss` or `model.train_step`.

        Args:
            owner: who asks; `release(owner)` takes the hook off.
            kind: `"call"`, `"compute_loss"` or `"train_step"`.
            wrapper: receives the function that is there, returns the one to use instead.
            order: hooks with a lower order lie nearer to the model's own method.

        Raises:
            ValueError: `kind` is none of the three.
        """
        if kind not in _HOOKED:
            raise ValueError(f"`kind` must be one of {_HOOKED}. Received: kind={kind!r}.")
        self._hooks[kind].append((order, owner, wrapper))
        self._install(kind)

    def on_release(self, owner: Any, undo: Callable[[], None]) -> None:
        """Registers what else has to be undone when `owner` goes, last first."""
        self._undo.append((owner, undo))

    def retrace(self, *, evaluation: bool = False) -> None:
        """Makes Keras trace a new train step (and evaluation and prediction) at the next batch."""
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
        vars(self._model).pop("make_train_function", None)
        # Keras makes them again when it next needs them.
        self._model.train_function = None
        self._model.test_function = None
        self._model.predict_function = None

    def _drop(self, owner: Any) -> bool:
        changed = False
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
        attributes[kind] = function

    def _guard(self) -> None:
        model, make = self._model, type(self._model).make_train_function

        def make_train_function(force: bool = False) -> Any:
            if not force:  # Only the start of another `fit` (or `train_on_batch`) comes this way.
                self.close()
            return make(model, force=force)

        setattr(make_train_function, _MARK, self)
        vars(model)["make_train_function"] = make_train_function


def session(model: Any) -> Session:
    """Returns the open session of a model, or opens one.

    Args:
        model: a compiled `keras.Model`.
    """
    current: Session | None = getattr(model.make_train_function, _MARK, None)
    return current if current is not None else Session(model)
