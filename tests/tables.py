"""A database in memory, for tests of what is done with the tables of databases."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import UnreachableStoreError
from bridgetower.index.catalog.rows import StoreRow
from bridgetower.index.stores.named import NamedStore
from bridgetower.index.stores.table import Effort, Stamp


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Return when a condition holds; fail if it does not within this time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


class Killed(Exception):
    """The process ended here."""


@dataclass
class MemoryRows:
    """A table, with float16 vectors."""

    stamp: Stamp
    vectors: dict[int, NDArray[np.float16]] = field(default_factory=dict)


@dataclass
class MemoryDatabase:
    """Tables by name. `away` is why it does not answer; after `kill_after` more writes the process is killed."""

    tables: dict[str, MemoryRows] = field(default_factory=dict)
    away: str | None = None
    kill_after: int | None = None
    rearranged: bool = False
    connections: int = 0  # that are open
    asked: list[str] = field(default_factory=list)  # methods that were called

    def connect(self, row: StoreRow, dim: int, password: str | None) -> "MemoryTable":
        return MemoryTable(self, row, dim)

    def store(self) -> NamedStore:
        return NamedStore(connect=self.connect)


class MemoryTable:
    """A `VectorTable` in a `MemoryDatabase`. A search of an effort above 0 looks at every (5 - effort)-th row first."""

    among_most = 3

    def __init__(self, database: MemoryDatabase, row: StoreRow, dim: int) -> None:
        self._database, self._address, self._name, self._dim = database, row.address, row.name, dim
        self._is_open = False
        self._note("connect")
        self._is_open = True
        database.connections += 1

    def _note(self, what: str) -> None:
        self._database.asked.append(what)
        if self._database.away is not None:
            raise UnreachableStoreError(self._address, self._database.away)

    def _write(self, what: str) -> None:
        self._note(what)
        if self._database.kill_after is not None:
            if self._database.kill_after == 0:
                raise Killed
            self._database.kill_after -= 1

    @property
    def _table(self) -> MemoryRows:
        return self._database.tables[self._name]

    def stamp(self) -> Stamp | None:
        self._note("stamp")
        table = self._database.tables.get(self._name)
        return None if table is None else table.stamp

    def create(self, stamp: Stamp) -> None:
        self._write("create")
        self._database.tables[self._name] = MemoryRows(stamp)

    def drop(self) -> None:
        self._write("drop")
        self._database.tables.pop(self._name, None)

    def prepare(self, new: int) -> None:
        self._note("prepare")

    def insert(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], stamp: Stamp) -> None:
        self._write("insert")
        assert (np.diff(ids) > 0).all() and vectors.shape == (len(ids), self._dim)
        assert self._table.vectors.keys().isdisjoint(ids.tolist())
        self._table.vectors.update(zip(ids.tolist(), vectors.astype(np.float16), strict=True))
        self._table.stamp = stamp

    def remove(self, ids: NDArray[np.int64], stamp: Stamp) -> None:
        self._write("remove")
        for id in ids.tolist():
            self._table.vectors.pop(id, None)
        self._table.stamp = stamp

    def remove_above(self, id: int) -> None:
        self._write("remove_above")
        for one in [one for one in self._table.vectors if one > id]:
            del self._table.vectors[one]

    def arrange(self) -> str:
        self._note("arrange")
        self._database.rearranged = False
        return "rows in memory"

    def compacted(self) -> bool:
        self._note("compacted")
        return self._database.rearranged

    def efforts(self) -> Sequence[Effort]:
        return [Effort(1, 100), Effort(2, 100), Effort(4, 100), Effort(0, 100)]

    def search(self, query: NDArray[np.float32], k: int, effort: Effort) -> NDArray[np.int64]:
        self._note(f"search {effort.effort}")
        step = 1 if effort.effort == 0 else 5 - effort.effort
        ids = sorted(self._table.vectors)
        near = self._nearest(query, ids[::step], k)
        return np.append(near, self._nearest(query, sorted({*ids} - {*near.tolist()}), k - len(near)))

    def search_among(self, query: NDArray[np.float32], k: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        self._note("search_among")
        assert len(ids) <= self.among_most
        return self._nearest(query, [id for id in ids.tolist() if id in self._table.vectors], k)

    def _nearest(self, query: NDArray[np.float32], ids: list[int], k: int) -> NDArray[np.int64]:
        scores = [-float(self._table.vectors[id].astype(np.float32) @ query) for id in ids]
        return np.array(ids, np.int64)[np.argsort(scores, kind="stable")[:k]]

    def count(self) -> int:
        self._note("count")
        return len(self._table.vectors)

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        self._note("rows")
        ids = sorted(self._table.vectors)
        for start in range(0, len(ids), 4):
            some = ids[start : start + 4]
            yield np.array(some, np.int64), np.stack([self._table.vectors[id] for id in some]).astype(np.float32)

    def vectors(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        self._note("vectors")
        for id in ids.tolist():
            if id in self._table.vectors:
                yield id, self._table.vectors[id].astype(np.float32)

    def close(self) -> None:
        self._database.connections -= self._is_open
        self._is_open = False
