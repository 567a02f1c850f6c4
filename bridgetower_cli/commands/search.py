"""`bt search`."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from bridgetower.errors import UnknownPlaceError, UsageError
from bridgetower.records import Hit
from bridgetower.records import quiet as nobody
from bridgetower_cli import render
from bridgetower_cli.asking.options import (
    Before,
    Budget,
    Exact,
    Images,
    MinSimilarity,
    NoRerank,
    NotUnder,
    Null,
    Paths,
    QueryVector,
    Since,
    Taken,
    Under,
)
from bridgetower_cli.failures import no_match
from bridgetower_cli.libraries import ask_library
from bridgetower_cli.live_table import LiveTable
from bridgetower_cli.progress import Meter
from bridgetower_cli.render import Column
from bridgetower_cli.settings import (
    Depth,
    Device,
    FeaturesCache,
    FeaturesDir,
    Index,
    IndexModel,
    Json,
    MinMatch,
    NoServer,
    OptionalText,
    Precision,
    Quiet,
    StorePasswordFile,
    Top,
    Verbose,
    least_match,
    settle,
)
from bridgetower_cli.showing.following import follow, show_instead
from bridgetower_cli.showing.options import CopyTo, DryRun, Html, LinkTo, Open, OpenFirst, Preview, Showing
from bridgetower_cli.showing.question import Question, index_answers
from bridgetower_cli.terminal.hyperlinks import linked

if TYPE_CHECKING:
    from bridgetower import Found, Library
    from bridgetower.serving.local.client import RemoteLibrary

FITS = 0.5  # the least probability with which a picture fits a text
_UNVERIFIED = "unverified"  # in the place of a match


def search(
    text: OptionalText = None,
    image: Images = None,
    query_vector: QueryVector = None,
    under: Under = None,
    not_under: NotUnder = None,
    since: Since = None,
    before: Before = None,
    taken: Taken = None,
    top: Top = 10,
    exact: Exact = False,
    depth: Depth = None,
    no_rerank: NoRerank = False,
    budget: Budget = None,
    min_match: MinMatch = None,
    min_similarity: MinSimilarity = None,
    json: Json = False,
    paths: Paths = False,
    null: Null = False,
    html: Html = None,
    preview: Preview = False,
    open_viewer: Open = False,
    open_first: OpenFirst = None,
    copy_to: CopyTo = None,
    link_to: LinkTo = None,
    dry_run: DryRun = False,
    features_cache: FeaturesCache = None,
    features_dir: FeaturesDir = None,
    store_password_file: StorePasswordFile = None,
    index: Index = None,
    model: IndexModel = None,
    device: Device = None,
    precision: Precision = None,
    no_server: NoServer = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find pictures by what they show.

    The index proposes candidates by similarity. The full model then verifies the best of them: "match" is the
    probability that your words describe the picture, and orders the verified ones. The rest follow, unverified.

    Exits with 1 if there is nothing to show, as when nothing reaches --min-match.
    """
    if no_rerank and depth:
        raise UsageError(f"--no-rerank verifies nothing, --depth {depth} wants to: choose one")
    showing = Showing(
        html=html,
        preview=preview,
        viewed=open_first or int(open_viewer),
        copy_to=copy_to,
        link_to=link_to,
        dry_run=dry_run,
    )
    showing.require_one_format("--json" if json else "", "bare paths" if paths or null else "")
    settings = settle(
        index=index,
        model=model,
        device=device,
        precision=precision,
        features_cache=features_cache,
        features_dir=features_dir,
        store_password_file=store_password_file,
        no_server=no_server,
        verbose=verbose,
    )
    showing.require_outside(settings.index)
    verifies = text is not None and not no_rerank and depth != 0
    if verifies:
        min_match = least_match(min_match)
    live = None
    if verifies and not (json or paths or null or showing.prints_page) and render.shows_live_tables():
        live = LiveTable("verifying", "pictures")
    stdin = _Stdin() if query_vector == Path("-") else None
    with live or Meter("searching", "pictures") as progress:

        def ask(searched: "Library | RemoteLibrary") -> "tuple[Found, bool]":
            """Return the results, and whether the index holds no picture."""
            found = searched.search(
                text,
                image=image,
                vector=query_vector if stdin is None else stdin.from_the_start(),
                under=under,
                not_under=not_under or (),
                since=since,
                before=before,
                taken=taken,
                top=top,
                depth=0 if no_rerank else depth,
                min_match=min_match,
                min_similarity=min_similarity,
                exact=exact,
                budget=math.inf if budget is None else budget,
                on_progress=progress.update,
                on_hits=nobody if live is None else lambda hits: live.show(*_laid_out(hits, settling=True)),
            )
            return found, not found.hits and not len(searched)

        try:
            found, is_empty = ask_library(settings, ask)
        except UnknownPlaceError as error:
            raise no_match(str(error)) from error
        if is_empty:
            raise no_match(render.empty_index(settings.index))
    if found.damage is not None:
        render.say(f"note: {found.damage}; the search did without it, which is slower: `bt verify --repair` mends it")
    render.skipped(found.skipped)
    render.passed_over(found.gone, found.barred, found.away)
    render.in_cloud(found.in_cloud)
    if budget is not None:
        render.say(f"verified {render.counted(found.verified, 'picture')} of at most {found.depth} in the time given")
    places = {"--under": under, "--not-under": not_under, "--since": since, "--before": before, "--taken": taken}

    def asked() -> Question:
        limits = {**places, "--min-match": min_match, "--min-similarity": min_similarity}
        answered_by = index_answers(settings, found.verified)
        return Question(text, answered_by, found.verified, image or (), query_vector, limits)

    if json:
        for rank, hit in enumerate(found.hits, start=1):
            render.json_line({"rank": rank, **_fields(hit)})
    elif paths or null:
        render.paths((hit.path for hit in found.hits), end=b"\0" if null else b"\n")
    elif found.hits and not show_instead(found.hits, showing, asked):
        render.table(*_laid_out(found.hits))
    if found.hits and min_match is None and found.best_match is not None and found.best_match < FITS:
        render.say(
            f"note: nothing fits well: {render.how_far(found.verified, found.best_match)}; --min-match keeps only what "
            "fits"
        )
    if not found.hits:
        given = [name for name, value in places.items() if value is not None]
        if given and not (
            found.verified or found.gone or found.away or found.barred or found.skipped or found.in_cloud
        ):
            raise no_match(f"no picture of the index passes {', '.join(given)}")
        best, similarity = found.best_match, found.best_similarity
        cut = similarity is not None
        why = f"the most similar picture has {similarity:.3f}" if cut else render.how_far(found.verified, best)
        raise no_match(why, best_match=best, best_similarity=similarity, verified=found.verified)
    follow(found.hits, showing, asked, settings)


class _Stdin:
    """Standard input, which can be read again after a server was lost."""

    def __init__(self) -> None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("a vector is read from stdin, as in `make-vector | bt search --query-vector -`")
        self.name = getattr(sys.stdin.buffer, "name", "the stream")
        self._read, self._at = b"", 0

    def from_the_start(self) -> BinaryIO:
        self._at = 0
        return cast(BinaryIO, self)  # it is only read

    def read(self, size: int) -> bytes:
        self._read += sys.stdin.buffer.read(max(0, self._at + size - len(self._read)))
        self._at += size
        return self._read[self._at - size : self._at]


def _fields(hit: Hit) -> dict[str, object]:
    return {
        "path": hit.path,
        "match": hit.match,
        "similarity": hit.similarity,
        "verified": hit.verified,
        "taken_at": None if hit.taken_at is None else hit.taken_at.isoformat(),
        "width": hit.width,
        "height": hit.height,
        "hash": hit.hash,
        "paths": hit.paths,
    }


def _laid_out(hits: tuple[Hit, ...], *, settling: bool = False) -> tuple[list[Column], list[list[str]]]:
    """Return a table, with a column for matches if any was verified; while hits are `settling`, always."""
    columns = [Column("similarity", number=True), Column("picture", path=True)]
    rows = [[render.score(hit.similarity), _name(hit)] for hit in hits]
    if settling or any(hit.verified for hit in hits):
        columns.insert(0, Column("match".rjust(len(_UNVERIFIED)) if settling else "match", number=True))
        rows = [[_match(hit), *row] for hit, row in zip(hits, rows, strict=True)]
    return columns, rows


def _name(hit: Hit) -> str:
    """Return the path of a picture, as a link, and how many other files of it there are."""
    others = len(hit.paths) - 1
    return linked(f"{render.short(hit.path)} (+{others})" if others > 0 else render.short(hit.path), hit.path)


def _match(hit: Hit) -> str:
    return render.score(hit.match) if hit.verified else _UNVERIFIED
