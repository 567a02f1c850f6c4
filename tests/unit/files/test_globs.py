"""Globs that are compared with whole paths: what they fit, and how fast."""

import os
import unicodedata
from pathlib import Path

import pytest

from bridgetower.files.patterns import LONGEST, fitting, glob


def fits(text: str, path: str) -> bool:
    line = glob(text)
    assert line is not None
    return fitting(line)(os.fsencode(path))


@pytest.mark.parametrize(
    ("text", "paths", "others"),
    [
        ("*.gif", ["/a.gif", "/a/b.gif", "/a/b.gif/c.jpg"], ["/a.gift", "/gif"]),
        ("*/2019/*", ["/a/2019/b.jpg", "/x/a/2019/b/c.jpg"], ["/2019/b.jpg", "/a/2019", "/a/2019x/b.jpg"]),
        ("2019*", ["/2019/b.jpg", "/a/2019 Rome/b/c.jpg"], ["/a/x2019/b.jpg"]),
        ("/a/*", ["/a/b", "/a/b/c"], ["/x/a/b", "/a"]),
        ("/a/**/d", ["/a/d", "/a/b/c/d", "/a/b/d/e"], ["/a/b", "/x/a/d"]),
        ("/a/**", ["/a/b", "/a/b/c"], ["/b/a"]),
        ("b?[xy]/", ["/a/b1x/c", "/b2y/c"], ["/bx/c", "/b1z/c"]),
        (r"a\[1]*", ["/a[1]", "/b/a[1]c/d"], ["/a1"]),
        ("#a*", ["/#ab"], ["/ab"]),
        ("!a*", ["/!ab"], ["/ab", "/b"]),
        ("a/../b*", ["/c/bd"], ["/a"]),
    ],
)
def test_a_glob_fits_whole_names_and_all_below_them(text: str, paths: list[str], others: list[str]) -> None:
    assert [path for path in paths if not fits(text, path)] == []
    assert [path for path in others if fits(text, path)] == []


def test_a_glob_is_anchored_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "a[b]*"
    (here / "inner").mkdir(parents=True)
    monkeypatch.chdir(here / "inner")
    monkeypatch.setenv("HOME", str(here))
    for text, base in (("./*.jpg", here / "inner"), ("../*.jpg", here), ("~/*.jpg", here)):
        assert fits(text, f"{base}/c.jpg")
        assert not fits(text, f"{base}/deeper/c.jpg")
        assert not fits(text, f"{tmp_path}/ab/c.jpg")


def test_letters_are_composed_or_not_and_bytes_need_not_be_text() -> None:
    for asked in ("NFC", "NFD"):
        for stored in ("NFC", "NFD"):
            text, path = (unicodedata.normalize(form, "Zürich/é?") for form in (asked, stored))
            assert fits(text, f"/a/{path[:-1]}1")
    assert fits("a\udcff*", "/b/a\udcff.jpg") and fits("a?.jpg", "/b/a\udcff.jpg")


@pytest.mark.parametrize("text", ["", "plain", "a/b.jpg", "a[", "*[", "a[]", "*\\", "*" + "a" * LONGEST])
def test_what_is_no_pattern_is_none(text: str) -> None:
    assert glob(text) is None


def test_a_deep_path_is_compared_at_every_level() -> None:
    assert fits("*z*/y", "/" + "a/" * 2000 + "z/y/b.jpg")
    assert not fits("*z*/y", "/" + "a/" * 2000 + "z/b.jpg")
