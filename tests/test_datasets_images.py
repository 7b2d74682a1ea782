"""One file to one array: every mode and format that people's photos come in."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from kerasopt.datasets import load_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners():
    """Four colours in the corners of an 8 x 8 image, so that turning it shows."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4], pixels[:4, 4:], pixels[4:, :4], pixels[4:, 4:] = RED, GREEN, BLUE, WHITE
    return pixels


def gradient(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 120 / width], -1).astype(np.uint8)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width=60000, height=60000):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".png", {}), (".bmp", {}), (".tiff", {}), (".webp", {"lossless": True})],
)
def test_a_lossless_file_of_the_asked_size_comes_back_bit_equal(tmp_path, rng, suffix, options):
    pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **options)
    loaded = load_image(tmp_path / f"a{suffix}", (12, 10))
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, pixels)


def test_jpeg_is_close_to_its_pixels(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", quality=95)
    loaded = load_image(tmp_path / "a.jpg", (48, 64))
    assert np.abs(loaded.astype(int) - gradient()).max() <= 8


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_exif_orientation_is_applied_pixel_by_pixel(tmp_path, rng, orientation, upright, suffix):
    stored = rng.integers(0, 256, (6, 10, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif, **options)
    expected = upright(stored)
    loaded = load_image(tmp_path / f"a{suffix}", expected.shape[:2])
    np.testing.assert_array_equal(loaded, expected)


def test_exif_orientation_6_of_a_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    blocks = np.kron(corners(), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(blocks).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    loaded = load_image(tmp_path / "a.jpg", (64, 64)).astype(int)
    assert np.abs(loaded - np.rot90(blocks, -1)).max() <= 3
    small = load_image(tmp_path / "a.jpg", (8, 8))  # through the reduced decoding
    assert np.abs(small[[0, 0, -1, -1], [0, -1, 0, -1]] - [BLUE, RED, WHITE, GREEN]).max() <= 3


def test_a_broken_exif_block_does_not_make_a_bad_photo(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff")
    assert load_image(tmp_path / "a.jpg", (8, 8)).shape == (8, 8, 3)


def test_greyscale_and_one_bit_are_repeated_over_the_channels(tmp_path, rng):
    grey = rng.integers(0, 256, (9, 9), np.uint8)
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray(grey).convert("1", dither=Image.Dither.NONE).save(tmp_path / "1.png")
    np.testing.assert_array_equal(
        load_image(tmp_path / "l.png", (9, 9)), np.repeat(grey[..., None], 3, -1)
    )
    one_bit = load_image(tmp_path / "1.png", (9, 9))
    np.testing.assert_array_equal(one_bit[..., 0], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_laid_over_white(tmp_path, suffix):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:2, :, 3], rgba[2:, :, 3] = 255, 51
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}", **options)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    loaded = load_image(tmp_path / f"a{suffix}", (4, 4))
    assert np.abs(loaded - expected).max() <= 1


def test_grey_with_alpha_and_fully_transparent_pixels(tmp_path):
    Image.new("LA", (4, 4), (10, 0)).save(tmp_path / "la.png")
    assert (load_image(tmp_path / "la.png", (4, 4)) == 255).all()


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.fromarray(corners()).quantize(4)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(load_image(tmp_path / "p.png", (8, 8)), corners())
    image.save(tmp_path / "t.png", transparency=image.getpixel((0, 0)))
    expected = corners()
    expected[:4, :4] = 255
    np.testing.assert_array_equal(load_image(tmp_path / "t.png", (8, 8)), expected)


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (6, 6), c) for c in (RED, GREEN, BLUE)]
    for name, options in [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.png", {})]:
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (load_image(tmp_path / name, (6, 6)) == RED).all(), name


def test_cmyk_jpeg(tmp_path):
    colours = Image.fromarray(np.kron(corners(), np.ones((4, 4, 1), np.uint8)))
    colours.convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    loaded = load_image(tmp_path / "a.jpg", (32, 32)).astype(int)
    assert np.abs(loaded - np.asarray(colours)).max() <= 6


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_greyscale_covers_0_to_255(tmp_path, suffix):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    loaded = load_image(tmp_path / f"a{suffix}", (8, 8))
    np.testing.assert_array_equal(loaded[..., 1], np.round(values / 257))
    assert loaded.min() == 0
    assert loaded.max() == 255


def test_16_bit_colour_png(tmp_path):
    values = np.linspace(0, 65535, 4 * 4 * 3).astype(">u2").reshape(4, 4, 3)
    rows = b"".join(b"\x00" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b""))
    loaded = load_image(tmp_path / "a.png", (4, 4))
    assert np.abs(loaded - values / 257).max() <= 1


def test_32_bit_integers_inside_16_bits_are_accepted_others_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 65535, np.int32)).save(tmp_path / "a.tiff")
    assert (load_image(tmp_path / "a.tiff", (4, 4)) == 255).all()
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "b.tiff")
    with pytest.raises(ValueError, match=r"32-bit pixels outside 0\.\.65535; save as"):
        load_image(tmp_path / "b.tiff", (4, 4))
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "c.tiff")
    with pytest.raises(ValueError, match="floating-point pixels have no agreed range"):
        load_image(tmp_path / "c.tiff", (4, 4))


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20)])
def test_the_middle_is_cut_out_and_not_squeezed(tmp_path, height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    middle_y, middle_x = height // 2, width // 2
    pixels[middle_y - 10 : middle_y + 10, middle_x - 10 : middle_x + 10] = GREEN
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png", (20, 20)) == GREEN).all()


@pytest.mark.parametrize(("height", "width", "factor"), [(24, 72, 3), (60, 20, 2), (12, 20, 4)])
def test_it_is_resizing_the_short_side_and_then_cropping(tmp_path, rng, height, width, factor):
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    image.save(tmp_path / "a.png")
    small = image.resize((width // factor, height // factor), Image.Resampling.BILINEAR)
    side = min(small.size)
    left, top = (small.width - side) // 2, (small.height - side) // 2
    expected = np.asarray(small)[top : top + side, left : left + side]
    np.testing.assert_array_equal(load_image(tmp_path / "a.png", (side, side)), expected)


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert np.abs(load_image(tmp_path / "a.png", (8, 8)).astype(int) - 127).max() <= 6


def test_reduced_jpeg_decoding_agrees_with_full_decoding(tmp_path):
    Image.fromarray(gradient(900, 1200)).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        full = np.asarray(image.resize((64, 48), Image.Resampling.BILINEAR)).astype(int)
    loaded = load_image(tmp_path / "a.jpg", (48, 64))
    assert np.abs(loaded - full).max() <= 3


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (1, 1), (3, 7), (333, 1000)])
def test_any_shape_fits_any_size(tmp_path, size):
    Image.new("RGB", size, BLUE).save(tmp_path / "a.png")
    for image_size in [(1, 1), (5, 3), (32, 17)]:
        loaded = load_image(tmp_path / "a.png", image_size)
        assert loaded.shape == (*image_size, 3)
        assert (loaded == BLUE).all()


def encoded(image_format, **options):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)).save(
        buffer, image_format, **options
    )
    return buffer.getvalue()


def half(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", b"", r"empty file \(0 bytes\)"),
        ("a.jpg", b"<!DOCTYPE html><html>404</html>", "not an image.*starts with b'<!DOCTYPE html"),
        ("a.png", b"just text", "not an image.*starts with b'just text'"),
        ("a.jpg", half(encoded("JPEG")), "cannot be decoded: .*truncated"),
        ("a.jpg", half(encoded("JPEG", progressive=True)), "cannot be decoded: .*truncated"),
        ("a.jpg", encoded("JPEG")[:-2000], "cannot be decoded: .*truncated"),
        ("a.png", half(encoded("PNG")), "cannot be decoded: .*truncated"),
        ("a.gif", half(encoded("GIF")), "cannot be decoded: .*truncated"),
        ("a.bmp", half(encoded("BMP")), "cannot be decoded: .*truncated"),
        ("a.webp", half(encoded("WEBP")), "cannot be decoded|not an image"),
        ("a.png", encoded("PNG")[:20], "cannot be decoded: Truncated"),
        ("a.png", png_bomb(), "refused, too many pixels"),
        ("a.png", png_bomb(10000, 10000), "refused, too many pixels"),
        ("a.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1", "HEIC.*convert it to JPEG"),
        ("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        load_image(tmp_path / name, (8, 8))


def test_the_error_names_file_and_rule(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must be a whole image file.*none\.jpg.*no such"):
        load_image(tmp_path / "none.jpg")


def test_a_bomb_is_refused_where_pillow_only_warns(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bomb(10000, 10000))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=f"too many pixels: 10000 x 10000 .* {limit} pixels"):
            load_image(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_damaged_png_data_is_noticed(tmp_path):
    content = bytearray(encoded("PNG"))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(bytes(content))
    with pytest.raises(ValueError, match="cannot be decoded"):
        load_image(tmp_path / "a.png", (8, 8))


def test_a_file_with_another_formats_name_is_read(tmp_path):
    Image.fromarray(corners()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(load_image(tmp_path / "a.jpg", (8, 8)), corners())


@pytest.mark.parametrize("image_size", [224, (224,), (1, 2, 3), "224"])
def test_image_size_must_be_a_pair(tmp_path, image_size):
    with pytest.raises(ValueError, match=r"`image_size` must be two integers \(height, width\)"):
        load_image(tmp_path / "a.png", image_size)


def test_image_size_must_be_positive_integers(tmp_path):
    with pytest.raises(ValueError, match=r"`image_size\[1\]` must be an integer >= 1"):
        load_image(tmp_path / "a.png", (8, 0))
    with pytest.raises(TypeError, match=r"`image_size\[0\]` must be an integer >= 1"):
        load_image(tmp_path / "a.png", (8.0, 8))
