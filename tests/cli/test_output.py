"""What reaches a terminal, a pipe, a full disk; how far a long run is."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridgetower.errors import OutputError
from bridgetower_cli import progress, render
from bridgetower_cli.progress import Meter, Pace
from bridgetower_cli.render import visible
from bridgetower_cli.terminal.tables import Column

ROWS = [["0.981", "/a/" + "long" * 40 + ".jpg"], [render.UNKNOWN, "/b.jpg"]]
COLUMNS = [Column("match", number=True), Column("picture", path=True)]


class Stream(io.TextIOWrapper):
    """A stream of this process that may claim to be a terminal."""

    def __init__(self, terminal: bool, encoding: str = "utf-8") -> None:
        self.content = io.BytesIO()
        super().__init__(self.content, encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        return self.content.getvalue().decode(self.encoding)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    return put_in_place(Stream(terminal=True), monkeypatch)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")  # of some other tool: a pipe stays a pipe
    return put_in_place(Stream(terminal=False), monkeypatch)


def put_in_place(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """As stdout and stderr of `bt`, not of the whole process: pytest changes those between fixture and test."""
    for module in (render, progress):
        monkeypatch.setattr(module, "sys", SimpleNamespace(stdout=stream, stderr=stream))
    monkeypatch.setattr(render, "_quiet", False)  # whatever the last command of this process was told
    return stream


def test_a_pipe_gets_whole_lines_without_colour(pipe: Stream) -> None:
    render.table(COLUMNS, ROWS)
    assert pipe.text().splitlines() == ["match  picture", f"0.981  {ROWS[0][1]}", "    -  /b.jpg"]


class Sparing(io.RawIOBase):
    """As an unbuffered stdout: it takes a part of what it is given."""

    def __init__(self, takes: int | None) -> None:
        self.takes, self.content = takes, b""

    def write(self, data: Any) -> int | None:
        if self.takes is None:
            return None
        self.content += bytes(data[: self.takes])
        return min(self.takes, len(data))


def unbuffered(takes: int | None, monkeypatch: pytest.MonkeyPatch) -> Sparing:
    raw = Sparing(takes)
    stdout = SimpleNamespace(buffer=raw, encoding="utf-8", isatty=lambda: False)
    monkeypatch.setattr(render, "sys", SimpleNamespace(stdout=stdout))
    return raw


def test_a_stream_that_takes_a_part_at_a_time_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = unbuffered(7, monkeypatch)
    render.table(COLUMNS, ROWS)
    assert raw.content.decode().splitlines() == ["match  picture", f"0.981  {ROWS[0][1]}", "    -  /b.jpg"]


def test_a_stream_that_takes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    unbuffered(None, monkeypatch)
    with pytest.raises(OutputError, match="its reader does not keep up: send them to a file or a terminal"):
        render.table(COLUMNS, ROWS)


def test_a_terminal_gets_lines_of_its_width_in_which_no_name_is_broken(terminal: Stream) -> None:
    render.table(COLUMNS, [["0.981", "folder/" * 9 + "two cats.jpg"], [render.UNKNOWN, "/b.jpg"]])
    assert "\x1b[" in terminal.text()
    plain = [line for line in terminal.text().splitlines() if "\x1b" not in line]
    assert plain == [f"0.981  {'folder/' * 7}", f"       {'folder/' * 2}two cats.jpg"]


@pytest.mark.parametrize("width", [40, 20, 10])
def test_numbers_are_whole_however_narrow_the_terminal(
    terminal: Stream, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = [Column("match", number=True), Column("similarity", number=True), Column("picture", path=True)]
    render.table(columns, [["unverified", "0.123", "a/long/path/to/a/picture.jpg"]])
    header, *lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text()).splitlines()
    assert header.split() == ["match", "similarity", "picture"]
    assert lines[0].split()[:2] == ["unverified", "0.123"]
    assert "".join([lines[0].split()[2], *(line.strip() for line in lines[1:])]) == "a/long/path/to/a/picture.jpg"
    assert max(map(len, lines)) <= max(width, 10 + 2 + 10 + 2 + len("picture.jpg"))


def test_columns_of_text_share_the_width_and_break_between_words(terminal: Stream) -> None:
    render.table([Column("picture", path=True), Column("text")], [["a/b.jpg", "two cats on a couch " * 4]])
    _, *lines = terminal.text().splitlines()
    assert lines == [
        "a/b.jpg  two cats on a couch two cats on a couch two cats on",
        "         a couch two cats on a couch",
    ]


def test_a_name_wider_than_the_terminal_is_whole(terminal: Stream) -> None:
    render.table(COLUMNS, ROWS)
    assert ROWS[0][1].removeprefix("/a/") in terminal.text()


@pytest.mark.parametrize("term", ["xterm", "", "dumb", "Unknown"])
def test_a_terminal_gets_a_bold_header_and_dims_what_is_unknown(
    terminal: Stream, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    render.table([*COLUMNS, Column("text")], [[render.UNKNOWN, "猫.jpg", "-"], ["0.5", "b.jpg", "a - b"]])
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if term in ("xterm", "") else ("", "", "")
    assert terminal.text().splitlines() == [
        f"{bold}match{plain}  {bold}picture{plain}  {bold}text{plain}",
        f"    {dim}-{plain}  猫.jpg   {dim}-{plain}",
        "  0.5  b.jpg    a - b",
    ]


def test_no_color_is_honoured(terminal: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    render.table(COLUMNS, ROWS)
    with Meter("indexing", "files") as meter:
        meter.update(1, 2)
    assert "\x1b[3" not in terminal.text()


def test_markup_in_a_name_is_a_name(pipe: Stream) -> None:
    render.table([Column("picture")], [["[red]:cat:[/red].jpg"]])
    assert "[red]:cat:[/red].jpg" in pipe.text()


def test_a_stream_that_is_not_utf8_gets_what_it_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = put_in_place(Stream(terminal=False, encoding="latin-1"), monkeypatch)
    render.table([Column("word")], [["café 猫"]])
    assert stream.text().splitlines()[1] == "café \\u732b"


@pytest.mark.parametrize(("is_terminal", "cell"), [(True, "a \\x1b[2J cat"), (False, "a \x1b[2J cat")])
def test_cells_are_escaped_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, cell: str) -> None:
    stream = put_in_place(Stream(is_terminal), monkeypatch)
    render.csv_line(["a \x1b[2J cat", 0.5, None], header=["caption", "match", "word"])
    assert stream.text() == f"caption,match,word\r\n{cell},0.5,\r\n"


def test_paths_are_escaped_on_a_terminal_only(terminal: Stream) -> None:
    render.paths([Path("/a\x1b[0m.jpg")])
    assert terminal.text() == "/a\\x1b[0m.jpg\n"


def test_json_is_ascii_with_six_digits(pipe: Stream) -> None:
    render.json_line({"path": Path("/é"), "match": 0.123456789, "itm_logits": (1e-9, -2.0), "similarity": None})
    assert pipe.text() == '{"path": "/\\u00e9", "match": 0.123457, "itm_logits": [1e-09, -2.0], "similarity": null}\n'


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é 猫 👩\u200d👧.jpg", "plain é 猫 👩\u200d👧.jpg"),
        ("a\tb\nc\r\x7f\x9b", "a\\tb\\nc\\r\\x7f\\x9b"),
        ("\u2028\u202e\u2066", "\\u2028\\u202e\\u2066"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("a\\nb", "a\\\\nb"),
        ("a\\n\nb", "a\\\\n\\nb"),
    ],
)
def test_what_a_person_sees_of_a_name(name: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible(name) == shown
    monkeypatch.setattr(os, "sep", "\\")  # where it is in every path, and in no name
    assert visible("C:\\photos\\new.jpg") == "C:\\photos\\new.jpg"


@pytest.mark.parametrize("write", [render.say, render.line])
def test_names_in_a_line_are_escaped_once(pipe: Stream, write: Callable[[str], None]) -> None:
    name = render.short(Path("/a\\b\n"))
    write(f"skipped {name}: \n")
    assert pipe.text() == "skipped /a\\\\b\\n: \\n\n"


@pytest.mark.skipif(os.sep == "\\", reason="no name there has a backslash")
def test_a_pipe_gets_a_backslash_as_it_is(pipe: Stream) -> None:
    render.paths([Path("/a\\n.jpg")])
    render.json_line({"path": Path("/a\\n.jpg")})
    assert pipe.text() == '/a\\n.jpg\n{"path": "/a\\\\n.jpg"}\n'


def test_paths_below_the_current_folder_are_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert render.short(tmp_path / "a" / "b.jpg") == "a/b.jpg"
    assert render.short(tmp_path.parent / "b.jpg") == str(tmp_path.parent / "b.jpg")


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (3_715_000_000, "3.71 GB"), (999_999, "1 MB")]
)
def test_sizes_for_people(number: int, shown: str) -> None:
    assert render.size(number) == shown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.describe(10, "files") == ""
    clock.now += 1
    pace.update(100_000)  # files that needed no work
    assert pace.rate() == 100_000
    for _ in range(10):
        clock.now += 10
        pace.update(pace._seen[-1][1] + 20)
    assert pace.rate() == pytest.approx(2)
    assert pace.describe(100_200 + 7400, "files") == "2.0 files/s, 1:01:40 left"


def test_a_slow_pace_has_more_digits() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now += 80
    pace.update(1)
    assert pace.describe(10, "steps") == "0.013 steps/s, 0:12:00 left"


def test_a_pipe_gets_a_line_every_ten_seconds(pipe: Stream) -> None:
    clock = Clock()
    with Meter("indexing", "files", clock=clock) as meter:
        for done in range(1, 26):
            clock.now += 1
            meter.update(done, 100)
    assert pipe.text().splitlines() == [
        "indexing: 10 of 100 files, 1.0 files/s, 0:01:30 left",
        "indexing: 20 of 100 files, 1.0 files/s, 0:01:20 left",
    ]


def test_a_meter_begins_again_with_each_run_and_knows_how_long_it_took(pipe: Stream) -> None:
    clock = Clock()
    meter = Meter("indexing", "files", clock=clock)
    for seconds in (9, 11):
        clock.now += 100  # between two runs
        meter.update(0, 0)
        clock.now += seconds
        meter.update(3, 9)
        assert meter.close() == seconds
    assert pipe.text() == "indexing: 3 of 9 files, 0.3 files/s, 0:00:22 left\n"


def test_a_terminal_gets_a_bar_for_each_run(terminal: Stream) -> None:
    clock = Clock()
    meter = Meter("indexing", "files", clock=clock)
    for done in (3, 5):
        meter.update(0, 0)
        clock.now += 1
        meter.update(done, 9)
        meter.close()
        assert f"{done}/9" in terminal.text()
        assert terminal.text().endswith("\x1b[2K")


def test_a_terminal_gets_a_bar_that_goes_away(terminal: Stream) -> None:
    clock = Clock()
    with Meter("indexing", "files", clock=clock) as meter:
        clock.now += 1
        meter.update(3, 9)
    assert "3/9" in terminal.text()
    assert terminal.text().endswith("\x1b[2K")  # the line is wiped
