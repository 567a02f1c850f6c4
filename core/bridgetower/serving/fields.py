"""The fields of requests and answers as plain values: faults in words, hits, scores, words for masks, skipped
files, numbers of JSON."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bridgetower import Hit, PairScore, Skipped, Word


def hits_of(hits: Iterable[Hit], before: int) -> list[dict[str, Any]]:
    """Return hits with their ranks, of which the first follows `before` others."""
    return [
        {
            "rank": rank,
            "id": hit.hash,
            "path": str(hit.path),
            "paths": [str(path) for path in hit.paths],
            "match": finite(hit.match),
            "similarity": finite(hit.similarity),
            "matches": list(map(finite, hit.matches)),
            "against": list(map(finite, hit.against)),
            "ruled_out": hit.ruled_out,
            "verified": hit.verified,
            "taken_at": None if hit.taken_at is None else hit.taken_at.isoformat(),
            "width": hit.width,
            "height": hit.height,
        }
        for rank, hit in enumerate(hits, before + 1)
    ]


def score_of(score: PairScore) -> dict[str, Any]:
    """Return the text and the scores of a pair."""
    return {"text": score.text, "match": finite(score.match), "similarity": finite(score.similarity)}


def word_of(word: Word) -> dict[str, Any]:
    """Return a word for a mask, without the pictures that support it."""
    return {
        "mask": word.mask,
        "rank": word.rank,
        "token": word.token,
        "probability": finite(word.probability),
        "count": word.count,
    }


def skipped_of(skipped: Iterable[Skipped]) -> list[dict[str, str]]:
    """Return the files that could not be read."""
    return [{"path": str(one.path), "reason": one.reason} for one in skipped]


def finite(value: float | None) -> float | None:
    """Return a number as JSON can have it."""
    return value if value is None or math.isfinite(value) else None


_PLAIN = {  # kinds of faults whose words by pydantic are about its types
    "missing": "is missing",
    "string_pattern_mismatch": "is no id, which is 64 hexadecimal digits as a hit has it",  # only ids have one
}


def words_of(error: Mapping[str, object], *, skip: int = 0) -> str:
    """Return a line for a fault that pydantic found, without the value; `skip` drops the first parts of its place."""
    place = error["loc"]
    names = [str(part)[:50] for part in place][skip:] if isinstance(place, tuple) else []
    if error["type"] == "extra_forbidden":
        return f"there is no field {names[-1]!a}"
    said = _PLAIN.get(str(error["type"])) or str(error["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(names)!s}: {said}".removeprefix(": ").encode("ascii", "backslashreplace").decode()
