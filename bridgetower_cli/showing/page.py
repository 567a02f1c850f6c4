"""Write hits as one page of HTML that needs nothing else: no network, no script, no other file."""

import base64
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from bridgetower import __version__
from bridgetower.errors import OutputError, PictureError
from bridgetower.files.atomic import create_file, remove_abandoned_new
from bridgetower.files.os_errors import unwritable
from bridgetower.records import Hit
from bridgetower_cli import render
from bridgetower_cli.asking.hits import against_of
from bridgetower_cli.progress import Meter
from bridgetower_cli.showing.question import Question
from bridgetower_cli.terminal.hyperlinks import url_of

_SIDE, _MANY_SIDE, _MANY = 512, 320, 100  # pixels of a picture, and of each of more than so many
_ROOM, _MOST, _LEAST = 13_000_000, 80_000, 6_000  # bytes for all pictures, and the most and the least for one
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = Path(__file__).with_name("page.css")


def write(file: Path, question: Question, hits: Sequence[Hit]) -> int:
    """Write the page as a new file, in one step; return its bytes. Raises OutputError."""
    content = b"".join(piece.encode() for piece in _pieces(question, hits))  # whole before there is a file
    try:
        remove_abandoned_new(file.parent)
        create_file(file, lambda unfinished: unfinished.write_bytes(content))
        return len(content)
    except OSError as error:
        raise unwritable(file, error, OutputError) from error


def to_stdout(question: Question, hits: Sequence[Hit]) -> None:
    """Write the page to stdout. Raises OutputError, ResourceError."""
    for piece in _pieces(question, hits):
        render.verbatim(piece.encode())


def _pieces(question: Question, hits: Sequence[Hit]) -> Iterator[str]:
    """Yield the page in pieces, for which the pictures are read one after another. Raises ResourceError."""
    from bridgetower import thumbnails

    many = len(hits) > _MANY
    most = max(_LEAST, min(_MOST, _ROOM // max(1, len(hits))))
    pictures = thumbnails([hit.path for hit in hits], _MANY_SIDE if many else _SIDE, most_bytes=most)
    yield from _head(question, len(hits))
    with Meter("drawing", "pictures") as meter:
        ranks = range(1, len(hits) + 1) if question.ranks is None else question.ranks
        for done, (rank, hit, picture) in enumerate(zip(ranks, hits, pictures, strict=True), start=1):
            yield "".join(_card(rank, hit, picture, question.title))
            meter.update(done, len(hits))
    yield "</ol>\n</main>\n</body>\n</html>\n"


def _head(question: Question, count: int) -> Iterator[str]:
    title = escape(question.title)
    now = datetime.now().astimezone()
    verified = render.counted(question.verified, "picture") if question.verified else "none"
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{title} – bt</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n"
        f"<header>\n<h1><bdi>{title}</bdi></h1>\n<p>{render.counted(count, 'hit')}, {verified} verified</p>\n"
    )
    if question.given:
        yield f"<p><code>{escape(question.given)}</code></p>\n"
    yield (
        f"<p>{escape(render.harmless(question.answered_by))}, bt {__version__}, "
        f'<time datetime="{now.isoformat(timespec="seconds")}">{now:%Y-%m-%d %H:%M}</time></p>\n</header>\n'
        "<main>\n<ol>\n"
    )


def _card(rank: int, hit: Hit, picture: bytes | PictureError, asked: str) -> Iterator[str]:
    name = escape(render.visible(hit.path.name))
    folder = escape(render.visible(os.path.dirname(os.path.abspath(hit.path))))
    best = hit.match if hit.verified else hit.similarity
    said = f"hit {rank} for “{asked}”{'' if best is None else f', {best:.3f}'}"
    yield f'<li>\n<a href="{escape(url_of(hit.path))}">'
    if isinstance(picture, PictureError):
        yield f'<span class="missing">{escape(render.visible(picture.reason))}</span>'
    else:
        encoded = base64.b64encode(picture).decode("ascii")
        yield f'<img src="data:image/jpeg;base64,{encoded}" alt="{escape(said)}">'
    yield f'<span class="name"><bdi>{name}</bdi></span></a>\n<div class="facts">\n<p class="scores">'
    if not hit.verified:
        yield "<span>unverified</span>"
    elif hit.match is not None:
        yield f"<span>match <b>{render.score(hit.match)}</b></span>"
    if hit.against:
        yield f" <span>not <b>{against_of(hit)}</b></span>"
    if hit.similarity is not None:
        yield f" <span>similarity <b>{render.score(hit.similarity)}</b></span>"
    yield "</p>\n"
    if hit.verified and hit.match is not None:
        yield f'<div class="bar"><span style="width: {100 * hit.match:.1f}%"></span></div>\n'
    if facts := ", ".join(_facts(hit)):
        yield f"<p>{facts}</p>\n"
    yield f"<p><bdi>{folder}</bdi></p>\n</div>\n</li>\n"


def _facts(hit: Hit) -> Iterator[str]:
    if hit.taken_at is not None:
        yield f'<time datetime="{hit.taken_at.isoformat()}">{hit.taken_at:%Y-%m-%d %H:%M}</time>'
    if hit.width is not None and hit.height is not None:
        yield f"{hit.width} × {hit.height}"
    if len(hit.paths) > 1:
        yield f"{len(hit.paths)} files"
    if hit.like:
        yield f"{len(hit.like)} like it"
