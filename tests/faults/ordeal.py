"""An index whose writers are killed at any instant, round after round, and what must hold after each."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from bridgetower.errors import NoIndexError
from bridgetower.index.check import check_index
from bridgetower.index.maintenance import would_prune
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.records import File
from tests.fakes import FakeEncoder, paint
from tests.faults.victims import Victims

FORMAT_2 = Path(__file__).parents[1] / "data" / "index-format-2"
FOLDERS, IN_EACH = 8, 30

Contents = dict[File, bytes]


def contents(directory: Path) -> Contents:
    """Every file that a search can find, with the hash of what it holds; nothing where there is no index yet."""
    with suppress(NoIndexError), IndexReader.open(directory) as store:
        nearest = store.nearest(FakeEncoder().embed_texts(["red"]))
        return {photo: candidate.content for candidate in nearest for photo in candidate.files}
    return {}


def whole(directory: Path) -> dict[File, tuple[bytes, bytes, float]]:
    """For every file: what it holds, its vector to the bit, and its similarity to a text."""
    with IndexReader.open(directory) as store:
        vectors = {entry.hash: entry.vector for entry in store.catalog.entries()}
        nearest = store.nearest(FakeEncoder().embed_texts(["red"]))
        return {
            photo: (candidate.content, vectors[candidate.content], candidate.similarity)
            for candidate in nearest
            for photo in candidate.files
        }


class Ordeal:
    """Pictures in folders, their index, and a number of ways to disturb it."""

    def __init__(self, work: Path, victims: Victims, seed: int) -> None:
        self.files, self.directory, self._work = work / "photos", work / "index", work
        self._victims, self._random = victims, random.Random(seed)
        self._painted = 0
        self._committed: set[tuple[File, bytes]] = set()  # all that was at some time: an old copy may bring it back
        self._forgotten: set[Path] = set()  # folders, until they are indexed again
        for folder in range(FOLDERS):
            for number in range(IN_EACH):
                self._paint(self.files / f"{folder}" / f"{number:03}.png")
        self.lasts = victims.run("index", self.files, "--index", work / "scratch")
        shutil.rmtree(work / "scratch")
        self.ways: tuple[Callable[[], bool], ...] = (self.index, self.prune, self.forget, self.repair, self.upgrade)

    def _paint(self, path: Path) -> None:
        self._painted += 1
        n = self._painted
        paint(path, (n % 200 + 20, n // 200 + 20, 90), (16, 16))

    def _kill(self, *arguments: str | Path, longest: float = 1.0, directory: Path | None = None) -> bool:
        after = self._random.uniform(0, longest * self.lasts)
        return self._victims.kill(*arguments, "--index", directory or self.directory, after=after) < 0

    def _files(self) -> list[Path]:
        return sorted(self.files.rglob("*.png"))

    def choose(self) -> Callable[[], bool]:
        """One of the ways; it returns whether the process was killed before it ended."""
        (way,) = self._random.choices(self.ways, weights=(6, 1, 1, 1, 1))
        return way

    def check(self, at_least: Contents) -> None:
        """The index is in order, and has all of `at_least` that is on the disk."""
        with suppress(NoIndexError):
            assert list(check_index(self.directory)) == []
        left = contents(self.directory)
        lost = {photo for photo in at_least.items() - left.items() if photo[0].path.exists()}
        assert not lost, f"{len(lost)} committed files are lost, as {min(photo.path for photo, _ in lost)}"
        self._committed |= left.items()
        assert not self._forgotten & {photo.path.parent for photo in left}, "what was forgotten is there again"

    def index(self) -> bool:
        """Kill `bt index` after some pictures were changed, added or removed; or from the beginning."""
        committed = contents(self.directory)
        self._forgotten = set()
        for path in self._random.sample(self._files(), 40):
            self._paint(path)
        for path in self._random.sample(self._files(), 3):
            path.rename(path.with_name(f"{path.stem}-{self._painted}.png"))
        unchanged = {
            photo: content
            for photo, content in committed.items()
            if photo.path.exists() and photo.path.stat().st_mtime_ns == photo.mtime_ns
        }
        killed = self._kill("index", self.files)
        self.check(unchanged)
        return killed

    def prune(self) -> bool:
        """Kill `bt prune` after pictures were removed."""
        for path in self._random.sample(self._files(), 30):
            path.unlink()
            self._paint(path.with_name(f"{self._painted}.png"))
        committed = contents(self.directory)
        killed = self._kill("prune", longest=0.3)
        self.check({photo: content for photo, content in committed.items() if photo.path.exists()})
        return killed

    def forget(self) -> bool:
        """Kill `bt forget` of two folders: both are gone after it, or neither is."""
        committed = contents(self.directory)
        folders = [self.files / str(folder) for folder in self._random.sample(range(FOLDERS), 2)]
        killed = self._kill("forget", *folders, longest=0.2)
        left = contents(self.directory)
        kept = {photo: content for photo, content in committed.items() if photo.path.parent not in folders}
        assert left in (committed, kept)
        if left == kept:
            self._forgotten |= {*folders}
        self.check(kept)
        return killed

    def repair(self) -> bool:
        """Kill `bt verify --repair` of an index in which rows, and perhaps a page, were altered."""
        if not contents(self.directory):
            return False
        catalog = self.directory / "manifest.sqlite"
        committed = contents(self.directory)
        with closing(sqlite3.connect(catalog, isolation_level=None)) as db:
            rows = db.execute("SELECT path FROM files ORDER BY random() LIMIT 5").fetchall()
            db.executemany("UPDATE files SET size = size + 1 WHERE path = ?", rows)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # A run that was killed while it forgot or pruned has left no copy.
        if catalog.with_name("manifest.backup.sqlite").exists() and self._random.random() < 0.5:
            with open(catalog, "rb+") as file:
                file.seek(8192 * self._random.randrange(catalog.stat().st_size // 8192))
                file.write(b"\xff")
        killed = self._kill("verify", "--repair", longest=0.5)
        self._victims.run("verify", "--repair", "--index", self.directory)
        assert list(check_index(self.directory)) == []
        self._committed |= committed.items()
        assert contents(self.directory).items() <= self._committed
        self.check({})
        return killed

    def upgrade(self) -> bool:
        """Kill the first command that writes an index of an older format."""
        old = self._work / "old"
        shutil.copytree(FORMAT_2, old)
        killed = self._kill("forget", "/scans", longest=0.1, directory=old)
        IndexWriter.resume(old).close()
        assert list(check_index(old)) == []
        with IndexReader.open(old) as store:
            assert len(store) in (22, 23)
        shutil.rmtree(old)
        return killed

    def end(self) -> None:
        """One run that nobody disturbs gives the index of runs that nobody disturbed."""
        self._victims.run("index", self.files, "--index", self.directory)
        self._victims.run("index", self.files, "--index", self._work / "undisturbed")
        assert list(check_index(self.directory)) == []
        assert whole(self.directory) == whole(self._work / "undisturbed")
        assert len(contents(self.directory)) == len(self._files())
        self._victims.run("prune", "--index", self.directory)
        assert whole(self.directory) == whole(self._work / "undisturbed")
        with IndexReader.open(self.directory) as store:
            said = would_prune(store)
            assert (said.files, said.images, store.summary().orphans) == (0, 0, 0)
            assert [path for path in store.strays() if ".damaged-" not in path.name] == []
