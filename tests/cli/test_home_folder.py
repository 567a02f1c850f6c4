"""A home folder as people have it gives one row a picture, each with the date at which it was taken."""

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from tests.cli.conftest import Bt
from tests.raws import dng, linear

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:DateTimeOriginal="2014-04-04T04:04:04"/>
</rdf:RDF></x:xmpmeta>"""
NFC, NFD = (unicodedata.normalize(form, "Müller Zürich") for form in ("NFC", "NFD"))
DATES = {
    "nas/2019/IMG_1.JPG": "2019-07-04T10:15:00",
    "nas/raw/edited.jpg": "2014-04-04T04:04:04",  # corrected in the sidecar
    "takeout/holiday.jpg": "2016-06-06T06:06:06",
    "WhatsApp/IMG-20180203-WA0001.jpg": "2018-02-03T00:00:00",
    "phone/PXL_20210704_101500123.jpg": "2021-07-04T10:15:00",
    "Photos.photoslibrary/originals/0/A1.jpg": "2012-12-12T12:12:12",
    f"{NFC}/a.jpg": None,
    f"{NFD}/b.jpg": None,
    "copies/one.jpg": None,
}


def picture(path: Path, number: int, taken: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    Image.new("RGB", (40 + number, 30), (240, 10 * number, 5)).save(path, "JPEG", exif=exif)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    exif = {
        "nas/2019/IMG_1.JPG": "2019:07:04 10:15:00",
        "nas/raw/edited.jpg": "2015:05:05 05:05:05",
        "Photos.photoslibrary/originals/0/A1.jpg": "2012:12:12 12:12:12",
    }
    for number, name in enumerate(DATES):
        picture(home / name, number, exif.get(name))
    (home / "nas/raw/edited.jpg.xmp").write_text(XMP)
    taken = {"photoTakenTime": {"timestamp": "1465193166"}}
    (home / "takeout/holiday.jpg.supplemental-metadata.json").write_text(json.dumps(taken))
    (home / "nas/2019/IMG_1.dng").write_bytes(dng(linear(64, 48)))  # of a pair
    (home / "copies/two").mkdir()
    (home / "copies/two/two.jpg").write_bytes((home / "copies/one.jpg").read_bytes())
    for number, left_out in enumerate(
        (
            "nas/2019/@eaDir/IMG_1.JPG/SYNOPHOTO_THUMB_M.jpg",
            "nas/#recycle/old.jpg",
            "Photos.photoslibrary/resources/derivatives/A1_1.jpg",
            "WhatsApp/Sent/IMG-20180203-WA0002.jpg",
            ".hidden/x.jpg",
        )
    ):
        picture(home / left_out, 50 + number)
    (home / "WhatsApp/Sent/.nomedia").touch()
    (home / "phone/.IMG_2.jpg.icloud").write_bytes(b"bplist00")
    return home


def rows(bt: Bt, *arguments: object) -> list[dict[str, object]]:
    done = bt("search", "red", "--top", 50, "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_row_a_picture_with_the_right_date(bt: Bt, home: Path) -> None:
    done = bt("index", home, "--model", "fake")
    assert done.exit_code == 0, done.stderr
    for said in ("left out 1 picture in @eaDir", "1 in recycle bins", "1 in inner folders of photo", "cloud only"):
        assert said in done.stderr, said
    found = {str(Path(str(row["path"])).relative_to(home)): row for row in rows(bt)}
    copies = [path for row in found.values() for path in list(row["paths"])[1:]]  # type: ignore[call-overload]
    assert sorted(Path(path).name for path in copies) in (["IMG_1.dng", "two.jpg"], ["IMG_1.JPG", "two.jpg"])
    expected = {name: date for name, date in DATES.items() if name != "nas/2019/IMG_1.JPG"}
    dates = {name: row["taken_at"] for name, row in found.items() if not name.startswith("nas/2019/IMG_1")}
    assert dates == expected
    assert sum(name.startswith("nas/2019/IMG_1") for name in found) == 1


def test_names_and_dates_are_asked_for_as_people_do(bt: Bt, home: Path) -> None:
    bt("index", home, "--model", "fake")
    for name in (NFC, NFD):
        other = unicodedata.normalize("NFD" if name == NFC else "NFC", name)
        assert [Path(str(row["path"])).parent.name for row in rows(bt, "--under", home / other)] != []
    names = [Path(str(row["path"])).name for row in rows(bt, "--taken", "2016..2018")]
    assert sorted(names) == ["IMG-20180203-WA0001.jpg", "holiday.jpg"]
    names = [Path(str(row["path"])).name for row in rows(bt, "--under", "*/raw/*", "--under", home / "phone")]
    assert sorted(names) == ["PXL_20210704_101500123.jpg", "edited.jpg"]
