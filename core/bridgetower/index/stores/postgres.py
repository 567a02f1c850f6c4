"""A `VectorTable` in PostgreSQL with pgvector: half-precision vectors by id, and an HNSW graph above them.

    name         id bigint, the primary key; vector halfvec(E)
    name_stamp   one row: the stamp, written in the transaction of the rows; the file of the graph that was built last
    name_hnsw    the graph, unless the rows are few

Left alone, the planner takes the graph for a filter, of whose rows it then finds few, and its choice for all rows turns
with the size of the table. Exact searches therefore order by the distance + 0, which no graph serves, and searches of
the graph switch the other plans off. All settings are of one transaction, and nothing is prepared on the server, so
that PgBouncer may stand between.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import RefusedPasswordError, StoreError, UnreachableStoreError, UsageError
from bridgetower.index.stores.address import Address
from bridgetower.index.stores.table import Effort, Stamp
from bridgetower.index.vectors.catalog_vectors import few
from bridgetower.index.vectors.measure import RECALL_AT
from bridgetower.installation import how_to_install

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_M, _EF_CONSTRUCTION = 16, 200  # m 24 finds as much in the same time, and takes 1.8 times as long to build
_EF_MOST = 1000  # the largest hnsw.ef_search
# hnsw.ef_search, and the rows of the graph that are compared: recall depends on these alone. More than ef_search are
# read from the table, too, because they come in parts that are ordered each by itself.
_PAIRS = ((100, 100), (200, 200), (400, 400), (700, 700), (1000, 1000), (600, 1200), (700, 1400), (1000, 2000))
_EFFORTS = tuple(Effort(*pair) for pair in (*_PAIRS, (1000, 3000), (1000, 5000), (1000, 10_000)))
_EXACT = Effort(0, RECALL_AT)
_ROWS_FOR_CANDIDATE = 50  # rows that are compared in the time in which a graph proposes one
_AMONG_MOST = 65_536
_BATCH_BYTES = 16 << 20  # of the vectors that are read at a time

_CONNECT_S = 4
_STATEMENT_S = 300  # a search that takes longer is given up
_NETWORK = {  # a peer that is gone is noticed within half a minute
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,  # ms
}
_LEAST_VERSION = (0, 8)  # of pgvector: scans of a graph that go on until enough rows are found
# A server that answers, and will give the same answer again; and those that have only no time now.
_REFUSED = re.compile("FATAL:|server does not support|connection is bad: invalid|invalid ")
_BUSY = re.compile("starting up|shutting down|recovery|too many|connection slots|terminating")
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"
_BIGINT = 20  # the OID of the type

_ASCENDING = {"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off"}
_BY_GRAPH = _ASCENDING | {
    "hnsw.iterative_scan": "relaxed_order",  # the scan goes on until there are as many as the limit
    "hnsw.max_scan_tuples": "1000000000",
    "hnsw.scan_mem_multiplier": "32",
}

Result = TypeVar("Result")


class PostgresTable:
    """The table of an index. Its name has no % and at most 57 bytes, because PostgreSQL cuts names at 63."""

    def __init__(self, address: Address, name: str, dim: int, password: str | None) -> None:
        from psycopg import sql

        self._address, self._dim, self._password = address, dim, password
        self._sql: Callable[[str], Any] = lambda text: sql.SQL(text).format(**names)
        names: dict[str, Any] = {
            "table": sql.Identifier(name),
            "stamp": sql.Identifier(f"{name}_stamp"),
            "graph": sql.Identifier(f"{name}_hnsw"),
            "graph_name": sql.Literal(sql.Identifier(f"{name}_hnsw").as_string(None)),
            "table_name": sql.Literal(sql.Identifier(name).as_string(None)),
            "dim": sql.Literal(dim),
        }
        half = [("dim", ">i2"), ("unused", ">i2"), ("vector", ">f2", (dim,))]
        self._half = np.dtype(half)
        self._row = np.dtype([("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i8"), ("bytes", ">i4"), *half])
        self._batch = max(1, _BATCH_BYTES // self._half.itemsize)
        self._connection: Connection | None = None
        self._is_closed = False

    @classmethod
    def connect(cls, address: Address, name: str, dim: int, password: str | None) -> Self:
        """Connect to the database within _CONNECT_S.

        Without a password, libpq looks for one, in PGPASSWORD and in ~/.pgpass. Raises UsageError if the driver is not
        installed, UnreachableStoreError, and StoreError if pgvector is too old.
        """
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise UsageError(f"{address}: needs the extra postgres: {how_to_install('postgres')}") from error
        table = cls(address, name, dim, password)
        with table._errors():
            table._connected()
        return table

    # The state

    def stamp(self) -> Stamp | None:
        statement = self._sql(
            "SELECT generation, pruned, token FROM {stamp}, pg_attribute"
            " WHERE attrelid = {table_name}::regclass AND attname = 'vector' AND atttypmod = {dim}"
        )

        def read(connection: "Connection") -> Stamp | None:
            import psycopg

            try:
                row = connection.execute(statement).fetchone()
            except psycopg.errors.UndefinedTable:
                return None
            return None if row is None else Stamp(*row)

        return self._read(read)

    def create(self, stamp: Stamp) -> None:
        self._create_extension()
        with self._writing() as connection:
            connection.execute(self._sql("DROP TABLE IF EXISTS {table}, {stamp}"))
            # PLAIN, because vectors of more than 2 kB would be moved out of the rows, which slows all comparisons.
            connection.execute(
                self._sql("CREATE TABLE {table} (id bigint PRIMARY KEY, vector halfvec({dim}) STORAGE PLAIN NOT NULL)")
            )
            connection.execute(self._sql("ALTER TABLE {table} ALTER vector SET STATISTICS 0"))
            connection.execute(
                self._sql(
                    "CREATE TABLE {stamp} (generation bigint NOT NULL, pruned bigint NOT NULL, token bigint NOT NULL,"
                    " graph oid)"
                )
            )
            connection.execute(self._sql("INSERT INTO {stamp} VALUES (%s, %s, %s)"), stamp)

    def drop(self) -> None:
        with self._writing() as connection:
            connection.execute(self._sql("DROP TABLE IF EXISTS {table}, {stamp}"))

    def prepare(self, new: int) -> None:
        # Inserting a row into a graph takes about twice as long as building the graph with it.
        if new > self._rows():
            with self._writing() as connection:
                connection.execute(self._sql("DROP INDEX IF EXISTS {graph}"))

    # Rows

    def insert(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], stamp: Stamp) -> None:
        rows = np.zeros(len(ids), self._row)
        rows["fields"], rows["id_bytes"], rows["bytes"] = 2, 8, self._half.itemsize
        rows["id"], rows["dim"], rows["vector"] = ids, self._dim, vectors
        with self._writing() as connection:
            statement = self._sql("COPY {table} (id, vector) FROM STDIN (FORMAT binary)")
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(_COPY_HEAD)
                copy.write(rows.tobytes())
                copy.write(_COPY_END)
            self._set_stamp(connection, stamp)

    def remove(self, ids: NDArray[np.int64], stamp: Stamp) -> None:
        with self._writing() as connection:
            connection.execute(self._sql("DELETE FROM {table} WHERE id = ANY (%b::bigint[])"), [_array(ids)])
            self._set_stamp(connection, stamp)

    def remove_above(self, id: int) -> None:
        with self._writing() as connection:
            connection.execute(self._sql("DELETE FROM {table} WHERE id > %s"), [id])

    def _set_stamp(self, connection: "Connection", stamp: Stamp) -> None:
        connection.execute(self._sql("UPDATE {stamp} SET generation = %s, pruned = %s, token = %s"), stamp)

    def count(self) -> int:
        return int(self._read(lambda connection: _only(connection.execute(self._sql("SELECT count(*) FROM {table}")))))

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        statement = "COPY (SELECT id, vector FROM {table} WHERE id > %s ORDER BY id LIMIT %s) TO STDOUT (FORMAT binary)"
        last = -1

        def read(connection: "Connection") -> NDArray[Any]:
            with connection.cursor() as cursor, cursor.copy(self._sql(statement), [last, self._batch]) as copy:
                data = b"".join(copy)
            return np.frombuffer(data[len(_COPY_HEAD) : -len(_COPY_END)], self._row)

        while len(found := self._read(read, _ASCENDING)):
            last = int(found["id"][-1])
            yield found["id"].astype(np.int64), found["vector"].astype(np.float32)

    def vectors(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        statement = self._sql("SELECT id, vector FROM {table} WHERE id = ANY (%b::bigint[])")
        some = b""

        def read(connection: "Connection") -> list[tuple[int, bytes]]:
            found: list[tuple[int, bytes]] = connection.execute(statement, [some], binary=True).fetchall()
            return found

        for start in range(0, len(ids), self._batch):
            some = _array(ids[start : start + self._batch])
            found = self._read(read)
            halves = np.frombuffer(b"".join(half for _, half in found), self._half)
            yield from zip((id for id, _ in found), halves["vector"].astype(np.float32), strict=True)

    # Searches

    def arrange(self) -> str:
        rows = self.count()
        if few(rows):
            with self._writing() as connection:
                connection.execute(self._sql("DROP INDEX IF EXISTS {graph}"))
                connection.execute(self._sql("ANALYZE {table}"))
                connection.execute(self._sql("UPDATE {stamp} SET graph = NULL"))
            return "exact"
        self._build(rows)
        return f"HNSW, m {_M}, ef_construction {_EF_CONSTRUCTION}"

    def _build(self, rows: int) -> None:
        import psycopg

        with self._writing() as connection:
            if _only(connection.execute(self._sql("SELECT to_regclass({graph_name}) IS NULL"))):
                _set(connection, self._build_settings(connection, rows))
                statement = self._sql("CREATE INDEX {graph} ON {table} USING hnsw (vector halfvec_ip_ops)")
                statement += self._sql(f" WITH (m = {_M}, ef_construction = {_EF_CONSTRUCTION})")
                try:
                    with connection.transaction():
                        connection.execute(statement)
                except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
                    # Workers build in shared memory, and containers often have 64 MB of that.
                    _set(connection, {"max_parallel_maintenance_workers": "0"})
                    connection.execute(statement)
            connection.execute(self._sql("ANALYZE {table}"))
            connection.execute(self._sql("UPDATE {stamp} SET graph = pg_relation_filenode({graph_name})"))

    def _build_settings(self, connection: "Connection", rows: int) -> dict[str, str]:
        """Return the settings to build the graph of so many rows.

        A graph that has no room in maintenance_work_mem takes many times as long to build. The server does not tell how
        much memory it has: half of effective_cache_size, which its administrator or the default assumes, may be taken.
        """
        need = rows * (2 * self._dim + 24 * _M + 200) * 5 // 4 // 1024
        statement = (
            "SELECT greatest(m.setting::bigint, least(%s, c.setting::bigint * 8 / 2)), w.setting"
            " FROM pg_settings m, pg_settings c, pg_settings w WHERE m.name = 'maintenance_work_mem'"
            " AND c.name = 'effective_cache_size' AND w.name = 'max_parallel_workers'"
        )
        memory, workers = connection.execute(statement, [need]).fetchall()[0]
        return {"maintenance_work_mem": f"{memory}kB", "max_parallel_maintenance_workers": workers}

    def compacted(self) -> bool:
        """Return whether the graph is another than `arrange` built: after REINDEX, or from a dump."""
        statement = self._sql(
            "SELECT graph IS DISTINCT FROM pg_relation_filenode(to_regclass({graph_name})) FROM {stamp}"
        )
        return bool(self._read(lambda connection: _only(connection.execute(statement))))

    def efforts(self) -> Sequence[Effort]:
        rows = self._rows()
        if few(rows):
            return [_EXACT]
        return [*(effort for effort in _EFFORTS if effort.candidates * _ROWS_FOR_CANDIDATE < rows), _EXACT]

    def _rows(self) -> int:
        """Return about the number of rows, as of the last `arrange` or VACUUM; 0 before the first."""
        statement = self._sql("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = {table_name}::regclass")
        return int(self._read(lambda connection: _only(connection.execute(statement))))

    def search(self, query: NDArray[np.float32], k: int, effort: Effort) -> NDArray[np.int64]:
        if effort.effort:
            share = max(k, RECALL_AT) / RECALL_AT
            ef, candidates = min(_EF_MOST, round(effort.effort * share)), round(effort.candidates * share)
            if k <= RECALL_AT or candidates * _ROWS_FOR_CANDIDATE < self._rows():
                found = self._search_graph(query, k, ef, candidates)
                if len(found) >= k:
                    return found
        statement = self._sql("SELECT id FROM {table} ORDER BY (vector <#> %b::halfvec) + 0 LIMIT %s")
        return self._nearest({}, statement, [self._bytes(query), k])

    def _search_graph(self, query: NDArray[np.float32], k: int, ef: int, candidates: int) -> NDArray[np.int64]:
        # All rows of the graph are only about in order. Without + 0, PostgreSQL 17 takes them for ordered and reads k.
        statement = self._sql(
            "SELECT id FROM (SELECT id, vector <#> %b::halfvec AS distance FROM {table}"
            " ORDER BY vector <#> %b::halfvec LIMIT %s) AS found ORDER BY distance + 0 LIMIT %s"
        )
        half, read = self._bytes(query), k if candidates <= ef else candidates
        return self._nearest(_BY_GRAPH | {"hnsw.ef_search": str(ef)}, statement, [half, half, read, k])

    @property
    def among_most(self) -> int:
        return _AMONG_MOST

    def search_among(self, query: NDArray[np.float32], k: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        statement = self._sql(
            "SELECT id FROM {table} WHERE id = ANY (%b::bigint[]) ORDER BY (vector <#> %b::halfvec) + 0 LIMIT %s"
        )
        return self._nearest({}, statement, [_array(ids), self._bytes(query), k])

    def _nearest(self, settings: Mapping[str, str], statement: Any, values: Sequence[object]) -> NDArray[np.int64]:
        def read(connection: "Connection") -> NDArray[np.int64]:
            found = connection.execute(statement, values, binary=True).fetchall()
            return np.fromiter((id for (id,) in found), np.int64, len(found))

        return self._read(read, settings)

    def _bytes(self, vector: NDArray[np.float32]) -> bytes:
        """Return a vector `[E]` as a binary halfvec."""
        half = np.zeros((), self._half)
        half["dim"], half["vector"] = self._dim, vector
        return half.tobytes()

    # The connection

    def close(self) -> None:
        self._is_closed = True
        if self._connection is not None:
            self._connection.close()

    def _read(self, run: "Callable[[Connection], Result]", settings: Mapping[str, str] | None = None) -> Result:
        """Return the result of `run` in a transaction with these settings; retry once if the connection was lost."""
        import psycopg

        limited = {"statement_timeout": f"{_STATEMENT_S}s", "jit": "off"} | dict(settings or {})

        def within_time(connection: "Connection") -> Result:
            begin = time.monotonic()
            try:
                with _transaction(connection, limited):
                    return run(connection)
            except psycopg.errors.QueryCanceled as error:
                if time.monotonic() - begin < _STATEMENT_S:  # an administrator has cancelled it
                    raise
                raise StoreError(
                    f"{self._address}: the search took longer than {_STATEMENT_S} s; run it again when it is less busy"
                ) from error

        with self._errors():
            connection, is_new = self._connected()
            try:
                return within_time(connection)
            except Exception:
                if is_new or not connection.closed:
                    raise
            return within_time(self._connected()[0])

    @contextmanager
    def _writing(self) -> "Iterator[Connection]":
        """Run a transaction without a time limit. It is not retried, because a lost one may have been committed."""
        self._read(lambda connection: connection.execute("SELECT 1"))  # replaces a lost connection
        with self._errors():
            connection, _ = self._connected()
            with _transaction(connection, {"statement_timeout": "0"}):
                yield connection

    def _connected(self) -> "tuple[Connection, bool]":
        """Return the connection, and whether it is new."""
        if self._is_closed:
            raise StoreError(f"{self._address}: the connection was closed; run it again")
        if self._connection is not None and not self._connection.closed:
            return self._connection, False
        self._connection = self._within_time()
        return self._connection, True

    def _within_time(self) -> "Connection":
        """Connect in a thread: slow resolvers, hosts with many addresses and proxies that queue do not end in time."""
        outcomes: SimpleQueue[Connection | BaseException] = SimpleQueue()
        lock, waits = threading.Lock(), True

        def connect() -> None:
            outcome: Connection | BaseException
            try:
                outcome = self._open()
            except BaseException as error:  # noqa: BLE001  # raised in the thread that waits
                outcome = error
            with lock:
                if waits:
                    outcomes.put(outcome)
                    return
            if not isinstance(outcome, BaseException):
                outcome.close()

        threading.Thread(target=connect, name="bt-postgres", daemon=True).start()
        try:
            outcome = outcomes.get(timeout=_CONNECT_S)
        except Empty:
            with lock:
                waits = False
            late = UnreachableStoreError(str(self._address), f"no connection within {_CONNECT_S} s")
            outcome = late if outcomes.empty() else outcomes.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _open(self) -> "Connection":
        import psycopg
        from psycopg.types.string import BytesBinaryDumper

        address, parameters = self._address, dict(self._address.parameters)
        host = parameters.pop("host", address.host)
        addresses = 1
        if not host.startswith("/"):
            addresses = len(socket.getaddrinfo(host, address.port, proto=socket.IPPROTO_TCP))
        connection = psycopg.connect(
            host=host,
            port=address.port,
            user=address.user,
            dbname=address.database,
            password=self._password,
            connect_timeout=max(2, _CONNECT_S // addresses),  # for each of them; libpq takes 1 for 2
            application_name="bridgetower",
            autocommit=True,
            prepare_threshold=None,
            **_NETWORK,
            **parameters,
        )
        try:
            self._check_extension(connection)
        except BaseException:
            connection.close()
            raise
        # Bytes are values in the binary form of the type that the statement expects.
        connection.adapters.register_dumper(bytes, type("Untyped", (BytesBinaryDumper,), {"oid": 0}))
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of psycopg and of the network into StoreError, in one line."""
        import psycopg

        try:
            yield
        except (psycopg.Error, OSError) as error:
            why = getattr(getattr(error, "diag", None), "message_primary", None) or str(error).partition("\n")[0]
            why = why.rpartition(" failed: ")[2]  # "connection to server at ..." repeats the address
            if "password" in why:
                raise RefusedPasswordError(str(self._address), why) from error
            if self._connection is None and _REFUSED.match(why) and not _BUSY.search(why):
                raise StoreError(f"{self._address}: {why.removeprefix('FATAL:').strip()}") from error
            if self._connection is None or self._connection.closed or isinstance(error, OSError):
                raise UnreachableStoreError(str(self._address), why) from error
            raise StoreError(f"{self._address}: {' '.join(why.split())}") from error

    # The extension

    def _check_extension(self, connection: "Connection") -> None:
        statement = (
            "SELECT extversion, extnamespace::regnamespace::text, to_regtype('halfvec') IS NULL"
            " FROM pg_extension WHERE extname = 'vector'"
        )
        row = connection.execute(statement).fetchone()
        if row is None:
            return
        version, schema, is_hidden = row
        if tuple(int(part) for part in version.split(".")[:2]) < _LEAST_VERSION:
            raise StoreError(
                f"{self._address}: pgvector {version} is too old: install 0.8 or newer on the server, then run "
                "ALTER EXTENSION vector UPDATE in this database"
            )
        if is_hidden:
            raise StoreError(f"{self._address}: pgvector is in the schema {schema}: add that to the search_path")

    def _create_extension(self) -> None:
        import psycopg

        def create(connection: "Connection") -> None:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
                raise StoreError(f"{self._address}: the server has no pgvector: install 0.8 or newer there") from error
            except psycopg.errors.InsufficientPrivilege as error:
                raise StoreError(
                    f"{self._address}: pgvector is not set up in this database: let its administrator run "
                    "CREATE EXTENSION vector in it"
                ) from error
            self._check_extension(connection)

        self._read(create)


def _array(ids: NDArray[np.int64]) -> bytes:
    """Return ids `[n]` as a binary bigint[]."""
    head = np.array([1, 0, _BIGINT, len(ids), 1], ">i4")  # dimensions, no nulls, type, length, the first subscript
    elements = np.zeros(len(ids), [("bytes", ">i4"), ("id", ">i8")])
    elements["bytes"], elements["id"] = 8, ids
    return head.tobytes() + elements.tobytes()


def _only(cursor: "psycopg.Cursor[tuple[Any, ...]]") -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]


@contextmanager
def _transaction(connection: "Connection", settings: Mapping[str, str]) -> Iterator[None]:
    """Run a transaction with these settings."""
    with connection.transaction():
        _set(connection, settings)
        yield


def _set(connection: "Connection", settings: Mapping[str, str]) -> None:
    """Make these settings for the present transaction, in one round trip."""
    calls = ", ".join(["set_config(%s, %s, true)"] * len(settings))
    connection.execute(f"SELECT {calls}", [part for setting in settings.items() for part in setting])
