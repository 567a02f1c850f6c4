"""Pictures on terminals of several kinds, each of which a pseudo-terminal plays; and where none are shown."""

import base64
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from bridgetower.errors import MissingExtraError
from bridgetower.records import Hit
from bridgetower_cli.showing import preview
from bridgetower_cli.terminal import graphics
from bridgetower_cli.terminal.graphics import Graphics, Protocol
from tests.cli.conftest import Bt
from tests.fakes import paint

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

import fcntl
import struct
import termios

ROOT = Path(__file__).parents[2]
HAS_LIBRARY = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import textual_image"], capture_output=True, check=False).returncode != 0,
    reason="needs textual-image, of the extra preview",
)
QUESTIONS = b"\x1b[c"  # the last of them
PLAIN, SIXEL = b"\x1b[?62;22c", b"\x1b[?62;4;22c"
KITTY, CELL = b"\x1b_Gi=31;OK\x1b\\", b"\x1b[6;16;8t"
WIDE, HIGH = 90, 40

# Shows a red picture, one that is gone, and a green one twice as high as wide.
PROGRAM = """
from pathlib import Path
from bridgetower.records import Hit
from bridgetower_cli.showing.following import show_instead
from bridgetower_cli.showing.options import Showing
hits = [Hit(Path(name), match, 0.25, True) for name, match in (("red.png", .9), ("gone.png", .5), ("green.png", .1))]
if not show_instead(hits, Showing(preview=True), None):
    print("the list")
"""

Terminal = Callable[..., tuple[bytes, str]]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Run PROGRAM on a terminal; return what it wrote there, and what it said on stderr."""
    paint(tmp_path / "red.png", "red", (400, 200))
    paint(tmp_path / "green.png", "green", (100, 200))

    def run(answers: bytes = b"", *, size: tuple[int, int] = (HIGH, WIDE), **variables: str) -> tuple[bytes, str]:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), **variables}
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        written, until, answered = b"", time.monotonic() + 60, False
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    written += os.read(ours, 65536)
                except OSError:  # closed by its last process
                    break
            elif process.poll() is not None:
                break
            if not answered and QUESTIONS in written:
                answered = True
                os.write(ours, answers)
        _, said = process.communicate(timeout=30)
        os.close(ours)
        assert process.returncode == 0, said.decode()
        return written, said.decode()

    return run


def test_a_pipe_gets_the_results_and_no_picture(bt: Bt, library: Path) -> None:
    plain = bt("search", "red", "--top", 2)
    shown = bt("search", "red", "--top", 2, "--preview")
    assert (shown.exit_code, shown.stdout) == (0, plain.stdout)
    assert "pictures are shown on a terminal only" in shown.stderr


def test_one_format_at_a_time(bt: Bt, library: Path) -> None:
    for options in (["--json"], ["--paths"], ["--html", "-"]):
        refused = bt("search", "red", "--preview", *options)
        assert refused.exit_code == 2 and "two formats: choose one" in refused.stderr


@pytest.mark.parametrize(
    ("variables", "size", "why"),
    [
        ({"TERM": "dumb"}, (HIGH, WIDE), "TERM=dumb"),
        ({"NO_COLOR": "1"}, (HIGH, WIDE), "NO_COLOR"),
        ({}, (0, 0), "0 columns"),
        ({}, (HIGH, 0), "0 columns"),
    ],
)
def test_a_terminal_that_can_show_none_is_not_asked(
    terminal: Terminal, variables: dict[str, str], size: tuple[int, int], why: str
) -> None:
    written, said = terminal(size=size, **variables)
    assert written == b"the list\r\n" and said.startswith("note: ") and why in said


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(preview, "_size", lambda: (WIDE, HIGH))
    monkeypatch.setattr(preview, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(MissingExtraError, match=r"needs the extra preview: .*pip install .*\[preview\]"):
        preview.obstacle()


def beside(written: bytes) -> list[str]:
    """The lines of text, each after the jump over its picture."""
    return re.findall(r"\x1b\[\d+C([^\r]*)\r", written.decode())


@HAS_LIBRARY
def test_half_cells_beside_their_lines(terminal: Terminal) -> None:
    written, said = terminal(PLAIN, COLORTERM="truecolor")
    assert said == ""
    text = written.decode()
    assert beside(written) == [
        "match 0.900  similarity 0.250",
        "red.png",
        "match 0.500  similarity 0.250",
        "gone.png",
        "no picture: no such file",
        "match 0.100  similarity 0.250",
        "green.png",
    ]
    rows = re.findall(r"[^\n]*▀[^\n]*", text)
    assert [row.count("▀") for row in rows] == [30] * 8 + [8] * 8  # as wide as there is room; as high
    assert "\x1b[38;2;254;0;0" in rows[0] or "\x1b[38;2;255;0;0" in rows[0]
    assert re.search(r"\x1b\[38;2;0;25\d;", rows[-1])
    assert text.count("\x1b[c") == 1 and text.count("\x1b[8A") == 2


@HAS_LIBRARY
def test_a_terminal_that_does_not_answer(terminal: Terminal) -> None:
    written, _ = terminal(b"")
    assert "▀".encode() in written and len(beside(written)) == 7


@HAS_LIBRARY
def test_sixel(terminal: Terminal) -> None:
    written, said = terminal(KITTY + CELL + SIXEL)
    assert said == "" and "▀".encode() not in written
    pictures = re.findall(rb"\x1bP[\d;]*q([^\x1b]*)\x1b\\", written)
    assert len(pictures) == 2
    assert len(beside(written)) == 7


@HAS_LIBRARY
def test_kitty(terminal: Terminal) -> None:
    written, said = terminal(KITTY + CELL + PLAIN)
    assert said == "" and "▀".encode() not in written
    sent = b"".join(re.findall(rb"\x1b_Gi=\d+,m=[01],f=100,q=2;([^\x1b]*)\x1b\\", written))
    image = Image.open(BytesIO(base64.b64decode(sent.split(b"=")[0] + b"==")))
    assert image.getpixel((5, 5))[0] > 250  # type: ignore[index]
    assert written.decode().count("\U0010eeee") > 100  # placeholders
    assert b"a=p,i=" in written and len(beside(written)) == 7


@HAS_LIBRARY
def test_iterm(terminal: Terminal) -> None:
    written, _ = terminal(TERM_PROGRAM="iTerm.app")
    assert b"\x1b[c" not in written  # it is known, and not asked
    pictures = re.findall(
        rb"\x1b7\x1b\[8A\x1b\]1337;File=inline=1;size=(\d+);width=30;height=8;[^:]*:([^\x07]*)\x07\x1b8", written
    )
    assert len(pictures) == 2
    for size, encoded in pictures:
        jpeg = base64.b64decode(encoded)
        assert len(jpeg) == int(size) and Image.open(BytesIO(jpeg)).format == "JPEG"
    assert len(beside(written)) == 7


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm-256color"}, Protocol.ITERM),  # over SSH
        ({"TERM_PROGRAM": "Apple_Terminal", "TERM": "xterm-256color"}, Protocol.HALF_CELLS),
        ({"TERM": "linux"}, Protocol.HALF_CELLS),
        ({"TERM": "screen-256color"}, Protocol.HALF_CELLS),
    ],
)
def test_terminals_that_are_known_are_not_asked(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], protocol: Protocol
) -> None:
    monkeypatch.setattr(graphics, "_answers", lambda: pytest.fail("it was asked"))
    assert graphics.ask(environment) == Graphics(protocol)


@pytest.mark.parametrize("environment", [{"TERM": "xterm"}, {"TERM": "screen", "TMUX": "/t", "LC_TERMINAL": "iTerm2"}])
def test_answers_of_terminals(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for answers, understood in (
        (b"", Graphics(Protocol.HALF_CELLS)),
        (b"q" + PLAIN, Graphics(Protocol.HALF_CELLS)),  # a letter was typed before
        (CELL + PLAIN, Graphics(Protocol.HALF_CELLS, (8, 16))),
        (b"\x1b[6;0;0t" + SIXEL, Graphics(Protocol.SIXEL)),
        (KITTY + PLAIN, Graphics(Protocol.KITTY)),
        (KITTY + SIXEL, Graphics(Protocol.SIXEL)),
        (b"\x1b[?64c", Graphics(Protocol.HALF_CELLS)),
    ):
        monkeypatch.setattr(graphics, "_answers", lambda answers=answers: answers)
        assert graphics.ask(environment) == understood


@HAS_LIBRARY
def test_on_a_narrow_terminal_no_line_runs_over(terminal: Terminal) -> None:
    written, _ = terminal(PLAIN, size=(12, 40), BT_HYPERLINKS="on")
    assert max(row.count("▀") for row in written.decode().split("\n")) <= 13
    lines = beside(written)
    assert max(map(len, (re.sub(r"\x1b\]8;[^\x1b]*\x1b\\", "", line) for line in lines))) <= 40 - 15
    assert lines[:2] == ["match 0.900  similarity", "0.250"] and "red.png" in lines[2] and "file://" in lines[2]


def test_beside_a_picture_stand_its_other_files_and_the_hits_that_are_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, copy, small = (tmp_path / name for name in ("one.png", "copy.png", "small.png"))
    hit = Hit(one, 0.5, None, verified=True, paths=(one, copy), like=(small,))
    assert preview._lines(hit, 0) == ["match 0.500", "one.png (+1) (+1 like it)"]
