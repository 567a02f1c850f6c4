import errno
import hashlib
import os
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from bridgetower.decode import decode, read
from bridgetower.decoders import Decoders, Picture, Refused
from bridgetower.encoder import Pixels, Runtime, TorchEncoder, Vectors
from bridgetower.errors import InputError, ModelError, PictureError, StoreError
from bridgetower.indexing import BATCH_SIZE, Engine, IndexReport, Progress, index
from bridgetower.pictures import load
from bridgetower.preprocess import preprocess
from bridgetower.records import File, Photo
from bridgetower.scan import USUAL_RULES, Rules, scan
from bridgetower.store import Store
from bridgetower.weights import resolve
from bridgetower.writer import Writer
from tests.fakes import HOSTILE, FakeEncoder, paint, stored
from tests.tiny import tiny_checkpoint
from tests.unit.test_decode import encoded, noise


def run(
    paths: list[Path],
    directory: Path,
    encoder: FakeEncoder | None = None,
    rules: Rules = USUAL_RULES,
    *,
    retry: bool = False,
) -> IndexReport:
    encoder = encoder or FakeEncoder()
    with Writer.open(directory, encoder.fingerprint) as writer:
        return index(paths, writer, lambda: Engine(encoder.preprocessing, lambda: encoder), rules, retry=retry)


def never() -> Engine:
    raise AssertionError("a model was looked for though nothing had to be encoded")


def content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def indexed(directory: Path) -> set[Path]:
    """The files that lead to a picture."""
    with Store.open(directory) as store:
        images = [neighbour.image for neighbour in store.recall(FakeEncoder().embed_texts(["red"]), 1000)[0]]
        return {path for image in images for path in store.manifest.photos(image)}


def some(folder: Path, *names: str) -> list[Path]:
    """Pictures of different colours at these names in `folder`."""
    return [paint(folder / name, (9 * n, 255 - 7 * n, 40), size=(20 + n, 20)) for n, name in enumerate(names)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(BATCH_SIZE + 3):  # more than a batch
        paint(folder / f"{number:03}.png", (number * 10, 255 - number * 10, 7))
    return folder


def test_every_picture_is_found_by_its_own_vector(photos: Path, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    report = run([photos], tmp_path / "index", encoder)
    assert (report.files, report.encoded, report.skipped) == (BATCH_SIZE + 3, BATCH_SIZE + 3, ())
    with Store.open(tmp_path / "index") as store:
        ids = [store.manifest.image_id(content(path)) for path in sorted(photos.iterdir())]
        assert len(set(ids)) == BATCH_SIZE + 3
        for image in ids:
            assert image is not None
            nearest = store.recall(stored(store, image)[None], 1)[0][0]
            assert nearest.image == image
            assert nearest.similarity == pytest.approx(1, abs=1e-3)


def test_a_second_run_opens_no_file_and_loads_no_encoder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([photos], tmp_path / "index")
    monkeypatch.setattr("bridgetower.decode.read", lambda path: pytest.fail(f"{path} was opened"))
    fake = FakeEncoder()
    with Writer.open(tmp_path / "index", fake.fingerprint) as writer:
        report = index([photos], writer, never)
    assert (report.unchanged, report.encoded, report.reused, report.removed) == (BATCH_SIZE + 3, 0, 0, 0)


def test_renamed_and_copied_files_are_neither_decoded_nor_encoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([photos], tmp_path / "index")
    (photos / "000.png").rename(photos / "renamed.png")
    (photos / "copy.png").write_bytes((photos / "001.png").read_bytes())
    monkeypatch.setattr("bridgetower.decoders._Process", lambda *_: pytest.fail("a process was started"))
    fake = FakeEncoder()
    with Writer.open(tmp_path / "index", fake.fingerprint) as writer:
        report = index([photos], writer, never)
    assert (report.reused, report.removed, report.unchanged) == (2, 1, BATCH_SIZE + 2)
    with Store.open(tmp_path / "index") as store:
        image = store.manifest.image_id(content(photos / "copy.png"))
        assert image is not None
        assert store.manifest.photos(image) == (photos / "001.png", photos / "copy.png")


def test_a_changed_file_is_encoded_again(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "index")
    paint(photos / "000.png", "blue", size=(50, 50))
    encoder = FakeEncoder()
    report = run([photos], tmp_path / "index", encoder)
    assert (report.encoded, encoder.encoded) == (1, 1)
    with Store.open(tmp_path / "index") as store:
        best = store.recall(encoder.embed_texts(["blue"]), 1)[0][0].image
        assert store.manifest.photos(best) == (photos / "000.png",)


def test_equal_pictures_in_one_batch_are_encoded_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        paint(tmp_path / "photos" / f"{name}.png", "red")
    encoder = FakeEncoder()
    report = run([tmp_path / "photos"], tmp_path / "index", encoder)
    assert (report.encoded, report.reused, encoder.encoded) == (1, 2, 1)


def test_copies_in_different_batches_are_encoded_once(tmp_path: Path) -> None:
    for number in range(BATCH_SIZE + 5):
        paint(tmp_path / "photos" / f"{number:03}.png", (number * 9, 5, 7))
    for name in ("100.png", "101.png"):  # read ahead while the first batch is being filled
        (tmp_path / "photos" / name).write_bytes((tmp_path / "photos" / "000.png").read_bytes())
    encoder = FakeEncoder()
    report = run([tmp_path / "photos"], tmp_path / "index", encoder)
    assert (report.encoded, report.reused, encoder.encoded) == (BATCH_SIZE + 5, 2, BATCH_SIZE + 5)


def test_a_file_that_cannot_be_read_now_is_tried_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        if path.name == "000.png":
            raise PictureError(path, "cannot be read: Input/output error")
        return read(path)

    monkeypatch.setattr("bridgetower.decode.read", refuse)
    assert [skip.path.name for skip in run([photos], tmp_path / "index").skipped] == ["000.png"]
    monkeypatch.undo()
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.unchanged, report.skipped) == (1, BATCH_SIZE + 2, ())


def test_a_file_from_the_far_future_stops_nobody(photos: Path, tmp_path: Path) -> None:
    os.utime(photos / "000.png", ns=(2**63 + 5, 2**63 + 5))  # the year 2262
    assert run([photos], tmp_path / "index").encoded == BATCH_SIZE + 3
    assert run([photos], tmp_path / "index").reused == 1


def test_bad_files_are_named_and_the_run_goes_on(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    (photos / "empty.png").touch()
    (photos / "short.png").write_bytes((photos / "000.png").read_bytes()[:60])
    report = run([photos], tmp_path / "index")
    assert report.encoded == BATCH_SIZE + 3
    assert {skip.path.name for skip in report.skipped} == {"bad.jpg", "empty.png", "short.png"}
    again = run([photos], tmp_path / "index")
    assert {skip.path.name: skip.reason for skip in again.skipped} == {s.path.name: s.reason for s in report.skipped}
    with Store.open(tmp_path / "index") as store:
        assert {skip.path.name for skip in store.skipped()} == {"bad.jpg", "empty.png", "short.png"}


def test_a_file_that_vanishes_between_scan_and_reading_is_skipped(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan_then_remove(paths: list[Path], *options: Any, **more: Any) -> object:
        found = list(scan(paths, *options, **more))
        (photos / "000.png").unlink()
        return found

    monkeypatch.setattr("bridgetower.indexing.scan", scan_then_remove)
    report = run([photos], tmp_path / "index")
    assert [(skip.path.name, skip.reason) for skip in report.skipped] == [("000.png", "no such file")]
    assert report.encoded == BATCH_SIZE + 2


def test_deleted_files_are_removed(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "index")
    (photos / "003.png").unlink()
    assert run([photos], tmp_path / "index").removed == 1
    assert indexed(tmp_path / "index") == set(photos.iterdir())


def test_a_root_that_turned_up_empty_loses_nothing(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "index")
    photos.rename(tmp_path / "elsewhere")
    photos.mkdir()  # as an unmounted drive looks
    report = run([photos], tmp_path / "index")
    assert (report.removed, report.absent) == (0, (photos,))
    with Store.open(tmp_path / "index") as store:
        assert len(store) == BATCH_SIZE + 3


@pytest.mark.parametrize("again", [["."], [".", ".private/deep"], [".private/deep", "."]], ids=" ".join)
def test_what_was_named_itself_is_not_dropped_by_the_walk_that_passes_it_over(tmp_path: Path, again: list[str]) -> None:
    plain = paint(tmp_path / "np" / "a.png", "red")
    hidden = some(tmp_path / "np" / ".private", "b.png", "deep/c.png")
    odd = paint(tmp_path / "np" / "d.png", "blue").rename(tmp_path / "np" / "d.dat")
    run([tmp_path / "np" / ".private", odd, tmp_path / "np" / ".private" / "deep"], tmp_path / "index")
    report = run([tmp_path / "np" / path for path in again], tmp_path / "index")
    assert (report.removed, report.absent) == (0, ())
    assert indexed(tmp_path / "index") == {plain, *hidden, odd}


@pytest.mark.parametrize("paths", [["nest"], ["nest", "nest/drive"], ["nest/drive", "nest"]], ids=" ".join)
def test_a_drive_that_is_not_there_loses_nothing_when_what_it_hangs_in_is_indexed(
    tmp_path: Path, paths: list[str]
) -> None:
    here, gone = some(tmp_path / "nest", "a.png", "b.png")
    drive = tmp_path / "nest" / "drive"
    away = some(drive, "c.png", "sub/d.png")
    run([drive, tmp_path / "nest"], tmp_path / "index")
    gone.unlink()
    drive.rename(tmp_path / "unmounted")
    drive.mkdir()
    report = run([tmp_path / path for path in paths], tmp_path / "index")
    assert (report.removed, report.absent) == (1, (drive,))
    assert indexed(tmp_path / "index") == {here, *away}


def test_files_that_were_named_on_a_drive_that_is_not_there_are_kept(tmp_path: Path) -> None:
    here = paint(tmp_path / "nest" / "a.png", "red")
    away = some(tmp_path / "nest" / "drive", "b.png", "c.png")
    run([tmp_path / "nest", *away], tmp_path / "index")
    (tmp_path / "nest" / "drive").rename(tmp_path / "unmounted")
    report = run([tmp_path / "nest"], tmp_path / "index")
    assert (report.removed, report.absent) == (0, (tmp_path / "nest" / "drive",))
    assert indexed(tmp_path / "index") == {here, *away}


def test_a_root_in_a_root_is_brought_up_to_date_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    a, b, c, d = some(folder, "a.png", "b.png", "sub/c.png", "sub/d.png")
    run([folder, folder / "sub", b], tmp_path / "index")
    for path in (b, d):
        path.unlink()
    report = run([folder], tmp_path / "index")
    assert (report.removed, report.absent) == (2, ())
    assert indexed(tmp_path / "index") == {a, c}
    with Store.open(tmp_path / "index") as store:
        assert [root.path for root in store.summary().roots] == [folder, folder / "sub"]  # a file that is gone is none


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
    with Store.open(tmp_path / "index") as store:
        assert store.summary().files == BATCH_SIZE + 3 + BATCH_SIZE
    assert photos / "000.png" in indexed(tmp_path / "index")
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.removed) == (BATCH_SIZE, 1)


def test_a_path_that_does_not_exist_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        run([tmp_path / "nowhere"], tmp_path / "index")
    with Store.open(tmp_path / "index") as store:
        assert store.summary().roots == ()


def test_a_model_that_gives_no_vectors_ends_the_run_and_leaves_nothing_of_it(photos: Path, tmp_path: Path) -> None:
    encoder = TorchEncoder(resolve(str(tiny_checkpoint(tmp_path / "model"))), Runtime("cpu", "fp32", ""))
    with torch.no_grad():
        for parameter in encoder._model.vision_tower.parameters():
            parameter.fill_(float("nan"))
    with Writer.open(tmp_path / "index", encoder.fingerprint) as writer, pytest.raises(ModelError, match="model"):
        index([photos], writer, lambda: Engine(encoder.preprocessing, lambda: encoder))
    with Store.open(tmp_path / "index") as store:
        assert (store.summary().images, store.summary().orphans) == (0, 0)


def test_progress_reaches_the_total(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    seen: list[Progress] = []
    encoder = FakeEncoder()
    with Writer.open(tmp_path / "index", encoder.fingerprint) as writer:
        engine = Engine(encoder.preprocessing, lambda: encoder)
        index([photos], writer, lambda: engine, on_progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1] == Progress(BATCH_SIZE + 4, BATCH_SIZE + 4, BATCH_SIZE + 3, 1)


def test_a_folder_that_cannot_be_listed_is_not_a_mass_deletion(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = some(photos / "inner", "a.png", "b.png")
    run([photos], tmp_path / "index")
    real = os.scandir
    for refused in (photos, photos / "inner"):

        def refuse(folder: bytes, refused: Path = refused) -> object:
            if Path(os.fsdecode(folder)) == refused:
                raise PermissionError(errno.EACCES, "Permission denied", folder)
            return real(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        report = run([photos], tmp_path / "index")
        monkeypatch.undo()
        assert ([skip.path for skip in report.skipped], report.removed) == ([refused], 0)
        assert set(inner) < indexed(tmp_path / "index")


def test_a_change_while_a_file_is_read_is_seen_by_the_next_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_then_change(path: Path) -> bytes:
        data = read(path)
        if path.name == "000.png":
            paint(path, "blue", size=(50, 50))
        return data

    monkeypatch.setattr("bridgetower.decode.read", read_then_change)
    run([photos], tmp_path / "index")
    monkeypatch.undo()
    assert run([photos], tmp_path / "index").encoded == 1


def test_a_change_before_a_file_is_read_is_not_a_second_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan_then_change(paths: list[Path], *options: Any, **more: Any) -> object:
        found = list(scan(paths, *options, **more))
        paint(photos / "000.png", "blue", size=(50, 50))
        return found

    monkeypatch.setattr("bridgetower.indexing.scan", scan_then_change)
    run([photos], tmp_path / "index")
    monkeypatch.undo()
    assert run([photos], tmp_path / "index").unchanged == BATCH_SIZE + 3


def test_a_changed_file_that_cannot_be_read_now_keeps_its_place(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([photos], tmp_path / "index")
    paint(photos / "000.png", "blue", size=(50, 50))

    def refuse(path: Path) -> bytes:
        raise PictureError(path, "cannot be read: Input/output error")

    monkeypatch.setattr("bridgetower.decode.read", refuse)
    report = run([photos], tmp_path / "index")
    assert ([skip.path.name for skip in report.skipped], report.removed) == (["000.png"], 0)
    assert photos / "000.png" in indexed(tmp_path / "index")


def test_a_picture_that_there_was_no_memory_for_is_tried_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhausted, real = (photos / "000.png").read_bytes(), Decoders.decode

    def decode(decoders: Decoders, content: bytes) -> Picture | Refused:
        return Refused("no memory", lasting=False) if content == exhausted else real(decoders, content)

    monkeypatch.setattr(Decoders, "decode", decode)
    assert [skip.path.name for skip in run([photos], tmp_path / "index").skipped] == ["000.png"]
    monkeypatch.undo()
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.skipped) == (1, ())


def test_a_large_jpeg_is_decoded_no_larger_than_needed_and_recorded_at_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paint(tmp_path / "photos" / "large.jpg", "red", size=(1285, 643))
    path.write_bytes(encoded(Image.fromarray(noise(1285, 643)), "JPEG"))
    preprocessing = FakeEncoder().preprocessing
    found: list[Pixels] = []

    class Spy(FakeEncoder):
        def embed_images(self, pixels: Pixels) -> Vectors:
            found.extend(pixels)
            return super().embed_images(pixels)

    run([path], tmp_path / "index", Spy())
    small = decode(path.read_bytes(), path, min_side=preprocessing.min_side)
    assert small.image.size == (161, 81)
    for pixels in (*found, load(path, preprocessing)):
        np.testing.assert_array_equal(pixels, preprocess(small, preprocessing))
    assert len(found) == 1
    with closing(sqlite3.connect(tmp_path / "index" / "manifest.sqlite")) as database:
        assert database.execute("SELECT width, height FROM images").fetchall() == [(1285, 643)]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_pictures_that_kill_or_hang_what_decodes_them_are_named_and_the_run_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.decoders.COMMAND", [*HOSTILE, str(tmp_path)])
    monkeypatch.setattr("bridgetower.decoders.TIME_LIMIT", 2.0)
    for content in ("die 11", "die 9", "exit 1", "sleep"):
        (photos / f"{content}.jpg").write_text(content)
    report = run([photos], tmp_path / "index")
    assert report.encoded == BATCH_SIZE + 3
    assert {skip.path.stem: skip.reason for skip in report.skipped} == {
        "die 11": "the decoder died on it (signal SIGSEGV)",
        "die 9": "the decoder died on it (signal SIGKILL)",
        "exit 1": "the decoder died on it (exit status 1)",
        "sleep": "took longer than 2 s to decode",
    }
    (tmp_path / "pids").unlink()
    again = run([photos], tmp_path / "index")
    assert (again.unchanged, set(again.skipped)) == (BATCH_SIZE + 3, set(report.skipped))
    assert not (tmp_path / "pids").exists()


def test_one_new_picture_starts_one_process(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run([photos], tmp_path / "index")
    monkeypatch.setattr("bridgetower.decoders.COMMAND", [*HOSTILE, str(tmp_path)])
    paint(photos / "new.png", "red")
    assert run([photos], tmp_path / "index").encoded == 1
    assert len((tmp_path / "pids").read_text().split()) == 1


def test_a_picture_may_have_as_many_pixels_as_are_allowed(photos: Path, tmp_path: Path) -> None:
    large = paint(photos / "large.png", "red", size=(50, 40))
    encoder = FakeEncoder()
    with Writer.open(tmp_path / "index", encoder.fingerprint) as writer:
        report = index([photos], writer, lambda: Engine(encoder.preprocessing, lambda: encoder), max_pixels=1999)
    assert [skip.path for skip in report.skipped] == [large]
    assert "--max-pixels" in report.skipped[0].reason
    again = run([photos], tmp_path / "index")  # what lies in the content is remembered
    assert again.skipped == report.skipped


def test_files_in_memory_are_bounded_in_bytes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of pictures may be as large as the memory: one file is 2 GB at most."""
    files = [path.stat().st_size for path in photos.iterdir()]
    monkeypatch.setattr("bridgetower.indexing.READ_AHEAD", 2 * max(files))
    real, lock, held, most = Decoders.decode, threading.Lock(), [0], [0]

    def counted_read(path: Path) -> bytes:
        data = read(path)
        with lock:
            held[0] += len(data)
            most[0] = max(most[0], held[0])
        return data

    def decode(decoders: Decoders, content: bytes) -> Picture | Refused:
        time.sleep(0.01)  # reading is faster
        found = real(decoders, content)
        with lock:
            held[0] -= len(content)
        return found

    monkeypatch.setattr("bridgetower.decode.read", counted_read)
    monkeypatch.setattr(Decoders, "decode", decode)
    assert run([photos], tmp_path / "index").encoded == BATCH_SIZE + 3
    assert most[0] <= 5 * max(files) < sum(files)  # twice what may be read ahead, and one in between


def test_a_run_that_fails_is_finished_all_the_same(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[Writer] = []
    real = Writer.finish

    def spy(writer: Writer, *, changed: bool) -> None:
        finished.append(writer)
        real(writer, changed=changed)

    monkeypatch.setattr(Writer, "finish", spy)

    class Interrupted(FakeEncoder):
        def embed_images(self, pixels: Vectors) -> Vectors:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([photos], tmp_path / "index", Interrupted())
    assert len(finished) == 1


def test_what_ended_a_run_is_told_though_finishing_fails_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    class Broken(FakeEncoder):
        def embed_images(self, pixels: Vectors) -> Vectors:
            raise ModelError("out of memory")

    monkeypatch.setattr(Writer, "finish", fail)
    with pytest.raises(ModelError, match="out of memory"):
        run([photos], tmp_path / "index", Broken())
    with pytest.raises(StoreError, match="the disk is full"):
        run([photos], tmp_path / "index")


# What is left out


def test_what_is_excluded_now_is_dropped_and_encodes_nothing_when_it_comes_back(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    kept, *_ = some(photos, "a.png", "sub/b.png", ".c.png")
    (photos / "link.png").symlink_to(photos / "sub" / "b.png")
    everything = Rules(hidden=True, follow_symlinks=True)
    report = run([photos], tmp_path / "index", rules=everything)
    assert (report.files, report.encoded, report.reused) == (4, 3, 1)
    report = run([photos], tmp_path / "index", rules=Rules(exclude=("sub/",)))
    assert (report.unchanged, report.removed, report.absent, report.links) == (1, 3, (), 1)
    assert indexed(tmp_path / "index") == {kept}
    report = run([photos], tmp_path / "index", rules=everything)
    assert (report.encoded, report.reused, report.unchanged, report.links) == (0, 3, 1, 0)


@pytest.mark.parametrize("folders", [["nest"], ["nest", "nest/drive"]], ids=" ".join)
def test_a_folder_in_which_everything_is_excluded_is_not_a_disk_that_is_not_there(
    tmp_path: Path, folders: list[str]
) -> None:
    drive = tmp_path / "nest" / "drive"
    some(drive, "a.jpg", "b.jpg")
    paths = [tmp_path / folder for folder in folders]
    run([*paths, drive], tmp_path / "index")
    (drive / ".btignore").write_text("*.jpg")
    report = run(paths, tmp_path / "index")
    assert (report.removed, report.absent) == (2, ())


def test_what_was_named_itself_is_not_dropped_by_a_walk_that_excludes_it(tmp_path: Path) -> None:
    a, b = some(tmp_path / "photos", "a.png", "sub/b.png")
    (tmp_path / "photos" / ".btignore").write_text("sub")
    run([tmp_path / "photos", tmp_path / "photos" / "sub"], tmp_path / "index")
    report = run([tmp_path / "photos"], tmp_path / "index")
    assert (report.removed, report.absent) == (0, ())
    assert indexed(tmp_path / "index") == {a, b}


def test_skipped_files_are_tried_again_if_that_is_asked_for(photos: Path, tmp_path: Path) -> None:
    bad = photos / "bad.jpg"
    bad.write_text("no picture")
    run([photos], tmp_path / "index")
    with patch("bridgetower.decode.read", side_effect=AssertionError):
        assert [skip.path for skip in run([photos], tmp_path / "index").skipped] == [bad]
    with patch("bridgetower.decode.read", side_effect=read) as tried:
        report = run([photos], tmp_path / "index", retry=True)
    assert ([skip.path for skip in report.skipped], report.unchanged) == ([bad], BATCH_SIZE + 3)
    tried.assert_called_once_with(bad)
    with patch("bridgetower.decode.read", return_value=(photos / "000.png").read_bytes()):  # as a newer bt reads it
        report = run([photos], tmp_path / "index", retry=True)
    assert (report.skipped, report.reused) == ((), 1)


# Many files


def test_a_rename_of_a_folder_needs_no_engine(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "index")
    photos.rename(tmp_path / "renamed")
    with Writer.open(tmp_path / "index", FakeEncoder().fingerprint) as writer:
        report = index([tmp_path / "renamed"], writer, never)
    assert (report.reused, report.encoded) == (BATCH_SIZE + 3, 0)


def test_what_has_changed_is_read_in_the_order_of_paths_over_several_pages(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.manifest._ROWS", 5)
    monkeypatch.setattr("bridgetower.manifest._SEEN_ROWS", 3)
    files = [File(b"/a/%02d" % number, 1, 1) for number in range(17)]
    with Writer.open(tmp_path / "index", FakeEncoder().fingerprint) as writer:
        assert writer.meet(reversed(files)) == 17
        for number, photo in enumerate(writer.changed()):
            assert os.fsencode(photo.path) == files[number].path
            writer.commit(skipped=[(photo, "no picture")])
        assert number == 16
        assert [*writer.changed()] == []
        assert len([*writer.changed(retry=True)]) == len([*writer.still_skipped()]) == 17


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(number: int) -> Iterator[File]:
        return (File(b"/photos/%03d/%03d.jpg" % divmod(at, 100), 1000 + at, at) for at in range(number))

    def peak(number: int) -> int:
        with Writer.open(tmp_path / str(number), FakeEncoder().fingerprint) as writer:
            photos = (Photo(Path(os.fsdecode(path)), size, at) for path, size, at in tree(number))
            while batch := [(photo, "not a picture") for photo in islice(photos, 2000)]:
                writer.commit(skipped=batch)
            db = writer._manifest._db
            with writer._manifest.transaction():  # pictures, without the work
                db.execute("INSERT INTO images VALUES (1, x'00', 1, 1, NULL, x'0000', 0)")
                db.execute("UPDATE files SET image = 1, reason = NULL")
        monkeypatch.setattr("bridgetower.indexing.scan", lambda paths, rules, passed_over, apart: tree(number))
        with Writer.open(tmp_path / str(number), FakeEncoder().fingerprint) as writer:
            monkeypatch.setattr(writer, "finish", lambda changed: None)
            tracemalloc.start()
            try:
                report = index([Path("/photos")], writer, never)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
                assert (report.unchanged, report.removed) == (number, 0)

    small, large = peak(2000), peak(20_000)
    assert large < small + 20_000  # bytes: one for each of the files would be more than their number


def test_a_run_with_nothing_to_do_publishes_a_vector_file_that_is_gone_and_reads_none(
    photos: Path, tmp_path: Path
) -> None:
    run([photos], tmp_path / "index")
    with patch("bridgetower.published.Published.intact", side_effect=AssertionError):
        run([photos], tmp_path / "index")
        (tmp_path / "index" / "vectors-1.faiss").unlink()
        run([photos], tmp_path / "index")
    assert (tmp_path / "index" / "vectors-2.faiss").exists()
    (tmp_path / "index" / "vectors-2.faiss").write_bytes(b"damaged")
    paint(photos / "new.png", "red")
    run([photos], tmp_path / "index")
    assert (tmp_path / "index" / "vectors-3.faiss").exists()
