"""Every error that `bridgetower` raises on purpose.

    BridgeTowerError                 exit code
    ├── UsageError                   2   options or values that cannot go together
    ├── ModelError                   4   the checkpoint: not found, unreadable, wrong, or lacks a head
    ├── StoreError                   5   the index: locked, foreign, damaged
    │   ├── NoIndexError                 there is none; whoever writes makes one
    │   ├── LockedError                  another process is writing it; the next attempt may find it free
    │   ├── DamagedIndexError            its manifest is not as it was written
    │   │   └── DamagedLogError              commits in the log of the manifest cannot be read any more
    │   └── DamagedFileError             a file made from the manifest is not; a search does without it
    ├── InputError                   6   a file that was named as input: a picture, a captions file
    │   ├── UnknownPlaceError            a folder or file that the index knows nothing of
    │   └── PictureError                 one picture that cannot be read; a folder run skips and counts it
    │       └── PixelLimitError          its header says that it is too large
    ├── ResourceError                71  this machine refuses memory, file handles or threads
    │   └── ProcessError                 another process that is needed cannot be started
    └── OutputError                 74   the results cannot be written

A message is one line in three parts: what failed, which file, what to do next. The command line prints it as it
stands; anything that is not a `BridgeTowerError` is a defect of ours and keeps its traceback (exit code 70).
A MemoryError of Python passes as it is: it is no defect either, and the command line ends with exit code 71.
"""

from pathlib import Path


class BridgeTowerError(Exception):
    """Base of every expected failure; the message is meant for the person at the keyboard."""

    exit_code = 70


class UsageError(BridgeTowerError):
    """Values that contradict each other or lie outside their range; nothing was read or written."""

    exit_code = 2


class ModelError(BridgeTowerError):
    """A checkpoint cannot be found, fetched, verified or loaded, or lacks a head that the task needs."""

    exit_code = 4


class StoreError(BridgeTowerError):
    """The index directory is absent, locked by another writer, made by another model, or damaged."""

    exit_code = 5


class NoIndexError(StoreError):
    """There is no index in the directory: it is absent, or holds none."""


class LockedError(StoreError):
    """Another process writes the index; `holder` says which, and since when."""

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(f"{directory}: {holder}: wait until it ends, then run it again")
        self.holder = holder


class DamagedIndexError(StoreError):
    """The manifest of an index is not as it was written; `damage` says in what, without the path."""

    def __init__(self, path: Path, damage: str) -> None:
        damage = " ".join(damage.split())  # SQLite quotes lines
        super().__init__(f"{path}: damaged ({damage}): `bt verify --repair` restores what can be restored")
        self.damage = damage


class DamagedLogError(DamagedIndexError):
    """So many `lost` commits in the write-ahead log of the manifest cannot be read any more; those before them can."""

    def __init__(self, log: Path, lost: int) -> None:
        commits = "a commit" if lost == 1 else f"{lost} commits"
        super().__init__(log, f"{commits} in it can no longer be read")
        self.lost = lost


class DamagedFileError(StoreError):
    """A file that was made from the manifest is not as it was written; `damage` says in what, without the path.

    Whoever searches does without it.
    """

    def __init__(self, path: Path, damage: str) -> None:
        super().__init__(f"{path}: {damage}: `bt verify --repair` makes it again")
        self.path = path
        self.damage = damage


class InputError(BridgeTowerError):
    """A file named as input cannot be used."""

    exit_code = 6


class UnknownPlaceError(InputError):
    """A search is limited to a folder or file in which the index has nothing."""


class PictureError(InputError):
    """One picture cannot be turned into pixels; `reason` says why, without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class PixelLimitError(PictureError):
    """One picture has more pixels than are allowed."""


class ResourceError(BridgeTowerError):
    """This machine refuses what is needed, and nothing is wrong with any file: too little memory, too few handles."""

    exit_code = 71


class ProcessError(ResourceError):
    """A process that is needed cannot be started: for want of memory, of permission, of a whole installation."""


class OutputError(BridgeTowerError):
    """The results cannot be written, as on a full disk."""

    exit_code = 74
