"""What is gone or left out is dropped; what may lie on a disk that is not there is kept."""

import errno
import os
from pathlib import Path

import pytest

from bridgetower.encoders.runtime import BATCH_SIZE
from bridgetower.files.ignore import Rules
from bridgetower.index.reader import IndexReader
from bridgetower.records import LeftOut
from tests.fakes import paint
from tests.unit.retrieval.indexing.conftest import indexed, run, some

pytestmark = pytest.mark.usefixtures("decode_here")


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
    with IndexReader.open(tmp_path / "index") as store:
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
    run(away, tmp_path / "index")
    run([tmp_path / "nest"], tmp_path / "index")
    (tmp_path / "nest" / "drive").rename(tmp_path / "unmounted")
    report = run([tmp_path / "nest"], tmp_path / "index")
    assert (report.removed, report.absent) == (0, (tmp_path / "nest" / "drive",))
    assert indexed(tmp_path / "index") == {here, *away}


def test_a_root_in_a_root_is_brought_up_to_date_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    a, b, c, d = some(folder, "a.png", "b.png", "sub/c.png", "sub/d.png")
    run([b], tmp_path / "index")
    run([folder, folder / "sub"], tmp_path / "index")
    for path in (b, d):
        path.unlink()
    report = run([folder], tmp_path / "index")
    assert (report.removed, report.absent) == (2, ())
    assert indexed(tmp_path / "index") == {a, c}
    with IndexReader.open(tmp_path / "index") as store:
        assert [root.path for root in store.summary().roots] == [folder, folder / "sub"]  # a file that is gone is none


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


def test_pictures_that_are_left_out_by_default_now_are_dropped_once_and_counted(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    kept, *others = some(photos, "a.png", "@eaDir/b.png", "x/@eaDir/c.png", "x/no/d.png", "#recycle/e.png", "gone.png")
    (photos / "x" / "no" / ".nomedia").touch()
    (photos / "#recycle" / "bad.png").write_text("no picture")
    everything = Rules(default_excludes=False)
    report = run([photos], index, rules=everything)
    assert (report.files, report.encoded, report.left_out) == (7, 6, ())
    others.pop().unlink()
    report = run([photos], index)
    assert (report.files, report.unchanged, report.removed) == (1, 1, 6)
    assert report.left_out == (
        LeftOut("@eaDir", 2, True, 2, photos / "@eaDir"),
        LeftOut("recycle bins", 2, True, 1, photos / "#recycle"),
        LeftOut("folders with .nomedia or .noimage", 1, True, 1, photos / "x" / "no"),
    )
    assert indexed(index) == {kept}
    with IndexReader.open(index) as store:
        assert store.catalog.count_orphans() == 5  # kept until they are pruned
    again = run([photos], index)
    assert [(one.pictures, one.dropped, one.example) for one in again.left_out] == [(2, 0, None)] * 2 + [(1, 0, None)]
    assert again.removed == 0
    report = run([photos], index, rules=everything)
    assert (report.encoded, report.reused) == (0, 4)


def test_a_path_in_what_is_left_out_by_default_stays(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, *others = some(photos, "a.png", "@eaDir/b.png", "@eaDir/c.png", "no/d.png", "no/deep/e.png")
    (photos / "no" / ".nomedia").touch()
    run([photos, photos / "@eaDir" / "b.png", photos / "no"], index)
    report = run([photos], index)
    assert (report.removed, [one.dropped for one in report.left_out]) == (0, [0, 0])
    assert indexed(index) == {a, others[0], *others[2:]}
