"""Watch folders, and report changes as bursts of paths.

A separate thread listens, so that the thread that waits for a burst receives signals. A burst ends when nothing has
happened for a second, or after ten. Changes to entries that a walk passes over are not reported, but for sidecars of
pictures in folders that it walks.

watchfiles fails at a name that is not UTF-8, even if that file is only read, and at a folder that may not be read; told
to pass over such folders, it stops watching at the first one without a word. From then on walks are compared, one every
two seconds, or fewer where they would take more than a tenth of the time.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from watchfiles import watch

from bridgetower.errors import InputError
from bridgetower.files.ignore import IGNORE_FILE, MARKS, Rules
from bridgetower.files.regular_files import named_by_stub
from bridgetower.files.walk import EXTENSIONS, SIDECAR_EXTENSIONS, SidecarsOf, passes_over, scan
from bridgetower.resources import shortage, shortages

QUIET_S = 1.0
BURST_S = 10.0
LOOK_S = 2.0  # between two checks that the roots exist; and between two walks
_NOT_UTF8 = "Unable to decode path"  # how watchfiles begins its error for a name that is not UTF-8
_BARRED = "os error 13"  # permission denied, in its messages


@contextmanager
def watching(
    roots: Iterable[Path],
    rules: Rules,
    *,
    apart: Path,
    holds: Callable[[Path], bool],
    sidecars_of: SidecarsOf,
) -> Iterator[Iterator[set[Path]]]:
    """Watch files and folders from now on: a context whose value yields sets of changed paths, without end.

    A root that disappears or returns is a change, too. Changes below the folder `apart` are not reported. A path that
    is gone and has no picture extension is reported if `holds(path)`: it was a folder with indexed files. `sidecars_of`
    returns those of some names that are sidecars of a picture. Both are called in another thread. Where walks are
    compared, a burst is all roots. Asking for a burst raises InputError where the system cannot watch, ResourceError,
    and any other error of that thread.
    """
    watcher = _Watcher([Path(os.path.abspath(root)) for root in roots], rules, apart, holds, sidecars_of)
    with shortages():
        threading.Thread(target=watcher.run, name="watch", daemon=True).start()
    try:
        yield watcher.bursts()
    finally:
        watcher.stop.set()


class _Watcher:
    """State that the listening thread and the waiting thread share."""

    def __init__(
        self,
        roots: list[Path],
        rules: Rules,
        apart: Path,
        holds: Callable[[Path], bool],
        sidecars_of: SidecarsOf,
    ) -> None:
        self._roots, self._rules, self._holds, self._sidecars_of = roots, rules, holds, sidecars_of
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
        """Report changes until `stop` is set. Errors are passed on, or the other thread would wait for ever."""
        try:
            self._report_changes()
        except Exception as error:  # noqa: BLE001  `bursts` raises it again
            self._found.put(error)

    def _report_changes(self) -> None:
        there = _present(self._roots)
        while not self.stop.is_set():
            try:
                self._listen(there)
            except FileNotFoundError:  # a root disappeared just now
                pass
            except (OSError, RuntimeError, ValueError) as error:
                barred = isinstance(error, PermissionError) or _BARRED in str(error)
                if barred or isinstance(error, UnicodeEncodeError) or str(error).startswith(_NOT_UTF8):
                    self._compare_walks()
                    return
                if (lack := shortage(error)) is not None:
                    raise lack from error
                named = ", ".join(str(root) for root in self._roots)
                raise InputError(f"{named}: cannot be watched: {error}; run bt index without --watch") from error
            before, there = there, _present(self._roots)
            if moved := {root for root in self._roots if before.get(root) != there.get(root)}:
                self._found.put(moved)

    def _listen(self, there: dict[Path, tuple[int, int]]) -> None:
        """Report changes until a root disappears or returns."""
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
            paths = {Path(name) for _, name in changes}
            sidecars = self._sidecars_among(paths)
            if found := {path for path in paths if self._is_reported(path, is_sidecar=path in sidecars)}:
                self._found.put(found)
            if _present(self._roots) != there:
                return

    def _compare_walks(self) -> None:
        """Report all roots now, and again whenever a walk differs from the one before."""
        before = None
        while not self.stop.is_set():
            began = time.monotonic()
            if (now := self._hash_walk()) != before:
                self._found.put(set(self._roots))
            before = now
            self.stop.wait(max(LOOK_S, 9 * (time.monotonic() - began)))

    def _hash_walk(self) -> int:
        """Hash everything that a walk meets."""
        there = _present(self._roots)
        total = hash(tuple(there.items()))
        with suppress(InputError):  # a root disappeared just now
            for met in scan(there, self._rules, apart=self._index, sidecars_of=self._sidecars_of):
                total = hash((total, met))
        return total

    def _sidecars_among(self, paths: Iterable[Path]) -> set[Path]:
        """Return those of `paths` that are, or were, sidecars of a picture in their folder."""
        names: defaultdict[Path, set[str]] = defaultdict(set)
        for path in paths:
            if path.suffix in SIDECAR_EXTENSIONS:
                names[path.parent].add(path.name)
        found: set[Path] = set()
        for folder, changed in names.items():
            with suppress(OSError):
                pictures = (name for name in os.listdir(folder) if Path(name).suffix.lower() in EXTENSIONS)
                found.update(folder / name for picture in pictures for name in self._sidecars_of(picture, changed))
        return found

    def _is_reported(self, path: Path, *, is_sidecar: bool) -> bool:
        if any(path.is_relative_to(folder) for folder in self._apart):
            return False
        # Some systems report a change by its real path.
        around = ((root, path) for root in self._roots if path.is_relative_to(root))
        real = ((root, root / path.relative_to(at)) for root in self._roots if path.is_relative_to(at := _real(root)))
        return any(self._is_met(root, below, is_sidecar=is_sidecar) for root, below in {*around, *real})

    def _is_met(self, root: Path, path: Path, *, is_sidecar: bool) -> bool:
        """Whether the walk of `root` meets `path`, or met it while it existed; of a sidecar, its folder counts."""
        if path == root:
            return True
        if (real := named_by_stub(os.fsencode(path.name))) is not None:
            path = path.with_name(os.fsdecode(real))
        if is_sidecar or path.name == IGNORE_FILE:
            return self._is_walked(root, path.parent)
        if path.name in MARKS and self._rules.default_excludes:  # whether the folder is walked depends on this file
            return path.parent != root and self._is_walked(root, path.parent.parent)
        if path.suffix.lower() not in EXTENSIONS and not os.path.lexists(path):
            return self._holds(path)
        return not passes_over(root, path, self._rules, is_file=not path.is_dir())

    def _is_walked(self, root: Path, folder: Path) -> bool:
        return folder == root or not passes_over(root, folder, self._rules, is_file=False)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _present(roots: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return the roots that exist, each with its (device, inode)."""
    present = {}
    for root in roots:
        try:
            status = root.stat()
        except OSError:
            continue
        present[root] = (status.st_dev, status.st_ino)
    return present
