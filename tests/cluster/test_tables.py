"""Every table keeps what `VectorTable` promises, on a real server."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from bridgetower.errors import StoreError, UnreachableStoreError
from bridgetower.index.stores.table import Effort, Stamp, VectorTable
from tests.cluster.conftest import Database

DIM = 16
FIRST, SECOND = Stamp(1, 0, 7), Stamp(2, 1, -(2**63))

Open = Callable[..., VectorTable]
Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]


@pytest.fixture
def open_table(database: Database, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Connect to the table of this test; at the end it is removed."""
    opened: list[VectorTable] = []

    def connect(name: str = "", dim: int = DIM) -> VectorTable:
        opened.append(database.table(name or f"bt_{abs(hash(request.node.nodeid)):x}", dim))
        return opened[-1]

    yield connect
    for table in opened:
        table.drop()
        table.close()


@pytest.fixture
def table(open_table: Open) -> VectorTable:
    table = open_table()
    table.create(FIRST)
    return table


def unit(number: int, seed: int = 0, dim: int = DIM) -> Vectors:
    """Vectors `[number, dim]` of length 1, whose numbers are float16 values."""
    vectors = np.random.default_rng(seed).standard_normal((number, dim), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def numbers(first: int, last: int, step: int = 1) -> Ids:
    return np.arange(first, last + 1, step)


def fill(table: VectorTable, number: int, stamp: Stamp = FIRST) -> tuple[Ids, Vectors]:
    """Insert rows with the ids 3, 6, 9, ... and return them."""
    ids, vectors = numbers(3, 3 * number, 3), unit(number)
    table.insert(ids, vectors, stamp)
    return ids, vectors


def all_rows(table: VectorTable) -> tuple[Ids, Vectors]:
    batches = [(np.zeros(0, np.int64), np.zeros((0, DIM), np.float32)), *table.rows()]
    ids, vectors = (np.concatenate(some) for some in zip(*batches, strict=True))
    return ids, vectors


def nearest(query: Vectors, k: int, ids: Ids, vectors: Vectors) -> set[int]:
    return set(ids[np.argsort(-(vectors @ query), kind="stable")[:k]].tolist())


def exactly(table: VectorTable, query: Vectors, k: int) -> list[int]:
    found: list[int] = table.search(query, k, table.efforts()[-1]).tolist()
    return found


# The state


def test_a_table_begins_with_create_and_ends_with_drop(open_table: Open) -> None:
    table = open_table()
    assert table.stamp() is None
    table.drop()  # nothing
    table.create(SECOND)
    assert table.stamp() == SECOND
    assert table.count() == 0 and list(table.rows()) == []
    assert exactly(table, unit(1)[0], 5) == []
    fill(table, 10)
    table.drop()
    assert table.stamp() is None


def test_create_replaces_a_table_and_its_stamp(open_table: Open, table: VectorTable) -> None:
    fill(table, 100)
    other = open_table(dim=4)
    assert other.stamp() is None  # vectors of another length
    other.create(SECOND)
    assert other.stamp() == SECOND and other.count() == 0
    assert table.stamp() is None


def test_large_numbers_in_a_stamp(table: VectorTable) -> None:
    stamp = Stamp(2**62, 2**61, 2**63 - 1)
    table.insert(numbers(2**61, 2**61), unit(1), stamp)
    assert table.stamp() == stamp
    again = stamp._replace(token=-1)
    table.remove(numbers(5, 5), again)
    assert table.stamp() == again
    assert all_rows(table)[0].tolist() == [2**61]


def test_a_new_connection_sees_the_state(open_table: Open, table: VectorTable) -> None:
    ids, _ = fill(table, 100, SECOND)
    other = open_table()
    assert other.stamp() == SECOND and other.count() == 100
    assert np.array_equal(all_rows(other)[0], ids)


@pytest.mark.parametrize("name", ['bt_"quoted"', "bt 'x'; DROP TABLE y; --", "bt_{}", "BT_Großbuchstaben"])
def test_names_with_quotes(name: str, open_table: Open, request: pytest.FixtureRequest) -> None:
    if not (name.isascii() and name.isidentifier()) and not request.getfixturevalue("database").has_transactions:
        pytest.skip("names are identifiers in this database")
    table, other = open_table(name), open_table()
    table.create(SECOND)
    other.create(FIRST)
    ids, _ = fill(table, 50, SECOND)
    table.arrange()
    assert np.array_equal(all_rows(table)[0], ids)
    assert (table.stamp(), other.stamp(), other.count()) == (SECOND, FIRST, 0)
    table.drop()
    assert (table.stamp(), other.stamp()) == (None, FIRST)


@pytest.mark.parametrize("dim", [2, 512, 1024])
def test_vectors_of_many_lengths(dim: int, open_table: Open) -> None:
    table = open_table(dim=dim)
    table.create(FIRST)
    vectors = unit(300, dim=dim)
    table.insert(numbers(1, 300), vectors, FIRST)
    table.arrange()
    assert np.array_equal(np.concatenate([some for _, some in table.rows()]), vectors)
    assert exactly(table, vectors[7], 1)[0] == 8


# Rows


def test_rows_come_back_bit_by_bit(table: VectorTable) -> None:
    ids, vectors = numbers(1, 4), np.zeros((4, DIM), np.float32)
    vectors[0, :4] = [1, -0.0, 2**-24, 65504]  # with the smallest and the largest float16
    vectors[1:] = unit(3)
    table.insert(ids, vectors, SECOND)
    found_ids, found = all_rows(table)
    assert np.array_equal(found_ids, ids) and found.dtype == np.float32
    assert found.astype(np.float16).tobytes() == vectors.astype(np.float16).tobytes()
    one_by_one = dict(table.vectors(numbers(0, 9)))
    assert sorted(one_by_one) == ids.tolist()
    assert all(np.array_equal(one_by_one[id], vector) for id, vector in zip(ids.tolist(), vectors, strict=True))
    assert list(table.vectors(np.zeros(0, np.int64))) == []


def test_rows_come_in_batches_ascending(table: VectorTable) -> None:
    inserted = [numbers(20_001, 40_000), numbers(1, 20_000), numbers(50_001, 60_000)]
    vectors = unit(60_000)
    for ids in inserted:
        table.insert(ids, vectors[ids - 1], FIRST)
    ids, found = all_rows(table)
    assert np.array_equal(ids, np.sort(np.concatenate(inserted)))
    assert np.array_equal(found, vectors[ids - 1])
    assert table.count() == 50_000


def test_insert_sets_the_stamp_with_the_rows(table: VectorTable) -> None:
    fill(table, 10, SECOND)
    assert (table.stamp(), table.count()) == (SECOND, 10)
    table.insert(np.zeros(0, np.int64), np.zeros((0, DIM), np.float32), FIRST)
    assert (table.stamp(), table.count()) == (FIRST, 10)


def test_remove(table: VectorTable) -> None:
    ids, vectors = fill(table, 1000)
    gone = numbers(3, 900, 3)
    table.remove(np.concatenate([numbers(1, 2), gone]), SECOND)  # 1 and 2 are not there
    left = ~np.isin(ids, gone)
    found_ids, found = all_rows(table)
    assert np.array_equal(found_ids, ids[left]) and np.array_equal(found, vectors[left])
    assert (table.stamp(), table.count()) == (SECOND, 700)
    table.remove(np.zeros(0, np.int64), FIRST)
    assert (table.stamp(), table.count()) == (FIRST, 700)


def test_remove_above(table: VectorTable) -> None:
    ids, _ = fill(table, 1000)
    table.remove_above(1500)
    assert np.array_equal(all_rows(table)[0], ids[:500])
    table.remove_above(1500)
    assert (table.stamp(), table.count()) == (FIRST, 500)


# Searches


def test_every_effort_finds_enough_and_the_last_one_all(table: VectorTable) -> None:
    ids, vectors = fill(table, 3000)
    arranged = table.arrange()
    assert table.arrange() == arranged
    assert not table.compacted()
    efforts, queries = table.efforts(), unit(20, seed=1)
    assert len(efforts) > 2
    for effort, k in itertools.product(efforts, (1, 100, 1000, 2900)):
        recalls = []
        for query in queries if k <= 100 else queries[:3]:  # of so many rows, the mean over three queries is as sure
            found = table.search(query, k, effort).tolist()
            assert len(found) == len(set(found)) >= k
            recalls.append(len(nearest(query, k, ids, vectors) & set(found)) / k)
        assert np.mean(recalls) > 0.9
        if effort.effort == 0:
            assert min(recalls) == 1
    for effort in efforts:
        assert len(table.search(queries[0], 20_000, effort)) == 3000
    assert efforts[-1].effort == 0
    for k in (1, 10, 100, 2999, 3000, 3001, 20_000):  # it compares all rows
        found = table.search(queries[0], k, efforts[-1]).tolist()
        assert len(found) == len(set(found)) >= min(k, 3000)
        assert nearest(queries[0], k, ids, vectors) <= set(found)


def test_searches_see_what_was_written_after_arrange(table: VectorTable) -> None:
    ids, vectors = fill(table, 3000)
    table.arrange()
    query = unit(1, seed=1)[0]
    table.prepare(1)
    table.insert(numbers(10_000, 10_000), query[None], SECOND)
    table.arrange()
    for effort in table.efforts():
        assert 10_000 in table.search(query, 5, effort)
    best = np.array(sorted(nearest(query, 200, ids, vectors)))
    table.remove(np.append(best, 10_000), SECOND)
    table.arrange()
    for effort in table.efforts():
        found = table.search(query, 100, effort)
        assert len(found) >= 100 and not np.isin(found, best).any()


def test_search_among_ids_is_exact(table: VectorTable) -> None:
    ids, vectors = fill(table, 60_000)
    rng = np.random.default_rng(2)
    assert table.among_most >= 1
    for number, query, k in itertools.product((1, 2000, 60_000), unit(2, seed=1), (1, 100, 20_000)):
        some = np.sort(rng.choice(60_000, number, replace=False))
        found: list[int] = []
        for start in range(0, number, table.among_most):
            part = ids[some[start : start + table.among_most]]
            one = table.search_among(query, k, part)
            assert len(one) == min(k, len(part))
            found += one.tolist()
        assert len(found) == len(set(found)) and set(found) <= set(ids[some].tolist())
        true = nearest(query, k, ids[some], vectors[some])
        assert len(true & set(found)) >= 0.999 * len(true)


def test_search_among_ids_that_are_not_there(table: VectorTable) -> None:
    fill(table, 100)
    query = unit(1, seed=1)[0]
    assert sorted(table.search_among(query, 10, numbers(3, 9)).tolist()) == [3, 6, 9]
    assert table.search_among(query, 10, numbers(1, 2)).tolist() == []
    assert table.search_among(query, 10, np.zeros(0, np.int64)).tolist() == []


# Two at once, and servers that die


def test_reads_of_a_table_that_another_process_dropped(open_table: Open, table: VectorTable) -> None:
    ids, vectors = fill(table, 100)
    reader = open_table()
    effort = reader.efforts()[-1]
    reader.search(vectors[0], 5, effort)
    table.drop()
    reads: list[Callable[[], object]] = [
        lambda: reader.search(vectors[0], 5, effort),
        lambda: reader.search_among(vectors[0], 5, ids),
        reader.efforts,
        reader.count,
        lambda: list(reader.rows()),
        lambda: list(reader.vectors(ids)),
    ]
    for read in reads:
        begin = time.monotonic()
        with pytest.raises(StoreError) as caught:
            read()
        assert not isinstance(caught.value, UnreachableStoreError)
        assert time.monotonic() - begin < 10 and "\n" not in str(caught.value)
    assert reader.stamp() is None
    table.create(SECOND)
    fill(table, 3, SECOND)
    assert (reader.stamp(), reader.count()) == (SECOND, 3)
    assert sorted(exactly(reader, vectors[0], 5)) == [3, 6, 9]


def test_one_reads_while_another_writes(open_table: Open, table: VectorTable) -> None:
    ids, _ = fill(table, 2000)
    reader, ends = open_table(), threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for turn in range(20):
                more = numbers(10_000 + turn * 100, 10_099 + turn * 100)
                table.insert(more, -unit(100), Stamp(turn + 2, 0))
                table.remove(more[:50], Stamp(turn + 2, 0))
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
        ends.set()

    writer = threading.Thread(target=write)
    writer.start()
    query = unit(1, seed=1)[0]
    turns = 0
    while not ends.is_set() or not turns:
        assert len(exactly(reader, query, 2000)) >= 2000
        assert len(reader.search_among(query, 50, ids[:100])) == 50
        found = all_rows(reader)[0]
        assert np.all(np.diff(found) > 0) and np.array_equal(found[:2000], ids)
        assert reader.stamp() is not None and reader.count() >= 2000
        turns += 1
    writer.join()
    assert not failures
    assert reader.count() == 3000 and reader.stamp() == Stamp(21, 0)


def test_a_server_that_dies_is_unreachable_and_comes_back(database: Database, open_table: Open) -> None:
    table = open_table()
    table.create(FIRST)
    ids, vectors = fill(table, 500)
    query = unit(1, seed=1)[0]
    calls: list[Callable[[], object]] = [
        table.stamp,
        table.count,
        lambda: table.search(query, 5, Effort(0, 100)),
        lambda: table.search_among(query, 5, ids),
        lambda: list(table.rows()),
        lambda: list(table.vectors(ids)),
        lambda: table.insert(numbers(5000, 5000), query[None], SECOND),
        lambda: table.remove(ids, SECOND),
        lambda: table.remove_above(9),
        lambda: table.create(SECOND),
        table.arrange,
        table.drop,
        open_table,
    ]
    database.kill()
    try:
        for call in calls:
            begin = time.monotonic()
            with pytest.raises(UnreachableStoreError) as caught:
                call()
            assert time.monotonic() - begin < 10 and "\n" not in str(caught.value)
    finally:
        database.start()
    assert (table.stamp(), table.count()) == (FIRST, 500)  # with the same object
    found_ids, found = all_rows(table)
    assert np.array_equal(found_ids, ids) and np.array_equal(found, vectors)


def test_a_server_that_dies_during_an_insertion_keeps_the_state_before(database: Database, open_table: Open) -> None:
    table = open_table()
    table.create(FIRST)
    ids, vectors = fill(table, 500)
    more = numbers(2001, 62_000)

    def insert() -> None:
        try:
            for start in range(0, 60_000, 1000):
                table.insert(more[start : start + 1000], unit(1000), Stamp(2 + start // 1000, 0))
        except UnreachableStoreError:
            pass

    writer = threading.Thread(target=insert)
    writer.start()
    time.sleep(0.2)
    database.kill()
    writer.join(timeout=30)
    assert not writer.is_alive()
    database.start()
    stamp = table.stamp()
    assert stamp is not None
    covered = 2000 + 1000 * (stamp.generation - 1)  # the last id that the stamp counts
    if database.has_transactions:
        assert table.count() == 500 + 1000 * (stamp.generation - 1)
    table.remove_above(covered)
    found_ids, found = all_rows(table)
    assert np.array_equal(found_ids, np.concatenate([ids, more[: covered - 2000]]))
    assert np.array_equal(found[:500], vectors)


def test_close_may_be_called_twice(database: Database, table: VectorTable) -> None:
    other = database.table("bt_other", DIM)
    other.close()
    other.close()
    assert table.count() == 0
