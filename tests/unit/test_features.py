import os
import shutil
from pathlib import Path

import pytest

from bridgetower.features import LEFT_FREE, FeatureCache

OVERHEAD = 16  # the digest of an entry


def files(cache: FeatureCache) -> list[Path]:
    return sorted(cache.directory.iterdir())


def age(cache: FeatureCache, name: str, seconds: int) -> None:
    path = next(path for path in files(cache) if path.name.startswith(name))
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_what_was_put_is_there_for_everyone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", 1000)
    assert cache.get("a") is None
    cache.put("a", b"content")
    assert cache.get("a") == b"content"
    assert FeatureCache(tmp_path / "features", 1000).get("a") == b"content"
    cache.put("a", b"other")
    assert cache.get("a") == b"other"
    assert len(files(cache)) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_what_is_damaged_is_not_there(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path, 1000)
    cache.put("a", b"content")
    (path,) = files(cache)
    whole = path.read_bytes()
    path.write_bytes({"flip": whole[:-1] + b"x", "cut": whole[:-1], "empty": b""}[damage])
    assert cache.get("a") is None
    cache.put("a", b"content")
    assert cache.get("a") == b"content"


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 10 * (100 + OVERHEAD))
    for number in range(10):
        cache.put(f"n{number}", bytes(100))
        age(cache, f"n{number}", 1000 - number)
    assert cache.get("n0") is not None  # used: now the youngest
    cache.put("new", bytes(100))
    assert cache.get("n1") is None
    assert cache.get("n0") is not None
    assert cache.get("new") is not None
    assert sum(path.stat().st_size for path in files(cache)) <= cache.capacity


def test_a_smaller_capacity_shrinks_what_is_there(tmp_path: Path) -> None:
    large = FeatureCache(tmp_path, 10_000)
    for number in range(10):
        large.put(f"n{number}", bytes(100))
    small = FeatureCache(tmp_path, 3 * (100 + OVERHEAD))
    small.put("new", bytes(100))
    assert small.get("new") is not None
    assert sum(path.stat().st_size for path in files(small)) <= small.capacity


def test_what_is_larger_than_all_room_is_not_kept(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", 50)
    cache.put("a", bytes(100))
    assert cache.get("a") is None
    assert not cache.directory.exists()


def test_it_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path / "features", 10**6)
    free = shutil.disk_usage(tmp_path)._replace(free=LEFT_FREE + 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    cache.put("small", b"x" * 900)
    cache.put("large", b"x" * 1100)
    assert (cache.get("small"), cache.get("large")) == (b"x" * 900, None)


def test_a_disk_that_says_no_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "features", 1000)
    cache.put("a", b"content")
    assert cache.get("a") is None


def test_it_may_be_deleted_while_it_is_used(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", 1000)
    cache.put("a", b"content")
    for path in files(cache):
        path.unlink()
    cache.directory.rmdir()
    assert cache.get("a") is None
    cache.put("b", b"content")
    assert cache.get("b") == b"content"
