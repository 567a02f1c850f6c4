"""An index of an older decoding learns of a better one: only pictures that get other pixels are encoded again."""

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridgetower.index.catalog.schema import SUMMED, crc32_of
from bridgetower.index.check import check_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.records import DECODING_VERSION, File
from bridgetower.retrieval.indexing import IndexReport, index
from tests.fakes import FakeEncoder, paint, stored
from tests.pictures import encoded
from tests.unit.pictures.test_versions import P3
from tests.unit.retrieval.indexing.conftest import content, indexed, never, run


def grow_old(directory: Path) -> None:
    """Let the images and the skipped files of an index be of decoding 0, as if an older program had made it."""
    with IndexWriter.open(directory, FakeEncoder().fingerprint) as writer, writer.catalog.transaction():
        db = writer.catalog._db
        for id, *row in db.execute(f"SELECT id, {SUMMED['images']} FROM images").fetchall():
            row[4] = 0
            db.execute("UPDATE images SET decoding = 0, crc32 = ? WHERE id = ?", (crc32_of(*row), id))
        for file, reason in list(writer.catalog.skipped_files()):
            writer.catalog.put_skipped(File(file.path, file.size, file.mtime_ns, decoding=0), reason)


def decodings(directory: Path) -> list[int]:
    with sqlite3.connect(directory / "manifest.sqlite") as db:
        found = [decoding for (decoding,) in db.execute("SELECT decoding FROM images ORDER BY id")]
    db.close()
    return found


def unencoded(paths: list[Path], directory: Path) -> IndexReport:
    with IndexWriter.open(directory, FakeEncoder().fingerprint) as writer:
        return index(paths, writer, never)


def wide(path: Path) -> Path:
    """A picture in Display P3 whose pixels an older program took for sRGB."""
    path.write_bytes(encoded(Image.new("RGB", (30, 20), (200, 60, 60)), "PNG", icc_profile=P3))
    return path


class Reddish(FakeEncoder):
    """Any picture is red."""

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[:1].repeat(len(pixels), axis=0)


def test_pictures_that_keep_their_pixels_are_not_encoded_again(photos: Path, tmp_path: Path) -> None:
    number = run([photos], tmp_path / "index").encoded
    grow_old(tmp_path / "index")
    report = unencoded([photos], tmp_path / "index")
    assert (report.unchanged, report.reused, report.renewed, report.encoded) == (number, 0, 0, 0)
    assert decodings(tmp_path / "index") == [DECODING_VERSION] * number
    assert list(check_index(tmp_path / "index")) == []


def test_a_picture_with_other_pixels_is_encoded_again_and_takes_the_place(photos: Path, tmp_path: Path) -> None:
    picture, directory = wide(photos / "wide.png"), tmp_path / "index"
    (photos / "copy.png").write_bytes(picture.read_bytes())
    number = run([photos], directory).encoded
    grow_old(directory)
    report = run([photos], directory, Reddish())
    assert (report.renewed, report.encoded, report.removed, report.files) == (1, 1, 0, number + 1)
    assert report.unchanged + report.reused == number
    assert list(check_index(directory)) == []
    with IndexReader.open(directory) as reader:
        id = reader.catalog.image_id(content(picture))
        assert id == number + 1  # the old id is never used again
        assert reader.catalog.paths_of(id) == (photos / "copy.png", picture)
        np.testing.assert_array_equal(stored(reader, id), [1, 0, 0])
        found = [image.image for image in reader.recall(np.eye(1, 3, dtype=np.float32), 1000)[0]]
        assert len(found) == len(set(found)) == number and found[0] == id
    assert unencoded([photos], directory).unchanged == number + 1


def test_a_picture_that_is_refused_now_is_skipped_with_the_reason(photos: Path, tmp_path: Path) -> None:
    directory, wrong = tmp_path / "index", paint(photos / "wrong.png", "red")
    run([photos], directory)
    wrong.write_bytes(b"read wrongly by an older program")
    with IndexWriter.open(directory, FakeEncoder().fingerprint) as writer, writer.catalog.transaction():
        known, hash = writer.catalog.known(wrong), content(wrong)
        assert known is not None
        db = writer.catalog._db
        [row] = db.execute(f"SELECT {SUMMED['images']} FROM images WHERE id = ?", (known.image,))
        row = (hash, *row[1:4], 0, row[5])
        sql = "UPDATE images SET hash = ?, decoding = 0, crc32 = ? WHERE id = ?"
        db.execute(sql, (hash, crc32_of(*row), known.image))
        writer.catalog.put_file(File.of(wrong, wrong.stat()), hash)
    report = unencoded([photos], directory)
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(wrong, "not a picture, or of an unknown kind")]
    assert wrong not in indexed(directory)
    assert list(check_index(directory)) == []


def test_a_picture_over_the_limit_of_this_run_stays_and_is_looked_at_by_the_next(photos: Path, tmp_path: Path) -> None:
    directory = tmp_path / "index"
    large = paint(photos / "large.png", "red", size=(300, 300))
    number = run([photos], directory).encoded
    grow_old(directory)
    for max_pixels, skipped in ((10_000, [large]), (None, [])):
        with IndexWriter.open(directory, FakeEncoder().fingerprint) as writer:
            report = index([photos], writer, never, max_pixels=max_pixels)
        assert [skip.path for skip in report.skipped] == skipped
        assert len(indexed(directory)) == number
    assert decodings(directory) == [DECODING_VERSION] * number


def test_what_an_older_reader_refused_is_tried_again_by_itself(photos: Path, tmp_path: Path) -> None:
    directory, bad = tmp_path / "index", photos / "bad.png"
    bad.write_bytes(b"no picture")
    assert len(run([photos], directory).skipped) == 1
    with IndexWriter.open(directory, FakeEncoder().fingerprint) as writer, writer.catalog.transaction():
        [(file, _)] = writer.catalog.skipped_files()
        now = paint(photos / "other.png", "blue").rename(bad).stat()
        file = File(bad, now.st_size, now.st_mtime_ns, decoding=DECODING_VERSION - 1)
        writer.catalog.put_skipped(file, "an older program does not read this")
    report = run([photos], directory)
    assert (report.encoded, report.skipped) == (1, ())
    assert bad in indexed(directory)


def test_a_run_that_is_killed_goes_on_with_the_rest(photos: Path, tmp_path: Path) -> None:
    directory = tmp_path / "index"
    for number in range(40):
        wide(photos / f"wide {number}.png").write_bytes(
            encoded(Image.new("RGB", (30, 20), (200, 6 * number, 60)), "PNG", icc_profile=P3)
        )
    number = run([photos], directory).encoded
    grow_old(directory)

    class Broken(FakeEncoder):
        def embed_images(self, pixels: np.ndarray) -> np.ndarray:
            if self.encoded:
                raise KeyboardInterrupt
            return super().embed_images(pixels)

    with pytest.raises(KeyboardInterrupt):
        run([photos], directory, Broken())
    assert list(check_index(directory)) == []
    assert len(indexed(directory)) == number
    report = run([photos], directory)
    assert 0 < report.renewed < 40 and report.unchanged + report.renewed == number
    assert unencoded([photos], directory).unchanged == number


def test_an_index_of_today_looks_at_nothing_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([photos], tmp_path / "index")
    monkeypatch.setattr("bridgetower.retrieval.contents.DecodingCheck.start", None)  # raises where it is called
    paint(photos / "new.png", "red")
    os.utime(photos / "001.png")
    assert run([photos], tmp_path / "index").encoded == 1


def test_the_engine_gets_new_and_outdated_contents_in_one_run(photos: Path, tmp_path: Path) -> None:
    directory = tmp_path / "index"
    wide(photos / "wide.png")
    run([photos], directory)
    grow_old(directory)
    paint(photos / "new.png", (1, 2, 3))
    report = run([photos], directory)
    assert (report.encoded, report.renewed) == (2, 1)
    with IndexWriter.open(directory, FakeEncoder().fingerprint) as writer:
        assert index([photos], writer, lambda: Model.from_parts(FakeEncoder())).unchanged == report.files


def test_a_damaged_image_is_not_made_valid_by_a_new_version(photos: Path, tmp_path: Path) -> None:
    directory = tmp_path / "index"
    number = run([photos], directory).encoded
    grow_old(directory)
    with sqlite3.connect(directory / "manifest.sqlite") as db:
        db.execute("UPDATE images SET width = width + 1 WHERE id = 3")
    db.close()
    assert unencoded([photos], directory).unchanged == number
    assert decodings(directory) == [DECODING_VERSION] * number
    assert [(finding.part, finding.image) for finding in check_index(directory)] == [("images", 3)]
