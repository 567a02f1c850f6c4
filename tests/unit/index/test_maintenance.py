"""Letting go of files and images: what is forgotten, what is pruned, and what is kept: its disk may be absent."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bridgetower import Library
from bridgetower.errors import InputError, NoIndexError
from bridgetower.index import maintenance
from bridgetower.index.check import check_index
from bridgetower.index.maintenance import Pruned, forget, prune, would_prune
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.retrieval.indexing import index
from tests.clouds import leave_stub
from tests.fakes import FakeEncoder, paint

pytestmark = pytest.mark.usefixtures("decode_here")


def content(number: int) -> tuple[int, int, int]:
    return (7 * number % 256, 255 - number % 256, number // 30)


def run(directory: Path, *roots: Path) -> FakeEncoder:
    fake = FakeEncoder()
    with IndexWriter.open(directory, fake.fingerprint) as writer:
        index(list(roots), writer, lambda: Model.from_parts(fake))
    return fake


def pruned(directory: Path) -> Pruned:
    """Prune, after saying so: both agree, and the index is in order."""
    before = {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.is_file() and not path.name.endswith("-shm")
    }
    with IndexReader.open(directory) as store:
        said = would_prune(store)
    assert before == {path.name: path.read_bytes() for path in directory.iterdir() if path.name in before}
    with IndexWriter.resume(directory) as writer:
        done = prune(writer)
    assert list(check_index(directory)) == []
    assert (said.files, said.images, said.features, said.absent) == (
        (done.files, done.images, done.features, done.absent)
    )
    return done


def holds(directory: Path) -> set[Path]:
    with IndexReader.open(directory) as store:
        nearest = store.nearest(FakeEncoder().embed_texts(["red"]))
        found = {photo.path for candidate in nearest for photo in candidate.files}
        assert len(store) == store.summary().images
        return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(40):
        paint(tmp_path / "photos" / f"{number // 10}" / f"{number:02}.png", content(number))
    return tmp_path / "photos"


@pytest.fixture
def directory(tmp_path: Path, photos: Path) -> Path:
    run(tmp_path / "index", photos)
    return tmp_path / "index"


def test_what_is_gone_is_pruned_and_the_rest_is_found(photos: Path, directory: Path) -> None:
    everything = holds(directory)
    gone = set((photos / "1").iterdir()) | {photos / "0" / "03.png"}
    for path in gone:
        path.unlink()
    kept = directory / "features"
    kept.mkdir()
    for path, live in ((photos / "0" / "04.png", True), (photos / "nowhere", False)):
        hash = hashlib.sha256(path.read_bytes() if live else b"").hexdigest()
        (kept / f"{hash}-0-0-hf1-fp32-1.features").write_bytes(hashlib.sha256(b"seen").digest()[:16] + b"seen")
    done = pruned(directory)
    assert (done.files, done.images, done.features, done.absent) == (11, 11, 1, ())
    assert done.bytes > 0
    assert holds(directory) == everything - gone
    assert len(list(kept.iterdir())) == 1
    assert pruned(directory) == Pruned(0, 0, 0, 0, (), None)
    with IndexReader.open(directory) as store:
        assert store.summary().orphans == 0
        assert list(store.catalog.pruned()) == []  # the vector file was made anew


def test_a_file_with_a_stub_of_icloud_is_not_gone(photos: Path, directory: Path) -> None:
    everything = holds(directory)
    (photos / "0" / "03.png").unlink()
    leave_stub(photos / "0" / "04.png")
    for path in (photos / "1").iterdir():
        leave_stub(path)
    assert (pruned(directory).files, holds(directory)) == (1, everything - {photos / "0" / "03.png"})


def test_few_pruned_images_do_not_make_a_new_vector_file(photos: Path, directory: Path) -> None:
    (photos / "0" / "03.png").unlink()
    before = (directory / "vectors-1.faiss").read_bytes()
    assert pruned(directory).images == 1
    assert (directory / "vectors-1.faiss").read_bytes() == before
    with IndexReader.open(directory) as store:
        assert len(list(store.catalog.pruned())) == 1


def test_all_can_be_pruned_and_indexed_again(photos: Path, directory: Path) -> None:
    everything = holds(directory)
    with IndexWriter.resume(directory) as writer:
        forget(writer, [photos])
    assert pruned(directory).images == 40
    assert holds(directory) == set()
    assert run(directory, photos).encoded == 40
    assert holds(directory) == everything


def test_a_copy_keeps_its_image(photos: Path, directory: Path) -> None:
    (photos / "copy.png").write_bytes((photos / "2" / "21.png").read_bytes())
    run(directory, photos)
    (photos / "2" / "21.png").unlink()
    done = pruned(directory)
    assert (done.files, done.images) == (1, 0)
    assert photos / "copy.png" in holds(directory)


def test_a_root_that_is_not_there_keeps_everything_and_is_named(photos: Path, directory: Path, tmp_path: Path) -> None:
    other = paint(tmp_path / "disk" / "a.png", (1, 2, 3)).parent
    run(directory, other)
    everything = holds(directory)
    (other / "a.png").unlink()  # an empty mount point
    (photos / "0" / "00.png").unlink()
    done = pruned(directory)
    assert (done.files, done.images, done.absent) == (1, 1, (other,))
    other.rmdir()
    photos.rename(tmp_path / "elsewhere")
    done = pruned(directory)
    assert (done.files, done.images, done.absent) == (0, 0, (other, photos))
    assert holds(directory) == everything - {photos / "0" / "00.png"}


def test_a_root_inside_another_is_judged_by_itself(photos: Path, directory: Path) -> None:
    run(directory, photos / "1")
    for path in (*(photos / "1").iterdir(), *(photos / "2").iterdir()):
        path.unlink()
    done = pruned(directory)
    assert (done.files, done.absent) == (10, (photos / "1",))


def test_a_file_that_was_named_by_itself_is_judged_by_its_folder(photos: Path, tmp_path: Path) -> None:
    alone = paint(tmp_path / "alone" / "a.png", (9, 9, 9))
    directory = tmp_path / "another"
    run(directory, alone, photos / "1" / "11.png", photos / "1" / "12.png")
    alone.unlink()
    (photos / "1" / "11.png").unlink()
    done = pruned(directory)
    assert (done.files, done.absent) == (1, (alone.parent,))
    assert holds(directory) == {alone, photos / "1" / "12.png"}
    with IndexReader.open(directory) as store:
        assert [root.path for root in store.summary().roots] == [alone, photos / "1" / "12.png"]


def test_what_cannot_be_looked_at_is_not_gone(photos: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def failing(path: Path) -> os.stat_result:
        if "1" in Path(path).parts:
            raise OSError(5, "Input/output error", str(path))
        return lstat(path)

    with monkeypatch.context() as patch:
        patch.setattr("bridgetower.index.maintenance.os.lstat", failing)
        assert pruned(directory).files == 0
    (photos / "3").rename(photos / "3-old")
    (photos / "3").symlink_to("nowhere")
    assert pruned(directory).files == 0  # a link that leads nowhere today
    (photos / "3").unlink()
    assert pruned(directory).files == 10


def test_a_disk_that_goes_away_in_the_middle_loses_nothing(
    photos: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = holds(directory)
    is_gone = maintenance._is_gone

    def unmounting(path: Path) -> bool:
        if path.name == "20.png" and photos.exists():
            photos.rename(tmp_path / "elsewhere")
        return is_gone(path)

    monkeypatch.setattr(maintenance, "_is_gone", unmounting)
    with IndexWriter.resume(directory) as writer:
        done = prune(writer)
    assert (done.files, done.images, done.absent) == (0, 0, (photos,))
    assert holds(directory) == everything


def test_space_is_given_back_where_it_is_much(photos: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    with IndexWriter.resume(directory) as writer, writer.catalog.transaction():
        for _ in range(2000):
            writer.catalog.add_image(random.bytes(32), 1, 1, None, 1, random.bytes(1000))
    full = (directory / "manifest.sqlite").stat().st_size

    def room(share: float) -> None:
        """Of what the manifest holds, so much is free on the disk: for a new one, and for the log on the way to it."""

        def usage(path: Path) -> SimpleNamespace:
            with IndexReader.open(directory) as store:
                return SimpleNamespace(free=int(share * store.catalog.space().used))

        monkeypatch.setattr("shutil.disk_usage", usage)

    room(1.9)
    with IndexWriter.resume(directory) as writer:
        done = prune(writer)
    assert done.images == 2000 and done.note is not None and "has not the room" in done.note
    assert (directory / "manifest.sqlite").stat().st_size >= full
    room(2.1)
    with IndexReader.open(directory) as reader, IndexWriter.resume(directory) as writer:
        len(reader)
        note = prune(writer).note
        assert note is not None and "still running" in note
    done = pruned(directory)
    assert done.note is None
    assert (directory / "manifest.sqlite").stat().st_size < full / 10
    assert len(holds(directory)) == 40


def test_forgetting_takes_out_what_is_named_and_keeps_the_vectors(photos: Path, directory: Path) -> None:
    everything = holds(directory)
    (photos / "2").rename(photos.parent / "2")  # it need not be there
    with IndexWriter.resume(directory) as writer:
        done = forget(writer, [photos / "2", photos / "1" / "11.png"])
        assert [(one.path.name, one.files) for one in done.forgotten] == [("2", 10), ("11.png", 1)]
        assert done.orphans == 11
    assert list(check_index(directory)) == []
    left = {path for path in everything if "2" not in path.parts and path.name != "11.png"}
    assert holds(directory) == left
    (photos.parent / "2").rename(photos / "2")
    assert run(directory, photos).encoded == 0
    assert holds(directory) == everything


def test_the_library_says_what_it_would_do_to_the_index_as_it_is_now(
    photos: Path, directory: Path, tmp_path: Path
) -> None:
    new = paint(tmp_path / "new" / "new.png", (1, 2, 3))
    with Library(directory) as library:
        assert len(library) == 40
        run(directory, new.parent)  # by someone else
        assert len(library) == 40
        [said] = library.forget([new], dry_run=True).forgotten
        assert (said.path, said.files) == (new, 1)
        paint(new, (3, 2, 1), size=(50, 50))
        run(directory, new.parent)
        assert library.prune(dry_run=True).images == 1
        new.with_name("other.png").write_bytes(new.read_bytes())
        run(directory, new.parent)
        assert library.export(tmp_path / "export").files == 42


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("1/12.pgn", "did you mean {photos}/1/12.png"),
        ("1/1", "did you mean {photos}/1/10.png or {photos}/1/11.png or {photos}/1/12.png"),
        ("../photo", "did you mean {photos}?"),
        ("../entirely/else", "its folders are {photos}"),
    ],
)
def test_what_is_not_known_is_an_error_that_names_what_is_near(
    photos: Path, directory: Path, name: str, near: str
) -> None:
    with (
        IndexWriter.resume(directory) as writer,
        pytest.raises(InputError, match="the index knows nothing there") as refused,
    ):
        forget(writer, [photos / "1", photos / name])
    assert near.format(photos=photos) in str(refused.value)
    assert len(holds(directory)) == 40  # nothing of it was done


def test_names_are_the_same_in_composed_and_decomposed_letters(photos: Path, directory: Path) -> None:
    composed, decomposed = "Z\u00fcrich", "Zu\u0308rich"
    lake = paint(photos.parent / decomposed / "lake.png", (9, 9, 9))
    run(directory, lake.parent)
    with Library(directory) as library:
        with pytest.raises(InputError) as refused:
            library.forget([photos.parent / composed / "lake.pgn"])
        assert str(refused.value).endswith(f"; did you mean {lake}?")
        for dry_run in (True, False):
            [done] = library.forget([photos.parent / composed], dry_run=dry_run).forgotten
            assert (done.path, done.files) == (lake.parent, 1)
    assert len(holds(directory)) == 40


def test_there_must_be_an_index(tmp_path: Path) -> None:
    with pytest.raises(NoIndexError):
        IndexWriter.resume(tmp_path / "index")
    assert not (tmp_path / "index").exists()
