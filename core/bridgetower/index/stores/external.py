"""A `RecallStore` in a database: which rows its table holds, how hard a search looks, and how filters are answered.

The table follows the manifest. A publication adds what the table lacks, batch by batch: the database commits the rows
and the stamp, then the manifest counts the rows as covered. A kill between the two leaves rows above the last covered
id, which the next publication removes. A view asks the table for what is covered, and the manifest for the rest. Where
the table cannot be right, because it is gone, older than the manifest, or lacks rows that the state of the view may
find, the view compares the vectors in the manifest instead: more slowly, and exactly.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import StoreError, UnreachableStoreError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import StoreRow, Tuning
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.stores.differences import differences
from bridgetower.index.stores.naming import home_of, new_row
from bridgetower.index.stores.table import Effort, Stamp, VectorTable
from bridgetower.index.vectors.catalog_vectors import all_vectors, few, is_in, nearest_of_all
from bridgetower.index.vectors.measure import RECALL_AT, ExactNearest, measuring_queries
from bridgetower.records import OnProgress

# Recall is measured again when the number of rows has changed by more than 1/16 since, as it is for the lists of FAISS.
_CHANGED_SHARE = 16
# Recall over the queries that measure it. With the least, other texts reach 0.99. Of the first 20 pictures one is then
# missing for every tenth text. So more is wanted as long as it takes few milliseconds, which is up to this effort.
_RECALL_LEAST, _RECALL_WANTED = 0.9925, 0.9975
_CHEAP = 1000
_REMOVED_AT_ONCE = 65_536  # rows of one transaction
_SPARE = 32  # rows asked for beyond k, in place of those that may not be found
_UNCOVERED_MEANWHILE = 8192  # images that a run adds before it publishes them
_ASKED_MOST = 65_536  # rows asked for; a search that needs more compares all vectors

Connect = Callable[[StoreRow, int], VectorTable]  # the table of a row of the manifest, for vectors of this length


@dataclass(frozen=True, slots=True)
class ExternalStore:
    """The store of an index whose manifest names a table in a database."""

    connect: Connect

    def open(self, directory: Path, catalog: Catalog) -> "ExternalView":
        return ExternalView(catalog, self.connect)

    def files(self, directory: Path, catalog: Catalog) -> list[Path]:
        return []

    def is_due(self, catalog: Catalog, uncovered: int, *, at_end: bool) -> bool:
        if at_end:
            return uncovered > 0 or catalog.count_pruned(catalog.state().covered) > 0
        return uncovered >= _UNCOVERED_MEANWHILE

    def require_reachable(self, directory: Path, catalog: Catalog) -> None:
        with closing(self._table(catalog)) as table:
            _require_own(catalog, table.stamp())

    def publish(self, directory: Path, catalog: CatalogWriter, on_progress: OnProgress) -> None:
        with closing(self._table(catalog)) as table:
            stamp = table.stamp()
            _require_own(catalog, stamp)
            token = _draw_token(catalog, stamp)
            if not self._is_whole(catalog, table):
                _begin(catalog, table, token)
            _remove_pruned(catalog, table, token)
            _insert(catalog, table, token, on_progress)
            if _wants_measuring(catalog, table):
                _arrange(catalog, table)

    def is_intact(self, directory: Path, catalog: Catalog, *, whole: bool) -> bool:
        if not catalog.state().covered:
            return not catalog.count_images()
        with closing(self._table(catalog)) as table:
            if not whole:
                return _fits(catalog, table.stamp()) and not _lacks_tuning(catalog)
            return self._is_whole(catalog, table) and not _wants_measuring(catalog, table)

    def _is_whole(self, catalog: Catalog, table: VectorTable) -> bool:
        """Return whether the table has the number of rows that the manifest counts as covered, and a stamp to fit."""
        covered = catalog.state().covered
        if not covered or not _fits(catalog, table.stamp()):
            return False
        if isinstance(catalog, CatalogWriter):  # no other process inserts now: these rows are of a broken off insertion
            table.remove_above(covered)
        return table.count() == _covered_rows(catalog)

    def differences(self, directory: Path, catalog: Catalog) -> Iterator[str]:
        if not catalog.state().covered:
            return
        with closing(self._table(catalog)) as table:
            stamp, name = table.stamp(), _row(catalog).name
            if stamp is None:
                yield f"the table {name} is not there"
            elif _is_foreign(catalog, stamp):
                yield f"the table {name} was written by another copy of this index, which needs one of its own"
            elif not _fits(catalog, stamp):
                yield f"the table {name} is of generation {stamp.generation}, not {catalog.state().generation}"
            else:
                yield from differences(catalog, table)
                if table.compacted():
                    yield f"the database has rearranged the table {name} since its recall was measured"

    def vectors(
        self, directory: Path, catalog: Catalog, images: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        if catalog.state().covered:
            with closing(self._table(catalog)) as table:
                if _fits(catalog, table.stamp()):
                    yield from table.vectors(images)

    def clean(self, directory: Path, catalog: Catalog, *, everything: bool = False) -> None:
        if not everything:
            return
        row = _row(catalog)
        with closing(self._table(catalog)) as table:
            if row.home == home_of(directory) and not _is_foreign(catalog, table.stamp()):
                table.drop()
                return
        assert isinstance(catalog, CatalogWriter)  # only a writer removes data that its state names
        with catalog.transaction():  # another copy of the index may use that table
            catalog.set_store(new_row(row.address, directory))

    def _table(self, catalog: Catalog) -> VectorTable:
        return self.connect(_row(catalog), catalog.fingerprint().dim)


def _row(catalog: Catalog) -> StoreRow:
    row = catalog.store()
    assert row is not None  # else the manifest names no database, and this store is not used
    return row


def _fits(catalog: Catalog, stamp: Stamp | None) -> bool:
    """Return whether a table with this stamp has all rows that the manifest counts as covered, but removed ones."""
    return stamp is not None and stamp.generation >= catalog.state().generation


def _is_foreign(catalog: Catalog, stamp: Stamp | None) -> bool:
    """Return whether a table has rows that another copy of this index has written, or a later state of this one.

    An older table, as of a restored database, is our own, and is made again.
    """
    row = _row(catalog)
    return _fits(catalog, stamp) and stamp is not None and stamp.token not in (row.token, row.previous)


def _require_own(catalog: Catalog, stamp: Stamp | None) -> None:
    if _is_foreign(catalog, stamp):
        row = _row(catalog)
        raise StoreError(
            f"{row.address}: the table {row.name} was written by another copy of this index since: `bt verify "
            "--repair` gives this copy a table of its own"
        )


def _draw_token(catalog: CatalogWriter, stamp: Stamp | None) -> int:
    """Name the token of this publication in the manifest before any stamp has it, so that a kill leaves a known one."""
    row, token = _row(catalog), secrets.randbits(62)
    with catalog.transaction():
        catalog.set_store(row._replace(token=token, previous=row.token if stamp is None else stamp.token))
    return token


def _covered_rows(catalog: Catalog) -> int:
    state = catalog.state()
    return state.images - catalog.count_images(after=state.covered) + catalog.count_pruned(state.covered)


def _begin(catalog: CatalogWriter, table: VectorTable, token: int) -> None:
    """Begin an empty table. The manifest counts on no row first, so that a kill in between loses none."""
    generation = catalog.state().generation + 1
    with catalog.transaction():
        catalog.publish(generation, 0, None)
    table.create(Stamp(generation, generation, token))


def _remove_pruned(catalog: CatalogWriter, table: VectorTable, token: int) -> None:
    covered, tuning = catalog.state().covered, catalog.tuning()
    pruned = np.fromiter(catalog.pruned(), np.int64)
    pruned = pruned[pruned <= covered]
    for start in range(0, len(pruned), _REMOVED_AT_ONCE):
        generation = catalog.state().generation + 1
        table.remove(pruned[start : start + _REMOVED_AT_ONCE], Stamp(generation, generation, token))
        is_last = start + _REMOVED_AT_ONCE >= len(pruned)
        with catalog.transaction():
            catalog.publish(generation, covered, None, tuning, holds_pruned=not is_last)


def _insert(catalog: CatalogWriter, table: VectorTable, token: int, on_progress: OnProgress) -> None:
    """Insert what the table lacks. Each batch is durable in the database before the manifest counts it as covered."""
    covered, tuning, stamp = catalog.state().covered, catalog.tuning(), table.stamp()
    assert stamp is not None  # the table is there
    if new := catalog.count_images(after=covered):
        table.prepare(new)
    for ids, vectors in all_vectors(catalog, after=covered, on_progress=on_progress):
        stamp = Stamp(catalog.state().generation + 1, stamp.pruned, token)
        table.insert(ids, vectors, stamp)
        with catalog.transaction():
            catalog.publish(stamp.generation, int(ids[-1]), None, tuning, holds_pruned=True)


def _lacks_tuning(catalog: Catalog) -> bool:
    return catalog.tuning() is None and _covered_rows(catalog) > 0


def _wants_measuring(catalog: Catalog, table: VectorTable) -> bool:
    tuning, rows = catalog.tuning(), _covered_rows(catalog)
    if tuning is None or not rows:
        return rows > 0
    return abs(rows - tuning.trained) * _CHANGED_SHARE > tuning.trained or table.compacted()


def _arrange(catalog: CatalogWriter, table: VectorTable) -> None:
    """Arrange the table, and choose the cheapest effort that finds enough."""
    arrangement = table.arrange()
    queries, texts = measuring_queries(catalog)
    nearest = ExactNearest(queries)
    for ids, vectors in all_vectors(catalog):
        nearest.take(ids, vectors)
    effort, recall = choose_effort(table, queries, nearest.ids)
    state = catalog.state()
    tuning = Tuning(0, _covered_rows(catalog), *effort, recall, texts, len(queries) - texts)
    with catalog.transaction():
        catalog.publish(state.generation, state.covered, None, tuning)
        catalog.set_store(_row(catalog)._replace(arrangement=arrangement))


def choose_effort(
    table: VectorTable, queries: NDArray[np.float32], truth: Sequence[NDArray[np.int64]]
) -> tuple[Effort, float]:
    """Return an effort that finds enough, and its recall@RECALL_AT over `queries` `[Q, E]`.

    It is the cheapest one with _RECALL_WANTED, or the best up to the first one above _CHEAP that has _RECALL_LEAST.
    `truth` holds the ids of the exact answers: the RECALL_AT nearest and all that tie with the last of them.
    """
    best: tuple[Effort, float] | None = None
    for effort in table.efforts():
        recall = _recall(table, queries, truth, effort, _RECALL_LEAST)
        if recall >= _RECALL_WANTED:
            return effort, recall
        if recall >= _RECALL_LEAST and (best is None or recall > best[1]):
            best = effort, recall
        if best is not None and max(effort) > _CHEAP:
            return best
    return best or (effort, _recall(table, queries, truth, effort, 0.0))  # the last one compares most


def _recall(
    table: VectorTable,
    queries: NDArray[np.float32],
    truth: Sequence[NDArray[np.int64]],
    effort: Effort,
    wanted: float,
) -> float:
    """Return the recall at this effort; 0 as soon as `wanted`, if it is above 0, cannot be reached any more."""
    total = sum(min(RECALL_AT, len(true)) for true in truth)
    hits = missed = 0
    for query, true in zip(queries, truth, strict=True):
        due = min(RECALL_AT, len(true))
        found = min(due, int(np.isin(true, table.search(query, RECALL_AT, effort)).sum()))
        hits, missed = hits + found, missed + due - found
        if wanted and total - missed < wanted * total:
            return 0.0
    return hits / total


class ExternalView:
    """A `RecallView` of a table in a database; it connects with the first search."""

    def __init__(self, catalog: Catalog, connect: Connect) -> None:
        self._catalog, self._connect = catalog, connect
        self._state, tuning = catalog.state(), catalog.tuning()
        self._effort = Effort(0, RECALL_AT) if tuning is None else Effort(tuning.effort, tuning.candidates)
        self._last = catalog.last_image()
        self._table: VectorTable | None = None
        self._is_ahead = False  # whether the table may have rows that are newer than this state
        self._excluded: NDArray[np.int64] | None = None  # ids that no search may find, ascending; read by the first one
        self.damage: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether the manifest counts rows in the table; the database is not asked."""
        return self._state.covered > 0

    def search(self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        if self._excluded is None:
            self._catalog.require_consistent()
            listed = [np.fromiter(ids, np.int64) for ids in (self._catalog.orphans(), self._catalog.pruned())]
            self._excluded = np.unique(np.concatenate(listed))
        self.damage = None
        found = self._search_table(query, k, images)
        if found is None:
            return self._compare(query, k, images)
        if self._last == self._state.covered:
            return found
        return np.append(found, self._compare(query, k, images, after=self._state.covered))

    def close(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.close()

    def _compare(
        self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None, *, after: int = 0
    ) -> NDArray[np.int64]:
        assert self._excluded is not None
        return nearest_of_all(self._catalog, query, k, self._excluded, images, after=after)[0]

    def connect(self) -> None:
        if self._state.covered:
            self._fitting_table()

    def _search_table(
        self, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """Return the nearest covered images; None if the manifest must be searched in place of the table.

        A database rounds the query, so that its order of close rows is not exact: it is asked for RECALL_AT at least.
        A writer may change the table meanwhile: the stamp is read again afterwards.
        """
        if not self._state.covered or (table := self._fitting_table()) is None:
            return None
        try:
            found = self._search_covered(table, query, k, images)
        except UnreachableStoreError:
            raise
        except StoreError:
            if self._fitting_table() is None:  # it was removed, or is being made again
                return None
            raise
        return None if self._fitting_table() is None else found

    def _search_covered(
        self, table: VectorTable, query: NDArray[np.float32], k: int, images: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        assert self._excluded is not None
        if images is None:
            live = self._catalog.count_live() - self._catalog.count_live(after=self._state.covered)
            spare = _SPARE if self._is_ahead or len(self._excluded) else 0
            return self._ask(table, query, min(k, live), max(k, RECALL_AT) + spare, None)
        images = images[images <= self._state.covered]
        if not len(images):
            return images
        if not few(len(images)):  # ask for so many that enough of them pass
            first = int(max(k, RECALL_AT) * _covered_rows(self._catalog) / len(images) * 1.25) + _SPARE
            found = self._ask(table, query, min(k, len(images)), first, images)
            if found is not None:
                return found
        parts = np.array_split(images, -(-len(images) // table.among_most))
        found = np.concatenate([table.search_among(query, min(max(k, RECALL_AT), len(part)), part) for part in parts])
        if len(found) < min(k, len(images)):
            self.damage = f"the table {_row(self._catalog).name} lacks rows"
            return None
        return found

    def _ask(
        self,
        table: VectorTable,
        query: NDArray[np.float32],
        wanted: int,
        first: int,
        images: NDArray[np.int64] | None,
    ) -> NDArray[np.int64] | None:
        """Return at least `wanted` rows that may be found, asking for `first` rows, then for more; None if the table
        does not give so many."""
        assert self._excluded is not None
        asked = first
        while asked <= _ASKED_MOST:
            ids = table.search(query, asked, self._effort)
            if images is None:
                found = ids[(ids <= self._state.covered) & ~is_in(ids, self._excluded)]
            else:
                found = ids[is_in(ids, images)]
            if len(found) >= wanted:
                return found
            if len(ids) < asked:
                self.damage = f"the table {_row(self._catalog).name} lacks rows"
                return None
            asked *= 4
        return None

    def _fitting_table(self) -> VectorTable | None:
        """Return the table; None if it lacks rows that this state may find. Raises StoreError."""
        row = _row(self._catalog)
        table = self._table = self._table or self._connect(row, self._catalog.fingerprint().dim)
        stamp = table.stamp()
        if stamp is None:
            self.damage = f"the table {row.name} is not there"
        elif stamp.generation < self._state.generation:
            self.damage = f"the table {row.name} is of generation {stamp.generation}, not {self._state.generation}"
        elif stamp.pruned <= self._state.generation:
            self._is_ahead = stamp.generation > self._state.generation
            return table
        return None
