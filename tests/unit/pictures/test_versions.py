"""A picture tells from which version of the decoding on it has its pixels, so that an index encodes it again."""

from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from bridgetower.pictures.decode import decode
from bridgetower.pictures.decode_pool import DecodePool, Picture
from bridgetower.pictures.extras.extra import Extra
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.pictures.versions import changed_in, recorded
from bridgetower.records import DECODING_VERSION
from tests.pictures import HERE, by_extra, encoded, noise, orientation, png, png_chunk
from tests.unit.pictures import test_colour, test_tiff, test_transparency, test_trusted

SCENE = Image.fromarray(noise(24, 18) // 2 + 40)
DEEP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = test_colour.matrix_profile("P3", test_colour.curve(2.2))


def tiff(values: np.ndarray, **options: object) -> bytes:
    return test_tiff.written(values, **{"photometric": "minisblack", **options})


def animation(kind: str, *frames: Image.Image) -> bytes:
    buffer = BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


AS_EVER: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(SCENE, "JPEG"),
    "JPEG with a profile of sRGB": lambda: encoded(SCENE, "JPEG", icc_profile=SRGB),
    "JPEG on its side": lambda: encoded(SCENE, "JPEG", exif=orientation(6)),
    "JPEG in CMYK": lambda: encoded(SCENE.convert("CMYK"), "JPEG"),
    "PNG": lambda: encoded(SCENE, "PNG"),
    "PNG with alpha": lambda: encoded(test_transparency.drawing((0, 90, 0)), "PNG"),
    "PNG of 16 bits": lambda: encoded(Image.fromarray(DEEP), "PNG"),
    "GIF": lambda: encoded(SCENE, "GIF"),
    "GIF in motion": lambda: animation("GIF", SCENE, SCENE.rotate(90)),
    "WebP": lambda: encoded(SCENE, "WEBP"),
    "AVIF": lambda: encoded(SCENE, "AVIF"),
    "TIFF": lambda: encoded(SCENE, "TIFF"),
    "TIFF of 16 bits": lambda: tiff(DEEP),
    "BMP": lambda: encoded(SCENE, "BMP"),
}
PIXELS = noise(12, 10) // 2
CHANGED_IN_1: dict[str, Callable[[], bytes]] = {
    "a profile": lambda: encoded(SCENE, "JPEG", icc_profile=P3),
    "a profile of grey": lambda: encoded(SCENE.convert("L"), "PNG", icc_profile=test_colour.grey_profile(1.0)),
    "code points": lambda: test_colour.cicp(PIXELS, 9, 16),
    "a transparent grey of 2 bits": lambda: png(
        4, 1, 2, 0, test_transparency.packed_rows(np.array([[0, 1, 2, 3]]), 2), png_chunk(b"tRNS", b"\0\1")
    ),
    "a transparent grey of 16 bits": lambda: png(
        8, 6, 16, 0, test_transparency.packed_rows(DEEP, 16), png_chunk(b"tRNS", bytes(DEEP[2, 3].astype(">u2")))
    ),
    "white ink": lambda: encoded(test_transparency.drawing((255, 255, 255)), "PNG"),
    "a GIF frame on a part": lambda: test_transparency.gif((20, 15), ((4, 3), test_transparency.painted(5))),
    "a WebP frame on a part": lambda: test_transparency.webp((20, 15), ((4, 2), Image.fromarray(PIXELS))),
    "an APNG without its default image": lambda: test_transparency.apng((12, 10), PIXELS, ((0, 0), PIXELS[::-1])),
    "a blank first frame": lambda: animation("WEBP", Image.new("RGB", SCENE.size, "white"), SCENE),
    "a clean aperture": lambda: test_trusted.with_property(
        test_trusted.avif(noise(48, 40)), b"clap", test_trusted.aperture(20, 16, 0, 0)
    ),
    "FITS with a scale": lambda: test_trusted.fits(DEEP.astype("i2"), BZERO=32768),
    "TIFF, white is zero": lambda: tiff(DEEP, photometric="miniswhite"),
    "TIFF, 16 bits in planes": lambda: tiff(
        np.stack([DEEP, DEEP // 2, DEEP // 3]), photometric="rgb", planarconfig="separate"
    ),
    "TIFF, a thumbnail first": lambda: test_tiff.pages((noise(16, 12), {"subfiletype": 1}), (noise(64, 48), {})),
    **{f"the extra {extra}": partial(by_extra, extra) for extra in (Extra.HEIF, Extra.JXL, Extra.RAW)},
}


def version_of(data: bytes) -> int:
    with recorded() as since:
        decode(data, HERE)
    return since.version


@pytest.mark.parametrize("kind", AS_EVER)
def test_usual_pictures_are_decoded_as_ever(kind: str) -> None:
    """An index whose pictures are all of these encodes none again."""
    assert version_of(AS_EVER[kind]()) == 0


@pytest.mark.parametrize("kind", CHANGED_IN_1)
def test_what_gets_other_pixels_tells_so(kind: str) -> None:
    assert version_of(CHANGED_IN_1[kind]()) == 1 <= DECODING_VERSION


def test_the_version_goes_through_the_worker_process() -> None:
    with DecodePool(Preprocessing(32, 32, name="plain")) as pool:
        found = [pool.decode(data) for data in (AS_EVER["JPEG"](), CHANGED_IN_1["a profile"](), AS_EVER["PNG"]())]
    assert [picture.since for picture in found if isinstance(picture, Picture)] == [0, 1, 0]


def test_the_latest_change_counts_and_each_picture_has_its_own() -> None:
    changed_in(9)  # of no picture
    with recorded() as first:
        changed_in(2)
        changed_in(1)
        with recorded() as second:
            changed_in(3)
    assert (first.version, second.version) == (2, 3)
