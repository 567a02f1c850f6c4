"""`bt rerank`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import UsageError
from bridgetower.records import Skipped
from bridgetower_cli import render
from bridgetower_cli.config.keys import MIN_MATCH
from bridgetower_cli.failures import no_match
from bridgetower_cli.libraries import ask_model
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import (
    Device,
    Json,
    MinMatch,
    Model,
    NoServer,
    Precision,
    Quiet,
    RequiredText,
    Verbose,
    settle,
    whole,
)
from bridgetower_cli.showing.following import follow, show_instead
from bridgetower_cli.showing.options import CopyTo, DryRun, Html, LinkTo, Open, OpenFirst, Showing
from bridgetower_cli.showing.question import Question, model_answers


def rerank(
    text: RequiredText,
    top: Annotated[
        int | None, typer.Option(parser=whole(10), metavar="N", help="Print at most this many. [default: all]")
    ] = None,
    min_match: MinMatch = None,
    json: Json = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Paths end with a NUL byte, coming in and going out.")
    ] = False,
    html: Html = None,
    open_viewer: Open = False,
    open_first: OpenFirst = None,
    copy_to: CopyTo = None,
    link_to: LinkTo = None,
    dry_run: DryRun = False,
    model: Model = None,
    device: Device = None,
    precision: Precision = None,
    no_server: NoServer = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Order pictures from any other tool by their match.

    Reads paths from stdin, one a line, and prints them as they came in, ordered by how probably the text describes
    the picture. Needs no index.

    Exits with 1 if there is nothing to print, as when nothing reaches --min-match.
    """
    from bridgetower.files.content import unreachable

    showing = Showing(
        html=html, viewed=open_first or int(open_viewer), copy_to=copy_to, link_to=link_to, dry_run=dry_run
    )
    showing.require_one_format("--json" if json else "")
    settings = settle(
        model=model,
        device=device,
        precision=precision,
        no_server=no_server,
        verbose=verbose,
        needs_index=False,
    )
    min_match = settings.chosen(MIN_MATCH, min_match)
    spelled = _read_paths(b"\0" if null else b"\n")
    if not spelled:
        raise no_match("no paths came in on stdin")
    if len(gone := list(unreachable(spelled))) == len(spelled):  # no model need be fetched
        render.skipped(Skipped(error.path, error.reason) for error in gone)
        raise no_match(render.how_far(0, None))
    with Meter("verifying", "pictures") as meter:
        found = ask_model(
            settings,
            lambda asked: asked.rerank(text, list(spelled), min_match=min_match, on_progress=meter.update),
        )
    render.skipped(found.skipped)
    rows = [(path, hit) for hit in found.hits for path in spelled[hit.path]][:top]
    hits = list(dict.fromkeys(hit for _, hit in rows))  # one picture may have two spellings

    def asked() -> Question:
        return Question(
            text, model_answers(settings, found.verified), found.verified, limits={"--min-match": min_match}
        )

    if json:
        for rank, (path, hit) in enumerate(rows, start=1):
            render.json_line({"rank": rank, "path": path, "match": hit.match})
    elif hits and not show_instead(hits, showing, asked):
        render.paths((path for path, _ in rows), end=b"\0" if null else b"\n")
    if not found.hits:
        why = render.how_far(found.verified, found.best_match)
        raise no_match(why, best_match=found.best_match, verified=found.verified)
    follow(hits, showing, asked, None)


def _read_paths(end: bytes) -> dict[Path, list[str]]:
    """Read paths, each with its spellings in order: "./-x.jpg" must not be printed as "-x.jpg"."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("paths are read from stdin, as in `find . -name '*.jpg' | bt rerank TEXT`")
    read = sys.stdin.buffer.read()
    if b"\0" in read and end != b"\0":
        raise UsageError("the paths on stdin end with NUL bytes, as from `find -print0`: add -0")
    if b"\n" in read and end == b"\0" and b"\0" not in read and not os.path.lexists(read):
        raise UsageError("the paths on stdin end with newlines, not with NUL bytes: run it without -0")
    spelled: dict[Path, list[str]] = {}
    for path in map(os.fsdecode, filter(None, read.split(end))):
        ways = spelled.setdefault(Path(path), [])
        if path not in ways:
            ways.append(path)
    return spelled
