"""Every failure of a tool as one line for the agent. No path of this machine and no traceback is in it.

Words of an exception are used where they are meant for the one who asks. Others may name folders, so they go to the
log on stderr.
"""

from collections.abc import Callable

from bridgetower.errors import (
    BridgeTowerError,
    MissingExtraError,
    MissingHeadError,
    ModelError,
    NoIndexError,
    PictureError,
    ResourceError,
    StoreError,
    UnreachableStoreError,
    UsageError,
)
from bridgetower.records import Say
from bridgetower.serving.cursors import UnknownCursor
from bridgetower.serving.indexed import NoPicture

_LONGEST = 500  # characters
_MORE = "the log on stderr says more"


def line_of(error: Exception, say: Say, defect: Callable[[BaseException], object]) -> str:
    """Return the line for an exception. `say` gets those that the user should read, `defect` those that are defects."""
    return " ".join(_words(error, say, defect).split())[:_LONGEST]


def _words(error: Exception, say: Say, defect: Callable[[BaseException], object]) -> str:
    if isinstance(error, NoPicture | UsageError):
        return str(error)
    if isinstance(error, UnknownCursor):
        return "the cursor leads nowhere any more: search again without it"
    if isinstance(error, PictureError):
        name = "a picture of the index" if error.path.is_absolute() else str(error.path)
        lacks = "the library that reads its format is not installed"
        return f"{name}: {lacks if isinstance(error, MissingExtraError) else error.reason}"
    if isinstance(error, MissingHeadError):
        return "the model of the index lacks a head that this needs; a search with depth 0 needs the fewest"
    if isinstance(error, MemoryError):
        return "there is not enough memory: ask again later, or for less"
    if not isinstance(error, BridgeTowerError):
        defect(error)
        return f"a defect: {_MORE}"
    say(f"error: {error}")
    if isinstance(error, NoIndexError):
        return f"there is no index in the folder of this server; index pictures there first; {_MORE}"
    if isinstance(error, UnreachableStoreError):
        return "the database that recalls does not answer: ask again later"
    if isinstance(error, StoreError):
        return f"the index cannot be read: {_MORE}"
    if isinstance(error, ModelError):
        return f"the model cannot be used: {_MORE}"
    if isinstance(error, ResourceError):
        return f"this machine lacks memory, file handles or threads: ask again later; {_MORE}"
    return f"an input or output failed: {_MORE}"
