import hashlib
import os
import shutil
from pathlib import Path

import pytest

from bridgetower.index.feature_cache import LEFT_FREE, FeatureCache, FeatureFile

OVERHEAD = 16  # the digest of an entry


def of(picture: str) -> str:
    """The name under which the features of a picture are kept."""
    return hashlib.sha256(picture.encode()).hexdigest() + "-fake-1"


def files(cache: FeatureCache) -> list[Path]:
    return sorted(cache.directory.iterdir())


def names(cache: FeatureCache) -> set[str]:
    return {file.path.stem for file in cache.files()}


def age(cache: FeatureCache, picture: str, seconds: int) -> None:
    path = cache.path(of(picture))
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_what_was_put_is_there_for_everyone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", 1000)
    assert cache.get(of("a")) is None
    cache.put(of("a"), b"content")
    assert cache.get(of("a")) == b"content"
    assert FeatureCache(tmp_path / "features", 1000).get(of("a")) == b"content"
    cache.put(of("a"), b"other")
    assert cache.get(of("a")) == b"other"
    assert len(files(cache)) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_what_is_damaged_is_not_there(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path, 1000)
    cache.put(of("a"), b"content")
    (path,) = files(cache)
    whole = path.read_bytes()
    path.write_bytes({"flip": whole[:-1] + b"x", "cut": whole[:-1], "empty": b""}[damage])
    assert cache.get(of("a")) is None
    cache.put(of("a"), b"content")
    assert cache.get(of("a")) == b"content"


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 10 * (100 + OVERHEAD))
    for number in range(10):
        cache.put(of(f"n{number}"), bytes(100))
        age(cache, f"n{number}", 1000 - number)
    assert cache.get(of("n0")) is not None  # used: now the youngest
    cache.put(of("new"), bytes(100))
    assert cache.get(of("n1")) is None
    assert cache.get(of("n0")) is not None
    assert cache.get(of("new")) is not None
    assert sum(path.stat().st_size for path in files(cache)) <= cache.capacity


def test_a_smaller_capacity_shrinks_what_is_there(tmp_path: Path) -> None:
    large = FeatureCache(tmp_path, 10_000)
    for number in range(10):
        large.put(of(f"n{number}"), bytes(100))
    small = FeatureCache(tmp_path, 3 * (100 + OVERHEAD))
    small.put(of("new"), bytes(100))
    assert small.get(of("new")) is not None
    assert sum(path.stat().st_size for path in files(small)) <= small.capacity


def test_what_is_larger_than_all_room_is_not_kept(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", 50)
    cache.put(of("a"), bytes(100))
    assert cache.get(of("a")) is None
    assert not cache.directory.exists()


def test_it_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path / "features", 10**6)
    free = shutil.disk_usage(tmp_path)._replace(free=LEFT_FREE + 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    cache.put(of("small"), b"x" * 900)
    cache.put(of("large"), b"x" * 1100)
    assert (cache.get(of("small")), cache.get(of("large"))) == (b"x" * 900, None)


def test_a_disk_that_says_no_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "features", 1000)
    cache.put(of("a"), b"content")
    assert cache.get(of("a")) is None


def test_ctrl_c_is_passed_on_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    cache = FeatureCache(tmp_path / "features", 1000)
    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.put(of("a"), b"content")
    assert files(cache) == []


def test_it_may_be_deleted_while_it_is_used(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", 1000)
    cache.put(of("a"), b"content")
    for path in files(cache):
        path.unlink()
    cache.directory.rmdir()
    assert cache.get(of("a")) is None
    cache.put(of("b"), b"content")
    assert cache.get(of("b")) == b"content"


# Files that are not ours


def fill_with_letters(folder: Path) -> list[Path]:
    """Old files that a person has, with names that are nearly ours."""
    names = [
        "letter.txt",
        "x.features",
        f"{of('a')}.features.txt",
        f"x{of('a')}.features",
        ".note.partial",
        "b.partial",
    ]
    letters = [folder / name for name in names]
    for letter in letters:
        letter.write_bytes(bytes(1000))
        os.utime(letter, (1, 1))
    return letters


def test_only_files_of_its_own_are_counted_and_removed(tmp_path: Path) -> None:
    letters = fill_with_letters(tmp_path)
    (tmp_path / f"{of('folder')}.features").mkdir()
    (tmp_path / f"{of('link')}.features").symlink_to(letters[0])
    cache = FeatureCache(tmp_path, 3 * (100 + OVERHEAD))
    for number in range(10):
        cache.put(of(f"n{number}"), bytes(100))
    assert cache.get(of("n9")) is not None and cache.get(of("n0")) is None
    assert all(letter.exists() for letter in letters)
    assert os.path.islink(tmp_path / f"{of('link')}.features") and cache.get(of("link")) is None
    assert names(cache) <= {of(f"n{number}") for number in range(10)} and cache.unfinished() == []
    FeatureFile(cache.path(of("link")), b"", "fake-1", kept=False).remove()
    assert os.path.islink(tmp_path / f"{of('link')}.features")


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    there = FeatureCache(tmp_path / "photos", 10_000)
    there.put(of("a"), b"content")
    (tmp_path / "features").symlink_to(tmp_path / "photos")
    before = files(there)
    cache = FeatureCache(tmp_path / "features", 10)
    assert cache.is_link and not there.is_link
    cache.put(of("b"), b"")
    assert cache.get(of("a")) is None
    assert (names(cache), cache.unfinished()) == (set(), [])
    assert files(there) == before


@pytest.mark.skipif(os.name == "nt", reason="needs pipes with names")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{of('a')}.features")
    cache = FeatureCache(tmp_path, 1000)
    assert cache.get(of("a")) is None and names(cache) == set()


def test_a_name_of_another_form_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    for name in ("a", f"../{of('a')}", f"{of('a')}/b"):
        with pytest.raises(ValueError, match="kept under the hash"):
            FeatureCache(tmp_path, 1000).put(name, b"content")
