"""The values that cross from one stage to the next: frozen, free of third-party types."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from bridgetower.errors import ModelError

OnProgress = Callable[[int, int], None]  # is told how many are done, and of how many
LARGEST = 2**63 - 1  # whole number that SQLite holds
MAX_PICTURE_BYTES = 2 * 1000**3  # of a file; the largest that is decoded, of 16 bits and uncompressed, has fewer
Say = Callable[[str], object]  # takes one line for the person who waits


def quiet(*_: object) -> None:
    """A `Say`, or an `OnProgress`, that tells nobody."""


class Head(StrEnum):
    """A task head of BridgeTower; a checkpoint has any subset."""

    ITC = "itc"  # contrastive: one vector per image or text
    ITM = "itm"  # matching: is this text true of this image
    MLM = "mlm"  # masked language: which word stands here


def require_heads(heads: frozenset[Head], *needed: Head, way_out: str = "") -> None:
    """Raise `ModelError`, naming a checkpoint that has all of `needed`, or a `way_out`, unless they are all there."""
    for head in needed:
        if head not in heads:
            published = "large-itm-mlm-itc" if Head.ITC in needed else "base-itm-mlm"
            raise ModelError(
                f"this checkpoint has no {head.name} head: use one that has, such as "
                f"BridgeTower/bridgetower-{published}{way_out}"
            )


class WalkedFile(NamedTuple):
    """A file that may hold a picture, as the walk over the folders found it: light, for there may be millions."""

    path: bytes  # absolute
    size: int  # bytes
    mtime_ns: int  # nanoseconds since the epoch


def path_of(path: bytes) -> Path:
    """A path that is kept as bytes."""
    return Path(os.fsdecode(path))


@dataclass(frozen=True, slots=True)
class File:
    """A file that the index holds, or is to hold: a few at a time, ready to be opened and compared."""

    path: Path  # absolute
    size: int  # bytes
    mtime_ns: int  # nanoseconds since the epoch


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was passed over, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Content that does not become a picture."""

    reason: str
    lasting: bool  # it lies in the content: the next time it will be the same


@dataclass(frozen=True, slots=True)
class Filter:
    """Which pictures a search is about. A picture's time is when it was taken, or else when its file was changed.

    Times are what a clock on the wall showed, in seconds since it showed 1970: where the picture was taken, as most
    cameras write no zone, or that of this machine for a file.
    """

    under: Path | None = None  # absolute: at or below this
    since: int | None = None  # at that time or later
    before: int | None = None
    apart: tuple[Path, ...] = ()  # absolute: not at or below any of these


EVERYTHING = Filter()


DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "int8")
PREPROCESSINGS = ("hf", "plain")

INT8 = "int8"  # a precision, and a family of its own; fp32 and bf16 are the family "float"
FOREIGN = "foreign"  # the family of vectors that came with their pictures, made by no model of ours


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What produced the vectors of an index; vectors with different fingerprints cannot be compared."""

    model: str  # repository id, "demo", or the absolute path of a folder
    revision: str  # resolved commit of the repository; "local" for a folder, "bundled" for "demo"
    weights_sha256: str
    config_sha256: str  # of all else that computes: numbers of the network, and of the preprocessing
    preprocessing: str  # "hf", "plain" or "foreign"
    preprocessing_version: int
    precision_family: str  # "float" (fp32 and bf16 vectors agree within tolerance), "int8" or "foreign"
    dim: int  # length of a vector
    tokenizer_sha256: str | None = None  # of what turned texts into ids; None where that is not known


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that may be what is looked for."""

    path: Path
    similarity: float | None = None  # ITC cosine in [-1, 1]; None where no recall took place
    content: bytes | None = None  # SHA-256 of the file, where it is as an index knows it
    picture: object = None  # itself, where it is in memory; `path` is then no more than a name


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `match` and `similarity` are two scores that are never mixed; higher is better."""

    path: Path
    match: float | None  # ITM probability in [0, 1]; None where the pair was not verified
    similarity: float | None  # ITC cosine in [-1, 1]; None where no recall took place
    verified: bool


@dataclass(frozen=True, slots=True)
class Word:
    """One candidate word for one `<mask>`."""

    mask: int  # which `<mask>` of the text, from 0
    rank: int  # from 1
    token: str  # without surrounding space
    probability: float  # in [0, 1]
    images: tuple[Path, ...]  # the pictures that support it most, best first


@dataclass(frozen=True, slots=True)
class PairScore:
    """How one text fits one image, by every head that the checkpoint has."""

    image: Path
    text: str
    match: float | None  # ITM probability in [0, 1]
    itm_logits: tuple[float, float] | None  # [no match, match]
    similarity: float | None  # ITC cosine in [-1, 1]
