"""Predict words for `<mask>` from one picture, several, or the whole library.

    p(word) = sum_i w_i p(word | text, picture_i),    w_i proportional to the ITM probability of the text with picture i

The masked text itself recalls the pictures of a library. A picture that the text does not fit has little weight.

Counted, each picture has one vote instead: its own most probable words, if the text with these words is true of it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import Judge, Pictures, RecallEncoder, match_probability
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.inputs import MASK
from bridgetower.records import FITS, Candidate, Head, OnProgress, Skipped, Word, WordCount, quiet, require_heads
from bridgetower.retrieval.candidates import Candidates
from bridgetower.retrieval.encode_pictures import encoded
from bridgetower.retrieval.results import Filled

SUPPORTERS = 3  # pictures that are listed for a word


def fill_library(
    reader: IndexReader,
    encoder: RecallEncoder,
    judge: Judge,
    text: str,
    *,
    top: int = 5,
    depth: int | None = None,
    each: bool = False,
    cache: FeatureCache | None = None,
    on_progress: OnProgress = quiet,
) -> Filled:
    """Fill the masks of `text` from the `depth` pictures of the library that it fits best.

    With `each`, the result also has the `top` words by the number of pictures whose own word they are; each picture is
    verified for that once more.

    Where one of them is gone or cannot be read, the next best takes its place, but not where its file is in the cloud
    only: that picture is passed over. `depth` None is the judge's
    default depth. `cache` keeps the features of pictures for the next call. `on_progress(done, total)` counts pictures.
    Raises UsageError where the text has no `<mask>`; ModelError, StoreError. An empty library gives no words.
    """
    require_heads(judge.heads, Head.ITM, Head.MLM)
    depth = judge.default_depth if depth is None else depth
    mixture = _Mixture(judge, text, on_progress, cache, each=each)
    candidates = Candidates(reader, encoder.embed_texts([text]))
    in_cloud = 0
    while (wanted := depth - len(mixture.images) - in_cloud) > 0 and (some := candidates.take(wanted)):
        here = [candidate for candidate in some if not candidate.in_cloud]
        in_cloud += len(some) - len(here)
        mixture.read(here)
        candidates.replace_unreadable(skip.path for skip in mixture.skipped)
    filled = mixture.filled(top)
    return replace(
        filled,
        words=tuple(replace(word, hashes=tuple(map(candidates.hash_of, word.images))) for word in filled.words),
        gone=candidates.gone,
        barred=tuple(candidates.barred),
        away=tuple(candidates.away),
        in_cloud=in_cloud,
    )


def fill_images(
    judge: Judge,
    text: str,
    candidates: Sequence[Candidate],
    *,
    top: int = 5,
    on_progress: OnProgress = quiet,
) -> Filled:
    """Fill the masks of `text` from those of these pictures that can be read.

    One picture needs the MLM head alone; several need the ITM head, too. `on_progress(done, total)` counts
    pictures. Raises UsageError where the text has no `<mask>`; ModelError.
    """
    require_heads(judge.heads, Head.MLM, *([Head.ITM] if len(candidates) > 1 else []))
    mixture = _Mixture(judge, text, on_progress)
    mixture.read(candidates)
    return mixture.filled(top)


class _Mixture:
    """The words that the pictures read so far predict for one masked text, weighted by match."""

    def __init__(
        self,
        judge: Judge,
        text: str,
        on_progress: OnProgress,
        cache: FeatureCache | None = None,
        *,
        each: bool = False,
    ) -> None:
        self._judge, self._text = judge, judge.encode_texts([text])
        self._votes = _Votes(judge, text) if each else None
        self._on_progress, self._cache = on_progress, cache
        self.images: list[Path] = []  # N
        self.skipped: list[Skipped] = []
        self._matches: list[npt.NDArray[np.float32]] = []  # for each batch: [B]
        self._words: list[npt.NDArray[np.float32]] = []  # for each batch: probabilities [B, M, V]

    def read(self, candidates: Sequence[Candidate]) -> None:
        """Add the predictions of more pictures; unreadable ones are skipped."""
        before, total = len(self.skipped), len(self.images) + len(candidates)
        told = len(self.images)
        for batch, pictures in encoded(self._judge, candidates, self.skipped, self._cache):
            reading = self._judge.predict_masked(self._text, pictures)
            self.images += (candidate.path for candidate in batch)
            itm = reading.itm
            self._matches.append(np.ones(len(batch), np.float32) if itm is None else match_probability(itm))
            self._words.append(np.exp(reading.log_probabilities))
            if self._votes is not None:
                self._votes.add([candidate.path for candidate in batch], pictures, self._words[-1])
            told = len(self.images) + len(self.skipped) - before
            self._on_progress(told, total)
        if told < (done := len(self.images) + len(self.skipped) - before):  # none of the last ones could be read
            self._on_progress(done, total)

    def filled(self, top: int) -> Filled:
        """Return the `top` words for each mask."""
        if not self.images:
            return Filled((), None, tuple(self.skipped))
        match, probabilities = np.concatenate(self._matches), np.concatenate(self._words)
        # A least weight above zero: if no picture fits, all weigh the same.
        weights = np.maximum(match, 1e-9) / np.maximum(match, 1e-9).sum()  # [N]
        words = [
            word
            for mask in range(probabilities.shape[1])
            for word in _ranked(self._judge, weights, probabilities[:, mask], mask, self.images, top)
        ]
        best = float(match.max()) if Head.ITM in self._judge.heads else None
        filled = Filled(tuple(words), best, tuple(self.skipped), read=len(self.images))
        return filled if self._votes is None else self._votes.counted(filled, top)


class _Votes:
    """The own words of each picture for the masks of a text, and how well the text then fits it."""

    def __init__(self, judge: Judge, text: str) -> None:
        # As for the tokenizer, a space stands before a mask, also where it is left out after a word.
        self._judge, self._parts = judge, re.sub(rf"(?<=\w){MASK}", f" {MASK}", text).split(MASK)
        self._votes: list[tuple[float, Path, tuple[str, ...]]] = []  # match, picture, its word for each mask

    def add(self, images: Sequence[Path], pictures: Pictures, probabilities: npt.NDArray[np.float32]) -> None:
        """Take the votes of a batch of pictures from their probabilities [B, M, V]."""
        words = [tuple(_likeliest(self._judge, row) for row in picture) for picture in probabilities]
        # A mask that the model does not read has no word.
        texts = ["".join(chain(*zip_longest(self._parts, own, fillvalue=""))) for own in words]
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        pairs = np.array([[rows[text], image] for image, text in enumerate(texts)], np.int64)
        match = match_probability(self._judge.match(self._judge.encode_texts(list(rows)), pictures, pairs))
        self._votes += zip(match.tolist(), images, words, strict=True)

    def counted(self, filled: Filled, top: int) -> Filled:
        """Return the result with the `top` most frequent words for each mask; ties go to the better matches."""
        fitting = sorted((vote for vote in self._votes if vote[0] >= FITS), key=lambda vote: -vote[0])
        counts = []
        for mask in range(len(fitting[0][2]) if fitting else 0):
            images: dict[str, list[Path]] = {}
            for _, image, words in fitting:
                images.setdefault(words[mask], []).append(image)
            ranked = sorted(images.items(), key=lambda item: -len(item[1]))[:top]
            counts += [
                WordCount(mask, rank, word, len(of), len(of) / len(fitting), tuple(of[:SUPPORTERS]))
                for rank, (word, of) in enumerate(ranked, start=1)
            ]
        return replace(filled, counts=tuple(counts), fitting=len(fitting))


def _ranked(
    judge: Judge,
    weights: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.float32],
    mask: int,
    images: Sequence[Path],
    top: int,
) -> list[Word]:
    """Return the `top` words for one mask, from the weights [N] of the pictures and their probabilities [N, V].

    A word has the probability of its token. With and without a space before it, a word is two tokens: the likelier one
    counts.
    """
    shares = weights[:, None] * probabilities  # [N, V]: what each picture adds to the probability of each token
    totals = shares.sum(axis=0)  # [V]
    best: dict[str, int] = {}
    for token in np.argsort(-totals, kind="stable").tolist():
        if len(best) == top:
            break
        if word := judge.word(token):
            best.setdefault(word, token)
    counts = Counter(_likeliest(judge, row) for row in probabilities)
    return [
        Word(
            mask=mask,
            rank=rank,
            token=word,
            probability=min(float(totals[token]), 1.0),
            images=tuple(images[i] for i in np.argsort(-shares[:, token], kind="stable")[:SUPPORTERS]),
            count=counts[word],
        )
        for rank, (word, token) in enumerate(best.items(), start=1)
    ]


def _likeliest(judge: Judge, probabilities: npt.NDArray[np.float32]) -> str:
    """Return the most probable word of one picture, from its probabilities [V]."""
    if word := judge.word(int(probabilities.argmax())):
        return word  # nearly always, and sorting takes milliseconds
    words = map(judge.word, np.argsort(-probabilities, kind="stable").tolist())
    return next(filter(None, words), "")
