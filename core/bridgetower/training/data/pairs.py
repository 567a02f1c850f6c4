"""Pictures to learn from, each content once, and the texts that are true of them."""

import hashlib
import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TrainingPicture:
    """A content with its texts, wherever its files and their captions stand."""

    path: Path  # one of its files
    size: int  # bytes
    hash: bytes  # SHA-256 of the content
    captions: tuple[str, ...]  # at least one; no two have the same `key_of`


@dataclass(frozen=True, slots=True)
class Merged:
    """Pictures of different content, and what was merged."""

    pictures: tuple[TrainingPicture, ...]
    equal: int  # files with the content of an earlier one
    repeated: int  # captions that their picture has already


class Pairs:
    """The pairs of a picture and one of its captions, numbered from 0: all of the first picture, then of the next."""

    def __init__(self, pictures: Iterable[TrainingPicture]) -> None:
        self.pictures = tuple(pictures)
        self._ends = list(accumulate(len(picture.captions) for picture in self.pictures))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> tuple[TrainingPicture, str]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        row = bisect_right(self._ends, number)
        picture = self.pictures[row]
        return picture, picture.captions[number - self._ends[row]]  # counted from the last one


_QUOTES = str.maketrans("‘’“”", "''\"\"")


def key_of(text: str) -> str:
    """Return the same for texts that say the same of a picture.

    These differ in case, blanks, punctuation at the end, the Unicode form of characters or the form of quotes.
    """
    whole = unicodedata.normalize("NFKC", " ".join(text.translate(_QUOTES).split()).casefold())
    return whole.rstrip(" .,;:!?。、।") or whole


def merged(pictures: Iterable[TrainingPicture]) -> Merged:
    """Merge pictures of equal content, which share their captions, and captions with an equal key."""
    equal: dict[bytes, list[TrainingPicture]] = defaultdict(list)
    for picture in pictures:
        equal[picture.hash].append(picture)
    found = tuple(map(_one_of, equal.values()))
    texts = sum(len(one.captions) for files in equal.values() for one in files)
    return Merged(found, sum(map(len, equal.values())) - len(found), texts - sum(len(one.captions) for one in found))


def _one_of(files: Sequence[TrainingPicture]) -> TrainingPicture:
    """Return the picture of some equal files: the first itself, where the others add nothing."""
    captions: dict[str, str] = {}
    for one in files:
        for caption in one.captions:
            captions.setdefault(key_of(caption), caption)
    found = tuple(captions.values())
    return files[0] if found == files[0].captions else replace(files[0], captions=found)


def drawn(pictures: Collection[TrainingPicture], number: int, seed: int) -> frozenset[bytes]:
    """Draw the hashes of `number` pictures. Whether one is drawn hardly depends on which others there are."""

    def rank(picture: TrainingPicture) -> bytes:
        return hashlib.sha256(f"{seed} ".encode() + picture.hash).digest()

    return frozenset(picture.hash for picture in sorted(pictures, key=rank)[:number])


def true_of(texts: Sequence[str], pictures: Sequence[TrainingPicture]) -> npt.NDArray[np.bool_]:
    """Return which of T texts are true of which of B pictures: bool [T, B].

    A text is true of a picture that has an equal caption, wherever the text comes from.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows[key_of(text)].append(row)
    found = np.zeros((len(texts), len(pictures)), np.bool_)
    for column, picture in enumerate(pictures):
        for caption in picture.captions:
            found[rows.get(key_of(caption), []), column] = True
    return found


def shared_captions(pictures: Iterable[TrainingPicture]) -> int:
    """Return how many captions stand at other pictures, too."""
    times = Counter(key_of(caption) for picture in pictures for caption in picture.captions)
    return sum(number for number in times.values() if number > 1)


def seen_captions(held_out: Iterable[TrainingPicture], others: Iterable[TrainingPicture]) -> int:
    """Return how many captions of held-out pictures stand at others, too."""
    times = Counter(key_of(caption) for picture in held_out for caption in picture.captions)
    return sum(times.pop(key_of(caption), 0) for picture in others for caption in picture.captions)


def digest(parts: Iterable[Iterable[TrainingPicture]]) -> str:
    """Return the hex digest of data: of contents and texts in their order, not of the places of files."""
    sha = hashlib.sha256()
    for part in parts:
        for picture in part:
            sha.update(
                picture.hash + b"".join(caption.encode("utf-8", "replace") + b"\0" for caption in picture.captions)
            )
        sha.update(b"\1")
    return sha.hexdigest()
