"""Small picture files with dates in every place and spelling, what exiftool reads there, and what `bt` must read.

The values of exiftool are of version 12.57: the first of TAGS that it prints, with its name. A row whose date differs
says why; no other row may.
"""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image

from tests.pictures import encoded, png, png_chunk, segment

# In the order of the guidelines of the Metadata Working Group: taken, then digitised; then what exiftool alone has.
TAGS = (
    "DateTimeOriginal", "DateCreated", "CreateDate", "DateTimeDigitized", "DigitalCreationDateTime", "CreationTime",
    "GPSDateTime",
)  # fmt: skip

ORIGINAL, DIGITIZED, CHANGED, EXIF, GPS, XMP, IPTC, RESOURCES = 36867, 36868, 306, 34665, 34853, 700, 33723, 34377
ZONE, ZONE_ORIGINAL = 36880, 36881

Tags = dict[int, Any]  # text, bytes, rationals, _Number, or a directory


class _Number(int):
    """A number of 16 bits."""


def tiff(
    tags: Tags, *, exif: Tags | None = None, gps: Tags | None = None, order: str = "<", big: bool = False, at: int = 0
) -> bytes:
    """A TIFF file, or a block of EXIF, of these tags; `at` is the place of the first directory."""
    offset = "Q" if big else "I"
    head = b"II" if order == "<" else b"MM"
    start = at or (16 if big else 8)
    if big:
        head += struct.pack(order + "HHHQ", 43, 8, 0, start)
    else:
        head += struct.pack(order + "HI", 42, start)
    data = bytearray(head.ljust(start, b"\0"))

    def write(directory: Tags) -> None:
        place = len(data)
        count, inline = struct.calcsize(order + ("Q" if big else "H")), struct.calcsize(order + offset)
        data.extend(bytes(count + (4 + 2 * inline) * len(directory) + inline))
        struct.pack_into(order + ("Q" if big else "H"), data, place, len(directory))
        for number, (tag, value) in enumerate(sorted(directory.items())):
            if isinstance(value, dict):
                kind, length, content = (16 if big else 4), 1, struct.pack(order + offset, len(data))
                write(value)
            elif isinstance(value, _Number):
                kind, length, content = 3, 1, struct.pack(order + "H", value)
            elif isinstance(value, tuple):  # rationals
                kind, length = 5, len(value)
                content = b"".join(struct.pack(order + "II", *part) for part in value)
            else:
                kind = 2 if isinstance(value, str) else 7
                content = value.encode("latin-1") + b"\0" if isinstance(value, str) else value
                length = len(content)
            if len(content) > inline:
                data.extend(content)
                content = struct.pack(order + offset, len(data) - len(content))
            entry = place + count + (4 + 2 * inline) * number
            struct.pack_into(order + "HH" + offset, data, entry, tag, kind, length)
            data[entry + 4 + inline : entry + 4 + 2 * inline] = content.ljust(inline, b"\0")

    children = {tag: child for tag, child in ((EXIF, exif), (GPS, gps)) if child is not None}
    write({**tags, **children})
    return bytes(data)


def picture_tiff(tags: Tags, **options: Any) -> bytes:
    """A TIFF file of one grey pixel, which any reader shows."""
    short = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 1}
    base: Tags = {tag: _Number(value) for tag, value in short.items()}
    return tiff({**base, **tags}, **options)


def in_exif(*, order: str = "<", **dates: str) -> bytes:
    """A block with dates, as original="...", digitized="...", zone="...", changed="..."."""
    names = {"original": ORIGINAL, "digitized": DIGITIZED, "zone": ZONE_ORIGINAL}
    exif = {names[name]: value for name, value in dates.items() if name in names}
    first = {CHANGED: dates["changed"]} if "changed" in dates else {}
    return tiff(first, exif=exif, order=order)


def packet(*properties: str, element: bool = False, wrapped: str = "{}") -> bytes:
    """A packet of XMP; a property is as "exif:DateTimeOriginal=2019"."""
    pairs = [one.split("=", 1) for one in properties]
    names = {
        "exif": "http://ns.adobe.com/exif/1.0/",
        "xmp": "http://ns.adobe.com/xap/1.0/",
        "photoshop": "http://ns.adobe.com/photoshop/1.0/",
        "tiff": "http://ns.adobe.com/tiff/1.0/",
        "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    }
    spaces = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in names.items())
    attributes = "" if element else " ".join(f'{name}="{value}"' for name, value in pairs)
    elements = "".join(f"<{name}>{value}</{name}>" for name, value in pairs) if element else ""
    description = f'<rdf:Description rdf:about="" {spaces} {attributes}>{wrapped.format(elements)}</rdf:Description>'
    rdf = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{description}</rdf:RDF>'
    meta = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{rdf}</x:xmpmeta>'
    return f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{meta}<?xpacket end="w"?>'.encode()


def iptc(**sets: str) -> bytes:
    """Data sets of IPTC, as s55="20190704"."""
    return b"".join(
        struct.pack(">BBBH", 0x1C, 2, int(name[1:]), len(value)) + value.encode() for name, value in sets.items()
    )


def resource(number: int, content: bytes) -> bytes:
    """An image resource of Photoshop."""
    return b"8BIM" + struct.pack(">HHI", number, 0, len(content)) + content + b"\0" * (len(content) % 2)


# --- files


@cache
def plain(kind: str, **options: Any) -> bytes:
    return encoded(Image.new("RGB", (16, 16), "red"), kind, **options)


def jpeg(exif: bytes = b"", *, xmp: bytes = b"", resources: bytes = b"") -> bytes:
    data = plain("JPEG")
    segments = b""
    if exif:
        segments += segment(0xFFE1, b"Exif\0\0" + exif)
    if xmp:
        segments += segment(0xFFE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
    if resources:
        segments += segment(0xFFED, b"Photoshop 3.0\0" + resources)
    return data[:2] + segments + data[2:]


def png_with(*chunks: bytes) -> bytes:
    return png(1, 1, 8, 0, b"\0\0", *chunks)


def text(keyword: str, value: str) -> bytes:
    return png_chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + value.encode("latin-1"))


def packed_text(keyword: str, value: bytes) -> bytes:
    return png_chunk(b"zTXt", keyword.encode("latin-1") + b"\0\0" + zlib.compress(value))


def unicode_text(keyword: str, value: bytes, *, packed: bool = False) -> bytes:
    head = keyword.encode("latin-1") + (b"\0\1\0\0\0" if packed else b"\0\0\0\0\0")
    return png_chunk(b"iTXt", head + (zlib.compress(value) if packed else value))


def profile(kind: str, content: bytes) -> bytes:
    """A profile in a text chunk, as ImageMagick writes it."""
    digits = content.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return packed_text(f"Raw profile type {kind}", f"\n{kind}\n{len(content):8}\n{lines}\n".encode())


def webp(*, exif: bytes = b"", xmp: bytes = b"") -> bytes:
    return plain("WEBP", exif=exif, xmp=xmp)


def gif(packet: bytes) -> bytes:
    data = plain("GIF")
    at = data.index(b"\x2c\0\0\0\0")
    over = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    return data[:at] + b"\x21\xfe\3abc\0\x21\xff\x0bXMP DataXMP" + packet + over + data[at:]


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + kind + content


def heic(*, exif: bytes = b"", xmp: bytes = b"") -> bytes:
    import pillow_heif

    image = pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red"))
    buffer = BytesIO()
    image.save(buffer, exif=exif or None, xmp=xmp or None)
    return buffer.getvalue()


def avif(*, exif: bytes = b"", xmp: bytes = b"") -> bytes:
    return plain("AVIF", exif=exif, xmp=xmp)


def jxl(*boxes: bytes) -> bytes:
    """JPEG XL in boxes."""
    codestream = bytes.fromhex("ff0a0010b0130308801000c0004b8a45c9e1e1")  # readers of headers take it for a picture
    start = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    return start + b"".join(boxes) + box(b"jxlc", codestream)


def jp2(*boxes: bytes) -> bytes:
    data = plain("JPEG2000")
    at = data.index(b"jp2c") - 4
    return data[:at] + b"".join(boxes) + data[at:]


def psd(*resources: bytes) -> bytes:
    held = b"".join(resources)
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 1, 1, 8, 3)
    return header + struct.pack(">II", 0, len(held)) + held + struct.pack(">IH", 0, 0) + b"\0\0\0"


def cr3(*cmt: bytes, xmp: bytes = b"") -> bytes:
    """The boxes of a CR3 file, without a picture."""
    uuid = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    inner = b"".join(box(b"CMT%d" % number, block) for number, block in enumerate(cmt, 1))
    canon = box(b"uuid", uuid, box(b"CNCV", b"CanonCR3_001/00.09.00/00.00.00"), inner)
    packet_box = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), xmp) if xmp else b""
    return box(b"ftyp", b"crx \0\0\0\1crx isom") + box(b"moov", canon) + packet_box + box(b"mdat", bytes(16))


def raf(preview: bytes) -> bytes:
    head = b"FUJIFILMCCD-RAW 0201FF129502".ljust(84, b"\0") + struct.pack(">II", 160, len(preview))
    return head.ljust(160, b"\0") + preview


def mrw(block: bytes) -> bytes:
    size = b"\0PRD" + struct.pack(">I", 24) + bytes(24)
    blocks = size + b"\0TTW" + struct.pack(">I", len(block)) + block
    return b"\0MRM" + struct.pack(">I", len(blocks)) + blocks


def crw(at: int) -> bytes:
    """A CRW file with a time in the properties of the picture, which are a heap within a heap."""

    def heap(*entries: tuple[int, bytes]) -> bytes:
        contents, directory = b"", struct.pack("<H", len(entries))
        for tag, content in entries:
            directory += struct.pack("<HII", tag, len(content), len(contents))
            contents += content
        return contents + directory + struct.pack("<I", len(contents))

    properties = heap((0x1810, bytes(28)), (0x180E, struct.pack("<IiI", at, 0, 0)))
    return b"II\x1a\0\0\0HEAPCCDR".ljust(26, b"\0") + heap((0x2007, bytes(30)), (0x300A, properties))


def x3f(*, jpeg: bytes = b"", at: int | None = None) -> bytes:
    """An X3F file with a preview, and a time in its properties."""
    data, directory = b"FOVb\0\0\2\0".ljust(40, b"\0"), b""
    sections = []
    if jpeg:
        sections.append((b"IMA2", b"SECi" + struct.pack("<IIIIII", 0x20000, 2, 18, 16, 16, 0) + jpeg))
    if at is not None:
        words = ["ISO", "100", "TIME", str(at)]
        starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
        text = "".join(f"{word}\0" for word in words).encode("utf-16-le")
        head = struct.pack("<IIIII", 0x20000, 2, 0, 0, len(text) // 2) + struct.pack("<IIII", *starts)
        sections.append((b"PROP", b"SECp" + head + text))
    for kind, content in sections:
        directory += struct.pack("<II4s", len(data), len(content), kind)
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    return data + b"SECd" + struct.pack("<II", 0x20000, len(sections)) + directory + struct.pack("<I", len(data))


# --- the matrix


class Row(NamedTuple):
    """A file with a date, or without."""

    name: str  # with the extension
    make: Callable[[], bytes]
    exiftool: str  # the first of TAGS with a number in its value, and the value; empty if there is none
    taken: str | None  # what `bt` must read
    why: str = ""  # the dates differ


FULL, DAY = "2019-07-04T10:15:00", "2019-07-04T00:00:00"
WHEN, LATER, EDITED = "2019:07:04 10:15:00", "2019:07:05 11:16:01", "2024:01:02 03:04:05"
ORIGINAL_IS_WHEN = f"DateTimeOriginal {WHEN}"
BLANK = "    :  :     :  :  "

YEARS = "of years before 1800 and after 2100 none is of a photograph"
ZERO = "a month or day of 0 is unknown: the year or month counts"
NARROWED = "the time of that day is in another place"
UNREAD = "exiftool prints the text as it stands"


def _exif(value: str) -> Callable[[], bytes]:
    return lambda: jpeg(in_exif(original=value, changed=EDITED))


def _xmp(value: str) -> Callable[[], bytes]:
    return lambda: jpeg(xmp=packet(f"exif:DateTimeOriginal={value}"))


def _png(value: str, keyword: str = "Creation Time") -> Callable[[], bytes]:
    return lambda: png_with(text(keyword, value))


ROWS = (
    # --- EXIF: spellings of DateTimeOriginal
    Row("exif-plain.jpg", _exif(WHEN), ORIGINAL_IS_WHEN, FULL),
    Row("exif-iso.jpg", _exif("2019-07-04T10:15:00"), "DateTimeOriginal 2019-07-04T10:15:00", FULL),
    Row("exif-iso-blank.jpg", _exif("2019-07-04 10:15:00"), "DateTimeOriginal 2019-07-04 10:15:00", FULL),
    Row("exif-slashes.jpg", _exif("2019/07/04 10:15:00"), "DateTimeOriginal 2019/07/04 10:15:00", FULL),
    Row("exif-dots.jpg", _exif("2019.07.04 10:15:00"), "DateTimeOriginal 2019.07.04 10:15:00", FULL),
    Row("exif-all-colons.jpg", _exif("2019:07:04:10:15:00"), "DateTimeOriginal 2019:07:04:10:15:00", FULL),
    Row("exif-zone.jpg", _exif("2019:07:04 10:15:00+02:00"), "DateTimeOriginal 2019:07:04 10:15:00+02:00", FULL),
    Row("exif-iso-zone.jpg", _exif("2019-07-04T10:15:00-0700"), "DateTimeOriginal 2019-07-04T10:15:00-0700", FULL),
    Row("exif-utc.jpg", _exif("2019:07:04 10:15:00Z"), "DateTimeOriginal 2019:07:04 10:15:00Z", FULL),
    Row("exif-fraction.jpg", _exif("2019:07:04 10:15:00.123"), "DateTimeOriginal 2019:07:04 10:15:00.123", FULL),
    Row("exif-comma.jpg", _exif("2019-07-04T10:15:00,5+02:00"), "DateTimeOriginal 2019-07-04T10:15:00,5+02:00", FULL),
    Row("exif-single-digits.jpg", _exif("2019: 7: 4 10:15: 0"), "DateTimeOriginal 2019: 7: 4 10:15: 0", FULL),
    Row("exif-two-blanks.jpg", _exif("2019:07:04  10:15:00"), "DateTimeOriginal 2019:07:04  10:15:00", FULL),
    Row("exif-trailing-blanks.jpg", _exif("2019:07:04 10:15:00   "), "DateTimeOriginal 2019:07:04 10:15:00   ", FULL),
    Row("exif-nul-inside.jpg", _exif("2019:07:04 10:15:00\0rest"), ORIGINAL_IS_WHEN, FULL),
    Row("exif-no-end.jpg", lambda: jpeg(tiff({}, exif={ORIGINAL: b"2019:07:04 10:15:00"})), ORIGINAL_IS_WHEN, FULL),
    Row("exif-compact.jpg", _exif("20190704101500"), "DateTimeOriginal 20190704101500", FULL),
    Row("exif-no-seconds.jpg", _exif("2019:07:04 10:15"), "DateTimeOriginal 2019:07:04 10:15", FULL),
    Row("exif-blank-seconds.jpg", _exif("2019:07:04 10:15:  "), "DateTimeOriginal 2019:07:04 10:15:  ", FULL),
    Row("exif-day.jpg", _exif("2019:07:04"), "DateTimeOriginal 2019:07:04", DAY),
    Row("exif-blank-time.jpg", _exif("2019:07:04   :  :  "), "DateTimeOriginal 2019:07:04   :  :  ", DAY),
    Row("exif-month.jpg", _exif("2019:07"), "DateTimeOriginal 2019:07", "2019-07-01T00:00:00"),
    Row(
        "exif-blank-day.jpg",
        _exif("2019:07:     :  :  "),
        "DateTimeOriginal 2019:07:     :  :  ",
        "2019-07-01T00:00:00",
    ),
    Row(
        "exif-zero-day.jpg",
        _exif("2019:07:00 00:00:00"),
        "DateTimeOriginal 2019:07:00 00:00:00",
        "2019-07-01T00:00:00",
        ZERO,
    ),
    Row("exif-year.jpg", _exif("2019"), "DateTimeOriginal 2019", "2019-01-01T00:00:00"),
    Row(
        "exif-zero-month.jpg",
        _exif("2019:00:00 00:00:00"),
        "DateTimeOriginal 2019:00:00 00:00:00",
        "2019-01-01T00:00:00",
        ZERO,
    ),
    Row("exif-blank.jpg", _exif(BLANK), "", None),
    Row("exif-zero.jpg", _exif("0000:00:00 00:00:00"), "", None),
    Row("exif-empty.jpg", _exif(""), "", None),
    Row("exif-word.jpg", _exif("yesterday"), "", None),
    Row("exif-month-13.jpg", _exif("2019:13:04 10:15:00"), "DateTimeOriginal 2019:13:04 10:15:00", None),
    Row("exif-30-february.jpg", _exif("2019:02:30 10:15:00"), "DateTimeOriginal 2019:02:30 10:15:00", None),
    Row("exif-minute-61.jpg", _exif("2019:07:04 10:61:00"), "DateTimeOriginal 2019:07:04 10:61:00", None),
    Row(
        "exif-hour-24.jpg",
        _exif("2019:07:04 24:00:00"),
        "DateTimeOriginal 2019:07:04 24:00:00",
        "2019-07-05T00:00:00",
        "the end of a day",
    ),
    Row(
        "exif-second-60.jpg",
        _exif("2019:07:04 10:14:60"),
        "DateTimeOriginal 2019:07:04 10:14:60",
        FULL,
        "a leap second",
    ),
    Row("exif-year-1066.jpg", _exif("1066:10:14 09:00:00"), "DateTimeOriginal 1066:10:14 09:00:00", None, YEARS),
    Row("exif-year-2107.jpg", _exif("2107:07:04 10:15:00"), "DateTimeOriginal 2107:07:04 10:15:00", None, YEARS),
    Row("exif-1826.jpg", _exif("1826:06:01 12:00:00"), "DateTimeOriginal 1826:06:01 12:00:00", "1826-06-01T12:00:00"),
    Row("exif-1969.jpg", _exif("1969:12:31 23:59:59"), "DateTimeOriginal 1969:12:31 23:59:59", "1969-12-31T23:59:59"),
    # --- EXIF: places
    Row("exif-big-endian.jpg", lambda: jpeg(in_exif(original=WHEN, order=">")), ORIGINAL_IS_WHEN, FULL),
    Row("exif-offset-time.jpg", lambda: jpeg(in_exif(original=WHEN, zone="+02:00")), ORIGINAL_IS_WHEN, FULL),
    Row("exif-offset-impossible.jpg", lambda: jpeg(in_exif(original=WHEN, zone="+99:99")), ORIGINAL_IS_WHEN, FULL),
    Row(
        "exif-digitised.jpg",
        lambda: jpeg(in_exif(digitized=WHEN, changed=EDITED)),
        "CreateDate 2019:07:04 10:15:00",
        FULL,
    ),
    Row(
        "exif-blank-original.jpg",
        lambda: jpeg(in_exif(original=BLANK, digitized=WHEN, changed=EDITED)),
        "CreateDate 2019:07:04 10:15:00",
        FULL,
    ),
    Row("exif-both.jpg", lambda: jpeg(in_exif(original=WHEN, digitized=LATER, changed=EDITED)), ORIGINAL_IS_WHEN, FULL),
    Row(
        "exif-day-and-digitised.jpg",
        lambda: jpeg(in_exif(original="2019:07:04", digitized=WHEN)),
        "DateTimeOriginal 2019:07:04",
        FULL,
        NARROWED,
    ),
    Row("exif-changed.jpg", lambda: jpeg(in_exif(changed=EDITED)), "", None),
    Row("exif-first-directory.jpg", lambda: jpeg(tiff({ORIGINAL: WHEN, CHANGED: EDITED})), ORIGINAL_IS_WHEN, FULL),
    Row(
        "exif-twice.jpg",
        lambda: jpeg(tiff({ORIGINAL: LATER}, exif={ORIGINAL: WHEN})),
        "DateTimeOriginal 2019:07:05 11:16:01",
        "2019-07-05T11:16:01",
    ),
    Row("tiff.tif", lambda: picture_tiff({CHANGED: EDITED}, exif={ORIGINAL: WHEN}), ORIGINAL_IS_WHEN, FULL),
    Row(
        "tiff-big-endian.tif", lambda: tiff({CHANGED: EDITED}, exif={ORIGINAL: WHEN}, order=">"), ORIGINAL_IS_WHEN, FULL
    ),
    Row("tiff-far-directory.tif", lambda: tiff({}, exif={ORIGINAL: WHEN}, at=5000), ORIGINAL_IS_WHEN, FULL),
    Row("tiff-big.tif", lambda: tiff({CHANGED: EDITED}, exif={ORIGINAL: WHEN}, big=True), ORIGINAL_IS_WHEN, FULL),
    Row("tiff-xmp.tif", lambda: picture_tiff({XMP: packet(f"exif:DateTimeOriginal={FULL}")}), ORIGINAL_IS_WHEN, FULL),
    Row(
        "tiff-iptc.tif",
        lambda: picture_tiff({IPTC: iptc(s55="20190704", s60="101500+0200")}),
        "DateTimeOriginal 2019:07:04 10:15:00+02:00",
        FULL,
    ),
    Row(
        "tiff-resources.tif",
        lambda: picture_tiff({RESOURCES: resource(1028, iptc(s55="20190704", s60="101500"))}),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row(
        "dng.dng",
        lambda: picture_tiff({50706: bytes((1, 4, 0, 0)), ORIGINAL: WHEN, CHANGED: EDITED}),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    # --- GPS, in UTC
    Row(
        "gps.jpg",
        lambda: jpeg(tiff({CHANGED: EDITED}, gps={29: "2019:07:04", 7: ((8, 1), (15, 1), (0, 1))})),
        "GPSDateTime 2019:07:04 08:15:00Z",
        "2019-07-04T08:15:00",
    ),
    Row(
        "gps-fraction.jpg",
        lambda: jpeg(tiff({}, gps={29: "2019:07:04", 7: ((8, 1), (15, 1), (590, 100))})),
        "GPSDateTime 2019:07:04 08:15:05.9Z",
        "2019-07-04T08:15:05",
    ),
    Row(
        "gps-zone.jpg",
        lambda: jpeg(tiff({}, exif={ZONE: "+02:00"}, gps={29: "2019:07:04", 7: ((8, 1), (15, 1), (0, 1))})),
        "GPSDateTime 2019:07:04 08:15:00Z",
        FULL,
        "exiftool does not apply the zone",
    ),
    Row("gps-day.jpg", lambda: jpeg(tiff({}, gps={29: "2019:07:04"})), "", DAY, "exiftool wants the time, too"),
    Row("gps-no-day.jpg", lambda: jpeg(tiff({}, gps={7: ((8, 1), (15, 1), (0, 1))})), "", None),
    Row(
        "gps-undefined.jpg",
        lambda: jpeg(tiff({}, gps={29: "2019:07:04", 7: ((8, 0), (15, 1), (0, 1))})),
        "GPSDateTime 2019:07:04 Inf:NaN:000000000NaNZ",
        DAY,
    ),
    Row(
        "gps-hour-25.jpg",
        lambda: jpeg(tiff({}, gps={29: "2019:07:04", 7: ((25, 1), (15, 1), (0, 1))})),
        "GPSDateTime 2019:07:04 25:15:00Z",
        DAY,
        "an impossible time: the day counts",
    ),
    Row(
        "gps-and-digitised.jpg",
        lambda: jpeg(tiff({}, exif={DIGITIZED: WHEN}, gps={29: "2019:07:04", 7: ((8, 1), (15, 1), (0, 1))})),
        "CreateDate 2019:07:04 10:15:00",
        FULL,
    ),
    Row(
        "xmp-gps.jpg",
        lambda: jpeg(xmp=packet("exif:GPSTimeStamp=2019-07-04T08:15:00Z")),
        "GPSDateTime 2019:07:04 08:15:00Z",
        "2019-07-04T08:15:00",
    ),
    # --- XMP
    Row("xmp-attribute.jpg", _xmp(FULL), ORIGINAL_IS_WHEN, FULL),
    Row(
        "xmp-element.jpg",
        lambda: jpeg(xmp=packet(f"exif:DateTimeOriginal={FULL}", element=True)),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row(
        "xmp-prefix.jpg",
        lambda: jpeg(xmp=packet(f"exif:DateTimeOriginal={FULL}").replace(b"exif:", b"e:").replace(b":exif=", b":e=")),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row("xmp-zone.jpg", _xmp("2019-07-04T10:15:00.00+02:00"), "DateTimeOriginal 2019:07:04 10:15:00.00+02:00", FULL),
    Row("xmp-utc.jpg", _xmp("2019-07-04T10:15:00Z"), "DateTimeOriginal 2019:07:04 10:15:00Z", FULL),
    Row("xmp-minutes.jpg", _xmp("2019-07-04T10:15"), "DateTimeOriginal 2019:07:04 10:15", FULL),
    Row("xmp-minutes-zone.jpg", _xmp("2019-07-04T10:15-05:00"), "DateTimeOriginal 2019:07:04 10:15-05:00", FULL),
    Row("xmp-day.jpg", _xmp("2019-07-04"), "DateTimeOriginal 2019:07:04", DAY),
    Row("xmp-month.jpg", _xmp("2019-07"), "DateTimeOriginal 2019:07", "2019-07-01T00:00:00"),
    Row("xmp-year.jpg", _xmp("2019"), "DateTimeOriginal 2019", "2019-01-01T00:00:00"),
    Row("xmp-like-exif.jpg", _xmp("2019:07:04 10:15:00.000"), "DateTimeOriginal 2019:07:04 10:15:00.000", FULL),
    Row(
        "xmp-photoshop.jpg",
        lambda: jpeg(xmp=packet(f"photoshop:DateCreated={FULL}", "xmp:ModifyDate=2024-01-02T03:04:05")),
        "DateCreated 2019:07:04 10:15:00",
        FULL,
    ),
    Row(
        "xmp-create.jpg",
        lambda: jpeg(xmp=packet(f"xmp:CreateDate={FULL}", "xmp:ModifyDate=2024-01-02T03:04:05")),
        "CreateDate 2019:07:04 10:15:00",
        FULL,
    ),
    Row(
        "xmp-digitised.jpg",
        lambda: jpeg(xmp=packet(f"exif:DateTimeDigitized={FULL}")),
        "DateTimeDigitized 2019:07:04 10:15:00",
        FULL,
    ),
    Row(
        "xmp-edited.jpg",
        lambda: jpeg(
            xmp=packet("xmp:ModifyDate=2024-01-02T03:04:05", "xmp:MetadataDate=2024-01-02", "tiff:DateTime=2024-01-02")
        ),
        "",
        None,
    ),
    Row(
        "xmp-of-a-part.jpg",
        lambda: jpeg(
            xmp=packet(
                "xmp:CreateDate=2024-01-02",
                element=True,
                wrapped="<xmpMM:DerivedFrom><rdf:Description>{}</rdf:Description></xmpMM:DerivedFrom>",
            )
        ),
        "",
        None,
    ),
    Row(
        "xmp-scan.jpg",
        lambda: jpeg(
            in_exif(digitized=LATER),
            xmp=packet("photoshop:DateCreated=1975-08-12", "xmp:CreateDate=2019-07-05T11:16:01"),
        ),
        "DateCreated 1975:08:12",
        "1975-08-12T00:00:00",
    ),
    Row(
        "xmp-other.jpg",
        lambda: jpeg(in_exif(original=WHEN), xmp=packet("exif:DateTimeOriginal=2018-01-01T00:00:00")),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row(
        "xmp-two-originals.jpg",
        lambda: jpeg(xmp=packet(f"exif:DateTimeOriginal={FULL}", "photoshop:DateCreated=2018-01-01")),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    # --- IPTC
    Row(
        "iptc.jpg",
        lambda: jpeg(resources=resource(1028, iptc(s55="20190704", s60="101500+0200"))),
        "DateTimeOriginal 2019:07:04 10:15:00+02:00",
        FULL,
    ),
    Row(
        "iptc-no-zone.jpg",
        lambda: jpeg(resources=resource(1028, iptc(s55="20190704", s60="101500"))),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row("iptc-day.jpg", lambda: jpeg(resources=resource(1028, iptc(s55="20190704"))), "DateCreated 2019:07:04", DAY),
    Row(
        "iptc-year.jpg",
        lambda: jpeg(resources=resource(1028, iptc(s55="20190000"))),
        "DateCreated 2019:00:00",
        "2019-01-01T00:00:00",
        ZERO,
    ),
    Row(
        "iptc-digitised.jpg",
        lambda: jpeg(resources=resource(1028, iptc(s62="20190704", s63="101500+0000"))),
        "DigitalCreationDateTime 2019:07:04 10:15:00+00:00",
        FULL,
    ),
    Row(
        "iptc-day-and-digitised.jpg",
        lambda: jpeg(in_exif(digitized=WHEN), resources=resource(1028, iptc(s55="20190704"))),
        "DateCreated 2019:07:04",
        FULL,
        NARROWED,
    ),
    Row(
        "iptc-behind-another.jpg",
        lambda: jpeg(
            resources=resource(1005, bytes(15)) + resource(1028, iptc(s5="name", s55="20190704", s60="101500"))
        ),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    # --- PNG
    Row("png-exif.png", lambda: png_with(png_chunk(b"eXIf", in_exif(original=WHEN))), ORIGINAL_IS_WHEN, FULL),
    Row(
        "png-xmp.png",
        lambda: png_with(unicode_text("XML:com.adobe.xmp", packet(f"exif:DateTimeOriginal={FULL}"))),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row(
        "png-packed-xmp.png",
        lambda: png_with(unicode_text("XML:com.adobe.xmp", packet(f"exif:DateTimeOriginal={FULL}"), packed=True)),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row("png-rfc-1123.png", _png("Thu, 4 Jul 2019 10:15:00 +0200"), "CreationTime 2019:07:04 10:15:00+02:00", FULL),
    Row("png-rfc-822.png", _png("4 Jul 19 10:15 EST"), "CreationTime 2019:07:04 10:15:00-05:00", FULL),
    Row("png-iso.png", _png("2019-07-04T10:15:00+02:00"), "CreationTime 2019-07-04T10:15:00+02:00", FULL),
    Row("png-like-exif.png", _png(WHEN), "CreationTime 2019:07:04 10:15:00", FULL),
    Row(
        "png-gnome.png",
        _png("Thu 04 Jul 2019 10:15:00 AM CEST"),
        "CreationTime Thu 04 Jul 2019 10:15:00 AM CEST",
        FULL,
        UNREAD,
    ),
    Row(
        "png-afternoon.png",
        _png("Thu 04 Jul 2019 10:15:00 PM CEST"),
        "CreationTime Thu 04 Jul 2019 10:15:00 PM CEST",
        "2019-07-04T22:15:00",
        UNREAD,
    ),
    Row("png-asctime.png", _png("Thu Jul  4 10:15:00 2019"), "CreationTime Thu Jul  4 10:15:00 2019", FULL, UNREAD),
    Row(
        "png-date-command.png",
        _png("Thu Jul  4 10:15:00 CEST 2019"),
        "CreationTime Thu Jul  4 10:15:00 CEST 2019",
        FULL,
        UNREAD,
    ),
    Row(
        "png-packed.png",
        lambda: png_with(packed_text("Creation Time", WHEN.encode())),
        "CreationTime 2019:07:04 10:15:00",
        FULL,
    ),
    Row(
        "png-unicode.png",
        lambda: png_with(unicode_text("Creation Time", FULL.encode())),
        "CreationTime 2019-07-04T10:15:00",
        FULL,
    ),
    Row("png-create-date.png", _png(FULL, "create-date"), "CreateDate 2019:07:04 10:15:00", FULL),
    Row("png-imagemagick.png", _png("2024-01-02T03:04:05+00:00", "date:create"), "", None),
    Row(
        "png-imagemagick-exif.png",
        _png(WHEN, "exif:DateTimeOriginal"),
        "",
        FULL,
        "exiftool gives it under a name of its own, ExifDateTimeOriginal",
    ),
    Row(
        "png-profile-exif.png",
        lambda: png_with(profile("exif", b"Exif\0\0" + in_exif(original=WHEN))),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row(
        "png-profile-app1.png",
        lambda: png_with(profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + packet(f"exif:DateTimeOriginal={FULL}"))),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row(
        "png-profile-iptc.png",
        lambda: png_with(profile("iptc", resource(1028, iptc(s55="20190704", s60="101500")))),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row("png-time.png", lambda: png_with(png_chunk(b"tIME", struct.pack(">HBBBBB", 2024, 1, 2, 3, 4, 5))), "", None),
    # --- other files
    Row("gif.gif", lambda: gif(packet(f"exif:DateTimeOriginal={FULL}")), ORIGINAL_IS_WHEN, FULL),
    Row("webp-exif.webp", lambda: webp(exif=in_exif(original=WHEN)), ORIGINAL_IS_WHEN, FULL),
    Row("webp-xmp.webp", lambda: webp(xmp=packet(f"exif:DateTimeOriginal={FULL}")), ORIGINAL_IS_WHEN, FULL),
    Row("heic-exif.heic", lambda: heic(exif=in_exif(original=WHEN)), ORIGINAL_IS_WHEN, FULL),
    Row("heic-xmp.heic", lambda: heic(xmp=packet(f"exif:DateTimeOriginal={FULL}")), ORIGINAL_IS_WHEN, FULL),
    Row("avif-exif.avif", lambda: avif(exif=in_exif(original=WHEN)), ORIGINAL_IS_WHEN, FULL),
    Row("avif-xmp.avif", lambda: avif(xmp=packet(f"exif:DateTimeOriginal={FULL}")), ORIGINAL_IS_WHEN, FULL),
    Row("jxl-exif.jxl", lambda: jxl(box(b"Exif", bytes(4), in_exif(original=WHEN))), ORIGINAL_IS_WHEN, FULL),
    Row("jxl-xmp.jxl", lambda: jxl(box(b"xml ", packet(f"exif:DateTimeOriginal={FULL}"))), ORIGINAL_IS_WHEN, FULL),
    Row("jp2-exif.jp2", lambda: jp2(box(b"uuid", b"JpgTiffExif->JP2", in_exif(original=WHEN))), ORIGINAL_IS_WHEN, FULL),
    Row(
        "jp2-xmp.jp2",
        lambda: jp2(
            box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), packet(f"exif:DateTimeOriginal={FULL}"))
        ),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row(
        "jp2-iptc.jp2",
        lambda: jp2(
            box(b"uuid", bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"), iptc(s55="20190704", s60="101500"))
        ),
        ORIGINAL_IS_WHEN,
        FULL,
    ),
    Row("psd-exif.psd", lambda: psd(resource(1058, in_exif(original=WHEN))), ORIGINAL_IS_WHEN, FULL),
    Row("psd-xmp.psd", lambda: psd(resource(1060, packet(f"exif:DateTimeOriginal={FULL}"))), ORIGINAL_IS_WHEN, FULL),
    Row("psd-iptc.psd", lambda: psd(resource(1028, iptc(s55="20190704", s60="101500"))), ORIGINAL_IS_WHEN, FULL),
    Row(
        "cr3.cr3", lambda: cr3(tiff({CHANGED: EDITED}), tiff({ORIGINAL: WHEN, DIGITIZED: WHEN})), ORIGINAL_IS_WHEN, FULL
    ),
    Row("raf.raf", lambda: raf(jpeg(in_exif(original=WHEN))), ORIGINAL_IS_WHEN, FULL),
    Row("mrw.mrw", lambda: mrw(tiff({}, exif={ORIGINAL: WHEN}, order=">")), ORIGINAL_IS_WHEN, FULL),
    Row("crw.crw", lambda: crw(1562235300), ORIGINAL_IS_WHEN, FULL),
    Row("x3f-preview.x3f", lambda: x3f(jpeg=jpeg(in_exif(original=WHEN))), ORIGINAL_IS_WHEN, FULL),
    Row("x3f-property.x3f", lambda: x3f(at=1562235300), ORIGINAL_IS_WHEN, FULL),
    # --- beside
    Row("sidecar.xmp", lambda: packet(f"exif:DateTimeOriginal={FULL}"), ORIGINAL_IS_WHEN, FULL),
    Row(
        "sidecar-element.xmp",
        lambda: packet(f"photoshop:DateCreated={FULL}", element=True),
        "DateCreated 2019:07:04 10:15:00",
        FULL,
    ),
    Row(
        "sidecar-darktable.xmp",
        lambda: packet("exif:DateTimeOriginal=2019:07:04 10:15:00.123"),
        "DateTimeOriginal 2019:07:04 10:15:00.123",
        FULL,
    ),
    Row(
        "sidecar-edited.xmp",
        lambda: packet("xmp:ModifyDate=2024-01-02T03:04:05", "xmp:MetadataDate=2024-01-02T03:04:05"),
        "",
        None,
    ),
)
