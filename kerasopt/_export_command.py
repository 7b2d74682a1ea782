"""What `kerasopt export` makes of its options."""

import pathlib
from typing import Any

import numpy as np

from kerasopt._backend import tf
from kerasopt.datasets import image_folder
from kerasopt.export import Metadata, to_tflite

_NEEDS_RANGES = ("int8", "int16x8")


def export_file(
    model: Any,
    target: pathlib.Path,
    *,
    quantize: str,
    data: pathlib.Path | None,
    seed: int,
    batch_size: str,
    metadata: dict[str, str | None],
    **options: Any,
) -> Any:
    """Exports a model with options as text; returns the `ExportResult`.

    Args:
        model: the Keras model.
        target: the file to write.
        quantize: a kind of file, or `"none"`.
        data: photos to verify on, or `None`.
        seed: of their split.
        batch_size: a number, or `"any"`.
        metadata: fields of `Metadata`, `None` for those that were not said.
        options: of `to_tflite`, handed on.

    Raises:
        ValueError: an option is out of range, or does not fit the model.
    """
    said = {name: value for name, value in metadata.items() if value is not None}
    for name in ("mean", "std"):
        if name in said:
            said[name] = _numbers(name, said[name])  # type: ignore[assignment]
    described = Metadata(**said) if said else None  # type: ignore[arg-type]
    options["batch_size"] = None if batch_size == "any" else _whole(batch_size)
    if data is not None:
        options |= _photos(model, data, described, quantize, seed)
    kind = None if quantize == "none" else quantize
    return to_tflite(model, target, quantize=kind, metadata=described, **options)


def _numbers(name: str, text: str) -> float | tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be a number, or one for each channel, like 127.5 or 124,117,104. "
            f"Received: {name}={text!r}."
        ) from error
    return numbers if len(numbers) > 1 else numbers[0]


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"`batch_size` must be a number or 'any'. Received: batch_size={text!r}.")
    return int(text)


def _photos(
    model: Any, folder: pathlib.Path, metadata: Any, quantize: str, seed: int
) -> dict[str, Any]:
    """Returns the options that a folder of photos stands for."""
    shape = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) + len(model.outputs) > 2 or len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            "`data` may be photos for a model of one image and one output. Received: "
            f"{len(model.inputs)} inputs, the first of shape {shape}, {len(model.outputs)} "
            "outputs. Leave `data` out, or use kerasopt.export.to_tflite with arrays."
        )
    photos = image_folder(folder, image_size=shape[:2], seed=seed)
    classes, outputs = len(photos.class_names), model.outputs[0].shape[-1]
    if classes != max(outputs, 2):
        wanted = "two folders for a model of one output" if outputs == 1 else f"{outputs} folders"
        raise ValueError(
            "`data` must have a folder for each class of the model. "
            f"Received: {classes} folders, a model of {outputs} outputs. Pass {wanted}."
        )
    prepare = _preparation(shape[-1], () if metadata is None else metadata.normalization)
    held_back = photos.validation if photos.test is None else photos.test
    return {
        "verify": held_back.map(prepare),
        "representative_data": photos.train.map(prepare) if quantize in _NEEDS_RANGES else None,
        # A single output tells two classes apart, and is named after neither.
        "labels": photos.class_names if classes == outputs else None,
    }


def _preparation(channels: int, pairs: tuple[tuple[float, float], ...]) -> Any:
    """Returns what makes the model's inputs of photos (batch, height, width, 3)."""
    mean, std = (np.array(x, "float32") for x in zip(*(pairs or ((0.0, 1.0),)), strict=True))

    def prepare(images: Any, labels: Any) -> Any:
        seen = tf.image.rgb_to_grayscale(images) if channels == 1 else images
        return (seen - mean) / std, labels

    return prepare
