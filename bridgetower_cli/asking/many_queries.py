"""Ask many queries, one a line of a file or of stdin, and print JSON lines, query by query."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridgetower.errors import InputError, UnknownPlaceError, UsageError
from bridgetower.records import TEXTS_AHEAD, Skipped
from bridgetower_cli import render
from bridgetower_cli.asking.answer import Query, notes, tell_budget
from bridgetower_cli.asking.hits import fields, ranked
from bridgetower_cli.asking.lines import Lines, text_of
from bridgetower_cli.config.keys import MIN_MATCH
from bridgetower_cli.config.values import probability
from bridgetower_cli.failures import no_match
from bridgetower_cli.libraries import AskLibrary, open_library
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import Settings, named_path, whole

if TYPE_CHECKING:
    from bridgetower import Found, Library
    from bridgetower.serving.local.client import RemoteLibrary

_FIELDS = ("text", "image", "top", "min_match", "id")  # of a JSON line


@dataclass(frozen=True, slots=True)
class _Line:
    """A query with the number of its line, and the fields by which its answers name it."""

    number: int
    text: str | None
    query: Query
    named: dict[str, Any]


def answer_all(common: Query, file: Path, settings: Settings, *, sort: str) -> None:
    """Ask each query of a file, or of stdin as it comes in, and print its hits as JSON lines.

    `common` holds the arguments that all queries have, and the defaults of others. A wrong line of a file is found
    before the first query is asked. Raises InputError that names the line, what `no_match` returns if no query has a
    hit, and as `Library.search`.
    """
    lines = Lines(file, "--texts-from", at_terminal="`bt search -i` asks on a terminal")
    _require_sense(common)
    least_match = settings.chosen(MIN_MATCH, common["min_match"])
    queries: Iterable[_Line] = (_checked(lines, number, row, common, least_match) for number, row in lines)
    if not lines.is_stdin:
        queries = list(queries)
    shows_progress = render.talks_to_terminal() and not render.shows_live_tables()  # never between lines of JSON
    total = len(queries) if isinstance(queries, list) else 0
    met = _Met(total if shows_progress else None)
    with open_library(settings) as ask_library, met.meter:
        for line, found in _answers(lines, queries, ask_library):
            met.add(found)
            named = {"query": line.text, "query_number": met.asked, **line.named}
            for rank, hit in ranked(found.hits, common["offset"], sort):
                render.json_line(
                    fields(rank, hit, texts=1, negatives=len(common["without"]), unique=common["unique"]), given=named
                )
        is_empty = met.asked == met.without_hit and not ask_library(len)
    met.say()
    tell_budget(common["budget"], met.verified, met.depth)
    if not met.asked:
        raise no_match(f"no queries came in: {lines.name} is empty")
    if is_empty:
        raise no_match(render.empty_index(settings.index))
    if met.asked == met.without_hit:
        raise no_match("the query has no hit" if met.asked == 1 else f"none of the {met.asked} queries has a hit")
    if met.without_hit:
        have = "has" if met.without_hit == 1 else "have"
        render.say(f"note: {met.without_hit} of {met.asked} queries {have} no hit")


def _answers(lines: Lines, queries: Iterable[_Line], ask_library: AskLibrary) -> "Iterator[tuple[_Line, Found]]":
    """Yield each query with what it finds."""
    for place, line in enumerate(queries):
        if isinstance(queries, list) and place % TEXTS_AHEAD == 0:
            some = (one.text for one in queries[place : place + TEXTS_AHEAD])
            ask_library(partial(_encode_ahead, [text for text in some if text is not None]))
        with lines.named(line.number, kinds=(InputError,)):
            try:
                found = ask_library(partial(_search, line.query, lines.is_stdin))
            except UnknownPlaceError as error:
                raise no_match(str(error)) from error
        yield line, found


def _encode_ahead(texts: list[str], searched: "Library | RemoteLibrary") -> None:
    searched.encode_ahead(texts)


def _search(query: Query, refresh: bool, searched: "Library | RemoteLibrary") -> "Found":
    """Ask a query; with `refresh`, of the index as it is now."""
    if refresh:
        searched.refresh()
    return searched.search(**query)


def _require_sense(common: Query) -> None:
    """Raise UsageError for options that fit neither a text nor a picture."""
    from bridgetower import SearchRequest

    try:
        SearchRequest(**{**common, "text": "a text"})
    except UsageError as error:
        try:
            SearchRequest(**{**common, "image": b"a picture"})
        except UsageError:
            raise error from None


def _checked(lines: Lines, number: int, row: dict[str, Any], common: Query, least_match: float | None) -> _Line:
    """Return the query of a line; `least_match` cuts where it has a text. Raises InputError that names the line."""
    from bridgetower import SearchRequest
    from bridgetower.files.content import unreachable

    with lines.named(number):
        if unknown := [name for name in row if name not in _FIELDS]:
            raise InputError(f'"{unknown[0]}" is no field of a query: {", ".join(_FIELDS)}')
        text = text_of(row) if row.get("image") is None or row.get("text") is not None else None
        query = dict(common, text=None if text is None else [text])
        if text is not None and query["depth"] != 0:
            query["min_match"] = least_match
        named = {"id": _echoed(row["id"])} if "id" in row else {}
        if row.get("image") is not None:
            if not isinstance(row["image"], str):
                raise InputError('"image" is no path')
            image = lines.folder / named_path(row["image"])
            for error in unreachable([image]):
                raise error
            query["image"], named["query_image"] = [image], row["image"]
        if row.get("top") is not None:
            query["top"] = whole(10)(row["top"])
        if row.get("min_match") is not None:
            query["min_match"] = probability(row["min_match"])
        SearchRequest(**query)  # raises for what cannot go together
        return _Line(number, text, query, named)


def _echoed(value: Any) -> Any:
    """Return the id of a query, if JSON can have it. Raises InputError."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise InputError('"id" has a number that is infinite, or NaN, which JSON does not have') from error
    return value


class _Met:
    """The counts of a run, and the notes of its answers, each of which is said once, at the end."""

    def __init__(self, total: int | None) -> None:
        """`total` is the number of queries, 0 if it is not known; None to show no progress."""
        self.asked = self.without_hit = self.verified = self.depth = 0
        self._total = total
        self.meter = Meter("searching", "queries")
        self._skipped: dict[Path, Skipped] = {}
        self._barred: dict[Path, Skipped] = {}
        self._away: dict[Path, None] = {}
        self._gone = self._in_cloud = 0  # the most of a query
        self._damage: str | None = None

    def add(self, found: "Found") -> None:
        self.asked += 1
        self.without_hit += not found.hits
        self.verified += found.verified
        self.depth += found.depth
        self._skipped |= {one.path: one for one in found.skipped}
        self._barred |= {one.path: one for one in found.barred}
        self._away |= dict.fromkeys(found.away)
        self._gone, self._in_cloud = max(self._gone, found.gone), max(self._in_cloud, found.in_cloud)
        self._damage = self._damage or found.damage
        if self._total is not None:
            self.meter.update(self.asked, self._total)

    def say(self) -> None:
        notes(
            self._damage,
            tuple(self._skipped.values()),
            self._gone,
            tuple(self._barred.values()),
            tuple(self._away),
            self._in_cloud,
        )
