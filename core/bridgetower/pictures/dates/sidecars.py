"""Dates in files beside a picture: XMP sidecars of editors, and the JSON files of Google Takeout."""

import json
import re
from collections.abc import Container, Iterator

from bridgetower.pictures.dates import xmp
from bridgetower.pictures.dates.order import Source, Taken, first_of
from bridgetower.pictures.dates.spelling import YEARS, moment

LONGEST_JSON = 1_000_000  # bytes; those of Takeout have some 1 kB

_SUPPLEMENT = ".supplemental-metadata"
_CLIPPED = 46  # characters of a name of Takeout before ".json" and the number of a copy
_CLIPPED_EDITED = 51  # characters of the name of an edited picture whose suffix was clipped
# Suffixes of pictures that were edited in Google Photos, which have no file of their own.
_EDITED = (
    "-edited", "-effects", "-smile", "-mix", "-bearbeitet", "-modifié", "-ha editado", "-editado", "-modificato",
    "-bewerkt", "-edytowane", "-editat", "-編集済み",
)  # fmt: skip
_COPY = re.compile(r"(.+)(\([0-9]{1,4}\))", re.DOTALL)


def sidecars_of(name: str, siblings: Container[str]) -> list[str]:
    """Return the files beside the picture `name`, of its folder's `siblings`, that may hold its date, best first.

    A file of an editor that is named after the stem ("p.xmp") belongs to all pictures of that stem.
    """
    candidates = dict.fromkeys((*_xmp_names(name), *_takeout_names(name)))
    return [candidate for candidate in candidates if candidate in siblings]


def taken_in_sidecar(data: bytes) -> Taken | None:
    """Return the date in the content of a sidecar, XMP or JSON; None if there is none. Never raises for damage."""
    if data[:64].lstrip(b"\xef\xbb\xbf\t\n\r ").startswith(b"{"):
        return _takeout(data)
    if (date := first_of(xmp.dates(data))) is None or date.source is Source.GPS:
        return date
    is_taken = date.source in (Source.XMP_ORIGINAL, Source.XMP_CREATED)
    return date._replace(source=Source.SIDECAR_TAKEN if is_taken else Source.SIDECAR_DIGITIZED)


def _takeout(data: bytes) -> Taken | None:
    """Return the time at which Google Photos shows the picture, in UTC; 0 counts as absent."""
    if len(data) > LONGEST_JSON:
        return None
    try:
        found = json.loads(data)
        at = int(found["photoTakenTime"]["timestamp"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # no JSON, or of another program
        return None
    first, last = moment(YEARS[0]), moment(YEARS[-1])
    in_range = first is not None and last is not None and first.at <= at < last.at + last.span
    return Taken(Source.TAKEOUT, at) if at and in_range else None


def _xmp_names(name: str) -> Iterator[str]:
    stem = name.rpartition(".")[0] or name
    for base in (name, stem):
        yield from (f"{base}.xmp", f"{base}.XMP")


def _takeout_names(name: str) -> Iterator[str]:
    """Yield the names that Takeout gives to the JSON file of a picture: of itself, then of what it was edited from."""
    yield from _json_names(name)
    stem, dot, extension = name.rpartition(".")
    copy = _COPY.fullmatch(stem)
    base, number = copy.groups() if copy else (stem, "")
    if (original := _without_edited(base, len(name) - len(number))) is not None:
        yield from _json_names(f"{original}{number}{dot}{extension}")


def _json_names(name: str) -> Iterator[str]:
    """Yield the names of the JSON file of a picture: the number of a copy, as in "p(1).jpg", stands at their end."""
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    copy = _COPY.fullmatch(stem)
    for base, number in ((*copy.groups(),), (stem, "")) if copy else ((stem, ""),):
        for title in (f"{base}{dot}{extension}", base):  # sometimes without the extension
            for written in (f"{title}{_SUPPLEMENT}", title):
                yield f"{written}{number}.json"
                yield f"{written[:_CLIPPED]}{number}.json"


def _without_edited(stem: str, length: int) -> str | None:
    """Return the stem without the suffix of edited pictures, which may be clipped where the name is long."""
    for suffix in _EDITED:
        if stem.endswith(suffix):
            return stem[: -len(suffix)]
    if length == _CLIPPED_EDITED:
        base, dash, rest = stem.rpartition("-")
        if rest and any(suffix.startswith(dash + rest) for suffix in _EDITED):
            return base
    return None
