"""Paths in tables that are links (OSC 8), on terminals that are known to have them, and nowhere else."""

import os
import re
import socket
from pathlib import Path

import pytest

from bridgetower_cli import render
from bridgetower_cli.terminal.hyperlinks import are_shown, linked, url_of
from bridgetower_cli.terminal.tables import Column
from tests.cli.conftest import Bt
from tests.cli.test_output import Stream, put_in_place

COLUMNS = [Column("match", number=True), Column("picture", path=True)]


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, False),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, False),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, True),
        ({"TERM": "xterm-256color", "VTE_VERSION": "4900"}, False),
        ({"TERM": "xterm-256color", "VTE_VERSION": "new"}, False),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230805"}, True),
        ({"WT_SESSION": "4b1b"}, True),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/t", "TERM_PROGRAM": "tmux", "TERM_PROGRAM_VERSION": "3.4a"}, True),
        ({"TERM": "screen", "TMUX": "/tmp/t", "TERM_PROGRAM": "tmux", "TERM_PROGRAM_VERSION": "3.3"}, False),
        ({"TERM": "screen-256color", "VTE_VERSION": "7600"}, False),
        ({"TERM": "dumb", "VTE_VERSION": "7600"}, False),
        ({"TERM": "xterm-kitty", "NO_HYPERLINKS": "1"}, False),
        ({"TERM": "xterm-kitty", "NO_HYPERLINKS": ""}, True),
        ({"TERM": "xterm-kitty", "BT_HYPERLINKS": "off"}, False),
        ({"TERM": "xterm", "BT_HYPERLINKS": "on"}, True),
        ({"TERM": "xterm-kitty", "BT_HYPERLINKS": "auto"}, True),
    ],
)
def test_terminals_that_show_links(environment: dict[str, str], shown: bool) -> None:
    assert are_shown(environment) is shown


def test_urls_of_odd_names() -> None:
    assert url_of('/a b/ü%#?".png') == "file:///a%20b/%C3%BC%25%23%3F%22.png"
    assert url_of(Path(os.fsdecode(b"/\xff\n.png"))) == "file:///%FF%0A.png"
    assert url_of("/a.png", on_terminal=True) == f"file://{socket.gethostname()}/a.png"


def plain(text: str) -> str:
    return re.sub(r"\x1b\]8;[^\x1b]*\x1b\\|\x1b\[[0-9;]*m", "", text)


def written(monkeypatch: pytest.MonkeyPatch, rows: list[list[str]], **variables: str) -> str:
    terminal = put_in_place(Stream(terminal=True), monkeypatch)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "40", "BT_HYPERLINKS": "auto", **variables}.items():
        monkeypatch.setenv(name, value)
    render.table(COLUMNS, rows)
    return terminal.text()


def test_a_linked_table_is_as_wide_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[str]] = [["0.981", linked("folder/" * 6 + "two cats.jpg", "/two cats.jpg")], ["0.1", "b.jpg"]]
    without = written(monkeypatch, rows)
    within = written(monkeypatch, rows, BT_HYPERLINKS="on")
    assert plain(within) == plain(without) and "\x1b]8" not in without
    url = f"file://{socket.gethostname()}/two%20cats.jpg"
    links = re.findall(r"\x1b\]8;id=(\w+);([^\x1b]*)\x1b\\([^\x1b]*)\x1b\]8;;\x1b\\", within)
    assert [link for _, link, _ in links] == [url, url] and len({id for id, _, _ in links}) == 1  # on two lines
    assert "".join(text for _, _, text in links) == "folder/" * 6 + "two cats.jpg"


def test_a_pipe_gets_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = put_in_place(Stream(terminal=False), monkeypatch)
    monkeypatch.setenv("BT_HYPERLINKS", "on")
    render.table(COLUMNS, [["0.981", linked("a.jpg", "/a.jpg")]])
    assert pipe.text() == "match  picture\n0.981  a.jpg\n"


def test_the_tables_of_search_and_fill_have_links(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_is_terminal", lambda stream: True)
    monkeypatch.setenv("BT_HYPERLINKS", "on")
    for command in (["search", "red", "--top", "1"], ["fill", "a <mask> picture", "--top", "1"]):
        assert re.search(r"\x1b\]8;id=\w+;file://[^;]*/photos/\w+\.png\x1b", bt(*command).stdout)


def test_a_wrong_setting_is_wrong_usage(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_HYPERLINKS", "yes")
    refused = bt("search", "red")
    assert refused.exit_code == 2 and "BT_HYPERLINKS: 'yes' is unknown: choose one of auto, on, off" in refused.stderr
