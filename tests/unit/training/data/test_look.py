"""Each picture is looked at once: what is kept between runs, and what is looked at again."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from bridgetower.errors import OutputError, ResourceError
from bridgetower.files.content import read
from bridgetower.pictures.decode_pool import DecodePool
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.training.data import look as looking
from bridgetower.training.data.look import Seen, look_at
from tests.fakes import HOSTILE, paint

SPEC = Preprocessing(32, 32)
pytestmark = pytest.mark.usefixtures("decode_here")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []

    def counted(path: Path) -> bytes:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(f"{looking.__name__}.read", counted)
    return names


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return [paint(tmp_path / "red.png", "red"), tmp_path / "broken.png", paint(tmp_path / "blue.png", "blue")]


def look(files: list[Path]) -> list[Seen]:
    return list(look_at(files, SPEC, record=files[0].parent / "pictures.jsonl"))


def test_each_file_is_told_in_order_with_its_hash_or_the_reason(files: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    gone = files[0].with_name("gone.png")
    red, broken, blue, missing = look_at([*files, gone], SPEC, on_progress=lambda *at: told.append(at))
    for found, file in ((red, files[0]), (blue, files[2])):
        status = file.stat()
        hashed = hashlib.sha256(file.read_bytes()).digest()
        assert found == Seen(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns, hashed)
    assert broken.hash == b"" and broken.reason is not None and str(broken.path) not in broken.reason
    assert missing == Seen(gone, reason="no such file")
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_later_run_reads_only_what_has_changed_or_could_not_be_decoded(files: list[Path], reads: list[str]) -> None:
    first = look(files)
    reads.clear()
    assert look(files) == first and reads == ["broken.png"]
    paint(files[0], "green", (50, 50))
    os.utime(files[2], ns=(1, 1))
    paint(files[1], "white")
    reads.clear()
    second = look(files)
    assert sorted(reads) == ["blue.png", "broken.png", "red.png"]
    assert second[0].hash != first[0].hash and second[1].reason is None and second[2].hash == first[2].hash
    reads.clear()
    assert look(files) == second and reads == []


def test_another_content_of_the_same_size_and_time_is_looked_at_again(files: list[Path]) -> None:
    first, before = look(files), files[0].stat()
    content = files[0].read_bytes()
    files[0].write_bytes(paint(files[2], "green").read_bytes().ljust(len(content), b"\0")[: len(content)])
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = files[0].stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert look(files)[0].hash == hashlib.sha256(files[0].read_bytes()).digest() != first[0].hash


def test_the_record_has_a_line_for_each_file_and_none_twice(files: list[Path]) -> None:
    look(files)
    look(files)
    rows = [json.loads(line) for line in (files[0].parent / "pictures.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["red.png", "broken.png", "blue.png"]
    assert set(rows[0]) == {"path", "size", "mtime_ns", "ctime_ns", "sha256"} and set(rows[1]) >= {"path", "reason"}


def test_a_record_that_is_cut_off_or_damaged_costs_only_those_lines(files: list[Path], reads: list[str]) -> None:
    first = look(files)
    record = files[0].parent / "pictures.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    wrong = [
        b"[1]\n",
        b'{"path": 3}\n',
        b'{"path": "/x", "size": 1, "mtime_ns": 1, "ctime_ns": 1, "sha256": "ab"}\n',
        b"\xff\n",
        b"\n",
    ]
    record.write_bytes(b"".join([lines[0], *wrong, lines[1], lines[2][:30]]))
    reads.clear()
    assert look(files) == first and sorted(reads) == ["blue.png", "broken.png"]
    reads.clear()
    assert look(files) == first and reads == ["broken.png"]


def test_a_record_that_cannot_be_written_or_read_is_an_error_of_one_line(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.*cannot be written: No such file"):
        list(look_at(files, SPEC, record=tmp_path / "nowhere" / "pictures.jsonl"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder: not a file but a folder"):
        list(look_at(files, SPEC, record=tmp_path / "folder"))


def test_want_of_file_handles_is_no_fault_of_a_picture(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_handle(path: Path) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(f"{looking.__name__}.read", no_handle)
    with pytest.raises(ResourceError, match="too many open files"):
        look(files)


def test_a_name_that_is_not_unicode_is_known_again(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / os.fsdecode(b"\xff.png")
    paint(tmp_path / "red.png", "red").rename(file)
    first = look([file])
    reads.clear()
    assert look([file]) == first and not reads


@pytest.mark.process
def test_a_picture_that_crashes_its_decoder_costs_only_itself(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "DecodePool", DecodePool)
    monkeypatch.setattr("bridgetower.pictures.decode_pool.COMMAND", (*HOSTILE, str(tmp_path)))
    files[1].write_bytes(b"die 11")
    red, crashing, blue = look_at(files, SPEC, processes=1)
    assert red.reason is None and blue.reason is None
    assert crashing.reason == "the decoder died on it (signal SIGSEGV)"
    assert len((tmp_path / "pids").read_text().splitlines()) == 2
