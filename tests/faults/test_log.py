"""The log of an index that was never folded into its manifest: all that there is of it."""

import os
import shutil
from pathlib import Path

import pytest

from bridgetower.errors import DamagedLogError, NoIndexError, StoreError
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from tests.faults.small import FINGERPRINT, bring_up_to_date, image, photo

PAGE = 8192


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a first `bt index` leaves that was killed after its first batch."""
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        writer.add_root(Path("/photos"))
        writer.commit(images=[image(1)], files=[(photo(1), image(1).hash)])
        shutil.copytree(tmp_path / "index", tmp_path / "killed")
    (tmp_path / "killed" / "manifest.sqlite-shm").unlink()
    return tmp_path / "killed"


def overwrite(log: Path, at: int) -> None:
    with open(log, "r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * 100)


def test_a_reader_removes_no_log(killed: Path) -> None:
    """As SQLite does that of an empty database."""
    (killed / "manifest.sqlite").write_bytes(b"")
    log = (killed / "manifest.sqlite-wal").read_bytes()
    for way in (
        lambda: IndexReader.open(killed),
        lambda: IndexWriter.open(killed, FINGERPRINT),
        lambda: IndexWriter.resume(killed),
    ):
        with pytest.raises(StoreError, match=r"manifest\.sqlite: gone or empty, though its log is there"):
            way()
    assert (killed / "manifest.sqlite-wal").read_bytes() == log


def test_what_is_left_of_an_index_is_no_index_and_makes_room_for_one(killed: Path) -> None:
    (killed / "manifest.sqlite").unlink()
    for way in (
        lambda: IndexReader.open(killed),
        lambda: IndexWriter.open(killed, FINGERPRINT),
        lambda: IndexWriter.resume(killed),
    ):
        with pytest.raises(StoreError, match=r"manifest\.sqlite: gone or empty, though its log is there"):
            way()
    (killed / "manifest.sqlite-wal").unlink()
    (killed / "manifest.sqlite-shm").touch()
    with pytest.raises(NoIndexError, match="index pictures there first"):
        IndexReader.open(killed)
    bring_up_to_date(killed)
    assert list(check_index(killed)) == []


@pytest.mark.parametrize("at", [0, 32, 32 + 13 * (24 + PAGE), 5 * PAGE], ids=["header", "frame", "commit", "page"])
def test_a_damaged_log_is_told_from_no_index_and_left_alone(killed: Path, at: int) -> None:
    with IndexReader.open(killed) as store:
        assert len(store) == 1
    log = killed / "manifest.sqlite-wal"
    overwrite(log, at)
    before = log.read_bytes()
    for way in (
        lambda: IndexReader.open(killed),
        lambda: IndexWriter.open(killed, FINGERPRINT),
        lambda: IndexWriter.resume(killed),
        lambda: list(check_index(killed)),
        lambda: repair_index(killed),
    ):
        with pytest.raises(
            StoreError, match=r"manifest\.sqlite-wal: damaged, .* remove it, and let `bt index`"
        ) as told:
            way()
        assert not isinstance(told.value, NoIndexError) and told.value.exit_code == 5
    assert log.read_bytes() == before
    log.unlink()  # as it says
    with pytest.raises(NoIndexError):
        IndexReader.open(killed)
    bring_up_to_date(killed)
    assert list(check_index(killed)) == []


@pytest.mark.parametrize("damage", ["none", "cut", "header", "page"])
def test_what_a_crash_while_it_is_made_leaves_is_no_index(tmp_path: Path, damage: str) -> None:
    """When the machine goes down, any part of the first transaction may be on the disk."""
    with IndexWriter.open(tmp_path / "index", FINGERPRINT):
        shutil.copytree(tmp_path / "index", tmp_path / "killed")
    killed, log = tmp_path / "killed", tmp_path / "killed" / "manifest.sqlite-wal"
    if damage == "cut":
        log.write_bytes(log.read_bytes()[: 5 * PAGE])
    elif damage != "none":
        overwrite(log, 0 if damage == "header" else 5 * PAGE)
    if damage != "none":
        with pytest.raises(NoIndexError):
            IndexReader.open(killed)
        with pytest.raises(NoIndexError):
            IndexWriter.resume(killed)
    bring_up_to_date(killed)
    assert list(check_index(killed)) == []


def test_a_log_whose_end_is_lost_shows_what_was_committed_before(killed: Path) -> None:
    log = killed / "manifest.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-100])
    with IndexReader.open(killed) as store:
        assert (len(store), [root.path for root in store.summary().roots]) == (0, [Path("/photos")])
    bring_up_to_date(killed)
    assert list(check_index(killed)) == []


# A log in which bits were altered after it was written


@pytest.fixture
def half_folded(tmp_path: Path) -> Path:
    """An index after a killed `bt index`: four batches are in the log alone."""
    directory = tmp_path / "index"
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(1)], files=[(photo(1), image(1).hash)])
        writer.finish()
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        for number in (2, 3, 4, 5):
            writer.commit(images=[image(number)], files=[(photo(number), image(number).hash)])
        shutil.copytree(directory, tmp_path / "killed")
    (tmp_path / "killed" / "manifest.sqlite-shm").unlink()
    return tmp_path / "killed"


def alter_second_commit(directory: Path) -> None:
    log = directory / "manifest.sqlite-wal"
    content = bytearray(log.read_bytes())
    ends = [at for at in range(32, len(content), 24 + PAGE) if any(content[at + 4 : at + 8])]
    content[ends[0] + 24 + PAGE + 24 + 4000] ^= 1
    log.write_bytes(content)


def test_commits_that_were_lost_in_a_log_are_never_passed_over(half_folded: Path) -> None:
    with IndexReader.open(half_folded) as store:
        assert len(store) == 5
    alter_second_commit(half_folded)
    log = (half_folded / "manifest.sqlite-wal").read_bytes()
    for way in (
        lambda: IndexReader.open(half_folded),
        lambda: IndexWriter.open(half_folded, FINGERPRINT),
        lambda: IndexWriter.resume(half_folded),
    ):
        with pytest.raises(DamagedLogError, match=r"-wal: damaged \(3 commits .* `bt verify --repair`") as told:
            way()
        assert (told.value.lost, told.value.exit_code) == (3, 5)
    [finding] = check_index(half_folded)
    assert (finding.part, finding.path) == ("log", half_folded / "manifest.sqlite-wal")
    assert (half_folded / "manifest.sqlite-wal").read_bytes() == log


def test_repair_keeps_the_log_and_what_was_committed_before(half_folded: Path) -> None:
    alter_second_commit(half_folded)
    log = (half_folded / "manifest.sqlite-wal").read_bytes()
    repaired = repair_index(half_folded)
    assert repaired.log is not None and repaired.log.read_bytes() == log
    assert [finding.part for finding in repaired.findings] == ["log"]
    assert (repaired.left, repaired.restored) == ((), None)
    with IndexReader.open(half_folded) as store:
        assert len(store) == 2 and store.strays() == [repaired.log]
    bring_up_to_date(half_folded)
    assert list(check_index(half_folded)) == []


def test_a_repair_that_a_search_keeps_from_the_log_leaves_no_copy(half_folded: Path) -> None:
    with IndexReader.open(half_folded):
        alter_second_commit(half_folded)
        log = (half_folded / "manifest.sqlite-wal").read_bytes()
        names = sorted(path.name for path in half_folded.iterdir())
        for _ in range(2):
            with pytest.raises(StoreError, match="still in use by a search"):
                repair_index(half_folded)
            assert sorted(path.name for path in half_folded.iterdir()) == names
        assert (half_folded / "manifest.sqlite-wal").read_bytes() == log
    assert repair_index(half_folded).log is not None


def test_a_log_that_another_process_writes_to_is_sound(tmp_path: Path) -> None:
    directory = tmp_path / "index"
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        for number in range(1, 40):
            writer.commit(images=[image(number)], files=[(photo(number), image(number).hash)])
            with IndexReader.open(directory) as store:
                assert len(store) == number


# Something else in the place of a file


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes with names")
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("make", ["link", "pipe", "folder"])
def test_what_is_no_file_in_the_place_of_one_is_refused_at_once(half_folded: Path, suffix: str, make: str) -> None:
    path = half_folded / f"manifest.sqlite{suffix}"
    elsewhere = half_folded.parent / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    else:
        elsewhere.write_bytes(b"a letter")
    content = elsewhere.read_bytes()
    {"link": lambda: path.symlink_to(elsewhere), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[make]()
    for way in (
        lambda: IndexReader.open(half_folded),
        lambda: IndexWriter.open(half_folded, FINGERPRINT),
        lambda: IndexWriter.resume(half_folded),
        lambda: repair_index(half_folded),
    ):
        with pytest.raises(StoreError, match=rf"manifest\.sqlite{suffix}: not a file but a {make}"):
            way()
    assert elsewhere.read_bytes() == content


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes with names")
def test_a_vector_file_that_is_a_pipe_or_a_link_is_made_again_and_nothing_else_is_touched(half_folded: Path) -> None:
    letter = half_folded.parent / "letter"
    letter.write_bytes(b"my letter")
    (half_folded / "vectors-1.faiss").unlink()
    os.mkfifo(half_folded / "vectors-1.faiss")
    (half_folded / "vectors-2.faiss.tmp").symlink_to(letter)
    with IndexReader.open(half_folded) as store:
        assert len([*store.nearest(image(1).vector[None])]) == 5
    with IndexWriter.open(half_folded, FINGERPRINT) as writer, pytest.raises(StoreError, match="File exists"):
        writer.finish()
    (half_folded / "vectors-2.faiss.tmp").unlink()
    bring_up_to_date(half_folded)
    assert letter.read_bytes() == b"my letter"
    assert list(check_index(half_folded)) == []
