"""Which of several dates counts as the moment at which a picture was taken."""

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from operator import attrgetter
from typing import NamedTuple


class Source(IntEnum):
    """The places of a date; the lower one counts.

    First the dates of the shutter, then those of digitising: a scan has both, and the paper photograph is older than
    the scan. Among equals the sidecar counts, as editors correct raw files there, then the camera (EXIF), then editors
    (XMP, IPTC). Times in UTC are last, because the clock where the picture was taken is not known. Dates of editing
    (EXIF DateTime, xmp:ModifyDate, xmp:MetadataDate, PNG tIME) never count.
    """

    SIDECAR_TAKEN = 0  # exif:DateTimeOriginal, photoshop:DateCreated of an XMP sidecar
    EXIF_ORIGINAL = 1
    XMP_ORIGINAL = 2
    XMP_CREATED = 3  # photoshop:DateCreated
    IPTC_CREATED = 4
    SIDECAR_DIGITIZED = 5  # exif:DateTimeDigitized, xmp:CreateDate of an XMP sidecar
    EXIF_DIGITIZED = 6
    XMP_DIGITIZED = 7
    XMP_CREATE_DATE = 8  # xmp:CreateDate
    IPTC_DIGITIZED = 9
    PNG_TEXT = 10
    NAME = 11
    TAKEOUT = 12  # UTC
    GPS = 13  # UTC, unless the EXIF tells the zone
    NAME_UTC = 14


class Taken(NamedTuple):
    """A date that was found."""

    source: Source
    at: int  # seconds since 1970 on the clock where the picture was taken
    span: int = 1  # seconds from `at` that are meant: 86400 if only the day is known


Block = tuple[Callable[[bytes], Iterator[Taken]], bytes]  # a part of a file, after the function that reads its dates


def first_of(found: Iterable[Taken]) -> Taken | None:
    """Return the date that counts, None if there is none.

    A later date that lies within its span and says more (the time of a day) takes its place, but not its source.
    """
    best: Taken | None = None
    for date in sorted(found, key=attrgetter("source")):  # stable: of one source the first counts
        if best is None:
            best = date
        elif date.span < best.span and best.at <= date.at < best.at + best.span:
            best = best._replace(at=date.at, span=date.span)
    return best
