"""Rules by which a walk leaves out entries: default excludes, and exclude patterns.

Default excludes are folders that a NAS, a computer or a program keeps beside photos; none can be a person's own folder
of photos. Exclude patterns are those of the caller, and of each `.btignore` from a folder up to the root.
"""

import codecs
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from bridgetower.errors import UsageError
from bridgetower.files.os_errors import reason_to_skip
from bridgetower.files.patterns import LONGEST, Pattern, composed, parse
from bridgetower.files.regular_files import open_regular
from bridgetower.records import Skipped, path_of

IGNORE_FILE = ".btignore"
IGNORE_NAME = IGNORE_FILE.encode()  # as a folder listing returns it
_LARGEST_IGNORE_FILE = 10**6  # bytes
_MOST_COUNTED = 10_000  # entries of folders that are left out, of each kind


@dataclass(frozen=True, slots=True)
class Rules:
    """Which entries of its folders a walk takes."""

    exclude: tuple[str, ...] = ()  # patterns as in .gitignore
    hidden: bool = False  # also names that begin with a dot
    follow_symlinks: bool = False
    default_excludes: bool = True  # leave out the folders of each `DefaultExclude`


USUAL_RULES = Rules()


class DefaultExclude(StrEnum):
    """A kind of folder that is left out by default, as messages name it."""

    EADIR = "@eaDir"  # thumbnails and metadata of Synology
    BIN = "recycle bins"
    SNAPSHOT = "snapshots"  # of a NAS: copies of everything
    THUMBNAILS = "thumbnail folders"
    LIBRARY = "inner folders of photo libraries"  # of Apple Photos, iPhoto, Aperture
    PREVIEWS = "Lightroom previews"
    NO_MEDIA = "folders with .nomedia or .noimage"


@dataclass(slots=True)
class ExcludedFolders:
    """The folders of one kind that a walk left out by default."""

    folders: list[bytes] = field(default_factory=list)
    entries: int = 0  # in and below them, as far as they were counted: up to _MOST_COUNTED
    pictures: int = 0  # among these entries

    @property
    def all_counted(self) -> bool:
        return self.still_counted > 0

    @property
    def still_counted(self) -> int:
        """How many more entries are counted."""
        return _MOST_COUNTED - self.entries


@dataclass(slots=True)
class PassedOver:
    """Counts of the entries that a walk left out."""

    extensions: Counter[str] = field(default_factory=Counter)  # files of other kinds, by extension in lower case
    excluded: int = 0  # pictures and folders that a pattern left out; nothing below these is counted
    links: int = 0  # to folders, or with the extension of a picture
    by_default: dict[DefaultExclude, ExcludedFolders] = field(default_factory=dict)


# By name in lower case, but for a name in capitals: "recycler" may be a person's own.
_BY_NAME = {
    b"@eadir": DefaultExclude.EADIR,
    b"#recycle": DefaultExclude.BIN,  # Synology
    b"@recycle": DefaultExclude.BIN,  # QNAP
    b"$recycle.bin": DefaultExclude.BIN,  # Windows
    b"RECYCLER": DefaultExclude.BIN,  # Windows XP
    b".recycle": DefaultExclude.BIN,  # Samba
    b".recycle.bin": DefaultExclude.BIN,  # Unraid
    b".dtrash": DefaultExclude.BIN,  # digiKam
    b"files_trashbin": DefaultExclude.BIN,  # Nextcloud
    b"#snapshot": DefaultExclude.SNAPSHOT,  # Synology
    b"@recently-snapshot": DefaultExclude.SNAPSHOT,  # QNAP
    b".snapshot": DefaultExclude.SNAPSHOT,  # NetApp
    b".snapshots": DefaultExclude.SNAPSHOT,  # snapper
    b".zfs": DefaultExclude.SNAPSHOT,
    b".@__thumb": DefaultExclude.THUMBNAILS,  # QNAP
    b"@__thumb": DefaultExclude.THUMBNAILS,
    b".thumbnails": DefaultExclude.THUMBNAILS,  # Android, GNOME
}
_LIBRARIES = (b".photoslibrary", b".photolibrary", b".migratedphotolibrary", b".aplibrary", b".migratedaplibrary")
_OWN_IN_LIBRARY = (b"originals", b"masters")
_NO_MEDIA_MARKS = (b".nomedia", b".noimage")
_PHOTOPRISM_MARK, _IMMICH_MARK = b".ppstorage", b".immich"
MARKS = frozenset(mark.decode() for mark in (*_NO_MEDIA_MARKS, _PHOTOPRISM_MARK, _IMMICH_MARK))


def excluded_by_name(parent: bytes, name: bytes) -> DefaultExclude | None:
    """Return the kind of the folder `name` in `parent` if it is left out by default for its name."""
    lower = name.lower()
    if (kind := _BY_NAME.get(name) or _BY_NAME.get(lower)) is not None:
        return kind
    if lower.startswith(b".trash"):  # also .Trash-1000, .Trashes
        return DefaultExclude.BIN
    if lower.startswith(b"appdata_oc"):  # Nextcloud
        return DefaultExclude.THUMBNAILS
    if lower.endswith(b".lrdata"):
        return DefaultExclude.PREVIEWS
    return DefaultExclude.LIBRARY if parent.lower().endswith(_LIBRARIES) and lower not in _OWN_IN_LIBRARY else None


def excluded_by_mark(folder: bytes, has: Callable[[bytes], bool]) -> DefaultExclude | None:
    """Return the kind of a folder if it is left out by default for a file in it; `has` tells which it has."""
    if any(has(mark) for mark in _NO_MEDIA_MARKS):
        return DefaultExclude.NO_MEDIA
    if has(_PHOTOPRISM_MARK) or (has(_IMMICH_MARK) and os.path.basename(folder) == b"thumbs"):
        return DefaultExclude.THUMBNAILS
    return None


class _Level(NamedTuple):
    """The patterns for entries below one folder, the last line first."""

    start: int  # in a path below that folder, of the part that is compared
    patterns: tuple[Pattern, ...]


_NO_PATTERNS = _Level(0, ())
Levels = tuple[_Level, ...]  # `Rules.exclude`, then each .btignore from the deepest up; or empty


def is_excluded(path: bytes, levels: Levels, *, is_folder: bool) -> bool:
    """Whether the first of `levels` that has a pattern for this entry excludes it."""
    whole = os.fsdecode(path).replace(os.sep, "/")
    name = composed(whole.rpartition("/")[2])
    for start, patterns in levels:
        below = composed(whole[start:])
        for pattern in patterns:
            if pattern.fits(below, name, is_folder=is_folder):
                return pattern.excludes
    return False


def _parse_level(folder: bytes, lines: Iterable[str]) -> tuple[_Level, list[str]]:
    """Return the patterns of these lines, and the lines that are no pattern."""
    patterns, wrong = [], []
    for line in lines:
        try:
            patterns.append(parse(line))
        except ValueError:
            wrong.append(line)
    return _Level(len(os.fsdecode(os.path.join(folder, b""))), tuple(filter(None, reversed(patterns)))), wrong


def excluding_below(root: bytes, rules: Rules) -> Levels:
    """Return the patterns of `rules.exclude`, anchored at a root. Raises UsageError for an invalid pattern."""
    if not rules.exclude:
        return ()
    level, wrong = _parse_level(root, rules.exclude)
    wrong += [pattern for pattern in rules.exclude if not pattern.strip()]
    if wrong:
        raise UsageError(f"{reprlib.repr(wrong[0])} is no pattern to exclude by; it is written as in a .gitignore file")
    return (level,)


def with_own(folder: bytes, levels: Levels, troubles: list[Skipped]) -> Levels:
    """Return `levels` with the patterns of this folder's .btignore; add its faults to `troubles`."""
    path = os.path.join(folder, IGNORE_NAME)
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST_IGNORE_FILE + 1)
        if len(data) > _LARGEST_IGNORE_FILE:
            raise OSError(0, "larger than 1 MB")
    except FileNotFoundError:
        if os.path.islink(path):
            troubles.append(Skipped(path_of(path), "a link to nothing, so what it excludes is not excluded"))
        return levels
    except OSError as error:
        reason = f"cannot be read, so what it excludes is not excluded: {reason_to_skip(error)}"
        troubles.append(Skipped(path_of(path), reason))
        return levels
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    level, wrong = _parse_level(folder, (line.removesuffix("\r") for line in text.split("\n")))
    if wrong:
        which = (
            f"{reprlib.repr(wrong[0])} is"
            if len(wrong) == 1
            else f"{len(wrong)} lines, as {reprlib.repr(wrong[0])}, are"
        )
        reason = f"{which} no pattern of .gitignore of at most {LONGEST} characters; the other lines hold"
        troubles.append(Skipped(path_of(path), reason))
    excluding, *above = levels or (_NO_PATTERNS,)
    return (excluding, level, *above)
