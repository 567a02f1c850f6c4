"""A database behind recall against what an expert writes by hand for it: loading, searching, filtering.

    python benchmarks/stores.py --store postgres --rows 200000

Starts a server of its own, in a temporary folder, from the packages of the extra `cluster`. Vectors of pictures and of
texts lie in two clouds apart (benchmarks/clouds.py). The table of `bt` and a table made by hand are filled in turn,
block by block. Then texts search, in turn: `bt` with the effort that `bt index` chooses with other texts, a search of
the same graph by hand, and the exact search of the same table; and among 1 % of the rows, `bt` by their ids, in turn
with the table made by hand: by the same ids, and by a condition on an indexed column, for which the database must know
what is admitted. Figures are medians.
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.clouds import Clouds
from benchmarks.harness import Report, Times, take_turns
from benchmarks.milvus_by_hand import milvus_by_hand
from bridgetower.index.stores.external import choose_effort
from bridgetower.index.stores.table import Effort, Stamp, VectorTable

DIM, K, BLOCK = 512, 100, 20_000
TUNING = 256  # texts that the effort is chosen with
CATEGORIES = 100  # of which a filter admits one

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]
Halves = NDArray[np.float16]


class Store(Protocol):
    """A database with an empty table of `bt`, and an empty one made by hand that has a category for each row."""

    @property
    def table(self) -> VectorTable: ...

    def insert(self, ids: Ids, vectors: Vectors, categories: NDArray[np.int32]) -> None:
        """Insert rows into the table made by hand, durably, in the fastest way."""

    def arrange(self) -> None:
        """Prepare the table made by hand for filters."""

    def search_graph(self, query: Vectors, effort: Effort) -> list[int]:
        """Return the ids of the K nearest in the table of `bt`, found as by hand with its effort."""

    def search_category(self, query: Vectors, category: int) -> list[int]:
        """Return the ids of the K nearest of a category in the table made by hand, exactly."""

    def search_ids(self, query: Vectors, ids: Ids) -> list[int]:
        """Return the ids of the K nearest of these rows of the table made by hand, exactly."""


class Postgres:
    """PostgreSQL with pgvector."""

    def __init__(self, address: Any) -> None:
        import psycopg

        from bridgetower.index.stores.postgres import PostgresTable

        self.table = PostgresTable.connect(address, "bt", DIM, None)
        self.table.create(Stamp(0, 0))
        host = dict(address.parameters)["host"]
        self._connection = psycopg.connect(host=host, port=address.port, user=address.user, autocommit=True)
        self._connection.execute(
            f"CREATE TABLE hand (id bigint PRIMARY KEY, category int, vector halfvec({DIM}) STORAGE PLAIN)"
        )

    def insert(self, ids: Ids, vectors: Vectors, categories: NDArray[np.int32]) -> None:
        fields = [("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i8"), ("category_bytes", ">i4"), ("category", ">i4")]
        fields += [("bytes", ">i4"), ("dim", ">i2"), ("unused", ">i2")]
        rows = np.zeros(len(ids), np.dtype([*fields, ("vector", ">f2", (DIM,))]))
        rows["fields"], rows["id_bytes"], rows["category_bytes"], rows["bytes"] = 3, 8, 4, 4 + 2 * DIM
        rows["id"], rows["category"], rows["dim"], rows["vector"] = ids, categories, DIM, vectors
        with self._connection.cursor() as cursor, cursor.copy("COPY hand FROM STDIN (FORMAT binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff")

    def arrange(self) -> None:
        self._connection.execute("CREATE INDEX ON hand (category)")
        self._connection.execute("VACUUM ANALYZE hand")

    def search_graph(self, query: Vectors, effort: Effort) -> list[int]:
        text = "[" + ",".join(map(str, query.tolist())) + "]"
        statement = (
            "SELECT id FROM (SELECT id, vector <#> %s::halfvec AS distance FROM bt ORDER BY 2 LIMIT %s) AS found"
        )
        with self._connection.transaction():
            self._connection.execute(f"SET LOCAL hnsw.ef_search = {effort.effort}")
            self._connection.execute("SET LOCAL hnsw.iterative_scan = relaxed_order")
            self._connection.execute("SET LOCAL enable_seqscan = off")
            limits = [text, effort.candidates, K]
            return [id for (id,) in self._connection.execute(f"{statement} ORDER BY distance + 0 LIMIT %s", limits)]

    def search_category(self, query: Vectors, category: int) -> list[int]:
        return self._nearest("category = %s", category, query)

    def search_ids(self, query: Vectors, ids: Ids) -> list[int]:
        return self._nearest("id = ANY (%s)", ids.tolist(), query)

    def _nearest(self, condition: str, value: Any, query: Vectors) -> list[int]:
        text = "[" + ",".join(map(str, query.tolist())) + "]"
        statement = f"SELECT id FROM hand WHERE {condition} ORDER BY vector <#> %s::halfvec LIMIT %s"
        return [id for (id,) in self._connection.execute(statement, [value, text, K])]


@contextlib.contextmanager
def postgres() -> Iterator[Store]:
    from tests.cluster.postgres_server import postgres_server

    with postgres_server("shared_buffers = 2GB\nmax_wal_size = 8GB") as server:
        yield Postgres(server.local)


STORES: dict[str, Callable[[], contextlib.AbstractContextManager[Store]]] = {
    "postgres": postgres,
    "milvus": lambda: milvus_by_hand(DIM, K),
}


def fill(store: Store, rows: int) -> tuple[Halves, NDArray[np.int32], dict[str, float]]:
    """Fill both tables, with the ids from 1; return the vectors, the categories, and the seconds of each side."""
    clouds, seconds = Clouds(DIM), {"bt": 0.0, "by hand": 0.0}
    vectors = np.zeros((rows, DIM), np.float16)
    categories = np.random.default_rng(0).integers(0, CATEGORIES, rows, np.int32)
    for block, first in enumerate(range(0, rows, BLOCK)):
        part = slice(first, min(first + BLOCK, rows))
        vectors[part] = clouds.pictures(block, part.stop - part.start)
        ids, exact = np.arange(part.start + 1, part.stop + 1), vectors[part].astype(np.float32)
        turns = {
            "bt": lambda ids=ids, exact=exact, block=block: store.table.insert(ids, exact, Stamp(block, 0)),
            "by hand": lambda ids=ids, exact=exact, part=part: store.insert(ids, exact, categories[part]),
        }
        for side in ("bt", "by hand") if block % 2 else ("by hand", "bt"):
            begin = time.perf_counter()
            turns[side]()
            seconds[side] += time.perf_counter() - begin
    return vectors, categories, seconds


def truth(queries: Vectors, vectors: Halves) -> list[set[int]]:
    """Return the ids of the true K nearest of each query."""
    near = min(K, len(vectors)) - 1
    scores = np.concatenate(
        [queries @ vectors[at : at + BLOCK].astype(np.float32).T for at in range(0, len(vectors), BLOCK)], axis=1
    )
    return [set((row + 1).tolist()) for row in np.argpartition(-scores, near, axis=1)[:, : near + 1]]


def recall(found: list[Any], true: list[set[int]]) -> float:
    return float(np.mean([len(some & set(ids)) / len(some) for ids, some in zip(found, true, strict=True)]))


def tuned(table: VectorTable, vectors: Halves) -> Effort:
    """Return the effort that `bt index` would choose with texts."""
    queries = Clouds(DIM).texts(1, TUNING)
    true = [np.fromiter(some, np.int64) for some in truth(queries, vectors)]
    return choose_effort(table, queries, true)[0]


def _found(table: VectorTable, effort: Effort, query: Vectors) -> list[int]:
    return [int(id) for id in table.search(query, K, effort)]


def compare(
    contenders: dict[str, Callable[[Vectors], Any]], queries: Vectors, true: list[set[int]]
) -> dict[str, tuple[Times, float]]:
    """Let contenders take turns, query by query; return the times and the recall of each."""
    found: dict[str, list[Any]] = {name: [] for name in contenders}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for search in contenders.values():
        search(queries[0])  # to warm up
    for query in queries:
        turns = {
            name: lambda name=name, search=search, query=query: found[name].append([*search(query)])
            for name, search in contenders.items()
        }
        for name, times in take_turns(turns, 1).items():
            seconds[name] += times.seconds
    return {name: (Times(tuple(seconds[name])), recall(found[name], true)) for name in contenders}


def run(store: Store, args: argparse.Namespace, report: Report) -> None:
    table, size = store.table, {"store": args.store, "rows": args.rows}
    vectors, categories, loading = fill(store, args.rows)
    for side, seconds in loading.items():
        ratio = loading["by hand"] / seconds
        report.add(**size, what="load", contender=side, rows_a_second=args.rows / seconds, x_rate=ratio)
    begin = time.perf_counter()
    arranged = table.arrange()
    report.add(**size, what="arrange", contender="bt", how=arranged, seconds=time.perf_counter() - begin)
    store.arrange()

    queries = Clouds(DIM).texts(0, args.rounds)
    efforts = {"bt": tuned(table, vectors), "exact": table.efforts()[-1]}
    contenders: dict[str, Callable[[Vectors], Any]] = {
        name: partial(_found, table, effort) for name, effort in efforts.items()
    }
    if efforts["bt"] != efforts["exact"]:
        efforts["by hand"] = efforts["bt"]
        contenders["by hand"] = lambda query: store.search_graph(query, efforts["bt"])
    measured = compare(contenders, queries, truth(queries, vectors))
    for name, (times, found) in measured.items():
        how = f"{efforts[name].effort}, {efforts[name].candidates}"
        share = times.median / measured["exact"][0].median
        report.add(times, **size, what="texts", contender=name, how=how, recall=found, x_time=share)

    admitted = np.flatnonzero(categories == 7)
    ids = admitted + 1
    some = [{int(ids[at - 1]) for at in near} for near in truth(queries, vectors[admitted])]
    measured = compare(
        {
            "bt": lambda query: table.search_among(query, K, ids).tolist(),
            "by hand, ids": lambda query: store.search_ids(query, ids),
            "by hand, a column": lambda query: store.search_category(query, 7),
        },
        queries,
        some,
    )
    for name, (times, found) in measured.items():
        share = times.median / measured["by hand, a column"][0].median
        report.add(times, **size, what="filter", contender=name, how=f"{len(ids)} rows", recall=found, x_time=share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="postgres", choices=STORES, help="the database (%(default)s)")
    parser.add_argument("--rows", type=int, default=200_000, help="of each table (%(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="texts that search (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    args = parser.parse_args()
    with Report(Path(__file__).stem, args) as report, STORES[args.store]() as store:
        run(store, args, report)


if __name__ == "__main__":
    main()
