"""Matching: run the full encoder on pairs of a text and a picture, for the probability that the text is true of it.

`search` verifies its candidates with it; `bt rerank` and `bt match` use it alone, without an index.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import Judge, Pictures, Texts, Vectors, match_probability
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.vectors.float16 import exact_scores
from bridgetower.prefetch import ahead, workers
from bridgetower.records import Candidate, Head, Hit, OnProgress, PairScore, Skipped, quiet, require_heads
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE, encoded, load
from bridgetower.retrieval.results import Results

RULES_OUT = 0.5  # the least probability with which a text that must not be true rules a picture out

_Logits = tuple[float, float]  # ITM: (no, yes)


@dataclass(frozen=True, slots=True)
class Verified:
    """A candidate, and the logits of the texts that must be true of it, and of those that must not."""

    candidate: Candidate
    logits: tuple[_Logits, ...]
    against: tuple[_Logits, ...] = ()

    @property
    def ruled_out(self) -> bool:
        """Whether a text that must not be true is probably true."""
        return any(probability >= RULES_OUT for probability in _probabilities(self.against))

    @property
    def order(self) -> tuple[bool, float]:
        """The key of an order, best first: those that are ruled out come last.

        The least difference of the logits of a text decides, as probabilities may round to 1; without a text, the
        similarity.
        """
        worth = min((yes - no for no, yes in self.logits), default=self.candidate.similarity or 0.0)
        return self.ruled_out, -worth

    @property
    def hit(self) -> Hit:
        matches = _probabilities(self.logits)
        return Hit(
            self.candidate.path,
            min(matches, default=None),
            self.candidate.similarity,
            verified=True,
            matches=matches if len(matches) > 1 else (),
            against=_probabilities(self.against),
            ruled_out=self.ruled_out,
        )


def _probabilities(logits: tuple[_Logits, ...]) -> tuple[float, ...]:
    return tuple(float(match_probability(np.array(one, np.float32))) for one in logits)


def verify(
    judge: Judge,
    texts: Texts,
    candidates: Sequence[Candidate],
    *,
    negatives: int = 0,
    cache: FeatureCache | None = None,
    deadline: float = math.inf,
    on_progress: OnProgress = quiet,
    on_batch: Callable[[Sequence[Verified], Sequence[Skipped]], object] = quiet,
) -> tuple[list[Verified], list[Skipped]]:
    """Verify each picture with all texts, of which the last `negatives` must not be true; return them best first (ties
    as given), and the unreadable pictures.

    Features are read from the `cache` and added to it. No batch but the first begins after `deadline`
    (`time.monotonic()`). `on_progress(done, total)` counts pictures; after it, `on_batch(verified, unreadable)` gets
    all so far, as given.
    """
    verified: list[Verified] = []
    skipped: list[Skipped] = []
    told, number = 0, len(texts.masks)
    for there, pictures in encoded(judge, candidates, skipped, cache):
        logits = judge.match(texts, pictures, every_pair(number, len(there))).reshape(number, len(there), 2)
        for column, candidate in enumerate(there):
            pairs = tuple((float(no), float(yes)) for no, yes in logits[:, column])
            verified.append(Verified(candidate, pairs[: number - negatives], pairs[number - negatives :]))
        told = len(verified) + len(skipped)
        on_progress(told, len(candidates))
        on_batch(verified, skipped)
        if time.monotonic() >= deadline:
            break
    if told < (done := len(verified) + len(skipped)):  # none of the last ones could be read
        on_progress(done, len(candidates))
        on_batch(verified, skipped)
    return sorted(verified, key=lambda v: v.order), skipped


def rerank(
    judge: Judge,
    text: str,
    candidates: Sequence[Candidate],
    *,
    top: int | None = None,
    min_match: float | None = None,
    on_progress: OnProgress = quiet,
) -> Results:
    """Order pictures from anywhere by how probably the text is true of them; no index is needed.

    `on_progress(done, total)` counts pictures. Raises ModelError without an ITM head.
    """
    require_heads(judge.heads, Head.ITM)
    candidates = list({candidate.path: candidate for candidate in candidates}.values())
    verified, skipped = verify(judge, judge.encode_texts([text]), candidates, on_progress=on_progress)
    hits = [v.hit for v in verified]
    best = hits[0].match if hits else None
    return Results(tuple(matching(hits, min_match)[:top]), len(verified), best, tuple(skipped))


def matching(hits: list[Hit], min_match: float | None) -> list[Hit]:
    """Return the hits with at least this probability; None is no limit."""
    if min_match is None:
        return hits
    return [hit for hit in hits if hit.match is not None and hit.match >= min_match]


def match(
    judge: Judge,
    candidates: Sequence[Candidate],
    texts: Sequence[str],
    *,
    on_progress: OnProgress = quiet,
) -> Iterator[PairScore]:
    """Score every picture with every text, by each head of the model; ordered by picture, then by text.

    `on_progress(done, total)` counts pictures. Raises PictureError at the first one that cannot be read.
    """
    if not judge.heads & {Head.ITC, Head.ITM}:
        require_heads(judge.heads, Head.ITM)
    encoded = judge.encode_texts(texts)
    for batch, pictures in encoded_batches(judge, candidates, on_progress):
        pairs = every_pair(len(texts), len(batch))
        logits = judge.match(encoded, pictures, pairs) if Head.ITM in judge.heads else None
        similarity = similarities(encoded.vectors, pictures)
        for row, candidate in enumerate(batch):
            for column, text in enumerate(texts):
                pair = None if logits is None else logits[column * len(batch) + row]
                yield pair_score(candidate, text, pair, None if similarity is None else similarity[column, row])


def encoded_batches(
    judge: Judge, candidates: Sequence[Candidate], on_progress: OnProgress = quiet
) -> Iterator[tuple[Sequence[Candidate], Pictures]]:
    """Encode pictures in batches, in order. Raises PictureError at the first one that cannot be read."""
    with workers(PICTURES_AT_ONCE) as threads:
        loaded = ahead(threads, partial(load, preprocessing=judge.preprocessing), candidates, 2 * PICTURES_AT_ONCE)
        for start in range(0, len(candidates), PICTURES_AT_ONCE):
            batch = candidates[start : start + PICTURES_AT_ONCE]
            pictures = judge.encode_images(np.stack(list(islice(loaded, len(batch)))))
            on_progress(start + len(batch), len(candidates))
            yield batch, pictures


def similarities(texts: Vectors | None, pictures: Pictures) -> Vectors | None:
    """Return the cosines [Q, B] of vectors of texts and of pictures; None without an ITC head."""
    if texts is None or pictures.vectors is None:
        return None
    stored = pictures.vectors.astype(np.float16).astype(np.float32)  # as an index rounds them
    return np.stack([exact_scores(text, stored) for text in texts])


def pair_score(
    candidate: Candidate, text: str, logits: npt.NDArray[np.float32] | None, similarity: np.float32 | None
) -> PairScore:
    """Return the scores of a pair from its ITM logits [2] and its similarity; None for a head that is absent."""
    return PairScore(
        image=candidate.path,
        text=text,
        match=None if logits is None else float(match_probability(logits)),
        itm_logits=None if logits is None else (float(logits[0]), float(logits[1])),
        similarity=None if similarity is None else float(similarity),
    )


def every_pair(texts: int, images: int) -> npt.NDArray[np.int64]:
    """Return all pairs (text, image) as rows [texts * images, 2], texts varying slowest."""
    return np.stack(np.meshgrid(np.arange(texts), np.arange(images), indexing="ij"), axis=-1).reshape(-1, 2)
