"""A picture whose content is in the cloud only is counted, never opened, and stays in the index as it is."""

from pathlib import Path

import pytest

from bridgetower.index.reader import IndexReader
from tests.clouds import DATALESS, RECALLED, evict, leave_stub
from tests.fakes import paint
from tests.unit.retrieval.indexing.conftest import indexed, run, some
from tests.unit.retrieval.indexing.test_dates import XMP

pytestmark = pytest.mark.usefixtures("decode_here")


@pytest.mark.parametrize("flags", [DATALESS, RECALLED], ids=str)
@pytest.mark.parametrize("retry", [False, True])
def test_placeholders_are_counted_and_what_the_index_has_of_them_stays(
    tmp_path: Path, flags: dict[str, int], retry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, b, c = some(photos, "a.png", "sub/b.png", "c.png")
    run([photos], index)
    new, here = paint(photos / "new.png", "blue"), paint(photos / "here.png", "red")
    c.write_bytes(c.read_bytes() + b"changed in the cloud")
    b.chmod(0o600)  # the time of change differs
    evict(monkeypatch, b, c, new, flags=flags)
    report = run([photos], index, retry=retry)
    assert (report.in_cloud, report.files, report.encoded, report.unchanged, report.removed) == (3, 2, 1, 1, 0)
    assert (report.skipped, indexed(index)) == ((), {a, b, c, here})
    monkeypatch.undo()
    report = run([photos], index, retry=retry)
    assert (report.in_cloud, report.files, report.encoded, report.reused, report.unchanged) == (0, 5, 2, 1, 2)
    assert indexed(index) == {a, b, c, here, new}


def test_a_path_that_is_a_placeholder_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [a] = some(tmp_path / "photos", "a.png")
    evict(monkeypatch, a)
    report = run([a], tmp_path / "index")
    assert (report.in_cloud, report.files, report.encoded, report.absent) == (1, 0, 0, ())


def test_a_picture_stays_as_long_as_there_is_a_stub_for_it(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, b, gone = some(photos, "a.png", "sub/b.png", "gone.png")
    run([photos], index)
    gone.unlink()
    stubs = [leave_stub(path) for path in (a, b)]
    leave_stub(photos / "new.png")
    report = run([photos], index)
    assert (report.in_cloud, report.files, report.removed, report.absent) == (3, 0, 1, ())
    assert indexed(index) == {a, b}
    stubs[0].unlink()
    assert (run([photos], index).removed, indexed(index)) == (1, {b})


def test_a_file_whose_content_goes_to_the_cloud_after_the_walk_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, b = some(photos, "a.png", "b.png")
    run([photos], index)
    for path in (a, b):
        path.write_bytes(path.read_bytes() + b"changed")
    evict(monkeypatch, b)
    monkeypatch.setattr("bridgetower.files.walk.is_in_cloud", lambda status: False)  # not yet
    report = run([photos], index)
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(b, "its content is in the cloud only")]
    assert indexed(index) == {a, b}


def test_a_sidecar_in_the_cloud_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, b = some(photos, "a.png", "b.png")
    for path in (a, b):
        path.with_suffix(".xmp").write_text(XMP.format("2001-01-01T00:00:00"))
    evict(monkeypatch, b.with_suffix(".xmp"))
    assert run([photos], index).encoded == 2
    with IndexReader.open(index) as store:
        dates = {file.path: file.taken_at for entry in store.catalog.entries() for file in entry.files}
    assert dates[a] is not None and dates[b] is None
