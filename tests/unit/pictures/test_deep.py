"""Pictures that the extra `deep` reads, held against the picture in 8 bits that is computed from the same values.

`test_tiff.py` holds the kinds of samples of TIFF, and `test_trusted.py` the depths of JPEG 2000.
"""

import struct
import sys
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image

from bridgetower.errors import MissingExtraError, PixelLimitError
from bridgetower.pictures.colour import with_srgb_curve
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras.extra import Extra
from tests.pictures import HERE, noise, orientation, reason, scene, segment, take_away
from tests.tiffs import packed, tiff
from tests.unit.pictures.test_raw import TURNED
from tests.unit.pictures.test_tiff import pages, written

PICTURE = scene(64, 48)
FULL = PICTURE.copy()
FULL[0, 0], FULL[0, 1] = 0, 255
ALPHA = np.flipud(PICTURE[..., 0]) // 2 + 64
CUT = ("the file is truncated", "truncated or damaged")


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, HERE).image).astype(int)


def difference(data: bytes, expected: np.ndarray) -> float:
    """The most that a picture differs from levels, [H, W] or [H, W, 3]."""
    found = pixels(data)
    return float(np.abs(found - np.broadcast_to(expected.reshape(*found.shape[:2], -1), found.shape)).max())


def over_white(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[..., None] / 255
    return np.asarray(levels.reshape(*alpha.shape, -1) * opacity + 255 * (1 - opacity))


def deep(levels: np.ndarray, bits: int) -> np.ndarray:
    """Levels as whole numbers of 9 to 16 bits."""
    return np.rint(levels / 255 * (2**bits - 1)).astype(np.uint16)


def assert_cut_files_are_refused(data: bytes) -> None:
    for part in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        assert reason(data[: int(part * len(data))])
    for lost in (1, 2, 3, len(data) // 5):
        assert reason(data[:-lost]) in CUT, lost


# --- TIFF: compressions of other libraries

COMPRESSIONS = {
    "jpegxl": "u1 u2 f4",
    "jpeg2000": "u1 u2",
    "lerc": "u1 i1 u2 i2 u4 i4 f4 f8",
    "lerc zstd": "u1 u2 f4",
    "lerc deflate": "u1 u2 f4",
    "png": "u1 u2",
}


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}])
@pytest.mark.parametrize(
    ("compression", "kind"), [(one, kind) for one, all in COMPRESSIONS.items() for kind in all.split()]
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_compressions(compression: str, kind: str, channels: int, layout: dict[str, Any]) -> None:
    name, _, within = compression.partition(" ")
    levels = np.dstack([FULL, ALPHA])[..., [0, 3] if channels == 2 else slice(channels)]
    values = levels / 255 if kind[0] == "f" else np.rint(levels / 255 * float(np.iinfo(kind).max))
    data = written(
        values.astype(kind).squeeze(),
        photometric="minisblack" if channels < 3 else "rgb",
        extrasamples=None if channels % 2 else ("unassalpha",),
        compression=name,
        compressionargs={"compression": within} if within else None,
        **layout,
    )
    expected = levels if channels % 2 else over_white(levels[..., :-1], levels[..., -1])
    assert difference(data, expected) <= (2 if channels % 2 == 0 or kind == "i1" else 1)
    assert_cut_files_are_refused(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("compression", "encode"),
    [
        (34712, lambda values: imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k")),
        (50002, lambda values: imagecodecs.jpegxl_encode(values, lossless=True)),
        (34933, imagecodecs.png_encode),
        (34887, imagecodecs.lerc_encode),
        (8, lambda values: imagecodecs.zlib_encode(values.byteswap())),
    ],
    ids=["JPEG 2000", "JPEG XL", "PNG", "LERC", "deflate"],
)
def test_strips_by_hand(compression: int, encode: Callable[[np.ndarray], bytes], big: bool, order: str) -> None:
    """Two strips of 16 bits in a file that is not written by tifffile; and the same with strips that are cut."""
    tags = {256: [64], 257: [48], 258: [16] * 3, 259: [compression], 262: [2], 277: [3]}
    if compression == 8:
        order = ">"
        big = True  # else Pillow reads it
    strips = [bytes(encode(np.ascontiguousarray(half))) for half in np.split(deep(PICTURE, 16), 2)]
    assert difference(tiff(strips, tags, order, big=big), PICTURE) <= 1
    for second in (strips[1][:-40], strips[1][: len(strips[1]) // 2], b""):
        assert reason(tiff([strips[0], second], tags, order, big=big)) in CUT
    assert reason(tiff(strips[:1], tags | {278: [24]}, order, big=big)) in CUT


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("photometric", [1, 2, 6])
def test_jpeg_in_strips(photometric: int, bits: int) -> None:
    spaces: dict[int, dict[str, Any]] = {
        2: {"colorspace": "rgb", "outcolorspace": "rgb"},
        6: {"colorspace": "rgb", "outcolorspace": "ycbcr"},
    }
    levels = np.ascontiguousarray(PICTURE[..., 0]) if photometric == 1 else PICTURE
    tags = {256: [64], 257: [48], 258: [bits] * (levels.size // 3072), 259: [7], 262: [photometric], 530: [1, 1]}
    tags[277] = [len(tags[258])]
    strips = [
        bytes(
            imagecodecs.jpeg_encode(
                half, level=99, bitspersample=bits, subsampling="444", **spaces.get(photometric, {})
            )
        )
        for half in np.split(deep(levels, 12) if bits == 12 else levels, 2)
    ]
    for order, big in ((">", True), ("<", False))[: 2 if bits == 12 and photometric > 1 else 1]:  # else Pillow reads it
        assert difference(tiff(strips, tags, order, big=big), levels) <= 3
        assert reason(tiff([strips[0], strips[1][: len(strips[1]) // 2]], tags, order, big=big)) in CUT


# --- TIFF: the meaning of samples


def floats(values: np.ndarray, **options: Any) -> bytes:
    return written(values.astype("f4"), photometric=options.pop("photometric", "rgb"), **options)


def test_colours_brighter_than_white_are_cut() -> None:
    values = PICTURE / 255
    values[:20] *= 40.0
    assert difference(floats(values), np.minimum(values, 1) * 255) <= 1


@pytest.mark.parametrize("white", [255, 65535])
def test_colours_of_floating_point_in_the_range_of_whole_numbers(white: int) -> None:
    assert difference(floats(FULL / 255 * white), FULL) <= 1


def test_colours_of_an_unknown_range() -> None:
    assert difference(floats(FULL * 1000.0 + 5000), FULL) <= 1
    assert difference(written(FULL.astype(int) * 1000 - 7000, photometric="rgb"), FULL) <= 1
    assert difference(floats(np.full((48, 64, 3), 1e9)), np.zeros((48, 64))) == 0


@pytest.mark.parametrize("kind", ["u4", "u8"])
def test_white_of_large_whole_numbers_in_colour_is_the_largest(kind: str) -> None:
    """Whatever the brightest value of the picture is."""
    most = float(np.iinfo(kind).max)
    values = PICTURE / 510
    assert difference(written((values * most).astype(kind), photometric="rgb"), PICTURE / 2) <= 1


def test_values_that_are_no_numbers() -> None:
    values = PICTURE / 255
    values[:3], values[3:6], values[6:9] = np.nan, np.inf, -np.inf
    expected = PICTURE.copy()
    expected[:3], expected[3:6], expected[6:9] = 0, 255, 0
    assert difference(floats(values), expected) <= 1
    assert difference(floats(np.full((4, 4, 3), np.nan)), np.zeros((4, 4))) == 0


@pytest.mark.parametrize("white", [1, 255, 65535, 200_000])
def test_the_range_of_transparency(white: int) -> None:
    rgba = np.dstack([PICTURE / 255, (ALPHA + 64) / 255 * white])
    rgba[0, 0, 3] = white
    alpha = np.rint(rgba[..., 3] / white * 255)
    assert difference(floats(rgba, extrasamples=("unassalpha",)), over_white(PICTURE, alpha)) <= 2


@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_colours(channels: int) -> None:
    levels = PICTURE[..., : channels - 1]
    values = np.dstack([levels * (ALPHA[..., None] / 255), ALPHA]) / 255
    data = floats(values, photometric="minisblack" if channels == 2 else "rgb", extrasamples=("assocalpha",))
    assert difference(data, over_white(levels, ALPHA)) <= 2


@pytest.mark.parametrize(
    ("extras", "is_transparent"), [([], True), ([2], True), ([0], False), ([0, 0], False), ([2, 0], True)]
)
def test_extra_samples(extras: list[int], is_transparent: bool) -> None:
    planes = np.dstack([FULL, ALPHA, ALPHA])[..., : 3 + max(1, len(extras))]
    tags = {256: [64], 257: [48], 258: [32] * planes.shape[2], 262: [2], 277: [planes.shape[2]], 339: [3]}
    data = tiff([(planes / 255).astype("<f4").tobytes()], tags | ({338: extras} if extras else {}))
    assert difference(data, over_white(FULL, ALPHA) if is_transparent else FULL) <= 2


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_palette_of_16_bits(order: str, big: bool) -> None:
    table = noise(256, 256, 3).reshape(-1, 3)
    tags = {256: [64], 257: [48], 258: [16], 262: [3], 277: [1], 320: [int(v) * 256 for v in table.T.ravel()]}
    values = np.random.default_rng(1).integers(0, 65536, (48, 64))
    assert difference(tiff([values.astype(order + "u2").tobytes()], tags, order, big=big), table[values]) == 0


def test_a_palette_of_4_bits_in_big_endian_bigtiff() -> None:
    table = noise(4, 4).reshape(-1, 3)
    tags = {256: [5], 257: [3], 258: [4], 262: [3], 277: [1], 320: [int(v) * 256 for v in table.T.ravel()]}
    values = np.arange(15).reshape(3, 5)
    assert difference(tiff([packed(values, 4)], tags, ">", big=True), table[values]) == 0


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({262: [8]}, "Lab, 3 x 32 bits, unsigned, uncompressed"),
        ({262: [32845], 339: [2] * 3}, "LogLuv, 3 x 32 bits, signed, uncompressed"),
        ({258: [24] * 3}, "RGB, 3 x 24 bits, unsigned, uncompressed"),  # tifffile mistakes the order of bytes
        ({258: [32, 32, 16]}, "RGB, 32 + 32 + 16 bits, unsigned, uncompressed"),
        ({339: [1, 1, 2]}, "RGB, 3 x 32 bits, unsigned, uncompressed"),
        ({339: [6] * 3}, "RGB, 3 x 32 bits, complex, uncompressed"),
        ({259: [34925], 317: [3]}, "RGB, 3 x 32 bits, unsigned, LZMA"),
        ({317: [2]}, "RGB, 3 x 32 bits, unsigned, uncompressed"),
        ({258: [32] * 5, 277: [5], 338: [0, 2]}, "RGB, 5 x 32 bits, unsigned, uncompressed"),
        ({259: [34933]}, "RGB, 3 x 32 bits, unsigned, PNG"),
        ({259: [34712]}, "RGB, 3 x 32 bits, unsigned, JPEG 2000"),
        ({262: [3]}, "palette, 3 x 32 bits, unsigned, uncompressed"),
        ({262: [5], 277: [5], 258: [32] * 5, 338: [2]}, "CMYK, 5 x 32 bits, unsigned, uncompressed"),
        ({262: [5], 277: [4], 258: [32] * 4, 332: [2]}, "CMYK, 4 x 32 bits, unsigned, uncompressed"),
        ({262: [5], 277: [4], 258: [12] * 4, 259: [7]}, "CMYK, 4 x 12 bits, unsigned, JPEG"),
        ({32997: [2]}, "RGB, 3 x 32 bits, unsigned, uncompressed"),
    ],
)
@pytest.mark.parametrize("installed", [False, True])
def test_kinds_that_nothing_reads(
    tags: dict[int, list[int]], kind: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        take_away(Extra.DEEP, monkeypatch)
    data = tiff([bytes(48 * 64 * 20)], {256: [64], 257: [48], 258: [32] * 3, 262: [2], 277: [3]} | tags)
    assert reason(data) == f"a TIFF of a kind that is not read: {kind}"


# --- TIFF: what stands beside the pixels


def test_the_photo_is_chosen_among_the_pages() -> None:
    photo = (PICTURE / 255).astype("f4")
    for data in (
        pages((noise(16, 12), {"subfiletype": 1}), (photo, {})),
        pages((noise(16, 12), {"subfiletype": 1, "subifds": 1}), (photo, {})),
        pages((photo[::4, ::4], {}), (photo, {}), (photo[:20], {})),
        pages((noise(16, 12), {"subfiletype": 1}), (photo, {}), byteorder=">", bigtiff=True),
    ):
        assert difference(data, PICTURE) <= 1


@pytest.mark.parametrize("value", range(1, 9))
def test_the_orientation_of_the_page(value: int) -> None:
    data = floats(PICTURE / 255, extratags=[(274, 3, 1, value, True)])
    result = decode(data, HERE)
    assert result.image.size == (result.width, result.height)
    assert np.abs(np.asarray(result.image) - TURNED[value](PICTURE.astype(int))).max() <= 1


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_date_of_the_page(order: str, big: bool) -> None:
    values = np.full((48, 64, 3), 7, order + "u4")
    date = b"2018:07:31 14:52:07\0"
    whole = tiff(
        [values.tobytes()], {256: [64], 257: [48], 258: [32] * 3, 262: [2], 277: [3], 34665: [100_000]}, order, big=big
    )
    words, place = (order + "QHHQQ", 28) if big else (order + "HHHII", 14)
    at = len(whole)
    exif = struct.pack(words, 1, 36867, 2, len(date), at + place + (8 if big else 4)) + bytes(8 if big else 4) + date
    data = whole.replace(struct.pack(order + "I", 100_000), struct.pack(order + "I", at)) + exif
    assert decode(data, HERE).taken_at == 1533048727


def test_the_profile_of_the_page() -> None:
    values = np.full((16, 16, 3), P3_RED) / 255
    assert (pixels(floats(values)) == P3_RED).all()
    wide = pixels(floats(values, iccprofile=icc_profile(DISPLAY_P3, 2.2)))
    np.testing.assert_allclose(wide[8, 8], P3_RED_AS_SRGB, atol=2)


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_a_profile_of_linear_light(kind: str) -> None:
    """The darkest levels of linear light are ten levels of sRGB apart."""
    light = np.linspace(0, 0.02, 64 * 48).reshape(48, 64)
    light[0, 0] = 1
    expected = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    values = np.repeat(light[..., None], 3, axis=2) * (65535 if kind == "u2" else 1)
    order = ">" if kind == "u2" else "<"
    data = written(
        values.astype(order + kind), photometric="rgb", iccprofile=icc_profile(REC709, 1), byteorder=order, bigtiff=True
    )
    assert difference(data, expected) <= 1


DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
P3_RED, P3_RED_AS_SRGB = (200, 60, 60), (219, 37, 49)  # by the matrix of the primaries and gamma 2.2


@pytest.mark.parametrize("space", [b"GRAY", b"CMYK"])
def test_a_profile_of_other_pixels_is_ignored(space: bytes) -> None:
    profile = icc_profile(DISPLAY_P3, 1)
    assert difference(floats(PICTURE / 255, iccprofile=profile[:16] + space + profile[20:]), PICTURE) <= 1


def test_tables_of_a_profile_count_more_than_its_curves() -> None:
    linear = icc_profile(DISPLAY_P3, 1)
    assert with_srgb_curve(linear, "RGB") is not None
    assert with_srgb_curve(linear.replace(b"wtpt", b"A2B0"), "RGB") is None
    assert with_srgb_curve(icc_profile(DISPLAY_P3, 2.2), "RGB") is None


REC709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))


def icc_profile(primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    """A profile of three curves and a matrix; the primaries are x and y, and white is D65."""
    bradford = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))
    d65, d50 = (np.array(white) for white in ((0.9505, 1.0, 1.089), (0.9642, 1.0, 0.8249)))
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    matrix = columns * np.linalg.solve(columns, d65)
    matrix = np.linalg.inv(bradford) @ np.diag(bradford @ d50 / (bradford @ d65)) @ bradford @ matrix

    def numbers(values: Any) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))

    tags = {b"wtpt": b"XYZ \0\0\0\0" + numbers(d50)}
    for n, letter in enumerate((b"r", b"g", b"b")):
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + numbers(matrix[:, n])
        tags[letter + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    place, table, content = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", place + len(content), len(body))
        content += body
    size = place + len(content)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + numbers(d50)
    return head.ljust(128, b"\0") + table + content


# --- JPEG


def jpeg(picture: np.ndarray, bits: int = 12, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg_encode(deep(picture, bits), bitspersample=bits, **({"level": 99} | options)))


@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_jpeg_of_12_bits(subsampling: str) -> None:
    data = jpeg(PICTURE, subsampling=subsampling)
    assert difference(data, PICTURE) <= 3
    assert_cut_files_are_refused(data)


def test_grey_jpeg_of_12_bits() -> None:
    assert difference(jpeg(PICTURE[..., 0]), PICTURE[..., 0]) <= 1
    assert difference(jpeg(np.full((9, 9), 255)), np.full((9, 9), 255)) == 0


@pytest.mark.parametrize("stored", ["cmyk", "ycck"])
def test_cmyk_jpeg_of_12_bits(stored: str) -> None:
    """As in JPEG files of 8 bits, the inks are inverted."""
    inks = np.dstack([PICTURE, 255 - ALPHA // 3])
    data = jpeg(inks, colorspace="cmyk", outcolorspace=stored)
    assert difference(data, inks[..., :3] / 255 * inks[..., 3:]) <= 3


@pytest.mark.parametrize("bits", [*range(9, 17)])
def test_lossless_jpeg(bits: int) -> None:
    data = jpeg(PICTURE, bits, lossless=True, level=None)
    assert difference(data, PICTURE) <= 1
    assert difference(jpeg(PICTURE[..., 0], bits, lossless=True, level=None), PICTURE[..., 0]) <= 1
    assert_cut_files_are_refused(data)


@pytest.mark.parametrize("value", range(1, 9))
def test_the_orientation_and_the_date_of_a_jpeg_of_12_bits(value: int) -> None:
    exif = orientation(value)
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2018:07:31 14:52:07"
    data = jpeg(PICTURE, subsampling="444")
    result = decode(data[:2] + segment(0xFFED, b"Photo") + segment(0xFFE1, exif.tobytes()) + data[2:], HERE)
    assert (result.width, result.height) == result.image.size
    assert np.abs(np.asarray(result.image) - TURNED[value](PICTURE.astype(int))).max() <= 3
    assert result.taken_at == 1533048727


def test_the_profile_of_a_jpeg_of_12_bits() -> None:
    data = jpeg(np.full((16, 16, 3), P3_RED))
    profile = segment(0xFFE2, b"ICC_PROFILE\0\1\1" + icc_profile(DISPLAY_P3, 2.2))
    np.testing.assert_allclose(pixels(data[:2] + profile + data[2:])[8, 8], P3_RED_AS_SRGB, atol=3)


# --- JPEG 2000: `test_trusted.py` holds the depths


def j2k(picture: np.ndarray, form: str = "j2k", **options: Any) -> bytes:
    given = {"level": 0, "reversible": True, "bitspersample": 12, "mct": False} | options
    return bytes(
        imagecodecs.jpeg2k_encode(
            deep(picture, 12) if picture.dtype == np.uint8 else picture, codecformat=form, **given
        )
    )


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def jp2(codestream: bytes, *boxes: bytes) -> bytes:
    """A JP2 file by hand."""
    height, width = struct.unpack_from(">II", codestream, 12)[0], struct.unpack_from(">I", codestream, 8)[0]
    header = box(b"ihdr", struct.pack(">IIHBBBB", height, width, codestream[41], 11, 7, 0, 0))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header + b"".join(boxes)) + box(b"jp2c", codestream)


def enumerated(space: int) -> bytes:
    return box(b"colr", b"\1\0\0" + struct.pack(">I", space))


def channels(*given: tuple[int, int, int]) -> bytes:
    return box(b"cdef", struct.pack(">H", len(given)) + b"".join(struct.pack(">3H", *one) for one in given))


RGBA = np.dstack([PICTURE, ALPHA])
RGBA_CHANNELS = ((0, 0, 1), (1, 0, 2), (2, 0, 3))


def test_sycc_in_jpeg_2000() -> None:
    ycc = np.asarray(Image.fromarray(PICTURE).convert("YCbCr"))
    assert difference(jp2(j2k(ycc), enumerated(18)), PICTURE) <= 2


def test_transparency_in_jpeg_2000() -> None:
    assert (
        difference(jp2(j2k(RGBA), enumerated(16), channels(*RGBA_CHANNELS, (3, 1, 0))), over_white(PICTURE, ALPHA)) <= 2
    )
    premultiplied = np.rint(np.dstack([PICTURE * (ALPHA[..., None] / 255), ALPHA])).astype(np.uint8)
    data = jp2(j2k(premultiplied), enumerated(16), channels(*RGBA_CHANNELS, (3, 2, 0)))
    assert difference(data, over_white(PICTURE, ALPHA)) <= 3
    grey = np.dstack([PICTURE[..., 0], ALPHA])
    assert (
        difference(jp2(j2k(grey), enumerated(17), channels((0, 0, 1), (1, 1, 0))), over_white(PICTURE[..., 0], ALPHA))
        <= 2
    )


@pytest.mark.parametrize("grey", [False, True])
def test_signed_samples_in_jpeg_2000(grey: bool) -> None:
    levels = PICTURE[..., 0] if grey else PICTURE
    values = (deep(levels, 16).astype(np.int32) - 32768).astype(np.int16)
    assert difference(j2k(values, bitspersample=16), levels) <= 1


def test_a_profile_of_linear_light_in_jpeg_2000() -> None:
    light = np.rint(np.linspace(0, 4095, 4096)).reshape(64, 64)
    share = light / 4095
    expected = 255 * np.where(share <= 0.0031308, share * 12.92, 1.055 * share ** (1 / 2.4) - 0.055)
    values = np.dstack([light.astype(np.uint16)] * 4)
    values[..., 3] = 4095
    data = jp2(j2k(values), box(b"colr", b"\2\0\0" + icc_profile(REC709, 1)))
    assert difference(data, expected) <= 1


@pytest.mark.parametrize("bits", [8, 12])
def test_the_profile_of_a_jpeg_2000_file(bits: int) -> None:
    profile = icc_profile(DISPLAY_P3, 2.2)
    red = np.full((16, 16, 3), P3_RED, np.uint8)
    codestream = (
        j2k(red) if bits == 12 else bytes(imagecodecs.jpeg2k_encode(red, level=0, reversible=True, codecformat="j2k"))
    )
    for method in (b"\2", b"\3"):
        found = pixels(jp2(codestream, box(b"colr", method + b"\0\0" + profile)))
        np.testing.assert_allclose(found[8, 8], P3_RED_AS_SRGB, atol=2)


SPARSE = bytearray(j2k(PICTURE))
SPARSE[46] = 2  # the distance of samples across, of the second component
LONG = bytearray(j2k(PICTURE))
LONG[42:51:3] = bytes([19] * 3)
SIGNED = bytearray(j2k(PICTURE))
SIGNED[42:51:3] = bytes([0x80 | 11] * 3)
DIFFERENT = bytearray(j2k(PICTURE))
DIFFERENT[45] = 9


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (jp2(j2k(PICTURE), enumerated(16), box(b"pclr", b"")), "3 x 12 bits, with a palette"),
        (jp2(j2k(PICTURE), enumerated(14)), "3 x 12 bits, in colours that are not converted"),
        (jp2(j2k(RGBA), enumerated(12)), "4 x 12 bits, in colours that are not converted"),
        (bytes(SPARSE), "3 x 12 bits, subsampled"),
        (bytes(LONG), "3 x 20 bits, of more than 16 bits"),
        (jp2(bytes(SIGNED), enumerated(18)), "3 x 12 bits, in colours that are not converted"),
        (bytes(DIFFERENT), "3 x 12 bits, of different depths"),
    ],
    ids=["palette", "Lab", "CMYK", "subsampled", "20 bits", "signed sYCC", "depths"],
)
def test_jpeg_2000_that_nothing_reads(data: bytes, kind: str) -> None:
    assert reason(data) == f"a JPEG 2000 file of a kind that is not read: {kind}"


@pytest.mark.parametrize(
    "given",
    [((0, 0, 3), (1, 0, 2), (2, 0, 1), (3, 1, 0)), ((0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)), RGBA_CHANNELS[:2]],
    ids=["BGR", "alpha first", "one unknown"],
)
def test_channels_in_another_order(given: tuple[tuple[int, int, int], ...]) -> None:
    assert reason(jp2(j2k(RGBA), enumerated(16), channels(*given))).endswith(
        "of other channels than grey, RGB and transparency"
    )


# By opj_compress 2.5.0 from the values below: width, height, distance of the samples of chroma, bits; codestream.
SUBSAMPLED = {
    "4:2:0 of 8 bits": (
        (13, 11, 2, 2, 8),
        "ff4fff51002f00000000000d0000000b00000000000000000000000d0000000b000000000000000000030701010702020702"
        "02ff52000c00000001000104040001ff5c00074040484850ff640025000143726561746564206279204f70656e4a50454720"
        "76657273696f6e20322e352e30ff90000a00000000006a0001ff93df8130116971a8df05d54cdf5d8f580831fef6b636f997"
        "ede47566084d8fd05354ca641cc1da2aed7fcfb42407a7dd59ca7fd10c8bcfb434095533a7318eb2ff5e4089bb9f80a7e00c"
        "0e3f190e7d5ba7e00d00221b0205b25c03133fffd9",
    ),
    "4:2:0 of 12 bits": (
        (13, 11, 2, 2, 12),
        "ff4fff51002f00000000000d0000000b00000000000000000000000d0000000b000000000000000000030b01010b02020b02"
        "02ff52000c00000001000104040001ff5c00074060686870ff640025000143726561746564206279204f70656e4a50454720"
        "76657273696f6e20322e352e30ff90000a0000000000910001ff93dfe0f0116971a8df05d54cdf5d8f580831fef6b636f997"
        "ede47566084ea95b1b7cc979047566084ea95b1b7cc979047566084d8fd05354ca641cc1da2aed7fcfe43407a7dd5ef8aae3"
        "241e97e1a4b7cfe44c095533a7318eb2ff5e45f6d91bd9fc8c91b6e780a7f809000e3f190e7c208b4e2fa7f8088001101b02"
        "05b25d0d73df133fffd9",
    ),
    "4:2:2 of 12 bits": (
        (12, 10, 2, 1, 12),
        "ff4fff51002f00000000000c0000000a00000000000000000000000c0000000a000000000000000000030b01010b02010b02"
        "01ff52000c00000001000104040001ff5c00074060686870ff640025000143726561746564206279204f70656e4a50454720"
        "76657273696f6e20322e352e30ff90000a00000000008a0001ff93dfe0b01167986cb069fbabbd9291f5ab6fa5f3d21a4587"
        "f8d6f80dadd897fbfcbc9bf174c410aa6d35ff41c9700fbfcfe45012783acebdccb44ee8562ab0dfae575c00cd5853cfe44c"
        "1169f6f78ce58641b68b1104e7c2297fe91f55c1f983802c5f7c90a54e57a07e00c0210c4efd57efc1f983801cfc524d07a2"
        "7bffd9",
    ),
}


@pytest.mark.parametrize("boxes", [None, b"", enumerated(18)], ids=["codestream", "no colours", "sYCC"])
@pytest.mark.parametrize("kind", SUBSAMPLED)
def test_subsampled_sycc(kind: str, boxes: bytes | None) -> None:
    (width, height, across, down, bits), codestream = SUBSAMPLED[kind]
    data = bytes.fromhex(codestream)
    y, x = np.mgrid[:height, :width]
    most, rows, columns = 2**bits - 1, -(-height // down), -(-width // across)
    luma = x * most // (width - 1)
    blue = most // 4 + (y // down) * most // 2 // (rows - 1) - 2 ** (bits - 1)
    red = most // 4 + (x // across) * most // 2 // (columns - 1) - 2 ** (bits - 1)
    rgb = np.dstack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue])
    found = pixels(data if boxes is None else jp2(data, boxes))
    # opj_compress leaves the last samples out where a side is odd.
    np.testing.assert_allclose(found[: -2 * down], (np.clip(rgb, 0, most) / most * 255)[: -2 * down], atol=1)
    assert reason(data[:-3]) in CUT


@pytest.mark.parametrize("form", ["jp2", "j2k"])
def test_cut_jpeg_2000(form: str) -> None:
    assert_cut_files_are_refused(j2k(PICTURE, form))


# --- of all

KINDS = {
    "TIFF": lambda: floats(PICTURE / 255),
    "TIFF in JPEG XL": lambda: written(PICTURE, photometric="rgb", compression="jpegxl"),
    "JPEG": lambda: jpeg(PICTURE, subsampling="444"),
    "lossless JPEG": lambda: jpeg(PICTURE, 16, lossless=True, level=None),
    "JPEG 2000": lambda: j2k(PICTURE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_library_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = KINDS[kind]()
    assert difference(data, PICTURE) <= 3
    take_away(Extra.DEEP, monkeypatch)
    with pytest.raises(MissingExtraError, match=r"needs the extra deep: .*pip install"):
        decode(data, HERE)


@pytest.mark.parametrize("missing", ["tifffile", "imagecodecs"])
def test_both_modules_must_be_there(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Extra.DEEP.is_installed()
    monkeypatch.setitem(sys.modules, missing, None)
    assert not Extra.DEEP.is_installed()


def test_pillow_goes_on_reading_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    files = (
        written(deep(PICTURE, 16), photometric="rgb"),
        written(PICTURE, photometric="rgb", compression="lzw"),
        written((PICTURE[..., 0] / 255).astype("f4"), photometric="minisblack"),
        bytes(imagecodecs.jpeg2k_encode(PICTURE, level=0, reversible=True)),
        bytes(imagecodecs.jpeg2k_encode(deep(PICTURE[..., 0], 16), level=0, reversible=True)),
    )
    take_away(Extra.DEEP, monkeypatch)
    for data in files:
        assert pixels(data).shape == PICTURE.shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_pixels_is_asked_before_pixels_are_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = KINDS[kind]()
    for decoder in ("imagecodecs.jpeg_decode", "imagecodecs.jpeg2k_decode", "tifffile.TiffPage.asarray"):
        monkeypatch.setattr(decoder, lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(PixelLimitError, match="megapixels, more than the limit"):
        decode(data, HERE, max_pixels=3000)
