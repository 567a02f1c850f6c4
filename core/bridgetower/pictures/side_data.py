"""Remove side data on which Pillow fails although all pixels are there, as viewers pass over them.

PNG: text, density, gamma and the like are removed, as `decode` does not use them; so are optional chunks with a wrong
checksum. JPEG: segments that are too short are removed, and a missing end mark is added.
"""

import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import islice

from PIL import Image, ImageChops

from bridgetower.pictures.versions import changed_in

LONGEST_PROFILE = 8_000_000  # bytes of an ICC profile; those of printers have 1 to 3 MB
_LONGEST_TEXT = 1_000_000  # bytes; Pillow refuses text of more than 1 MiB

_PNG = b"\x89PNG\r\n\x1a\n"
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")  # not optional, as frames are missing without them
_KEPT = (b"tRNS", b"eXIf")
# Text that may hold EXIF, by the keyword.
_EXIF_KEYWORDS = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1")

_MOST_SCANS = 1000  # of a JPEG file; encoders write about ten
_MISSING = 0.01  # the largest share of the blocks of a JPEG file that may be missing at its end
_END = b"\xff\xd9"
_FILL = bytes(n * n % 251 for n in range(7, 71))  # codes of any kind


def readable_png(data: bytes) -> tuple[bytes, dict[str, object]]:
    """Return a PNG file without its side data, and what these say of the pixels.

    The keys are "icc_profile" (bytes), "cicp" (bytes, 4) and "transparency" (int, 0 to 255: the transparent grey of
    pixels of 1 to 8 bits). Other files, and PNG files without side data, are returned as they are.
    """
    if not data.startswith(_PNG):
        return data, {}
    found: dict[str, object] = {}
    pieces: list[memoryview] = []
    view, start, keywords, depth, colour_type = memoryview(data), 0, set(_EXIF_KEYWORDS), 8, -1
    for name, at, end in _chunks(data):
        body = view[at + 8 : end - 4]
        if name == b"IHDR" and len(body) >= 10:
            depth, colour_type = body[8], body[9]
        if not name[0] & 0x20 or name in _ANIMATION:  # not optional
            continue
        keeps = False
        if name == b"iCCP" and "icc_profile" not in found:
            profile = _profile(bytes(body)) if _sum_is_right(view, at, end) else None
            if profile:
                found["icc_profile"] = profile
        elif name == b"cICP" and len(body) == 4 and _sum_is_right(view, at, end):
            found["cicp"] = bytes(body)
        elif name in _KEPT:
            keeps = _sum_is_right(view, at, end)
            if name == b"tRNS":
                keeps = keeps and len(body) >= {0: 2, 2: 6, 3: 1}.get(colour_type, len(body) + 1)
            if keeps and name == b"tRNS" and colour_type == 0 and depth <= 8:
                most = 2**depth - 1
                if depth in (2, 4):
                    changed_in(1)
                found["transparency"] = (int.from_bytes(body[:2]) & most) * 255 // most
        elif name in (b"tEXt", b"zTXt", b"iTXt") and len(body) <= _LONGEST_TEXT:
            keyword = bytes(body[:80]).partition(b"\0")[0]
            keeps = keyword in keywords and _sum_is_right(view, at, end) and _is_short_text(name, bytes(body))
            if keeps:
                keywords.discard(keyword)
        if not keeps:
            pieces.append(view[start:at])
            start = end
    return (b"".join((*pieces, view[start:])) if pieces else data), found


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the whole chunks of a PNG file."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            return
        yield data[at + 4 : at + 8], at, end
        at = end


def _sum_is_right(view: memoryview, at: int, end: int) -> bool:
    return zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end])


def _profile(body: bytes) -> bytes | None:
    """Return the ICC profile in an iCCP chunk, or None if it is damaged or too long."""
    packed = body.partition(b"\0")[2]
    return _inflated(packed[1:], LONGEST_PROFILE) if packed[:1] == b"\0" else None


def _inflated(packed: bytes, longest: int) -> bytes | None:
    """Return the content of a zlib stream, or None if it is damaged, cut, or has more than `longest` bytes."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, longest)
    except zlib.error:
        return None
    return content if stream.eof else None


def _is_short_text(name: bytes, body: bytes) -> bool:
    """Return whether the text of a text chunk is sound and has at most `_LONGEST_TEXT` bytes."""
    rest = body.partition(b"\0")[2]
    if name == b"zTXt":
        return _inflated(rest[1:], _LONGEST_TEXT) is not None
    if name == b"iTXt" and rest[:1] == b"\1":  # compressed: flag, method, language, translated keyword, text
        return _inflated(rest[2:].partition(b"\0")[2].partition(b"\0")[2], _LONGEST_TEXT) is not None
    return True


def readable_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG file with only those application segments that are whole and used, or None if it is no JPEG file.

    Pillow fails on short segments; libjpeg passes over them.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    pieces, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA or end < at + 4 or end > len(data):  # the pixels begin, or damage
            break
        body = data[at + 4 : end]
        used = {
            0xE0: body.startswith(b"JFIF\0") and len(body) >= 14,
            0xE1: body.startswith(b"Exif\0\0"),
            0xE2: body.startswith(b"ICC_PROFILE\0") and len(body) > 14,
            0xEE: body.startswith(b"Adobe") and len(body) >= 12,
        }
        if used.get(marker, not 0xE0 <= marker <= 0xEF and marker != 0xFE):  # 0xFE: a comment
            pieces.append(data[at:end])
        at = end
    return b"".join((*pieces, data[at:]))


def jpeg_frame(data: bytes) -> int | None:
    """Return the place of the frame header of a JPEG file, which begins with its marker; None if none can be found."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 5 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the exceptions are tables, or reserved
            return at
        elif marker < 0xC0 or 0xD0 <= marker <= 0xD9:  # without length, and not valid before a frame
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def ended_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG file with the end mark that it lacks, or None where more than a hundredth of its blocks is missing.

    The blocks that change if other bytes stand before the end mark are the missing ones. Raises what Pillow raises.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    scans = list(islice(_scans(data), _MOST_SCANS))
    if not scans or not _all_have_begun(scans):
        return None
    ended = data + (_END[1:] if data.endswith(b"\xff") else _END)
    with _opened_jpeg(ended) as image, _opened_jpeg(data.removesuffix(b"\xff") + _FILL + _END) as filled:
        changed = ImageChops.difference(image, filled)
    width, height = scans[0].block
    across, down = -(-changed.width // width), -(-changed.height // height)
    box = changed.getbbox()
    if box is None:
        return ended
    row = (box[1] + 2) // height  # smoothed chroma changes one or two pixels of the row above
    box = changed.crop((0, row * height, changed.width, (row + 1) * height)).getbbox() or (0, 0, 0, 0)
    missing = across * (down - row) - (box[0] + 2) // width
    return ended if missing <= _MISSING * across * down else None


def _opened_jpeg(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data), formats=["JPEG"])


class _Scan:
    """A scan of a JPEG file: the components that it has, and the bits of their coefficients."""

    def __init__(self, frame: bytes, scan: bytes) -> None:
        """Read the bodies of a frame header and of a scan header. Raises IndexError if they are too short."""
        self.of = frame[5]  # components of the picture
        factors = [frame[7 + 3 * n] for n in range(self.of)]
        self.block = 8 * max(f >> 4 for f in factors), 8 * max(f & 15 for f in factors)  # width, height, pixels
        count = scan[0]
        self.components = [scan[1 + 2 * n] for n in range(count)]
        self.first, self.last, self.low = scan[1 + 2 * count], scan[2 + 2 * count], scan[3 + 2 * count] & 15


def _scans(data: bytes) -> Iterator[_Scan]:
    """Yield the scans of a JPEG file, until it ends or is damaged."""
    at, frame = 2, b""
    while at >= 0 and at + 4 <= len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at] != 0xFF or marker == 0xD9:
            return
        if marker == 0xFF or marker == 0 or 0xD0 <= marker <= 0xD7:  # a fill byte, or within the pixels
            at = data.find(b"\xff", at + (1 if marker == 0xFF else 2))
            continue
        if end > len(data):
            return
        body = data[at + 4 : end]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = body
        if marker != 0xDA:
            at = end
            continue
        try:
            yield _Scan(frame, body)
        except (IndexError, ValueError):
            return
        at = data.find(b"\xff", end)


def _all_have_begun(scans: list[_Scan]) -> bool:
    """Return whether each coefficient of each component has its lowest bit in one of these scans."""
    done: dict[int, set[int]] = {}
    for scan in scans:
        if scan.low == 0:
            for component in scan.components:
                done.setdefault(component, set()).update(range(scan.first, scan.last + 1))
    return len(done) == scans[0].of and all(len(coefficients) == 64 for coefficients in done.values())
