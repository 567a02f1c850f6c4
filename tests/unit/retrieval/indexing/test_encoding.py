"""Every picture is encoded once, found by its own vector, and encoded again only if it has changed."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridgetower.encoders.protocol import Pixels, Vectors
from bridgetower.encoders.runtime import BATCH_SIZE
from bridgetower.files.content import read
from bridgetower.files.walk import scan
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.pictures.decode import decode
from bridgetower.pictures.preprocess import preprocess
from bridgetower.records import Candidate
from bridgetower.retrieval.encode_pictures import load
from bridgetower.retrieval.indexing import Progress, index
from tests.fakes import HOSTILE, FakeEncoder, paint, stored
from tests.pictures import encoded, noise
from tests.unit.retrieval.indexing.conftest import content, never, run


def test_every_picture_is_found_by_its_own_vector(photos: Path, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    report = run([photos], tmp_path / "index", encoder)
    assert (report.files, report.encoded, report.skipped) == (BATCH_SIZE + 3, BATCH_SIZE + 3, ())
    with IndexReader.open(tmp_path / "index") as store:
        ids = [store.catalog.image_id(content(path)) for path in sorted(photos.iterdir())]
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
    monkeypatch.setattr("bridgetower.files.content.read", lambda path: pytest.fail(f"{path} was opened"))
    fake = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", fake.fingerprint) as writer:
        report = index([photos], writer, never)
    assert (report.unchanged, report.encoded, report.reused, report.removed) == (BATCH_SIZE + 3, 0, 0, 0)


def test_renamed_and_copied_files_are_neither_decoded_nor_encoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([photos], tmp_path / "index")
    (photos / "000.png").rename(photos / "renamed.png")
    (photos / "copy.png").write_bytes((photos / "001.png").read_bytes())
    monkeypatch.setattr("bridgetower.pictures.decode_pool._Process", lambda *_: pytest.fail("a process was started"))
    fake = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", fake.fingerprint) as writer:
        report = index([photos], writer, never)
    assert (report.reused, report.removed, report.unchanged) == (2, 1, BATCH_SIZE + 2)
    with IndexReader.open(tmp_path / "index") as store:
        image = store.catalog.image_id(content(photos / "copy.png"))
        assert image is not None
        assert store.catalog.paths_of(image) == (photos / "001.png", photos / "copy.png")


def test_a_changed_file_is_encoded_again(photos: Path, tmp_path: Path) -> None:
    run([photos], tmp_path / "index")
    paint(photos / "000.png", "blue", size=(50, 50))
    encoder = FakeEncoder()
    report = run([photos], tmp_path / "index", encoder)
    assert (report.encoded, encoder.encoded) == (1, 1)
    with IndexReader.open(tmp_path / "index") as store:
        best = store.recall(encoder.embed_texts(["blue"]), 1)[0][0].image
        assert store.catalog.paths_of(best) == (photos / "000.png",)


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


def test_a_file_from_the_far_future_stops_nobody(photos: Path, tmp_path: Path) -> None:
    os.utime(photos / "000.png", ns=(2**63 + 5, 2**63 + 5))  # the year 2262
    assert run([photos], tmp_path / "index").encoded == BATCH_SIZE + 3
    assert run([photos], tmp_path / "index").reused == 1


def test_progress_reaches_the_total(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    seen: list[Progress] = []
    encoder = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", encoder.fingerprint) as writer:
        index([photos], writer, lambda: Model.from_parts(encoder), on_progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[0] == Progress(0, 0, 0, 0)  # while the folders are walked
    assert seen[-1] == Progress(BATCH_SIZE + 4, BATCH_SIZE + 4, BATCH_SIZE + 3, 1)


def test_a_change_while_a_file_is_read_is_seen_by_the_next_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_then_change(path: Path) -> bytes:
        data = read(path)
        if path.name == "000.png":
            paint(path, "blue", size=(50, 50))
        return data

    monkeypatch.setattr("bridgetower.files.content.read", read_then_change)
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

    monkeypatch.setattr("bridgetower.retrieval.indexing.scan", scan_then_change)
    run([photos], tmp_path / "index")
    monkeypatch.undo()
    assert run([photos], tmp_path / "index").unchanged == BATCH_SIZE + 3


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
    for pixels in (*found, load(Candidate(path), preprocessing)):
        np.testing.assert_array_equal(pixels, preprocess(small, preprocessing))
    assert len(found) == 1
    with closing(sqlite3.connect(tmp_path / "index" / "manifest.sqlite")) as database:
        assert database.execute("SELECT width, height FROM images").fetchall() == [(1285, 643)]


def test_one_new_picture_starts_one_process(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run([photos], tmp_path / "index")
    monkeypatch.setattr("bridgetower.pictures.decode_pool.COMMAND", [*HOSTILE, str(tmp_path)])
    paint(photos / "new.png", "red")
    assert run([photos], tmp_path / "index").encoded == 1
    assert len((tmp_path / "pids").read_text().split()) == 1
