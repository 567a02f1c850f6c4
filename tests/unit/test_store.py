"""The index directory from outside: what was committed is found, whatever happens to the process or the files."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import bridgetower
from bridgetower import writer as writer_module
from bridgetower.errors import NoIndexError, StoreError
from bridgetower.manifest import Manifest
from bridgetower.manifest_writer import ManifestWriter, Sweep
from bridgetower.records import File, Fingerprint, Photo
from bridgetower.store import Store
from bridgetower.writer import NewImage, Writer
from tests.fakes import stored

DIM = 16
FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", DIM)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(bridgetower.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "index-format.md"

# What the subprocesses of these tests begin with; `vector` and `image` as below.
PRELUDE = f"""
import hashlib, os, sys, time
from pathlib import Path
import numpy as np
from bridgetower.records import File, Fingerprint, Photo
from bridgetower.store import Store
from bridgetower.writer import NewImage, Writer
FINGERPRINT = {FINGERPRINT!r}
def image(number):
    vector = np.random.default_rng(number).normal(size={DIM}).astype(np.float32)
    return NewImage(hashlib.sha256(b"%d" % number).digest(), 640, 480, None, vector / np.linalg.norm(vector))
def file(number):
    return Photo(Path(f"/photos/{{number}}.jpg"), number, 7), image(number).hash
"""


def image(number: int) -> NewImage:
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return NewImage(hashlib.sha256(b"%d" % number).digest(), 640, 480, None, vector / np.linalg.norm(vector))


def path_of(number: int) -> Path:
    return Path(f"/photos/{number}.jpg")


def file(number: int) -> tuple[Photo, bytes]:
    return Photo(path_of(number), number, 7), image(number).hash


def add(writer: Writer, *numbers: int) -> None:
    writer.commit(images=[image(n) for n in numbers], files=[file(n) for n in numbers])


def build(directory: Path, *numbers: int, finish: bool = True) -> None:
    with Writer.open(directory, FINGERPRINT) as writer:
        writer.add_root(Path("/photos"))
        add(writer, *numbers)
        if finish:
            writer.finish()


def answer(store: Store, query: NDArray[np.float32], k: int = 1000) -> list[tuple[str, float]]:
    (neighbours,) = store.recall(query[None], k)
    return [(store.manifest.photos(image)[0].stem, similarity) for image, similarity in neighbours]


def assert_holds(directory: Path, *numbers: int) -> None:
    """The index finds exactly these pictures, with the scores of comparing one by one."""
    query = image(-1 % 2**32).vector
    with Store.open(directory) as store:
        assert_answers(store, query, *numbers)


def assert_answers(store: Store, query: NDArray[np.float32], *numbers: int) -> None:
    rounded = {n: image(n).vector.astype(np.float16).astype(np.float64) for n in numbers}
    scores = {n: float(rounded[n] @ query.astype(np.float64)) for n in numbers}
    expected = sorted(numbers, key=lambda n: -scores[n])
    found = answer(store, query)
    assert [name for name, _ in found] == [str(n) for n in expected]
    np.testing.assert_allclose([score for _, score in found], [scores[n] for n in expected], rtol=0, atol=1e-6)
    assert len(store) == len(numbers)


def vector_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("vectors*"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "somewhere" / "index"


def test_what_was_committed_is_found(directory: Path) -> None:
    build(directory, *range(40))
    assert vector_files(directory) == ["vectors-1.faiss"]
    assert_holds(directory, *range(40))
    with Store.open(directory) as store:
        assert len(store.recall(image(3).vector[None], 5)[0]) == 5
        assert store.recall(image(3).vector[None], 1)[0][0].image == store.manifest.image_id(image(3).hash)
        assert store.recall(np.zeros((0, DIM), dtype=np.float32), 5) == []


def test_without_the_vector_file_the_answers_are_the_same(directory: Path) -> None:
    build(directory, *range(40), finish=False)
    assert vector_files(directory) == []
    assert_holds(directory, *range(40))


def test_an_index_without_pictures_finds_none(directory: Path) -> None:
    build(directory)
    with Store.open(directory) as store:
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
    with Writer.open(directory, FINGERPRINT) as writer:
        assert vector_files(directory) == sorted(["vectors-1.faiss", *foreign])
        writer.publish_anew()
    assert vector_files(directory) == sorted(["vectors-2.faiss", *foreign])


def test_a_long_run_publishes_in_the_middle(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_UNCOVERED_MIN", 10)
    with Writer.open(directory, FINGERPRINT) as writer:
        generations = []
        for start in range(0, 100, 5):
            add(writer, *range(start, start + 5))
            generations += vector_files(directory)[-1:]
            assert_holds(directory, *range(start + 5))
    assert 2 <= len(set(generations)) <= 5  # each time the index has doubled, not with each batch


def test_a_vanished_file_is_not_found_and_a_restored_one_is_not_encoded_again(directory: Path) -> None:
    build(directory, *range(20))
    with Writer.open(directory, FINGERPRINT) as writer:
        for number in range(15):
            writer.meet([File(os.fsencode(path_of(number)), 1, 1)])
        assert writer.sweep(Path("/photos")) == Sweep(removed=5, kept=0)
        assert_holds(directory, *range(15))
        writer.finish()
        assert writer.image_id(image(17).hash) is not None
        writer.commit(files=[file(17)])
        writer.finish()
    assert_holds(directory, *range(15), 17)
    with Store.open(directory) as store:
        assert (store.summary().images, store.summary().orphans) == (16, 4)


def test_a_renamed_or_copied_file_shares_its_image(directory: Path) -> None:
    build(directory, 1, 2)
    copy = Photo(Path("/photos/a copy.jpg"), 1, 9)
    with Writer.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(1)], files=[(copy, image(1).hash)])
    with Store.open(directory) as store:
        id = store.manifest.image_id(image(1).hash)
        assert id is not None
        assert store.manifest.photos(id) == (path_of(1), copy.path)
        assert len(store) == 2


def test_a_changed_file_leads_to_its_new_content_only(directory: Path) -> None:
    build(directory, 1, 2)
    with Writer.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(3)], files=[(Photo(path_of(1), 1, 8), image(3).hash)])
    with Store.open(directory) as store:
        old, new = store.manifest.image_id(image(1).hash), store.manifest.image_id(image(3).hash)
        assert old is not None and new is not None
        assert (store.manifest.photos(old), store.manifest.photos(new)) == ((), (path_of(1),))
        assert [n.image for n in store.recall(image(1).vector[None], 9)[0]].count(old) == 0


def test_the_vector_of_an_image_is_what_was_stored(directory: Path) -> None:
    build(directory, 1)
    with Store.open(directory) as store:
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
    with Store.open(directory) as store:
        vector = stored(store, 1)
        assert float(vector @ vector) > 1
        assert store.recall(np.stack([vector, -vector]), 1) == [[(1, 1.0)], [(1, -1.0)]]


def test_a_bad_vector_or_unknown_content_stops_the_whole_batch(directory: Path) -> None:
    build(directory, 1)
    broken = dataclasses.replace(image(2), vector=image(2).vector * np.float32(np.nan))
    with Writer.open(directory, FINGERPRINT) as writer:
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
    with Store.open(directory) as store:
        for id, vector in zip(read["ids"], read["vectors"], strict=True):  # type: ignore[call-overload]
            np.testing.assert_array_equal(vector, stored(store, id))
        assert dict(read["files"]) == {str(store.manifest.photos(id)[0]): id for id in range(1, 11)}  # type: ignore[call-overload]
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
    with Writer.open(directory, FINGERPRINT) as writer:
        writer.finish()
    assert (directory / "vectors-2.faiss").is_file()
    assert_holds(directory, *range(40))


class Crash(BaseException):
    """The process dies here."""


def test_a_crash_between_rename_and_transaction_leaves_the_old_state(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(directory, *range(10))
    with monkeypatch.context() as patch, Writer.open(directory, FINGERPRINT) as writer:
        add(writer, *range(10, 20))
        patch.setattr(ManifestWriter, "publish", lambda *_, **__: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            writer.finish()
    assert vector_files(directory) == ["vectors-1.faiss", "vectors-2.faiss"]
    assert_holds(directory, *range(20))
    (directory / "vectors-3.faiss.tmp").write_bytes(b"half")
    with Writer.open(directory, FINGERPRINT) as writer:
        assert vector_files(directory) == ["vectors-1.faiss"]
        writer.finish()
    assert vector_files(directory) == ["vectors-2.faiss"]
    assert_holds(directory, *range(20))


def test_a_disk_that_fills_up_while_publishing_loses_nothing(directory: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits on file sizes on this system")
    build(directory, *range(1000), finish=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Writer.open(directory, FINGERPRINT) as writer:
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
    manifest = ManifestWriter.open(directory / "manifest.sqlite", FINGERPRINT)
    with manifest.transaction():
        manifest._db.execute("UPDATE images SET vector = ? WHERE id = 2", (b"\xff" * 2 * DIM,))
    manifest.close()
    with (
        Store.open(directory) as store,
        pytest.raises(StoreError, match=r"manifest\.sqlite: damaged .*image 2 is not as it was written"),
    ):
        store.recall(image(1).vector[None], 1)


# Readers


def test_readers_see_one_state_whole_while_the_writer_goes_on(directory: Path) -> None:
    build(directory, *range(10))
    query = image(500).vector
    with Store.open(directory) as early, Store.open(directory) as unused, Writer.open(directory, FINGERPRINT) as writer:
        assert_answers(early, query, *range(10))
        add(writer, *range(10, 30))
        writer.forget(path_of(3))
        with Store.open(directory) as late:
            writer.finish()  # removes the vector file that the first two opened
            assert vector_files(directory) == ["vectors-2.faiss"]
            after = [n for n in range(30) if n != 3]
            assert_answers(early, query, *range(10))
            assert_answers(unused, query, *range(10))
            assert_answers(late, query, *after)
            assert unused.summary().files == 10
            assert unused.manifest.photos(4) == (path_of(3),)
    assert_holds(directory, *after)


def test_a_reader_that_finds_its_vector_file_removed_reads_the_manifest(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(directory, *range(10))
    read = Manifest.read

    def read_slowly(path: Path) -> Manifest:  # the writer publishes between the snapshot and the opening of the file
        manifest = read(path)
        build(directory, *range(10, 20))
        assert vector_files(directory) == ["vectors-2.faiss"]
        return manifest

    monkeypatch.setattr(Manifest, "read", read_slowly)
    with Store.open(directory) as store:
        monkeypatch.undo()
        assert_answers(store, image(500).vector, *range(10))


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[Path]:
    """A copy that others may read and not write, where the owner's rights do not reach past the permissions."""
    place = Path(tempfile.mkdtemp())
    copy = place / "index"
    shutil.copytree(directory, copy)
    for path in (place, copy, *copy.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield copy
    place.chmod(0o755)
    copy.chmod(0o755)
    shutil.rmtree(place)


READ_ONLY = (
    PRELUDE
    + """
import bridgetower.vectors  # before the rights go, which may be needed to import anything
query = image(3).vector[None]
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    with Store.open(Path(sys.argv[1])) as store:
        print(len(store.recall(query, 100)[0]), store.recall(query, 1)[0][0].image)
except Exception as error:
    print(type(error).__name__, error)
try:
    Writer.open(Path(sys.argv[1]), FINGERPRINT)
except Exception as error:
    print(type(error).__name__, error)
"""
)


def run(program: str, *arguments: str | Path) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of a folder mean something else on Windows")
def test_a_read_only_index_can_be_searched(directory: Path) -> None:
    build(directory, *range(10))
    with read_only(directory) as copy:
        before = {path.name: path.read_bytes() for path in copy.iterdir()}
        assert set(before) == {"manifest.sqlite", "vectors-1.faiss", "writer.lock"}
        found, refused = run(READ_ONLY, copy)
        assert found == "10 4"
        assert refused.startswith("StoreError") and "make its folder writable" in refused
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of a folder mean something else on Windows")
def test_a_read_only_copy_of_an_index_that_was_being_written_is_read_whole_or_refused(directory: Path) -> None:
    build(directory, *range(5))
    with Writer.open(directory, FINGERPRINT) as writer:
        add(writer, *range(5, 10))
        with read_only(directory) as copy:
            assert (copy / "manifest.sqlite-wal").stat().st_size > 0
            assert run(READ_ONLY, copy)[0] == "10 4"
        shm = directory / "manifest.sqlite-shm"
        hidden = shm.read_bytes()
        with read_only(directory) as copy:
            (copy.parent).chmod(0o755)
            copy.chmod(0o755)
            (copy / shm.name).unlink()
            copy.chmod(0o555)
            assert run(READ_ONLY, copy)[0].startswith("StoreError")  # never the old half alone
        assert shm.read_bytes() == hidden


def test_a_manifest_that_changes_under_a_reader_without_locks_is_noticed(directory: Path) -> None:
    build(directory, *range(10))
    manifest = Manifest._snapshot(directory / "manifest.sqlite", immutable=True)
    assert manifest.counts().files == 10
    build(directory, 10)
    with pytest.raises(StoreError, match="changed while it was read"):
        manifest.counts()
    manifest.close()


# Writers


def start(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


HOLD = """
writer = Writer.open(Path(sys.argv[1]), FINGERPRINT)
print("holds", flush=True)
time.sleep(60)
"""


def test_a_second_writer_learns_who_is_at_work_and_a_dead_one_is_no_obstacle(directory: Path) -> None:
    holder = start(HOLD, directory)
    try:
        assert first_line(holder) == "holds"
        signed = json.loads((directory / "writer.lock").read_text())
        assert signed["pid"] == holder.pid
        message = rf"{re.escape(str(directory))}: process {holder.pid} on {re.escape(signed['host'])} .* since 20\d\d-"
        with pytest.raises(StoreError, match=message):
            Writer.open(directory, FINGERPRINT)
        assert json.loads((directory / "writer.lock").read_text()) == signed
        Store.open(directory).close()  # readers do not care
    finally:
        holder.kill()
        holder.communicate()
    build(directory, 1)
    assert_holds(directory, 1)


def test_a_second_writer_in_the_same_process_is_refused_too(directory: Path) -> None:
    with Writer.open(directory, FINGERPRINT) as writer:
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            Writer.open(directory, FINGERPRINT)
        add(writer, 1)
    build(directory, 2)
    assert_holds(directory, 1, 2)


COMMIT_FOR_EVER = """
import bridgetower.writer
bridgetower.writer._UNCOVERED_MIN = 20  # publish often, to be killed there too
writer = Writer.open(Path(sys.argv[1]), FINGERPRINT)
for start in range(int(sys.argv[2]), 100_000, 4):
    batch = range(start, start + 4)
    writer.commit(images=[image(n) for n in batch], files=[file(n) for n in batch])
    print(start + 4, flush=True)
    if start % 40 == 0:
        writer.publish()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_killing_the_writer_loses_no_committed_batch(directory: Path) -> None:
    committed = 0
    for round in range(5):
        writer = start(COMMIT_FOR_EVER, directory, str(committed))
        lines = [first_line(writer) for _ in range(5 + 7 * round)]
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        committed = int([*lines, *rest.split()][-1])
        with Store.open(directory) as store:
            found = len(store)
        assert found in (committed, committed + 4)  # the last batch may have been committed and not reported
        committed = found
        assert_holds(directory, *range(committed))
    with Writer.open(directory, FINGERPRINT) as last:
        last.finish()
        assert len(vector_files(directory)) == 1
    assert_holds(directory, *range(committed))


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
        Writer.open(directory, other)
    with Store.open(directory) as store:
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
        Writer.open(directory, other)
    message = str(refused.value)
    assert "those of some/model" not in message and message.endswith(" with `bt index --index NEW PHOTOS`")


def test_the_same_weights_under_another_name_are_the_same_model_and_found_there_from_now_on(directory: Path) -> None:
    build(directory, 1)
    copy = dataclasses.replace(FINGERPRINT, model="/models/copy", revision="local")
    with Store.open(directory) as store:
        store.check(copy)
    Writer.open(directory, copy).close()
    with Store.open(directory) as store:
        store.check(FINGERPRINT)
        assert store.fingerprint == copy
    assert_holds(directory, 1)


def test_an_index_without_images_takes_the_model_that_comes(directory: Path) -> None:
    build(directory)
    other = dataclasses.replace(FINGERPRINT, weights_sha256="0" * 64, dim=8)
    Writer.open(directory, other).close()
    with Store.open(directory) as store:
        assert store.fingerprint == other


def test_no_index_says_how_to_make_one(directory: Path) -> None:
    with pytest.raises(
        NoIndexError, match=rf"no index at {re.escape(str(directory))}: make one there with `bt index PHOTOS`"
    ):
        Store.open(directory)
    assert not directory.exists()


def test_a_folder_of_something_else_is_refused_and_left_alone(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "holiday.jpg").touch()
    with pytest.raises(StoreError, match="holds other files and no index"):
        Writer.open(directory, FINGERPRINT)
    assert [path.name for path in directory.iterdir()] == ["holiday.jpg"]
    with pytest.raises(StoreError, match="a file, not a folder"):
        Writer.open(directory / "holiday.jpg", FINGERPRINT)
    with pytest.raises(StoreError, match=re.escape(str(directory / "holiday.jpg"))):
        Writer.open(directory / "holiday.jpg" / "below", FINGERPRINT)


def test_a_newer_format_is_refused(directory: Path) -> None:
    build(directory, 1)
    manifest = ManifestWriter.open(directory / "manifest.sqlite", FINGERPRINT)
    manifest._db.execute("PRAGMA user_version = 99")
    manifest.close()
    with pytest.raises(StoreError, match="index format 99"):
        Writer.open(directory, FINGERPRINT)
    with pytest.raises(StoreError, match="index format 99"):
        Store.open(directory)
    assert vector_files(directory) == ["vectors-1.faiss"]


# Looking at it


def test_the_summary_counts_everything(directory: Path) -> None:
    build(directory, *range(40))
    with Writer.open(directory, FINGERPRINT) as writer:
        writer.add_root(Path("/empty"))
        add(writer, 40)
        writer.commit(
            files=[(Photo(Path("/elsewhere/copy.jpg"), 1, 1), image(7).hash)],
            skipped=[(Photo(Path(f"/photos/bad-{n}"), 1, 1), "not a picture") for n in (2, 1)],
        )
        writer.forget(path_of(8))
        writer.meet([File(os.fsencode(path_of(0)), 1, 1)])
        writer.finish()
    with Store.open(directory) as store:
        summary = store.summary()
        assert (summary.files, summary.images, summary.orphans, summary.skipped) == (41, 40, 1, 2)
        assert (summary.generation, summary.vectors_file, summary.uncovered) == (1, True, 1)
        assert [(root.path, root.files) for root in summary.roots] == [(Path("/empty"), 0), (Path("/photos"), 40)]
        assert summary.reasons == (("not a picture", 2),)
        assert summary.fingerprint == FINGERPRINT
        assert summary.created_at <= summary.updated_at
        assert summary.bytes_on_disk == sum(path.stat().st_size for path in directory.iterdir())
        assert [skipped.path.name for skipped in store.skipped()] == ["bad-1", "bad-2"]
    (directory / "vectors-1.faiss").unlink()
    with Store.open(directory) as store:
        assert (store.summary().vectors_file, store.summary().uncovered) == (False, 40)


def test_a_summary_needs_neither_numpy_nor_faiss(directory: Path) -> None:
    build(directory, 1)
    program = """
import sys
from pathlib import Path
from bridgetower.store import Store
with Store.open(Path(sys.argv[1])) as store:
    print(store.summary().images, *sorted({"numpy", "faiss"} & set(sys.modules)))
"""
    assert run(program, directory) == ["1"]
