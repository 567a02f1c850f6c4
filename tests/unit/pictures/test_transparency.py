"""Transparent pixels show a ground on which the visible ones can be seen, in every depth and format."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridgetower.pictures.decode import decode
from tests.pictures import HERE, decoded, encoded, noise, png, png_chunk

WHITE = [255, 255, 255]


def packed_rows(values: np.ndarray, depth: int) -> bytes:
    """Rows of a PNG file of `depth` bits a sample, values [H, W] or [H, W, 3], without a filter."""
    rows = values.reshape(len(values), -1)
    if depth == 16:
        packed = [row.astype(">u2").tobytes() for row in rows]
    else:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        packed = [np.packbits(row.reshape(-1)).tobytes() for row in bits]
    return b"".join(b"\0" + row for row in packed)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_a_png(depth: int) -> None:
    """A reader that compares the key with scaled values, or with a part of the bits, makes others transparent."""
    most = 2**depth - 1
    values = np.unique(np.array([0, 1, 2, 3, 5, 85, 100, 170, 255, 256, 1000, 25701, 25700, most]) & most)[None]
    for key in values[0]:
        stored = int(key) | (0 if depth == 16 else 0x100)  # higher bits do not count
        rows, chunk = packed_rows(values, depth), png_chunk(b"tRNS", struct.pack(">H", stored))
        found = np.asarray(decode(png(values.size, 1, depth, 0, rows, chunk), HERE).image).astype(int)
        grey = np.rint(values / most * 255)
        expected = np.where(values == key, 255, grey)
        if np.all(expected == 255):  # all that can be seen is white
            expected = np.where(values == key, 0, grey)
        np.testing.assert_allclose(found, np.repeat(expected[..., None], 3, axis=2), atol=1)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_a_png(depth: int) -> None:
    unit = 257 if depth == 16 else 1
    key = [20 * unit, 30 * unit, 41 * unit]
    values = np.array(
        [[key, [20 * unit, 30 * unit, 40 * unit], [200 * unit, 30 * unit, 41 * unit], [key[0] + 1, *key[1:]]]]
    )
    chunk = png_chunk(b"tRNS", struct.pack(">HHH", *key))
    found = np.asarray(decode(png(4, 1, depth, 2, packed_rows(values, depth), chunk), HERE).image).astype(int)
    expected = np.rint(values / unit)
    expected[0, 0] = 255
    np.testing.assert_allclose(found, expected, atol=1)


def test_a_png_of_16_bits_with_alpha() -> None:
    values = np.random.default_rng(3).integers(0, 65536, (5, 7, 4))
    for colour_type, channels in ((6, [0, 1, 2, 3]), (4, [0, 3])):
        stored = values[..., channels]
        found = np.asarray(decode(png(7, 5, 16, colour_type, packed_rows(stored, 16)), HERE).image)
        alpha = stored[..., -1:] / 65535
        expected = stored[..., :-1] / 257 * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=2)


# --- the ground


def drawing(ink: Any) -> Image.Image:
    """A disc of ink with a soft edge on a transparent ground."""
    y, x = np.mgrid[:40, :40] - 19.5
    alpha = np.clip((15 - np.hypot(x, y)) * 80, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([np.full((40, 40, 3), ink, np.uint8), alpha]))


@pytest.mark.parametrize("ink", [(255, 255, 255), (250, 250, 245), (230, 240, 235)])
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})])
def test_white_ink_stands_on_black(kind: str, options: dict[str, Any], ink: Any) -> None:
    found = decoded(drawing(ink), kind, **options)
    assert (found[0, 0].tolist(), found[20, 20].tolist()) == ([0, 0, 0], list(ink))


@pytest.mark.parametrize("ink", [(0, 0, 0), (128, 128, 128), (255, 255, 0), (200, 200, 200), (255, 200, 200)])
def test_other_ink_stands_on_white(ink: Any) -> None:
    found = decoded(drawing(ink), "PNG")
    assert (found[0, 0].tolist(), found[20, 20].tolist()) == (WHITE, list(ink))


def test_a_faint_dark_ink_stands_on_white() -> None:
    image = drawing((0, 0, 0))
    image.putalpha(image.getchannel("A").point([value // 12 for value in range(256)]))
    assert decoded(image, "PNG")[0, 0].tolist() == WHITE


def test_a_white_page_with_words_and_round_corners_stands_on_white() -> None:
    image = drawing((255, 255, 255))
    image.paste((0, 0, 0, 255), (18, 10, 21, 30))
    assert decoded(image, "PNG")[0, 0].tolist() == WHITE


def test_what_is_opaque_or_invisible_has_no_ground_to_choose() -> None:
    assert decoded(Image.new("RGBA", (4, 4), (255, 255, 255, 255)), "PNG").min() == 255
    assert decoded(Image.new("RGBA", (4, 4), (255, 255, 255, 0)), "PNG").min() == 255


# --- frames that cover a part of the canvas


def gif(size: tuple[int, int], *frames: tuple[tuple[int, int], Image.Image], clear: int | None = None) -> bytes:
    """A GIF of frames at (left, top); each has its own palette. `clear` is the index that is transparent."""
    blocks = []
    for (left, top), image in frames:
        whole = encoded(image, "GIF")
        at = 13 + (3 * 2 ** ((whole[10] & 7) + 1))  # after the palette
        palette, flags = whole[13:at], 0x80 | (whole[10] & 7)
        at = whole.index(b",", at)
        if clear is not None:
            blocks.append(b"\x21\xf9\x04\x01\0\0" + bytes([clear]) + b"\0")
        size_of_frame = struct.pack("<HHHH", left, top, *image.size)
        blocks.append(b"," + size_of_frame + bytes([flags]) + palette + whole[at + 10 : whole.rindex(b";")])
    palette_0 = bytes([10, 20, 200, 0, 0, 0])  # blue, then black
    return b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + palette_0 + b"".join(blocks) + b";"


def painted(seed: int) -> Image.Image:
    """A frame of 8 x 6 pixels, mode P, whose colours are dark: white is never among them."""
    image = Image.fromarray((np.arange(48, dtype=np.uint8) % 16).reshape(6, 8)).convert("P")
    image.putpalette(bytes(np.random.default_rng(seed).integers(0, 200, 48, dtype=np.uint8)))
    return image


@pytest.mark.parametrize("clear", [None, 3])
def test_a_gif_whose_first_frame_covers_a_part(clear: int | None) -> None:
    image = painted(5)
    found = np.asarray(decode(gif((20, 15), ((4, 3), image), clear=clear), HERE).image)
    expected = np.full((15, 20, 3), 255, np.uint8)
    inside = np.asarray(image.convert("RGB")).copy()
    if clear is not None:
        inside[np.asarray(image) == clear] = 255
    expected[3:9, 4:12] = inside
    np.testing.assert_array_equal(found, expected)


def test_a_gif_of_one_whole_frame_is_taken_as_it_is() -> None:
    image = painted(6)
    found = np.asarray(decode(gif((8, 6), ((0, 0), image)), HERE).image)
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_picture_of_one_colour_is_that(kind: str, frames: int) -> None:
    image = Image.new("RGB", (8, 6), (255, 0, 0))
    others = [Image.new("RGB", (8, 6), (n, n, 0)) for n in range(1, frames)]
    options: dict[str, Any] = {"save_all": True, "append_images": others} if others else {}
    if kind == "WEBP":
        options["lossless"] = True
    np.testing.assert_allclose(decoded(image, kind, **options), np.asarray(image), atol=3)


@pytest.mark.parametrize("clear", [None, 0])
def test_a_gif_that_begins_blank_shows_its_first_frame_that_is_not(clear: int | None) -> None:
    blank = Image.new("P", (20, 15))
    blank.putpalette([90, 90, 90, 0, 0, 0])
    second = painted(7)
    found = np.asarray(decode(gif((20, 15), ((0, 0), blank), ((4, 3), second), clear=clear), HERE).image)
    expected = np.full((15, 20, 3), 90 if clear is None else 255, np.uint8)
    seen = np.ones((6, 8), bool) if clear is None else np.asarray(second) != clear
    expected[3:9, 4:12][seen] = np.asarray(second.convert("RGB"))[seen]
    np.testing.assert_array_equal(found, expected)


def webp(size: tuple[int, int], *frames: tuple[tuple[int, int], Image.Image], alpha: bool = False) -> bytes:
    """An animated lossless WebP of frames at even (left, top); its header denies transparency unless `alpha`."""

    def number(value: int) -> bytes:
        return value.to_bytes(3, "little")

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    body = chunk(b"VP8X", bytes([0x02 | 0x10 * alpha, 0, 0, 0]) + number(size[0] - 1) + number(size[1] - 1))
    body += chunk(b"ANIM", struct.pack("<IH", 0xFF2020C0, 0))
    for (left, top), image in frames:
        header = [number(n) for n in (left // 2, top // 2, image.width - 1, image.height - 1, 100)]
        body += chunk(b"ANMF", b"".join(header) + b"\x02" + encoded(image, "WEBP", lossless=True)[12:])
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@pytest.mark.parametrize("alpha", [False, True])
def test_a_webp_whose_first_frame_covers_a_part(alpha: bool) -> None:
    pixels = noise(8, 6) // 2
    found = np.asarray(decode(webp((20, 15), ((4, 2), Image.fromarray(pixels)), alpha=alpha), HERE).image)
    expected = np.full((15, 20, 3), 255, np.uint8)
    expected[2:8, 4:12] = pixels
    np.testing.assert_array_equal(found, expected)


def apng(size: tuple[int, int], default: np.ndarray | None, *frames: tuple[tuple[int, int], np.ndarray]) -> bytes:
    """An APNG of RGB frames at (left, top); `default`, if given, is no frame."""
    import zlib

    def rows(pixels: np.ndarray) -> bytes:
        return b"".join(b"\0" + row.tobytes() for row in pixels)

    chunks, sequence = [png_chunk(b"acTL", struct.pack(">II", len(frames), 0))], 0
    pixels = default
    rest = b""
    for (left, top), frame in frames:
        height, width = frame.shape[:2]
        control = struct.pack(">IIIIIHHBB", sequence, width, height, left, top, 1, 10, 0, 0)
        sequence += 1
        if pixels is None:
            chunks.append(png_chunk(b"fcTL", control))
            pixels = frame
            continue
        rest += png_chunk(b"fcTL", control)
        rest += png_chunk(b"fdAT", struct.pack(">I", sequence) + zlib.compress(rows(frame)))
        sequence += 1
    assert pixels is not None
    whole = png(*size, 8, 2, rows(pixels), *chunks)
    return whole[:-12] + rest + whole[-12:]


def test_an_apng_whose_default_image_is_no_frame() -> None:
    default = noise(12, 10) // 2
    first, second = default[::-1].copy(), default[:, ::-1].copy()
    data = apng((12, 10), default, ((0, 0), first), ((0, 0), second))
    np.testing.assert_array_equal(np.asarray(decode(data, HERE).image), first)
    cut = data[: data.index(b"fcTL") - 4]
    np.testing.assert_array_equal(np.asarray(decode(cut, HERE).image), default)
    data = apng((12, 10), None, ((0, 0), first), ((0, 0), second))
    np.testing.assert_array_equal(np.asarray(decode(data, HERE).image), first)


def test_an_apng_whose_first_frame_covers_a_part() -> None:
    default, frame = noise(12, 10) // 2, noise(5, 4) // 2
    found = np.asarray(decode(apng((12, 10), default, ((3, 2), frame)), HERE).image)
    expected = np.full((10, 12, 3), 255, np.uint8)
    expected[2:6, 3:8] = frame
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("blank", ["white", "black"])
def test_an_animation_that_begins_blank(kind: str, blank: str) -> None:
    frames = [Image.new("RGB", (8, 6), blank), Image.new("RGB", (8, 6), blank), painted(8).convert("RGB")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=[100, 200, 300], **options)
    np.testing.assert_array_equal(np.asarray(decode(data, HERE).image), np.asarray(frames[2]))


def test_damage_after_a_blank_frame_costs_only_the_later_frames() -> None:
    frames = [Image.new("RGB", (64, 64), "white"), Image.fromarray(noise(64, 64))]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    found = np.asarray(decode(data[: len(data) // 2], HERE).image)
    assert found.shape == (64, 64, 3)
    assert found.min() == 255
