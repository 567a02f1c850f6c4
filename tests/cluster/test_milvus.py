"""Test a table in Milvus beyond the protocol, on a real Milvus 2.3.5."""

import itertools
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bridgetower.errors import RefusedPasswordError, StoreError, UnreachableStoreError
from bridgetower.index.stores import milvus as adapter
from bridgetower.index.stores import milvus_requests as requests
from bridgetower.index.stores.address import Address
from bridgetower.index.stores.milvus import MilvusTable
from bridgetower.index.stores.table import Effort, Stamp
from tests.cluster.milvus_server import PASSWORD, Milvus

DIM = 32
FIRST, SECOND = Stamp(1, 0), Stamp(2, 0)


@pytest.fixture
def table(milvus: Milvus, monkeypatch: pytest.MonkeyPatch) -> Iterator[MilvusTable]:
    """An empty table, which arranges more than 3,000 rows as it would very many."""
    monkeypatch.setattr("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", 3000)
    table = milvus.table("bt_milvus", DIM)
    table.create(FIRST)
    yield table
    table.drop()
    table.close()


@pytest.fixture
def client(table: MilvusTable) -> Any:
    """The client of pymilvus that the table uses."""
    return table._client


def unit(number: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((number, DIM), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def fill(table: MilvusTable, first: int, last: int) -> NDArray[np.float32]:
    vectors = unit(last - first + 1, seed=first)
    table.insert(np.arange(first, last + 1), vectors, SECOND)
    return vectors


# Connections


def refused(address: Address, password: str | None, kind: type[StoreError] = UnreachableStoreError) -> str:
    """Return the message of a connection that fails, within 5 seconds and in one line."""
    begin = time.monotonic()
    with pytest.raises(kind) as caught:
        MilvusTable.connect(address, "bt_milvus", DIM, password)
    assert time.monotonic() - begin < 5
    message = str(caught.value)
    assert "\n" not in message and (password is None or password not in message)
    return message


def test_a_wrong_password(milvus: Milvus) -> None:
    nobody, no_one = (Address("milvus", "127.0.0.1", milvus.port, user, None) for user in ("nobody", None))
    assert "auth check failure" in refused(milvus.address, "s3cret", RefusedPasswordError)
    assert "auth check failure" in refused(nobody, PASSWORD, RefusedPasswordError)
    assert "missing authorization" in refused(no_one, None, RefusedPasswordError)


def test_a_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "Connection refused" in refused(Address("milvus", "127.0.0.1", port, "root", None), "s3cret")


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("milvus", "127.0.0.1", silent.getsockname()[1], "root", None)
        assert "does not answer in time" in refused(address, "s3cret")


def test_a_host_that_is_not_there() -> None:
    assert "no-such-host.invalid" in refused(Address("milvus", "no-such-host.invalid", 19530, None, None), None)


def test_a_server_without_encryption(milvus: Milvus) -> None:
    address = Address("milvus", "127.0.0.1", milvus.port, "root", None, (("secure", "true"),))
    assert "handshake failed" in refused(address, PASSWORD)


def test_nothing_is_written_to_the_terminal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = (
        "from bridgetower.index.stores.milvus import *\n"
        f"try: MilvusTable.connect(Address('milvus', '127.0.0.1', {port}, None, None), 'bt_milvus', {DIM}, None)\n"
        "except UnreachableStoreError: pass\n"
        "else: raise SystemExit(9)\n"
    )
    environment = {**os.environ, "MILVUS_URI": "not one"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Rows


def test_it_says_that_the_vectors_are_float32(table: MilvusTable) -> None:
    fill(table, 1, 50)
    assert table.arrange() == "exact, float32 (the Milvus that made this table has no float16)"


def test_an_attempt_that_failed_after_it_was_applied(
    table: MilvusTable, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymilvus.exceptions import MilvusException

    insert, calls = client.insert, []

    def apply_and_fail(*arguments: Any, **options: Any) -> None:
        calls.append(len(arguments[1]))
        insert(*arguments, **options)
        raise MilvusException(1, "service not ready")

    monkeypatch.setattr(client, "insert", apply_and_fail)
    vectors = fill(table, 1, 5000)
    assert calls == [2000, 2000, 1000]
    assert table.count() == 5000
    assert np.array_equal(np.concatenate([some for _, some in table.rows()]), vectors)


def test_rows_that_milvus_holds_twice(table: MilvusTable, client: Any) -> None:
    vectors = fill(table, 1, 1500)
    client.flush("bt_milvus")
    client.insert("bt_milvus", [{"id": id, "vector": vectors[id - 1]} for id in range(1, 1001)])
    assert [id for ids, _ in table.rows() for id in ids] == list(range(1, 1501))
    assert [id for id, _ in table.vectors(np.array([900, 7, 1200, 5000]))] == [7, 900, 1200]
    found = table.search(vectors[0], 1500, Effort(0, 100))
    assert sorted(found.tolist()) == list(range(1, 1501))
    assert sorted(table.search_among(vectors[0], 9, np.arange(1, 10)).tolist()) == list(range(1, 10))
    table.remove_above(500)
    assert [id for ids, _ in table.rows() for id in ids] == list(range(1, 501))


def test_ids_far_apart(table: MilvusTable) -> None:
    ids = np.array([1, 5000, 10**6, 2**40, 2**40 + 1, 2**63 - 2])
    table.insert(ids, unit(6), SECOND)
    assert np.concatenate([some for some, _ in table.rows()]).tolist() == ids.tolist()
    assert sorted(table.search(unit(1)[0], 20_000, Effort(0, 100)).tolist()) == ids.tolist()


# Searches


def test_a_graph(table: MilvusTable) -> None:
    ids, vectors = np.arange(1, 12_001) * adapter._PARTS, unit(12_000)  # ids of one remainder
    table.insert(ids, vectors, SECOND)
    assert table.arrange() == (
        "HNSW, M 16, efConstruction 200, float32 (the Milvus that made this table has no float16)"
    )
    efforts = table.efforts()
    assert efforts[-1] == Effort(0, 100) and [effort.effort for effort in efforts[:-1]] == list(adapter._EFS)

    def recalls(k: int, effort: Effort, number: int = 20) -> list[float]:
        queries = unit(number, seed=7)
        true = (ids[np.argsort(-(vectors @ query))[:k]] for query in queries)
        return [np.isin(some, table.search(query, k, effort)).mean() for some, query in zip(true, queries, strict=True)]

    assert np.mean(recalls(100, Effort(100, 100))) < 0.97
    assert min(recalls(100, efforts[-1])) == 1
    assert recalls(8000, efforts[-1], 1) == [1]  # all of them in one part
    for k in (10, 100, 1000, 8000):  # it does not fall
        assert np.mean(recalls(k, Effort(400, 100))) > 0.97


def test_ids_of_many_remainders_are_compared(table: MilvusTable) -> None:
    ids, vectors = np.arange(1, 12_001), unit(12_000)
    table.insert(ids, vectors, SECOND)
    table.arrange()
    for query in unit(10, seed=7):
        order = ids[np.argsort(-(vectors @ query))]
        for k in (100, 9000):
            assert np.isin(order[:k], table.search(query, k, Effort(0, 100))).all()
        some = np.arange(5001, 5001 + table.among_most)
        best = some[np.argsort(-(vectors[some - 1] @ query))[:100]]
        assert np.array_equal(table.search_among(query, 100, some), best)


def test_an_index_without_a_graph_becomes_one_again(table: MilvusTable) -> None:
    fill(table, 1, 4000)
    assert table.arrange().startswith("HNSW")
    table.prepare(10)
    assert len(table.efforts()) > 1
    table.prepare(4001)  # faster without the graph
    assert table.efforts() == [Effort(0, 100)]
    table.remove(np.arange(1, 2001), SECOND)
    assert table.arrange().startswith("exact")
    assert table.count() == 2000


# Compaction, and work that was broken off


def test_compaction(table: MilvusTable, client: Any) -> None:
    for first in (1, 1501):
        fill(table, first, first + 1499)
        client.flush("bt_milvus")
    table.arrange()
    assert not table.compacted()
    fill(table, 3001, 3100)
    client.flush("bt_milvus")
    assert not table.compacted()  # new rows rearrange none
    client.compact("bt_milvus")
    until = time.monotonic() + 60
    while not table.compacted():
        assert time.monotonic() < until
        time.sleep(0.1)
    table.arrange()
    assert not table.compacted()
    assert len(client.list_persistent_segments("bt_milvus")) == 1
    assert [id for ids, _ in table.rows() for id in ids] == list(range(1, 3101))


def test_an_index_that_was_dropped_is_made_again(table: MilvusTable, client: Any) -> None:
    fill(table, 1, 100)
    client.release_collection("bt_milvus")
    client.drop_index("bt_milvus", "vector")
    table.remove_above(50)
    assert table.count() == 50
    assert table.arrange().startswith("exact")


def test_a_reader_loads_the_collection_while_its_index_is_dropped(
    table: MilvusTable, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(table, 1, 100)
    drop = client.drop_index
    refusals: list[str] = []

    def load_and_drop(*arguments: Any, **options: Any) -> None:
        if not refusals:
            client.load_collection("bt_milvus")
        try:
            drop(*arguments, **options)
        except Exception as error:
            refusals.append(str(error))
            raise

    monkeypatch.setattr(client, "drop_index", load_and_drop)
    table._change_index(graph=True)
    assert len(refusals) == 1 and "loaded" in refusals[0]
    assert table._has_graph() and table.count() == 100


def test_a_removal_sets_the_stamp_before_it_deletes(
    table: MilvusTable, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(table, 1, 5000)
    delete, stamps = client.delete, []

    def see_and_delete(*arguments: Any, **options: Any) -> None:
        stamps.append(table.stamp())
        delete(*arguments, **options)

    monkeypatch.setattr(client, "delete", see_and_delete)
    third = Stamp(3, 3, 3)
    table.remove(np.arange(1, 4001), third)
    assert stamps == [third, third]
    assert table.count() == 1000


def test_one_table_finds_the_newest_rows_after_a_restart(
    milvus: Milvus, table: MilvusTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is flushed here, so that Milvus has to read all rows from its log again."""
    forgets = "pymilvus.client.ts_utils.update_collection_ts"  # as if another process had written the rows
    monkeypatch.setattr(forgets, lambda *_, **__: None)
    for first in range(1, 60_001, 20_000):
        fill(table, first, first + 19_999)
    newest = fill(table, 60_001, 60_001)[0]
    effort = Effort(0, 100)
    reader = milvus.table("bt_milvus", DIM)
    for _ in range(2):
        assert 60_001 in reader.search(newest, 5, effort)
    milvus.kill()
    milvus.start()
    for _ in range(5):
        assert 60_001 in reader.search(newest, 5, effort)
    reader.close()


def test_the_requests_of_one_search_wait_together(
    table: MilvusTable, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymilvus.exceptions import MilvusException

    fill(table, 1, 100)
    table._change_index(graph=True)
    monkeypatch.setattr(requests, "_RECOVERY_S", 3.0)
    search, calls = client.search, itertools.count(1)

    def fail_twice_of_three(*arguments: Any, **options: Any) -> Any:
        if next(calls) % 3:
            raise MilvusException(1, "service not ready")
        return search(*arguments, **options)

    monkeypatch.setattr(client, "search", fail_twice_of_three)
    begin = time.monotonic()
    with pytest.raises(UnreachableStoreError, match="not ready"):
        table.search(unit(1)[0], 10, Effort(0, 100))
    assert 2 < time.monotonic() - begin < 8
    monkeypatch.setattr(client, "search", search)
    assert len(table.search(unit(1)[0], 10, Effort(0, 100))) >= 10


def test_a_collection_that_was_released_is_loaded_by_a_reader(milvus: Milvus, table: MilvusTable, client: Any) -> None:
    fill(table, 1, 100)
    client.release_collection("bt_milvus")
    reader = milvus.table("bt_milvus", DIM)
    assert len(reader.search(unit(1)[0], 10, Effort(0, 100))) >= 10
    reader.close()


def test_what_milvus_refuses_is_one_line(milvus: Milvus) -> None:
    refused = milvus.table("no name", DIM)
    with pytest.raises(StoreError, match=re.escape("Invalid collection name")) as caught:
        refused.create(FIRST)
    assert "\n" not in str(caught.value)
    refused.close()


def test_milvus_lite_is_refused(tmp_path: Path) -> None:
    """It differs from a server in its defaults and in its recall, and can not tell when it has rearranged rows."""
    lite = pytest.importorskip("milvus_lite.server_manager").ServerManager()
    try:
        port = int(lite.start_and_get_uri(str(tmp_path / "lite.db")).rpartition(":")[2])
        table = MilvusTable.connect(Address("milvus", "127.0.0.1", port, None, None), "bt_milvus", DIM, None)
        assert table.stamp() is None
        with pytest.raises(StoreError, match="use a Milvus server"):
            table.create(FIRST)
        table.close()
    finally:
        lite.release_all()
