"""Find the word of a caption that its picture supports least, and a word that mends it.

    mask each word in turn ─▶ MLM: the likeliest other words ─▶ ITM: the caption with each of them in its place

The best replacement has the highest product of the odds that the caption is then true, by ITM, and of the
probability of the new word, by MLM. Only replacements that at least double the odds of the caption count.
docs/decisions/2026-11-29-audit.md has the rules that were measured.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import Judge, Pictures, match_probability
from bridgetower.inputs import MASK
from bridgetower.retrieval.matching import every_pair

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_TRIED = 2  # replacements of each word that ITM verifies: more named no more of the wrong words
_LEAST_GAIN = math.log(2)  # of the margin: less is no reason to name a word, as "one" in the place of "a"


@dataclass(frozen=True, slots=True)
class Replacement:
    """Another word in the place of one of a caption."""

    at: int  # where the word begins in the caption, in characters
    word: str
    suggestion: str
    match: float  # ITM probability of the caption with the suggestion in it


@dataclass(frozen=True, slots=True)
class _Trial:
    """A replacement that MLM proposes."""

    at: int
    word: str
    suggestion: str
    log_probability: float  # of the suggestion in this place

    def applied(self, caption: str) -> str:
        return caption[: self.at] + self.suggestion + caption[self.at + len(self.word) :]


def best_replacement(judge: Judge, picture: Pictures, caption: str, margin: float) -> Replacement | None:
    """Return the replacement of one word that mends `caption` best; None if none doubles the odds that it is true.

    `picture` is one picture, `margin` the difference of the ITM logits of the caption as it is. A caption that has a
    `<mask>` itself gets None. Raises ModelError without ITM or MLM head.
    """
    trials = [] if MASK in caption else list(_trials(judge, picture, caption))
    if not trials:
        return None
    texts = judge.encode_texts([trial.applied(caption) for trial in trials])
    logits = judge.match(texts, picture, every_pair(len(trials), 1))  # texts of one length share a pass
    margins = logits[:, 1] - logits[:, 0]
    better = [row for row in range(len(trials)) if margins[row] >= margin + _LEAST_GAIN]
    if not better:
        return None
    best = max(better, key=lambda row: float(margins[row]) + trials[row].log_probability)
    trial = trials[best]
    return Replacement(trial.at, trial.word, trial.suggestion, float(match_probability(logits[best])))


def _trials(judge: Judge, picture: Pictures, caption: str) -> Iterator[_Trial]:
    """Yield the replacements of each word to verify. A word that is cut off from the caption has none.

    A word of several tokens is masked by one mask, so that what stands in its place is one whole word.
    """
    words = list(_WORD.finditer(caption))
    masked = [judge.encode_texts([caption[: word.start()] + MASK + caption[word.end() :]]) for word in words]
    for word, text in zip(words, masked, strict=True):
        if text.masks[0]:
            predicted = judge.predict_masked(text, picture).log_probabilities[0, 0]
            for other, log_probability in _others(judge, predicted, word[0]):
                yield _Trial(word.start(), word[0], other, log_probability)


def _others(judge: Judge, log_probabilities: npt.NDArray[np.float32], word: str) -> list[tuple[str, float]]:
    """Return the likeliest other words, from the log-probabilities [V]; none if MLM would put `word` itself first."""
    found: dict[str, tuple[str, float]] = {}
    for token in np.argsort(-log_probabilities, kind="stable").tolist():
        other = judge.word(token)
        if not _WORD.fullmatch(other):
            continue
        if other.casefold() == word.casefold():
            if not found:
                break
            continue
        found.setdefault(other.casefold(), (other, float(log_probabilities[token])))
        if len(found) == _TRIED:
            break
    return list(found.values())
