"""The date taken is found in every place and spelling, as exiftool finds it; dates of editing never count."""

import json
import random
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from bridgetower.pictures.dates import content, exif, iptc, items, png, spelling, xmp
from bridgetower.pictures.dates.content import taken_in
from bridgetower.pictures.dates.names import taken_in_name
from bridgetower.pictures.dates.order import Source, Taken, first_of
from bridgetower.pictures.dates.sidecars import sidecars_of, taken_in_sidecar
from bridgetower.pictures.decode import decode, in_memory
from bridgetower.pictures.extras import bmff
from tests import dated
from tests.dated import ROWS, TAGS, Row
from tests.pictures import HERE, encoded, png_chunk, segment
from tests.raws import dng, linear

EXIFTOOL = shutil.which("exiftool")


def shown(date: Taken | None) -> str | None:
    return None if date is None else datetime.fromtimestamp(date.at, UTC).replace(tzinfo=None).isoformat()


def taken(row: Row) -> Taken | None:
    return (taken_in_sidecar if row.name.endswith(".xmp") else taken_in)(row.make())


# --- the matrix


def clock(value: str) -> str | None:
    """The clock of a value of exiftool, which writes its numbers in order; None if no clock shows them."""
    if not re.match(r"[0-9]{4}", value):
        return None
    numbers = re.findall(r"[0-9]+", value[:11] + re.split("[-+]", value[11:])[0])  # without the zone
    if len(numbers[0]) > 4:
        numbers = [value[:4], *re.findall("..", value[4:14])]
    year, month, day, hour, minute, second = [int(number) for number in numbers[:6]] + [1, 1, 0, 0, 0][
        len(numbers) - 1 :
    ]
    try:
        return datetime(year, month, day, hour, minute, second).isoformat()
    except ValueError:
        return None


def first_tag(values: dict[str, object]) -> str:
    return next((f"{tag} {values[tag]}" for tag in TAGS if re.search("[1-9]", str(values.get(tag, "")))), "")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_date_is_read(row: Row) -> None:
    assert shown(taken(row)) == row.taken


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_date_is_that_of_exiftool(row: Row) -> None:
    theirs = clock(row.exiftool.partition(" ")[2])
    if row.why:
        assert theirs != row.taken  # else it needs no reason
    else:
        assert theirs == row.taken


def test_the_matrix_is_wide() -> None:
    assert sum(row.taken is not None and not row.why for row in ROWS) >= 80
    assert max(Counter(row.name for row in ROWS).values()) == 1


@pytest.mark.process
@pytest.mark.skipif(EXIFTOOL is None, reason="exiftool is not installed")
def test_exiftool_reads_what_the_matrix_says(tmp_path: Path) -> None:
    for row in ROWS:
        (tmp_path / row.name).write_bytes(row.make())
    command = [str(EXIFTOOL), "-json", *(f"-{tag}" for tag in TAGS), str(tmp_path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
    read = {Path(values["SourceFile"]).name: first_tag(values) for values in found}
    differing = {row.name: read.get(row.name) for row in ROWS if read.get(row.name) != row.exiftool}
    assert not differing


# --- spellings that have no place in the matrix


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Thursday, 04-Jul-19 10:15:00 GMT", "2019-07-04T10:15:00"),
        ("4 July 2019", "2019-07-04T00:00:00"),
        ("Thu Jul 4 12:15:00 2019 +0200", "2019-07-04T12:15:00"),
        ("Thu 04 Jul 2019 12:15:00 AM UTC", "2019-07-04T00:15:00"),
        ("Thu 04 Jul 2019 12:15:00 PM UTC", "2019-07-04T12:15:00"),
        ("4 Jul 71 10:15 +0000", "1971-07-04T10:15:00"),
        ("4 Foo 2019 10:15:00", None),
        ("20190704T101500Z", "2019-07-04T10:15:00"),
        ("2019-07-04T10:15:00GMT+02:00", "2019-07-04T10:15:00"),
        ("2019:12", "2019-12-01T00:00:00"),
        ("1800", "1800-01-01T00:00:00"),
        ("2100:12:31 23:59:59", "2100-12-31T23:59:59"),
        ("1799:12:31", None),
        ("2019:07:04 25:00:00", None),
        ("2019:07:04 10:15:00 and more", None),
        ("201", None),
        ("٢٠١٩:٠٧:٠٤", None),  # digits that are not ASCII
        ("20190704" * 1000, None),
    ],
)
def test_spellings(written: str, expected: str | None) -> None:
    found = spelling.read(written)
    assert shown(found and Taken(Source.NAME, *found)) == expected


@given(st.datetimes(datetime(1800, 1, 1), datetime(2100, 12, 31)))
def test_a_full_date_is_read_to_the_second(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    expected = (int(moment.replace(tzinfo=UTC).timestamp()), 1)
    for form in ("%Y:%m:%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+02:00", "%Y%m%dT%H%M%S", "%a, %d %b %Y %H:%M:%S +0000"):
        assert spelling.read(f"{moment:{form}}".replace(f"{moment:%Y}", f"{moment.year:04}")) == expected


# --- the order


def test_the_lower_source_counts_and_of_one_source_the_first() -> None:
    dates = [Taken(source, 1000 - source) for source in reversed(Source)]
    assert first_of(dates) == Taken(Source.SIDECAR_TAKEN, 1000)
    assert first_of([Taken(Source.GPS, 5), Taken(Source.GPS, 6)]) == Taken(Source.GPS, 5)
    assert first_of([]) is None


def test_a_later_date_narrows_a_day_but_never_moves_it() -> None:
    day = Taken(Source.IPTC_CREATED, 86400, 86400)
    assert first_of([Taken(Source.TAKEOUT, 90000), day]) == Taken(Source.IPTC_CREATED, 90000)
    for outside in (86399, 2 * 86400):
        assert first_of([Taken(Source.TAKEOUT, outside), day]) == day
    assert first_of([day, Taken(Source.TAKEOUT, 86400, 30 * 86400)]) == day
    year = Taken(Source.EXIF_ORIGINAL, 0, 365 * 86400)
    assert first_of([year, day, Taken(Source.GPS, 2 * 86400)]) == Taken(Source.EXIF_ORIGINAL, 86400, 86400)


def test_local_dates_count_before_those_in_utc() -> None:
    utc = (Source.TAKEOUT, Source.GPS, Source.NAME_UTC)
    assert min(utc) > max(source for source in Source if source not in utc)


def test_dates_of_editing_never_count() -> None:
    edited = dated.packet(
        "xmp:ModifyDate=2024-01-02", "xmp:MetadataDate=2024-01-02", "tiff:DateTime=2024-01-02T03:04:05"
    )
    block = dated.tiff({dated.CHANGED: dated.EDITED}, exif={dated.ZONE: "+02:00"})
    moment = png_chunk(b"tIME", bytes((7, 232, 1, 2, 3, 4, 5)))
    written = [
        dated.text(key, "2024-01-02T03:04:05") for key in ("date:modify", "date:create", "modify-date", "Comment")
    ]
    for data in (
        dated.jpeg(block, xmp=edited),
        dated.picture_tiff({dated.CHANGED: dated.EDITED, dated.XMP: edited}),
        dated.png_with(moment, png_chunk(b"eXIf", block), dated.unicode_text("XML:com.adobe.xmp", edited), *written),
        dated.webp(exif=block, xmp=edited),
        dated.psd(dated.resource(1058, block), dated.resource(1060, edited)),
        dated.heic(exif=block, xmp=edited),
        dated.cr3(block, dated.tiff({}), xmp=edited),
    ):
        assert taken_in(data) is None
    assert taken_in_sidecar(edited) is None


# --- XMP that is not as usual


def test_xmp_of_other_pictures_in_the_same_packet_does_not_count() -> None:
    for around in (
        "<xmpMM:Pantry><rdf:Bag><rdf:li>{}</rdf:li></rdf:Bag></xmpMM:Pantry>",
        "<xmpMM:History>{}</xmpMM:History>",
    ):
        description = "<rdf:Description exif:DateTimeOriginal='2024-01-02'/>"
        assert not [*xmp.dates(dated.packet(wrapped=around.format(description)))]


def test_a_packet_counts_as_far_as_it_is_sound() -> None:
    whole = dated.packet("exif:DateTimeOriginal=2019-07-04T10:15:00")
    cut = whole[: whole.index(b"</rdf:RDF>")]
    expected = [Taken(Source.XMP_ORIGINAL, 1562235300)]
    assert [*xmp.dates(cut)] == [*xmp.dates(whole + b"\0" * 100)] == [*xmp.dates(b"\n\0 " + whole)] == expected
    assert [*xmp.dates("\ufeff".encode("utf-16-le") + whole.decode().encode("utf-16-le"))] == expected
    assert [*xmp.dates(b"\xff\xfe")] == []


def test_entities_are_refused() -> None:
    laughs = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 12))
    packet = dated.packet("exif:DateTimeOriginal=&l11;")
    declared = f"<!DOCTYPE x [<!ENTITY l0 '2019'>{laughs}]>".encode() + packet
    start = time.process_time()
    assert [*xmp.dates(declared)] == []
    assert [*xmp.dates(declared.replace(b"&l11;", b"2019-07-04"))] == []
    assert [*xmp.dates(b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'>" + packet.replace(b"&l11;", b"2019"))] == []
    assert time.process_time() - start < 1


# --- the places


def test_every_place_of_a_list_of_items_is_looked_up() -> None:
    """`iloc` of version 1 with offsets into `idat`, as encoders other than libheif write it."""
    block = bytes(4) + dated.in_exif(original=dated.WHEN)
    entry = dated.box(b"infe", b"\2\0\0\0\0\7\0\0Exif\0")
    infe = dated.box(b"iinf", b"\0\0\0\0\0\1", entry)
    extents = b"".join(n.to_bytes(4) for n in (0, 9, 9, len(block) - 9))
    iloc = dated.box(b"iloc", b"\1\0\0\0\x44\0\0\1\0\7\0\1\0\0\0\2" + extents)
    meta = dated.box(b"meta", bytes(4), infe, iloc, dated.box(b"idat", block))
    data = dated.box(b"ftyp", b"heic\0\0\0\0mif1") + meta
    assert shown(taken_in(data)) == dated.FULL
    found = bmff.find(data, b"meta")
    assert found is not None
    assert [*items.metadata(data, found)] == [(b"Exif", block)]


def test_a_decoder_tells_what_is_not_read_here() -> None:
    block, packet = dated.in_exif(original=dated.WHEN), dated.packet("xmp:CreateDate=2019-07-04T10:15:00")
    assert shown(taken_in(b"\xff\x0a", xmp_packet=packet)) == dated.FULL
    assert shown(taken_in(b"FOVb", exif_block=b"Exif\0\0" + block)) == dated.FULL
    own = dated.jpeg(dated.in_exif(digitized="2018:01:01 00:00:00"))
    assert shown(taken_in(own, exif_block=block)) == "2018-01-01T00:00:00"


def test_decoding_tells_the_date() -> None:
    packet = dated.packet("exif:DateTimeOriginal=2019-07-04T10:15:00")
    png_text = dated.png_with(dated.text("Creation Time", dated.WHEN))
    for data in (dated.gif(packet), png_text, dated.webp(xmp=packet), dated.jpeg(xmp=packet), dated.heic(xmp=packet)):
        assert decode(data, HERE).taken_at == 1562235300


def test_the_date_of_editing_of_a_raw_file_does_not_come_with_its_preview() -> None:
    """LibRaw puts EXIF before a preview without one, with the date that it found as DateTime."""
    edited = ((306, "s", 0, dated.EDITED, True),)
    data = dng(linear(64, 48), tags=edited, previews=(encoded(Image.new("RGB", (64, 48)), "JPEG"),))
    assert b"2024:01:02" in data
    assert decode(data, HERE, min_side=16).taken_at is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: dated.jpeg(dated.in_exif(original=dated.LATER)),
        lambda: dated.picture_tiff({}, exif={dated.ORIGINAL: dated.LATER}),
        lambda: dated.png_with(png_chunk(b"eXIf", dated.in_exif(original=dated.LATER))),
    ],
    ids="jpeg tiff png".split(),
)
def test_a_picture_in_memory_tells_the_date_that_it_has_there(make: Callable[[], bytes]) -> None:
    with Image.open(BytesIO(make())) as image:
        assert in_memory(image, HERE).taken_at == 1562325361
    with Image.open(BytesIO(make())) as image:
        image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = dated.WHEN
        assert in_memory(image, HERE).taken_at == 1562235300


# --- hostile content


@settings(deadline=None)
@given(st.integers(0, len(ROWS) - 1), st.integers(0, 2**32))
def test_damage_raises_nothing(row: int, seed: int) -> None:
    generator = random.Random(seed)
    data = bytearray(ROWS[row].make())
    for _ in range(generator.randrange(1, 9)):
        data[generator.randrange(len(data))] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
    cut = bytes(data[: generator.randrange(len(data) + 1)])
    for damaged in (bytes(data), cut):
        taken_in(damaged, exif_block=damaged, xmp_packet=damaged)
        taken_in_sidecar(damaged)


LARGE = zlib.compress(bytes(3_000_000))
BEGINNINGS = (
    b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0\x2b", b"8BPS\0\1", b"FUJIFILM",
    b"\0MRM", b"GIF89a", b"\0\0\0\x18ftypheic", b"\0\0\0\x0cjP  \r\n\x87\n", b"{", b"<", b"",
)  # fmt: skip


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=300))
def test_any_bytes_raise_nothing(start: bytes, rest: bytes) -> None:
    data = start + rest
    taken_in(data, exif_block=rest, xmp_packet=rest)
    taken_in_sidecar(data)
    spelling.read(rest)
    for dates in (exif.dates, iptc.dates, iptc.resource_dates, xmp.dates):
        _: Iterable[Taken] = [*dates(rest)]


def test_so_many_blocks_bytes_and_entries_are_read_and_no_more() -> None:
    packet = dated.packet("xmp:CreateDate=2019-07-04T10:15:00")
    filler = segment(0xFFE1, b"Exif\0\0" + dated.tiff({}))
    data = dated.jpeg(xmp=packet)
    assert shown(taken_in(data[:2] + filler * (content.MAX_BLOCKS - 1) + data[2:])) == dated.FULL
    assert taken_in(data[:2] + filler * content.MAX_BLOCKS + data[2:]) is None

    at = packet.index(b"<rdf:RDF")
    longer = packet[:at] + b" " * (xmp.LONGEST - len(packet)) + packet[at:]
    assert [*xmp.dates(longer)]
    assert not [*xmp.dates(packet[:at] + b" " * len(packet) + longer[at:])]

    entries = dict.fromkeys(range(exif.MAX_ENTRIES - 1), "")
    assert [*exif.dates(dated.tiff({**entries, dated.ORIGINAL: dated.WHEN}))]
    assert not [*exif.dates(dated.tiff({**entries, 36000: "", dated.ORIGINAL: dated.WHEN}))]

    (_, inflated), *_ = png.blocks(dated.png_with(png_chunk(b"zTXt", b"Creation Time\0\0" + LARGE)))
    assert len(inflated) == png.LONGEST_TEXT


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 5_000_000,  # empty segments
        lambda: b"\xff\xd8" + b"\xff" * 20_000_000,  # fill bytes
        lambda: b"GIF89a" + bytes(7) + b"\x21\xfe\0" * 7_000_000,
        lambda: b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\1a" * 10_000_000,
        lambda: b"RIFF\0\0\0\0WEBP" + b"ABCD\0\0\0\0" * 2_500_000,
        lambda: b"8BPS\0\1" + bytes(24) + b"\x7f\0\0\0" + dated.resource(1005, b"") * 1_500_000,
        lambda: dated.jpeg(resources=dated.resource(1028, b"\x1c\2\5\0\0" * 13_000)),
        lambda: dated.png_with(*[png_chunk(b"tEXt", b"")] * 1_000_000),
        lambda: dated.png_with(dated.packed_text("Raw profile type exif", b"0" * 50_000_000)),
        lambda: dated.png_with(
            *[png_chunk(b"zTXt", b"Creation%s Time\0\0" % (b"-" * n) + LARGE) for n in range(60)] * 20
        ),
        lambda: b"\xff\xd8" + segment(0xFFE1, b"Exif\0\0" + dated.tiff(dict.fromkeys(range(4096), ""))) * 1000,
        lambda: b"\xff\xd8" + segment(0xFFE1, png.XMP_PREFIX + b"<Date>" + b"<a>" * 20_000) * 400,
        lambda: dated.picture_tiff({dated.XMP: b"<Date>" + b"<a>" * 7_000_000}),
        lambda: dated.picture_tiff({dated.XMP: b"<Date " + b"a='' " * 4_000_000}),
        lambda: b"II*\0\x08\0\0\0" + b"\xff" * 20_000_000,
        lambda: dated.box(b"ftyp", b"heic") + dated.box(
            b"meta", bytes(4),
            dated.box(b"iinf", b"\0\0\0\0\0\1", dated.box(b"infe", b"\2\0\0\0\0\0\0\0Exif\0")),
            dated.box(b"iloc", b"\1\0\0\0\0\0\xff\xff", b"\0\0\0\0\0\0\xff\xff" * 2_000_000),
        ),
    ],
    ids=(
        "segments fill extensions blocks chunks resources sets texts profile keywords exifs packets depth attributes "
        "entries extents"
    ).split(),
)  # fmt: skip
def test_much_of_anything_takes_no_long_time(make: Callable[[], bytes]) -> None:
    data = make()
    start = time.process_time()
    assert taken_in(data) is None
    assert time.process_time() - start < 4  # a few tenths on an idle machine


@pytest.mark.parametrize("form", ["2019:07:04 " * 20_000, " " * 100_000, "2019" + ":" * 100_000, "a" * 100_000 + " "])
def test_long_text_takes_no_long_time(form: str) -> None:
    start = time.process_time()
    assert spelling.read(form) in (None, spelling.moment(2019))
    assert taken_in_name(form) is None or form.startswith("2019:07:04")
    assert time.process_time() - start < 0.2


# --- names of files


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IMG_20190704_101500.jpg", dated.FULL),
        ("IMG_20190704_101500_1.jpg", dated.FULL),
        ("IMG_20190704_101500123.jpg", dated.FULL),
        ("IMG20190704101500.jpg", dated.FULL),
        ("20190704_101500.jpg", dated.FULL),
        ("20190704_101500(0).jpg", dated.FULL),
        ("20190704_101500_HDR.jpg", dated.FULL),
        ("20190704101500.jpg", dated.FULL),
        ("20190704T101500.jpg", dated.FULL),
        ("MVIMG_20190704_101500.jpg", dated.FULL),
        ("PANO_20190704_101500.vr.jpg", dated.FULL),
        ("VID_20190704_101500.jpg", dated.FULL),
        ("PXL_20190704_101500123.jpg", dated.FULL),
        ("PXL_20190704_101500123.PORTRAIT.jpg", dated.FULL),
        ("WIN_20190704_10_15_00_Pro.jpg", dated.FULL),
        ("C360_2019-07-04-10-15-00-123.jpg", dated.FULL),
        ("Screenshot_2019-07-04-10-15-00.png", dated.FULL),
        ("Screenshot_2019-07-04-10-15-00-123_com.example.app.png", dated.FULL),
        ("Screenshot_20190704-101500_Chrome.jpg", dated.FULL),
        ("Screenshot 2019-07-04 at 10.15.00.png", dated.FULL),
        ("Screen Shot 2019-07-04 at 10.15.00 AM.png", dated.FULL),
        ("Screenshot 2019-07-04 at 9.05.00\u202fPM.png", "2019-07-04T21:05:00"),
        ("Bildschirmfoto 2019-07-04 um 10.15.00.png", dated.FULL),
        ("Screenshot from 2019-07-04 10-15-00.png", dated.FULL),
        ("Screenshot 2019-07-04 101500.png", dated.FULL),
        ("2019-07-04 10.15.00.jpg", dated.FULL),
        ("2019-07-04 10:15:00.jpg", dated.FULL),
        ("2019-07-04_10-15-00.jpg", dated.FULL),
        ("2019-07-04T10.15.00.jpg", dated.FULL),
        ("photo_2019-07-04_10-15-00.jpg", dated.FULL),
        ("signal-2019-07-04-101500.jpg", dated.FULL),
        ("signal-2019-07-04-10-15-00-123.jpg", dated.FULL),
        ("WhatsApp Image 2019-07-04 at 10.15.00 (1).jpeg", dated.FULL),
        ("IMG-20190704-WA0001.jpg", dated.DAY),
        ("VID-20190704-WA0001.jpg", dated.DAY),
        ("WP_20190704_001.jpg", dated.DAY),
        ("IMG_20190704.jpg", dated.DAY),
        ("20190704.jpg", dated.DAY),
        ("20190704", dated.DAY),
        ("20190704-0012.jpg", dated.DAY),
        ("IMG_20190704_991234.jpg", dated.DAY),
        ("2019-07-04.jpg", dated.DAY),
        ("2019-07-04-12.jpg", dated.DAY),
        ("2019_07_04 picnic.jpg", dated.DAY),
        ("picnic 2019.07.04.jpg", dated.DAY),
        ("1899-12-31 grandmother.jpg", "1899-12-31T00:00:00"),
    ],
)  # fmt: skip
def test_the_date_in_a_name(name: str, expected: str) -> None:
    found = taken_in_name(name)
    assert found is not None
    assert shown(found) == expected
    assert found.source is (Source.NAME_UTC if name.startswith("PXL") else Source.NAME)
    assert found.span == (86400 if expected == dated.DAY or "12-31" in expected else 1)


@pytest.mark.parametrize(
    "name",
    [
        "IMG_0001.jpg", "DSC_2019.jpg", "IMG_20191399_101500.jpg", "IMG_20190230_101500.jpg", "IMG_20190004.jpg",
        "12345678.jpg", "IMG_12345678.jpg", "20191399.jpg", "99991231.jpg", "18991231.jpg", "201907041.jpg",
        "201907041015.jpg", "20190704101500123456.jpg", "+49 20190704123.jpg", "0049-1900-10-10.jpg",
        "FB_IMG_1562235300123.jpg", "received_1562235300123.jpg", "1562235300.jpg", "pexels-photo-20190704.jpeg",
        "a20190704b.jpg", "d41d8cd920190704e9800998.jpg", "20190704ab.jpg", "04.07.2019.jpg", "07-04-2019.jpg",
        "2019-07.jpg", "2019.jpg", "2019-7-4.jpg", "2019-13-04.jpg", "2019-00-04.jpg", "2019-07-041.jpg",
        "192.2019.07.04.jpg", "2119-07-04.jpg", "２０１９-07-04.jpg", "", ".jpg",
    ],
)  # fmt: skip
def test_a_name_that_is_no_date(name: str) -> None:
    assert taken_in_name(name) is None


@given(st.text(max_size=60))
def test_any_name_raises_nothing(name: str) -> None:
    taken_in_name(name)
    assert sidecars_of(name, ()) == []


# --- sidecars


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("p.jpg", "p.jpg.xmp"),
        ("p.CR2", "p.xmp"),
        ("P.CR2", "P.XMP"),
        ("p.jpg", "p.jpg.json"),
        ("p.jpg", "p.json"),
        ("p.jpg", "p.jpg.supplemental-metadata.json"),
        ("p.jpg", "p.supplemental-metadata.json"),
        ("p", "p.json"),
        ("p(1).jpg", "p.jpg(1).json"),
        ("p(1).jpg", "p.jpg.supplemental-metadata(1).json"),
        ("p(1).jpg", "p(1).jpg.supplemental-metadata.json"),
        ("p-edited.jpg", "p.jpg.json"),
        ("p-edited.jpg", "p.jpg.supplemental-metadata.json"),
        ("p-edited(1).jpg", "p.jpg(1).json"),
        ("p(1)-edited(1).jpg", "p(1).jpg.supplemental-metadata(1).json"),
        ("p-bearbeitet.jpg", "p.jpg.json"),
        ("p-ha editado.jpg", "p.jpg.json"),
        # 46 characters before ".json", as Takeout cuts them
        ("PXL_20210704_101500123.PORTRAIT.jpg", "PXL_20210704_101500123.PORTRAIT.jpg.supplement.json"),
        ("PXL_20210704_101500123.PORTRAIT(2).jpg", "PXL_20210704_101500123.PORTRAIT.jpg.supplement(2).json"),
        ("Screenshot_2019-07-04-10-15-00_com.a.b.jpg", "Screenshot_2019-07-04-10-15-00_com.a.b.jpg.sup.json"),
        (f"{'a' * 47}.jpg", f"{'a' * 46}.json"),
        (f"{'a' * 42}.jpeg", f"{'a' * 41}.jpeg.json".replace("a.j", "aa.j")[:46] + ".json"),
        (f"{'a' * 43}-edi.jpg", f"{'a' * 43}.jp.json"[:46] + ".json"),
    ],
)
def test_the_sidecar_of_a_picture(name: str, sidecar: str) -> None:
    others = {"q.jpg", "q.jpg.json", "metadata.json", "q.xmp", name}
    assert sidecars_of(name, {sidecar, *others}) == [sidecar]


def test_sidecars_come_in_order() -> None:
    siblings = {"p-edited.jpg.xmp", "p-edited.xmp", "p.jpg.json", "p-edited.jpg.json", "p-edited.jpg"}
    expected = ["p-edited.jpg.xmp", "p-edited.xmp", "p-edited.jpg.json", "p.jpg.json"]
    assert sidecars_of("p-edited.jpg", siblings) == expected


def test_a_picture_without_number_takes_no_sidecar_of_a_copy() -> None:
    assert sidecars_of("p.jpg", {"p.jpg(1).json", "p(1).jpg.json"}) == []
    assert sidecars_of("p(2).jpg", {"p.jpg(1).json"}) == []
    assert sidecars_of("p-edition.jpg", {"p.jpg.json"}) == []
    assert sidecars_of("p-e.jpg", {"p.jpg.json"}) == []  # clipped only where the name is long


def takeout(at: object) -> bytes:
    times = {"photoTakenTime": {"timestamp": at, "formatted": "4 Jul 2019, 08:15:00 UTC"}}
    return json.dumps({"title": "p.jpg", "creationTime": {"timestamp": "1700000000"}, **times}).encode()


@pytest.mark.parametrize("at", ["1562228100", 1562228100])
def test_the_date_of_takeout_is_in_utc(at: object) -> None:
    assert taken_in_sidecar(takeout(at)) == Taken(Source.TAKEOUT, 1562228100)
    assert taken_in_sidecar(b"\xef\xbb\xbf" + takeout(at)) == Taken(Source.TAKEOUT, 1562228100)


@pytest.mark.parametrize(
    "data",
    [
        takeout("0"), takeout("soon"), takeout(None), takeout([1]), takeout("9" * 30), takeout("9" * 5000),
        takeout(float("inf")), takeout("4133980800"), b"{}", b'{"photoTakenTime": 5}', b"{", b"{" * 100_000, b"[]", b"",
        b'{"a":' * 100_000, b'{"creationTime": {"timestamp": "1562228100"}}', b"\xff\xfe{", b'{"photoTakenTime": {}}',
        takeout("1562228100")[:-1] + b" " * 2_000_000 + b"}",
    ],
)  # fmt: skip
def test_json_without_a_date(data: bytes) -> None:
    assert taken_in_sidecar(data) is None


def test_a_sidecar_corrects_the_content_where_it_tells_the_shutter() -> None:
    inside = taken_in(dated.jpeg(dated.in_exif(original=dated.LATER)))
    corrected = taken_in_sidecar(dated.packet("exif:DateTimeOriginal=2019-07-04T10:15:00"))
    developed = taken_in_sidecar(dated.packet("xmp:CreateDate=2024-01-02T03:04:05"))
    beside = taken_in_sidecar(takeout("1700000000"))
    found = [date for date in (inside, corrected, developed, beside, taken_in_name("2001-01-01.jpg")) if date]
    assert len(found) == 5
    assert shown(first_of(found)) == dated.FULL
    assert shown(first_of([date for date in found if date is not corrected])) == "2019-07-05T11:16:01"


def test_it_needs_neither_numpy_nor_pillow() -> None:
    code = (
        "import sys; from bridgetower.pictures.dates import content, names, sidecars;"
        "sys.exit(bool({'PIL', 'numpy', 'torch'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
