"""`bt search`."""

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridgetower.errors import ModelError, UsageError
from bridgetower.records import EVERYTHING, Filter, Head, Hit
from bridgetower_cli import engine, render
from bridgetower_cli.failures import no_match
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
    OptionalText,
    Precision,
    Top,
    duration,
    moment,
    named_path,
    settle,
)

if TYPE_CHECKING:
    from bridgetower.protocol import Vectors
    from bridgetower.store import Store


def search(
    text: OptionalText = None,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=named_path, help="Search for pictures like this one; TEXT may refine it."),
    ] = None,
    query_vector: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=named_path,
            help='Recall by this vector, an npy file of the kind that the index holds ("-" for stdin); TEXT then '
            "only verifies.",
        ),
    ] = None,
    under: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", parser=named_path, help="Only pictures in this folder, or this file."),
    ] = None,
    since: Annotated[
        int | None,
        typer.Option(
            metavar="DATE",
            parser=moment,
            help="Only pictures taken at this time or later, or whose file is from then if they do not say: "
            '"2024", "2024-05", "2024-05-17", "2024-05-17T18:30".',
        ),
    ] = None,
    before: Annotated[
        int | None, typer.Option(metavar="DATE", parser=moment, help="Only pictures taken before this time.")
    ] = None,
    top: Top = 10,
    depth: Depth = None,
    no_rerank: Annotated[
        bool, typer.Option("--no-rerank", help="Verify nothing: faster, ordered by similarity alone.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="TIME",
            parser=duration,
            help='Verify, the best candidates first, until this time is up: "2s", "500ms".',
        ),
    ] = None,
    min_match: MinMatch = None,
    json: Json = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print bare paths, one a line.")] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="Print bare paths, each ended by a NUL byte.")] = False,
    features_cache: FeaturesCache = None,
    features_dir: FeaturesDir = None,
    index: Index = None,
    model: IndexModel = None,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Find pictures by what they show.

    The index proposes candidates by similarity. The full model then verifies the best of them: "match" is the
    probability that your words describe the picture, and orders the verified ones. The rest follow, unverified.

    Exits with 1 if there is nothing to show, as when nothing reaches --min-match.
    """
    if text is None and image is None and query_vector is None:
        raise UsageError('nothing to search for: give a TEXT, as in bt search "two cats", or a picture with --image')
    if image is not None and query_vector is not None:
        raise UsageError("--image and --query-vector both say what to recall: choose one")
    if json and (paths or null):
        raise UsageError("--json and bare paths are two formats: choose one")
    if since is not None and before is not None and since >= before:
        raise UsageError(
            "--since must be earlier than --before, which is left out itself: all of 2024 is --since 2024 --before 2025"
        )
    if under is not None and len(under) > 1:
        raise UsageError("--under names one folder: search the others by themselves, or one around them all")
    if no_rerank and depth:
        raise UsageError(f"--no-rerank verifies nothing, --depth {depth} wants to: choose one")
    if no_rerank or text is None:
        depth = 0
    if budget is not None and depth == 0:
        raise UsageError("--budget is for verifying: it needs a TEXT, and neither --no-rerank nor --depth 0")
    if min_match is not None and depth == 0:
        raise UsageError(
            "--min-match cuts by what was verified: it needs a TEXT, and neither --no-rerank nor --depth 0"
        )
    settings = settle(
        index=index,
        model=model,
        device=device,
        precision=precision,
        features_cache=features_cache,
        features_dir=features_dir,
    )
    from bridgetower.heads import require_heads
    from bridgetower.search import SearchRequest
    from bridgetower.search import search as find_pictures
    from bridgetower.store import Store

    with Store.open(settings.index) as store:
        if not len(store):
            raise no_match(render.empty_index(settings.index))
        filter = Filter(_place(under[0], store) if under else None, since, before)
        vector = None if query_vector is None else _vector(query_vector, store.fingerprint.dim)
        encoder = None
        if vector is None or depth != 0:
            chosen = engine.of_index(store, settings) if vector is None else engine.judge_of(store, settings)
            if depth != 0:
                try:
                    require_heads(chosen.heads, *([Head.ITC] if vector is None else []), Head.ITM)
                except ModelError as error:
                    raise ModelError(f"{error}; or verify nothing, with --no-rerank") from error
            encoder = chosen.encoder
            if text is not None:
                engine.tell_truncated(encoder, text)
            if depth is None:
                depth = encoder.default_depth
        assert depth is not None
        with Meter("searching", "pictures") as meter:
            found = find_pictures(
                store,
                SearchRequest(
                    text, image, vector, top, depth, min_match, math.inf if budget is None else budget, filter
                ),
                encoder,
                encoder,
                cache=engine.feature_cache(store, settings),
                on_progress=meter.update,
            )
        damage = store.damage
    if damage is not None:
        render.say(f"note: {damage}; the search did without it, which is slower: `bt verify --repair` mends it")
    render.skipped(found.skipped)
    render.passed_over(found.gone, found.barred, found.away)
    if budget is not None and depth:
        render.say(f"verified {render.counted(found.verified, 'picture')} of at most {depth} in the time given")
    if json:
        for rank, hit in enumerate(found.hits, start=1):
            render.json_line({"rank": rank, **_fields(hit)})
    elif paths or null:
        render.paths((hit.path for hit in found.hits), end=b"\0" if null else b"\n")
    elif found.hits:
        _table(found.hits)
    if (
        not found.hits
        and filter != EVERYTHING
        and not (found.verified or found.gone or found.away or found.barred or found.skipped)
    ):
        given = [
            name for name, value in (("--under", under), ("--since", since), ("--before", before)) if value is not None
        ]
        raise no_match(f"no picture of the index passes {', '.join(given)}")
    if not found.hits:
        raise no_match(render.how_far(found.verified, found.best_match))


def _place(under: Path, store: "Store") -> Path:
    """`under` as the index knows it: by its own name, or by where its links lead."""
    for path in (Path(os.path.abspath(under)), Path(os.path.realpath(under))):
        if store.manifest.knows(path):
            return path
    raise no_match(f"nothing in the index lies under {render.short(under)}; `bt status` names its folders")


def _vector(file: Path, dim: int) -> "Vectors":
    """The vector [E] in a file, or on stdin. Raises InputError."""
    from bridgetower.npy import read_vector, unreadable
    from bridgetower.regular import open_regular

    if str(file) == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("a vector is read from stdin, as in `make-vector | bt search --query-vector -`")
        return read_vector(sys.stdin.buffer, "stdin", dim)
    try:
        with open_regular(file) as opened:
            return read_vector(opened, str(file), dim)
    except OSError as error:
        raise unreadable(file, error) from error


def _fields(hit: Hit) -> dict[str, object]:
    return {"path": hit.path, "match": hit.match, "similarity": hit.similarity, "verified": hit.verified}


def _table(hits: tuple[Hit, ...]) -> None:
    """Without a column for matches where nothing was verified."""
    if any(hit.verified for hit in hits):
        columns = [Column("match", number=True), Column("similarity", number=True), Column("picture")]
        rows = [[_match(hit), render.score(hit.similarity), render.short(hit.path)] for hit in hits]
    else:
        columns = [Column("similarity", number=True), Column("picture")]
        rows = [[render.score(hit.similarity), render.short(hit.path)] for hit in hits]
    render.table(columns, rows)


def _match(hit: Hit) -> str:
    return render.score(hit.match) if hit.verified else "unverified"
