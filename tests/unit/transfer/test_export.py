"""`export` and `import_folder`: an index as files, and an index of those files again."""

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import bridgetower
from bridgetower.errors import InputError, OutputError, ResourceError, StoreError, UsageError
from bridgetower.files import jsonl
from bridgetower.index.check import check_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File, Fingerprint
from bridgetower.transfer import export_reader
from bridgetower.transfer.export import export
from bridgetower.transfer.import_index import ImportReport, import_folder
from tests.fakes import handles_left, stored

SIGNALLING = np.uint16(0x7C01).view(np.float16)  # a NaN that the processor tells of
ROOT = Path(__file__).parents[3]
DIM = 16
FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", DIM)
ODD = Path(os.fsdecode(b"/photos/odd \xff\n\xc3\xa9\xe2\x80\xa8.jpg"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(bridgetower.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def image(number: int, *, taken_at: int | None = None) -> NewImage:
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    content = hashlib.sha256(b"%d" % number).digest()
    return NewImage(content, 640 + number, 480, taken_at, vector / np.linalg.norm(vector))


def photo(name: str | Path, size: int = 5) -> File:
    return File(Path("/photos") / name, size, 1_700_000_000_123_456_789)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Ten images: the first has two files, one of them oddly named, the last none; one file is skipped. One image is of
    an older decoding; one file has a date of its own, and its metadata were read by an older reader."""
    images = [image(number, taken_at=-5 if number == 3 else None) for number in range(10)]
    images[4] = replace(images[4], decoding=0)
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        writer.add_root(Path("/photos"))
        files = [(photo(f"{number}.jpg"), each.hash) for number, each in enumerate(images)]
        writer.commit(images=images, files=[*files, (replace(photo(ODD), taken_at=-7, metadata=5), images[0].hash)])
        writer.commit(skipped=[(replace(photo("bad \udcfe.jpg"), decoding=3), "damaged: \u00e9")])
        writer.forget(Path("/photos/9.jpg"))
        writer.set_queries(np.stack([image(number).vector for number in range(100, 103)]))
        writer.finish()
    return tmp_path / "index"


@pytest.fixture
def folder(index: Path, tmp_path: Path) -> Path:
    with IndexReader.open(index) as store:
        return export(store, tmp_path / "export").folder


def holdings(directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that an index holds but when it was written."""
    with sqlite3.connect(directory / "manifest.sqlite") as db:
        tables = ("images", "files", "orphans", "queries", "fingerprint")
        found = {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables}
        found["roots"] = db.execute("SELECT path FROM roots").fetchall()
    db.close()
    return found


def answers(directory: Path) -> list[Any]:
    with IndexReader.open(directory) as store:
        return [list(store.nearest(image(number).vector[None])) for number in range(20, 23)]


def test_an_import_of_an_export_is_the_same_index(index: Path, folder: Path, tmp_path: Path) -> None:
    report = import_folder(folder, tmp_path / "other")
    assert report == ImportReport(images=10, known=0, differing=0, files=10, unused=(), queries=3)
    assert holdings(tmp_path / "other") == holdings(index)
    assert answers(tmp_path / "other") == answers(index)
    assert len(list((tmp_path / "other").glob("vectors-*.faiss"))) == 1


def test_an_export_of_an_import_is_the_same_export(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "other")
    with IndexReader.open(tmp_path / "other") as store:
        export(store, tmp_path / "again")
    for file in folder.iterdir():
        if file.name != "index.json":
            assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_an_export_of_version_1_is_read(index: Path, folder: Path, tmp_path: Path) -> None:
    """Of its pictures it is not known how they were decoded, so the next run looks at them."""
    sums = {}
    for name in ("images.jsonl", "skipped.jsonl"):
        rows = [json.loads(line) for line in (folder / name).read_text("ascii").splitlines()]
        for row in rows:
            row.pop("decoding")
            for file in row.get("paths", [row]):
                del file["taken_at"], file["metadata"]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "ascii")
        sums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    described = json.loads((folder / "index.json").read_text())
    described |= {"version": 1, "sha256": described["sha256"] | sums}
    (folder / "index.json").write_text(json.dumps(described))

    assert import_folder(folder, tmp_path / "other").images == 10
    assert answers(tmp_path / "other") == [
        [found._replace(files=tuple(replace(file, taken_at=None, metadata=0) for file in found.files)) for found in one]
        for one in answers(index)
    ]
    with IndexReader.open(tmp_path / "other") as store:
        assert {entry.decoding for entry in store.catalog.entries()} == {0}
        assert [file.decoding for file, _ in store.catalog.skipped_files()] == [0]


def test_an_image_of_a_later_decoding_takes_the_place_of_an_older_one(folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    old, newer = replace(image(3), vector=image(70).vector, decoding=0), replace(image(4), vector=image(71).vector)
    with IndexWriter.open(here, FINGERPRINT) as writer:
        files = [(File(Path(f"/mine/{number}.jpg"), 6, 7), each.hash) for number, each in ((3, old), (4, newer))]
        writer.commit(images=[old, newer], files=files)
    report = import_folder(folder, here)
    assert (report.images, report.known, report.differing) == (9, 1, 1)
    with IndexReader.open(here) as store:
        for number, vector in ((3, image(3).vector), (4, newer.vector)):
            id = store.catalog.image_id(image(number).hash)
            assert id is not None
            np.testing.assert_array_equal(stored(store, id), vector.astype(np.float16))
            paths = {Path(f"/mine/{number}.jpg"), Path(f"/photos/{number}.jpg")}
            assert set(store.catalog.paths_of(id)) == paths
        assert (store.catalog.image_id(image(3).hash) or 0) > 2  # a new id
    assert list(check_index(here)) == []


def test_a_vector_as_far_from_unit_length_as_an_index_allows_survives(tmp_path: Path) -> None:
    scaled = (image(number).vector * np.float32(1.00099) for number in range(1000))
    vector = next(v for v in scaled if np.linalg.norm(v.astype(np.float16).astype(np.float32)) > 1.001)
    new = NewImage(image(1).hash, 1, 1, None, vector)
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        writer.commit(images=[new], files=[(photo("1.jpg"), new.hash)])
    with IndexReader.open(tmp_path / "index") as store:
        export(store, tmp_path / "export")
    import_folder(tmp_path / "export", tmp_path / "other")
    assert holdings(tmp_path / "other") == holdings(tmp_path / "index")


def test_what_is_moved_onto_what_was_skipped_is_kept(tmp_path: Path) -> None:
    """It could be read, the other could not."""
    (one,) = [image(1)]
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        writer.commit(images=[one], files=[(File(Path("/a/1.jpg"), 5, 5), one.hash)])
        writer.commit(skipped=[(File(Path("/b/1.jpg"), 5, 5), "empty")])
    with IndexReader.open(tmp_path / "index") as store:
        export(store, tmp_path / "export")
    import_folder(tmp_path / "export", tmp_path / "other", moves={"/a": Path("/x"), "/b": Path("/x")})
    with IndexReader.open(tmp_path / "other") as store:
        assert [str(photo.path) for entry in store.catalog.entries() for photo in entry.files] == ["/x/1.jpg"]
        assert list(store.catalog.skipped()) == []


def test_an_import_that_is_broken_off_publishes_nothing(folder: Path, tmp_path: Path) -> None:
    with (
        patch.object(IndexWriter, "commit", side_effect=KeyboardInterrupt),
        patch.object(IndexWriter, "finish") as finish,
        pytest.raises(KeyboardInterrupt),
    ):
        import_folder(folder, tmp_path / "other")
    assert not finish.called


def test_a_file_that_leads_nowhere_is_named(index: Path, tmp_path: Path) -> None:
    with sqlite3.connect(index / "manifest.sqlite") as db:
        db.execute("DROP TRIGGER image_pruned")
        db.execute("DELETE FROM images WHERE id = 3")
        db.execute("UPDATE state SET images = 9")
    db.close()
    with (
        IndexReader.open(index) as store,
        pytest.raises(StoreError, match=r"the row of '/photos/2\.jpg' leads nowhere"),
    ):
        export(store, tmp_path / "export")


def test_an_empty_index_goes_and_comes(tmp_path: Path) -> None:
    IndexWriter.open(tmp_path / "index", FINGERPRINT).close()
    with IndexReader.open(tmp_path / "index") as store:
        assert export(store, tmp_path / "export").images == 0
    assert import_folder(tmp_path / "export", tmp_path / "other").images == 0
    assert holdings(tmp_path / "other") == holdings(tmp_path / "index")


def test_the_documented_python_reads_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "export-format.md").read_text("utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["vectors"].shape == (10, DIM) and names["vectors"].dtype == np.float16
    assert names["files"][os.fsencode(ODD)] == 0 and names["files"][b"/photos/8.jpg"] == 8
    np.testing.assert_array_equal(names["vectors"][4], image(4).vector.astype(np.float16))


def test_an_export_is_one_state_beside_a_writer(index: Path, tmp_path: Path) -> None:
    before = answers(index)
    with IndexReader.open(index) as store, IndexWriter.open(index, FINGERPRINT) as writer:
        more = [image(number) for number in range(200, 240)]
        writer.commit(images=more, files=[(photo(f"{number}.png"), each.hash) for number, each in enumerate(more)])
        writer.forget(Path("/photos/3.jpg"))
        assert export(store, tmp_path / "export").images == 10
    import_folder(tmp_path / "export", tmp_path / "other")
    assert answers(tmp_path / "other") == before


def test_the_folder_of_the_index_is_no_place_for_an_export(index: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(index)
    with IndexReader.open(index) as store:
        for place in (index / "export", tmp_path / "link" / "a" / "b"):
            with pytest.raises(UsageError, match="it lies in the folder of the index"):
                export(store, place)
    assert not (index / "export").exists() and not (index / "a").exists()


def test_a_folder_that_holds_something_is_left_alone(index: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with IndexReader.open(index) as store:
        with pytest.raises(UsageError, match="not empty"):
            export(store, tmp_path / "mine")
        (tmp_path / "empty").mkdir()
        export(store, tmp_path / "empty")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.skipif(os.name == "nt", reason="folders have no fsync there, and need none")
def test_an_export_takes_its_name_when_all_of_it_is_on_the_disk(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "export"
    synced: list[tuple[int, bool]] = []  # inode, and whether the name was taken by then
    monkeypatch.setattr("os.fsync", lambda file: synced.append((os.fstat(file).st_ino, folder.exists())))
    with IndexReader.open(index) as store:
        export(store, folder)
    *files, content, name = synced
    assert sorted(files) == sorted((file.stat().st_ino, False) for file in folder.iterdir())
    assert (content, name) == ((folder.stat().st_ino, False), (tmp_path.stat().st_ino, True))


def test_an_export_to_a_full_disk_names_the_file(index: Path, tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with (
        IndexReader.open(index) as store,
        patch("os.fsync", full),
        pytest.raises(OutputError, match=r"export/images.jsonl: cannot be written: No space left"),
    ):
        export(store, tmp_path / "export")


def test_an_error_of_the_one_who_watches_an_export_is_his_own(index: Path, tmp_path: Path) -> None:
    class Away(BrokenPipeError):
        pass

    def fail(done: int, total: int) -> None:
        raise Away

    with IndexReader.open(index) as store, pytest.raises(Away), patch("bridgetower.transfer.export._REPORT_EVERY", 1):
        export(store, tmp_path / "export", on_progress=fail)
    assert not (tmp_path / "export").exists()


def beside_the_index(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "index" not in path.parts)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("place", ["export", "new/folders/export", "empty"])
def test_an_export_that_ends_at_any_point_leaves_nothing(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    (tmp_path / "empty").mkdir()
    before = beside_the_index(tmp_path)
    ends = 0

    def end_at(number: int) -> None:
        """Each step of an export on the disk counts; after so many of them, it fails."""
        left = number

        def counting(real: Any) -> Any:
            def step(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise error
                return real(*arguments, **options)

            return step

        for name in ("mkdir", "open", "rename"):
            monkeypatch.setattr(Path, name, counting(getattr(Path, name)))
        monkeypatch.setattr("os.fsync", counting(os.fsync))

    with IndexReader.open(index) as store:
        while True:
            end_at(ends + 1)
            try:
                export(store, tmp_path / place)
            except (OutputError, KeyboardInterrupt):
                monkeypatch.undo()
                assert beside_the_index(tmp_path) == before, ends
                ends += 1
            else:
                break
    assert ends >= 12  # 5 files, each opened and synced, the folders made, synced and named
    monkeypatch.undo()
    assert import_folder(tmp_path / place, tmp_path / "other").images == 10


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
def test_an_export_that_runs_out_of_handles_says_so_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    before = beside_the_index(tmp_path)
    with IndexReader.open(index) as store:
        list(store.catalog.entries())
        for number in range(2):
            with handles_left(number), pytest.raises(ResourceError, match="too many open files"):
                export(store, tmp_path / "new" / "export")
            assert beside_the_index(tmp_path) == before
        with handles_left(2):
            assert export(store, tmp_path / "new" / "export").images == 10


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE files SET size = 6 WHERE path = x'2F70686F746F732F342E6A7067'", r"/photos/4\.jpg"),
        ("UPDATE files SET reason = 'other' WHERE reason IS NOT NULL", "bad"),
        ("UPDATE images SET width = 6 WHERE id = 5", "image 5 is not as it was written"),
        ("UPDATE state SET images = 11", "holds 10 images and counts 11"),
    ],
)
def test_a_damaged_index_is_not_exported(damage: str, message: str, index: Path, tmp_path: Path) -> None:
    with sqlite3.connect(index / "manifest.sqlite") as db:
        assert db.execute(damage).rowcount == 1
    db.close()
    with IndexReader.open(index) as store, pytest.raises(StoreError, match=rf"damaged .*{message}"):
        export(store, tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_killed_export_never_looks_finished(index: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from bridgetower.transfer import export
from bridgetower.index.check import check_index
from bridgetower.index.reader import IndexReader
export._REPORT_EVERY = 1
def die(done, total):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
export.export(IndexReader.open(Path({str(index)!r})), Path({str(tmp_path / "export")!r}), on_progress=die)
"""
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "export").exists()
    with IndexReader.open(index) as store:
        export(store, tmp_path / "export")
    assert import_folder(tmp_path / "export", tmp_path / "other").images == 10


# Importing again, adding, and moving


def test_an_import_may_be_repeated(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "other")
    before = holdings(tmp_path / "other")
    report = import_folder(folder, tmp_path / "other")
    assert (report.images, report.known, report.differing, report.files) == (0, 10, 0, 10)
    assert holdings(tmp_path / "other") == before


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_killed_import_goes_on(index: Path, folder: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from bridgetower.transfer import import_index
import_index.BATCH_FILES = 4
def die(done, total):
    if done == 17:
        os.kill(os.getpid(), signal.SIGKILL)
import_index.import_folder(Path({str(folder)!r}), Path({str(tmp_path / "other")!r}), on_progress=die)
"""
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    with IndexReader.open(tmp_path / "other") as store:
        committed = len(store)
    assert 0 < committed < 9
    report = import_folder(folder, tmp_path / "other")
    assert 0 < report.images < 10 and report.images + report.known == 10
    assert holdings(tmp_path / "other") == holdings(index)
    assert answers(tmp_path / "other") == answers(index)


def test_what_the_index_has_stays_and_what_it_lacks_is_added(folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    other = NewImage(image(4).hash, 644, 480, None, image(77).vector)  # the same content, quite another vector
    mine = [image(50), image(3), other]
    readable = NewImage(image(60).hash, 1, 1, None, image(60).vector)
    with IndexWriter.open(here, FINGERPRINT) as writer:
        files = [(File(Path(f"/photos/{name}.jpg"), 6, 7), each.hash) for name, each in zip("x34", mine, strict=True)]
        writer.commit(images=[*mine, readable], files=[*files, (photo("bad \udcfe.jpg"), readable.hash)])
        writer.set_queries(image(99).vector[None])
    report = import_folder(folder, here)
    assert (report.images, report.known, report.differing, report.queries) == (8, 2, 1, 0)
    with IndexReader.open(here) as store:
        assert len(store) == 3 + 8 - 1 + 1
        np.testing.assert_array_equal(stored(store, 3), other.vector.astype(np.float16))
        [x, *_] = store.nearest(image(3).vector[None])
        assert x.files == (File(Path("/photos/3.jpg"), 6, 7),)  # size and time of this machine
        assert list(store.catalog.skipped()) == []  # which could read it
        assert len(store.catalog.queries()) == 1


def test_an_index_of_another_model_is_refused_before_the_export_is_read(folder: Path, tmp_path: Path) -> None:
    other = Fingerprint("other/model", "abc123", "e" * 64, "c" * 64, "hf", 1, "float", DIM)
    with IndexWriter.open(tmp_path / "other", other) as writer:
        writer.commit(images=[image(1)])
    (folder / "images.jsonl").write_text("damaged")
    with pytest.raises(StoreError, match=r"made by model other/model.*--index NEW"):
        import_folder(folder, tmp_path / "other")


def test_the_same_model_keeps_the_name_that_it_has_here(folder: Path, tmp_path: Path) -> None:
    here = Fingerprint("/home/me/model", "local", "f" * 64, "c" * 64, "hf", 1, "float", DIM)
    with IndexWriter.open(tmp_path / "here", here) as writer:
        writer.commit(images=[image(1)])
    import_folder(folder, tmp_path / "here")
    with IndexReader.open(tmp_path / "here") as store:
        assert store.fingerprint == here
    with IndexWriter.open(tmp_path / "empty", here):
        pass
    import_folder(folder, tmp_path / "empty")
    with IndexReader.open(tmp_path / "empty") as store:
        assert store.fingerprint == FINGERPRINT


def test_an_index_of_an_older_format_is_brought_forward(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "index-format-2", tmp_path / "old")
    assert import_folder(folder, tmp_path / "old").images == 10
    with IndexReader.open(tmp_path / "old") as store:
        assert store.summary().images + store.summary().orphans == 34


def test_paths_move_by_the_longest_beginning_and_by_whole_names(folder: Path, tmp_path: Path) -> None:
    moves = {
        "/photos/": Path("/home/me"),
        "/photos/8.jpg": Path("/else/where.jpg"),
        "/photos/7": Path("/never"),
        "/": Path("/root"),
    }
    report = import_folder(folder, tmp_path / "other", moves=moves)
    assert report.unused == ("/", "/photos/7")
    with IndexReader.open(tmp_path / "other") as store:
        paths = {photo.path for entry in store.catalog.entries() for photo in entry.files}
        assert {root.path for root in store.summary().roots} == {Path("/home/me")}
        assert [skip.path for skip in store.catalog.skipped()] == [Path("/home/me/bad \udcfe.jpg")]
    assert paths == {Path("/else/where.jpg"), Path("/home/me") / ODD.name} | {
        Path(f"/home/me/{n}.jpg") for n in range(8)
    }


def test_the_root_of_a_file_system_can_be_moved(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "other", moves={"/": Path("/mnt/old")})
    with IndexReader.open(tmp_path / "other") as store:
        assert {root.path for root in store.summary().roots} == {Path("/mnt/old/photos")}


def reexport(folder: Path, **files: str) -> None:
    """Write other contents into an export, with the right sums."""
    described = json.loads((folder / "index.json").read_text())
    for name, content in files.items():
        file = folder / f"{name}.jsonl"
        file.write_text(content)
        described["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(described))


def test_paths_of_windows_move_here(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "index.json").read_text())
    described |= {"separator": "\\", "roots": [{"path": "C:\\photos", "scanned_at": None}]}
    (folder / "index.json").write_text(json.dumps(described))
    text = {file.stem: file.read_text().replace("/photos/", r"C:\\photos\\2025\\") for file in folder.glob("*.jsonl")}
    reexport(folder, **text)
    with pytest.raises(InputError, match=r"index\.json: the path .* not absolute on this machine.*--map OLD=NEW"):
        import_folder(folder, tmp_path / "other")
    import_folder(folder, tmp_path / "other", moves={"C:\\photos\\": Path("/home/me")})
    with IndexReader.open(tmp_path / "other") as store:
        assert Path("/home/me/2025/1.jpg") in {photo.path for entry in store.catalog.entries() for photo in entry.files}


def test_what_separates_names_is_a_slash_or_a_backslash(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "index.json").read_text()) | {"separator": ""}
    (folder / "index.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r'index\.json: "separator" is neither a slash nor a backslash'):
        import_folder(folder, tmp_path / "other")


# What is wrong with an export


def change(folder: Path, file: str, number: int, edit: Any) -> None:
    lines = [json.loads(line) for line in (folder / f"{file}.jsonl").read_text().splitlines()]
    replaced = edit(lines[number - 1], lines)
    written = [json.dumps(line) for line in lines]
    if isinstance(replaced, str):
        written[number - 1] = replaced
    reexport(folder, **{file: "".join(line + "\n" for line in written)})


WRONG = {
    "not JSON": ("images", 3, lambda row, rows: '{"row": 2,', r"images\.jsonl, line 3: not JSON from column"),
    "empty": ("images", 3, lambda row, rows: "", r"images\.jsonl, line 3: not JSON"),
    "deep": ("images", 3, lambda row, rows: "[" * 100_000, r"images\.jsonl, line 3: a number too long, or brackets"),
    "digits": ("images", 3, lambda row, rows: '{"row": ' + "1" * 5000 + "}", r"images\.jsonl, line 3: a number too"),
    "no object": ("images", 3, lambda row, rows: "[2]", r'line 3: not a JSON object with "row"'),
    "row": ("images", 3, lambda row, rows: row.update(row=3), r'line 3: "row" is not 2'),
    "hash": ("images", 3, lambda row, rows: row.update(hash="AB" * 32), r'line 3: "hash" is not'),
    "short hash": ("images", 3, lambda row, rows: row.update(hash="ab"), r'line 3: "hash" is not'),
    "width": ("images", 3, lambda row, rows: row.update(width=1.5), r'line 3: "width" is not a whole number'),
    "height": ("images", 3, lambda row, rows: row.update(height=True), r'line 3: "height" is not a whole number'),
    "taken_at": ("images", 3, lambda row, rows: row.update(taken_at=2**63), r'line 3: "taken_at" is out of range'),
    "no paths": ("images", 3, lambda row, rows: row.pop("paths") and None, r'line 3: "paths" is not a list'),
    "size": ("images", 3, lambda row, rows: row["paths"][0].update(size=-1), r'line 3: "size" is out of range'),
    "relative": ("images", 3, lambda row, rows: row["paths"][0].update(path="a.jpg"), r"line 3: .* not absolute"),
    "NUL": ("images", 3, lambda row, rows: row["paths"][0].update(path="/a\0b"), r"line 3: .* cannot be one of a file"),
    "surrogate": ("images", 3, lambda row, rows: row["paths"][0].update(path="/\ud800"), r"line 3: .* cannot be one"),
    "path twice": (
        "images", 3, lambda row, rows: row.update(paths=rows[1]["paths"]), "line 3: the same path as in line 2",
    ),
    "path twice in one line": (
        "images", 3, lambda row, rows: row.update(paths=2 * row["paths"]), "line 3: the same path as in line 3",
    ),
    "content twice": (
        "images", 3, lambda row, rows: row.update(hash=rows[1]["hash"]), "line 3: the same content as in line 2",
    ),
    "too few lines": ("images", 3, lambda row, rows: rows.pop() and None, r"images\.jsonl: ends after 9 lines"),
    "too many lines": ("images", 3, lambda row, rows: rows.append(row | {"row": 10}), "goes on after 10 lines"),
    "no reason": ("skipped", 1, lambda row, rows: row.pop("reason") and None, r'skipped\.jsonl, line 1: "reason" is'),
    "skipped twice": ("skipped", 1, lambda row, rows: rows.append(row), r"skipped\.jsonl: 2 lines, not 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_line_is_named_and_nothing_is_written(case: str, folder: Path, tmp_path: Path) -> None:
    file, number, edit, message = WRONG[case]
    change(folder, file, number, edit)
    with pytest.raises(InputError, match=message):
        import_folder(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("value", "length"), [(np.nan, "nan"), (SIGNALLING, "nan"), (np.inf, "inf"), (0.5, r"[01]\.\d+")]
)
def test_a_wrong_vector_is_named(value: float, length: str, folder: Path, tmp_path: Path) -> None:
    vectors = np.load(folder / "vectors.npy")
    vectors[6, 3] = value
    np.save(folder / "vectors.npy", vectors)
    described = json.loads((folder / "index.json").read_text())
    described["sha256"]["vectors.npy"] = hashlib.sha256((folder / "vectors.npy").read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=rf"vectors\.npy: row 6 has length {length}, not 1"):
        import_folder(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["vectors.npy", "images.jsonl", "skipped.jsonl", "queries.npy"])
def test_damage_and_absence_of_a_file_are_named(name: str, folder: Path, tmp_path: Path) -> None:
    whole = (folder / name).read_bytes()
    for damaged in (whole[:-1], whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:], whole + b"\n", b"", b"\x93NUMPY\1\0"):
        (folder / name).write_bytes(damaged)
        with pytest.raises(InputError, match=re.escape(str(folder / name))):
            import_folder(folder, tmp_path / "other")
    (folder / name).unlink()
    with pytest.raises(InputError, match=re.escape(str(folder / name))):
        import_folder(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs pipes and devices with names")
@pytest.mark.parametrize("name", ["index.json", "vectors.npy", "images.jsonl", "skipped.jsonl", "queries.npy"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind: str, name: str, folder: Path, tmp_path: Path) -> None:
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: not a file but a [^\n]+; give a file$"):
        import_folder(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_longest_line_is_parsed_before_a_signal_has_to_wait_and_is_documented() -> None:
    assert jsonl.LONGEST_LINE <= 16_000_000
    commands = (Path(__file__).parents[3] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"a line of JSON of more than {jsonl.LONGEST_LINE // 10**6} MB" in commands


def test_what_would_fill_the_memory_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(jsonl, "LONGEST_LINE", 100)
        with pytest.raises(InputError, match=r"images\.jsonl, line 1: longer than 0\.0001 MB"):
            import_folder(folder, tmp_path / "other")
    with (folder / "index.json").open("r+b") as file:
        file.truncate(export_reader.LARGEST_INDEX + 1)  # sparse: takes no room
    with pytest.raises(InputError, match=r"index\.json: larger than 64 MB; give a folder that `bt export` has written"):
        import_folder(folder, tmp_path / "other")


INDEX = {
    "not JSON": lambda text: text[:-5],
    "a list": lambda text: "[]",
    "another format": lambda text: text.replace("bridgetower-export", "parquet"),
    "a newer version": lambda text: text.replace('"version": 2', '"version": 3'),
    "no dim": lambda text: text.replace('"dim"', '"dimension"'),
    "another dim": lambda text: text.replace('"dim": 16', '"dim": 17'),
    "an endless dim": lambda text: text.replace('"dim": 16', '"dim": 1' + "0" * 30),
    "no model": lambda text: text.replace('"some/model"', "null"),
    "an empty model": lambda text: text.replace('"some/model"', '" "'),
    "weights without a digest": lambda text: text.replace("f" * 64, "some weights"),
    "half a digest": lambda text: text.replace("c" * 64, "c" * 32),
    "a digest in capitals": lambda text: text.replace("f" * 64, "F" * 64),
    "an odd model": lambda text: text.replace("some/model", "some\\udc80model"),
    "another number": lambda text: text.replace('"images": 10', '"images": 11'),
    "fewer sums": lambda text: text.replace('"skipped.jsonl"', '"../../etc/passwd"'),
    "a root that is none": lambda text: text.replace('"/photos"', "7"),
}


@pytest.mark.parametrize("case", INDEX)
def test_an_index_json_that_is_none_is_refused(case: str, folder: Path, tmp_path: Path) -> None:
    text = (folder / "index.json").read_text()
    changed = INDEX[case](text)
    assert changed != text
    (folder / "index.json").write_text(changed)
    with pytest.raises(InputError, match=r"^[^\n]+(index\.json|vectors\.npy)[^\n]+$"):
        import_folder(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_digests_that_are_equal_by_chance_are_told_apart(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "_digest", lambda key: len(key[1]) % 2)
    assert import_folder(folder, tmp_path / "other").images == 10


def test_a_writer_at_work_is_named(folder: Path, tmp_path: Path) -> None:
    with (
        IndexWriter.open(tmp_path / "other", FINGERPRINT),
        pytest.raises(StoreError, match="has been writing this index"),
    ):
        import_folder(folder, tmp_path / "other")


def test_memory_does_not_grow_with_the_index(tmp_path: Path) -> None:
    """What an export and an import hold at a time is far less than the vectors."""
    program = f"""
import hashlib, resource
from dataclasses import replace
from pathlib import Path
import numpy as np
from bridgetower.transfer import import_index
from bridgetower.transfer.export import export
from bridgetower.records import File, Fingerprint
from bridgetower.index.check import check_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import NewImage, IndexWriter
fingerprint = replace({FINGERPRINT!r}, dim=4096)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
index, folder = Path({str(tmp_path / "index")!r}), Path({str(tmp_path / "export")!r})
import_index.IndexWriter.finish = lambda writer: None  # the vector file is the whole index in memory
vector = np.eye(1, 4096, dtype=np.float16)[0]
with IndexWriter.open(index, fingerprint) as writer:
    for start in range(0, 4000, 500):
        writer.commit(images=[NewImage(hashlib.sha256(b"%d" % n).digest(), 1, 1, None, vector)
                              for n in range(start, start + 500)])
before = peak()
with IndexReader.open(index) as store:
    export(store, folder)
import_index.import_folder(folder, index.with_name("other"))
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "export" / "vectors.npy").stat().st_size > 32_000_000
    assert float(done.stdout) < 16  # MB
