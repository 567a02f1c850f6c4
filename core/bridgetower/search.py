"""Text, picture or vector -> pictures: recall by ITC, then re-rank by ITM.

    query -> vector -> index -> candidates by similarity -> the first `depth` of them through the full encoder
                                                         -> verified, by matching logit; then the rest, unverified

The two scores are never mixed. How many candidates are verified does not depend on how many are shown, so the first
five results are always the first five of the first fifteen. A picture whose files are gone is no candidate: the next
one takes its place.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridgetower.encoder import Encoder, Runtime, Texts, Vectors
from bridgetower.errors import UsageError
from bridgetower.features import FeatureCache
from bridgetower.matching import Results, Verified, require_limits, verify
from bridgetower.model import require_heads
from bridgetower.pictures import Kept, load
from bridgetower.recall import Candidates
from bridgetower.records import EVERYTHING, Filter, Head, Hit, OnProgress, Skipped
from bridgetower.store import Store


@dataclass(frozen=True, slots=True)
class Found(Results):
    """What a search found, best first."""

    gone: int  # pictures that would have come before the last one, but whose files are no longer there
    barred: tuple[Skipped, ...]  # the same, but whose files cannot be looked at: one file of each, and why
    away: tuple[Path, ...]  # folders that were indexed and passed over, as nothing at all is in them now


def default_depth(runtime: Runtime) -> int:
    """How many candidates are worth verifying on this device."""
    return 20 if runtime.device == "cpu" else 100


def search(
    store: Store,
    encoder: Encoder | None,
    *,
    text: str | None = None,
    image: Path | None = None,
    vector: Vectors | None = None,
    top: int = 10,
    depth: int = 20,
    min_match: float | None = None,
    budget: float = math.inf,
    cache: FeatureCache | None = None,
    filter: Filter = EVERYTHING,
    on_progress: OnProgress = lambda done, total: None,
) -> Found:
    """Find pictures for a text, for a picture, or for both (the mean of their vectors recalls, the text verifies).

    `vector`, [E] of unit length and of the kind that the index holds, recalls by itself: a text then only verifies, and
    any encoder with an ITM head will do; without a text, or with `depth` 0, it takes none.

    `filter` says which pictures may be found; it costs no recall. `depth` 0 verifies nothing; a picture alone cannot be
    verified, as matching needs a text. `min_match` keeps only verified pictures of at least this probability. After
    `budget` seconds no more are verified. `cache` keeps the features of pictures for the next time.
    `on_progress(done, total)` counts pictures that are being verified.
    Raises UsageError for what is out of range or cannot go together, PictureError for `image`; StoreError, ModelError.
    """
    if text is None and image is None and vector is None:
        raise UsageError("nothing to search for: give a text, a picture, or both")
    if vector is not None and image is not None:
        raise UsageError("a picture and a vector both say what to recall: choose one")
    if vector is not None and vector.shape != (store.fingerprint.dim,):
        raise UsageError(
            f"a vector of shape {list(vector.shape)}, those of the index have {store.fingerprint.dim} numbers: give "
            f"one that was made as they were, by {store.fingerprint.model}"
        )
    require_limits(top=top, depth=depth, min_match=min_match)
    if text is None:
        depth = 0
    if min_match is not None and depth == 0:
        raise UsageError("a least match cuts what was verified: it needs a text, and a depth of at least 1")
    if encoder is not None:
        require_heads(encoder.heads, *([Head.ITC] if vector is None else []), *([Head.ITM] if depth else []))
    elif vector is None or depth:
        raise UsageError("a text or a picture needs a model; a vector alone needs none")
    deadline = time.monotonic() + budget
    kept = None if cache is None else Kept(cache)
    encoded = encoder.encode_texts([text]) if encoder is not None and text is not None and depth else None
    if vector is None:
        assert encoder is not None
        query = _query(encoder, text, image, encoded)
    else:
        query = vector[None]
    candidates = Candidates(store, query, kept, filter)

    recalled: dict[Path, float] = {}
    verified: list[Verified] = []
    unreadable: list[Skipped] = []

    def tell(done: int, total: int) -> None:
        on_progress(len(verified) + done, len(verified) + total)

    while (
        encoder is not None
        and encoded is not None
        and len(verified) < depth
        and (some := candidates.take(depth - len(verified)))
    ):
        recalled |= some
        more, skipped = verify(encoder, encoded, list(some), kept=kept, deadline=deadline, on_progress=tell)
        verified += more
        unreadable += skipped
        if time.monotonic() >= deadline:
            break
    verified.sort(key=lambda v: -v.margin)
    hits = [Hit(v.path, v.match, recalled.pop(v.path), True) for v in verified]
    if min_match is not None:
        hits = [hit for hit in hits if hit.match is not None and hit.match >= min_match]
    else:
        for skip in unreadable:
            recalled.pop(skip.path, None)
        recalled |= candidates.take(top - len(hits) - len(recalled))  # after those that there was no time for
        hits += [Hit(path, None, similarity, False) for path, similarity in recalled.items()]
    best = verified[0].match if verified else None
    passed_over = (candidates.gone, tuple(candidates.barred), tuple(candidates.away))
    return Found(tuple(hits[:top]), len(verified), best, tuple(unreadable), *passed_over)


def _query(encoder: Encoder, text: str | None, image: Path | None, encoded: Texts | None) -> Vectors:
    """The unit vector [1, E] to recall with; `encoded` is the text, if it is to be verified."""
    vectors = []
    if text is not None:
        known = None if encoded is None else encoded.vectors
        vectors.append(encoder.embed_texts([text]) if known is None else known)
    if image is not None:
        vectors.append(encoder.embed_images(load(image, encoder.preprocessing)[None]))
    mean = np.sum(vectors, axis=0)
    unit: Vectors = mean / np.linalg.norm(mean)
    return unit
