"""Pictures as `data:` addresses, small enough to live inside the page."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

MAX_SIDE = 160
# Below this JPEG smears and PNG costs no more; such pictures are drawn with visible pixels.
SMALL_SIDE = 64


def check_picture(name: str, image: Any, *, ndim: int = 3) -> None:
    """Raises unless `image` is a uint8 array `(..., height, width, 1 or 3)` of `ndim` axes."""
    shape = "(height, width, channels)" if ndim == 3 else "(count, height, width, channels)"
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"`{name}` must be a uint8 NumPy array of shape {shape}. "
            f"Received: {name} of type {type(image).__name__}. Convert it with `np.asarray`."
        )
    if image.dtype != np.uint8:
        raise TypeError(
            f"`{name}` must hold uint8 pixels (0-255). Received: {name}.dtype={image.dtype}. "
            "Clip to 0-255, round, and convert with `.astype('uint8')`."
        )
    if image.ndim != ndim or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"`{name}` must have shape {shape} with 1 or 3 channels and no empty axis. "
            f"Received: {name}.shape={image.shape}. Pass raw pixels, channels last."
        )


def is_small(image: np.ndarray) -> bool:
    """Returns whether the picture is drawn with visible pixels."""
    return max(image.shape[:2]) < SMALL_SIDE


def data_uri(image: np.ndarray, max_side: int = MAX_SIDE) -> str:
    """Returns a picture as a `data:` address, its longer side at most `max_side` pixels.

    Args:
        image: uint8 array of shape `(height, width, 1 or 3)`.
        max_side: pixels. Default: 160.

    Returns:
        PNG for pictures under `SMALL_SIDE` pixels, JPEG of quality 85 for the rest.
    """
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if is_small(image):
        kind = "png"
        picture.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(buffer, "JPEG", quality=85, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
