"""Audit captions: is each one true of its picture, and which word is wrong where it is not?

Every pair is matched first, picture by picture. Then the pairs to show are known, and each is explained, worst first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bridgetower.encoders.protocol import Judge, Pictures, match_probability
from bridgetower.files.captions.captioned import Captioned
from bridgetower.records import FITS, Candidate, Head, OnProgress, Skipped, quiet, require_heads
from bridgetower.retrieval.curation.suggestions import best_replacement
from bridgetower.retrieval.encode_pictures import candidates_of, encoded


@dataclass(frozen=True, slots=True)
class Audited:
    """A caption and how probably it is true of its picture, with the word that the picture supports least.

    The last four are None where no other word doubles the odds that the caption is true, and without an MLM head.
    """

    image: Path
    caption: str
    match: float  # ITM probability in [0, 1]
    place: str | None = None  # in the captions file, as "line 3"; None for captions that are from no file
    word: str | None = None
    at: int | None = None  # where `word` begins in the caption, in characters
    suggestion: str | None = None  # the word that mends it best
    suggested_match: float | None = None  # ITM probability of the caption with the suggestion in the place of the word


OnRow = Callable[[Audited, int], object]  # called with a row that is to be shown, and how many there are in all


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit."""

    rows: tuple[Audited, ...]  # the pairs to show, worst first
    captions: int  # that were judged
    pictures: int  # that were judged
    below: int  # captions, of all that were judged, that are less probable than the threshold
    cut: int  # captions, of all that were judged, that are longer than the model reads
    skipped: tuple[Skipped, ...]  # pictures that could not be read


@dataclass(frozen=True, slots=True)
class _Pair:
    """A caption that was judged; `margin`, the difference of the logits, also orders what rounds to 0."""

    candidate: Candidate
    row: Audited
    margin: float


def audit(
    judge: Judge,
    captioned: Sequence[Captioned],
    *,
    below: float = FITS,
    worst: int | float | None = None,
    on_progress: OnProgress = quiet,
    on_row: OnRow = quiet,
) -> Audit:
    """Match each caption with its picture; show those below the threshold, or with `worst` so many of the worst.

    `on_progress(done, total)` counts the pictures that are matched; then `on_row` gets the rows to show, worst first.
    A picture is encoded once to match its captions, and once more if any of them is shown. Raises ModelError without
    an ITM head.
    """
    require_heads(judge.heads, Head.ITM)
    skipped: list[Skipped] = []
    pairs = list(_pairs(judge, captioned, skipped, on_progress))
    ordered = sorted(pairs, key=lambda pair: (pair.row.match, pair.margin))
    less = sum(pair.row.match < below for pair in pairs)
    shown = ordered[: less if worst is None else _number(worst, len(pairs))]
    rows = []
    for row in _explained(judge, shown, skipped):
        rows.append(row)
        on_row(row, len(shown))
    return Audit(
        tuple(rows),
        len(pairs),
        len({id(pair.candidate) for pair in pairs}),
        less,
        sum(judge.truncates(pair.row.caption) for pair in pairs),
        tuple(skipped),
    )


def _number(worst: int | float, pairs: int) -> int:
    """Return how many pairs an int says, or which part of them a float."""
    return worst if isinstance(worst, int) else math.ceil(worst * pairs)


def _pairs(
    judge: Judge, captioned: Sequence[Captioned], skipped: list[Skipped], on_progress: OnProgress
) -> Iterator[_Pair]:
    """Yield every pair whose picture can be read; add the others to `skipped`."""
    candidates = candidates_of([item.image for item in captioned])
    items = {id(candidate): item for candidate, item in zip(candidates, captioned, strict=True)}
    done = told = 0
    for batch, pictures in encoded(judge, candidates, skipped):
        asked = [(row, place) for row, one in enumerate(batch) for place in range(len(items[id(one)].captions))]
        texts = list(dict.fromkeys(items[id(batch[row])].captions[place] for row, place in asked))
        numbers = {text: number for number, text in enumerate(texts)}
        wanted = np.array([[numbers[items[id(batch[row])].captions[place]], row] for row, place in asked], np.int64)
        logits = judge.match(judge.encode_texts(texts), pictures, wanted)
        for (row, place), pair in zip(asked, logits, strict=True):
            candidate, item = batch[row], items[id(batch[row])]
            where = item.places[place] if item.places else None
            audited = Audited(candidate.path, item.captions[place], float(match_probability(pair)), where)
            yield _Pair(candidate, audited, float(pair[1] - pair[0]))
        done += len(batch)
        told = done + len(skipped)
        on_progress(told, len(candidates))
    if told < len(candidates):  # none of the last ones could be read
        on_progress(len(candidates), len(candidates))


def _explained(judge: Judge, shown: Sequence[_Pair], skipped: list[Skipped]) -> Iterator[Audited]:
    """Yield the rows with word and suggestion, in order. All those of a picture are explained when its first one is."""
    if Head.MLM not in judge.heads:
        yield from (pair.row for pair in shown)
        return
    places: dict[int, list[int]] = {}  # of the pairs of each candidate
    for place, pair in enumerate(shown):
        places.setdefault(id(pair.candidate), []).append(place)
    rows: dict[int, Audited] = {}  # explained, and not yet yielded
    for place, pair in enumerate(shown):
        if place not in rows:
            same = places[id(pair.candidate)]
            rows |= {other: shown[other].row for other in same}  # where the file is gone by now
            for _, picture in encoded(judge, [pair.candidate], skipped):
                rows |= {other: _with_replacement(judge, picture, shown[other]) for other in same}
        yield rows.pop(place)


def _with_replacement(judge: Judge, picture: Pictures, pair: _Pair) -> Audited:
    found = best_replacement(judge, picture, pair.row.caption, pair.margin)
    if found is None:
        return pair.row
    return replace(pair.row, word=found.word, at=found.at, suggestion=found.suggestion, suggested_match=found.match)
