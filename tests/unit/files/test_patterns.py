"""Lines of .gitignore files: they mean what they mean to git, and no line makes a comparison long."""

import os
import random
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from bridgetower.files.patterns import LONGEST, Pattern, composed, parse
from bridgetower.files.walk import scan
from bridgetower.records import WalkedFile

ROOT = Path(__file__).parents[3]
# Not among them: a range that runs backwards, which is refused here, and `**` beside something else.
PARTS = r"? * * [ab] [!a] [^b] [a-c] []a] [!]b] [a\]] [a-] [--b] [a-c-] [\a-\c] [[:alpha:]] [^[:digit:]-]".split()
PARTS += ["[[:]a]", "[[a]", "", "[[:punct:]b]", "[a/b]", "-", "a", " ", "\\ ", "[", "\\"]
NAMES = ["a", "b", "c", "ab", "ba", "abc", "a-", "-", "]", "[", "a]", "*", "a b", "b ", "!a", "#", "a.b", "\\", "1"]


def fits(line: str, path: str, *, is_folder: bool = False) -> bool:
    pattern = parse(line)
    assert isinstance(pattern, Pattern)
    return pattern.fits(path, path.rpartition("/")[2], is_folder=is_folder)


def random_line(choice: random.Random, path: str) -> str:
    """A line that fits `path`, or nearly does."""
    segments = path.split("/")[choice.choice([0, 0, -1, -2]) :]
    for place, segment in enumerate(segments):
        characters = [choice.choice(PARTS) if choice.random() < 0.3 else re.escape(one) for one in segment]
        segments[place] = "**" if choice.random() < 0.2 else re.sub(r"\*+", "*", "".join(characters))
    return choice.choice(["", "", "/", "!"]) + "/".join(segments) + choice.choice(["", "", "*", "/", "/**", "  "])


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to compare with")
def test_a_walk_lists_what_git_lists(tmp_path: Path) -> None:
    choice = random.Random(20)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for number in range(100):
        folder = tmp_path / f"{number}"
        names = ["/".join([*choice.choices(NAMES, k=choice.randint(0, 3)), "a.jpg"]) for _ in range(12)]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        for place in (folder, (folder / names[0]).parent):
            lines = [random_line(choice, choice.choice(names)) for _ in range(choice.randint(1, 4))]
            (place / ".btignore").write_text("".join(line + "\n" for line in lines))
    command = ["git", "-c", "core.ignorecase=false", "ls-files", "-z", "--others", "--exclude-per-directory=.btignore"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout.split(b"\0")
    wanted = {os.path.join(os.fsencode(tmp_path), name) for name in listed if name.endswith(b".jpg")}
    assert 400 < len(wanted) < 800  # of nearly a thousand
    assert {found.path for found in scan([tmp_path]) if isinstance(found, WalkedFile)} == wanted


LONG_LINES = {
    "*a" * 100 + "b": "a" * 255,
    "*?[a-z]" * 80 + "b": "a" * 255,
    "**/a/" * 400 + "b": "a/" * 2000 + "c",
    "**/*a*a*a*a/" * 200 + "b": ("a" * 255 + "/") * 15 + "c",
    "*" * LONGEST: "a/" * 2000 + "c",
}


@pytest.mark.parametrize("line", LONG_LINES, ids=lambda line: line[:12])
def test_no_line_is_tried_in_more_ways_than_one(line: str) -> None:
    """In a process of its own: nothing else ends an expression that backtracks."""
    program = "import sys; from bridgetower.files.patterns import parse; line, path = sys.argv[1:]"
    program += "; print(parse(line).fits(path, path.rpartition('/')[2], is_folder=False))"
    done = subprocess.run(
        [sys.executable, "-c", program, line, LONG_LINES[line]],
        env={**os.environ, "PYTHONPATH": str(ROOT / "core")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ("True\n" if line.startswith("****") else "False\n")


def test_a_wildcard_that_takes_the_first_place_misses_none() -> None:
    assert fits("*ab*b", "aabab") and fits("*a*ab", "aaab") and not fits("*ab*ab", "xab")
    assert fits("x/**/a/*b/**/c", "x/a/a/ab/a/b/c") and not fits("x/**/a/b/**/a/b", "x/a/b")
    assert fits("/**/a/b", "a/a/a/b") and not fits("/**/a/b", "a/a/b/a")


def test_stars_beside_something_else_are_one_star() -> None:
    """As git describes them. It takes them for any number of folders where all that is before them is plain."""
    assert fits("x/a**b", "x/ab") and fits("x/a**b", "x/a-b") and not fits("x/a**b", "x/a/b")


def test_a_set_never_holds_a_slash_and_a_wildcard_is_a_character_not_a_byte() -> None:
    assert not fits("a[/]b", "a/b") and not fits("a[!x]b", "a/b") and not fits("a?b", "a/b")
    assert fits("?.jpg", "ä.jpg") and fits("[ä-ü].jpg", "ö.jpg") and fits("a?b*", "a\nb\n")


@pytest.mark.parametrize("line", ["/Zürich/", "zur/[à-ü]?.jpg", "!Ωé한", "\\ü\\ß"])
def test_a_line_is_the_same_in_every_form(line: str) -> None:
    written = {form: parse(unicodedata.normalize(form, line)) for form in ("NFC", "NFD")}
    assert written["NFC"] == written["NFD"] is not None


def test_texts_are_composed_but_for_runs_that_are_longer_than_names() -> None:
    texts = ["Zu\u0308rich/e\u0301\u0323.jpg", "\udcffu\u0308", "a/\u0308b", "\u1112\u1161\u11ab\u2126", "=\u0338"]
    assert [composed(text) for text in texts] == [unicodedata.normalize("NFC", text) for text in texts]
    marks = "\u0301\u0323" * 128  # normalizing takes a time that grows with the square of their number
    assert composed("ü" + marks + " u\u0308") == "ü" + marks + " ü"


@pytest.mark.parametrize("line", ["", "   ", "# a", "#"])
def test_lines_that_say_nothing(line: str) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    "line", ["!", "! ", "a\\", "[", "[]", "[!]", "[a", "[a-", "[z-a]", "[[:cats:]]", "x" * (LONGEST + 1)]
)
def test_lines_that_are_no_patterns(line: str) -> None:
    with pytest.raises(ValueError, match="nothing"):
        parse(line)
