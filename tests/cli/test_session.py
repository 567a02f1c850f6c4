"""`bt search -i` on a pseudo-terminal: queries, commands, completion, history, and how it ends."""

import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridgetower import Library, Model
from bridgetower_cli import interrupts
from bridgetower_cli.asking.completion import Completion
from bridgetower_cli.asking.line_editor import LineEditor
from bridgetower_cli.asking.session import COMMANDS
from bridgetower_cli.settings import settle
from tests.cli.conftest import Bt
from tests.cli.test_live_table import PROGRAM, ROOT
from tests.fakes import FakeEncoder, paint

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

import fcntl
import struct
import termios

pytestmark = pytest.mark.process

_ESCAPES = re.compile(r"\x1b\]8;[^\x1b]*\x1b\\|\x1b\[[?\d;]*[A-Za-z]|\x1b[=>]|\r")

# `bt` with a fake model, whose verified batches wait for nothing.
FREE = PROGRAM.replace("    while len(", "    return\n    while len(")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with red and blue pictures in two folders, and their index."""
    for name, colour in {"warm/red": "red", "cold/blue": "blue", "cold/white": "white"}.items():
        paint(tmp_path / "photos" / f"{name}.png", colour)
    add(tmp_path)
    (tmp_path / "gate").write_text("")
    return tmp_path


def add(folder: Path) -> None:
    """Index what is in the folder now."""
    fake = FakeEncoder()
    with Library(folder / "index", Model.from_parts(fake, fake)) as library:
        library.index([folder / "photos"])


class Session:
    """A person at a terminal."""

    def __init__(self, folder: Path, *arguments: str, program: str = FREE, **environment: str) -> None:
        self.master, inner = os.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        environ = os.environ | {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT}", "TERM": "xterm", "BT_SERVER": "off"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", program, "search", "-i", *arguments, "--index", "index"],
            cwd=folder,
            env=environ | {"XDG_STATE_HOME": str(folder / "state")} | environment,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.written = ""
        self.read(r"bt> $")

    def type(self, keys: str, wanted: str = r"\n.*bt> $") -> str:
        """Type keys; return what is written until `wanted` is there, by default the next prompt."""
        os.write(self.master, keys.encode())
        return self.read(wanted)

    def ask(self, line: str) -> list[str]:
        """Type a line; return the lines of the answer, without the tables that were drawn while it came."""
        answer = self.type(line + "\r").rpartition("\x1b[J")[2]
        lines = _ESCAPES.sub("", answer).splitlines()
        return [one for one in lines if one not in ("", line) and not one.startswith("bt> ")]

    def read(self, wanted: str) -> str:
        """Return what is written until it fits."""
        new, ends = "", time.monotonic() + 30
        while not re.search(wanted, _ESCAPES.sub("", new), re.DOTALL):
            assert time.monotonic() < ends, self.written + new
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:  # on Linux, the other side is closed
                    data = b""
                assert data, self.written + new
                new += data.decode()
        self.written += new
        return new

    def end(self, keys: str = "\x04") -> int:
        """Type Ctrl-D, or other keys; return the exit code."""
        os.write(self.master, keys.encode())
        while True:  # what nobody reads would block it
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            if not data:
                return self.process.wait(timeout=30)
            self.written += data.decode()


@contextmanager
def session(folder: Path, *arguments: str, **options: str) -> Iterator[Session]:
    begun = Session(folder, *arguments, **options)
    try:
        yield begun
    finally:
        begun.process.kill()
        begun.process.wait()
        os.close(begun.master)


def names(lines: list[str]) -> list[str]:
    return [Path(line.split()[-1]).name for line in lines if line.endswith(".png")]


def test_queries_and_commands_one_after_the_other(folder: Path) -> None:
    with session(folder, "--depth", "3") as bt:
        first = bt.ask("red")
        assert first[0].split() == ["match", "similarity", "picture"] and len(names(first)) == 3
        assert bt.ask("/top 1") == []
        white = bt.ask("white")
        assert len(names(white)) == 1
        assert names(bt.ask("photos/cold/blue.png")) == ["white.png"]  # the picture itself is no hit
        assert names(bt.ask("'photos/warm/red.png' ")) == ["white.png"]
        assert names(bt.ask("/image photos/warm/red.png")) == ["white.png"]
        assert bt.ask("/under photos/warm") == []
        assert names(bt.ask("photos/cold/white.png")) == ["red.png"]
        assert bt.ask("/not red") == []
        assert bt.ask("photos/cold/white.png")[0].split()[0] == "not"
        assert bt.ask("/not") == [] and bt.ask("/under") == []
        assert names(bt.ask("photos/warm/red.png")) == ["white.png"]
        assert re.findall("^/[a-z-]+", "\n".join(bt.ask("/help")), re.MULTILINE) == [*COMMANDS]
        assert bt.end("/quit\r") == 0


def test_the_model_is_loading_at_the_first_question_only(folder: Path) -> None:
    with session(folder) as bt:
        assert len(names(bt.ask("red"))) == 3
        assert bt.written.count("verifying: loading the model") == 1
        assert len(names(bt.ask("white"))) == 3
        assert bt.written.count("verifying: loading the model") == 1
        assert "verifying: the first pictures" in bt.written
        assert bt.end() == 0


def test_an_error_of_a_query_is_one_line_and_the_session_goes_on(folder: Path) -> None:
    with session(folder, DISPLAY="", WAYLAND_DISPLAY="") as bt:
        assert bt.ask("/image nowhere.png")[-1].startswith("error: ") and "nowhere.png" in bt.written
        assert bt.ask("/top none") == ["error: 'none': a whole number of at least 1 is wanted, as 10"]
        assert bt.ask("/min-match 2") == ["error: '2': a probability is between 0 and 1, as 0.5"]
        assert bt.ask("/nonsense") == ["error: /nonsense is no command, and no file: /help shows the commands"]
        assert bt.ask("/min-match 1") == []
        assert bt.ask("white")[-1].startswith("no match: the best of 3 verified pictures has 0.")
        assert bt.ask("/min-match") == []
        assert bt.ask("/under nowhere") == []
        assert bt.ask("red")[-1].startswith("no match: nothing in the index lies under ")
        assert bt.ask("/under") == []
        assert len(names(bt.ask("red"))) == 3
        assert bt.ask("/open 1")[0].startswith("error: there is no desktop here")
        assert bt.end() == 0


def test_a_picture_of_the_last_answer_is_opened(folder: Path) -> None:
    opener = folder / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho "$1" >> {folder}/opened\n')
    opener.chmod(0o700)
    with session(folder, PATH=f"{opener.parent}:{os.environ['PATH']}", DISPLAY=":0") as bt:
        assert bt.ask("/open 1") == ["error: /open 1: the last answer has no picture of that rank"]
        second = names(bt.ask("red"))[1]
        assert bt.ask("/open 2") == []
        assert bt.end() == 0
    ends, opened = time.monotonic() + 20, folder / "opened"
    while not opened.exists() or not opened.read_text():
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert Path(opened.read_text().strip()).name == second


def test_the_index_is_seen_as_it_is_and_its_end_is_the_end(folder: Path) -> None:
    with session(folder) as bt:
        assert len(names(bt.ask("red"))) == 3
        paint(folder / "photos" / "green.png", "green")
        add(folder)
        assert "green.png" in names(bt.ask("red"))
        shutil.rmtree(folder / "index")
        assert bt.end("red\r") == 5
    assert "error: no index at" in bt.written and "Traceback" not in bt.written


def test_ctrl_c_breaks_off_a_query_and_clears_a_line(folder: Path) -> None:
    with session(folder, program=PROGRAM) as bt:
        bt.type("red\r", "verifying: loading the model")
        bt.type("\x03")
        time.sleep(interrupts.GRACE_S + 0.5)  # after which other commands have ended
        assert bt.type("never asked\x03", r"\n.*bt> $")
        with (folder / "gate").open("a") as gate:
            gate.write("1\n" * 9)
        assert len(names(bt.ask("red"))) == 3
        assert bt.end() == 0
    assert "interrupted" not in bt.written


def test_a_termination_ends_it_and_without_a_history_nothing_is_left(folder: Path) -> None:
    with session(folder, BT_HISTORY="off") as bt:
        assert bt.ask("/top 1") == []
        bt.process.send_signal(signal.SIGTERM)
        assert bt.end("") == 128 + signal.SIGTERM
    assert not (folder / "state").exists()


def test_a_later_session_completes_what_was_asked_and_what_the_index_has(folder: Path) -> None:
    with session(folder) as bt:
        bt.ask("red on white")
        bt.ask("/top 2")
        bt.ask("/top 2")
        assert bt.end() == 0
    history = folder / "state" / "bridgetower" / "history"
    assert history.read_text() == "red on white\n/top 2\n"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with session(folder) as bt:
        bt.type("red o\t", "red on white")
        bt.type("\r")
        bt.type("/he\t", "/help")
        bt.type("\r")
        cold = str(folder / "photos" / "cold")
        bt.type(f"/under {folder}/photos/c\t", re.escape(cold))
        bt.type("\r")
        assert len(names(bt.ask("red"))) == 2
        bt.type("\x1b[A", "red")  # the key for the line before
        assert len(names(bt.ask(""))) == 2
        assert bt.end() == 0


def test_folders_of_the_index_as_it_is_complete_a_line(folder: Path) -> None:
    with Completion(settle(index=folder / "index"), ()) as completion:
        begun = f"/under {folder}/photos/"
        assert completion.of(begun, ()) == [f"{begun}cold", f"{begun}warm"]
        paint(folder / "photos" / "new" / "green.png", "green")
        add(folder)
        assert completion.of(begun, ()) == [f"{begun}cold", f"{begun}new", f"{begun}warm"]
        assert completion.of("/under nowhere", ()) == []


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of the user, with nothing in it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def read_in(lines: list[str], monkeypatch: pytest.MonkeyPatch, *, keeps_history: bool = True) -> None:
    """Read these lines in a session."""
    typed = iter(lines)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    with LineEditor(lambda begun, former: [], keeps_history=keeps_history) as editor:
        assert [editor.read("") for _ in lines] == lines


@pytest.mark.parametrize("lines", [["red", "x" * 2000], [f"query {number}" for number in range(1200)]])
def test_the_history_stays_short(lines: list[str], state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_in(lines, monkeypatch)
    read_in(["the last"], monkeypatch)
    kept = (state / "bridgetower" / "history").read_text().splitlines()
    assert len(kept) <= 1000 and max(map(len, kept)) <= 1000
    assert kept[-2:] == [[line for line in lines if len(line) <= 1000][-1], "the last"]


def test_a_history_that_is_off_is_not_kept(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_in(["red"], monkeypatch, keeps_history=False)
    assert not state.exists()


def test_without_readline_lines_are_read_and_kept(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "readline", None)
    read_in(["red"], monkeypatch)
    assert (state / "bridgetower" / "history").read_text() == "red\n"


def test_a_line_that_the_keys_cannot_bring_back_is_read(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `readline` refuses a NUL, it refuses a character that the locale does not have."""
    read_in(["a\0b"], monkeypatch)
    read_in(["red"], monkeypatch)
    assert (state / "bridgetower" / "history").read_text() == "a\0b\nred\n"


def test_a_history_that_cannot_be_kept_is_told_once(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write_text("no folder")
    read_in(["red", "blue"], monkeypatch)
    assert capsys.readouterr().err.count("no history is kept there") == 1


def test_an_interrupt_during_an_import_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = iter([True, False])
    monkeypatch.setattr(interrupts, "_importing", lambda frame: next(imports))
    monkeypatch.setattr(interrupts, "_ending", set(interrupts._ending))
    before = signal.signal(signal.SIGINT, interrupts.stop)
    try:
        with interrupts.breaking_off():
            os.kill(os.getpid(), signal.SIGINT)
            begun = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                time.sleep(5)
            assert time.monotonic() - begun < 3  # it ends the system call
    finally:
        signal.signal(signal.SIGINT, before)
        interrupts.forget()


def test_it_is_for_a_terminal(bt: Bt) -> None:
    done = bt("search", "-i", input="red\n")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--texts-from -" in done.stderr


@pytest.mark.parametrize(
    "beside", [["red"], ["--json"], ["--paths"], ["--texts-from", "-"], ["--image", "a.png"], ["--html", "a"]]
)
def test_it_takes_no_query_and_no_other_form(beside: list[str], bt: Bt) -> None:
    assert bt("search", "-i", *beside).exit_code == 2
