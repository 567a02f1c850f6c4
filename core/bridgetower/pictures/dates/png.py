"""Dates in PNG files: EXIF, text chunks, and the profiles that ImageMagick writes into text as hexadecimal digits."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

from bridgetower.pictures.dates import exif, iptc, spelling, xmp
from bridgetower.pictures.dates.order import Block, Source, Taken

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
LONGEST_TEXT = 2_000_000  # bytes of text

XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"  # of a segment of JPEG, also where ImageMagick puts it into PNG

# Keywords, in lower case and without what is no letter.
_SOURCES = {
    "creationtime": Source.PNG_TEXT,
    "creationdate": Source.PNG_TEXT,
    "createdate": Source.PNG_TEXT,
    "exifdatetimeoriginal": Source.EXIF_ORIGINAL,
    "exifdatetimedigitized": Source.EXIF_DIGITIZED,
}


def blocks(data: bytes) -> Iterator[Block]:
    """Yield the blocks of a PNG file that may have a date; of one keyword the first."""
    met: set[str] = set()
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        length, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if at + 8 + length > len(data) or name == b"IEND":
            return
        if name == b"eXIf":
            yield exif.dates, data[at + 8 : at + 8 + length]
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = data[at + 8 : at + 8 + min(length, 80)].partition(b"\0")[0].decode("latin-1")
            reader = _reader(keyword)
            if reader is not None and keyword not in met:
                met.add(keyword)
                yield reader, _text(name, data[at + 9 + len(keyword) : at + 8 + length])
        at += 12 + length


def _reader(keyword: str) -> Callable[[bytes], Iterator[Taken]] | None:
    """Return the function that reads the dates of the text of this keyword, None for other keywords."""
    if keyword == _XMP_KEYWORD:
        return xmp.dates
    if (reader := _PROFILES.get(keyword)) is not None:
        return lambda text: reader(_from_hexadecimal(text))
    source = _SOURCES.get("".join(filter(str.isalpha, keyword)).lower())
    return None if source is None else lambda text: _written(source, text)


def _written(source: Source, text: bytes) -> Iterator[Taken]:
    if found := spelling.read(text):
        yield Taken(source, *found)


def _text(name: bytes, rest: bytes) -> bytes:
    """Return the text of a text chunk without its keyword, empty if its compression is damaged."""
    is_packed = name == b"zTXt"
    if name == b"iTXt":  # flag and method of compression, language, keyword in that language
        is_packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif is_packed:
        rest = rest[1:]
    if not is_packed:
        return rest[:LONGEST_TEXT]
    with suppress(zlib.error):
        return zlib.decompressobj().decompress(rest, LONGEST_TEXT)
    return b""


def _from_hexadecimal(text: bytes) -> bytes:
    r"""Return the content of a profile, "\nexif\n   1234\n457869...", empty if it is damaged."""
    digits = b"".join(text.split(b"\n")[3:])
    with suppress(ValueError):  # also of bytes that are no ASCII
        return bytes.fromhex(digits.decode("ascii"))
    return b""


def _app1_dates(block: bytes) -> Iterator[Taken]:
    """Yield the dates of the content of an APP1 segment of JPEG."""
    return xmp.dates(block[len(XMP_PREFIX) :]) if block.startswith(XMP_PREFIX) else exif.dates(block)


def _iptc_dates(block: bytes) -> Iterator[Taken]:
    """Yield the dates of IPTC, alone or among image resources."""
    return iptc.resource_dates(block) if block.startswith(b"8BIM") else iptc.dates(block)


# Text that holds blocks of another kind, by the keyword; all but the first as hexadecimal digits.
_XMP_KEYWORD = "XML:com.adobe.xmp"
_PROFILES: dict[str, Callable[[bytes], Iterator[Taken]]] = {
    "Raw profile type exif": exif.dates,
    "Raw profile type APP1": _app1_dates,
    "Raw profile type xmp": xmp.dates,
    "Raw profile type iptc": _iptc_dates,
    "Raw profile type 8bim": _iptc_dates,
}
