"""Read from the headers what Pillow overlooks: mend it, or refuse files of kinds that Pillow reads wrongly.

docs/formats.md says what was found of each format, as of Pillow 13.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from PIL import Image

from bridgetower.pictures.extras.jpeg_2000 import read_header
from bridgetower.pictures.side_data import jpeg_frame
from bridgetower.pictures.to_rgb import Samples
from bridgetower.pictures.versions import changed_in

if TYPE_CHECKING:
    from PIL import ImageFile


# Bits of a channel that the extra `deep` reads, by the marker of the frame: two with DCT, and the lossless one.
_DEEP_FRAMES = {0xC1: (12,), 0xC2: (12,), 0xC3: range(9, 17)}


_VIDEOS = frozenset({b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ", b"3gp4"})


class KindNotRead(Exception):
    """A file is sound, but of a kind that is not read; the message is the reason, for people."""


class NeedsDeep(Exception):
    """A file is of a kind that Pillow does not read, or reads wrongly, and the libraries of the extra `deep` read."""


def refuse(data: bytes) -> None:
    """Raise NeedsDeep or KindNotRead for a sound file of a known kind that Pillow does not identify; else return."""
    if data[4:8] == b"ftyp" and data[8:12] in _VIDEOS:
        raise KindNotRead("a video, which is not read")
    if b"<svg" in data[:1000].lower():
        raise KindNotRead("an SVG, which is no picture of pixels and is not read")
    frame = jpeg_frame(data)
    if frame is None or data[frame + 4] == 8:
        return
    if data[frame + 4] in _DEEP_FRAMES.get(data[frame + 1], ()):
        raise NeedsDeep
    raise KindNotRead(f"a JPEG file of {data[frame + 4]} bits a channel, which is not read")


def check(opened: "ImageFile.ImageFile", data: bytes) -> None:
    """Set `opened.info` for `crop` and `to_rgb`. Raises KindNotRead for what Pillow reads wrongly."""
    if opened.format == "JPEG2000":
        _check_jpeg_2000(opened, data)
    elif opened.format == "AVIF":
        _read_avif(opened, data)
    elif opened.format == "FITS":
        _read_fits(opened, data)


def crop(image: Image.Image) -> Image.Image:
    """Return the part of a loaded image that is to be shown: "clean_aperture" in its `info`, or all of it."""
    box = image.info.pop("clean_aperture", None)
    if not isinstance(box, tuple):
        return image
    if box != (0, 0, *image.size):
        changed_in(1)
    return image.crop(box)


def _check_jpeg_2000(opened: "ImageFile.ImageFile", data: bytes) -> None:
    """Note the profile. Refuse what Pillow reads wrongly.

    Where it makes 8 bits of more, in all modes but I;16, the rounded value wraps, so that white becomes black. Of
    subsampled pictures of an odd size it mixes up the rows.
    """
    header = read_header(data)
    if header is None:
        return
    if (opened.mode != "I;16" and max(header.depths) > 8) or header.is_uneven:
        if header.why_not_read is None:
            raise NeedsDeep
        kind = f"{len(header.depths)} x {max(header.depths)} bits, {header.why_not_read}"
        raise KindNotRead(f"a JPEG 2000 file of a kind that is not read: {kind}")
    if header.profile:
        opened.info["icc_profile"] = header.profile


# --- AVIF


def _read_avif(opened: "ImageFile.ImageFile", data: bytes) -> None:
    """Note the clean aperture, and the code points of the colours where there is no profile."""
    with suppress(struct.error, ZeroDivisionError):
        for name, body in primary_properties(data):
            if name == b"colr" and body[:4] == b"nclx" and "icc_profile" not in opened.info:
                opened.info["cicp"] = bytes([body[5], body[7]])  # the low bytes of two numbers of 16 bits
            elif name == b"clap":
                opened.info["clean_aperture"] = _aperture(body, *opened.size)


def _aperture(body: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom of a clean aperture, or None if it does not lie within the picture."""
    numbers = struct.unpack_from(">II II iI iI", body)
    across, down, right, below = (numbers[at] / numbers[at + 1] for at in (0, 2, 4, 6))
    left, top = round((width - across) / 2 + right), round((height - down) / 2 + below)
    box = left, top, left + round(across), top + round(down)
    return box if 0 <= left < box[2] <= width and 0 <= top < box[3] <= height else None


def primary_properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and body of the properties of the primary item of a HEIF file. Raises struct.error if it is cut."""
    boxes = {name: body for name, body in _boxes(data) if name == b"meta"}
    meta = dict(_boxes(boxes.get(b"meta", b"")[4:]))
    primary = meta.get(b"pitm", b"\0" * 6)
    (item,) = struct.unpack_from(">I" if primary[0] else ">H", primary, 4)
    container = dict(_boxes(meta.get(b"iprp", b"")))
    properties = list(_boxes(container.get(b"ipco", b"")))
    table = container.get(b"ipma", b"\0" * 8)
    (count,), at = struct.unpack_from(">I", table, 4), 8
    wide_item, wide_index = table[0] > 0, table[3] & 1
    for _ in range(count):
        found, associations = struct.unpack_from(">IB" if wide_item else ">HB", table, at)
        at += 5 if wide_item else 3
        form = ">" + str(associations) + ("H" if wide_index else "B")
        if found == item:
            for index in struct.unpack_from(form, table, at):
                index &= 0x7FFF if wide_index else 0x7F  # without the bit that it is essential
                if 0 < index <= len(properties):
                    yield properties[index - 1]
        at += struct.calcsize(form)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and body of the boxes of ISO/IEC 14496-12 in `data`."""
    at = 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4]), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        elif size == 0:
            size = len(data) - at
        if size < head:
            return
        yield data[at + 4 : at + 8], data[at + head : at + size]
        at += size


# --- FITS


def _read_fits(opened: "ImageFile.ImageFile", data: bytes) -> None:
    """Note the scale of the values; refuse what is compressed, and all but one plane, as Pillow reads one of noise."""
    for header in _fits_headers(data):
        if header.get("ZIMAGE") == "T":
            raise KindNotRead(f"a FITS file of a kind that is not read: compressed ({header.get('ZCMPTYPE', '')})")
        axes = [int(header.get(f"NAXIS{n + 1}", 0)) for n in range(int(header.get("NAXIS", 0)))]
        if len(axes) < 2:
            continue
        if any(length > 1 for length in axes[2:]):
            raise KindNotRead(f"a FITS file of a kind that is not read: {' x '.join(map(str, axes))} values")
        scale, zero = (
            float(header.get(key, default).replace("D", "E")) for key, default in (("BSCALE", "1"), ("BZERO", "0"))
        )
        if opened.mode == "L" and (scale, zero) != (1, 0):
            raise KindNotRead("a FITS file of a kind that is not read: bytes with a scale")
        opened.info["samples"] = Samples(scale=(scale, zero))
        if (scale, zero) != (1, 0) or opened.mode.startswith("I;16"):
            changed_in(1)
        return


def _fits_headers(data: bytes) -> Iterator[dict[str, str]]:
    """Yield the headers of a FITS file up to the first one of an image; the values are as they are written."""
    at = 0
    while at < len(data):
        header: dict[str, str] = {}
        start = at
        while at + 80 <= len(data):
            card = data[at : at + 80].decode("ascii", "replace")
            at += 80
            if card.startswith("END "):
                break
            if card[8:10] == "= ":
                header[card[:8].strip()] = card[10:].split("/")[0].strip().strip("'").strip()
        yield header
        at = -(-at // 2880) * 2880
        if at == start or int(header.get("NAXIS", 0)):  # it is cut, or values follow
            return
