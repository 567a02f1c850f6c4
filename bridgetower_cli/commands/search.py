"""`bt search`."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.errors import UsageError
from bridgetower_cli import render
from bridgetower_cli.asking.answer import answer
from bridgetower_cli.asking.hits import Ranked, fields
from bridgetower_cli.asking.many_queries import answer_all
from bridgetower_cli.asking.options import (
    Before,
    Budget,
    Exact,
    Images,
    Interactive,
    KeepSelf,
    MinSimilarity,
    NoRerank,
    Not,
    NotUnder,
    Null,
    Offset,
    Paths,
    QueryVector,
    SearchTop,
    Since,
    Sort,
    Taken,
    Texts,
    TextsFrom,
    Under,
    Unique,
    Weights,
    weights_of,
)
from bridgetower_cli.asking.session import converse
from bridgetower_cli.asking.stdin import Stdin
from bridgetower_cli.config.keys import DEPTH, MIN_MATCH, TOP
from bridgetower_cli.libraries import ask_library
from bridgetower_cli.live_table import LiveTable
from bridgetower_cli.settings import (
    Depth,
    Device,
    FeaturesCache,
    FeaturesDir,
    Index,
    IndexModel,
    InLibrary,
    Json,
    MinMatch,
    NoServer,
    Precision,
    Quiet,
    StorePasswordFile,
    Verbose,
    settle,
)
from bridgetower_cli.showing.following import follow, show_instead
from bridgetower_cli.showing.options import CopyTo, DryRun, Html, LinkTo, Open, OpenFirst, Preview, Showing
from bridgetower_cli.showing.placing import view
from bridgetower_cli.showing.question import Question, index_answers

if TYPE_CHECKING:
    from bridgetower import Found


def search(
    text: Texts = None,
    texts_from: TextsFrom = None,
    interactive: Interactive = False,
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
    top: SearchTop = None,
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
    in_library: InLibrary = None,
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
    if texts_from is not None and interactive:
        raise UsageError("--texts-from and -i are two places of queries: choose one")
    if texts_from is not None or interactive:
        option = "-i" if interactive else "--texts-from"
        if text or image or query_vector is not None or weights is not None:
            raise UsageError(f"{option} has the queries: give no TEXT, --image, --weights or --query-vector beside it")
        if interactive and json:
            raise UsageError("-i shows tables: `bt search --texts-from -` prints JSON lines")
        if paths or null or showing != Showing():
            raise UsageError(f"{option} has many queries: bare paths, and what is done with hits, are for one")
    settings = settle(
        index=index,
        library=in_library,
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
    top = settings.chosen(TOP, top)
    depth = 0 if no_rerank else settings.chosen(DEPTH, depth)
    query = {
        "text": texts or None,
        "image": image,
        "without": negatives,
        "weights": None if weights is None else weights_of(weights),
        "keep_self": keep_self,
        "vector": Stdin() if query_vector == Path("-") else query_vector,
        "under": under,
        "not_under": not_under or (),
        "since": since,
        "before": before,
        "taken": taken,
        "top": top,
        "offset": offset,
        "unique": unique,
        "depth": depth,
        "min_match": min_match,
        "min_similarity": min_similarity,
        "exact": exact,
        "budget": math.inf if budget is None else budget,
    }
    if interactive:
        converse(query, settings, sort=sort, open_picture=_open_picture)
        return
    if texts_from is not None:
        render.answer_program()
        answer_all(query, texts_from, settings, sort=sort)
        return
    if texts and depth != 0:
        query["min_match"] = settings.chosen(MIN_MATCH, min_match)

    def asked(found: "Found", hits: Sequence[Ranked]) -> Question:
        places = {"--under": under, "--not-under": not_under, "--since": since, "--before": before, "--taken": taken}
        cuts = {"--min-match": query["min_match"], "--min-similarity": min_similarity}
        limits = {"--not": without, "--weights": weights, **places, **cuts}
        words = ", ".join(texts) or None
        answered_by = index_answers(settings, found.verified)
        ranks = [rank for rank, _ in hits]
        return Question(words, answered_by, found.verified, image or (), query_vector, limits, ranks)

    def show(found: "Found", hits: Sequence[Ranked]) -> bool:
        """Print hits otherwise than as a table; return whether that was wanted."""
        if json:
            for rank, hit in hits:
                render.json_line(fields(rank, hit, texts=len(texts), negatives=len(negatives), unique=unique))
        elif paths or null:
            render.paths((hit.path for _, hit in hits), end=b"\0" if null else b"\n")
        else:
            return show_instead([hit for _, hit in hits], showing, lambda: asked(found, hits))
        return True

    live = None if json or paths or null or showing.prints_page else LiveTable("verifying", "pictures")
    found, hits = answer(query, partial(ask_library, settings), settings.index, sort=sort, live=live, show=show)
    follow([hit for _, hit in hits], showing, lambda: asked(found, hits), settings)


def _open_picture(file: Path) -> None:
    """Open a picture in the viewer of the desktop. Raises UsageError where there is none."""
    Showing(viewed=1)
    view([file])
