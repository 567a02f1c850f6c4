"""TIFF files: choose the photo among the pages, and mend or refuse what Pillow does not read rightly.

Pillow 13 was compared with tifffile over depths, sample formats, planes, photometric interpretations, byte orders and
compressions; docs/formats.md says what was found.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, cast

from PIL import Image

from bridgetower.pictures.to_rgb import Samples
from bridgetower.pictures.trusted import KindNotRead, NeedsDeep
from bridgetower.pictures.versions import changed_in

if TYPE_CHECKING:  # a plugin is imported with the first file of its format
    from PIL import ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_PAGES = 1000
_THUMBNAIL = 512  # pixels of the long side, at most
_LARGER = 3  # times, that a photo is at least as large as the thumbnail before it

_TAGS = {254: "kind", 255: "old_kind", 256: "width", 257: "height", 258: "bits", 259: "compression",
         262: "photometric", 277: "samples", 284: "planes", 317: "predictor", 330: "children", 332: "ink_set",
         338: "extras", 339: "formats", 32997: "depth", 50706: "dng"}  # fmt: skip
_SIZES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}  # of whole numbers, by the type of a tag

_CFA, _LINEAR_RAW = 32803, 34892
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRIC = {0: "grey, white is zero", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr",
                8: "Lab", 9: "ICC Lab", 10: "ITU Lab", 32844: "LogL", 32845: "LogLuv"}  # fmt: skip
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
_COMPRESSIONS = {1: "uncompressed", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 6: "old JPEG", 7: "JPEG",
                 8: "deflate", 32773: "PackBits", 32946: "deflate", 33003: "JPEG 2000", 33005: "JPEG 2000",
                 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 34933: "PNG", 50000: "Zstandard", 50001: "WebP",
                 50002: "JPEG XL", 52546: "JPEG XL"}  # fmt: skip
_WEBP = "webp"  # Pillow's name
_JPEG = 7
# Read by the extra `deep`: bits by the format of the samples, where the compression is one of bytes, and kinds of
# samples by other compressions.
_DEEP_BITS = {1: (*range(1, 17), 32, 64), 2: (8, 16, 32, 64), 3: (16, 32, 64)}
_BYTES = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})
_WITH_PREDICTOR = frozenset({5, 8, 32946, 34925, 50000})
_INTEGERS = frozenset({(1, 8), (1, 16)})
_DEEP_SAMPLES = {_JPEG: {(1, 8), (1, 12)}, 33005: _INTEGERS, 34712: _INTEGERS, 34933: _INTEGERS, 50001: {(1, 8)},
                 34887: _INTEGERS | {(2, 8), (2, 16), (1, 32), (2, 32), (3, 32), (3, 64)},
                 50002: _INTEGERS | {(3, 32)}, 52546: _INTEGERS | {(3, 32)}}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Page:
    """The tags of a TIFF directory that describe its picture."""

    offset: int
    kind: int = 0
    old_kind: int = 1
    width: int = 0
    height: int = 0
    bits: tuple[int, ...] = (1,)
    compression: int = 1
    photometric: int = 1
    samples: int = 1
    planes: int = 1
    predictor: int = 1
    children: tuple[int, ...] = ()
    ink_set: int = 1
    extras: tuple[int, ...] = ()
    formats: tuple[int, ...] = (1,)
    depth: int = 1
    dng: int = 0

    @property
    def is_photo(self) -> bool:
        """Whether it is neither a reduced copy nor a mask."""
        return not self.kind & 5 and self.old_kind != 2 and self.width > 0 and self.height > 0

    @property
    def is_deep(self) -> bool:
        """Whether the extra `deep` gives the right pixels of a page that Pillow does not read."""
        bits, sample_format = self.bits[0], self.formats[0]
        colours = {_WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}.get(self.photometric, 0)
        if self.photometric == _YCBCR and self.compression == _JPEG:  # which becomes RGB
            colours = 3
        first, later = (
            any(one in (1, 2) for one in part) for part in (self.extras[:1], self.extras[1:])
        )  # transparency
        predictor = 3 if sample_format == 3 else 2
        return (
            0 < colours <= self.samples
            and len(set(self.bits)) == len(set(self.formats)) == self.depth == self.ink_set == 1
            and (
                bits in _DEEP_BITS.get(sample_format, ())
                if self.compression in _BYTES
                else (sample_format, bits) in _DEEP_SAMPLES.get(self.compression, ())
            )
            and (
                self.predictor == 1
                or (self.predictor == predictor and bits % 8 == 0 and self.compression in _WITH_PREDICTOR)
            )
            and not later
            and not (first and self.photometric in (_PALETTE, _CMYK))
            and not (self.photometric == _PALETTE and (bits > 16 or sample_format != 1))
            and not (self.photometric == _CMYK and self.compression == _JPEG)
        )

    def is_thumbnail_of(self, other: "_Page") -> bool:
        """Whether it is small, and shows the same part of the world as another, larger page."""
        if not self.width or not self.height or max(self.width, self.height) > _THUMBNAIL:
            return False
        across, down = other.width / self.width, other.height / self.height
        return min(across, down) >= _LARGER and 0.95 < across / down < 1.05


def readable_tiff(data: bytes) -> bytes:
    """Return the content of a TIFF file so that its first page is the photo; other content is returned as it is.

    A page that is marked as a thumbnail is passed over, or a first page that looks like one. Raises KindNotRead for
    the raw picture of a camera.
    """
    if data[:4] not in _MAGIC:
        return data
    pages = list(_pages(data))
    if not pages:
        return data
    if data[8:10] == b"CR" or any(page.dng or page.photometric in (_CFA, _LINEAR_RAW) for page in pages):
        raise KindNotRead("a raw picture of a camera, which is not read")
    first = pages[0]
    photos = [page for page in pages if page.is_photo]
    if first.is_photo:
        photos = [page for page in photos if first.is_thumbnail_of(page)]
    if not photos:
        return data
    changed_in(1)
    photo = max(photos, key=lambda page: page.width * page.height)
    order = ">" if data[:1] == b"M" else "<"
    start = struct.pack(order + "I", photo.offset), 4
    if data[2:4] in (b"+\0", b"\0+"):
        start = struct.pack(order + "Q", photo.offset), 8
    return data[: start[1]] + start[0] + data[start[1] + len(start[0]) :]


def _pages(data: bytes) -> Iterator[_Page]:
    """Yield the directories of a TIFF file, each followed by its children, as far as they are whole."""
    order, big = ">" if data[:1] == b"M" else "<", 43 in data[2:4]
    pointer, start = ("Q", 8) if big else ("I", 4)
    waiting, seen = [*struct.unpack_from(order + pointer, data.ljust(16, b"\0"), start)], set[int]()
    while waiting and len(seen) < _MOST_PAGES:
        offset = waiting.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        try:
            page, following = _page(data, offset, order, big=big)
        except struct.error:  # cut
            continue
        yield page
        waiting = [*page.children, *waiting, following]


def _page(data: bytes, offset: int, order: str, *, big: bool) -> tuple[_Page, int]:
    """Return a directory, and the offset of the following one. Raises struct.error where the file is cut."""
    pointer, entry = ("Q", "HHQ8s") if big else ("I", "HHI4s")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    at = offset + (8 if big else 2)
    found: dict[str, int | tuple[int, ...]] = {}
    for _ in range(min(count, 4096)):
        tag, kind, length, value = struct.unpack_from(order + entry, data, at)
        at += struct.calcsize(order + entry)
        if _TAGS.get(tag, "") in ("", *found) or kind not in _SIZES or not 0 < length <= 4096:
            continue
        form = f"{order}{length}{_SIZES[kind]}"
        if struct.calcsize(form) <= len(value):
            numbers = struct.unpack_from(form, value)
        else:
            numbers = struct.unpack_from(form, data, *struct.unpack(order + pointer, value))
        name = _TAGS[tag]
        found[name] = numbers if name in ("bits", "children", "extras", "formats") else numbers[0]
    try:
        (following,) = struct.unpack_from(order + pointer, data, at)
    except struct.error:
        following = 0
    return _Page(offset, **found), following  # type: ignore[arg-type]


_MOST_SAMPLES = 8  # whose bits a reason names; a damaged file may say that it has thousands


def refuse(data: bytes) -> None:
    """Raise NeedsDeep or KindNotRead for a TIFF file that Pillow does not read; return if it is none, or is damaged."""
    page = next(_pages(data), None) if data[:4] in _MAGIC else None
    if page is not None and page.width and page.height:
        raise _refusal(page, data)


def _refusal(page: _Page, data: bytes) -> Exception:
    if page.is_deep:
        return NeedsDeep()
    first = " + ".join(map(str, page.bits[:_MOST_SAMPLES])) + (" + ..." if len(page.bits) > _MOST_SAMPLES else "")
    depth = first if len(set(page.bits)) > 1 else f"{page.samples} x {page.bits[0]}"
    words = [
        _PHOTOMETRIC.get(page.photometric, f"photometric interpretation {page.photometric}"),
        f"{depth} bits",
        _FORMATS.get(page.formats[0], "undefined"),
        *(["separate planes"] if page.planes == 2 and page.samples > 1 else []),
        _COMPRESSIONS.get(page.compression, f"compression {page.compression}"),
        *(["big-endian BigTIFF"] if data[:4] == b"MM\0+" else []),
    ]
    return KindNotRead(f"a TIFF of a kind that is not read: {', '.join(words)}")


def mend(opened: "ImageFile.ImageFile", data: bytes) -> None:
    """Set what Pillow overlooks in a TIFF file that it has opened, before it is loaded.

    `opened.info` gets "samples". Raises NeedsDeep or KindNotRead for kinds that Pillow reads wrongly.
    """
    if opened.format != "TIFF":
        return
    page = next(_pages(data), None)
    if page is None:
        raise KindNotRead("damaged: a TIFF without a directory")
    compressed = page.compression != 1
    separate = page.planes == 2 and page.samples > 1
    big_endian = data[:1] == b"M"
    deep = page.bits[0]
    if (deep == 8 and 2 in page.formats) or (separate and opened.mode in ("LA", "La")):
        raise _refusal(page, data)
    if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
        white, swapped = None, None
        if opened.mode.startswith("I;16"):
            white = 2**deep - 1
        elif deep == 16 and page.formats[0] == 2:
            white = 2**15 - 1
        if compressed and big_endian and not opened.mode.startswith("I;16"):
            swapped = f"{'f' if opened.mode == 'F' else 'i'}{deep // 8}"
        unsigned = opened.mode == "I" and page.formats[0] == 1 and deep == 32
        opened.info["samples"] = Samples(white, page.photometric == 0, unsigned, swapped)
        if opened.info["samples"] not in (Samples(), Samples(65535)):
            changed_in(1)
    if separate and deep == 16 and not compressed:
        if opened.mode != "RGBA"[: page.samples]:
            raise _refusal(page, data)
        changed_in(1)
        order = "B" if big_endian else "L"
        opened.tile = [tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:])) for tile in opened.tile]  # type: ignore[index]


def load_webp(opened: "ImageFile.ImageFile") -> Image.Image | None:
    """Return the pixels of a TIFF file of WebP tiles or strips, which Pillow decodes only in part; else None."""
    if opened.format != "TIFF" or opened.info.get("compression") != _WEBP:
        return None
    tags = cast("TiffImageFile", opened).tag_v2
    if tags.get(284, 1) != 1:
        return None
    tiled = 324 in tags
    offsets, counts = (tags[324], tags[325]) if tiled else (tags[273], tags[279])
    width, height = (tags[322], tags[323]) if tiled else (opened.width, tags.get(278, opened.height))
    assert opened.fp is not None
    image = Image.new(opened.mode, opened.size)
    across = -(-opened.width // width)
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        opened.fp.seek(offset)
        with Image.open(BytesIO(opened.fp.read(count)), formats=["WEBP"]) as part:
            if part.width > width or part.height > height:
                raise OSError("a part is larger than the page says")
            image.paste(part.convert(opened.mode), (number % across * width, number // across * height))
    image.info = opened.info
    return image
