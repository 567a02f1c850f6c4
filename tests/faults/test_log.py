"""The log of an index that was never folded into its manifest: all that there is of it."""

import shutil
from pathlib import Path

import pytest

from bridgetower.errors import NoIndexError, StoreError
from bridgetower.store import Store
from bridgetower.verify import repair, verify
from bridgetower.writer import Writer
from tests.faults.small import FINGERPRINT, bring_up_to_date, image, photo

PAGE = 8192


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a first `bt index` leaves that was killed after its first batch."""
    with Writer.open(tmp_path / "index", FINGERPRINT) as writer:
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
    for way in (lambda: Store.open(killed), lambda: Writer.open(killed, FINGERPRINT), lambda: Writer.resume(killed)):
        with pytest.raises(StoreError, match=r"manifest\.sqlite: gone or empty, though its log is there"):
            way()
    assert (killed / "manifest.sqlite-wal").read_bytes() == log


def test_what_is_left_of_an_index_is_no_index_and_makes_room_for_one(killed: Path) -> None:
    (killed / "manifest.sqlite").unlink()
    for way in (lambda: Store.open(killed), lambda: Writer.open(killed, FINGERPRINT), lambda: Writer.resume(killed)):
        with pytest.raises(StoreError, match=r"manifest\.sqlite: gone or empty, though its log is there"):
            way()
    (killed / "manifest.sqlite-wal").unlink()
    (killed / "manifest.sqlite-shm").touch()
    with pytest.raises(NoIndexError, match="make one there"):
        Store.open(killed)
    bring_up_to_date(killed)
    assert list(verify(killed)) == []


@pytest.mark.parametrize("at", [0, 32, 32 + 13 * (24 + PAGE), 5 * PAGE], ids=["header", "frame", "commit", "page"])
def test_a_damaged_log_is_told_from_no_index_and_left_alone(killed: Path, at: int) -> None:
    with Store.open(killed) as store:
        assert len(store) == 1
    log = killed / "manifest.sqlite-wal"
    overwrite(log, at)
    before = log.read_bytes()
    for way in (
        lambda: Store.open(killed),
        lambda: Writer.open(killed, FINGERPRINT),
        lambda: Writer.resume(killed),
        lambda: list(verify(killed)),
        lambda: repair(killed),
    ):
        with pytest.raises(
            StoreError, match=r"manifest\.sqlite-wal: damaged, .* remove it, and let `bt index`"
        ) as told:
            way()
        assert not isinstance(told.value, NoIndexError) and told.value.exit_code == 5
    assert log.read_bytes() == before
    log.unlink()  # as it says
    with pytest.raises(NoIndexError):
        Store.open(killed)
    bring_up_to_date(killed)
    assert list(verify(killed)) == []


@pytest.mark.parametrize("damage", ["none", "cut", "header", "page"])
def test_what_a_crash_while_it_is_made_leaves_is_no_index(tmp_path: Path, damage: str) -> None:
    """When the machine goes down, any part of the first transaction may be on the disk."""
    with Writer.open(tmp_path / "index", FINGERPRINT):
        shutil.copytree(tmp_path / "index", tmp_path / "killed")
    killed, log = tmp_path / "killed", tmp_path / "killed" / "manifest.sqlite-wal"
    if damage == "cut":
        log.write_bytes(log.read_bytes()[: 5 * PAGE])
    elif damage != "none":
        overwrite(log, 0 if damage == "header" else 5 * PAGE)
    if damage != "none":
        with pytest.raises(NoIndexError):
            Store.open(killed)
        with pytest.raises(NoIndexError):
            Writer.resume(killed)
    bring_up_to_date(killed)
    assert list(verify(killed)) == []


def test_a_log_whose_end_is_lost_shows_what_was_committed_before(killed: Path) -> None:
    log = killed / "manifest.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-100])
    with Store.open(killed) as store:
        assert (len(store), [root.path for root in store.summary().roots]) == (0, [Path("/photos")])
    bring_up_to_date(killed)
    assert list(verify(killed)) == []
