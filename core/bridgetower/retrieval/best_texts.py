"""The best texts for each picture, of any number of texts: recall by ITC, then match by ITM.

The towers run once for each picture. Of many texts only the vectors are kept; the features of those that are matched
are computed for each batch of pictures.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import Judge, Pictures, Texts, Vectors
from bridgetower.records import Candidate, Head, OnProgress, PairScore, quiet, require_heads
from bridgetower.retrieval.matching import encoded_batches, pair_score, similarities

TEXTS_AT_ONCE = 256  # whose features are in memory: 300 kB a text in the large model
_Rows = npt.NDArray[np.int64]


def best_texts(
    judge: Judge,
    candidates: Sequence[Candidate],
    texts: Sequence[str],
    *,
    top: int,
    depth: int,
    on_progress: OnProgress = quiet,
) -> Iterator[PairScore]:
    """Yield the `top` best texts of each picture, ordered by picture, then best first.

    The `depth` most similar texts of a picture are matched, without an ITC head all. Without an ITM head similarity
    orders. A text that is given twice counts once. `on_progress(done, total)` counts pictures. Raises PictureError at
    the first one that cannot be read, MissingHeadError without both heads.
    """
    if not judge.heads & {Head.ITC, Head.ITM}:
        require_heads(judge.heads, Head.ITM)
    texts = list(dict.fromkeys(texts))
    vectors, encode = _encoded(judge, texts)
    for batch, pictures in encoded_batches(judge, candidates, on_progress):
        similarity = similarities(vectors, pictures)
        if Head.ITM not in judge.heads:
            chosen, logits = [_most_similar(similarity, column, len(texts), top) for column in range(len(batch))], None
        else:
            chosen = [_most_similar(similarity, column, len(texts), depth) for column in range(len(batch))]
            logits = _logits(judge, encode, pictures, chosen)
        for column, candidate in enumerate(batch):
            rows = chosen[column]
            order = (
                np.arange(len(rows)) if logits is None else np.argsort(-np.diff(logits[column])[:, 0], kind="stable")
            )
            for place in order[:top]:
                pair = None if logits is None else logits[column][place]
                cosine = None if similarity is None else similarity[rows[place], column]
                yield pair_score(candidate, texts[rows[place]], pair, cosine)


def _encoded(judge: Judge, texts: Sequence[str]) -> tuple[Vectors | None, Callable[[_Rows], tuple[Texts, _Rows]]]:
    """Return the vectors [Q, E] of texts, and what returns the encoded texts of some rows, and their places in them."""
    if len(texts) <= TEXTS_AT_ONCE:
        encoded = judge.encode_texts(texts)
        return encoded.vectors, lambda rows: (encoded, rows)
    vectors = None
    if Head.ITC in judge.heads:
        parts = (judge.encode_texts(texts[at : at + TEXTS_AT_ONCE]) for at in range(0, len(texts), TEXTS_AT_ONCE))
        vectors = np.concatenate([part.vectors for part in parts if part.vectors is not None])
    return vectors, lambda rows: (judge.encode_texts([texts[row] for row in rows]), np.arange(len(rows)))


def _most_similar(similarity: Vectors | None, column: int, texts: int, most: int) -> _Rows:
    """Return the rows of the texts that are most similar to a picture, best first; all where no similarity is known."""
    if similarity is None:
        return np.arange(texts)
    return np.argsort(-similarity[:, column], kind="stable")[:most]


def _logits(
    judge: Judge, encode: Callable[[_Rows], tuple[Texts, _Rows]], pictures: Pictures, chosen: Sequence[_Rows]
) -> list[npt.NDArray[np.float32]]:
    """Return the ITM logits [n, 2] of each picture with its chosen texts."""
    owners = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    wanted = np.concatenate(chosen)
    logits = np.empty((len(wanted), 2), np.float32)
    rows = np.unique(wanted)
    for start in range(0, len(rows), TEXTS_AT_ONCE):
        some = rows[start : start + TEXTS_AT_ONCE]
        texts, places = encode(some)
        at = np.flatnonzero(np.isin(wanted, some))
        pairs = np.stack([places[np.searchsorted(some, wanted[at])], owners[at]], axis=1)
        logits[at] = judge.match(texts, pictures, pairs)
    return np.split(logits, np.cumsum([len(rows) for rows in chosen])[:-1])
