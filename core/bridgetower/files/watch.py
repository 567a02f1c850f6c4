"""Changes below folders -> bursts of paths, as they happen.

A thread of its own listens, so that signals reach whoever waits for a burst. A burst ends when nothing has happened for
a second, or after ten. What a walk would pass over is passed over here: a change to it is none.

watchfiles gives up where it meets a name that is no UTF-8, also if that is only looked at. From then on walks are
compared, one every other second, or fewer where they would take more than a tenth of the time.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from watchfiles import watch

from bridgetower.errors import InputError
from bridgetower.files.ignore import IGNORE_FILE, Rules
from bridgetower.files.walk import EXTENSIONS, passes_over, scan
from bridgetower.resources import shortage, shortages

QUIET_S = 1.0
BURST_S = 10.0
LOOK_S = 2.0  # until it is noticed that a root has gone or is back; and between two walks
_NO_TEXT = "Unable to decode path"  # how watchfiles begins what it says of a name that is no UTF-8


@contextmanager
def watching(
    roots: Iterable[Path], rules: Rules, *, apart: Path, holds: Callable[[Path], bool]
) -> Iterator[Iterator[set[Path]]]:
    """Watch files and folders from now on: a context, whose value yields the paths that changed, without end.

    A root that goes, or comes back, is such a change itself. Nothing below the folder `apart` counts; of what is gone
    and was not called like a picture, it counts what `holds` says that something was known in it: it was a folder.
    `holds` is called in another thread. Where walks are compared, all roots are named. Asking for the next burst raises
    InputError where the system cannot watch, ResourceError, and whatever else went wrong in that thread.
    """
    watched = _Watched([Path(os.path.abspath(root)) for root in roots], rules, apart, holds)
    with shortages():
        threading.Thread(target=watched.run, name="watch", daemon=True).start()
    try:
        yield watched.bursts()
    finally:
        watched.stop.set()


class _Watched:
    """What the thread that listens and the one that waits have in common."""

    def __init__(self, roots: list[Path], rules: Rules, apart: Path, holds: Callable[[Path], bool]) -> None:
        self._roots, self._rules, self._holds = roots, rules, holds
        self._index, self._apart = apart, {apart, Path(os.path.realpath(apart))}
        self._found: SimpleQueue[set[Path] | Exception] = SimpleQueue()
        self.stop = threading.Event()

    def bursts(self) -> Iterator[set[Path]]:
        while True:
            burst: set[Path] = set()
            while not burst or not self._found.empty():
                found = self._found.get()
                if isinstance(found, Exception):
                    raise found
                burst |= found
            yield burst

    def run(self) -> None:
        """Report what happens until `stop` is set. An error is passed on: the thread that waits would wait for ever."""
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001  a defect is told as one by who waits
            self._found.put(error)

    def _follow(self) -> None:
        there = _present(self._roots)
        while not self.stop.is_set():
            try:
                self._listen(there)
            except FileNotFoundError:  # a root that has gone just now
                pass
            except (OSError, RuntimeError, ValueError) as error:
                if isinstance(error, UnicodeEncodeError) or str(error).startswith(_NO_TEXT):
                    self._compare()
                    return
                if (lack := shortage(error)) is not None:
                    raise lack from error
                named = ", ".join(str(root) for root in self._roots)
                raise InputError(f"{named}: cannot be watched: {error}; run bt index without --watch") from error
            before, there = there, _present(self._roots)
            if moved := {root for root in self._roots if before.get(root) != there.get(root)}:
                self._found.put(moved)

    def _listen(self, there: dict[Path, tuple[int, int]]) -> None:
        """Report what happens until a root goes or another one comes."""
        if not there:
            self.stop.wait(LOOK_S)
            return
        events = watch(
            *there,
            watch_filter=None,
            debounce=round(1000 * BURST_S),
            step=round(1000 * QUIET_S),
            rust_timeout=round(1000 * LOOK_S),
            yield_on_timeout=True,
            stop_event=self.stop,
            raise_interrupt=False,
        )
        for changes in events:
            if found := {path for path in (Path(name) for _, name in changes) if self._counts(path)}:
                self._found.put(found)
            if _present(self._roots) != there:
                return

    def _compare(self) -> None:
        """Report all roots, and again whenever a walk meets something else than the one before."""
        before = None
        while not self.stop.is_set():
            began = time.monotonic()
            if (now := self._sum()) != before:
                self._found.put(set(self._roots))
            before = now
            self.stop.wait(max(LOOK_S, 9 * (time.monotonic() - began)))

    def _sum(self) -> int:
        """A number that stands for all that a walk meets."""
        there = _present(self._roots)
        total = hash(tuple(there.items()))
        with suppress(InputError):  # a root that has gone just now
            for met in scan(there, self._rules, apart=self._index):
                total = hash((total, met))
        return total

    def _counts(self, path: Path) -> bool:
        if any(path.is_relative_to(folder) for folder in self._apart):
            return False
        # Some systems name what has changed by its real path.
        around = ((root, path) for root in self._roots if path.is_relative_to(root))
        real = ((root, root / path.relative_to(at)) for root in self._roots if path.is_relative_to(at := _real(root)))
        return any(self._met(root, below) for root, below in {*around, *real})

    def _met(self, root: Path, path: Path) -> bool:
        """Whether the walk of `root` meets what has changed at `path`, or met what was there."""
        if path == root:
            return True
        if path.name == IGNORE_FILE:
            return path.parent == root or not passes_over(root, path.parent, self._rules, is_file=False)
        if path.suffix.lower() not in EXTENSIONS and not os.path.lexists(path):
            return self._holds(path)
        return not passes_over(root, path, self._rules, is_file=not path.is_dir())


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _present(roots: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Those that are there, and which file or folder each of them is: device, inode."""
    present = {}
    for root in roots:
        try:
            status = root.stat()
        except OSError:
            continue
        present[root] = (status.st_dev, status.st_ino)
    return present
