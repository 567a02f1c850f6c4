"""Text or picture -> pictures: recall by ITC, then re-rank by ITM.

    query -> vector -> index -> candidates by similarity -> the first `depth` of them through the full encoder
                                                         -> verified, by matching logit; then the rest, unverified

The two scores are never mixed. How many candidates are verified does not depend on how many are shown, so the first
five results are always the first five of the first fifteen.
"""

from pathlib import Path

import numpy as np

from bridgetower.encoder import Encoder, Runtime, Vectors
from bridgetower.errors import UsageError
from bridgetower.matching import Results, verify
from bridgetower.model import require_heads
from bridgetower.pictures import load
from bridgetower.records import Head, Hit
from bridgetower.store import Store


def default_depth(runtime: Runtime) -> int:
    """How many candidates are worth verifying on this device."""
    return 20 if runtime.device == "cpu" else 100


def search(
    store: Store,
    encoder: Encoder,
    *,
    text: str | None = None,
    image: Path | None = None,
    top: int = 10,
    depth: int = 20,
    min_match: float | None = None,
) -> Results:
    """Find pictures for a text, for a picture, or for both (the mean of their vectors recalls, the text verifies).

    `depth` 0 verifies nothing; a picture alone cannot be verified, as matching needs a text. `min_match` keeps only
    verified pictures of at least this probability. Raises UsageError for what cannot go together, PictureError for
    `image`, StoreError and ModelError.
    """
    if text is None and image is None:
        raise UsageError('nothing to search for: give a text, or a picture with --image, as in bt search "two cats"')
    if text is None:
        depth = 0
    if min_match is not None and depth == 0:
        raise UsageError("--min-match cuts what was verified: it needs a text, and re-ranking at a depth of at least 1")
    require_heads(encoder.heads, Head.ITC, *([Head.ITM] if depth else []))
    # Enough to fill the list even if every candidate that is to be verified has vanished from the disk: what is shown
    # then is still the beginning of any longer list.
    candidates = store.recall(_query(encoder, text, image), top + depth)[0]
    paths = store.photos(candidate.image for candidate in candidates)
    recalled = {_present(paths[c.image]): c.similarity for c in candidates if c.image in paths}

    verified, skipped = verify(encoder, text, list(recalled)[:depth]) if text is not None and depth else ([], [])
    hits = [Hit(v.path, v.match, recalled[v.path], True) for v in verified]
    unreadable = {skip.path for skip in skipped}
    if min_match is not None:
        hits = [hit for hit in hits if hit.match is not None and hit.match >= min_match]
    else:
        rest = list(recalled.items())[depth:]
        hits += [Hit(path, None, similarity, False) for path, similarity in rest if path not in unreadable]
    best = verified[0].match if verified else None
    return Results(tuple(hits[:top]), len(verified), best, tuple(skipped))


def _present(copies: tuple[Path, ...]) -> Path:
    """The first of equal files that is still there; the first of all if none is."""
    return next((path for path in copies if path.exists()), copies[0])


def _query(encoder: Encoder, text: str | None, image: Path | None) -> Vectors:
    """The unit vector [1, E] to recall with."""
    vectors = [encoder.embed_texts([text])] if text is not None else []
    if image is not None:
        vectors.append(encoder.embed_images(load(image, encoder.preprocessing)[None]))
    mean = np.sum(vectors, axis=0)
    unit: Vectors = mean / np.linalg.norm(mean)
    return unit
