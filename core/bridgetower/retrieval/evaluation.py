"""Recall@k over pictures with captions: of the recall stage alone, and after re-ranking to one or more depths.

IR: each caption searches the pictures; TR: each picture searches the captions, and finding any of its own counts. A
caption that stands word for word at several pictures is one of their own for each of them, or for its own picture only.
All in percent. Re-ranking verifies the first `depth` candidates of each query and leaves the rest in their order.
"""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.checked import require_embedded
from bridgetower.encoders.protocol import ImageEngine, Judge, RecallEncoder, Vectors
from bridgetower.errors import UsageError
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.content import read
from bridgetower.pictures.decode_pool import error_of
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Candidate, FileContent, Head, OnProgress, Refused, quiet, require_heads
from bridgetower.retrieval.encode_pictures import candidates_of, load

RANKS = (1, 5, 10)
Recalls = tuple[float, float, float]  # at RANKS
Scores = npt.NDArray[np.float32]
_BATCH = 16  # pictures; more than elsewhere: each batch encodes its texts again


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Recall@1, recall@5 and recall@10 of one method, in percent."""

    method: str  # "recall" or "rerank"
    depth: int  # candidates verified for each query; 0 for "recall"
    ir: Recalls  # text -> picture
    tr: Recalls  # picture -> text
    pictures: int
    texts: int
    credit_same: bool = True  # whether a text that several pictures have is right for each of them
    same: int = 0  # texts that another picture has word for word
    cut: int = 0  # texts of which a part of the model reads only the beginning

    @property
    def rsum(self) -> float:
        return sum(self.ir) + sum(self.tr)


def evaluate(
    encoder: RecallEncoder,
    judge: Judge | None,
    captioned: Sequence[Captioned],
    *,
    depths: Sequence[int],
    credit_same: bool = True,
    engine: ImageEngine | None = None,
    on_progress: OnProgress = quiet,
) -> Iterator[Evaluation]:
    """Measure recall alone, then, where there is a judge, re-ranking at each of `depths`. Raises PictureError,
    UsageError for what is no picture, ModelError.

    Pictures are read twice: to encode them before the first result, by `engine` if there is one; and to verify before
    the second.
    `on_progress(done, total)` counts the pictures of the current pass.
    """
    if judge is not None and depths:
        require_heads(judge.heads, Head.ITM)
    texts = [caption for item in captioned for caption in item.captions]
    candidates = candidates_of([item.image for item in captioned])
    owner = np.array([row for row, item in enumerate(captioned) for _ in item.captions])  # [Q]
    numbers: dict[str, int] = {}
    number = np.array([numbers.setdefault(text, len(numbers)) for text in texts])  # [Q], equal for equal texts
    pairs = np.unique(np.stack([number, owner], axis=1), axis=0)
    shared, counts = np.unique(pairs[:, 0], return_counts=True)
    same = int(np.isin(number, shared[counts > 1]).sum())
    right = _Right(number if credit_same else np.arange(len(texts)), owner)
    parts = {id(part): part for part in (encoder, judge) if part is not None}.values()
    cut = sum(any(part.truncates(text) for part in parts) for text in texts)

    def measured(method: str, depth: int, scores: Scores, transposed: Scores) -> Evaluation:
        found = right.recalls(scores, transposed)
        return Evaluation(method, depth, *found, len(captioned), len(texts), credit_same, same, cut)

    batches = [range(i, min(i + _BATCH, len(captioned))) for i in range(0, len(captioned), _BATCH)]

    def pixels(rows: range, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
        return np.stack([load(candidates[row], preprocessing) for row in rows])

    vectors: list[Vectors] = []
    if engine is not None:
        # A generator that is not closed keeps its workers as long as the traceback of an error holds it.
        with closing(_embedded(engine, candidates, encoder.fingerprint.dim)) as embedded:
            for vector in embedded:
                vectors.append(vector[None])
                on_progress(len(vectors), len(captioned))
    else:
        for rows in batches:
            vectors.append(encoder.embed_images(pixels(rows, encoder.preprocessing)))
            on_progress(rows.stop, len(captioned))
    text_vectors = [encoder.embed_texts(texts[i : i + 256]) for i in range(0, len(texts), 256)]
    stored = np.concatenate(vectors).astype(np.float16).astype(np.float32)  # as an index rounds them
    similarity = np.concatenate(text_vectors) @ stored.T  # [Q, B]
    yield measured("recall", 0, similarity, similarity.T)
    if judge is None or not depths:
        return

    # Verify each pair that any query needs, picture by picture, so that each picture is encoded once.
    deepest = max(depths)
    wanted = _best_columns(similarity, deepest) | _best_columns(similarity.T, deepest).T  # bool [Q, B]
    margins = np.full(similarity.shape, -np.inf, np.float32)
    for rows in batches:
        columns = np.arange(rows.start, rows.stop)
        asked = np.flatnonzero(wanted[:, columns].any(axis=1))  # texts that are paired with any of these pictures
        pairs = np.argwhere(wanted[np.ix_(asked, columns)])
        pictures = judge.encode_images(pixels(rows, judge.preprocessing))
        logits = judge.match(judge.encode_texts([texts[i] for i in asked]), pictures, pairs)
        margins[asked[pairs[:, 0]], columns[pairs[:, 1]]] = logits[:, 1] - logits[:, 0]
        on_progress(rows.stop, len(captioned))
    for depth in depths:
        reranked = (_reranked(similarity, margins, depth), _reranked(similarity.T, margins.T, depth))
        yield measured("rerank", depth, *reranked)


def _embedded(engine: ImageEngine, candidates: Sequence[Candidate], dim: int) -> Generator[Vectors]:
    """Yield the vector [E] of each picture, from an engine. Raises PictureError, ModelError."""

    def content(candidate: Candidate) -> FileContent:
        given = candidate.picture
        if not isinstance(given, bytes | None):
            raise UsageError(f"{candidate.path}: an engine takes files and their bytes, not other pictures in memory")
        data = read(candidate.path) if given is None else given
        return FileContent(data, candidate.path, hashlib.sha256(data).digest())

    results = engine.embed(map(content, candidates))
    try:
        for candidate, result in zip(candidates, results, strict=True):
            found = require_embedded(engine, result, dim)
            if isinstance(found, Refused):
                raise error_of(found, candidate.path)
            yield found.vector
    finally:
        if callable(close := getattr(results, "close", None)):
            close()


def _best_columns(scores: npt.NDArray[np.float32], depth: int) -> npt.NDArray[np.bool_]:
    """Mark the `depth` best columns of each row: bool, the shape of `scores`."""
    chosen = np.zeros(scores.shape, bool)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def _reranked(
    similarity: npt.NDArray[np.float32], margins: npt.NDArray[np.float32], depth: int
) -> npt.NDArray[np.float32]:
    """Return scores that order each row as a search does: verified pairs by margin, then the rest by similarity."""
    above_all = similarity.max() + 1 - np.where(np.isfinite(margins), margins, np.inf).min()
    return np.where(_best_columns(similarity, depth), margins + above_all, similarity)


class _Right:
    """Which texts belong to which pictures: all with the number [Q] of a text of the picture `owner` [Q]."""

    def __init__(self, number: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]) -> None:
        self._number, self._pictures = number, int(owner.max()) + 1
        self._pairs = np.unique(number * self._pictures + owner)

    def recalls(self, text_to_image: Scores, image_to_text: Scores) -> tuple[Recalls, Recalls]:
        """Return recall@k of texts and of pictures, in percent, from scores [Q, B] and [B, Q]."""
        ranked_images = np.argsort(-text_to_image, axis=1, kind="stable")[:, : max(RANKS)]
        ranked_texts = np.argsort(-image_to_text, axis=1, kind="stable")[:, : max(RANKS)]
        found_image = self._are_right(self._number[:, None], ranked_images)
        found_text = self._are_right(self._number[ranked_texts], np.arange(len(image_to_text))[:, None])
        return _percent(found_image), _percent(found_text)

    def _are_right(self, number: npt.NDArray[np.int64], picture: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.isin(number * self._pictures + picture, self._pairs)


def _percent(found: npt.NDArray[np.bool_]) -> Recalls:
    """Return how many rows have a hit among the first ranks, in percent."""
    one, five, ten = (100.0 * float(found[:, :k].any(axis=1).mean()) for k in RANKS)
    return one, five, ten
