"""Colours are those of sRGB, as the file says: compared with the formulae of the standards."""

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks.pictures import photo
from bridgetower.pictures.decode import decode, in_memory
from bridgetower.pictures.preprocess import Preprocessing, square
from tests.pictures import HERE, decoded, encoded, noise, png_chunk

# --- profiles, made by hand

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
PRIMARIES = {  # x, y of red, green, blue
    "sRGB": [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)],
    "P3": [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)],
    "Adobe": [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)],
    "BT.2020": [(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)],
}


def to_xyz(primaries: str) -> np.ndarray:
    """Linear RGB to XYZ of D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[primaries]]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def srgb_light(level: np.ndarray) -> np.ndarray:
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def srgb_level(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def in_srgb(light: np.ndarray, primaries: str) -> np.ndarray:
    """Levels of sRGB, 0 to 255, of linear RGB [..., 3] of other primaries."""
    matrix = np.linalg.solve(to_xyz("sRGB"), to_xyz(primaries))
    return srgb_level(light @ matrix.T) * 255


def icc(space: bytes, kind: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 4.3."""
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", 0, b"\0" * 4, 0x04300000, kind, space, pcs) + b"\0" * 12 + b"acsp"
    header = (header + b"\0" * 28 + struct.pack(">iii", *(round(value * 65536) for value in D50))).ljust(128, b"\0")
    whole = header + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(float(value) * 65536) for value in values))


def curve(*values: float) -> bytes:
    """A parametric curve: a gamma, or the five numbers of one like that of sRGB."""
    kind = {1: 0, 5: 3}[len(values)]
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


SRGB_CURVE = curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def matrix_profile(primaries: str, tone: bytes) -> bytes:
    adapted = np.linalg.solve(BRADFORD, np.diag((BRADFORD @ D50) / (BRADFORD @ to_xyz("sRGB").sum(axis=1)))) @ BRADFORD
    columns = adapted @ to_xyz(primaries)
    names = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, columns.T), strict=True))
    return icc(b"RGB ", b"mntr", b"XYZ ", {b"wtpt": xyz(D50), **names, b"rTRC": tone, b"gTRC": tone, b"bTRC": tone})


def grey_profile(gamma: float) -> bytes:
    return icc(b"GRAY", b"mntr", b"XYZ ", {b"wtpt": xyz(D50), b"kTRC": curve(gamma)})


INKS = np.random.default_rng(5).uniform((20, -60, -60), (90, 60, 60), (16, 3))  # Lab by 8 C + 4 M + 2 Y + K
INKS[0], INKS[15] = (100, 0, 0), (0, 0, 0)  # paper, and black for the compensation of the black point


def ink_profile() -> bytes:
    """A CMYK profile that is a table of the corners."""
    lab = np.stack([INKS[:, 0] * 652.8, (INKS[:, 1] + 128) * 256, (INKS[:, 2] + 128) * 256], axis=1)
    ramp = struct.pack(">HH", 0, 65535)
    head = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = head + struct.pack(">HH", 2, 2) + ramp * 4 + np.rint(lab).astype(">u2").tobytes() + ramp * 3
    return icc(b"CMYK", b"prtr", b"Lab ", {b"wtpt": xyz(D50), b"A2B0": table, b"A2B1": table})


def lab_in_srgb(lab: np.ndarray) -> np.ndarray:
    """Levels of sRGB of Lab of D50."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    light = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50
    adapted = np.linalg.solve(BRADFORD, np.diag((BRADFORD @ to_xyz("sRGB").sum(axis=1)) / (BRADFORD @ D50))) @ BRADFORD
    return srgb_level(light @ np.linalg.solve(to_xyz("sRGB"), adapted).T) * 255


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("primaries", ["P3", "Adobe"])
def test_a_profile_is_applied(primaries: str, kind: str, options: dict[str, Any]) -> None:
    pixels = np.kron(np.random.default_rng(2).integers(0, 256, (4, 6, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    tone, light = {
        "P3": (SRGB_CURVE, srgb_light(pixels / 255)),
        "Adobe": (curve(563 / 256), (pixels / 255) ** (563 / 256)),
    }[primaries]
    profile = matrix_profile(primaries, tone)
    found = decoded(Image.fromarray(pixels), kind, icc_profile=profile, **options)
    expected = in_srgb(light, primaries)
    assert np.abs(expected - pixels).max() > 20
    np.testing.assert_allclose(found, expected, atol=4 if kind == "JPEG" else 1.5)


def test_a_profile_is_applied_to_a_reduced_jpeg_and_a_picture_in_memory() -> None:
    image = Image.new("RGB", (400, 400), (200, 60, 60))
    profile = matrix_profile("P3", SRGB_CURVE)
    expected = in_srgb(srgb_light(np.array([200, 60, 60]) / 255), "P3")
    data = encoded(image, "JPEG", quality=95, icc_profile=profile)
    np.testing.assert_allclose(np.asarray(decode(data, HERE, min_side=50).image)[20, 20], expected, atol=3)
    for name in ("hf", "plain"):
        spec = Preprocessing(32, 32, name)
        reduced = decode(data, HERE, min_side=32, convert=False)
        assert reduced.image.size == (50, 50)
        assert np.abs(np.asarray(reduced.image)[20, 20] - expected).max() > 10
        np.testing.assert_allclose(np.asarray(square(reduced, spec))[20, 20], expected, atol=3)
    with Image.open(BytesIO(data)) as opened:
        np.testing.assert_allclose(np.asarray(in_memory(opened, HERE).image)[200, 200], expected, atol=3)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "L"])
@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        matrix_profile("sRGB", SRGB_CURVE),
        grey_profile(2.2)[:-20],
        ink_profile(),
        matrix_profile("P3", SRGB_CURVE)[:200],
        b"no profile",
        b"",
    ],
    ids=["littlecms", "sRGB", "cut grey", "CMYK", "cut", "rubbish", "empty"],
)
def test_srgb_and_profiles_that_do_not_fit_change_nothing(mode: str, profile: bytes) -> None:
    image = photo(4, 60, 40).convert(mode)
    expected = decoded(image, "PNG")
    np.testing.assert_array_equal(decoded(image, "PNG", icc_profile=profile), expected)


def test_a_grey_profile_changes_no_colours() -> None:
    image = photo(4, 60, 40)
    np.testing.assert_array_equal(decoded(image, "PNG", icc_profile=grey_profile(1.0)), np.asarray(image))


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_a_profile_of_other_modes(mode: str) -> None:
    image = Image.new("RGB", (4, 4), (200, 60, 60))
    image = image.quantize() if mode == "P" else image.convert(mode)
    if mode == "RGBA":
        image.putpixel((0, 0), (0, 0, 0, 0))
    found = decoded(image, "PNG", icc_profile=matrix_profile("P3", SRGB_CURVE))
    np.testing.assert_allclose(found[2, 2], in_srgb(srgb_light(np.array([200, 60, 60]) / 255), "P3"), atol=1.5)
    if mode == "RGBA":
        assert found[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile(mode: str) -> None:
    grey = np.arange(256, dtype=np.uint8)[None]
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    found = decoded(image, "PNG", icc_profile=grey_profile(1.0))
    expected = srgb_level(np.arange(256) / 255) * 255
    np.testing.assert_allclose(found[0], np.repeat(expected[:, None], 3, axis=1), atol=1)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks_with_a_profile(kind: str) -> None:
    corners = np.array([[c, m, y, k] for c in (0, 255) for m in (0, 255) for y in (0, 255) for k in (0, 255)], np.uint8)
    pixels = np.kron(corners.reshape(4, 4, 4), np.ones((16, 16, 1), np.uint8))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = decoded(Image.fromarray(pixels, "CMYK"), kind, icc_profile=ink_profile(), **options)
    expected = np.kron(lab_in_srgb(INKS).reshape(4, 4, 3), np.ones((16, 16, 1)))
    np.testing.assert_allclose(found, expected, atol=4)


# --- code points of H.273


def cicp(pixels: np.ndarray, primaries: int, transfer: int) -> bytes:
    data = encoded(Image.fromarray(pixels), "PNG")
    return data[:33] + png_chunk(b"cICP", bytes([primaries, transfer, 0, 1])) + data[33:]


def pq_light(level: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, as a part of the reference white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = level ** (1 / m2)
    return (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / 203


def hlg_light(level: np.ndarray) -> np.ndarray:
    """BT.2100 on a display of 1000 cd/m²."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(level <= 0.5, level**2 / 3, (np.exp((level - c) / a) + b) / 12)
    luminance = scene @ [0.2627, 0.6780, 0.0593]
    return scene * luminance[..., None] ** 0.2 * 1000 / 203


def shown(light: np.ndarray) -> np.ndarray:
    """The recipe of docs/formats.md for linear BT.2020 in parts of the reference white."""
    light = np.maximum(light @ np.linalg.solve(to_xyz("sRGB"), to_xyz("BT.2020")).T, 0)
    most = light.max(axis=-1, keepdims=True)
    target = np.where(most > 0.8, 1 - 0.2 * np.exp((0.8 - most) / 0.2), most)
    return srgb_level(light * target / np.maximum(most, 1e-9)) * 255


@pytest.mark.parametrize(("transfer", "light"), [(16, pq_light), (18, hlg_light)], ids=["PQ", "HLG"])
def test_hdr(transfer: int, light: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels = np.concatenate([noise(70, 90), np.repeat(np.arange(210, dtype=np.uint8).reshape(3, 70, 1), 3, axis=2)])
    found = np.asarray(decode(cicp(pixels, 9, transfer), HERE).image)
    np.testing.assert_allclose(found, shown(light(pixels / 255)), atol=1)
    white = np.full((2, 2, 3), round(255 * {16: 0.5807, 18: 0.75}[transfer]), np.uint8)  # of 203 cd/m²
    assert 235 <= np.asarray(decode(cicp(white, 9, transfer), HERE).image).min() <= 250


def test_colours_of_every_kind_come_to_the_same_after_resizing() -> None:
    """Whether they are converted before, as in pictures with alpha, or after."""
    image = photo(6, 80, 64)
    clear = image.convert("RGBA")
    clear.putalpha(254)
    profile = matrix_profile("P3", SRGB_CURVE)
    spec = Preprocessing(64, 64)
    files = [encoded(one, "PNG", icc_profile=profile) for one in (image, clear)]
    opaque, other = (np.asarray(square(decode(data, HERE, convert=False), spec)).astype(int) for data in files)
    assert np.abs(opaque - np.asarray(square(decode(encoded(image, "PNG"), HERE), spec))).max() > 10
    assert np.abs(opaque - other).max() <= 16  # where colours that sRGB does not have are cut
    assert np.abs(opaque - other).mean() < 1
    pixels = np.asarray(image)
    before, after = (square(decode(cicp(pixels, 9, 18), HERE, convert=early), spec) for early in (True, False))
    assert np.abs(np.asarray(before).astype(int) - np.asarray(after)).mean() < 1


@pytest.mark.parametrize(("code", "primaries"), [(12, "P3"), (9, "BT.2020")])
@pytest.mark.parametrize("transfer", [13, 4, 8])
def test_wide_primaries(code: int, primaries: str, transfer: int) -> None:
    pixels = noise(30, 70)
    level = pixels / 255
    light = {13: srgb_light(level), 4: level**2.2, 8: level}[transfer]
    found = np.asarray(decode(cicp(pixels, code, transfer), HERE).image)
    np.testing.assert_allclose(found, in_srgb(light, primaries), atol=1)


def test_code_points_of_srgb_change_nothing() -> None:
    pixels = noise(30, 20)
    for primaries, transfer in ((1, 13), (1, 1), (2, 2), (1, 6), (200, 200)):
        np.testing.assert_array_equal(np.asarray(decode(cicp(pixels, primaries, transfer), HERE).image), pixels)
