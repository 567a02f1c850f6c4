"""The tools: each takes checked arguments, and returns the content and the structure of its answer.

They block, so they run in threads.
"""

import base64
import unicodedata
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mcp_types import ContentBlock, ImageContent, TextContent

from bridgetower import Filled, Found, Hit
from bridgetower.errors import BridgeTowerError, PictureError, UsageError
from bridgetower.records import FITS
from bridgetower.serving.cursors import Cursors, Page
from bridgetower.serving.fields import finite, hits_of, score_of, word_of
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.indexed import NoPicture, read_indexed
from bridgetower.serving.limits import MOST_PAIRS
from bridgetower.serving.mcp.asking import Asking, id_of
from bridgetower.serving.mcp.schemas import (
    FillArguments,
    LookArguments,
    MatchArguments,
    SearchArguments,
)
from bridgetower.serving.mcp.sheet import THUMBNAIL, contact_sheet, reduced
from bridgetower.serving.places import places
from bridgetower.serving.thumbnails.store import Thumbnails, side_of

MOST_LOOK = 900_000  # bytes of the pictures of one answer of `look`
_ASKED_PAGES = 5  # of hits that are asked for at once, so that most next pages are there already
_MORE = 4  # times as many are asked for when these are used up
_READERS = 4  # threads that make the thumbnails of a sheet
_JOINERS = "\u200c\u200d"  # not printable, but parts of words and of emoji

Content = list[ContentBlock]
Structure = dict[str, Any] | None


class Tools:
    """The tools on one index. Each raises UsageError, NoPicture and as the tasks do."""

    def __init__(self, asking: Asking, thumbnails: Path) -> None:
        """`thumbnails` is the folder for small pictures, which an HTTP server may share."""
        self._asking, self._engine = asking, asking.engine
        self._thumbnails = Thumbnails(thumbnails)
        self._cursors: Cursors[Page] = Cursors(lambda page: page.is_last)

    def close(self) -> None:
        """Let all go that the tools keep."""
        self._cursors.close()
        self._thumbnails.close()

    # Search

    def search(self, given: SearchArguments, hearing: Hearing) -> tuple[Content, Structure]:
        """Return a page of hits: a line for each, and a numbered contact sheet."""
        if given.cursor is None:
            pages = self._pages(given, hearing)
            page = next(pages)
            following = None if page.is_last else self._cursors.keep(pages)
        else:
            if given.model_fields_set - {"cursor"}:
                raise UsageError("a cursor goes on with its search as it was: give it alone")
            page, following = self._cursors.next(given.cursor, hearing)
        found = page.found
        notes = [*map(_unicode, hearing.notes), *_passed_over(found)]
        if found.damage is not None:
            notes.append("note: a file of the index is damaged, which makes the search slower: `bt verify --repair`")
        hits = [_printable(hit) for hit in hits_of(found.hits, page.before)]
        structure = {
            "hits": hits,
            "verified": found.verified,
            "best_match": finite(found.best_match),
            "cursor": following,
            "notes": notes,
        }
        lines = [_line(hit) for hit in hits] or [self._nothing(given, found)]
        if hits and given.min_match is None and found.best_match is not None and found.best_match < FITS:
            lines.append(f"nothing fits well: {_how_far(found)}; min_match keeps only what fits")
        if following is not None:
            lines.append(f'more: search with the cursor alone, "{following}"')
        content: Content = [_text(*lines, *notes)]
        if hits:
            thumbnails = self._small(found.hits)
            content.append(_image(contact_sheet(thumbnails, page.before + 1)))
        return content, structure

    def _pages(self, given: SearchArguments, hearing: Hearing) -> Generator[Page, Hearing, None]:
        """Yield pages; each `yield` takes the hearing of the call that wants the next one.

        Many hits are asked for at once, as a server answers a search by its first page alone.
        """
        where = None if given.under is None else places(given.under)
        limits = {name: getattr(given, name) for name in ("since", "before", "taken", "depth", "min_match", "without")}

        def ask(top: int, hearing: Hearing) -> Found:
            return self._asking.search(given.text, given.like, where, {**limits, "top": top}, hearing)

        asked, before = _ASKED_PAGES * given.top, 0
        found = ask(asked, hearing)
        rest, shown = found.hits, set[str | None]()
        while True:
            hits, rest = rest[: given.top], rest[given.top :]
            is_last = not rest and len(found.hits) < asked
            hearing = yield Page(replace(found, hits=hits), before, is_last)
            if is_last:
                return
            before += len(hits)
            shown.update(hit.hash for hit in hits)
            if len(rest) < given.top and len(found.hits) == asked:
                asked *= _MORE
                # With the same depth: without, a candidate that could not be verified would come back as a hit.
                found = ask(asked, hearing)
                rest = tuple(hit for hit in found.hits if hit.hash not in shown)

    def _nothing(self, given: SearchArguments, found: Found) -> str:
        """Return why there are no hits."""
        if given.cursor is not None:
            return "no match: there are no further pictures"
        if not self._engine.size():
            return "no match: the index is empty; index pictures there first"
        if found.best_match is not None:
            return f"no match: {_how_far(found)}"
        if found.ruled_out:
            return f"no match: all of {found.verified} verified pictures are ruled out by `without`"
        if found.met_none:
            filters = [name for name in ("under", "since", "before", "taken") if getattr(given, name) is not None]
            picture = "picture" if given.like is None else "other picture"
            if filters:
                return f"no match: no {picture} of the index passes {', '.join(filters)}"
            return f"no match: the index has no {picture}"
        return "no match: no picture could be read"

    def _small(self, hits: Iterable[Hit]) -> list[bytes | None]:
        with ThreadPoolExecutor(_READERS) as threads:
            return list(threads.map(self._thumbnail_or_none, hits))

    def _thumbnail_or_none(self, hit: Hit) -> bytes | None:
        try:
            return self._thumbnail(str(hit.hash), THUMBNAIL, hit.path)
        except (NoPicture, BridgeTowerError):
            return None

    def _thumbnail(self, id: str, side: int, name: Path) -> bytes:
        """Return a JPEG file of a picture, of at least `side` pixels if it has them. Raises NoPicture, PictureError."""
        return self._thumbnails.get(id, side_of(side), partial(read_indexed, self._engine, id), name)

    # Look

    def look(self, given: LookArguments, hearing: Hearing) -> tuple[Content, Structure]:
        """Return pictures, each after a line with its path and date. A line says why one cannot be shown.

        Raises the reason if none can.
        """
        content: Content = []
        failures: list[Exception] = []
        for id in dict.fromkeys(given.ids):
            try:
                hit = self._engine.find(id)
                if hit is None:
                    raise NoPicture("the index has no such picture")
                thumbnail = self._thumbnail(id, given.size, Path(f"picture {id}"))
                try:
                    jpeg = reduced(thumbnail, given.size, MOST_LOOK // len(given.ids))
                except OSError as error:
                    raise NoPicture("its thumbnail cannot be read") from error
            except (NoPicture, PictureError) as error:
                reason = error.reason if isinstance(error, PictureError) else str(error)
                failure = NoPicture(f"picture {id}: {reason}")
                failures.append(failure)
                content.append(_text(str(failure)))
                continue
            size = "" if hit.width is None else f", {hit.width} x {hit.height} pixels"
            content += [_text(f"{hit.path}, {_date(hit)}{size}, id {id}"), _image(jpeg)]
        if len(failures) == len(content):
            raise failures[0]
        return content, None

    # Match and fill

    def match(self, given: MatchArguments, hearing: Hearing) -> tuple[Content, Structure]:
        """Return the scores of all pairs."""
        if len(given.ids) * len(given.texts) > MOST_PAIRS:
            raise UsageError(f"at most {MOST_PAIRS} pairs of a picture and a text can be scored")
        found = self._asking.match(given.ids, given.texts, hearing)
        scores = [{"id": given.ids[place // len(given.texts)], **score_of(score)} for place, score in enumerate(found)]
        lines = [
            f"{_score('match', one.match)}: {one.text!r}, {row['id']}" for one, row in zip(found, scores, strict=True)
        ]
        notes = [*map(_unicode, hearing.notes)]
        return [_text(*lines, *notes)], {"scores": scores, "notes": notes}

    def fill(self, given: FillArguments, hearing: Hearing) -> tuple[Content, Structure]:
        """Return the words for each mask."""
        if given.ids is not None and given.depth is not None:
            raise UsageError("depth is for the pictures of the index: give it without ids")
        found = self._asking.fill(given.text, given.ids, given.top, given.depth, hearing)
        if given.ids is not None and found.skipped:  # a result without a picture that was named would mislead
            raise PictureError(found.skipped[0].path, found.skipped[0].reason)
        words = [
            {**word_of(word), "images": list(word.hashes or filter(None, map(id_of, word.images)))}
            for word in found.words
        ]
        lines = [f"mask {one.mask}: {one.token!r}, {_score('probability', one.probability)}" for one in found.words]
        if not words:
            lines = ["no word: the index is empty, or none of its pictures could be read"]
        notes = [*map(_unicode, hearing.notes), *_passed_over(found)]
        structure = {"words": words, "best_match": finite(found.best_match), "notes": notes}
        return [_text(*lines, *notes)], structure


def _text(*lines: str) -> TextContent:
    """Return lines, each of which stays one line, whatever the names of files in it are."""
    return TextContent(text="\n".join(map(_plain, lines)))


def _image(jpeg: bytes) -> ImageContent:
    return ImageContent(data=base64.b64encode(jpeg).decode(), mime_type="image/jpeg")


def _unicode(text: str) -> str:
    """Return a text that JSON can carry: bytes of a file name that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(text: str) -> str:
    """Return a text with an escape for each sign that could forge a line, turn its direction, or is not seen."""
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" or sign in _JOINERS else ascii(sign)[1:-1]
        for sign in text
    )


def _printable(hit: dict[str, Any]) -> dict[str, Any]:
    return {**hit, "path": _unicode(hit["path"]), "paths": [_unicode(path) for path in hit["paths"]]}


def _line(hit: dict[str, Any]) -> str:
    match = _score("match", hit["match"]) if hit["verified"] else "unverified"
    taken = "" if hit["taken_at"] is None else f", taken {hit['taken_at']}"
    against = [_score("not", one) for one in hit["against"]] + ["ruled out"] * hit["ruled_out"]
    scores = ", ".join([match, *against, _score("similarity", hit["similarity"])])
    return f"{hit['rank']}. {scores}: {hit['path']}{taken}, id {hit['id']}"


def _date(hit: Hit) -> str:
    return "date unknown" if hit.taken_at is None else f"taken {hit.taken_at.isoformat()}"


def _score(name: str, value: float | None) -> str:
    return f"{name} unknown" if finite(value) is None else f"{name} {value:.3f}"


def _how_far(found: Found) -> str:
    return f"the best of {found.verified} verified pictures has {found.best_match:.3f}"


def _passed_over(found: Found | Filled) -> list[str]:
    """Return notes on pictures that are no part of an answer."""
    notes = []
    for count, why in (
        (found.gone, "whose files are gone were passed over"),
        (len(found.barred), "whose files cannot be accessed were passed over"),
        (found.in_cloud, "in the cloud only were not read, as that would download them"),
    ):
        if count:
            notes.append(f"note: pictures {why}: {count}")
    notes += [f"note: the folder {_plain(str(folder))} is empty or missing now" for folder in found.away]
    return notes + [_plain(f"skipped {one.path}: {one.reason}") for one in found.skipped]
