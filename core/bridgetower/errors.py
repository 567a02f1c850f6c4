"""Every error that `bridgetower` raises on purpose.

    BridgeTowerError                 exit code
    ├── UsageError                   2   options or values that cannot go together
    ├── ModelError                   4   the checkpoint: not found, unreadable, wrong
    │   ├── MissingHeadError             it lacks a head that the task needs
    │   └── DivergedError                its training led to numbers that are not finite
    ├── StoreError                   5   the index: locked, foreign, damaged
    │   ├── NoIndexError                 there is no index; a writer creates one
    │   ├── LockedError                  another process is writing the index; a later attempt may succeed
    │   ├── UnreachableStoreError        the database behind recall does not answer
    │   ├── RefusedPasswordError         it wants another password
    │   ├── DamagedIndexError            the manifest is damaged
    │   │   └── DamagedLogError              commits in the log of the manifest can no longer be read
    │   └── DamagedFileError             a file made from the manifest is damaged; a search works without it
    ├── InputError                   6   a file that was named as input: a picture, a captions file
    │   ├── UnknownPlaceError            a folder or file that has nothing in the index
    │   └── PictureError                 one picture cannot be read; indexing a folder skips and counts it
    │       ├── PixelLimitError          the picture has too many pixels
    │       └── MissingExtraError        the library that reads its format is not installed
    ├── ResourceError                71  this machine lacks memory, file handles or threads
    │   └── ProcessError                 a worker process cannot be started, or another process of the run ended
    └── OutputError                 74   the results cannot be written

A message is one line in three parts: what failed, which file, what to do next. The command line prints it unchanged.
Any other exception is a defect of ours and shows its traceback (exit code 70), except Python's MemoryError, for which
the command line ends with exit code 71.
"""

from pathlib import Path
from typing import Any


class BridgeTowerError(Exception):
    """Base of every expected failure; the message is for the user."""

    exit_code = 70

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickle and copy."""
        return _as_it_was, (type(self), self.args), self.__dict__


def _as_it_was(kind: type[BridgeTowerError], args: tuple[object, ...]) -> BridgeTowerError:
    """Recreate an error from its message, without calling `__init__`, which may take other arguments."""
    return kind.__new__(kind, *args)


class UsageError(BridgeTowerError):
    """Values that contradict each other or lie outside their range; nothing was read or written."""

    exit_code = 2


class ModelError(BridgeTowerError):
    """A checkpoint cannot be found, fetched, verified or loaded, or lacks a head that the task needs."""

    exit_code = 4


class MissingHeadError(ModelError):
    """The checkpoint lacks a head that the task needs."""


class DivergedError(ModelError):
    """The training of a model led to numbers that are not finite."""


class StoreError(BridgeTowerError):
    """The index directory is absent, locked by another writer, made by another model, or damaged."""

    exit_code = 5


class NoIndexError(StoreError):
    """There is no index in the directory, or no directory; `directory` is where one can be made, None if it cannot."""

    def __init__(self, message: str, directory: Path | None = None) -> None:
        super().__init__(message)
        self.directory = directory


class LockedError(StoreError):
    """Another process writes the index; `holder` says which, and since when."""

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(f"{directory}: {holder}: wait until it ends, then run it again")
        self.holder = holder


class UnreachableStoreError(StoreError):
    """The database that recalls for an index does not answer; `address` is its URL, without a password."""

    def __init__(self, address: str, why: str, note: str = "") -> None:
        """`note` tells what became of the work that needed the database."""
        why = " ".join(why.split())  # messages of drivers may have several lines
        what = f"{note}: start it" if note else "start it"
        super().__init__(f"{address}: no answer ({why}): {what}, or go back to files with `bt index --store faiss`")
        self.address, self.why = address, why


class RefusedPasswordError(StoreError):
    """The database that recalls for an index wants another password, or one at all."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{address}: {' '.join(why.split())}: give the password with --store-password-file FILE")


class DamagedIndexError(StoreError):
    """The manifest of an index is damaged; `damage` describes how, without the path."""

    def __init__(self, path: Path, damage: str) -> None:
        damage = " ".join(damage.split())  # messages of SQLite may have several lines
        super().__init__(f"{path}: damaged ({damage}): `bt verify --repair` restores what can be restored")
        self.damage = damage


class DamagedLogError(DamagedIndexError):
    """The last `lost` commits in the write-ahead log of the manifest can no longer be read; earlier ones can."""

    def __init__(self, log: Path, lost: int) -> None:
        commits = "a commit" if lost == 1 else f"{lost} commits"
        super().__init__(log, f"{commits} in it can no longer be read")
        self.lost = lost


class DamagedFileError(StoreError):
    """A file that was made from the manifest is damaged; `damage` describes how, without the path.

    A search works without it.
    """

    def __init__(self, path: Path, damage: str) -> None:
        super().__init__(f"{path}: {damage}: `bt verify --repair` makes it again")
        self.path = path
        self.damage = damage


class InputError(BridgeTowerError):
    """A file named as input cannot be used."""

    exit_code = 6


class UnknownPlaceError(InputError):
    """The index knows nothing at a folder or file that a search is limited to, or that is to be forgotten."""


class PictureError(InputError):
    """One picture cannot be turned into pixels; `reason` says why, without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class PixelLimitError(PictureError):
    """One picture has more pixels than are allowed."""


class MissingExtraError(PictureError):
    """One picture is of a format whose library is not installed; `reason` names the extra and the command."""


class ResourceError(BridgeTowerError):
    """This machine has too little memory, or too few file handles or threads; no file is at fault."""

    exit_code = 71


class ProcessError(ResourceError):
    """A worker process cannot be started: for lack of memory or permission, or in an incomplete installation.

    Also of several processes that train together, one has ended.
    """


class OutputError(BridgeTowerError):
    """The results cannot be written, as on a full disk."""

    exit_code = 74
