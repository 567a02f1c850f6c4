"""Groups of duplicates: which pictures are in them, and which one is kept."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from benchmarks.pictures import photo
from bridgetower.errors import UnknownPlaceError, UsageError
from bridgetower.library import Library
from bridgetower.models.model import Model
from bridgetower.retrieval.duplicates import groups as module
from bridgetower.retrieval.duplicates.groups import grouped
from bridgetower.retrieval.duplicates.result import Duplicates, Likeness
from tests.clouds import evict
from tests.fakes import FakeEncoder

pytestmark = pytest.mark.usefixtures("decode_here")

Make = Callable[[], Library]
Found = list[tuple[str, str, list[str]]]  # kind, kept, others


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def save(path: Path, seed: int, width: int = 320, height: int = 240, *, date: str = "", quality: int = 92) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if date:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".cr2") else None  # a raw file here is what Pillow reads
    photo(seed).resize((width, height)).save(path, kind, quality=quality, exif=exif)
    return path


@pytest.fixture
def library(folder: Path) -> Iterator[Make]:
    """Make an index of the folder as it is now."""
    with ExitStack() as stack:

        def make() -> Library:
            made = stack.enter_context(Library(folder.parent / "index", Model.from_parts(FakeEncoder())))
            made.index([folder])
            return made

        yield make


def names(found: Duplicates) -> Found:
    return [(group.kind.value, group.keep.path.name, [one.path.name for one in group.others]) for group in found]


def test_equal_files_and_similar_pictures_are_told_apart(folder: Path, library: Make) -> None:
    one = save(folder / "one.jpg", 1)
    shutil.copy(one, folder / "a copy.jpg")
    save(folder / "small.jpg", 1, 200, 150)
    save(folder / "two.jpg", 2)
    found = library().duplicates()
    kept = "one.jpg"  # the older file; then the shorter name
    assert names(found) == [("equal", kept, ["a copy.jpg"]), ("similar", kept, ["small.jpg"])]
    equal, similar = found
    assert (equal.others[0].similarity, equal.others[0].hash) == (1.0, equal.keep.hash)
    assert 0.85 <= similar.others[0].similarity < 1
    assert (similar.others[0].width, similar.others[0].height) == (200, 150)
    assert similar.others[0].size == (folder / "small.jpg").stat().st_size
    assert similar.keep.paths == (one, folder / "a copy.jpg")
    assert found.superfluous() == [folder / "a copy.jpg", folder / "small.jpg"]
    assert (found.pictures, found.skipped, found.gone, found.changed, found.in_cloud) == (3, (), 0, 0, 0)


def test_one_kind_alone(folder: Path, library: Make) -> None:
    shutil.copy(save(folder / "one.jpg", 1), folder / "copy.jpg")
    save(folder / "small.jpg", 1, 200, 150)
    made = library()
    assert [group.kind for group in made.duplicates(similar=False)] == [Likeness.EQUAL]
    assert [group.kind for group in made.duplicates(equal=False)] == [Likeness.SIMILAR]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"name": "b.jpg", "width": 400, "height": 300, "quality": 50}, {"name": "a.jpg"}),  # more pixels, fewer bytes
        ({"name": "b.jpg"}, {"name": "a.jpg", "quality": 60}),  # more bytes
        ({"name": "b.cr2", "width": 200, "height": 150}, {"name": "a.jpg"}),  # raw
    ],
)
def test_of_similar_pictures_the_better_one_is_kept(folder: Path, library: Make, better: dict, worse: dict) -> None:
    for one in (worse, better):
        save(folder / one["name"], 1, **{key: value for key, value in one.items() if key != "name"})
    assert names(library().duplicates()) == [("similar", better["name"], [worse["name"]])]


def test_of_equal_files_the_oldest_then_the_shortest_path_is_kept(folder: Path, library: Make) -> None:
    long, short = save(folder / "a longer name.jpg", 1), folder / "short.jpg"
    shutil.copy(long, short)
    for path in (long, short):
        os.utime(path, (2_000_000, 2_000_000))
    made = library()
    assert names(made.duplicates()) == [("equal", "short.jpg", ["a longer name.jpg"])]
    os.utime(long, (1_000_000, 1_000_000))
    made.index([folder])
    assert names(made.duplicates()) == [("equal", "a longer name.jpg", ["short.jpg"])]


def test_a_date_in_the_picture_goes_before_that_of_the_file(folder: Path, library: Make) -> None:
    new, old = (
        save(folder / f"{name}.jpg", 1, date=date)
        for name, date in (("n", "2024:01:02 03:04:05"), ("old", "2019:01:02 03:04:05"))
    )
    assert new.stat().st_size == old.stat().st_size
    [group] = library().duplicates()
    assert (group.keep.path, [one.path for one in group.others]) == (old, [new])
    assert group.keep.taken_at is not None and group.keep.taken_at.isoformat() == "2019-01-02T03:04:05"


def test_raw_and_jpeg_of_one_shot_belong_together(folder: Path, library: Make) -> None:
    raw, jpeg = save(folder / "IMG_1.cr2", 1), save(folder / "IMG_1.jpg", 1, quality=80)
    made = library()
    assert names(made.duplicates()) == []
    save(folder / "export.jpg", 1, 600, 450)
    made.index([folder])
    [group] = made.duplicates()
    assert (group.keep.path, group.keep.paths) == (raw, (raw, jpeg))
    assert [one.path.name for one in group.others] == ["export.jpg"]
    save(folder / "other" / "IMG_1.cr2", 1, 200, 150)
    save(folder / "other" / "IMG_1.jpg", 1, 200, 150, quality=80)
    made.index([folder])
    [group] = made.duplicates()
    assert made.duplicates().superfluous() == [
        folder / "other" / "IMG_1.cr2",
        folder / "other" / "IMG_1.jpg",
        folder / "export.jpg",
    ]


def test_what_is_gone_or_changed_is_left_out(folder: Path, library: Make) -> None:
    paths = [save(folder / "one.jpg", 1)] + [folder / f"copy{number}.jpg" for number in range(3)]
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    made = library()
    paths[1].unlink()
    save(paths[2], 2)
    found = made.duplicates()
    assert names(found) == [("equal", "one.jpg", ["copy2.jpg"])]
    assert (found.gone, found.changed) == (0, 1)
    paths[0].unlink()
    paths[3].unlink()
    assert names(made.duplicates()) == []
    paths[2].unlink()
    assert made.duplicates().gone == 1


def test_two_names_of_one_file_are_no_duplicates(folder: Path, library: Make) -> None:
    one = save(folder / "one.jpg", 1)
    os.link(one, folder / "hard.jpg")
    (folder / "soft.jpg").symlink_to(one)
    made = library()
    made.index([folder], follow_symlinks=True)
    assert made.summary().files == 3
    assert names(made.duplicates()) == []


def test_what_is_in_the_cloud_is_not_opened(folder: Path, library: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = save(folder / "one.jpg", 1)
    shutil.copy(one, folder / "copy.jpg")
    made = library()
    evict(monkeypatch, one)
    found = made.duplicates()
    assert (names(found), found.in_cloud) == ([], 1)


def test_pictures_that_cannot_be_read_are_named(folder: Path, library: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, small, third = (save(folder / f"{width}.jpg", 1, width, width // 2) for width in (320, 200, 160))
    made = library()
    for path in (one, small):
        path.write_bytes(b"no picture")
    monkeypatch.setattr("bridgetower.records.File.is_unchanged", lambda self, now: True)
    found = made.duplicates()
    assert names(found) == []
    assert [skip.path for skip in found.skipped] == [one, small]
    assert third.exists()


def test_places_limit_what_is_compared(folder: Path, library: Make) -> None:
    one = save(folder / "a" / "one.jpg", 1)
    for copy in ("a/two.jpg", "a copy.jpg"):
        shutil.copy2(one, folder / copy)  # with its time: the shortest path is kept
    made = library()
    assert names(made.duplicates(under=folder / "a")) == [("equal", "one.jpg", ["two.jpg"])]
    assert names(made.duplicates(under="*/*copy.jpg")) == []
    assert names(made.duplicates(not_under=folder / "a" / "two.jpg")) == [("equal", "one.jpg", ["a copy.jpg"])]
    with pytest.raises(UnknownPlaceError, match="nothing in the index lies under"):
        made.duplicates(under=folder / "b")


def test_similarity_bounds_what_is_looked_at(folder: Path, library: Make) -> None:
    save(folder / "one.jpg", 1)
    save(folder / "small.jpg", 1, 200, 150)
    made, looked = library(), list[tuple[int, int]]()
    assert len(made.duplicates(on_look=lambda done, total: looked.append((done, total)))) == 1
    assert looked == [(1, 2), (2, 2)]
    assert len(made.duplicates(similarity=1, on_look=lambda done, total: looked.append((done, total)))) == 0
    assert looked == [(1, 2), (2, 2)]


def test_a_large_index_asks_the_store(folder: Path, library: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder / "one.jpg", 1)
    save(folder / "small.jpg", 1, 200, 150)
    save(folder / "two.jpg", 2)
    made = library()
    few = names(made.duplicates())
    monkeypatch.setattr(module, "EXACT_MOST", 2)
    monkeypatch.setattr(module, "near_pairs", None)
    assert names(made.duplicates()) == few == [("similar", "one.jpg", ["small.jpg"])]


def test_an_index_without_pictures_has_no_duplicates(folder: Path, library: Make) -> None:
    found = library().duplicates()
    assert (len(found), found.pictures, found.superfluous()) == (0, 0, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"similarity": 1.5},
        {"similarity": "0.9"},
        {"equal": False, "similar": False},
        {"equal": 1},
        {"under": []},
        {"on_look": 3},
    ],
)
def test_wrong_arguments_are_refused(folder: Path, library: Make, wrong: dict) -> None:
    with pytest.raises(UsageError):
        library().duplicates(**wrong)


Pairs = list[tuple[int, int, float]]


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        ([], {}),
        ([(0, 1, 0.9)], {0: [(1, 0.9)]}),
        ([(1, 0, 0.9)], {0: [(1, 0.9)]}),
        ([(0, 1, 0.9), (1, 2, 0.9)], {0: [(1, 0.9)]}),  # a chain: 2 is like 1, not like 0
        ([(0, 1, 0.9), (0, 2, 0.95), (1, 2, 0.99)], {0: [(1, 0.9), (2, 0.95)]}),
        ([(0, 2, 0.9), (1, 2, 0.95)], {1: [(2, 0.95)]}),  # the nearest of the kept ones
        ([(0, 2, 0.9), (1, 2, 0.9)], {0: [(2, 0.9)]}),
        ([(0, 1, 0.8), (1, 0, 0.9)], {0: [(1, 0.9)]}),
    ],
)
def test_each_member_of_a_group_is_like_the_kept_one(pairs: Pairs, groups: dict) -> None:
    assert dict(grouped(pairs)) == groups
    assert dict(grouped(reversed(pairs))) == groups


def test_progress_is_told(folder: Path, library: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder / "one.jpg", 1)
    save(folder / "two.jpg", 2)
    told: list[tuple[int, int]] = []
    tell: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    library().duplicates(on_progress=tell)
    assert told == [(2, 2)]
