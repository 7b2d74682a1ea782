"""What is refused before the first batch, and what the first batches bring to light."""

from typing import Any

from kerasopt._backend import keras
from kerasopt.distillation._photos import Photo
from kerasopt.distillation._targets import CachedTeacher
from kerasopt.distillation._teachers import ModelTeacher


def check_student(model: Any, teachers: list[Any], lowest_alpha: float | None) -> None:
    """Refuses a student that is not compiled, or that trains its teacher.

    Raises:
        ValueError: as said; also for a teacher on the host under XLA.
    """
    if not getattr(model, "compiled", False):
        raise ValueError(
            "`Distill` needs a compiled student. "
            f"Received: model {model.name!r}, not compiled. Call model.compile(...) first."
        )
    own = type(model).compute_loss is not keras.Model.compute_loss
    if model.loss is None and not own and lowest_alpha != 1.0:
        raise ValueError(
            "`alpha` must be 1.0 for a student compiled without a loss. "
            "Received: loss=None. Compile it with loss=..., or use alpha=1.0."
        )
    mine = {id(variable) for variable in model.variables}
    for teacher in teachers:
        if isinstance(teacher, ModelTeacher) and any(
            id(variable) in mine for variable in teacher.model.variables
        ):
            raise ValueError(
                "`teacher` must not share layers with the student, which trains them. "
                f"Received: {teacher.name!r}. Give a copy, or 'ema' for the student's average."
            )
        if teacher.host and model.jit_compile:
            raise ValueError(
                "A TFLite teacher runs on the host and cannot be compiled with XLA. "
                f"Received: teacher={teacher.name!r} and jit_compile=True. Compile the student "
                "with jit_compile=False, or store the outputs with cache_targets."
            )


def check_photo(
    model: Any, photo: Photo, teachers: list[Any], allow_augmented: bool, preprocessed: bool
) -> None:
    """Refuses stored targets of augmented photos, and photos in a range that is not known.

    Raises:
        ValueError: as said.
    """
    stored = are_stored(teachers)
    if stored and photo.augmented and not allow_augmented:
        raise ValueError(
            "`targets` hold what the teacher says of the photos as they are, and the student "
            "sees augmented ones. Received: targets, and augmentation in the model "
            f"{model.name!r}. Give the teacher itself, or allow_augmented=True if the "
            "augmentation changes nothing that the teacher would say otherwise."
        )
    if photo.opaque is not None and not stored and not preprocessed:
        raise ValueError(
            "`preprocessing` is needed: the augmented photo is in another range than the "
            f"input. Received: preprocessing=None, and {photo.opaque!r} before the "
            "augmentation. Give a function that makes the teacher's input of that photo."
        )


def refuse_mixing(session: Any, owner: Any, teachers: list[Any]) -> None:
    """Refuses stored targets beside MixUp and CutMix, whose photos no file knows.

    Raises:
        ValueError: as said.
    """
    from kerasopt.augmentation import CutMix, MixUp

    mixing = [other for other in session.owners if isinstance(other, CutMix | MixUp)]
    if mixing and are_stored(teachers):
        session.release(owner)
        raise ValueError(
            "`targets` hold what the teacher says of the photos as they are. "
            f"Received: targets together with {type(mixing[0]).__name__}. "
            "Give the teacher itself."
        )


def are_stored(teachers: list[Any]) -> bool:
    """Tells whether the teachers' outputs come from files."""
    return any(isinstance(teacher, CachedTeacher) for teacher in teachers)


def unknown_photos(missing: int, teachers: list[Any]) -> ValueError:
    """Returns the error for photos that the stored targets do not hold."""
    names = ", ".join(repr(one.path.name) for one in teachers if isinstance(one, CachedTeacher))
    return ValueError(
        "`targets` must hold the teacher's outputs for the photos of this training. "
        f"Received: {missing} photos that {names} does not know. They are other data, or changed "
        "on their way: random augmentation in the pipeline, another size or scaling. Store the "
        "targets with cache_targets of the very data that `fit` reads."
    )
