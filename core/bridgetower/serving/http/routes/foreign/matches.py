"""Matches of texts and pictures: one with each of the others, or pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridgetower.records import Head, PairScore, require_heads
from bridgetower.serving.engine import Engine
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.http.bodies import GivenPicture
from bridgetower.serving.http.errors import unusable
from bridgetower.serving.http.routes.foreign.items import ready


@dataclass(frozen=True, slots=True)
class Match:
    """The match of a pair: its probability in [0, 1], and the difference of its logits, which orders more finely."""

    probability: float
    margin: float


def matches(
    engine: Engine, texts: Sequence[str], pictures: Sequence[GivenPicture], field: str, hearing: Hearing
) -> list[Match]:
    """Return the matches of one text or picture with each of the other side, or of pairs, in order.

    `field` is the one with the pictures. Raises Problem, MissingHeadError.
    """
    if 1 not in (len(texts), len(pictures)) and len(texts) != len(pictures):
        raise unusable(f"{len(texts)} texts and {len(pictures)} pictures are no pairs", field)
    given = ready(engine, pictures, field)

    def found(some: Sequence[int], wanted: Sequence[str]) -> list[Match]:
        scores = engine.match(
            [given[place] for place in some], wanted, say=hearing.say, on_progress=hearing.on_progress
        )
        return list(map(_match, scores))

    if 1 in (len(texts), len(pictures)):
        return found(range(len(given)), texts)
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    pairs = {
        place: match for text, some in places.items() for place, match in zip(some, found(some, [text]), strict=True)
    }
    return [pairs[place] for place in range(len(given))]


def model_of(engine: Engine) -> str:
    """Return the name of the model that answers."""
    return engine.model or engine.fingerprint().model


def _match(score: PairScore) -> Match:
    if score.match is None or score.itm_logits is None:
        require_heads(frozenset(), Head.ITM)
    assert score.match is not None and score.itm_logits is not None
    no, yes = score.itm_logits
    return Match(score.match, yes - no)
