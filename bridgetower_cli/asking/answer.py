"""Ask one query, and print its hits: as a table, as JSON lines or as bare paths."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridgetower.errors import UnknownPlaceError
from bridgetower.records import FITS, Hit, Skipped
from bridgetower.records import quiet as nobody
from bridgetower_cli import render
from bridgetower_cli.asking.hits import Ranked, laid_out, ranked
from bridgetower_cli.asking.stdin import Stdin
from bridgetower_cli.failures import no_match
from bridgetower_cli.libraries import AskLibrary
from bridgetower_cli.live_table import LiveTable
from bridgetower_cli.progress import Meter
from bridgetower_cli.terminal.tables import Column

if TYPE_CHECKING:
    from bridgetower import Found, Library
    from bridgetower.serving.local.client import RemoteLibrary


_PLACES = ("under", "not_under", "since", "before", "taken")  # the arguments that say where to search
Query = Mapping[str, Any]  # the arguments of `Library.search` by their names


def answer(
    query: Query,
    ask_library: AskLibrary,
    index: Path,
    *,
    sort: str,
    live: LiveTable | None = None,
    show: "Callable[[Found, Sequence[Ranked]], bool]" = lambda found, hits: False,
) -> "tuple[Found, list[Ranked]]":
    """Ask a query of the library of `index`; print its hits as a table, unless `show` prints them; return them.

    On a terminal they are shown in `live`, if given, while they are verified. Raises as `Library.search`, and what
    `no_match` returns where there is nothing to print.
    """
    number = {"texts": len(query["text"] or ()), "negatives": len(query["without"])}
    offset = query["offset"]

    def table(hits: Sequence[Hit], *, settling: bool = False) -> tuple[list[Column], list[list[str]]]:
        return laid_out([hit for _, hit in ranked(hits, offset, sort)], **number, settling=settling)

    verifies = any(number.values()) and query["depth"] != 0
    settling = live if verifies and render.shows_live_tables() else None
    with settling or Meter("searching", "pictures") as progress:

        def ask(searched: "Library | RemoteLibrary") -> "tuple[Found, bool]":
            """Return the results, and whether the index holds no picture."""
            if isinstance(query["vector"], Stdin):
                query["vector"].rewind()
            found = searched.search(
                **query,
                on_progress=progress.update,
                on_hits=nobody if settling is None else lambda hits: settling.show(*table(hits, settling=True)),
            )
            return found, not found.hits and not len(searched)

        try:
            found, is_empty = ask_library(ask)
        except UnknownPlaceError as error:
            raise no_match(str(error)) from error
        if is_empty:
            raise no_match(render.empty_index(index))
    notes(found.damage, found.skipped, found.gone, found.barred, found.away, found.in_cloud)
    tell_budget(query["budget"], found.verified, found.depth)
    hits = ranked(found.hits, offset, sort)
    if hits and not show(found, hits):
        render.table(*table(found.hits))
    if found.hits and query["min_match"] is None and found.best_match is not None and found.best_match < FITS:
        render.say(
            f"note: nothing fits well: {render.how_far(found.verified, found.best_match)}; --min-match keeps only what "
            "fits"
        )
    if not found.hits:
        raise _nothing(query, found)
    return found, hits


def tell_budget(budget: float, verified: int, depth: int) -> None:
    """Say how many of the candidates that were to be verified were, if there was a budget of seconds."""
    if budget < math.inf:
        render.say(f"verified {render.counted(verified, 'picture')} of at most {depth} in the time given")


def notes(
    damage: str | None,
    skipped: tuple[Skipped, ...],
    gone: int,
    barred: tuple[Skipped, ...],
    away: tuple[Path, ...],
    in_cloud: int,
) -> None:
    """Say what a search did without, and which pictures it passed over; as the fields of `Found`."""
    if damage is not None:
        render.say(f"note: {damage}; the search did without it, which is slower: `bt verify --repair` mends it")
    render.skipped(skipped)
    render.passed_over(gone, barred, away)
    render.in_cloud(in_cloud)


def _nothing(query: Query, found: "Found") -> Exception:
    """Say why there is no hit; return what is to be raised."""
    best, similarity = found.best_match, found.best_similarity
    return no_match(_why_none(query, found), best_match=best, best_similarity=similarity, verified=found.verified)


def _why_none(query: Query, found: "Found") -> str:
    if query["offset"]:
        return f"there are no results after the first {query['offset']}"
    if found.met_none:
        given = [f"--{name.replace('_', '-')}" for name in _PLACES if query[name]]
        picture = "other picture" if query["image"] and not query["keep_self"] else "picture"
        return f"no {picture} of the index passes {', '.join(given)}" if given else f"the index has no {picture}"
    if found.ruled_out == found.verified > 0:
        return f"--not rules out all of {render.counted(found.verified, 'verified picture')}"
    why = render.how_far(found.verified, found.best_match)
    if found.best_similarity is not None:
        why = f"the most similar picture has {found.best_similarity:.3f}"
    return f"{why}, and --not rules out {found.ruled_out}" if found.ruled_out else why
