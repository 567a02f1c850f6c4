"""Show the hits of a search: their order, JSON lines and tables."""

import os
from collections.abc import Sequence
from typing import Any

from bridgetower.records import Hit
from bridgetower_cli import render
from bridgetower_cli.terminal.hyperlinks import linked
from bridgetower_cli.terminal.tables import Column

_UNVERIFIED = "unverified"  # in the place of a probability
_RULED_OUT = "x"  # before the probability of a text that must not be true
Ranked = tuple[int, Hit]  # with the rank from 1


def ranked(hits: Sequence[Hit], offset: int, sort: str) -> list[Ranked]:
    """Return hits with their ranks, the first after `offset` others, in the order in which they are shown.

    By date the newest come first, and those without a date last, by rank. Paths are compared byte by byte.
    """
    numbered = list(enumerate(hits, offset + 1))
    if sort == "path":
        numbered.sort(key=lambda one: os.fsencode(one[1].path))
    elif sort == "date":
        dated = [(hit.taken_at, rank, hit) for rank, hit in numbered if hit.taken_at is not None]
        dated.sort(key=lambda one: one[0], reverse=True)
        numbered = [(rank, hit) for _, rank, hit in dated] + [one for one in numbered if one[1].taken_at is None]
    return numbered


def fields(rank: int, hit: Hit, *, texts: int, negatives: int, unique: bool = False) -> dict[str, Any]:
    """Return the JSON object of a hit of a search with so many texts, and so many that must not be true."""
    folded = {"like": hit.like} if unique else {}
    several = {"matches": hit.matches or None} if texts > 1 else {}
    against = {"against": hit.against or None, "ruled_out": hit.ruled_out} if negatives else {}
    return {
        "rank": rank,
        "path": hit.path,
        "match": hit.match,
        "similarity": hit.similarity,
        "verified": hit.verified,
        **several,
        **against,
        "taken_at": None if hit.taken_at is None else hit.taken_at.isoformat(),
        "width": hit.width,
        "height": hit.height,
        "hash": hit.hash,
        "paths": hit.paths,
        **folded,
    }


def laid_out(
    hits: Sequence[Hit], *, texts: int, negatives: int, settling: bool = False
) -> tuple[list[Column], list[list[str]]]:
    """Return a table, with a column for what was verified; while hits are `settling`, always."""
    columns = [Column("similarity", number=True), Column("picture", path=True)]
    rows = [[render.score(hit.similarity), name_of(hit)] for hit in hits]
    if settling or any(hit.verified for hit in hits):
        for name, shown, wanted in (("not", against_of, negatives), ("match", _match, texts)):
            if wanted:
                columns.insert(0, Column(name.rjust(len(_UNVERIFIED)) if settling else name, number=True))
                rows = [
                    [shown(hit) if hit.verified else _UNVERIFIED, *row] for hit, row in zip(hits, rows, strict=True)
                ]
    return columns, rows


def name_of(hit: Hit) -> str:
    """Return the path of a picture, as a link; how many other files of it there are, and hits folded into it."""
    name, others = render.short(hit.path), len(hit.paths) - 1
    name += f" (+{others})" if others > 0 else ""
    return linked(f"{name} (+{len(hit.like)} like it)" if hit.like else name, hit.path)


def _match(hit: Hit) -> str:
    return render.score(hit.match)


def against_of(hit: Hit) -> str:
    """Return the highest probability of the texts that must not be true, marked if it rules the picture out."""
    highest = render.score(max(hit.against))
    return f"{_RULED_OUT} {highest}" if hit.ruled_out else highest
