"""`bt search`."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from bridgetower.errors import UnknownPlaceError, UsageError
from bridgetower.records import Hit
from bridgetower.records import quiet as nobody
from bridgetower_cli import render
from bridgetower_cli.asking.hits import fields, laid_out, ranked
from bridgetower_cli.asking.options import (
    Before,
    Budget,
    Exact,
    Images,
    KeepSelf,
    MinSimilarity,
    NoRerank,
    Not,
    NotUnder,
    Null,
    Offset,
    Paths,
    QueryVector,
    Since,
    Sort,
    Taken,
    Texts,
    Under,
    Unique,
    Weights,
    weights_of,
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

if TYPE_CHECKING:
    from bridgetower import Found, Library
    from bridgetower.serving.local.client import RemoteLibrary

FITS = 0.5  # the least probability with which a picture fits a text


def search(
    text: Texts = None,
    image: Images = None,
    without: Not = None,
    weights: Weights = None,
    keep_self: KeepSelf = False,
    query_vector: QueryVector = None,
    under: Under = None,
    not_under: NotUnder = None,
    since: Since = None,
    before: Before = None,
    taken: Taken = None,
    top: Top = 10,
    offset: Offset = 0,
    unique: Unique = False,
    sort: Sort = "match",
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
    With several texts each must be true: "match" is that of the least probable one.

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
    texts, negatives = list(text or ()), list(without or ())
    if len(texts) > 1 and all(len(one.split()) == 1 for one in texts):
        words = render.visible(" ".join(texts))
        render.say(f'note: {len(texts)} texts, each of which must be true; for one text of these words: "{words}"')
    verifies = bool(texts or negatives) and not no_rerank and depth != 0
    if texts and verifies:
        min_match = least_match(min_match)
    number = {"texts": len(texts), "negatives": len(negatives)}
    live = None
    if verifies and not (json or paths or null or showing.prints_page) and render.shows_live_tables():
        live = LiveTable("verifying", "pictures")

    def table(hits: Sequence[Hit], *, settling: bool = False) -> tuple[list[Column], list[list[str]]]:
        return laid_out([hit for _, hit in ranked(hits, offset, sort)], **number, settling=settling)

    stdin = _Stdin() if query_vector == Path("-") else None
    with live or Meter("searching", "pictures") as progress:

        def ask(searched: "Library | RemoteLibrary") -> "tuple[Found, bool]":
            """Return the results, and whether the index holds no picture."""
            found = searched.search(
                texts or None,
                image=image,
                without=negatives,
                weights=None if weights is None else weights_of(weights),
                keep_self=keep_self,
                vector=query_vector if stdin is None else stdin.from_the_start(),
                under=under,
                not_under=not_under or (),
                since=since,
                before=before,
                taken=taken,
                top=top,
                offset=offset,
                unique=unique,
                depth=0 if no_rerank else depth,
                min_match=min_match,
                min_similarity=min_similarity,
                exact=exact,
                budget=math.inf if budget is None else budget,
                on_progress=progress.update,
                on_hits=nobody if live is None else lambda hits: live.show(*table(hits, settling=True)),
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
    in_order = ranked(found.hits, offset, sort)
    shown = [hit for _, hit in in_order]

    def asked() -> Question:
        limits = {"--not": without, **places, "--min-match": min_match, "--min-similarity": min_similarity}
        answered_by = index_answers(settings, found.verified)
        words = ", ".join(texts) or None
        ranks = [rank for rank, _ in in_order]
        return Question(words, answered_by, found.verified, image or (), query_vector, limits, ranks)

    if json:
        for rank, hit in in_order:
            render.json_line(fields(rank, hit, **number, unique=unique))
    elif paths or null:
        render.paths((hit.path for hit in shown), end=b"\0" if null else b"\n")
    elif shown and not show_instead(shown, showing, asked):
        render.table(*table(found.hits))
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
        why = render.how_far(found.verified, best)
        if offset:
            why = f"there are no results after the first {offset}"
        elif found.ruled_out == found.verified > 0:
            why = f"--not rules out all of {render.counted(found.verified, 'verified picture')}"
        elif found.ruled_out:
            why += f", and --not rules out {found.ruled_out}"
        elif similarity is not None:
            why = f"the most similar picture has {similarity:.3f}"
        raise no_match(why, best_match=best, best_similarity=similarity, verified=found.verified)
    follow(shown, showing, asked, settings)


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
