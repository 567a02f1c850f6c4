"""The walk over real folders: order, what is passed over, links and loops, and what stands in the way."""

import inspect
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from bridgetower.errors import InputError, UsageError
from bridgetower.files.ignore import PassedOver, Rules
from bridgetower.files.walk import EXTENSIONS, EXTRA_EXTENSIONS, OWN_EXTENSIONS, PILLOW_EXTENSIONS, passes_over, scan
from bridgetower.pictures.decode import UNREADABLE_FORMATS
from bridgetower.records import Skipped, WalkedFile

PLAIN = Rules()
FOLLOWING = Rules(follow_symlinks=True)


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def at(result: WalkedFile | Skipped) -> Path:
    return result.path if isinstance(result, Skipped) else Path(os.fsdecode(result.path))


def found(*paths: Path, rules: Rules = PLAIN) -> list[Path]:
    """The paths of a scan in which nothing is skipped."""
    results = list(scan(paths, rules))
    assert all(isinstance(result, WalkedFile) for result in results), results
    return [at(result) for result in results]


def skipped(*paths: Path, rules: Rules = PLAIN) -> dict[Path, str]:
    return {result.path: result.reason for result in scan(paths, rules) if isinstance(result, Skipped)}


def test_every_picture_at_any_depth_in_order(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.png", "a/b/c.gif", "a.webp", "B.TIFF", "a-b/x.JPeG", "a.b/y.jpg", "10.jpg", "9.jpg"]
    paths = [put(tmp_path / name) for name in names]
    assert found(tmp_path) == sorted(paths)


def test_a_photo_says_its_size_and_time(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg", b"12345")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    status = path.stat()
    assert list(scan([tmp_path])) == [
        WalkedFile(os.fsencode(path), 5, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
    ]


def test_hidden_files_and_folders_and_other_files_are_passed_over(tmp_path: Path) -> None:
    seen = put(tmp_path / "a.jpg")
    for name in (".a.jpg", "._a.jpg", ".cache/b.jpg", "notes.txt", "jpg", "film.mp4", "a.jpg.txt", "no extension"):
        put(tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert found(tmp_path) == [seen]


def test_what_is_named_itself_is_taken_as_it_is(tmp_path: Path) -> None:
    odd = put(tmp_path / ".hidden" / "picture-without-extension")
    inside = put(tmp_path / ".hidden" / "a.jpg")
    assert found(odd) == [odd]
    assert found(tmp_path / ".hidden") == [inside]


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "photos" / "a.jpg")
    monkeypatch.chdir(tmp_path / "photos")
    for named in (Path("."), Path("a.jpg"), Path("../photos"), Path("./a.jpg")):
        assert found(named) == [path]


def test_overlapping_paths_list_each_file_once(tmp_path: Path) -> None:
    a, b, c = (put(tmp_path / name) for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg"))
    sub = tmp_path / "sub"
    for paths in ([tmp_path, sub], [sub, tmp_path], [sub / "deep", tmp_path, tmp_path], [b, tmp_path, b, sub, c]):
        assert sorted(found(*paths)) == [a, b, c]


def test_overlap_through_a_link_lists_each_file_once(tmp_path: Path) -> None:
    path = put(tmp_path / "real" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert found(tmp_path / "real", path, tmp_path / "link" / "a.jpg") == [tmp_path / "link" / "a.jpg"]
    assert len(found(tmp_path / "real", tmp_path / "link")) == 1


def test_the_order_does_not_hang_on_the_order_of_the_arguments(tmp_path: Path) -> None:
    folders = [put(tmp_path / name / "a.jpg").parent for name in ("c", "a", "b")]
    assert found(*folders) == found(*reversed(folders)) == sorted(folder / "a.jpg" for folder in folders)


def test_nothing_named_nothing_found() -> None:
    assert found() == []


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline.jpg",
        b"\xff\xfe.jpg",
        "日本 🐱.jpg".encode(),
        b"back\\slash.jpg",
        b" .jpg",
        b"%s$HOME.jpg",
        b"-r.jpg",
    ],
)
def test_any_name_survives(name: bytes, tmp_path: Path) -> None:
    raw = os.path.join(os.fsencode(tmp_path), name)
    with open(raw, "wb") as file:
        file.write(b"x")
    [path] = found(tmp_path)
    assert os.fsencode(path) == raw
    assert path.read_bytes() == b"x"


def test_folders_may_be_nested_deeper_than_calls(tmp_path: Path) -> None:
    path = put(tmp_path.joinpath(*["d"] * 120, "a.jpg"))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 80)
    try:
        results = found(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert results == [path]


# --- links


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    target = put(tmp_path / "elsewhere" / "a.jpg", b"123")
    link = tmp_path / "photos" / "b.jpg"
    link.parent.mkdir()
    link.symlink_to(target)
    [file] = scan([tmp_path / "photos"], FOLLOWING)
    assert isinstance(file, WalkedFile)
    assert (at(file), file.size) == (link, 3)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "a.jpg")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one").symlink_to(tmp_path / "elsewhere")
    (photos / "two").symlink_to(tmp_path / "elsewhere")
    assert found(photos, rules=FOLLOWING) == [photos / "one" / "a.jpg"]


def test_a_picture_appears_under_its_real_path_where_it_has_one(tmp_path: Path) -> None:
    """A link that sorts first changes nothing for the pictures that it leads to."""
    real = put(tmp_path / "z" / "a.jpg")
    (tmp_path / "a-link").symlink_to(tmp_path / "z")
    assert found(tmp_path, rules=FOLLOWING) == [real]


def test_links_behind_links(tmp_path: Path) -> None:
    put(tmp_path / "one" / "a.jpg")
    put(tmp_path / "two" / "b.jpg")
    (tmp_path / "one" / "next").symlink_to(tmp_path / "two")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "link").symlink_to(tmp_path / "one")
    assert found(photos, rules=FOLLOWING) == [photos / "link" / "a.jpg", photos / "link" / "next" / "b.jpg"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../sub"])
def test_loops_of_folders_end(target: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    path = put(photos / "sub" / "a.jpg")
    (photos / "sub" / "loop").symlink_to(target)
    assert path in found(photos, rules=FOLLOWING)
    assert len(found(photos, rules=FOLLOWING)) == 1


def test_a_link_to_itself_is_named_and_survived(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    path = put(tmp_path / "z.jpg")
    loop, file = scan([tmp_path], FOLLOWING)
    assert isinstance(loop, Skipped)
    assert "symbolic links" in loop.reason
    assert at(file) == path


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    (tmp_path / "folder").symlink_to("gone")  # nothing says that it was a picture
    assert skipped(tmp_path, rules=FOLLOWING) == {tmp_path / "a.jpg": "a link to nothing"}


def test_links_are_passed_over_and_counted_unless_they_are_named(tmp_path: Path) -> None:
    real = put(tmp_path / "photos" / "a.jpg")
    elsewhere = put(tmp_path / "elsewhere" / "b.jpg")
    photos = tmp_path / "photos"
    (photos / "folder").symlink_to(tmp_path / "elsewhere")
    (photos / "file.jpg").symlink_to(elsewhere)
    (photos / "broken.jpg").symlink_to("gone")
    (photos / "loop").symlink_to("loop")  # nothing says that it is a picture or a folder
    (photos / "notes.txt").symlink_to(elsewhere)
    passed_over = PassedOver()
    assert [at(result) for result in scan([photos], passed_over=passed_over)] == [real]
    assert passed_over.links == 3
    assert found(photos / "file.jpg") == [photos / "file.jpg"]
    assert found(photos / "folder") == [photos / "folder" / "b.jpg"]
    assert found(photos / "folder", photos) == [real, photos / "folder" / "b.jpg"]


# --- patterns, each decided as git 2.39 decides it


def tree(folder: Path, *names: str) -> None:
    for name in names:
        put(folder / name)


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("b.jpg", "a.jpg sub/a.jpg sub/deep/c.jpg"),
        ("/b.jpg", "a.jpg sub/a.jpg sub/b.jpg sub/deep/c.jpg"),
        ("sub", "a.jpg b.jpg"),
        ("sub/", "a.jpg b.jpg"),
        ("a.jpg/", "a.jpg b.jpg sub/a.jpg sub/b.jpg sub/deep/c.jpg"),
        ("*.jpg", ""),
        ("*.JPG", "a.jpg b.jpg sub/a.jpg sub/b.jpg sub/deep/c.jpg"),
        ("?.jpg\n!/[a-b].jpg", "a.jpg b.jpg"),
        ("deep/", "a.jpg b.jpg sub/a.jpg sub/b.jpg"),
        ("/deep", "a.jpg b.jpg sub/a.jpg sub/b.jpg sub/deep/c.jpg"),
        ("sub/deep", "a.jpg b.jpg sub/a.jpg sub/b.jpg"),
        ("**/deep/*.jpg", "a.jpg b.jpg sub/a.jpg sub/b.jpg"),
        ("sub/**", "a.jpg b.jpg"),
        ("sub/**\n!sub/b.jpg", "a.jpg b.jpg sub/b.jpg"),
        ("sub/*\n!sub/deep/", "a.jpg b.jpg sub/deep/c.jpg"),
        ("sub/\n!sub/b.jpg", "a.jpg b.jpg"),  # what is in a folder that is left out cannot be taken back
        ("*\n!sub/", ""),
        ("*\n!*/", ""),
        ("*\n!*/\n!c.jpg", "sub/deep/c.jpg"),
        ("*.jpg\n!sub", ""),
        ("*/", "a.jpg b.jpg"),
        ("!a.jpg\na.jpg", "b.jpg sub/b.jpg sub/deep/c.jpg"),
        ("# a.jpg\n\nb.jpg   \r\n", "a.jpg sub/a.jpg sub/deep/c.jpg"),
        ("\ufeffb.jpg", "a.jpg sub/a.jpg sub/deep/c.jpg"),
    ],
)
def test_patterns_mean_what_they_mean_to_git(tmp_path: Path, lines: str, left: str) -> None:
    tree(tmp_path, "a.jpg", "b.jpg", "sub/a.jpg", "sub/b.jpg", "sub/deep/c.jpg")
    wanted = [tmp_path / name for name in left.split()]
    (tmp_path / ".btignore").write_bytes(lines.encode())
    assert found(tmp_path) == wanted
    (tmp_path / ".btignore").unlink()
    if not lines.startswith("\ufeff"):
        assert found(tmp_path, rules=Rules(exclude=tuple(filter(str.strip, lines.splitlines())))) == wanted


def test_a_deeper_file_goes_before_one_above_it_and_options_before_all(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "a.png", "sub/a.jpg", "sub/a.png", "sub/deep/a.jpg")
    (tmp_path / ".btignore").write_text("*.jpg\n")
    (tmp_path / "sub" / ".btignore").write_text("!*.jpg\n/deep/\n")
    names = [path.relative_to(tmp_path).as_posix() for path in found(tmp_path)]
    assert names == ["a.png", "sub/a.jpg", "sub/a.png"]
    both = Rules(exclude=("sub/a.*", "!/a.jpg"))
    assert [path.name for path in found(tmp_path, rules=both)] == ["a.jpg", "a.png"]
    assert found(tmp_path / "sub" / "deep") == [tmp_path / "sub" / "deep" / "a.jpg"]  # named itself


def test_what_is_named_itself_is_not_excluded(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "b.jpg", "sub/c.jpg")
    (tmp_path / ".btignore").write_text("a.jpg\nsub\n")
    wanted = [tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "sub" / "c.jpg"]
    assert sorted(found(tmp_path, tmp_path / "a.jpg", tmp_path / "sub")) == wanted


def test_a_folder_that_is_excluded_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.jpg", "cache/b.jpg")
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail("entered") if b"cache" in path else real(path))
    passed_over = PassedOver()
    assert len([*scan([tmp_path], Rules(exclude=("cache/",)), passed_over)]) == 1


def test_names_that_are_not_text_can_be_excluded(tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"\xff.jpg")
    put(Path(os.fsdecode(odd)))
    (tmp_path / ".btignore").write_bytes(b"\xff.jpg")
    assert found(tmp_path) == []


@pytest.mark.parametrize(("of_names", "of_lines"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("line", ["Zürich/", "Zürich/?.jpg", "/Zürich/é.jpg", "[ä-é].jpg"])
def test_composed_and_decomposed_names_are_one(
    tmp_path: Path, of_names: Literal["NFC", "NFD"], of_lines: Literal["NFC", "NFD"], line: str
) -> None:
    folder = tmp_path / unicodedata.normalize(of_names, "Ünterwegs")
    put(folder / unicodedata.normalize(of_names, "Zürich/é.jpg"))
    other = put(folder / "e.jpg")
    line = unicodedata.normalize(of_lines, line)
    assert found(folder, rules=Rules(exclude=(line,))) == [other]
    (folder / ".btignore").write_text(line, "utf-8")
    assert found(folder) == [other]


@pytest.mark.parametrize("wrong", ["", " ", "!", "a\\", "[a", "[z-a]"])
def test_a_pattern_that_is_none_is_wrong_usage(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        scan([tmp_path], Rules(exclude=("*.png", wrong)))  # at the call


def test_a_line_that_is_no_pattern_is_named_and_the_others_hold(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / ".btignore").write_text("b.jpg\n[x\n")
    wrong, file = scan([tmp_path])
    assert isinstance(wrong, Skipped) and wrong.path == tmp_path / ".btignore" and "'[x'" in wrong.reason
    assert at(file) == tmp_path / "a.jpg"


def test_several_lines_that_are_no_patterns_are_counted(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / ".btignore").write_text("b.jpg\n[x\n" + "*" * 5000)
    wrong, _ = scan([tmp_path])
    assert isinstance(wrong, Skipped)
    assert wrong.reason.startswith("2 lines, as '[x', are no pattern of .gitignore of at most 4096 characters")


def test_a_line_that_is_too_long_is_named_in_short(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    (tmp_path / ".btignore").write_text("a" * 100_000)
    wrong, file = scan([tmp_path])
    assert isinstance(wrong, Skipped) and "is no pattern of .gitignore" in wrong.reason and len(wrong.reason) < 150
    assert at(file) == tmp_path / "a.jpg"
    with pytest.raises(UsageError, match=r"^'a+\.\.\.a+' is no pattern"):
        scan([tmp_path], Rules(exclude=("a" * 100_000,)))


def test_a_btignore_that_is_too_large_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg")
    ignore = put(tmp_path / ".btignore", b"*.jpg\n" + b"#" * (10**6 - 6))
    assert found(tmp_path) == []
    ignore.write_bytes(ignore.read_bytes() + b"#")
    wrong, file = scan([tmp_path])
    assert wrong == Skipped(ignore, "cannot be read, so what it excludes is not excluded: larger than 1 MB")
    assert at(file) == path


def test_a_btignore_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    (tmp_path / ".btignore").mkdir()
    wrong, file = scan([tmp_path])
    assert isinstance(wrong, Skipped) and wrong.path == tmp_path / ".btignore" and "cannot be read" in wrong.reason
    assert at(file) == tmp_path / "a.jpg"


def test_hidden_names_are_walked_if_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, ".a.jpg", "._a.jpg", ".album/b.jpg", ".album/._b.jpg", "c.jpg")
    (tmp_path / ".btignore").write_text("c.jpg\n")
    passed_over = PassedOver()
    results = [at(result) for result in scan([tmp_path], Rules(hidden=True), passed_over)]
    assert results == [tmp_path / ".a.jpg", tmp_path / ".album" / "b.jpg"]
    assert not passed_over.extensions


def test_what_a_walk_passes_over(tmp_path: Path) -> None:
    tree(tmp_path, "sub/a.jpg", "sub/odd.dat", "sub/.hidden/b.jpg", "sub/no/c.jpg")
    (tmp_path / "sub" / ".btignore").write_text("/no/\n")
    (tmp_path / "link").symlink_to("sub")

    def passed(name: str, rules: Rules = PLAIN, *, is_file: bool = False) -> bool:
        return passes_over(tmp_path, tmp_path / name, rules, is_file=is_file)

    assert not passed("sub") and not passed("sub/a.jpg", is_file=True)
    assert passed("sub/odd.dat", is_file=True)
    assert passed("sub/.hidden") and not passed("sub/.hidden", Rules(hidden=True))
    assert passed("sub/no") and passed("sub/no/c.jpg", is_file=True)
    assert passed("sub", Rules(exclude=("sub",)))
    assert passed("link") and not passed("link", FOLLOWING)


# --- what stands in the way


def test_a_path_that_does_not_exist_stops_before_anything_is_walked(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    (tmp_path / "broken").symlink_to("nothing")
    for wrong in ("gone", "gone.jpg", "broken", "nul\0", "a.jpg/inside"):
        with pytest.raises(InputError, match=wrong) as caught:
            scan([tmp_path, tmp_path / wrong])  # at the call, not at the first result
        assert caught.value.exit_code == 6


def test_a_folder_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "locked" / "a.jpg")
    before, after = put(tmp_path / "a.jpg"), put(tmp_path / "z.jpg")
    scandir = os.scandir

    def denied(path: bytes) -> object:
        if path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    results = list(scan([tmp_path]))
    assert [at(result) for result in results] == [before, tmp_path / "locked", after]
    assert results[1] == Skipped(tmp_path / "locked", "the folder cannot be read: Permission denied")


def test_a_file_that_vanishes_during_the_walk(tmp_path: Path) -> None:
    first, second, third = (put(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg"))
    results = []
    for result in scan([tmp_path]):
        results.append(result)
        second.unlink(missing_ok=True)
    assert [at(result) for result in results] == [first, second, third]
    assert results[1] == Skipped(second, "vanished during the walk")


def test_a_folder_that_vanishes_during_the_walk(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    folder = tmp_path / "b"
    folder.mkdir()
    results = []
    for result in scan([tmp_path]):
        results.append(result)
        if folder.exists():
            folder.rmdir()
    assert results[1] == Skipped(folder, "the folder cannot be read: vanished during the walk")


def test_a_btignore_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / ".btignore").symlink_to("nothing")
    assert skipped(tmp_path) == {tmp_path / ".btignore": "a link to nothing, so what it excludes is not excluded"}


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    assert skipped(tmp_path) == {tmp_path / "pipe.jpg": "not a file but a pipe, socket or device"}
    with pytest.raises(InputError, match=r"pipe: not a file but a pipe, socket or device; name pictures or folders"):
        scan([tmp_path / "pipe"])


def test_a_folder_with_the_name_of_a_picture(tmp_path: Path) -> None:
    path = put(tmp_path / "album.jpg" / "a.jpg")
    assert found(tmp_path) == [path]


# --- extensions


def test_what_is_passed_over_for_its_extension_is_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.HEIC", "sub/b.PDF", "c.pdf", "notes.txt", "no extension", ".hidden.txt", ".git/x.txt"):
        put(tmp_path / name)
    passed_over = PassedOver()
    assert len(list(scan([tmp_path, tmp_path / "notes.txt"], passed_over=passed_over))) == 3
    assert passed_over.extensions == {".pdf": 2, "": 1}  # what is named itself is not passed over


def test_the_commands_page_lists_the_extensions() -> None:
    page = (Path(__file__).parents[3] / "docs" / "commands.md").read_text("utf-8")
    by_pillow, by_extras = re.findall(r"^Extensions[^:]*:((?:\s`\.\w+`)+)", page, flags=re.MULTILINE)
    assert set(re.findall(r"\.\w+", by_pillow)) == PILLOW_EXTENSIONS | OWN_EXTENSIONS
    assert set(re.findall(r"\.\w+", by_extras)) == EXTRA_EXTENSIONS
    assert PILLOW_EXTENSIONS | EXTRA_EXTENSIONS | OWN_EXTENSIONS == EXTENSIONS
    assert len(PILLOW_EXTENSIONS) + len(EXTRA_EXTENSIONS) + len(OWN_EXTENSIONS) == len(EXTENSIONS)


def test_the_extensions_are_those_of_the_formats_that_pillow_reads() -> None:
    readable = (set(Image.registered_extensions().values()) & (set(Image.OPEN) | {"MPO"})) - UNREADABLE_FORMATS
    assert {ext for ext, kind in Image.registered_extensions().items() if kind in readable} == PILLOW_EXTENSIONS
