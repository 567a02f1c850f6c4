"""Look at each picture once before the first step: read it, hash it, decode it in a guarded process.

The results stand in `pictures.jsonl`, so that a run that is continued looks only at what has changed.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self

from bridgetower.errors import OutputError, PictureError
from bridgetower.files.content import read, unreadable_picture
from bridgetower.files.os_errors import unreadable, writing
from bridgetower.files.regular_files import open_own, open_own_descriptor
from bridgetower.pictures.decode_pool import DecodePool, error_of
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.prefetch import ahead, workers
from bridgetower.records import OnProgress, Refused, quiet
from bridgetower.training.data.decoding import READ_AHEAD

_WINDOW = 4 * (os.cpu_count() or 1)  # files that are read and decoded ahead


@dataclass(frozen=True, slots=True)
class Seen:
    """A file that was looked at."""

    path: Path
    size: int = 0  # bytes
    mtime_ns: int = 0
    ctime_ns: int = 0  # changes with the content, even where the time above is set back
    hash: bytes = b""  # SHA-256 of its content; b"" where it cannot be decoded
    reason: str | None = None  # why it cannot be decoded; None if it can be


def look_at(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    record: Path | None = None,
    processes: int | None = None,
    on_progress: OnProgress = quiet,
) -> Iterator[Seen]:
    """Yield what there is at each path, in order.

    A file that the file `record` has as decoded, with the same size and times, is not read again. Others are added to
    it. Raises OutputError where it cannot be read or written, ProcessError, ResourceError.
    """
    # The pool is closed before the threads, so that a thread that waits for a process ends at once.
    with Record(record) as known, workers(number=processes) as threads, DecodePool(preprocessing) as pool:

        def look(path: Path) -> Seen:
            found = Seen(path)
            try:
                status = path.stat()  # before the read: the next run sees a change made meanwhile
                found = Seen(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                if earlier := known.decoded(found):
                    return earlier
                content = read(path)
                square = pool.square(content)
                if isinstance(square, Refused):
                    raise error_of(square, path)
                return replace(found, hash=hashlib.sha256(content).digest())
            except (OSError, PictureError) as error:
                why = unreadable_picture(path, error) if isinstance(error, OSError) else error
                if not isinstance(why, PictureError):
                    raise why from error
                return replace(found, reason=why.reason)

        for done, found in enumerate(ahead(threads, look, paths, _WINDOW, weigh=_size, most=READ_AHEAD), start=1):
            known.add(found)
            yield found
            on_progress(done, len(paths))


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


class Record:
    """`pictures.jsonl`: a line for each file that was looked at; of several for one file the last counts.

    A line that is cut off, as where a run was killed, is passed over. A context manager, which closes the file.
    """

    def __init__(self, file: Path | None) -> None:
        """Without a file nothing is known, and nothing is kept. Raises OutputError where it cannot be read."""
        self._file = file
        self._seen: dict[Path, Seen] = {}
        self._is_cut = False
        self._appended: IO[bytes] | None = None
        if file is not None and os.path.lexists(file):
            try:
                with open_own(file) as opened:
                    for line in opened:
                        self._is_cut = not line.endswith(b"\n")
                        if seen := _parsed(line):
                            self._seen[seen.path] = seen
            except OSError as error:
                raise unreadable(file, error, OutputError) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._appended is not None:
            self._appended.close()

    def decoded(self, found: Seen) -> Seen | None:
        """Return what is known of a file of this path, size and times, if it could be decoded."""
        seen = self._seen.get(found.path)
        return seen if seen is not None and replace(seen, hash=b"") == found else None

    def add(self, seen: Seen) -> None:
        """Add a file, unless it stands there so. Raises OutputError."""
        if self._file is None or self._seen.get(seen.path) == seen:
            return
        self._seen[seen.path] = seen
        with writing(self._file, OutputError):
            if self._appended is None:
                opened = open(self._file, "ab", buffering=0, opener=open_own_descriptor)  # noqa: SIM115 - see __exit__
                self._appended = opened
            self._appended.write(b"\n" * self._is_cut + _line(seen))
        self._is_cut = False


def _line(seen: Seen) -> bytes:
    told = {"sha256": seen.hash.hex()} if seen.reason is None else {"reason": seen.reason}
    row = {
        "path": str(seen.path), "size": seen.size, "mtime_ns": seen.mtime_ns, "ctime_ns": seen.ctime_ns, **told
    }  # fmt: skip
    return json.dumps(row).encode() + b"\n"


def _parsed(line: bytes) -> Seen | None:
    try:
        row = json.loads(line)
        content, reason = bytes.fromhex(row.get("sha256", "")), row.get("reason")
        found = Seen(Path(row["path"]), row["size"], row["mtime_ns"], row["ctime_ns"], content, reason)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found if reason or len(content) == hashlib.sha256().digest_size else None
