"""An index whose recall is a table in a database: how it is filled, asked, looked after and left again."""

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from bridgetower.errors import StoreError, UnreachableStoreError
from bridgetower.index.catalog.rows import StoreRow
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.maintenance import move, prune
from bridgetower.index.reader import IndexReader
from bridgetower.index.stores.external import choose_effort
from bridgetower.index.stores.table import Effort, Stamp, VectorTable
from bridgetower.index.writer import IndexWriter
from tests.indexes import FINGERPRINT, add, answer, assert_answers, image, path_of, vector_files
from tests.tables import Killed, MemoryDatabase, MemoryTable

ADDRESS = "postgresql://reader@db.example:5432/photos"
QUERY = image(-1 % 2**32).vector


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def directory(tmp_path: Path, database: MemoryDatabase) -> Path:
    """An index of 20 pictures in a table."""
    with IndexWriter.open(tmp_path / "index", FINGERPRINT, recall_store=database.store()) as writer:
        add(writer, *range(20))
        assert move(writer, database.store(), ADDRESS) is None
        writer.finish()
    return tmp_path / "index"


def writing(directory: Path, database: MemoryDatabase) -> IndexWriter:
    return IndexWriter.open(directory, FINGERPRINT, recall_store=database.store())


def reading(directory: Path, database: MemoryDatabase) -> IndexReader:
    return IndexReader.open(directory, database.store())


def assert_holds(directory: Path, database: MemoryDatabase, *numbers: int) -> None:
    """The index finds exactly these pictures, in the table, and both sides agree."""
    with reading(directory, database) as store:
        assert_answers(store, QUERY, *numbers)
        assert store.damage is None
    assert list(check_index(directory, recall_store=database.store())) == []


def the_table(database: MemoryDatabase) -> "tuple[str, object]":
    [(name, table)] = database.tables.items()
    return name, table


def test_a_table_recalls_what_files_recall(directory: Path, database: MemoryDatabase) -> None:
    assert_holds(directory, database, *range(20))
    assert vector_files(directory) == []
    with reading(directory, database) as store:
        row = store.summary().store
        assert row is not None and (row.address, row.arrangement) == (ADDRESS, "rows in memory")
        assert row.name in database.tables
    with writing(directory, database) as writer:
        assert move(writer, database.store(), None) is None
    assert vector_files(directory) and not database.tables
    with IndexReader.open(directory) as store:
        assert_answers(store, QUERY, *range(20))
        assert store.summary().store is None
    assert database.connections == 0


def test_a_search_asks_the_table_for_what_it_covers_alone(directory: Path, database: MemoryDatabase) -> None:
    with writing(directory, database) as writer:
        add(writer, 20, 21)  # and the process is killed
    database.asked.clear()
    with reading(directory, database) as store:
        assert_answers(store, QUERY, *range(22))
    assert [asked for asked in database.asked if asked.startswith("search")] == ["search 1"]
    assert store.damage is None


def test_few_new_pictures_are_published_at_the_end_of_a_run(directory: Path, database: MemoryDatabase) -> None:
    with writing(directory, database) as writer:
        add(writer, 20)
        writer.finish()
        assert writer.catalog.count_images(after=writer.catalog.state().covered) == 0
    assert_holds(directory, database, *range(21))


@pytest.mark.parametrize("writes", range(5))
def test_a_kill_in_a_publication_loses_and_doubles_nothing(
    directory: Path, database: MemoryDatabase, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.index.vectors.catalog_vectors._ROWS", 3)
    monkeypatch.setattr("bridgetower.index.catalog.connection.ROWS", 3)
    with writing(directory, database) as writer:
        add(writer, *range(20, 30))
        writer.forget(path_of(3))
        assert sum(writer.prune()) == 1
        database.kill_after = writes
        with pytest.raises(Killed):
            writer.publish()
    database.kill_after = None
    left = [number for number in range(30) if number != 3]
    with reading(directory, database) as store:
        assert_answers(store, QUERY, *left)
    with writing(directory, database) as writer:
        writer.finish()
    assert_holds(directory, database, *left)


def test_an_older_state_finds_what_was_removed_since(directory: Path, database: MemoryDatabase) -> None:
    with reading(directory, database) as store:
        with writing(directory, database) as writer:
            writer.forget(path_of(3))
            prune(writer)
            add(writer, 30)
            writer.finish()
        assert_answers(store, QUERY, *range(20))  # from the manifest, as the table lacks one
        assert store.damage is None
    assert_holds(directory, database, *(number for number in range(20) if number != 3), 30)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda tables, name: tables.pop(name), "is not there"),
        (lambda tables, name: setattr(tables[name], "stamp", Stamp(0, 0)), "is of generation 0, not"),
        (lambda tables, name: tables[name].vectors.pop(5), "of an image that the table does not have (5)"),
        (lambda tables, name: tables[name].vectors.update({2: tables[name].vectors[4]}), "another vector"),
        (lambda tables, name: tables[name].vectors.update({0: tables[name].vectors[4]}), "of no image (0)"),
    ],
)
def test_what_differs_is_found_and_mended(directory: Path, database: MemoryDatabase, harm, said: str) -> None:  # type: ignore[no-untyped-def]
    name, _ = the_table(database)
    harm(database.tables, name)
    [finding] = check_index(directory, recall_store=database.store())
    assert finding.part == "vectors" and said in finding.problem and finding.derived
    repaired = repair_index(directory, recall_store=database.store())
    assert repaired.left == () and repaired.dropped == ()
    assert_holds(directory, database, *range(20))


def test_a_damaged_vector_is_taken_from_the_table(directory: Path, database: MemoryDatabase) -> None:
    (directory / "manifest.backup.sqlite").unlink()
    with writing(directory, database) as writer, writer.catalog.transaction():
        writer.catalog._db.execute("UPDATE images SET vector = (SELECT vector FROM images WHERE id = 9) WHERE id = 4")
    [finding] = check_index(directory, recall_store=database.store())
    assert (finding.part, finding.image) == ("images", 4)
    repaired = repair_index(directory, recall_store=database.store())
    assert repaired.dropped == () and repaired.left == ()
    assert_holds(directory, database, *range(20))


def test_a_database_that_is_away_is_told_about_removals_later(directory: Path, database: MemoryDatabase) -> None:
    database.away = "connection refused"
    with writing(directory, database) as writer:
        writer.forget(path_of(3))
        done = prune(writer)
        assert (done.images, done.note) == (
            1,
            f"{ADDRESS}: no answer (connection refused): searches leave out what was removed, and the next `bt index` "
            "or `bt prune` removes it in the database",
        )
        with pytest.raises(UnreachableStoreError, match="go back to files with `bt index --store faiss`"):
            writer.require_store()
    with reading(directory, database) as store:
        with pytest.raises(UnreachableStoreError):
            answer(store, QUERY)
        assert store.summary().images == 19
    database.away = None
    with writing(directory, database) as writer:
        writer.finish()
    _, table = the_table(database)
    assert 4 not in table.vectors  # type: ignore[attr-defined]
    assert_holds(directory, database, *(number for number in range(20) if number != 3))


def test_a_database_that_goes_away_at_the_end_of_a_run_gets_the_pictures_later(
    directory: Path, database: MemoryDatabase
) -> None:
    with writing(directory, database) as writer:
        add(writer, 20)
        database.away = "connection refused"
        with pytest.raises(
            UnreachableStoreError,
            match="all pictures are in the index, and the next `bt index` adds to the database what it lacks: start it",
        ):
            writer.finish()
    database.away = None
    with reading(directory, database) as store:
        assert store.summary().images == 21
    with writing(directory, database) as writer:
        writer.finish()
    assert_holds(directory, database, *range(21))


def test_files_recall_again_while_the_database_is_away(directory: Path, database: MemoryDatabase) -> None:
    name, _ = the_table(database)
    database.away = "connection refused"
    with writing(directory, database) as writer:
        note = move(writer, database.store(), None)
    assert note is not None and f"the table {name} is not used any more: drop it there by hand" in note
    with IndexReader.open(directory) as store:
        assert_answers(store, QUERY, *range(20))


def test_nothing_changes_when_a_new_database_does_not_answer(directory: Path, database: MemoryDatabase) -> None:
    away = MemoryDatabase(away="connection refused")
    with (
        writing(directory, database) as writer,
        pytest.raises(StoreError, match=r"nothing was changed; start it, or mend the address$"),
    ):
        move(writer, away.store(), "milvus://db.example:19530")
    assert_holds(directory, database, *range(20))


def test_a_copy_of_an_index_searches_the_table_and_does_not_write_it(
    directory: Path, database: MemoryDatabase, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    assert_holds(copy, database, *range(20))
    with writing(directory, database) as writer:  # one small run, after which both have the same generations
        add(writer, 20)
        writer.finish()
    with reading(copy, database) as store:
        assert_answers(store, QUERY, *range(20))
    with writing(copy, database) as writer:
        with pytest.raises(StoreError, match="written by another copy of this index since: `bt verify --repair`"):
            writer.require_store()
        add(writer, 99)
        with pytest.raises(StoreError, match="written by another copy"):
            writer.finish()
    assert_holds(directory, database, *range(21))
    [finding] = check_index(copy, recall_store=database.store())
    assert "written by another copy" in finding.problem
    assert repair_index(copy, recall_store=database.store()).left == ()
    assert len(database.tables) == 2
    assert_holds(copy, database, *range(20), 99)
    assert_holds(directory, database, *range(21))


def test_a_copy_does_not_remove_the_table_that_both_use(
    directory: Path, database: MemoryDatabase, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    name, _ = the_table(database)
    with writing(copy, database) as writer:
        note = move(writer, database.store(), None)
    assert note == f"{ADDRESS}: another copy of this index may use the table {name}: drop it there by hand"
    assert_holds(directory, database, *range(20))
    with IndexReader.open(copy) as store:
        assert_answers(store, QUERY, *range(20))


def test_a_manifest_that_was_restored_gets_a_table_of_its_own(directory: Path, database: MemoryDatabase) -> None:
    with writing(directory, database) as writer:
        assert writer.back_up() is None
        saved = (directory / "manifest.backup.sqlite").read_bytes()
        for number in (20, 21, 22):
            add(writer, number)
            writer.finish()
    (directory / "manifest.backup.sqlite").write_bytes(saved)
    for file in directory.glob("manifest.sqlite*"):
        file.unlink()
    repaired = repair_index(directory, recall_store=database.store())
    assert repaired.restored is not None and repaired.left == ()
    assert_holds(directory, database, *range(20))
    with writing(directory, database) as writer:
        add(writer, 30)  # under an id that the table before has for another picture
        writer.finish()
    assert_holds(directory, database, *range(20), 30)


def test_an_index_that_was_emptied_is_pruned(directory: Path, database: MemoryDatabase) -> None:
    with writing(directory, database) as writer:
        writer.forget(Path("/photos"))
        assert prune(writer).images == 20
    assert_holds(directory, database)
    with writing(directory, database) as writer:
        add(writer, 1, 2)
        writer.finish()
    assert_holds(directory, database, 1, 2)


def test_a_table_without_rows_is_found_and_filled(directory: Path, database: MemoryDatabase) -> None:
    _, table = the_table(database)
    table.vectors.clear()  # type: ignore[attr-defined]
    [finding] = check_index(directory, recall_store=database.store())
    assert "20 x a row of an image that the table does not have (1, 2, 3, 4, 5, ...)" in finding.problem
    with reading(directory, database) as store:
        assert_answers(store, QUERY, *range(20))
        assert store.damage is not None and "lacks rows" in store.damage
    assert repair_index(directory, recall_store=database.store()).left == ()
    assert_holds(directory, database, *range(20))


def test_a_run_that_changes_nothing_makes_a_lost_table_again(directory: Path, database: MemoryDatabase) -> None:
    database.tables.clear()
    with writing(directory, database) as writer:
        writer.finish(changed=False)
    assert_holds(directory, database, *range(20))


@pytest.mark.parametrize("before", [None, ADDRESS])
def test_a_move_that_fails_changes_nothing(
    directory: Path, database: MemoryDatabase, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(table: MemoryTable, stamp: Stamp) -> None:
        raise StoreError("permission denied")

    with writing(directory, database) as writer:
        if before is None:
            assert move(writer, database.store(), None) is None
        known = writer.catalog.store(), writer.catalog.state()
        with monkeypatch.context() as patch:
            patch.setattr(MemoryTable, "create", refuse)
            with pytest.raises(StoreError, match="permission denied"):
                move(writer, database.store(), "milvus://db.example:19530")
        assert (writer.catalog.store(), writer.catalog.state()) == known
    assert_holds(directory, database, *range(20))


def test_a_table_that_changes_under_a_search_does_not_answer_it(
    directory: Path, database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer removes a picture between the first look at the stamp and the search."""
    _, table = the_table(database)
    search = MemoryTable.search

    def changed(*arguments: Any) -> Any:
        table.vectors.pop(4, None)  # type: ignore[attr-defined]
        table.stamp = Stamp(9, 9, 1)  # type: ignore[attr-defined]
        return search(*arguments)

    with reading(directory, database) as store:
        first = answer(store, QUERY)
        wanted = answer(store, image(3).vector, k=20)
        assert wanted[0][0] == "3"
        monkeypatch.setattr(MemoryTable, "search", changed)
        assert answer(store, image(3).vector, k=20) == wanted
        assert answer(store, QUERY) == first


def test_a_table_that_is_removed_under_a_search_does_not_fail_it(
    directory: Path, database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*arguments: object) -> None:
        database.tables.clear()
        raise StoreError("there is no such table")

    with reading(directory, database) as store:
        monkeypatch.setattr(MemoryTable, "search", gone)
        assert_answers(store, QUERY, *range(20))


def test_many_removed_rows_go_some_at_a_time(
    directory: Path, database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.index.stores.external._REMOVED_AT_ONCE", 4)
    with writing(directory, database) as writer:
        writer.forget(*map(path_of, range(10)))
        assert sum(writer.prune()) == 10
        database.kill_after = 2  # after the rows above, and the first four
        with pytest.raises(Killed):
            writer.publish()
    database.kill_after = None
    with writing(directory, database) as writer:
        writer.finish()
    assert_holds(directory, database, *range(10, 20))


def test_recall_is_measured_and_the_cheapest_effort_that_suffices_is_taken(
    tmp_path: Path, database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.index.vectors.measure.RECALL_AT", 5)
    monkeypatch.setattr("bridgetower.index.stores.external.RECALL_AT", 5)
    directory = tmp_path / "index"
    with writing(directory, database) as writer:
        writer.set_queries(np.stack([image(number).vector for number in range(500, 540)]))
        add(writer, *range(200))
        move(writer, database.store(), ADDRESS)
        tuning = writer.catalog.tuning()
        assert tuning is not None
        assert (tuning.effort, tuning.trained, tuning.recall, tuning.texts) == (4, 200, 1.0, 40)
        database.asked.clear()
        add(writer, *range(200, 210))
        writer.finish()
        assert "arrange" not in database.asked  # only 1 in 20 is new
        add(writer, *range(210, 220))
        writer.finish()
        assert "arrange" in database.asked
        assert (tuning := writer.catalog.tuning()) is not None and tuning.trained == 220


@pytest.mark.parametrize(
    ("recalls", "chosen"),
    [
        ({100: 0.98, 700: 0.993, 1000: 0.997, 1200: 0.998, 3000: 1.0}, 1200),  # all that is wanted, and cheap
        ({100: 0.98, 700: 0.99, 1000: 0.992, 1200: 0.993, 3000: 1.0}, 1200),  # the least is enough where it is dear
        ({100: 0.9, 700: 0.91, 1000: 0.95, 1200: 0.96, 3000: 0.993}, 3000),
        ({100: 0.995, 700: 0.995, 1000: 0.995, 1200: 0.995, 3000: 0.995}, 100),  # more effort finds no more
        ({100: 0.9, 700: 0.9, 1000: 0.9, 1200: 0.9, 3000: 0.9}, 3000),
    ],
)
def test_more_recall_than_the_least_is_taken_where_it_is_cheap(recalls: dict[int, float], chosen: int) -> None:
    rows = np.arange(1, 101)

    class Rows:
        def efforts(self) -> list[Effort]:
            return [Effort(effort, 100) for effort in recalls]

        def search(self, query: Any, k: int, effort: Effort) -> Any:
            return np.delete(rows, slice(0, lacking[effort.effort])) if query[0] else rows

    queries = np.zeros((10, 1), np.float32)
    queries[0] = 1  # the one that lacks rows, of 1,000 that are wanted
    lacking = {effort: round((1 - recall) * 1000) for effort, recall in recalls.items()}
    effort, recall = choose_effort(cast("VectorTable", Rows()), queries, [rows] * 10)
    assert (effort.effort, recall) == (chosen, recalls[chosen])


def test_recall_is_measured_again_when_the_database_has_rearranged_its_rows(
    directory: Path, database: MemoryDatabase
) -> None:
    database.rearranged = True
    [finding] = check_index(directory, recall_store=database.store())
    assert "has rearranged the table" in finding.problem
    with writing(directory, database) as writer:
        writer.finish()
    assert not database.rearranged
    assert_holds(directory, database, *range(20))


@pytest.mark.parametrize("few", [2, 100])
def test_a_filter_costs_no_picture(
    directory: Path, database: MemoryDatabase, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few pictures that pass are compared by their ids, in calls of `among_most`; for many, the table is asked for
    more until enough of them pass."""
    monkeypatch.setattr("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", few)
    with reading(directory, database) as store:
        [everything] = store.recall(QUERY[None], 100)
        worst = np.array(sorted(one.image for one in everything[12:]), np.int64)
        database.asked.clear()
        [found] = store.recall(QUERY[None], 3, worst)
        assert found == everything[12:15]
    searches = [asked for asked in database.asked if asked.startswith("search")]
    assert searches == (["search 1"] if few == 2 else ["search_among"] * 3)


@pytest.mark.parametrize("within", [None, np.arange(1, 18)])
def test_a_database_that_confuses_close_rows_confuses_no_answer(
    directory: Path, database: MemoryDatabase, within: "NDArray[np.int64] | None", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two nearest rows are in the wrong order there, as where a query is rounded."""
    nearest = MemoryTable._nearest

    def confused(table: MemoryTable, query: Any, ids: list[int], k: int) -> Any:
        found = nearest(table, query, ids, len(ids))
        return np.append(found[:2][::-1], found[2:])[:k]

    monkeypatch.setattr(MemoryTable, "among_most", 100)
    with reading(directory, database) as store:
        wanted = store.recall(QUERY[None], 1, within, exact=True)
        monkeypatch.setattr(MemoryTable, "_nearest", confused)
        assert store.recall(QUERY[None], 1, within) == wanted


def test_exact_asks_no_database(directory: Path, database: MemoryDatabase) -> None:
    database.away = "connection refused"
    with reading(directory, database) as store:
        [found] = store.recall(QUERY[None], 1000, exact=True)
        assert len(found) == 20


def test_no_password_is_kept_or_shown(directory: Path, database: MemoryDatabase) -> None:
    from bridgetower.index.stores.named import NamedStore

    assert "hunter2" not in repr(NamedStore("hunter2"))
    given: list[str | None] = []

    def connect(row: StoreRow, dim: int, password: str | None) -> MemoryTable:
        given.append(password)
        return database.connect(row, dim, password)

    with IndexReader.open(directory, NamedStore("hunter2", connect)) as store:
        assert len(answer(store, QUERY)) == 20
    assert given == ["hunter2"]
    assert not any(b"hunter2" in path.read_bytes() for path in directory.iterdir() if path.is_file())
