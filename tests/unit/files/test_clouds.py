"""Files whose content is in the cloud only are told by their status or their stub, and are never opened."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bridgetower.files.watch
from bridgetower.files.ignore import USUAL_RULES, PassedOver, Rules
from bridgetower.files.regular_files import is_in_cloud, named_by_stub
from bridgetower.files.walk import scan
from bridgetower.files.watch import watching
from bridgetower.records import IN_CLOUD, WalkedFile
from bridgetower.retrieval.contents import sidecars_of
from tests.clouds import DATALESS, RECALLED, evict, leave_stub
from tests.unit.files.test_walk import at, put


def remote(*paths: Path, rules: Rules = USUAL_RULES) -> set[Path]:
    """The files of a walk that are in the cloud only."""
    return {at(met) for met in scan(paths, rules) if isinstance(met, WalkedFile) and met.size == IN_CLOUD}


@pytest.mark.parametrize(
    ("status", "is_told"),
    [
        ({}, False),
        ({"st_flags": 0x40000000}, True),  # SF_DATALESS
        ({"st_flags": 0x40000020}, True),
        ({"st_flags": 0x20}, False),  # compressed
        ({"st_file_attributes": 0x400000}, True),  # RECALL_ON_DATA_ACCESS
        ({"st_file_attributes": 0x40000}, True),  # RECALL_ON_OPEN
        ({"st_file_attributes": 0x1020}, True),  # OFFLINE
        ({"st_file_attributes": 0x80020}, False),  # PINNED: always on this machine
        ({"st_file_attributes": 0x100020}, False),  # UNPINNED, and here
    ],
)
def test_flags_tell_that_a_content_is_in_the_cloud(status: dict[str, int], is_told: bool) -> None:
    told: Any = SimpleNamespace(**status)
    assert is_in_cloud(told) == is_told


@pytest.mark.parametrize(
    ("name", "named"),
    [
        (b".a.jpg.icloud", b"a.jpg"),
        (b"..a.jpg.icloud", b".a.jpg"),
        (b".\xff.icloud", b"\xff"),
        (b"a.jpg.icloud", None),
        (b".a.jpg", None),
        (b".icloud", None),
        (b"..icloud", None),
    ],
)
def test_names_of_stubs(name: bytes, named: bytes | None) -> None:
    assert named_by_stub(name) == named


@pytest.mark.parametrize("flags", [DATALESS, RECALLED], ids=str)
def test_a_walk_tells_placeholders(tmp_path: Path, flags: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    here, away, named = (put(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg"))
    put(tmp_path / "notes.txt")
    evict(monkeypatch, away, named, tmp_path / "notes.txt", flags=flags)
    assert remote(tmp_path, named) == {away, named}
    assert {at(met) for met in scan([tmp_path])} == {here, away, named}


def test_a_stub_stands_for_the_picture_that_it_names(tmp_path: Path) -> None:
    (tmp_path / ".btignore").write_text("no.jpg\nno/\n")
    for name in ("a.JPG", "sub/b.jpg", "no.jpg", "no/c.jpg", "notes.txt", ".hidden.jpg", "._a.jpg", "@eaDir/d.jpg"):
        leave_stub(put(tmp_path / name))
    leave_stub(tmp_path / "here.jpg")
    here = put(tmp_path / "here.jpg")
    passed_over = PassedOver()
    assert {at(met) for met in scan([tmp_path], passed_over=passed_over)} == {
        here,
        tmp_path / "a.JPG",
        tmp_path / "sub" / "b.jpg",
    }
    assert not passed_over.extensions
    assert remote(tmp_path) == {tmp_path / "a.JPG", tmp_path / "sub" / "b.jpg"}
    assert remote(tmp_path, rules=Rules(hidden=True)) == remote(tmp_path) | {tmp_path / ".hidden.jpg"}


@pytest.mark.parametrize(
    ("changed", "is_reported"),
    [
        (".a.jpg.icloud", True),
        ("sub/.a.png.icloud", True),
        (".notes.txt.icloud", False),
        ("@eaDir/.a.jpg.icloud", False),
    ],
)
def test_stubs_that_come_and_go_are_watched(
    tmp_path: Path, changed: str, is_reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.png").touch()
    bursts = ({(1, str(tmp_path / name))} for name in (changed, "b.png"))
    monkeypatch.setattr(bridgetower.files.watch, "watch", lambda *roots, **options: bursts)
    with watching(
        [tmp_path], USUAL_RULES, apart=tmp_path / "index", holds=lambda path: False, sidecars_of=sidecars_of
    ) as found:
        assert (tmp_path / changed in next(found)) == is_reported
