"""The index directory from outside: what was committed is found, whatever happens to the process or the files."""

import contextlib
import dataclasses
import os
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from bridgetower.errors import NoIndexError, StoreError
from bridgetower.index.catalog.changed_files import Sweep
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.records import File, WalkedFile
from tests.fakes import stored
from tests.indexes import (
    DIM,
    FINGERPRINT,
    add,
    assert_holds,
    build,
    file,
    image,
    path_of,
    run,
    vector_files,
)

FORMAT_PAGE = Path(__file__).parents[3] / "docs" / "index-format.md"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "somewhere" / "index"


def test_what_was_committed_is_found(directory: Path) -> None:
    build(directory, *range(40))
    assert vector_files(directory) == ["vectors-1.faiss"]
    assert_holds(directory, *range(40))
    with IndexReader.open(directory) as store:
        assert len(store.recall(image(3).vector[None], 5)[0]) == 5
        assert store.recall(image(3).vector[None], 1)[0][0].image == store.catalog.image_id(image(3).hash)
        assert store.recall(np.zeros((0, DIM), dtype=np.float32), 5) == []


def test_without_the_vector_file_the_answers_are_the_same(directory: Path) -> None:
    build(directory, *range(40), finish=False)
    assert vector_files(directory) == []
    assert_holds(directory, *range(40))


def test_an_index_without_pictures_finds_none(directory: Path) -> None:
    build(directory)
    with IndexReader.open(directory) as store:
        assert len(store) == 0
        assert store.recall(image(1).vector[None], 5) == [[]]


def test_a_few_new_images_are_read_beside_the_vector_file_and_many_are_published(directory: Path) -> None:
    build(directory, *range(40))
    build(directory, 40)
    assert vector_files(directory) == ["vectors-1.faiss"]
    assert_holds(directory, *range(41))
    build(directory, *range(41, 50))
    assert vector_files(directory) == ["vectors-2.faiss"]
    assert_holds(directory, *range(50))


def test_only_vector_files_are_removed_as_old_ones(directory: Path) -> None:
    build(directory, *range(40))
    foreign = ["vectors-1.faiss.bak", "vectors-of-mine.npy", "vectors-old.faiss"]
    for name in [*foreign, "vectors-0.faiss", "vectors-1.faiss.tmp", "vectors-2.codes", "vectors-2.codes.tmp"]:
        (directory / name).touch()
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        assert vector_files(directory) == sorted(["vectors-1.faiss", *foreign])
        writer.publish_from_scratch()
    assert vector_files(directory) == sorted(["vectors-2.faiss", *foreign])


def test_a_long_run_publishes_in_the_middle(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower.index.vectors.faiss.store._UNCOVERED_MIN", 10)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        generations = []
        for start in range(0, 100, 5):
            add(writer, *range(start, start + 5))
            writer.publish_if_behind()
            generations += vector_files(directory)[-1:]
            assert_holds(directory, *range(start + 5))
    assert 2 <= len(set(generations)) <= 5  # each time the index has doubled, not with each batch


def test_a_vanished_file_is_not_found_and_a_restored_one_is_not_encoded_again(directory: Path) -> None:
    build(directory, *range(20))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        for number in range(15):
            writer.catalog.meet([WalkedFile(os.fsencode(path_of(number)), 1, 1)])
        assert writer.sweep(Path("/photos")) == Sweep(removed=5, kept=0)
        assert_holds(directory, *range(15))
        writer.finish()
        assert writer.catalog.image_id(image(17).hash) is not None
        writer.commit(files=[file(17)])
        writer.finish()
    assert_holds(directory, *range(15), 17)
    with IndexReader.open(directory) as store:
        assert (store.summary().images, store.summary().orphans) == (16, 4)


def test_a_renamed_or_copied_file_shares_its_image(directory: Path) -> None:
    build(directory, 1, 2)
    copy = File(Path("/photos/a copy.jpg"), 1, 9)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(1)], files=[(copy, image(1).hash)])
    with IndexReader.open(directory) as store:
        id = store.catalog.image_id(image(1).hash)
        assert id is not None
        assert store.catalog.paths_of(id) == (path_of(1), copy.path)
        assert len(store) == 2


def test_a_changed_file_leads_to_its_new_content_only(directory: Path) -> None:
    build(directory, 1, 2)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(3)], files=[(File(path_of(1), 1, 8), image(3).hash)])
    with IndexReader.open(directory) as store:
        old, new = store.catalog.image_id(image(1).hash), store.catalog.image_id(image(3).hash)
        assert old is not None and new is not None
        assert (store.catalog.paths_of(old), store.catalog.paths_of(new)) == ((), (path_of(1),))
        assert [n.image for n in store.recall(image(1).vector[None], 9)[0]].count(old) == 0


def test_the_vector_of_an_image_is_what_was_stored(directory: Path) -> None:
    build(directory, 1)
    with IndexReader.open(directory) as store:
        vector = stored(store, 1)
        np.testing.assert_array_equal(vector, image(1).vector.astype(np.float16).astype(np.float32))
        with pytest.raises(ValueError, match="length"):
            store.recall(2 * vector[None], 1)
        with pytest.raises(ValueError, match="shape"):
            store.recall(np.eye(DIM + 1, dtype=np.float32), 1)


def test_a_similarity_never_leaves_its_range(directory: Path) -> None:
    longer = next(
        n for n in range(100) if np.linalg.norm(image(n).vector.astype(np.float16).astype(np.float64)) > 1.0001
    )
    build(directory, longer)
    with IndexReader.open(directory) as store:
        vector = stored(store, 1)
        assert float(vector @ vector) > 1
        assert store.recall(np.stack([vector, -vector]), 1) == [[(1, 1.0)], [(1, -1.0)]]


def test_a_bad_vector_or_unknown_content_stops_the_whole_batch(directory: Path) -> None:
    build(directory, 1)
    broken = dataclasses.replace(image(2), vector=image(2).vector * np.float32(np.nan))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        with pytest.raises(ValueError, match="not finite"):
            writer.commit(images=[image(3), broken], files=[file(3)])
        with pytest.raises(ValueError, match="not added"):
            writer.commit(images=[image(3)], files=[file(3), file(4)])
        writer.finish()
    assert_holds(directory, 1)


def test_the_documented_python_reads_the_vectors(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(directory, *range(10))
    (program,) = re.findall(r"```python\n(.*?)```", FORMAT_PAGE.read_text("utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(directory)
    read: dict[str, object] = {}
    exec(program, read)
    assert isinstance(read["vectors"], np.ndarray)
    with IndexReader.open(directory) as store:
        for id, vector in zip(read["ids"], read["vectors"], strict=True):  # type: ignore[call-overload]
            np.testing.assert_array_equal(vector, stored(store, id))
        assert dict(read["files"]) == {str(store.catalog.paths_of(id)[0]): id for id in range(1, 11)}  # type: ignore[call-overload]
    read["db"].close()  # type: ignore[attr-defined]


# Damage to what is derived


@pytest.mark.parametrize("damage", ["absent", "truncated", "flipped", "another file", "a folder"])
def test_a_damaged_vector_file_changes_no_answer_and_is_made_again(directory: Path, damage: str) -> None:
    build(directory, *range(40))
    path = directory / "vectors-1.faiss"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    path.unlink()
    match damage:
        case "truncated":
            path.write_bytes(good[: len(good) // 2])
        case "flipped":
            path.write_bytes(flipped)
        case "another file":
            path.write_bytes(b"not FAISS")
        case "a folder":
            path.mkdir()
    assert_holds(directory, *range(40))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.finish()
    assert (directory / "vectors-2.faiss").is_file()
    assert_holds(directory, *range(40))


class Crash(BaseException):
    """The process dies here."""


def test_a_crash_between_rename_and_transaction_leaves_the_old_state(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(directory, *range(10))
    with monkeypatch.context() as patch, IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, *range(10, 20))
        patch.setattr(CatalogWriter, "publish", lambda *_, **__: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            writer.finish()
    assert vector_files(directory) == ["vectors-1.faiss", "vectors-2.faiss"]
    assert_holds(directory, *range(20))
    (directory / "vectors-3.faiss.tmp").write_bytes(b"half")
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        assert vector_files(directory) == ["vectors-1.faiss"]
        writer.finish()
    assert vector_files(directory) == ["vectors-2.faiss"]
    assert_holds(directory, *range(20))


def test_a_disk_that_fills_up_while_publishing_loses_nothing(directory: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits on file sizes on this system")
    build(directory, *range(1000), finish=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        try:
            with pytest.raises(StoreError, match=r"vectors-1\.faiss.*: make room"):
                writer.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert vector_files(directory) == []
        assert_holds(directory, *range(1000))
        writer.finish()
    assert vector_files(directory) == ["vectors-1.faiss"]


def test_a_damaged_vector_in_the_manifest_is_named(directory: Path) -> None:
    build(directory, 1, 2, finish=False)
    catalog = CatalogWriter.open(directory / "manifest.sqlite", FINGERPRINT)
    with catalog.transaction():
        catalog._db.execute("UPDATE images SET vector = ? WHERE id = 2", (b"\xff" * 2 * DIM,))
    catalog.close()
    with (
        IndexReader.open(directory) as store,
        pytest.raises(StoreError, match=r"manifest\.sqlite: damaged .*image 2 is not as it was written"),
    ):
        store.recall(image(1).vector[None], 1)


# What is refused


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights_sha256": "0" * 64}, "weights ffffffffffffffff, not 0000000000000000"),
        ({"config_sha256": "0" * 64}, "configuration cccccccccccccccc, not 0000000000000000"),
        ({"preprocessing": "plain"}, "preprocessing hf, not plain"),
        ({"preprocessing_version": 2}, "preprocessing version 1, not 2"),
        ({"precision_family": "int8"}, "precision family float, not int8"),
        ({"dim": 8}, f"vector length {DIM}, not 8"),
    ],
)
def test_another_model_is_refused_with_the_way_out_and_nothing_is_touched(
    directory: Path, change: dict[str, object], named: str
) -> None:
    build(directory, 1)
    other = dataclasses.replace(FINGERPRINT, model="other/model", **change)  # type: ignore[arg-type]
    message = rf"made by model some/model, .* of other/model \({named}\): .*`bt index --index NEW PHOTOS`"
    with pytest.raises(StoreError, match=message):
        IndexWriter.open(directory, other)
    with IndexReader.open(directory) as store:
        if "precision_family" in change:
            store.check(other)  # a query may be in any precision
        else:
            with pytest.raises(StoreError, match=message):
                store.check(other)
    build(directory, 2)  # the lock was let go
    assert_holds(directory, 1, 2)


@pytest.mark.parametrize(
    ("change", "way_out"),
    [
        ({"preprocessing": "plain"}, "use preprocessing hf, or build another index"),
        ({"preprocessing": "plain", "model": "copy"}, "use preprocessing hf, or build another index"),
        ({"precision_family": "int8"}, "use precision auto, or build another index"),
        ({"weights_sha256": "0" * 64}, "this has changed since; build a new index in another place"),
        ({"config_sha256": "0" * 64}, "this has changed since; build a new index in another place"),
        ({"weights_sha256": "0" * 64, "model": "other"}, "use that model, or build another index"),
        ({"weights_sha256": "0" * 64, "preprocessing": "plain", "model": "other"}, "use that model, or build another"),
    ],
)
def test_the_way_out_goes_by_what_differs(directory: Path, change: dict[str, str], way_out: str) -> None:
    build(directory, 1)
    other = dataclasses.replace(FINGERPRINT, **change)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=rf"\): {way_out}") as refused:
        IndexWriter.open(directory, other)
    message = str(refused.value)
    assert "those of some/model" not in message and message.endswith(" with `bt index --index NEW PHOTOS`")


def test_the_same_weights_under_another_name_are_the_same_model_and_found_there_from_now_on(directory: Path) -> None:
    build(directory, 1)
    copy = dataclasses.replace(FINGERPRINT, model="/models/copy", revision="local")
    with IndexReader.open(directory) as store:
        store.check(copy)
    IndexWriter.open(directory, copy).close()
    with IndexReader.open(directory) as store:
        store.check(FINGERPRINT)
        assert store.fingerprint == copy
    assert_holds(directory, 1)


def test_an_index_without_images_takes_the_model_that_comes(directory: Path) -> None:
    build(directory)
    other = dataclasses.replace(FINGERPRINT, weights_sha256="0" * 64, dim=8)
    IndexWriter.open(directory, other).close()
    with IndexReader.open(directory) as store:
        assert store.fingerprint == other


def test_a_wrong_count_of_images_does_not_let_another_model_in(directory: Path) -> None:
    build(directory, 1)
    with contextlib.closing(sqlite3.connect(directory / "manifest.sqlite")) as db, db:
        db.execute("UPDATE state SET images = 0")
    with pytest.raises(StoreError, match="made by model some/model"):
        IndexWriter.open(directory, dataclasses.replace(FINGERPRINT, weights_sha256="0" * 64))


def test_many_roots_are_one_transaction(directory: Path) -> None:
    """Each is a wait for the disk."""
    build(directory, 1)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        committed: list[str] = []
        writer.catalog._db.set_trace_callback(lambda sql: committed.append(sql) if sql == "COMMIT" else None)
        with writer.catalog.transaction():
            for number in range(5):
                writer.add_root(Path(f"/photos/{number}"))
        assert len(committed) == 1 and len(list(writer.catalog.roots())) == 6
        with contextlib.suppress(Crash), writer.catalog.transaction():
            writer.add_root(Path("/lost"))
            raise Crash
        assert len(list(writer.catalog.roots())) == 6


def test_no_index_says_how_to_make_one(directory: Path) -> None:
    wanted = rf"no index at {re.escape(str(directory))}: index pictures there first$"  # no command: it would need more
    with pytest.raises(NoIndexError, match=wanted) as told:
        IndexReader.open(directory)
    assert told.value.directory == directory
    assert not directory.exists()


def test_a_file_is_no_folder_of_an_index(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NoIndexError, match="pipe: a file, not the folder of an index"):
        IndexReader.open(tmp_path / "pipe")
    with pytest.raises(NoIndexError, match="file: a file, not the folder of an index: name another place") as told:
        IndexReader.open(tmp_path / "file")
    assert told.value.directory is None


def test_files_with_names_of_ours_are_not_ours_without_a_lock(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "vectors-1.faiss").write_text("of another program")
    (directory / "writer.lock").write_text("4711")
    with pytest.raises(StoreError, match="holds other files and no index"):
        IndexWriter.open(directory, FINGERPRINT)
    assert (directory / "vectors-1.faiss").read_text() == "of another program"


def test_only_regular_files_with_names_of_ours_are_removed(directory: Path) -> None:
    build(directory, 1, 2)
    names = ["vectors-x.faiss", "vectors-0.faiss.bak", "manifest.sqlite.notes", ".holiday.partial"]
    for name in names:
        (directory / name).write_text("mine")
    (directory / "vectors-0.faiss").symlink_to(directory / names[0])
    ours = [directory / "vectors-0.codes", directory / ".manifest.backup.sqlite.0123abcd.partial"]
    for path in ours:
        path.touch()
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.remove_strays()
    assert {(directory / name).read_text() for name in names} == {"mine"} and (
        directory / "vectors-0.faiss"
    ).is_symlink()
    assert not any(path.exists() for path in ours)


def test_a_folder_of_something_else_is_refused_and_left_alone(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "holiday.jpg").touch()
    with pytest.raises(StoreError, match="holds other files and no index"):
        IndexWriter.open(directory, FINGERPRINT)
    assert [path.name for path in directory.iterdir()] == ["holiday.jpg"]
    with pytest.raises(StoreError, match="a file, not a folder"):
        IndexWriter.open(directory / "holiday.jpg", FINGERPRINT)
    with pytest.raises(StoreError, match=re.escape(str(directory / "holiday.jpg"))):
        IndexWriter.open(directory / "holiday.jpg" / "below", FINGERPRINT)


def test_a_newer_format_is_refused(directory: Path) -> None:
    build(directory, 1)
    catalog = CatalogWriter.open(directory / "manifest.sqlite", FINGERPRINT)
    catalog._db.execute("PRAGMA user_version = 99")
    catalog.close()
    with pytest.raises(StoreError, match="index format 99"):
        IndexWriter.open(directory, FINGERPRINT)
    with pytest.raises(StoreError, match="index format 99"):
        IndexReader.open(directory)
    assert vector_files(directory) == ["vectors-1.faiss"]


# Looking at it


def test_the_summary_counts_everything(directory: Path) -> None:
    build(directory, *range(40))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.add_root(Path("/empty"))
        add(writer, 40)
        writer.commit(
            files=[(File(Path("/elsewhere/copy.jpg"), 1, 1), image(7).hash)],
            skipped=[(File(Path(f"/photos/bad-{n}"), 1, 1), "not a picture") for n in (2, 1)],
        )
        writer.forget(path_of(8))
        writer.catalog.meet([WalkedFile(os.fsencode(path_of(0)), 1, 1)])
        writer.finish()
    with IndexReader.open(directory) as store:
        summary = store.summary()
        assert (summary.files, summary.images, summary.orphans, summary.skipped) == (41, 40, 1, 2)
        assert (summary.generation, summary.vectors_file, summary.uncovered) == (1, True, 1)
        assert [(root.path, root.files) for root in summary.roots] == [(Path("/empty"), 0), (Path("/photos"), 40)]
        assert summary.reasons == (("not a picture", 2),)
        assert summary.fingerprint == FINGERPRINT
        assert summary.created_at <= summary.updated_at
        assert summary.bytes_on_disk == sum(path.stat().st_size for path in directory.iterdir())
        assert [skipped.path.name for skipped in store.catalog.skipped()] == ["bad-1", "bad-2"]
    (directory / "vectors-1.faiss").unlink()
    with IndexReader.open(directory) as store:
        assert (store.summary().vectors_file, store.summary().uncovered) == (False, 40)


def test_a_summary_needs_neither_numpy_nor_faiss(directory: Path) -> None:
    build(directory, 1)
    program = """
import sys
from pathlib import Path
from bridgetower.index.reader import IndexReader
with IndexReader.open(Path(sys.argv[1])) as store:
    print(store.summary().images, *sorted({"numpy", "faiss"} & set(sys.modules)))
"""
    assert run(program, directory) == ["1"]
