"""Folders that a NAS, a computer or a program keeps beside photos: left out by default, counted, and taken if named."""

import os
from pathlib import Path

import pytest

from bridgetower.files.ignore import DefaultExclude, PassedOver, Rules
from bridgetower.files.walk import passes_over, scan
from tests.unit.files.test_walk import FOLLOWING, PLAIN, at, found, put, tree


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("2019/@eaDir/b.jpg", "@eaDir"),
        ("#recycle", "recycle bins"),
        ("@Recycle/old", "recycle bins"),
        ("$Recycle.Bin/S-1-5", "recycle bins"),
        ("RECYCLER", "recycle bins"),
        (".Trash-1000/files", "recycle bins"),
        (".Trashes/501", "recycle bins"),
        (".recycle", "recycle bins"),
        (".Recycle.Bin", "recycle bins"),
        (".dtrash/files", "recycle bins"),
        ("data/me/files_trashbin/files", "recycle bins"),
        ("#snapshot/GMT-2024", "snapshots"),
        ("@Recently-Snapshot/daily", "snapshots"),
        (".snapshot/daily", "snapshots"),
        (".snapshots/1", "snapshots"),
        (".zfs/snapshot", "snapshots"),
        ("2019/.@__thumb", "thumbnail folders"),
        ("2019/@__thumb", "thumbnail folders"),
        ("DCIM/.thumbnails", "thumbnail folders"),
        ("data/appdata_ocabc123/preview", "thumbnail folders"),
        ("Me.photoslibrary/resources/derivatives", "inner folders of photo libraries"),
        ("Me.photoslibrary/private", "inner folders of photo libraries"),
        ("iPhoto.photolibrary/Thumbnails", "inner folders of photo libraries"),
        ("old/iPhoto.migratedphotolibrary/Previews", "inner folders of photo libraries"),
        ("Me.aplibrary/Previews", "inner folders of photo libraries"),
        ("Me.migratedaplibrary/Previews", "inner folders of photo libraries"),
        ("Catalog Previews.lrdata/A", "Lightroom previews"),
    ],
)
def test_folders_that_are_left_out_by_default(tmp_path: Path, folder: str, kind: str) -> None:
    seen, left = put(tmp_path / "a.jpg"), put(tmp_path / folder / "x.jpg")
    passed_over = PassedOver()
    assert [at(result) for result in scan([tmp_path], Rules(hidden=True), passed_over)] == [seen]
    [(name, counts)] = passed_over.by_default.items()
    assert (name, counts.pictures, counts.all_counted) == (kind, 1, True)
    assert len(counts.folders) == 1 and left.is_relative_to(Path(os.fsdecode(counts.folders[0])))
    assert passes_over(tmp_path, left, Rules(hidden=True), is_file=True)
    everything = Rules(hidden=True, default_excludes=False)
    assert set(found(tmp_path, rules=everything)) == {seen, left}
    assert not passes_over(tmp_path, left, everything, is_file=True)


@pytest.mark.parametrize(
    "folder",
    [
        "Recycler",
        "recycled",
        "trash",
        "thumbs",
        "thumbnails",
        "resources",
        "snapshot",
        "Masters",
        "Me.photoslibrary/originals/0",
        "Me.photoslibrary/Masters/resources",
        "iPhoto.photolibrary/Originals",
        "eaDir",
    ],
)
def test_folders_that_may_be_a_persons_own_are_walked(tmp_path: Path, folder: str) -> None:
    path = put(tmp_path / folder / "a.jpg")
    passed_over = PassedOver()
    assert [at(result) for result in scan([tmp_path], passed_over=passed_over)] == [path]
    assert passed_over.by_default == {} and not passes_over(tmp_path, path, PLAIN, is_file=True)


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        (".nomedia", "folders with .nomedia or .noimage"),
        (".noimage", "folders with .nomedia or .noimage"),
        (".ppstorage", "thumbnail folders"),
        (".immich", "thumbnail folders"),
    ],
)
def test_folders_with_a_mark_are_left_out_by_default(tmp_path: Path, mark: str, kind: str) -> None:
    seen, left, below = (put(tmp_path / name) for name in ("a.jpg", "thumbs/.a/b.jpg", "thumbs/c/d.jpg"))
    put(tmp_path / "thumbs" / mark)
    put(tmp_path / "thumbs" / "-.jpg")  # sorts before the mark
    passed_over = PassedOver()
    assert [at(result) for result in scan([tmp_path], passed_over=passed_over)] == [seen]
    assert {name: counts.pictures for name, counts in passed_over.by_default.items()} == {kind: 2}
    assert passes_over(tmp_path, tmp_path / "thumbs", PLAIN, is_file=False)
    assert passes_over(tmp_path, below, PLAIN, is_file=True)
    assert {seen, below} < set(found(tmp_path, rules=Rules(default_excludes=False)))
    assert left in found(tmp_path, rules=Rules(hidden=True, default_excludes=False))


def test_inner_folders_of_a_library_that_is_a_path_are_left_out(tmp_path: Path) -> None:
    library = tmp_path / "Me.photoslibrary"
    original, derivative = put(library / "originals" / "0" / "a.jpg"), put(library / "resources" / "a.jpg")
    assert found(library) == [original]
    assert passes_over(library, derivative, PLAIN, is_file=True)
    assert found(library / "resources") == [derivative]


def test_originals_of_immich_are_walked(tmp_path: Path) -> None:
    path = put(tmp_path / "library" / "a.jpg")
    put(tmp_path / "library" / ".immich")
    assert found(tmp_path) == [path]


def test_a_path_is_not_left_out_by_default(tmp_path: Path) -> None:
    a, b, c, d = (put(tmp_path / name) for name in ("a.jpg", "@eaDir/b.jpg", "no/c.jpg", "no/deep/@eaDir/d.jpg"))
    put(tmp_path / "no" / ".nomedia")
    (tmp_path / "link").symlink_to("no")
    passed_over = PassedOver()
    taken = scan([tmp_path, tmp_path / "@eaDir", tmp_path / "link", d], passed_over=passed_over)
    assert {at(result) for result in taken} == {a, b, tmp_path / "link" / "c.jpg", d}
    left_out = passed_over.by_default[DefaultExclude.EADIR].folders
    assert left_out == [os.fsencode(tmp_path / "link" / "deep" / "@eaDir")]
    assert {at(result) for result in scan([tmp_path / "no"])} == {c}
    passed_over = PassedOver()
    assert {at(result) for result in scan([tmp_path, d.parent], passed_over=passed_over)} == {a, d}
    assert {kind: counts.pictures for kind, counts in passed_over.by_default.items()} == {
        "@eaDir": 1,
        "folders with .nomedia or .noimage": 1,
    }


def test_few_entries_of_what_is_left_out_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower.files.ignore._MOST_COUNTED", 10)
    tree(tmp_path, *(f"{folder}/@eaDir/{name}.jpg" for folder in "xyz" for name in "abcd"), "#recycle/a.jpg", "a.jpg")
    passed_over = PassedOver()
    assert len([*scan([tmp_path], passed_over=passed_over)]) == 1
    kinds = passed_over.by_default.items()
    assert {kind: (counts.pictures, counts.all_counted) for kind, counts in kinds} == {
        "@eaDir": (10, False),
        "recycle bins": (1, True),
    }
    assert len(passed_over.by_default[DefaultExclude.EADIR].folders) == 3


def test_links_to_what_is_left_out_by_default_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "a.jpg")
    put(tmp_path / "marked" / "a.jpg")
    put(tmp_path / "marked" / ".nomedia")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "@eaDir").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "marked")
    assert found(tmp_path / "photos", rules=FOLLOWING) == []
