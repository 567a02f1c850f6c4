"""Whatever is done to an index, in whatever order, it equals a plain dictionary from paths to contents."""

import hashlib
import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from bridgetower.index.catalog.changed_files import Sweep
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.stores import external
from bridgetower.index.stores.named import NamedStore
from bridgetower.index.stores.naming import new_row
from bridgetower.index.stores.table import Stamp
from bridgetower.index.vectors.faiss.store import FaissStore
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File, Fingerprint, WalkedFile
from tests.tables import Killed, MemoryDatabase

DIM = 8
FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", DIM)
ROOT = Path("/photos")

paths = st.sampled_from([ROOT / name for name in ("a", "b", "b-1", "c/a", "c/b", "c/d/e")])
CONTENTS = range(40)
contents = st.sampled_from(CONTENTS[:10])
DAMAGE = [
    "UPDATE files SET size = size + 1 WHERE path IN (SELECT path FROM files LIMIT 2)",
    "UPDATE images SET width = 5 WHERE id IN (SELECT id FROM images LIMIT 2)",
    "DELETE FROM orphans",
    "UPDATE state SET images = images + 3",
    "DROP TRIGGER file_changed",
]
STEPS = ["touch", "publish", "clean"]  # of the manifest and of the store behind recall, in the order of a run


def vector_of(content: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(content // 2).normal(size=DIM).astype(np.float32)  # pairs of contents look the same
    return vector / np.linalg.norm(vector)


QUERY = vector_of(1000)


def score_of(content: int) -> float:
    return float(vector_of(content).astype(np.float16).astype(np.float64) @ QUERY)


def hash_of(content: int) -> bytes:
    return hashlib.sha256(b"%d" % content).digest()


class Crash(BaseException):
    """The process dies here."""


class IndexEqualsDictionary(RuleBasedStateMachine):
    """As it is searched exactly."""

    patched: ClassVar[dict[str, float]] = {}  # of the program, while this runs
    store: NamedStore | None = None

    @initialize()
    def create(self) -> None:
        self.patches = ExitStack()
        for name, value in self.patched.items():
            self.patches.enter_context(patch(f"bridgetower.index.vectors.{name}", value))
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name) / "index"
        self.files: dict[Path, int | None] = {}  # None: skipped
        self.encoded: set[int] = set()
        self.clock = 0
        self.harmed = False  # what is derived was damaged: that is found until it is made again
        self.writer = IndexWriter.open(self.directory, FINGERPRINT, recall_store=self.store)

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
            self.folder.cleanup()
            self.patches.close()

    def commit(self, batch: dict[Path, int]) -> None:
        """As indexing does it: content is encoded only if the index does not have it."""
        new = {content for content in batch.values() if self.writer.catalog.image_id(hash_of(content)) is None}
        assert new == set(batch.values()) - self.encoded
        self.clock += 1
        self.writer.commit(
            images=[NewImage(hash_of(content), 1, 1, None, vector_of(content)) for content in sorted(new)],
            files=[(File(path, content, self.clock), hash_of(content)) for path, content in batch.items()],
        )

    @rule(batch=st.dictionaries(paths, contents, min_size=1))
    def add_or_change(self, batch: dict[Path, int]) -> None:
        self.commit(batch)
        self.files.update(batch)
        self.encoded.update(batch.values())

    @rule(path=paths)
    def turn_bad(self, path: Path) -> None:
        self.writer.commit(skipped=[(File(path, 0, 0), "no picture any more")])
        self.files[path] = None

    @rule(present=st.sets(paths), root=st.sampled_from([ROOT, ROOT / "c"]))
    def scan_again(self, present: set[Path], root: Path) -> None:
        """A new run, whose scan of a root meets some of the files and none of the others."""
        self.reopen(finish=False)
        for path in present & set(self.files):
            self.writer.catalog.meet([WalkedFile(os.fsencode(path), 1, 1)])
        under = {path for path in self.files if path.is_relative_to(root)}
        if under & present:
            assert self.writer.sweep(root) == Sweep(removed=len(under - present), kept=0)
            self.files = {path: content for path, content in self.files.items() if path not in under - present}
        else:
            assert self.writer.sweep(root) == Sweep(removed=0, kept=len(under))

    @rule(path=st.sampled_from([ROOT / name for name in ("a", "b", "c", "c/d", "d")]))
    def forget(self, path: Path) -> None:
        gone = [known for known in self.files if known.is_relative_to(path)]
        assert self.writer.forget(path) == [len(gone)]
        for known in gone:
            del self.files[known]

    @rule()
    def prune(self) -> None:
        live = {content for content in self.files.values() if content is not None}
        assert sum(self.writer.prune()) == len(self.encoded - live)
        self.encoded = live
        self.writer.tidy()
        self.writer.compact()

    @rule(paths=st.sets(paths))
    def drop(self, paths: set[Path]) -> None:
        self.writer.drop(sorted(paths))
        for path in paths & set(self.files):
            del self.files[path]

    @rule(sql=st.sampled_from(DAMAGE))
    def damage_and_repair(self, sql: str) -> None:
        """What repair drops is committed again, as the next run does it. A copy that it restores was made just now."""
        if "TRIGGER" in sql:
            assert self.writer.back_up() is None
        with self.writer.catalog.transaction():
            self.writer.catalog._db.execute(sql)
        self.writer.close()
        repaired = repair_index(self.directory, recall_store=self.store)
        assert repaired.left == ()
        self.writer = IndexWriter.open(self.directory, FINGERPRINT, recall_store=self.store)
        self.encoded = {
            content for content in self.encoded if self.writer.catalog.image_id(hash_of(content)) is not None
        }
        lost = [path for path in self.files if self.writer.catalog.known(path) is None]
        assert set(lost) <= set(repaired.dropped)
        again = {path: content for path in lost if (content := self.files[path]) is not None}
        if again:
            self.add_or_change(again)
        for path in set(lost) - set(again):
            self.turn_bad(path)

    @rule(finish=st.booleans())
    def reopen(self, finish: bool) -> None:
        if finish:
            self.writer.finish()
            self.harmed = False
        self.writer.close()
        self.writer = IndexWriter.open(self.directory, FINGERPRINT, recall_store=self.store)

    @rule(batch=st.dictionaries(paths, contents, min_size=1), step=st.sampled_from(STEPS))
    def crash(self, batch: dict[Path, int], step: str) -> None:
        """Die in the middle of a commit, before the transaction that names a new vector file, or right after it."""
        with patch.object(FaissStore if step == "clean" else CatalogWriter, step, side_effect=Crash):
            try:
                self.commit(batch)
                self.files.update(batch)  # the commit returned: the rest must not lose it
                self.encoded.update(batch.values())
                self.writer.finish()
            except Crash:
                pass
        self.reopen(finish=False)

    @rule(damage=st.sampled_from([None, b"", b"not FAISS"]))
    def damage_what_is_derived(self, damage: bytes | None) -> None:
        self.harmed = True
        for path in self.directory.glob("vectors-*"):
            path.unlink() if damage is None else path.write_bytes(damage)

    @invariant()
    def equals_the_dictionary(self) -> None:
        if not hasattr(self, "writer"):
            return
        assert [
            finding
            for finding in check_index(self.directory, recall_store=self.store)
            if finding.part != "vectors" or not self.harmed
        ] == []
        with IndexReader.open(self.directory, self.store) as store:
            ids = {content: store.catalog.image_id(hash_of(content)) for content in CONTENTS}
            assert {content for content, id in ids.items() if id is not None} == self.encoded
            bad = sorted(path for path, content in self.files.items() if content is None)
            assert [skipped.path for skipped in store.catalog.skipped()] == bad
            live = {content: ids[content] for content in self.files.values() if content is not None}
            scores = {id: score_of(content) for content, id in live.items() if id is not None}
            for k in (1, 3, 100):
                self.search(store, scores, k)
            assert {id: store.catalog.paths_of(id) for id in scores} == {
                id: tuple(sorted(path for path, other in self.files.items() if other == content))
                for content, id in live.items()
            }
            summary = store.summary()
            assert summary.files + summary.skipped == len(self.files)
            assert summary.orphans == len(self.encoded - set(live))

    def search(self, store: IndexReader, scores: dict[int, float], k: int) -> None:
        """`scores` are those of all images that can be found."""
        best = sorted(scores, key=lambda id: (-np.float32(scores[id]), id))
        half = np.array(sorted(scores)[::2], np.int64)
        for within, expected in ((None, best), (half, [id for id in best if id in half])):
            [found] = store.recall(QUERY[None], k, within)
            ids = [neighbour.image for neighbour in found]
            assert len(ids) == min(k, len(expected))
            assert ids == [id for id in best if id in ids]  # in order, none twice, and nothing that cannot be found
            np.testing.assert_allclose([n.similarity for n in found], [scores[id] for id in ids], rtol=0, atol=1e-6)
            if self.is_exact(store.catalog.tuning()) or within is not None:
                assert ids == expected[:k]

    def is_exact(self, tuning: Tuning | None) -> bool:
        return tuning is None or tuning.effort == tuning.lists


class IndexWithListsEqualsDictionary(IndexEqualsDictionary):
    """As it is searched when there are more than a few images, which there are not always."""

    patched: ClassVar[dict[str, float]] = {
        "catalog_vectors.EXACT_MOST": 20,
        **{f"{module}.RECALL_AT": 3 for module in ("faiss.ivf", "faiss.search", "measure")},
        "faiss.search._SCAN_SHARE": 0.1,
        "faiss.search._ROWS": 8,
    }

    @initialize()
    def create(self) -> None:
        super().create()
        self.add_from(CONTENTS[10])
        self.reopen(finish=True)

    @rule(first=st.sampled_from(CONTENTS[10:]))
    def add_from(self, first: int) -> None:
        """Many, for lists to be made, to grow and to be chosen anew."""
        self.add_or_change({ROOT / "d" / str(content): content for content in CONTENTS[first:]})

    @rule()
    def publish(self) -> None:
        self.writer.publish()
        self.harmed = False


class IndexInDatabaseEqualsDictionary(IndexEqualsDictionary):
    """As it is searched in a table of a database, which may be killed, altered or gone."""

    patched: ClassVar[dict[str, float]] = {
        "catalog_vectors.EXACT_MOST": 4,
        "catalog_vectors._ROWS": 3,
        "measure.RECALL_AT": 3,
    }

    @initialize()
    def create(self) -> None:
        self.database = MemoryDatabase()
        self.store = self.database.store()
        super().create()
        self.patches.enter_context(patch.object(external, "RECALL_AT", 3))
        self.writer.set_store(new_row("milvus://db.example:19530", self.directory))

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "database"):
            assert self.database.connections == 0

    def is_exact(self, tuning: Tuning | None) -> bool:
        return tuning is None or tuning.effort in (0, 4)

    @rule(batch=st.dictionaries(paths, contents, min_size=1), writes=st.integers(0, 5))
    def kill(self, batch: dict[Path, int], writes: int) -> None:
        """Die in the middle of a publication, between what the database and what the manifest has."""
        self.commit(batch)
        self.files.update(batch)
        self.encoded.update(batch.values())
        self.database.kill_after = writes
        with suppress(Killed):
            self.writer.publish()
        self.database.kill_after = None
        self.reopen(finish=False)

    @rule(change=st.sampled_from(["gone", "older", "fewer", "other", "more"]))
    def change_the_table(self, change: str) -> None:
        for name, table in list(self.database.tables.items()):
            match change:
                case "gone":
                    del self.database.tables[name]
                case "older":
                    table.stamp = Stamp(0, 0)
                case "fewer" if table.vectors:
                    del table.vectors[min(table.vectors)]
                case "other" if table.vectors:
                    # A vector that is only found in another place: its score comes from the manifest.
                    table.vectors[min(table.vectors)] *= -1
                case "more":
                    table.vectors[10**6] = np.zeros(DIM, np.float16)
        # Only what a search cannot see needs a repair before the next one.
        if change == "other" or (change == "fewer" and not self.harmed):
            self.writer.close()
            assert repair_index(self.directory, recall_store=self.store).left == ()
            self.writer = IndexWriter.open(self.directory, FINGERPRINT, recall_store=self.store)
        else:
            self.harmed = True


TestIndexEqualsDictionary = IndexEqualsDictionary.TestCase
TestIndexEqualsDictionary.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestIndexInDatabaseEqualsDictionary = IndexInDatabaseEqualsDictionary.TestCase
TestIndexInDatabaseEqualsDictionary.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestIndexWithListsEqualsDictionary = IndexWithListsEqualsDictionary.TestCase
TestIndexWithListsEqualsDictionary.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
