"""What cannot be read is named and the run goes on; what ends a run loses nothing that was committed."""

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.protocol import Vectors
from bridgetower.encoders.runtime import BATCH_SIZE, Runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.errors import InputError, ModelError, PictureError, ResourceError
from bridgetower.files.content import read
from bridgetower.files.regular_files import open_regular
from bridgetower.files.walk import scan
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.pictures.decode_pool import DecodePool, Picture
from bridgetower.pictures.extras.extra import Extra
from bridgetower.records import Refused
from bridgetower.retrieval.indexing import IndexReport, index
from tests.fakes import HOSTILE, FakeEncoder, paint
from tests.pictures import by_extra, take_away
from tests.tiny import tiny_checkpoint
from tests.unit.pictures.test_decode_pool import started
from tests.unit.retrieval.indexing.conftest import indexed, never, run


def test_a_file_that_cannot_be_read_now_is_tried_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        if path.name == "000.png":
            raise PictureError(path, "cannot be read: Input/output error")
        return read(path)

    monkeypatch.setattr("bridgetower.files.content.read", refuse)
    assert [skip.path.name for skip in run([photos], tmp_path / "index").skipped] == ["000.png"]
    monkeypatch.undo()
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.unchanged, report.skipped) == (1, BATCH_SIZE + 2, ())


def test_bad_files_are_named_and_the_run_goes_on(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    (photos / "empty.png").touch()
    (photos / "short.png").write_bytes((photos / "000.png").read_bytes()[:60])
    report = run([photos], tmp_path / "index")
    assert report.encoded == BATCH_SIZE + 3
    assert {skip.path.name for skip in report.skipped} == {"bad.jpg", "empty.png", "short.png"}
    again = run([photos], tmp_path / "index")
    assert {skip.path.name: skip.reason for skip in again.skipped} == {s.path.name: s.reason for s in report.skipped}
    with IndexReader.open(tmp_path / "index") as store:
        assert {skip.path.name for skip in store.catalog.skipped()} == {"bad.jpg", "empty.png", "short.png"}


def test_pictures_that_need_a_missing_extra_are_counted_and_read_once_it_is_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a.heic").write_bytes(by_extra(Extra.HEIF))
    (photos / "b.jpg").write_bytes(by_extra(Extra.HEIF))  # the content decides
    (photos / "bad.jpg").write_text("no picture")
    count = BATCH_SIZE + 3
    with monkeypatch.context() as patched:
        take_away(Extra.HEIF, patched)
        report = run([photos], tmp_path / "index")
        assert (report.encoded, report.unread, report.files) == (count, {"heif": 2}, count + 3)
        assert [skip.path.name for skip in report.skipped] == ["bad.jpg"]
        patched.setattr("bridgetower.files.content.read", lambda path: pytest.fail("an unchanged file was read"))
        report = run([photos], tmp_path / "index")
        assert (report.unchanged, report.unread, len(report.skipped)) == (count, {"heif": 2}, 1)
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.reused, report.unchanged, report.unread) == (1, 1, count, {})
    assert [skip.path.name for skip in report.skipped] == ["bad.jpg"]
    assert {photos / "a.heic", photos / "b.jpg"} <= indexed(tmp_path / "index")


def test_a_file_that_vanishes_between_scan_and_reading_is_skipped(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan_then_remove(paths: list[Path], *options: Any, **more: Any) -> object:
        found = list(scan(paths, *options, **more))
        (photos / "000.png").unlink()
        return found

    monkeypatch.setattr("bridgetower.retrieval.indexing.scan", scan_then_remove)
    report = run([photos], tmp_path / "index")
    assert [(skip.path.name, skip.reason) for skip in report.skipped] == [("000.png", "no such file")]
    assert report.encoded == BATCH_SIZE + 2


def test_an_interrupted_run_keeps_what_was_committed_and_sweeps_nothing(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "index")
    (photos / "000.png").unlink()
    for number in range(2 * BATCH_SIZE):
        paint(photos / f"new{number:03}.png", (3, number, 99))

    class Interrupted(FakeEncoder):
        def embed_images(self, pixels: Vectors) -> Vectors:
            if self.encoded:
                raise KeyboardInterrupt
            return super().embed_images(pixels)

    with pytest.raises(KeyboardInterrupt):
        run([photos], tmp_path / "index", Interrupted())
    with IndexReader.open(tmp_path / "index") as store:
        assert store.summary().files == BATCH_SIZE + 3 + BATCH_SIZE
    assert photos / "000.png" in indexed(tmp_path / "index")
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.removed) == (BATCH_SIZE, 1)


def test_a_path_that_does_not_exist_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        run([tmp_path / "nowhere"], tmp_path / "index")
    with IndexReader.open(tmp_path / "index") as store:
        assert store.summary().roots == ()


def test_a_model_that_gives_no_vectors_ends_the_run_and_leaves_nothing_of_it(photos: Path, tmp_path: Path) -> None:
    encoder = TorchEncoder(resolve(str(tiny_checkpoint(tmp_path / "model"))), Runtime("cpu", "fp32", ""))
    with torch.no_grad():
        for parameter in encoder.load()._model.vision_tower.parameters():
            parameter.fill_(float("nan"))
    with IndexWriter.open(tmp_path / "index", encoder.fingerprint) as writer, pytest.raises(ModelError, match="model"):
        index([photos], writer, lambda: Model.from_parts(encoder))
    with IndexReader.open(tmp_path / "index") as store:
        assert (store.summary().images, store.summary().orphans) == (0, 0)


def test_a_changed_file_that_cannot_be_read_now_keeps_its_place(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([photos], tmp_path / "index")
    paint(photos / "000.png", "blue", size=(50, 50))

    def refuse(path: Path) -> bytes:
        raise PictureError(path, "cannot be read: Input/output error")

    monkeypatch.setattr("bridgetower.files.content.read", refuse)
    report = run([photos], tmp_path / "index")
    assert ([skip.path.name for skip in report.skipped], report.removed) == (["000.png"], 0)
    assert photos / "000.png" in indexed(tmp_path / "index")


def test_a_picture_that_there_was_no_memory_for_is_tried_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhausted, real = (photos / "000.png").read_bytes(), DecodePool.decode

    def decode(decoders: DecodePool, content: bytes) -> Picture | Refused:
        return Refused("no memory", lasting=False) if content == exhausted else real(decoders, content)

    monkeypatch.setattr(DecodePool, "decode", decode)
    assert [skip.path.name for skip in run([photos], tmp_path / "index").skipped] == ["000.png"]
    monkeypatch.undo()
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.skipped) == (1, ())


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_pictures_that_kill_or_hang_what_decodes_them_are_named_and_the_run_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.pictures.decode_pool.COMMAND", [*HOSTILE, str(tmp_path)])
    monkeypatch.setattr("bridgetower.pictures.decode_pool.TIME_LIMIT", 1.0)
    for content in ("die 11", "die 9", "exit 1", "spin"):
        (photos / f"{content}.jpg").write_text(content)
    report = run([photos], tmp_path / "index")
    assert report.encoded == BATCH_SIZE + 3
    assert {skip.path.stem: skip.reason for skip in report.skipped} == {
        "die 11": "the decoder died on it (signal SIGSEGV)",
        "die 9": "its decoder was ended (signal SIGKILL), as when memory runs out",
        "exit 1": "the decoder died on it (exit status 1)",
        "spin": "took longer than 1 s of processor time to decode",
    }
    (tmp_path / "pids").unlink()
    again = run([photos], tmp_path / "index")
    assert (again.unchanged, set(again.skipped)) == (BATCH_SIZE + 3, set(report.skipped))
    assert len(started(tmp_path)) == 2  # for what may go better this time: "die 9" and "spin"


def test_a_run_that_may_open_no_more_files_ends_and_blames_none(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(path: Path) -> object:
        if path.name == "000.png":
            raise OSError(errno.EMFILE, "Too many open files")
        return open_regular(path)

    monkeypatch.setattr("bridgetower.files.content.open_regular", exhausted)
    with pytest.raises(ResourceError, match="too many open files"):
        run([photos], tmp_path / "index")
    with IndexReader.open(tmp_path / "index") as store:
        assert list(store.catalog.skipped()) == []
    monkeypatch.undo()
    assert run([photos], tmp_path / "index").skipped == ()


def test_a_picture_may_have_as_many_pixels_as_are_allowed(photos: Path, tmp_path: Path) -> None:
    large = paint(photos / "large.png", "red", size=(50, 40))
    encoder = FakeEncoder()

    def limited() -> IndexReport:
        with IndexWriter.open(tmp_path / "index", encoder.fingerprint) as writer:
            return index([photos], writer, lambda: Model.from_parts(encoder), max_pixels=1999)

    report = limited()
    assert [skip.path for skip in report.skipped] == [large]
    assert "--max-pixels" in report.skipped[0].reason
    with patch("bridgetower.files.content.read", side_effect=AssertionError("it was opened")):
        assert limited().skipped == report.skipped
    more = run([photos], tmp_path / "index")  # its limit is higher
    assert (more.encoded, more.skipped) == (1, ())


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ModelError("out of memory")], ids=lambda error: type(error).__name__
)
def test_a_run_that_is_broken_off_publishes_nothing_and_the_next_one_does(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    class Broken(FakeEncoder):
        def embed_images(self, pixels: Vectors) -> Vectors:
            if self.encoded:
                raise error
            return super().embed_images(pixels)

    monkeypatch.setattr(IndexWriter, "publish", lambda writer: pytest.fail("it took its time"))
    with pytest.raises(type(error)):
        run([photos], tmp_path / "index", Broken())
    monkeypatch.undo()
    assert (covered(tmp_path / "index"), len(indexed(tmp_path / "index"))) == (0, BATCH_SIZE)
    assert run([photos], tmp_path / "index").encoded == 3
    assert covered(tmp_path / "index") == BATCH_SIZE + 3


def test_a_run_that_finds_nothing_to_do_publishes_where_that_was_broken_off(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridgetower.index.vectors.faiss.build._save", stop)
    with pytest.raises(KeyboardInterrupt):
        run([photos], tmp_path / "index")
    monkeypatch.undo()
    assert (covered(tmp_path / "index"), len(indexed(tmp_path / "index"))) == (0, BATCH_SIZE + 3)
    with IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint) as writer:
        assert index([photos], writer, never).unchanged == BATCH_SIZE + 3
    assert covered(tmp_path / "index") == BATCH_SIZE + 3


def covered(directory: Path) -> int:
    """The last image that the vector file holds."""
    with IndexReader.open(directory) as store:
        return store.catalog.state().covered


def test_skipped_files_are_tried_again_if_that_is_asked_for(photos: Path, tmp_path: Path) -> None:
    bad = photos / "bad.jpg"
    bad.write_text("no picture")
    run([photos], tmp_path / "index")
    with patch("bridgetower.files.content.read", side_effect=AssertionError):
        assert [skip.path for skip in run([photos], tmp_path / "index").skipped] == [bad]
    with patch("bridgetower.files.content.read", side_effect=read) as tried:
        report = run([photos], tmp_path / "index", retry=True)
    assert ([skip.path for skip in report.skipped], report.unchanged) == ([bad], BATCH_SIZE + 3)
    tried.assert_called_once_with(bad)
    with patch(
        "bridgetower.files.content.read", return_value=(photos / "000.png").read_bytes()
    ):  # as a newer bt reads it
        report = run([photos], tmp_path / "index", retry=True)
    assert (report.skipped, report.reused) == ((), 1)
