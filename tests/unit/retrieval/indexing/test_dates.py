"""A file gets the date that counts: of its content, its sidecars, its name; and a change of these, without encoding."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from PIL import ExifTags, Image

from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.pictures.dates.order import Source, Taken
from bridgetower.records import METADATA_VERSION, File, Filter
from bridgetower.retrieval.contents import Dated
from tests.fakes import FakeEncoder
from tests.unit.retrieval.indexing.conftest import content, run

pytestmark = pytest.mark.usefixtures("decode_here")

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:DateTimeOriginal="{}"/></rdf:RDF></x:xmpmeta>"""


def at(written: str) -> int:
    return int(datetime.fromisoformat(written).replace(tzinfo=UTC).timestamp())


def picture(path: Path, taken: str | None = None) -> Path:
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (20, 20), (len(path.name) * 7 % 256, 90, 30)).save(path, "JPEG", exif=exif)
    return path


def dates(directory: Path) -> dict[str, tuple[int | None, int | None]]:
    """The date of the content and the file's own one, by name."""
    with IndexReader.open(directory) as reader:
        return {
            file.path.name: (entry.taken_at, file.taken_at)
            for entry in reader.catalog.entries()
            for file in entry.files
        }


def within(directory: Path, first: str, last: str) -> set[str]:
    """The files that a search between two times may show."""
    filter = Filter(since=at(first), before=at(last))
    with IndexReader.open(directory) as reader:
        images = list(reader.catalog.images_within(filter))
        return {file.path.name for image in images for file in reader.catalog.content(image, filter)[1]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def test_content_sidecar_takeout_and_name(photos: Path, tmp_path: Path) -> None:
    picture(photos / "camera.jpg", "2019:07:04 10:15:00")
    picture(photos / "IMG-20180203-WA0001.jpg")
    picture(photos / "IMG_20170203_040506.jpg", "2016:01:01 00:00:00")  # the camera counts
    picture(photos / "corrected.jpg", "2015:05:05 05:05:05")
    (photos / "corrected.jpg.xmp").write_text(XMP.format("2014-04-04T04:04:04"))
    picture(photos / "google.jpg")
    (photos / "google.jpg.supplemental-metadata.json").write_text(
        json.dumps({"photoTakenTime": {"timestamp": str(at("2013-03-03 03:03:03"))}})
    )
    os.utime(picture(photos / "plain.jpg"), (at("2001-01-01"),) * 2)
    run([photos], tmp_path / "index")
    assert dates(tmp_path / "index") == {
        "camera.jpg": (at("2019-07-04 10:15"), None),
        "IMG-20180203-WA0001.jpg": (None, at("2018-02-03")),
        "IMG_20170203_040506.jpg": (at("2016-01-01"), None),
        "corrected.jpg": (at("2015-05-05 05:05:05"), at("2014-04-04 04:04:04")),
        "google.jpg": (None, at("2013-03-03 03:03:03")),
        "plain.jpg": (None, None),
    }
    assert within(tmp_path / "index", "2018-01-01", "2020-01-01") == {"camera.jpg", "IMG-20180203-WA0001.jpg"}
    assert within(tmp_path / "index", "2014-01-01", "2015-01-01") == {"corrected.jpg"}
    assert within(tmp_path / "index", "2015-01-01", "2016-01-01") == set()  # its own date counts before the content's
    assert within(tmp_path / "index", "2000-12-01", "2001-02-01") == {"plain.jpg"}
    with IndexReader.open(tmp_path / "index") as reader:
        assert reader.summary().undated == 1


def _rewritten(sidecar: Path, taken: str) -> None:
    """As `exiftool -P` leaves it: of the same size and time."""
    sidecar.write_text(XMP.format(taken))
    os.utime(sidecar, ns=(1, 1))


@pytest.mark.parametrize("alone", [False, True], ids=["folder", "file"])
def test_a_sidecar_that_comes_changes_or_goes_is_seen_without_encoding(
    alone: bool, photos: Path, tmp_path: Path
) -> None:
    sidecar = picture(photos / "a.jpg", "2015:05:05 05:05:05").with_suffix(".xmp")
    given = [photos / "a.jpg" if alone else photos]
    assert run(given, tmp_path / "index").encoded == 1
    steps: list[tuple[Callable[[], object], str | None]] = [
        (lambda: sidecar.write_text(XMP.format("2014-04-04T04:04:04")), "2014-04-04 04:04:04"),
        (lambda: sidecar.write_text(XMP.format("2014-04-04T04:04:05")), "2014-04-04 04:04:05"),
        (lambda: os.utime(sidecar, ns=(1, 1)), "2014-04-04 04:04:05"),
        (lambda: _rewritten(sidecar, "2014-04-04T04:04:06"), "2014-04-04 04:04:06"),
        (lambda: sidecar.unlink(), None),
    ]
    for change, own in steps:
        change()
        report = run(given, tmp_path / "index")
        assert (report.encoded, report.unchanged) == (0, 1)
        expected = None if own is None else at(own)
        assert dates(tmp_path / "index") == {"a.jpg": (at("2015-05-05 05:05:05"), expected)}
        with patch("bridgetower.files.content.read", side_effect=AssertionError("it was opened")):
            run(given, tmp_path / "index")


def test_other_files_beside_a_picture_are_no_change(photos: Path, tmp_path: Path) -> None:
    picture(photos / "a.jpg")
    run([photos], tmp_path / "index")
    (photos / "package.json").write_text("{}")
    (photos / "b.xmp").write_text(XMP.format("2014-04-04T04:04:04"))
    with patch("bridgetower.files.content.read", side_effect=AssertionError("it was opened")):
        assert run([photos], tmp_path / "index").unchanged == 1


def test_an_older_index_gets_the_dates_without_encoding(photos: Path, tmp_path: Path) -> None:
    path = picture(photos / "a.jpg", "2015:05:05 05:05:05")
    picture(photos / "IMG-20180203-WA0001.jpg")
    run([photos], tmp_path / "index")
    with IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint) as writer, writer.catalog.transaction():
        for file, hash in [(name, content(name)) for name in photos.iterdir()]:
            known = writer.catalog.known(file)
            assert known is not None
            old = type(known.file)(file, known.file.size, known.file.mtime_ns, metadata=METADATA_VERSION - 1)
            writer.catalog.put_file(old, hash)
        writer.catalog.confirm(content(path), None, 1)
    assert set(dates(tmp_path / "index").values()) == {(None, None)}
    encoder = FakeEncoder()
    report = run([photos], tmp_path / "index", encoder)
    assert (report.unchanged, report.encoded, encoder.encoded) == (2, 0, 0)
    assert dates(tmp_path / "index") == {
        "a.jpg": (at("2015-05-05 05:05:05"), None),
        "IMG-20180203-WA0001.jpg": (None, at("2018-02-03")),
    }


def test_what_cannot_be_read_beside_a_picture_is_no_obstacle(photos: Path, tmp_path: Path) -> None:
    picture(photos / "a.jpg")
    (photos / "a.jpg.xmp").mkdir()
    (photos / "a.xmp").symlink_to(photos / "gone")
    (photos / "a.jpg.json").write_bytes(b"\xff{[" * 1000)
    os.utime(photos / "a.jpg.json", ns=(2**63 + 5, 2**63 + 5))  # the year 2262
    picture(photos / "other.jpg")
    (photos / "other.xmp").write_bytes(b"<" * 11_000_000)
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.skipped) == (2, ())
    assert set(dates(tmp_path / "index").values()) == {(None, None)}


def test_copies_have_dates_of_their_own(photos: Path, tmp_path: Path) -> None:
    first = picture(photos / "IMG-20180203-WA0001.jpg")
    (photos / "IMG-20190203-WA0001.jpg").write_bytes(first.read_bytes())
    report = run([photos], tmp_path / "index")
    assert (report.encoded, report.reused) == (1, 1)
    (photos / "copy.jpg").write_bytes(first.read_bytes())
    run([photos], tmp_path / "index")
    assert {name: own for name, (_, own) in dates(tmp_path / "index").items()} == {
        "IMG-20180203-WA0001.jpg": at("2018-02-03"),
        "IMG-20190203-WA0001.jpg": at("2019-02-03"),
        "copy.jpg": None,
    }
    assert within(tmp_path / "index", "2019-01-01", "2020-01-01") == {"IMG-20190203-WA0001.jpg"}


def test_the_places_count_in_one_order_wherever_they_are() -> None:
    file, day, noon = File(Path("/a.jpg"), 1, 1), at("2019-07-04"), at("2019-07-04 12:00")
    inside = (Taken(Source.IPTC_CREATED, day, 86400), Taken(Source.GPS, day + 7))
    name = Taken(Source.NAME, noon)
    assert Dated(file, inside, (name,)).with_date(None).taken_at == noon  # of the name, which comes before GPS
    assert Dated(file, inside, (name,)).taken_at(None) == day + 7
    assert Dated(file, inside, ()).with_date(None).taken_at is None
    assert Dated(file, (), (name,)).with_date(day).taken_at is None  # the decoder found one in the content
    assert Dated(file, (), (name,)).taken_at(day) == day
