"""The results of searches, of re-ranking and of filling: light types, which need neither NumPy nor Pillow.

In a notebook, results show small pictures, each with its scores and its path.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from bridgetower.inputs import short
from bridgetower.records import Hit, Skipped, Word, WordCount

_SIDE = 160  # pixels, of a picture in a notebook
_MOST = 50  # pictures in a notebook


@dataclass(frozen=True, slots=True, repr=False)
class Results:
    """A sequence of hits, best first."""

    hits: tuple[Hit, ...]
    verified: int  # pictures that went through the full encoder
    best_match: float | None  # the highest ITM probability of those that are not ruled out, before any cut
    skipped: tuple[Skipped, ...]  # pictures that could not be read

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    def __repr__(self) -> str:
        """Show how many, and the best one with its match, or its similarity if it was not verified."""
        best = ""
        if self.hits:
            hit = self.hits[0]
            score = hit.similarity if hit.match is None else hit.match
            best = f", best {'' if score is None else f'{score:.2f} '}{short(hit.path.name)}"
        return f"<{type(self).__name__} {len(self)} {'hit' if len(self) == 1 else 'hits'}{best}>"

    def _repr_html_(self) -> str:
        """Show the pictures and their scores in a notebook."""
        return _as_html(self.hits, self.best_match)


@dataclass(frozen=True, slots=True, repr=False)
class Found(Results):
    """The results of a search, best first."""

    gone: int  # pictures that would rank before the last one, but none of whose files exists
    barred: tuple[Skipped, ...]  # pictures whose files cannot be accessed: one file of each, and why
    away: tuple[Path, ...]  # indexed folders that were passed over, as they are empty or missing now
    damage: str | None  # a fault of the recall store, which the search did without; `repair` mends it
    depth: int  # the limit of candidates to verify
    in_cloud: int = 0  # candidates that were not verified, as that would download them
    best_similarity: float | None = None  # the highest, before the cut of a request with a least similarity
    ruled_out: int = 0  # verified pictures of which a text that must not be true is probably true

    @property
    def met_none(self) -> bool:
        """Whether a search without an offset met no picture within its limits, but for the query picture."""
        met = self.hits or self.verified or self.gone or self.barred or self.away or self.skipped or self.in_cloud
        return not met and self.best_similarity is None


@dataclass(frozen=True, slots=True)
class Filled:
    """Words, ordered by mask and then by probability."""

    words: tuple[Word, ...]
    best_match: float | None  # the highest ITM probability of the masked text with any picture; None if there is none
    skipped: tuple[Skipped, ...]  # pictures that could not be read
    gone: int = 0  # pictures of the library that were passed over, as none of their files exists
    barred: tuple[Skipped, ...] = ()  # pictures whose files cannot be accessed: one file of each, and why
    away: tuple[Path, ...] = ()  # indexed folders that were passed over, as they are empty or missing now
    in_cloud: int = 0  # pictures of the library that were not read, as that would download them
    counts: tuple[WordCount, ...] = ()  # if they were asked for: by mask, the most frequent words first
    fitting: int = 0  # pictures that were counted: those whose own words make the text true of them
    read: int = 0  # pictures that were read


def _as_html(hits: Iterable[Hit], best_match: float | None) -> str:
    """Return an HTML table with embedded pictures. A picture that cannot be read, or is in the cloud only, is shown by
    its path alone."""
    hits = list(hits)
    if not hits:
        return "<p>no match</p>" if best_match is None else f"<p>no match; the best one is {best_match:.3f}</p>"
    rows = "".join(map(_row, hits[:_MOST]))
    if len(hits) > _MOST:
        rows += f"<tr><td colspan=3>and {len(hits) - _MOST} more</td></tr>"
    return f"<table><tr><th>match</th><th>similarity</th><th>picture</th></tr>{rows}</table>"


def _row(hit: Hit) -> str:
    import html

    match = _score(hit.match) if hit.verified else "unverified"
    name = html.escape(str(hit.path))
    return f"<tr><td>{match}</td><td>{_score(hit.similarity)}</td><td>{_thumbnail(hit)}<br>{name}</td></tr>"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _thumbnail(hit: Hit) -> str:
    from bridgetower.errors import PictureError
    from bridgetower.files.content import read
    from bridgetower.files.regular_files import is_in_cloud
    from bridgetower.pictures.decode import decode

    try:
        if is_in_cloud(os.stat(hit.path)):
            return ""
        image = decode(read(hit.path), hit.path, min_side=_SIDE).image
    except (OSError, ValueError, PictureError):  # ValueError: a NUL in the name
        return ""
    import base64
    from io import BytesIO

    image.thumbnail((_SIDE, _SIDE))
    file = BytesIO()
    image.save(file, "JPEG")
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
