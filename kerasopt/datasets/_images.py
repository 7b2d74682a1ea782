"""From one file to one array: whatever a photo is stored as, or a reason why not."""

import concurrent.futures
import dataclasses
import functools
import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from kerasopt._validation import check_choice, check_int

# Only these parsers are offered a file: EPS, for one, would start Ghostscript on whatever was
# named .jpg. HEIF is there for those who registered pillow-heif.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF")

_EXIF_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG may be decoded at 1/2, 1/4 or 1/8, never below twice what is asked for: the antialiased
# resize that follows then hides the difference.
_DRAFT_MARGIN = 2.0


@dataclasses.dataclass(frozen=True)
class BadFile:
    """A file with the name of a photo that is none.

    Attributes:
        path: where it is.
        reason: what is wrong with it, in a few words.
    """

    path: pathlib.Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnreadableImageError(ValueError):
    """A file that is not a whole image; the message is the reason alone."""


def check_image_size(image_size: Any) -> tuple[int, int]:
    """Returns `(height, width)` after checking that both are integers >= 1."""
    if not isinstance(image_size, tuple | list) or len(image_size) != 2:
        raise ValueError(
            "`image_size` must be two integers (height, width). "
            f"Received: image_size={image_size!r}. For example image_size=(224, 224)."
        )
    height, width = image_size
    return check_int("image_size[0]", height, low=1), check_int("image_size[1]", width, low=1)


def load_image(
    path: str | os.PathLike[str], image_size: tuple[int, int] = (224, 224), *, channels: int = 3
) -> np.ndarray:
    """Reads one photo exactly as the pipelines of `image_folder` do.

    The EXIF orientation is applied; greyscale, palette, CMYK and 16-bit images become 8-bit RGB;
    transparency is laid over white; of an animation the first frame counts. The short side is
    resized (bilinear, antialiased) and the middle is cut out, so that nothing is distorted.

    Args:
        path: the file; JPEG, PNG, GIF, BMP, WebP, TIFF, or AVIF where Pillow has it.
        image_size: `(height, width)` in pixels, each >= 1. Default `(224, 224)`.
        channels: 3 for RGB, 1 for the grey of Pillow's mode "L". Default 3.

    Returns:
        A uint8 array of shape `(height, width, channels)`, 0–255.

    Raises:
        ValueError: the file is missing, not an image, damaged, or has more pixels than Pillow's
            `Image.MAX_IMAGE_PIXELS`; or `image_size` is not two integers >= 1, or `channels`
            neither 1 nor 3.

    Example:
        >>> pixels = load_image("daisy.jpg", (96, 96))  # doctest: +SKIP
        >>> model.predict(pixels[None].astype("float32"))  # doctest: +SKIP
    """
    size = check_image_size(image_size)
    check_choice("channels", channels, (1, 3))
    file = pathlib.Path(path)
    try:
        return decode(file, size, channels)
    except UnreadableImageError as error:
        raise ValueError(
            f"`path` must be a whole image file. Received: path={str(file)!r}: {error}."
        ) from error


def decode(path: pathlib.Path, image_size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """Does the work of `load_image`; bad files raise `UnreadableImageError`."""
    try:
        _refuse_non_file(path)
        with Image.open(path, formats=_formats()) as image:
            _refuse_bomb(image.size)
            image.draft(None, _draft_size(image.size, image_size))
            image.load()
            turn = _TRANSPOSE.get(_orientation(image))
            pixels = _to_rgb(image)
            pixels = pixels if channels == 3 else pixels.convert("L")
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_unidentified(path)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"refused, too many pixels: {error}".rstrip(".")) from error
    # Pillow's parsers raise whatever a damaged file makes them stumble over (SyntaxError,
    # struct.error, KeyError, ...), and each of these means the same to the user.
    except Exception as error:
        message = str(error).rstrip(".") or type(error).__name__
        raise UnreadableImageError(f"cannot be decoded: {message}") from error
    return _fit(pixels, image_size, turn).reshape(*image_size, channels)


def decode_all(
    paths: Sequence[pathlib.Path], image_size: tuple[int, int], *, keep: bool
) -> tuple[np.ndarray | None, tuple[BadFile, ...]]:
    """Decodes every file once, in parallel.

    Returns:
        The pixels, uint8 `(len(paths), height, width, 3)`, if they are to be kept (rows of bad
        files are undefined), and the bad files in the order of `paths`.
    """
    pixels = np.empty((len(paths), *image_size, 3), np.uint8) if keep else None

    def check(row: int) -> BadFile | None:
        try:
            image = decode(paths[row], image_size)
        except UnreadableImageError as error:
            return BadFile(paths[row], str(error))
        if pixels is not None:
            pixels[row] = image
        return None

    with warnings.catch_warnings():
        # Pillow's remarks on odd metadata; a file that is really bad is in the report.
        warnings.simplefilter("ignore")
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            bad = tuple(found for found in pool.map(check, range(len(paths))) if found)
    return pixels, bad


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _refuse_non_file(path: pathlib.Path) -> None:
    if not path.is_file():
        raise UnreadableImageError("no such file")
    if path.stat().st_size == 0:
        raise UnreadableImageError("empty file (0 bytes)")


def _refuse_bomb(size: tuple[int, int]) -> None:
    """Refuses from one limit on, where Pillow warns from one and refuses from two limits on."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise Image.DecompressionBombError(
            f"{size[0]} x {size[1]} is over the limit of {limit} pixels"
        )


def _draft_size(size: tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int]:
    scale = _DRAFT_MARGIN * max(image_size) / min(size)  # holds for either orientation
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 where the EXIF block is missing or broken."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # as above: a whole photo with broken metadata is still a photo
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise UnreadableImageError("floating-point pixels have no agreed range; save as 8-bit")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImageError("32-bit pixels outside 0..65535; save as 8- or 16-bit")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _fit(
    image: Image.Image, image_size: tuple[int, int], turn: Image.Transpose | None
) -> np.ndarray:
    """Cuts the middle out with the aspect ratio of the target, resizes it, turns it upright."""
    sideways = turn in {_TRANSPOSE[o] for o in (5, 6, 7, 8)}
    height, width = image_size[::-1] if sideways else image_size
    scale = min(image.width / width, image.height / height)
    left = (image.width - width * scale) / 2
    top = (image.height - height * scale) / 2
    # Rounding must not reach beyond the image.
    box = (
        max(left, 0.0),
        max(top, 0.0),
        min(left + width * scale, float(image.width)),
        min(top + height * scale, float(image.height)),
    )
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.array(resized if turn is None else resized.transpose(turn))


def _unidentified(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"hevc", b"mif1", b"msf1"}:
        return (
            "HEIC, which Pillow does not read; convert it to JPEG, or install pillow-heif and "
            "call pillow_heif.register_heif_opener()"
        )
    return f"not an image, or its header is damaged; it starts with {head!r}"
