"""Real files of every kind, and one clear reason for each that cannot be had."""

import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridgetower.errors import PictureError
from bridgetower.pictures.decode import MAX_PIXELS, Decoded, decode
from tests.pictures import HERE, encoded, noise, png_header, reason

# --- moving pictures


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_stands_for_a_moving_picture(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.asarray(decode(data, HERE).image)[4, 4].tolist() == [255, 0, 0]


# --- what a file is called does not matter


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA", "ICO", "PCX", "JPEG2000", "AVIF"])
def test_a_file_is_read_as_what_it_is(kind: str) -> None:
    result = decode(encoded(Image.new("RGB", (32, 32), "white"), kind), Path("/photos/wrong.jpg"))
    assert result.image.mode == "RGB"
    assert result.image.size == (32, 32)
    assert np.asarray(result.image).min() >= 250


@pytest.mark.parametrize("data", [b"two cats on a couch\n" * 20, b"\0" * 4096, b"%PDF-1.7\n", b"\xff"])
def test_what_is_no_picture_is_named_so(data: bytes) -> None:
    assert reason(data) == "not a picture, or of an unknown kind"


def test_postscript_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the name says: Pillow would hand the content to Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
    assert "not a picture" in reason(encoded(Image.new("RGB", (8, 8)), "EPS"))


# --- damage


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95])
def test_a_truncated_file_is_refused(kind: str, kept: float) -> None:
    data = encoded(Image.fromarray(noise(60, 40)), kind)
    reason(data[: max(1, int(len(data) * kept))])


def test_truncation_is_named() -> None:
    for kind in ("JPEG", "PNG", "BMP"):
        data = encoded(Image.fromarray(noise(60, 40)), kind)
        assert reason(data[: len(data) // 2]) == "the file is truncated"


def test_an_empty_file() -> None:
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "TGA", "ICO", "PSD", "DDS"])
def test_random_damage_never_escapes_as_anything_else(kind: str) -> None:
    """Flip bytes: the result is a picture or a PictureError, no other exception, no warning (they are errors here)."""
    samples: dict[str, bytes] = {"PSD": b"8BPS\0\x01" + b"\0" * 6 + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + b"\0" * 99}
    data = samples.get(kind) or encoded(Image.fromarray(noise(24, 16)), kind)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            damaged[position] = rng.integers(256)
        try:
            result = decode(bytes(damaged), HERE, max_pixels=1_000_000)
        except PictureError:
            continue
        assert result.image.mode == "RGB"


# --- size


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    assert reason(png_header(60_000, 50_000)) == "3,000 megapixels, more than the limit of 179"


def test_the_limit_may_be_lowered_and_is_exact() -> None:
    data = encoded(Image.new("1", (2000, 1200)), "PNG")
    assert decode(data, HERE, max_pixels=2_400_000).width == 2000
    assert "limit" in reason(data, max_pixels=2_399_999)
    assert reason(data, max_pixels=500_000) == "2.4 megapixels, more than the limit of 0.5"
    assert "limit of 179" in reason(png_header(60_000, 50_000), max_pixels=10**12)


def test_one_threshold_where_pillow_has_two() -> None:
    """From half of the limit on Pillow warns: nothing of that is to be seen."""
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) == MAX_PIXELS
    data = png_header(12_000, 10_000)
    assert "limit" not in reason(data)  # past the header, where the pixels are missing
    assert "limit" in reason(data, max_pixels=100_000_000)


# --- threads and global state


def test_pillow_and_the_filters_of_warnings_are_left_as_they_were() -> None:
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    decode(encoded(Image.new("RGB", (8, 8)), "PNG"), HERE)
    reason(b"nothing")
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_warnings_stay_inside_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads decode files that Pillow warns about while warnings are errors; the filter outlives none of them."""
    data = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
    barrier = threading.Barrier(8, timeout=10)
    genuine = Image.Image.getexif

    def noisy(self: Image.Image) -> Image.Exif:
        exec(
            compile("import warnings; warnings.warn('Corrupt EXIF data')", "plugin", "exec"), {"__name__": "PIL.Plugin"}
        )
        return genuine(self)

    monkeypatch.setattr(Image.Image, "getexif", noisy)
    before = list(warnings.filters)

    def work(_: int) -> Decoded:
        barrier.wait()
        return [decode(data, HERE) for _ in range(20)][-1]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert all(result.image.getpixel((0, 0)) == (255, 0, 0) for result in results)
    assert list(warnings.filters) == before


def test_a_large_picture_that_pillow_warns_about_decodes_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(BytesIO(data)).close()
    assert decode(data, HERE).width == 10
