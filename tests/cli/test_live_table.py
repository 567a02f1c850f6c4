"""The table of `bt search` on a terminal, as it stands while pictures are verified, and at the end."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridgetower import Library, Model
from bridgetower_cli import render
from bridgetower_cli.live_table import LiveTable
from bridgetower_cli.terminal.tables import Column
from tests.cli.test_output import Clock, Stream, put_in_place
from tests.fakes import FakeEncoder, paint

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

import fcntl
import struct
import termios

ROOT = Path(__file__).parents[2]
STEPS = 10

# `bt` with a fake model. Each verified batch, from the loading of the judge on, waits for a line in the file "gate".
PROGRAM = """
import sys, time
from pathlib import Path
from bridgetower import Library, Model, ModelError
from bridgetower_cli import app, libraries, render
from tests.fakes import FakeEncoder

passed = 0

def wait():
    global passed
    passed += 1
    while len((lines := Path("gate").read_text().splitlines(keepends=True))) < passed:
        time.sleep(0.01)
    if lines[passed - 1].startswith("fail"):
        raise ModelError("the weights are damaged")
    if lines[passed - 1].startswith("say"):
        render.say("preparing the weights")

class Judge(FakeEncoder):
    @property
    def default_depth(self):
        wait()
        return 8

    @default_depth.setter
    def default_depth(self, value): ...

    def match(self, *arguments):
        wait()
        return -super().match(*arguments)

def library(settings, *, say):
    return Library(settings.index, Model.from_parts(FakeEncoder(), Judge()), features_cache=0, say=say)

libraries.library = library
app.main()
"""


class Screen:
    """A terminal: what is on it after all that was written to it, with the lines that were scrolled off."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.lines = [""]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[^\x1b]", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self._next_line()
            elif not part.startswith("\x1b"):
                if self.column == self.width:
                    self._next_line()
                    self.column = 0
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
                self.column += 1
            elif part.endswith("A"):
                self.row = max(self.row - int(part[2:-1]), len(self.lines) - self.height, 0)
            elif part == "\x1b[J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                self.lines[self.row + 1 :] = [""] * (len(self.lines) - self.row - 1)
            else:
                assert part.endswith("m"), part

    def _next_line(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def text(self) -> list[str]:
        """All lines, without the empty ones at the end."""
        lines = [line.rstrip() for line in self.lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten pictures from green to red, and their index."""
    folder = tmp_path_factory.mktemp("library")
    for step in range(STEPS):
        paint(folder / "photos" / f"r{step}.png", (28 * step, 252 - 28 * step, 0))
    fake = FakeEncoder()
    with Library(folder / "index", Model.from_parts(fake, fake)) as library:
        library.index([folder / "photos"])
    return folder


class Session:
    """A run of `bt search` on a terminal."""

    def __init__(
        self, folder: Path, *arguments: str, width: int = 60, height: int = 20, term: str = "xterm", apart: bool = False
    ) -> None:
        self.gate = folder / "gate"
        self.gate.write_text("")
        self.master, inner = os.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        environ = os.environ | {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT}", "TERM": term}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "search", *arguments, "--index", "index"],
            cwd=folder,
            env=environ,
            stdin=inner,
            stdout=inner,
            stderr=subprocess.PIPE if apart else inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.screen = Screen(width, height)
        self.written = ""

    def open(self, *lines: str) -> None:
        with self.gate.open("a") as gate:
            gate.writelines(line + "\n" for line in lines)

    def until(self, *wanted: str) -> list[str]:
        """The screen when all this is on it."""
        self._read(lambda: all(any(text in line for line in self.screen.text()) for text in wanted))
        return self.screen.text()

    def end(self) -> list[str]:
        """The screen at the end."""
        self._read(lambda: False)
        self.process.wait(timeout=30)
        return self.screen.text()

    def _read(self, is_done: Callable[[], bool]) -> None:
        ends = time.monotonic() + 60
        while not is_done():
            assert time.monotonic() < ends, self.written
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:  # on Linux, the other side is closed
                    data = b""
                if not data:
                    return
                self.written += data.decode()
                self.screen.write(data.decode())


@contextmanager
def search(folder: Path, *arguments: str, **options: object) -> Iterator[Session]:
    session = Session(folder, *arguments, **options)  # type: ignore[arg-type]
    try:
        yield session
    finally:
        session.process.kill()
        session.process.wait()
        if session.process.stderr is not None:
            session.process.stderr.close()
        os.close(session.master)


def names(screen: list[str]) -> list[str]:
    return re.findall(r"(r\d)\.png", "\n".join(screen))


def test_the_recalled_pictures_stand_before_the_judge_is_there_and_settle(folder: Path) -> None:
    with search(folder, "red", "--top", "5") as bt:
        screen = bt.until("verifying: loading the model")
        assert names(screen) == ["r9", "r8", "r7", "r6", "r5"]
        assert screen[0].split() == ["match", "similarity", "picture"]
        assert [line.split()[0] for line in screen[1:6]] == ["unverified"] * 5
        column = screen[0].index("similarity")
        time.sleep(0.3)  # until it may be drawn again
        bt.open("judge", "first batch")
        screen = bt.until("verifying: 4 of 8 pictures")
        assert names(screen) == ["r6", "r7", "r8", "r9", "r5"]
        assert screen[0].index("similarity") == column
        assert "unverified" in screen[5] and "unverified" not in screen[4]
        bt.open("second batch")
        screen = bt.end()
        assert bt.process.returncode == 0
        assert "\x1b[?" not in bt.written  # neither the cursor nor anything else of the terminal was changed
    assert names(screen) == ["r2", "r3", "r4", "r5", "r6"]
    assert len(screen) == 6
    with search(folder, "red", "--top", "5", "--quiet") as bt:
        bt.open(*"123")
        assert bt.end() == screen  # as it is where no table settles


def test_of_a_table_taller_than_the_terminal_the_first_lines_stand_and_at_the_end_all(folder: Path) -> None:
    with search(folder, "red", "--top", "10", "--depth", "4", height=6) as bt:
        bt.open("first batch")  # a given depth asks for no default
        screen = bt.end()
    frames = bt.written.split("\x1b[J")
    assert all(frame.count("\n") <= 5 for frame in frames[:-1])
    assert names(screen) == ["r6", "r7", "r8", "r9", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert len(screen) == 11


def test_on_a_narrow_terminal_lines_are_cut_and_at_the_end_whole(folder: Path) -> None:
    with search(folder, "red", "--top", "1", "--depth", "1", width=28) as bt:
        assert bt.until("verifying: loading") == [
            "     match  similarity  pict",
            "unverified       1.000  phot",
            "                        r9.p",
            "verifying: loading the model",
        ]
        bt.open("first batch")
        screen = bt.end()
    assert [line.split()[-1] for line in screen[:3]] == ["picture", "photos/", "r9.png"]


def test_ctrl_c_leaves_the_rows_and_the_terminal_as_they_are(folder: Path) -> None:
    with search(folder, "red", "--top", "2") as bt:
        bt.until("verifying: loading the model")
        os.write(bt.master, b"\x03")
        screen = bt.end()
        assert bt.process.returncode == 128 + signal.SIGINT
    assert names(screen) == ["r9", "r8"]
    assert len(screen) == 4 and screen[3] == "interrupted"


def test_an_error_follows_the_rows(folder: Path) -> None:
    with search(folder, "red", "--top", "2") as bt:
        bt.until("verifying: loading the model")
        bt.open("fail")
        screen = bt.end()
        assert bt.process.returncode == 4
    assert names(screen) == ["r9", "r8"]
    assert screen[3:] == ["error: the weights are damaged"]


def test_a_note_is_written_above_the_table(folder: Path) -> None:
    with search(folder, "red", "--top", "2") as bt:
        bt.until("verifying: loading the model")
        bt.open("say")
        screen = bt.until("preparing the weights", "verifying")
        assert screen[0] == "preparing the weights" and names(screen) == ["r9", "r8"]
        bt.open(*"12")
        assert len(bt.end()) == 4


def test_below_the_least_match_rows_go_when_they_are_verified(folder: Path) -> None:
    with search(folder, "red", "--top", "9", "--min-match", "0.5") as bt:
        assert len(names(bt.until("verifying: loading the model"))) == 9
        time.sleep(0.3)
        bt.open("judge", "first batch")
        assert names(bt.until("verifying: 4 of 8")) == ["r6", "r5", "r4", "r3", "r2"]
        bt.open("second batch")
        assert names(bt.end()) == ["r2", "r3", "r4", "r5", "r6"]


@pytest.mark.parametrize(
    "options", [{"term": "dumb"}, {"arguments": ["--quiet"]}, {"arguments": ["--paths"], "apart": True, "width": 300}]
)
def test_without_a_wish_for_it_no_table_settles(folder: Path, options: dict[str, object]) -> None:
    arguments = options.pop("arguments", [])
    assert isinstance(arguments, list)
    with search(folder, "red", "--top", "2", *arguments, **options) as bt:
        bt.open(*"123")
        screen = bt.end()
    assert names(screen)[-2:] == ["r2", "r3"]
    assert "\x1b[J" not in bt.written and "verifying" not in bt.written


def test_where_only_stdout_is_a_terminal_the_table_settles_and_stderr_has_no_progress(folder: Path) -> None:
    with search(folder, "red", "--top", "2", apart=True) as bt:
        bt.until("verifying: loading the model")
        bt.open(*"123")
        assert names(bt.end()) == ["r2", "r3"]
        assert bt.process.stderr is not None and bt.process.stderr.read() == b""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Stream:
    for name, value in {"TERM": "xterm", "COLUMNS": "60", "LINES": "8"}.items():
        monkeypatch.setenv(name, value)
    return put_in_place(Stream(terminal=True), monkeypatch)


def test_a_table_is_drawn_a_few_times_a_second_at_most(terminal: Stream) -> None:
    clock = Clock()
    with LiveTable("verifying", "pictures", clock=clock) as table:
        for done in range(100):
            table.update(done, 100)
            table.show([Column("picture")], [[f"{done}.png"]])
            clock.now += 0.01
    assert 3 <= terminal.text().count("verifying") <= 4


def test_a_table_without_rows_is_a_line_of_progress(terminal: Stream) -> None:
    with LiveTable("verifying", "pictures") as table:
        table.show([Column("picture")], [])
    assert re.sub(r"\x1b\[[\d;]*m", "", terminal.text()) == "verifying: loading the model\n\r\x1b[1A\x1b[J"


def test_nothing_is_erased_that_is_not_of_the_table(terminal: Stream) -> None:
    with LiveTable("verifying", "pictures"):
        render.say("a note")
    assert terminal.text() == "a note\n"
