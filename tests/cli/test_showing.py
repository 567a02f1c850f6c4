"""Everything that is done with hits besides listing them: a page, copies and links, viewers."""

import os
import re
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from bridgetower import PictureError
from bridgetower.records import Hit
from bridgetower.serving import desktop
from bridgetower_cli.showing import page
from bridgetower_cli.showing.question import Question
from tests.cli.conftest import Bt
from tests.fakes import paint

POSIX = pytest.mark.skipif(os.name == "nt", reason="the viewer of the test is a script of POSIX")


class Elements(HTMLParser):
    """The start tags of a page with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# The page


def test_the_page_is_written_beside_the_table(bt: Bt, library: Path) -> None:
    plain = bt("search", "red", "--top", 3, "--json")
    done = bt("search", "red", "--top", 3, "--json", "--html", "red.html", "--precision", "fp32", "--under", library)
    assert (done.exit_code, done.stdout) == (0, plain.stdout)
    size = Path("red.html").stat().st_size
    assert re.search(rf"^wrote red.html: 3 pictures, {size / 1000:.3g} kB$", done.stderr, re.MULTILINE)
    written = Elements(Path("red.html").read_text("utf-8"))
    assert "red – bt\n" in written.text and "3 hits, 4 pictures verified" in written.text
    assert f"--under {library}" in written.text and "fake in fp32" in written.text
    pictures = written.all("img")
    assert len(pictures) == 3 and all(one["alt"] for one in pictures)
    image = Image.open(BytesIO(b64decode(str(pictures[0]["src"]).removeprefix("data:image/jpeg;base64,"))))
    assert image.convert("RGB").getpixel((5, 5))[0] > 250  # type: ignore[index]
    assert written.all("a")[0]["href"] == (library / "red.png").as_uri()
    assert written.all("script") == [] and written.all("link") == []
    [policy] = [one["content"] for one in written.all("meta") if "http-equiv" in one]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_the_page_on_stdout(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--top", 1, "--html", "-")
    assert done.stdout.startswith("<!DOCTYPE html>") and done.stdout.endswith("</html>\n")
    for options in (["--json"], ["--paths"], ["-0"]):
        refused = bt("search", "red", "--html", "-", *options)
        assert refused.exit_code == 2 and "two formats: choose one" in refused.stderr


def test_nothing_is_replaced_by_a_page(bt: Bt, library: Path) -> None:
    Path("old.html").write_text("mine")
    os.symlink("nowhere", "link.html")
    for place, why in (
        ("old.html", "there already"),
        ("link.html", "there already"),
        ("photos", "a folder"),
        ("no/such/page.html", "there is no folder"),
    ):
        refused = bt("search", "red", "--html", place)
        assert (refused.exit_code, refused.stdout) == (2, "") and why in refused.stderr
    assert Path("old.html").read_text() == "mine"


def test_no_page_of_nothing(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--min-match", 1, "--html", "none.html")
    assert done.exit_code == 1 and not Path("none.html").exists()


def test_a_page_that_cannot_be_written(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = bt("search", "red", "--html", "full.html")
    assert done.exit_code == 74 and "full.html: cannot be written: No space left on device; make room" in done.stderr
    assert [name for name in os.listdir() if "full" in name or "partial" in name] == []


QUESTION = Question('<script>alert("1")</script>\u202e', "a<b>", 2, limits={"--under": ["<i>", "x"], "--before": None})


def test_whatever_names_and_questions_hold_is_text(tmp_path: Path) -> None:
    names = [
        "<script>alert(1)<!--.png",
        "\"onerror='x'.png",
        "\u202egnp.exe",
        "שלום.png",
        os.fsdecode(b"\xff&amp;.png"),
    ]
    hits = []
    for name in names:
        paint(tmp_path / "a.png", "red").rename(tmp_path / name)
        hits.append(Hit(tmp_path / name, 0.75, 0.5, True))
    source = "".join(page._pieces(QUESTION, hits))
    written = Elements(source.encode().decode())
    tags = {tag for tag, _ in written.tags}
    assert not tags & {"script", "i", "b>"} and len(written.all("img")) == len(names)
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", source)
    assert {name for _, attributes in written.tags for name in attributes} <= {
        *"alt charset class content datetime href http-equiv lang name src style".split()
    }
    for name, link in zip(names, written.all("a"), strict=True):
        assert link["href"] == (tmp_path / name).as_uri()
    assert "\\u202egnp.exe" in written.text and "\\xff&amp;.png" in written.text and names[0] in written.text
    assert "--under <i> --under x" in written.text and "--before" not in written.text


def test_a_picture_that_is_gone_is_a_card_that_says_so(tmp_path: Path) -> None:
    written = Elements("".join(page._pieces(QUESTION, [Hit(tmp_path / "gone.png", None, 0.5, False)])))
    assert written.all("img") == [] and "no such file" in written.text and "unverified" in written.text


def test_a_thousand_results_stay_under_20_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def largest(paths: list[Path], side: int, *, most_bytes: int) -> list[bytes | PictureError]:
        return [bytes(most_bytes)] * len(paths)  # tests/unit/serving/test_thumbnails.py: there are no more

    monkeypatch.setattr("bridgetower.thumbnails", largest, raising=False)
    hits = [Hit(tmp_path / ("folder/" * 20 + f"{number}.png"), 0.5, 0.5, True) for number in range(1000)]
    assert 10_000_000 < page.write(tmp_path / "large.html", QUESTION, hits) < 20_000_000


def test_the_facts_of_a_picture_are_told_apart(tmp_path: Path) -> None:
    file = paint(tmp_path / "a.png", "red")
    hit = Hit(file, 0.75, 0.5, True, taken_at=datetime(2024, 5, 17, 18, 30), width=64, height=48, paths=(file, file))
    written = Elements("".join(page._pieces(QUESTION, [hit])))
    assert "2024-05-17 18:30, 64 × 48, 2 files" in written.text


# Copies and links


def test_copies(bt: Bt, library: Path) -> None:
    plain = bt("search", "red", "--top", 2)
    planned = bt("search", "red", "--top", 2, "--copy-to", "chosen", "--dry-run")
    assert (planned.exit_code, planned.stdout) == (0, plain.stdout) and not Path("chosen").exists()
    assert "would copy photos/red.png to chosen/red.png\n" in planned.stderr
    assert "would copy 2 pictures to chosen\n" in planned.stderr
    done = bt("search", "red", "--top", 2, "--copy-to", "chosen")
    assert (done.exit_code, done.stdout) == (0, plain.stdout) and "copied 2 pictures to chosen\n" in done.stderr
    assert Path("chosen/red.png").read_bytes() == (library / "red.png").read_bytes()
    again = bt("search", "red", "--top", 2, "--copy-to", "chosen")
    assert "copied 0 pictures to chosen, 2 there already\n" in again.stderr and len(os.listdir("chosen")) == 2


def test_links(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--top", 1, "--link-to", "links", "--paths")
    assert done.exit_code == 0 and "linked 1 picture to links\n" in done.stderr
    assert os.readlink("links/red.png") == str(library / "red.png")


def test_copies_in_an_indexed_folder_are_told(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--top", 1, "--copy-to", library / "best")
    assert (
        "note: photos/best lies in photos, which is indexed: the next `bt index` finds the copies there" in done.stderr
    )
    for options in (["--link-to", library / "links"], ["--copy-to", "elsewhere"]):
        assert "which is indexed" not in bt("search", "red", "--top", 1, *options).stderr


def test_wrong_usage_of_places(bt: Bt, library: Path) -> None:
    Path("file").touch()
    Path("nowhere").symlink_to("gone")
    for options, why in (
        (["--copy-to", "a", "--link-to", "b"], "choose one"),
        (["--dry-run"], "give one of them"),
        (["--copy-to", "file"], "error: file: it is no folder; give one, or a new name"),
        (["--link-to", "nowhere"], "error: nowhere: it is no folder; give one, or a new name"),
        (["--copy-to", "index/mine"], "lies in the folder of the index"),
        (["--html", "index/page.html"], "lies in the folder of the index"),
        (["--copy-to", ""], "names nothing"),
    ):
        refused = bt("search", "red", *options)
        assert (refused.exit_code, refused.stdout) == (2, "") and why in refused.stderr


def test_a_folder_that_takes_nothing(bt: Bt, library: Path) -> None:
    Path("file").touch()
    done = bt("search", "red", "--copy-to", "file/chosen")
    assert done.exit_code == 74 and "red.png" in done.stdout
    assert done.stderr == "error: file/chosen: cannot be written: Not a directory; choose another place\n"


def test_a_picture_that_goes_while_it_is_copied(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bridgetower.transfer import placing

    real = placing._require_file

    def gone(file: Path, *, opens: bool) -> None:
        if file.name == "red.png":
            file.unlink()
        real(file, opens=opens)

    monkeypatch.setattr(placing, "_require_file", gone)
    done = bt("search", "red", "--top", 2, "--copy-to", "chosen")
    assert done.exit_code == 3
    assert "skipped photos/red.png: no such file\n" in done.stderr
    assert "copied 1 picture to chosen, 1 skipped\n" in done.stderr


def test_rerank_does_the_same(bt: Bt, library: Path) -> None:
    names = "photos/blue.png\nphotos/red.png\nphotos/gone.png\n"
    done = bt("rerank", "red", "--top", 1, "--copy-to", "chosen", "--html", "red.html", input=names)
    assert (done.exit_code, done.stdout) == (0, "photos/red.png\n")
    assert os.listdir("chosen") == ["red.png"] and "copied 1 picture to chosen" in done.stderr
    written = Elements(Path("red.html").read_text("utf-8"))
    assert [link["href"] for link in written.all("a")] == [(library / "red.png").as_uri()]
    printed = bt("rerank", "red", "--html", "-", input=names)
    assert printed.stdout.startswith("<!DOCTYPE html>") and len(Elements(printed.stdout).all("img")) == 2


# Viewers


@pytest.fixture
def viewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """A desktop whose viewer writes down what it opens; returns so many lines, once they are there."""
    told = tmp_path / "told"
    program = tmp_path / "programs" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{told}'\ncase $1 in *blue*) exit 3; esac\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(sys, "platform", "linux")

    def wait(lines: int) -> list[str]:
        until = time.monotonic() + 20
        while not told.exists() or len(told.read_text().splitlines()) < lines:
            assert time.monotonic() < until
            time.sleep(0.01)
        found = sorted(told.read_text().splitlines())
        told.unlink()
        return found

    return wait


@POSIX
def test_the_first_hits_are_opened(bt: Bt, library: Path, viewed: Callable[[int], list[str]]) -> None:
    plain = bt("search", "red", "--top", 3)
    done = bt("search", "red", "--top", 3, "--open")
    assert (done.exit_code, done.stdout) == (0, plain.stdout)
    assert viewed(1) == [str(library / "red.png")]
    bt("search", "red", "--top", 2, "--open-first", 3)
    assert len(viewed(2)) == 2


@POSIX
def test_a_viewer_that_fails_is_told(bt: Bt, library: Path, viewed: Callable[[int], list[str]]) -> None:
    done = bt("search", "blue", "--top", 1, "--open")
    assert done.exit_code == 3
    assert "skipped photos/blue.png: the desktop has no viewer for it (exit status 3)\n" in done.stderr


@POSIX
def test_what_is_no_picture_by_its_name_is_not_opened(
    tmp_path: Path, viewed: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(desktop, "start", started.append)
    program = paint(tmp_path / "a.png", "red").rename(tmp_path / "a.desktop")
    reasons = [one.reason for one in desktop.view([program, tmp_path / "gone.png"])]
    assert reasons == ["its name is not that of a picture", "no such file"] and started == []


@POSIX
def test_a_viewer_that_stays_is_not_awaited(
    tmp_path: Path, viewed: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desktop, "_FAILS_WITHIN_S", 0.1)
    stays: list[subprocess.Popen[bytes]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        stays.append(subprocess.Popen(["sleep", "30"]))
        return stays[0]

    monkeypatch.setattr(desktop, "start", start)
    assert desktop.view([paint(tmp_path / "a.png", "red")]) == []
    stays[0].kill()
    stays[0].wait()


def test_without_a_desktop_nothing_is_searched(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    refused = bt("search", "red", "--open")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "there is no desktop here to open pictures on" in refused.stderr and refused.stderr.count("\n") == 1
