"""A table in PostgreSQL beyond the protocol: plans, connections, passwords, and servers that lack something."""

import contextlib
import itertools
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from bridgetower.errors import StoreError, UnreachableStoreError, UsageError
from bridgetower.index.stores import postgres as module
from bridgetower.index.stores.address import Address
from bridgetower.index.stores.postgres import PostgresTable
from bridgetower.index.stores.table import Effort
from bridgetower.index.vectors import catalog_vectors
from tests.cluster.postgres_server import PASSWORD, PostgresServer
from tests.cluster.test_tables import DIM, FIRST, SECOND, all_rows, fill, numbers, unit

ROWS = 3000
GRAPH = Effort(100, 200)
EXACT = Effort(0, 100)


@pytest.fixture
def table(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresTable]:
    """A table whose graph is built from ROWS rows on."""
    monkeypatch.setattr(catalog_vectors, "EXACT_MOST", ROWS - 1)
    monkeypatch.setattr(module, "_ROWS_FOR_CANDIDATE", 1)
    table = PostgresTable.connect(postgres.local, "bt_test", DIM, None)
    table.create(FIRST)
    yield table
    table.drop()
    table.close()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """A database without pgvector."""
    postgres.psql("CREATE DATABASE plain")
    yield "plain"
    postgres.psql("DROP DATABASE plain WITH (FORCE)")


def one(table: PostgresTable, statement: str) -> Any:
    """Run SQL on the connection of a table and return the only value."""
    return table._read(lambda connection: module._only(connection.execute(statement)))


def scans(table: PostgresTable, index: str, what: str = "idx_scan") -> int:
    """Return how often an index was read, or how many rows with "idx_tup_read"."""
    one(table, "SELECT pg_stat_force_next_flush()::text")
    one(table, "SELECT pg_stat_clear_snapshot()::text")
    return int(one(table, f"SELECT {what} FROM pg_stat_user_indexes WHERE indexrelname = '{index}'"))


def end_connection(postgres: PostgresServer, table: PostgresTable) -> None:
    pid = one(table, "SELECT pg_backend_pid()")
    postgres.psql(f"SELECT pg_terminate_backend({pid}, 5000)")


# Plans


@pytest.mark.parametrize("rows", [ROWS, 6000])
def test_searches_take_the_plan_that_is_meant(rows: int, table: PostgresTable) -> None:
    ids, _ = fill(table, rows)
    assert table.arrange() == "HNSW, m 16, ef_construction 200"
    query = unit(1, seed=1)[0]
    begin = scans(table, "bt_test_hnsw"), scans(table, "bt_test_pkey")
    for k, effort in itertools.product((1, 100, 300), [GRAPH, *table.efforts()[:-1]]):
        table.search(query, k, effort)
    graph, key = scans(table, "bt_test_hnsw"), scans(table, "bt_test_pkey")
    assert graph >= begin[0] + 3 + 2 * (len(table.efforts()) - 1) and key == begin[1]
    for k, some in itertools.product((1, 100, 2000), (ids[:1], ids[:100], ids[::30], ids[::2], ids)):
        table.search_among(query, k, some)
        table.search(query, k, EXACT)
    assert scans(table, "bt_test_hnsw") == graph
    assert scans(table, "bt_test_pkey") > key


@pytest.mark.parametrize(
    ("effort", "read"), [((100, 100), 100), ((1000, 1000), 100), ((100, 150), 150), ((100, 900), 900)]
)
def test_as_many_rows_are_read_as_the_order_of_the_graph_demands(
    effort: tuple[int, int], read: int, table: PostgresTable
) -> None:
    """PostgreSQL 17 and later take the rows of the graph for ordered, and stop after k of them, unless told not to."""
    fill(table, ROWS)
    table.arrange()
    begin = scans(table, "bt_test_hnsw", "idx_tup_read")
    assert len(table.search(unit(1)[0], 100, Effort(*effort))) == 100
    assert scans(table, "bt_test_hnsw", "idx_tup_read") == begin + read


def test_the_graph_is_kept_for_few_new_rows_and_dropped_for_many(table: PostgresTable) -> None:
    fill(table, ROWS)
    table.arrange()
    there = "SELECT to_regclass('bt_test_hnsw') IS NOT NULL"
    table.prepare(ROWS)
    assert one(table, there)
    table.prepare(ROWS + 1)
    assert not one(table, there)
    assert len(table.search(unit(1)[0], 100, GRAPH)) == 100  # without it
    table.arrange()
    assert one(table, there)
    table.remove(numbers(1, 3000), SECOND)
    assert table.arrange() == "exact" and not one(table, there) and not table.compacted()
    assert table.efforts() == [EXACT]


def test_a_graph_that_was_built_again_is_noticed(table: PostgresTable, postgres: PostgresServer) -> None:
    fill(table, ROWS)
    table.arrange()
    assert not table.compacted()
    postgres.psql("REINDEX INDEX bt_test_hnsw")
    assert table.compacted()


def test_without_shared_memory_the_graph_is_built_by_one_process(
    table: PostgresTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(table, ROWS)
    execute = psycopg.Connection.execute

    def fail_with_workers(connection: Any, statement: Any, *arguments: Any, **options: Any) -> Any:
        if "CREATE INDEX" in str(statement):
            workers = execute(connection, "SHOW max_parallel_maintenance_workers").fetchone()
            if workers != ("0",):
                execute(connection, "DO $$ BEGIN RAISE SQLSTATE '53100'; END $$")
        return execute(connection, statement, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", fail_with_workers)
    table.arrange()
    assert one(table, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'bt_test_hnsw'::regclass")
    assert not table.compacted()


@pytest.mark.parametrize("dim", [1024, 4000])
def test_long_vectors_stay_in_their_rows(dim: int, postgres: PostgresServer) -> None:
    with contextlib.closing(PostgresTable.connect(postgres.local, "bt_long", dim, None)) as table:
        table.create(FIRST)
        table.insert(numbers(1, 50), unit(50, dim=dim), FIRST)
        outside = (
            "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'bt_long' AND reltoastrelid <> 0"
        )
        assert one(table, outside) in (None, 0)
        table.drop()


# Transactions


def test_a_backend_killed_while_it_copies_leaves_nothing(table: PostgresTable, postgres: PostgresServer) -> None:
    ids, _ = fill(table, 500)
    pid = one(table, "SELECT pg_backend_pid()")
    failures: list[BaseException] = []

    def insert() -> None:
        try:
            table.insert(numbers(10_001, 310_000), np.tile(unit(1000), (300, 1)), SECOND)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    writer = threading.Thread(target=insert)
    writer.start()
    with psycopg.connect(host=str(postgres.local.parameters[0][1]), port=postgres.port, user="postgres") as watcher:
        while not watcher.execute("SELECT 1 FROM pg_stat_progress_copy WHERE tuples_processed > 9999").fetchall():
            watcher.rollback()
            assert writer.is_alive()
        os.kill(pid, signal.SIGKILL)
        writer.join(timeout=30)
        with contextlib.suppress(psycopg.OperationalError):  # all connections end with a backend that was killed
            watcher.rollback()
    assert [type(failure) for failure in failures] == [UnreachableStoreError]
    wait_until(lambda: table.count() == 500)  # after the recovery
    assert table.stamp() == FIRST
    assert np.array_equal(all_rows(table)[0], ids)


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(UnreachableStoreError):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rows_with_an_id_that_is_there_change_nothing(table: PostgresTable) -> None:
    fill(table, 10)
    with pytest.raises(StoreError, match="duplicate key") as caught:
        table.insert(numbers(28, 40), unit(13), SECOND)
    assert not isinstance(caught.value, UnreachableStoreError) and "\n" not in str(caught.value)
    assert (table.stamp(), table.count()) == (FIRST, 10)


def test_a_lost_connection_is_replaced_for_reads_and_for_writes(table: PostgresTable, postgres: PostgresServer) -> None:
    ids, _ = fill(table, 500)
    query = unit(1)[0]
    for call in (
        lambda: table.search(query, 5, EXACT),
        lambda: table.search_among(query, 5, ids),
        table.stamp,
        lambda: list(table.rows()),
        lambda: table.remove(ids[:1], SECOND),
        table.arrange,
    ):
        end_connection(postgres, table)
        call()
    assert (table.stamp(), table.count()) == (SECOND, 499)


def test_nothing_of_a_search_stays_on_the_connection(table: PostgresTable) -> None:
    ids, _ = fill(table, ROWS)
    table.arrange()
    for _ in range(10):
        table.search(unit(1)[0], 100, GRAPH)
        table.search_among(unit(1)[0], 100, ids)
    assert one(table, "SELECT count(*) FROM pg_prepared_statements") == 0
    assert one(table, "SHOW enable_seqscan") == "on" and one(table, "SHOW hnsw.ef_search") == "40"
    assert table._connected()[0].info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert one(table, "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()") == "bridgetower"


def test_a_search_that_waits_too_long_is_given_up(
    table: PostgresTable, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(table, 10)
    monkeypatch.setattr(module, "_STATEMENT_S", 1)
    with psycopg.connect(host=str(postgres.local.parameters[0][1]), port=postgres.port, user="postgres") as other:
        other.execute("LOCK TABLE bt_test")
        begin = time.monotonic()
        with pytest.raises(
            StoreError, match=r": the search took longer than 1 s; run it again when it is less busy$"
        ) as caught:
            table.search(unit(1)[0], 5, EXACT)
        assert not isinstance(caught.value, UnreachableStoreError)
        assert time.monotonic() - begin < 5
    assert len(table.search(unit(1)[0], 5, EXACT)) == 5


# Passwords


def connect(address: Address, password: str | None = None) -> None:
    PostgresTable.connect(address, "bt_test", DIM, password).close()


def chain(error: BaseException) -> str:
    """Return all that a log would show of an error."""
    return "".join(traceback.format_exception(error))


def test_the_password_is_given_or_found_where_libpq_looks(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(postgres.tcp, PASSWORD)
    with pytest.raises(StoreError, match="no password supplied: give the password with --store-password-file"):
        connect(postgres.tcp)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        connect(postgres.tcp)
    file = tmp_path / "passwords"
    file.write_text(f"127.0.0.1:{postgres.port}:*:postgres:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    connect(postgres.tcp)


def test_no_password_is_shown(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    wrong = "swordfish 'é\\"
    for given in (True, False):
        if not given:
            monkeypatch.setenv("PGPASSWORD", wrong)
        for address in (postgres.tcp, replace(postgres.tcp, port=1), replace(postgres.tcp, host="nowhere.invalid")):
            with pytest.raises(StoreError) as caught:
                connect(address, wrong if given else None)
            assert "swordfish" not in chain(caught.value) and "\n" not in str(caught.value)
    assert "swordfish" not in caplog.text


# Servers that cannot be reached


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[Address]:
    """Answer every connection to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connections.append(connection)
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Address("postgresql", "127.0.0.1", server.getsockname()[1], "postgres", "postgres")
        server.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()
        thread.join()


def unreachable(address: Address, why: str) -> None:
    begin = time.monotonic()
    with pytest.raises(UnreachableStoreError, match=why) as caught:
        connect(address, PASSWORD)
    assert time.monotonic() - begin < 5.5
    assert str(caught.value).startswith(f"{address}: no answer (") and "\n" not in str(caught.value)


@pytest.fixture
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a connection 2 seconds, the least that libpq can."""
    monkeypatch.setattr(module, "_CONNECT_S", 2)


def test_a_port_that_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    unreachable(Address("postgresql", "127.0.0.1", port, None, None), "Connection refused")


@pytest.mark.usefixtures("shorter")
def test_a_server_that_says_nothing() -> None:
    with listening(lambda connection: None) as address:
        unreachable(address, "timeout expired|no connection within 2 s")


@pytest.mark.usefixtures("shorter")
def test_a_host_that_drops_packets() -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # the queue is full, and the system drops the packets of further ones
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        unreachable(Address("postgresql", "127.0.0.1", full.getsockname()[1], None, None), "timeout|no connection")


def test_a_host_with_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(lambda connection: None) as address:
        port = address.port
        found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))] * 6
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        unreachable(replace(address, host="many.invalid"), "no connection within 4 s")


def test_the_second_address_of_a_host_is_tried_in_time(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.2", postgres.port)):
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, postgres.port))
            for host in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        connect(replace(postgres.tcp, host="two.invalid"), PASSWORD)


@pytest.mark.usefixtures("shorter")
def test_a_name_that_is_never_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()

    def resolve(*_: object, **__: object) -> Any:
        ends.wait()
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        unreachable(Address("postgresql", "slow.invalid", 5432, None, None), "no connection within 2 s")
    finally:
        ends.set()


def read_startup(connection: socket.socket) -> None:
    """Refuse encryption and read the startup message."""
    while connection.recv(8)[4:] in (struct.pack("!i", 80877103), struct.pack("!i", 80877104)):
        connection.sendall(b"N")


def test_a_server_that_starts_up() -> None:
    def refuse(connection: socket.socket) -> None:
        read_startup(connection)
        body = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
        connection.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)
        connection.shutdown(socket.SHUT_WR)

    with listening(refuse) as address:
        unreachable(address, "the database system is starting up")


@pytest.mark.usefixtures("shorter")
def test_a_proxy_that_lets_in_and_finds_no_server() -> None:
    def let_in(connection: socket.socket) -> None:
        read_startup(connection)
        connection.sendall(b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I")

    with listening(let_in) as address:
        unreachable(address, "no connection within 2 s")


def test_a_database_or_a_user_that_is_not_there(postgres: PostgresServer) -> None:
    with pytest.raises(StoreError, match=r'postgres@.*: database "nowhere" does not exist$'):
        connect(replace(postgres.tcp, database="nowhere"), PASSWORD)
    with pytest.raises(StoreError, match="server does not support SSL"):
        connect(replace(postgres.tcp, parameters=(("sslmode", "require"),)), PASSWORD)
    with pytest.raises(StoreError, match=r"password authentication failed for user .*: give the password with"):
        connect(replace(postgres.tcp, user="nobody"), "wrong")
    unreachable(replace(postgres.local, parameters=(("host", "/nowhere"),)), "No such file")


# What a server or this installation may lack


def test_without_the_driver_the_extra_is_named(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"needs the extra postgres: .*pip install .*\[postgres\]"):
        connect(postgres.local)


def make(address: Address) -> None:
    with contextlib.closing(PostgresTable.connect(address, "bt_test", DIM, PASSWORD)) as table:
        assert table.stamp() is None
        table.create(FIRST)
        assert table.stamp() == FIRST


def test_pgvector_is_set_up_by_those_who_may(postgres: PostgresServer, database: str) -> None:
    postgres.psql(f"CREATE USER guest PASSWORD '{PASSWORD}'")
    postgres.psql("GRANT ALL ON SCHEMA public TO guest", database)
    guest = replace(postgres.tcp, user="guest", database=database)
    with pytest.raises(StoreError, match="let its administrator run CREATE EXTENSION vector"):
        make(guest)
    make(replace(postgres.tcp, database=database))
    postgres.psql("DROP TABLE bt_test, bt_test_stamp", database)
    make(guest)
    postgres.psql("DROP OWNED BY guest; DROP USER guest", database)


def test_a_server_without_pgvector(postgres: PostgresServer, database: str) -> None:
    postgres.psql(f"ALTER DATABASE {database} SET extension_control_path = '/nowhere'")
    with pytest.raises(StoreError, match="the server has no pgvector: install"):
        make(replace(postgres.tcp, database=database))


def test_an_old_pgvector(postgres: PostgresServer, database: str) -> None:
    postgres.psql("CREATE EXTENSION vector", database)
    old = "SET allow_system_table_mods = on; UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'"
    postgres.psql(old, database)
    with pytest.raises(StoreError, match=r"pgvector 0\.7\.4 is too old.*ALTER EXTENSION vector UPDATE"):
        connect(replace(postgres.tcp, database=database), PASSWORD)


def test_pgvector_in_a_schema_that_is_not_searched(postgres: PostgresServer, database: str) -> None:
    postgres.psql("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions", database)
    address = replace(postgres.tcp, database=database)
    with pytest.raises(StoreError, match=r"extensions.*search_path"):
        connect(address, PASSWORD)
    postgres.psql(f"ALTER DATABASE {database} SET search_path = public, extensions")
    make(address)


def test_a_user_who_may_create_nothing(postgres: PostgresServer, database: str) -> None:
    postgres.psql("CREATE EXTENSION vector", database)
    postgres.psql(f"CREATE USER guest PASSWORD '{PASSWORD}'")
    with pytest.raises(StoreError, match="permission denied for schema public") as caught:
        make(replace(postgres.tcp, user="guest", database=database))
    assert not isinstance(caught.value, UnreachableStoreError)
    postgres.psql("DROP USER guest")


def test_a_closed_table_stays_closed(table: PostgresTable, postgres: PostgresServer) -> None:
    other = PostgresTable.connect(postgres.local, "bt_test", DIM, None)
    other.close()
    other.close()
    with pytest.raises(StoreError, match="closed"):
        other.count()
