"""The result of a look for duplicates: light types, which need neither NumPy nor Pillow."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from bridgetower.records import Skipped


class Likeness(StrEnum):
    """How the members of a group are alike."""

    EQUAL = "equal"  # files with the same bytes
    SIMILAR = "similar"  # pictures with different bytes that show the same view


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A member of a group: of equal ones a file, of similar ones a picture with all its files."""

    path: Path
    similarity: float  # ITC cosine with the kept one, in [-1, 1]; 1 for the kept one and for equal files
    size: int  # bytes of the file at `path`
    width: int  # upright pixels
    height: int
    taken_at: datetime | None  # on the clock where it was taken, without a zone; None if unknown
    hash: str  # SHA-256 of the content, 64 hexadecimal digits
    paths: tuple[Path, ...]  # `path`, then the other files of the picture and of its shot (raw and JPEG)


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Duplicates of one picture."""

    kind: Likeness
    keep: Duplicate  # the best one, by the rule in docs/commands.md
    others: tuple[Duplicate, ...]  # at least one, in the order of that rule


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The groups of duplicates of an index: those of equal files, then those of similar pictures, by the kept path."""

    groups: tuple[DuplicateGroup, ...]
    pictures: int  # that were compared
    skipped: tuple[Skipped, ...]  # pictures that could not be read, to be looked at
    gone: int  # pictures that were left out, as none of their files exists
    changed: int  # files that were left out, as they have changed since they were indexed
    barred: tuple[Skipped, ...]  # files that were left out, as they cannot be accessed, and why
    in_cloud: int  # files that were left out, as looking at them would download them

    def __iter__(self) -> Iterator[DuplicateGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def superfluous(self) -> list[Path]:
        """Return the paths that are not kept, each once: of all files of all others."""
        return list(dict.fromkeys(path for group in self.groups for other in group.others for path in other.paths))
