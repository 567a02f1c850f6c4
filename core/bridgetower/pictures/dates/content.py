"""The date in the content of a picture file. Only headers are read: pixels are passed over by their length."""

from collections.abc import Iterator
from itertools import chain, islice

from bridgetower.pictures.dates import exif, iptc, items, png, raws, xmp
from bridgetower.pictures.dates.order import Block, Taken, first_of
from bridgetower.pictures.extras import bmff

MAX_PARTS = 10_000  # segments, chunks; a photograph has a few dozen
MAX_BLOCKS = 32  # that are read; a photograph has two or three

_GIF, _GIF_XMP = (b"GIF87a", b"GIF89a"), b"\x21\xff\x0bXMP DataXMP"
_PHOTOSHOP = b"Photoshop 3.0\0"
_PSD = b"8BPS\0\1"
_BOXES = (b"ftyp", b"jP  ", b"JXL ")  # first boxes: HEIF, AVIF and CR3; JPEG 2000; JPEG XL
# Readers of boxes `uuid`, by the first 16 bytes of their content.
_UUIDS = {
    b"JpgTiffExif->JP2": exif.dates,
    bytes.fromhex("0537cdab9d0c4431a72afa561f2a113e"): exif.dates,
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): xmp.dates,
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): iptc.dates,
    bytes.fromhex("2c4c0100850440b9a03e562148d6dfeb"): iptc.resource_dates,
}
_CANON = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_CANON_EXIF = (b"CMT1", b"CMT2")  # each a TIFF of its own: the first directory, and that of EXIF


def taken_in(data: bytes, *, exif_block: bytes = b"", xmp_packet: bytes = b"") -> Taken | None:
    """Return the date at which the picture in this content was taken, None if it tells none.

    Where the content tells none, `exif_block` and `xmp_packet` are asked, which a decoder finds where this module does
    not look: in compressed boxes of JPEG XL, and in the previews of raw files. Never raises for damaged content.
    """
    return first_of(dates(data)) or first_of([*exif.dates(exif_block), *xmp.dates(xmp_packet)])


def dates(data: bytes) -> Iterator[Taken]:
    """Yield the dates in all places of this content. Never raises for damage."""
    return (date for reader, block in islice(_blocks(data), MAX_BLOCKS) for date in reader(block))


def _blocks(data: bytes) -> Iterator[Block]:
    """Return the blocks that may have a date."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(png.SIGNATURE):
        return png.blocks(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(_GIF):
        return _gif(data)
    if data[4:8] in _BOXES:
        return _boxes(data)
    if data.startswith(_PSD):
        return _psd(data)
    if data.startswith(raws.FUJI):
        return _jpeg(raws.preview(data))
    if data.startswith(raws.X3F):
        return chain(_jpeg(raws.preview(data)), raws.x3f(data))
    if data.startswith(raws.MINOLTA):
        return raws.minolta(data)
    if data.startswith(raws.CRW):
        return raws.crw(data)
    return iter([(exif.dates, data)])


def _jpeg(data: bytes) -> Iterator[Block]:
    """Yield the blocks in the segments before the pixels."""
    resources: list[bytes] = []  # a long list of them is cut into several segments
    at = 2
    for _ in range(MAX_PARTS):
        marker, end = data[at + 1 : at + 2], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at : at + 1] != b"\xff" or marker in b"\xda\xd9":
            break
        if marker == b"\xff":  # a fill byte
            at += 1
            continue
        if end < at + 4:
            break
        if marker == b"\xe1" and data.startswith(b"Exif\0\0", at + 4):
            yield exif.dates, data[at + 4 : end]
        elif marker == b"\xe1" and data.startswith(png.XMP_PREFIX, at + 4):
            yield xmp.dates, data[at + 4 + len(png.XMP_PREFIX) : end]
        elif marker == b"\xed" and data.startswith(_PHOTOSHOP, at + 4):
            resources.append(data[at + 4 + len(_PHOTOSHOP) : end])
        at = end
    yield iptc.resource_dates, b"".join(resources)


def _webp(data: bytes) -> Iterator[Block]:
    at = 12
    for _ in range(MAX_PARTS):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if len(name) < 4:
            return
        if name in (b"EXIF", b"XMP "):
            yield exif.dates if name == b"EXIF" else xmp.dates, data[at + 8 : at + 8 + length]
        at += 8 + (length + 1) // 2 * 2


def _gif(data: bytes) -> Iterator[Block]:
    """Yield the XMP among the extensions before the first image."""
    flags = int.from_bytes(data[10:11])
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)  # after the palette
    is_within = False  # an extension, of which the next block begins here
    for _ in range(MAX_PARTS):
        if is_within:
            length = int.from_bytes(data[at : at + 1])
            is_within = length > 0
            at += 1 + length
        elif data.startswith(_GIF_XMP, at):  # the packet itself, and bytes that lead readers of blocks over it
            yield xmp.dates, data[at + len(_GIF_XMP) : at + xmp.LONGEST].partition(b"\1\xff\xfe")[0]
            return
        elif data[at : at + 1] == b"\x21":
            is_within = True
            at += 2
        else:
            return


def _boxes(data: bytes) -> Iterator[Block]:
    """Yield the blocks of HEIF, AVIF, CR3, JPEG 2000 and JPEG XL."""
    for kind, start, end in bmff.boxes(data):
        content = data[start : min(end, start + xmp.LONGEST)] if kind in (b"Exif", b"xml ", b"uuid") else b""
        if kind == b"Exif":
            yield _box_exif, content
        elif kind == b"xml ":
            yield xmp.dates, content
        elif kind == b"meta":
            for item, held in items.metadata(data, bmff.Box(kind, start, end)):
                yield _box_exif if item == b"Exif" else xmp.dates, held
        elif kind == b"moov":
            yield from _canon(data, start, end)
        elif (reader := _UUIDS.get(content[:16])) is not None:
            yield reader, content[16:]


def _box_exif(content: bytes) -> Iterator[Taken]:
    """Yield the dates of EXIF behind 4 bytes that say how far it begins after them."""
    return exif.dates(content[4 + int.from_bytes(content[:4]) :])


def _canon(data: bytes, start: int, end: int) -> Iterator[Block]:
    for kind, inner, inner_end in bmff.boxes(data, start, end):
        if kind == b"uuid" and data.startswith(_CANON, inner):
            for box in bmff.boxes(data, inner + 16, inner_end):
                if box.kind in _CANON_EXIF:
                    yield exif.dates, data[box.start : box.end]


def _psd(data: bytes) -> Iterator[Block]:
    """Yield the image resources, which follow the header and a table of colours."""
    start = 30 + int.from_bytes(data[26:30])
    end = start + 4 + int.from_bytes(data[start : start + 4])
    readers = {iptc.EXIF: exif.dates, iptc.XMP: xmp.dates, iptc.IPTC: iptc.dates}
    for number, content in iptc.resources(data, start + 4, end):
        if number in readers:
            yield readers[number], content
