"""Words for `<mask>`, read out of one picture, several, or the whole library.

    p(word) = sum_i w_i p(word | text, picture_i),    w_i proportional to the ITM probability of the text with picture i

The library's pictures are recalled by the masked text itself. A picture that the text does not fit has little say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.encoder import Encoder, match_probability
from bridgetower.model import require_heads
from bridgetower.pictures import present, readable
from bridgetower.records import Head, Skipped, Word
from bridgetower.store import Store

SUPPORTERS = 3  # pictures that are named for a word


@dataclass(frozen=True, slots=True)
class Filled:
    """Words, by mask and then by probability."""

    words: tuple[Word, ...]
    best_match: float | None  # the highest ITM probability of the masked text with any picture; None if there is none
    skipped: tuple[Skipped, ...]  # pictures that could not be read


def fill_library(
    store: Store,
    encoder: Encoder,
    text: str,
    *,
    top: int = 5,
    depth: int = 20,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Filled:
    """Fill the masks of `text` from the `depth` pictures of the library that it fits best.

    Where one of them cannot be read, as its file is gone, the next best takes its place, as far as twice `depth`.
    Raises UsageError where the text has no `<mask>`; ModelError, StoreError. An empty library gives no words.
    """
    require_heads(encoder.heads, Head.ITC, Head.ITM, Head.MLM)
    candidates = store.recall(encoder.embed_texts([text]), 2 * depth)[0]
    photos = store.photos(candidate.image for candidate in candidates).values()
    return fill_images(encoder, text, [*map(present, photos)], top=top, enough=depth, on_progress=on_progress)


def fill_images(
    encoder: Encoder,
    text: str,
    images: Sequence[Path],
    *,
    top: int = 5,
    enough: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Filled:
    """Fill the masks of `text` from these pictures: all that can be read, or the first `enough` of those.

    One picture needs the MLM head alone; to mix several takes the ITM head, too. `on_progress(done, total)` counts
    pictures. Raises UsageError where the text has no `<mask>`; ModelError.
    """
    require_heads(encoder.heads, Head.MLM, *([Head.ITM] if len(images) > 1 else []))
    skipped: list[Skipped] = []
    there: list[Path] = []
    matches: list[npt.NDArray[np.float32]] = []  # of a batch: [B]
    words: list[npt.NDArray[np.float32]] = []  # of a batch: probabilities [B, M, V]
    for batch, pixels in readable(images, encoder.preprocessing, skipped, enough=enough):
        reading = encoder.read(text, pixels)
        there += batch
        matches.append(np.ones(len(batch), np.float32) if reading.itm is None else match_probability(reading.itm))
        words.append(np.exp(reading.log_probabilities))
        on_progress(len(there), min(len(images) - len(skipped), enough or len(images)))
    if not there:
        return Filled((), None, tuple(skipped))
    match, probabilities = np.concatenate(matches), np.concatenate(words)
    # The least say of a picture is tiny, not none: if no picture fits, all are as good as each other.
    weights = np.maximum(match, 1e-9) / np.maximum(match, 1e-9).sum()  # [N]
    ranked = [
        word
        for mask in range(probabilities.shape[1])
        for word in _ranked(encoder, weights[:, None] * probabilities[:, mask], mask, there, top)
    ]
    best = float(match.max()) if Head.ITM in encoder.heads else None
    return Filled(tuple(ranked), best, tuple(skipped))


def _ranked(
    encoder: Encoder, shares: npt.NDArray[np.float32], mask: int, images: Sequence[Path], top: int
) -> list[Word]:
    """The `top` words for one mask. `shares` [N, V]: what each picture adds to the probability of each token.

    A word is one token, and its probability that token's. With and without a space before it a word is two tokens:
    the likelier one stands for it.
    """
    totals = shares.sum(axis=0)  # [V]
    best: dict[str, int] = {}
    for token in np.argsort(-totals, kind="stable").tolist():
        if len(best) == top:
            break
        if word := encoder.word(token):
            best.setdefault(word, token)
    return [
        Word(
            mask=mask,
            rank=rank,
            token=word,
            probability=min(float(totals[token]), 1.0),
            images=tuple(images[i] for i in np.argsort(-shares[:, token], kind="stable")[:SUPPORTERS]),
        )
        for rank, (word, token) in enumerate(best.items(), start=1)
    ]
