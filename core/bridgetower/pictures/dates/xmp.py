"""Dates in a packet of XMP: the properties of the picture itself, as attributes or as elements, under any prefix.

The parser is expat, which reads as far as a packet is sound. A declaration of a document type is refused, so there are
no entities to expand. Values below another property (the history, the parts of a collage) are of other pictures.
"""

from collections.abc import Iterator
from contextlib import suppress
from xml.parsers import expat

from bridgetower.pictures.dates import spelling
from bridgetower.pictures.dates.order import Source, Taken

LONGEST = 1_000_000  # bytes of a packet that are read; in longer ones the dates stand at the beginning

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "
_EXIF = "http://ns.adobe.com/exif/1.0/ "
_SOURCES = {
    f"{_EXIF}DateTimeOriginal": Source.XMP_ORIGINAL,
    "http://ns.adobe.com/photoshop/1.0/ DateCreated": Source.XMP_CREATED,
    f"{_EXIF}DateTimeDigitized": Source.XMP_DIGITIZED,
    "http://ns.adobe.com/xap/1.0/ CreateDate": Source.XMP_CREATE_DATE,
    f"{_EXIF}GPSTimeStamp": Source.GPS,
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def dates(packet: bytes) -> Iterator[Taken]:
    """Yield the dates of a packet; of one property the first."""
    packet = packet[:LONGEST].lstrip(b"\0\t\n\r ")
    is_wide = packet.startswith(_UTF_16)
    if not is_wide and b"Date" not in packet and b"GPSTimeStamp" not in packet:
        return
    reader = _Reader()
    parser = expat.ParserCreate("utf-16" if is_wide else "utf-8", " ")
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    with suppress(expat.ExpatError, _RefusedError):
        parser.Parse(packet, True)
    for name, source in _SOURCES.items():
        if found := spelling.read(reader.found.get(name, "")):
            yield Taken(source, *found)


class _RefusedError(Exception):
    """The packet declares a document type."""


class _Reader:
    """Collects the wanted properties of the descriptions right below an rdf:RDF."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._depth = 0
        self._rdf = 0  # depth of the rdf:RDF around; 0 outside
        self._describes = False  # within a description right below it
        self._property = ""  # whose text is read

    def refuse(self, *_: object) -> None:
        raise _RefusedError

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if name == f"{_RDF}RDF" and not self._rdf:
            self._rdf = self._depth
        elif self._rdf and self._depth == self._rdf + 1:
            self._describes = name == f"{_RDF}Description"
            if self._describes:
                for key in attributes.keys() & _SOURCES.keys():
                    self.found.setdefault(key, attributes[key][: spelling.LONGEST])
        elif self._describes and self._depth == self._rdf + 2 and name in _SOURCES and name not in self.found:
            self._property, self.found[name] = name, ""

    def end(self, _: str) -> None:
        if self._depth == self._rdf:
            self._rdf = 0
        elif self._depth == self._rdf + 1:
            self._describes = False
        elif self._depth == self._rdf + 2:
            self._property = ""
        self._depth -= 1

    def text(self, text: str) -> None:
        if self._property and self._depth == self._rdf + 2 and len(self.found[self._property]) < spelling.LONGEST:
            self.found[self._property] += text
