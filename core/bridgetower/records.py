"""Values, constants and callback types that all packages share, without third-party types."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from bridgetower.errors import MissingHeadError, UsageError

# Raise it with any change that gives some pictures other pixels, and call `pictures.versions.changed_in` where they get
# them: the next run encodes these pictures again. Preprocessing has a version of its own, in the fingerprint.
DECODING_VERSION = 1
METADATA_VERSION = 1  # raise it with any change by which dates are found that were not: the next run looks for them
OnProgress = Callable[[int, int], None]  # called with the number done, and the total
LARGEST = 2**63 - 1  # integer of SQLite
IN_CLOUD = -1  # in the place of the size of a walked file whose content is in the cloud only
MAX_PICTURE_BYTES = 2 * 1000**3  # of a file; more than any decoded picture, even with 16 bits uncompressed
MOST_PIXELS = (
    10_000_000_000  # largest limit on the pixels of a picture; more than any format of Pillow can hold in memory
)
FITS = 0.5  # the least match with which a picture fits a text, where the user names none
DEMO = "demo"  # name of the model that comes with the package
Say = Callable[[str], object]  # called with a line of text for the user


def quiet(*_: object) -> None:
    """Do nothing: a default for `Say` and `OnProgress`."""


class Head(StrEnum):
    """A task head of BridgeTower; a checkpoint has any subset."""

    ITC = "itc"  # contrastive: one vector per image or text
    ITM = "itm"  # matching: is this text true of this image
    MLM = "mlm"  # masked language: which word stands here


def require_heads(heads: frozenset[Head], *needed: Head, way_out: str = "") -> None:
    """Raise MissingHeadError unless `heads` has all of `needed`; it names a checkpoint that has, and `way_out`."""
    for head in needed:
        if head not in heads:
            published = "large-itm-mlm-itc" if Head.ITC in needed else "base-itm-mlm"
            raise MissingHeadError(
                f"this checkpoint has no {head.name} head: use one that has, such as "
                f"BridgeTower/bridgetower-{published}{way_out}"
            )


class WalkedFile(NamedTuple):
    """A file that may hold a picture, from the walk over folders; a light type, as there may be millions."""

    path: bytes  # absolute
    size: int  # bytes; or IN_CLOUD, and no more is known
    mtime_ns: int  # nanoseconds since the epoch
    inode: int = 0  # its lowest 63 bits; 0 if unknown
    ctime_ns: int = 0  # as `stat` has it; 0 if unknown
    sidecars: int = 0  # digest of the files beside it that may tell its date; 0 for none


def path_of(path: bytes) -> Path:
    """Convert a path from bytes."""
    return Path(os.fsdecode(path))


@dataclass(frozen=True, slots=True)
class File:
    """A file that the index holds or will hold; for few files at a time, as `WalkedFile` is lighter."""

    path: Path  # absolute
    size: int  # bytes
    mtime_ns: int  # nanoseconds since the epoch
    inode: int = 0  # its lowest 63 bits; 0 if unknown
    ctime_ns: int = 0  # as `stat` has it; 0 if unknown
    taken_at: int | None = None  # seconds since 1970 on the clock where it was taken, if not from the content
    sidecars: int = 0  # digest of the files beside it that may tell its date; 0 for none
    metadata: int = METADATA_VERSION  # version of the reader of its dates
    decoding: int | None = None  # of a skipped file: version of the decoding that refused it; None for ours

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> Self:
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino & LARGEST, status.st_ctime_ns)

    def is_unchanged(self, now: "File") -> bool:
        """Return whether the file is still the one that was stored. docs/index-format.md has the rule."""
        if (now.size, now.mtime_ns) != (self.size, self.mtime_ns):
            return False
        if 0 in (self.ctime_ns, now.ctime_ns):
            return True
        counts = self.ctime_ns != self.mtime_ns and 0 not in (self.inode, now.inode)
        return self.ctime_ns == now.ctime_ns and not (counts and self.inode != now.inode)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was skipped, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The folders of one kind that a run left out by default."""

    kind: str  # as docs/commands.md names it: "@eaDir", "recycle bins"
    pictures: int  # files in these folders
    all_counted: bool  # else there may be more: counting ends at 10,000 entries of a kind
    dropped: int  # files with a picture that the index had until this run
    example: Path | None  # one of the folders that such files were in


@dataclass(frozen=True, slots=True)
class Refused:
    """The reason why content cannot be decoded."""

    reason: str
    lasting: bool  # the content is at fault, so another attempt would fail, too


class FileContent(NamedTuple):
    """The content of a picture file, for an `ImageEngine`."""

    data: bytes
    path: Path  # where it was read; the file may have another content by now
    hash: bytes  # SHA-256 of `data`


_RAY_ADDRESS = re.compile(r"ray://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
Place = Path | str  # of an index: an absolute path and all below it; or a glob, as `files.patterns.glob` writes it


@dataclass(frozen=True, slots=True)
class Filter:
    """The pictures to which a search is limited. The time of a picture is when it was taken, else its file's mtime.

    Times are local, in seconds since 1970 on the same clock: of the camera, as most cameras write no time zone, or of
    this machine for an mtime.
    """

    under: tuple[Place, ...] = ()  # only files in one of these; () for all
    since: int | None = None  # only at this time or later
    before: int | None = None  # only before this time
    not_under: tuple[Place, ...] = ()  # no files in any of these


EVERYTHING = Filter()


DEFAULT_MODEL = "BridgeTower/bridgetower-large-itm-mlm-itc"
DEFAULT_DEPTH = 20  # candidates that an evaluation verifies for each query
TEXTS_AHEAD = 16  # texts that may be encoded together before they are asked for
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "int8")
PREPROCESSINGS = ("hf", "plain")

INT8 = "int8"  # a precision, and a precision family; fp32 and bf16 are the family "float"
FOREIGN = "foreign"  # the family of imported vectors, which no model of ours made


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Where pictures become vectors. Raises UsageError."""

    name: str = "local"  # in this process; or "ray", or "ray://HOST:PORT", on a Ray cluster
    workers: int | None = None  # that decode, or workers of the cluster; None for as many as fit
    shared_paths: bool = False  # whether the workers of a cluster read the files themselves

    def __post_init__(self) -> None:
        if self.name not in ("local", "ray") and not _RAY_ADDRESS.fullmatch(self.name):
            raise UsageError(f"{self.name!a}: an engine is local, ray, or ray://HOST:PORT")
        if self.name not in ("local", "ray") and int(self.name.rpartition(":")[2]) not in range(1, 65536):
            raise UsageError(f"{self.name}: a port is from 1 to 65535; that of Ray's client server is 10001")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.workers} workers: a whole number of at least 1 is wanted")
        if self.shared_paths and not self.is_ray:
            raise UsageError("shared paths are for the workers of a cluster: name it, as --engine ray://HOST:10001")

    @property
    def is_ray(self) -> bool:
        """Whether a Ray cluster is asked for."""
        return self.name != "local"

    @property
    def address(self) -> str | None:
        """The address of a Ray cluster; None for that of RAY_ADDRESS or of this machine."""
        return None if self.name == "ray" else self.name


LOCAL = EngineChoice()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Model, preprocessing and precision of vectors; vectors with different fingerprints cannot be compared."""

    model: str  # repository id, "demo", or the absolute path of a folder
    revision: str  # resolved commit of the repository; "local" for a folder, "bundled" for "demo"
    weights_sha256: str
    config_sha256: str  # of the settings of the network and of the preprocessing
    preprocessing: str  # "hf", "plain" or "foreign"
    preprocessing_version: int
    precision_family: str  # "float" (fp32 and bf16 vectors agree within tolerance), "int8" or "foreign"
    dim: int  # length of a vector
    tokenizer_sha256: str | None = None  # of the tokenizer; None if unknown

    def differences(self, other: "Fingerprint") -> dict[str, str]:
        """Return the fields that keep vectors with these fingerprints from being compared, each in words."""
        return {
            field: f"{name} {getattr(self, field)!s:.16}, not {getattr(other, field)!s:.16}"
            for field, name in _COMPARED.items()
            if getattr(self, field) != getattr(other, field)
        }


# The fields that must be equal for vectors to be comparable, each with its name in messages. The name of a model is not
# among them: equal weights in a copied folder, or in a newer release of the package, are the same model.
_COMPARED = {
    "weights_sha256": "weights",
    "config_sha256": "configuration",
    "preprocessing": "preprocessing",
    "preprocessing_version": "preprocessing version",
    "precision_family": "precision family",
    "dim": "vector length",
}


@dataclass(frozen=True, slots=True)
class Stamp:
    """All that a match depends on besides the text, the picture and the version of `bt`; None for what given parts
    do not tell."""

    model: str  # as `Fingerprint.model`
    weights_sha256: str | None
    precision: str | None  # fp32, bf16 or int8
    preprocessing: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that recall proposes, or that the caller names, to be verified."""

    path: Path
    similarity: float | None = None  # ITC cosine in [-1, 1]; None without recall
    content: bytes | None = None  # SHA-256 of the file, if it is unchanged since it was indexed
    picture: object = None  # the picture in memory, if any; `path` is then only a name
    in_cloud: bool = False  # opening the file would download it


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `match` and `similarity` are separate scores and never mixed; higher is better.

    The index knows `taken_at`, `width`, `height`, `hash` and `paths`; a hit that no search of an index has found lacks
    them.
    """

    path: Path
    # ITM probability in [0, 1], of several texts the least; None if no text was verified
    match: float | None
    similarity: float | None  # ITC cosine in [-1, 1]; None without recall
    verified: bool
    taken_at: datetime | None = None  # on the clock where it was taken, without a zone; None if unknown
    width: int | None = None  # upright pixels
    height: int | None = None
    hash: str | None = None  # SHA-256 of the content when it was indexed, 64 hexadecimal digits
    # All files of the index with this content, and those it makes a pair with (raw and JPEG): `path` is the first.
    paths: tuple[Path, ...] = ()
    matches: tuple[float, ...] = ()  # the probability of each text, where several were verified
    against: tuple[float, ...] = ()  # the probability of each text that must not be true, where they were verified
    ruled_out: bool = False  # whether one of these texts is probably true
    like: tuple[Path, ...] = ()  # hits that show the same view and were folded into this one, best first


OnHits = Callable[[tuple[Hit, ...]], object]  # called with the hits as they stand, best first


@dataclass(frozen=True, slots=True)
class Word:
    """One candidate word for one `<mask>`."""

    mask: int  # which `<mask>` of the text, from 0
    rank: int  # from 1
    token: str  # without surrounding space
    probability: float  # in [0, 1]
    images: tuple[Path, ...]  # the pictures that support it most, best first
    count: int = 0  # pictures, of all that were read, whose own most probable word for this mask it is
    hashes: tuple[str, ...] = ()  # of `images` where the index has them: as `Hit.hash`


@dataclass(frozen=True, slots=True)
class WordCount:
    """How many pictures say a word for one `<mask>`. They are counted where the text with their own word fits them."""

    mask: int  # which `<mask>` of the text, from 0
    rank: int  # from 1
    token: str  # without surrounding space
    count: int  # pictures whose own most probable word for this mask it is
    share: float  # of the pictures that fit, in (0, 1]
    images: tuple[Path, ...]  # some of these pictures, those that the text fits best first


@dataclass(frozen=True, slots=True)
class PairScore:
    """The scores of one text and one image, by every head of the checkpoint."""

    image: Path
    text: str
    match: float | None  # ITM probability in [0, 1]
    itm_logits: tuple[float, float] | None  # [no match, match]
    similarity: float | None  # ITC cosine in [-1, 1]
