"""`bt search --texts-from`: many queries from a file or from stdin, and their answers as JSON lines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from bridgetower.errors import UsageError
from bridgetower.serving.local.client import NoServer
from bridgetower_cli import libraries, render
from bridgetower_cli.asking.lines import texts_in
from bridgetower_cli.progress import Meter
from tests.cli.conftest import Bt, Models
from tests.cli.test_live_table import PROGRAM, ROOT
from tests.cli.test_output import Stream
from tests.fakes import COLOURS, FakeEncoder, paint


def rows(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def file(text: str | bytes, name: str = "queries.txt") -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def test_each_line_is_answered_as_by_a_search_of_its_own(bt: Bt, library: Path, models: Models) -> None:
    loaded = len(models.loaded)
    done = bt("search", "--texts-from", file("red\nblue\ngreen"), "--top", 2)
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(models.loaded) == loaded + 1
    for number, text in enumerate(["red", "blue", "green"], start=1):
        alone = [json.loads(line) for line in bt("search", text, "--top", 2, "--json").stdout.splitlines()]
        mine = [row for row in rows(done) if row["query_number"] == number]
        assert [{"query": text, "query_number": number} | row for row in alone] == mine


def test_lines_of_text_and_of_json_may_be_mixed(bt: Bt, library: Path) -> None:
    given = (
        b'\xef\xbb\xbfred \r\n\r\n  \n {"text": "blue", "top": 1, "id": {"n": [1]}}\r\n{"text": "red", "min_'
        b'match": 0.8}'
        b'\n{"image": "photos/white.png", "top": 1, "id": null}\n{"text": "red", "image": "photos/blue.png", "top": 1}'
    )
    done = bt("search", "--texts-from", file(given))
    assert done.exit_code == 0, done.stderr
    found = [[row for row in rows(done) if row["query_number"] == number] for number in range(1, 6)]
    assert [len(some) for some in found] == [4, 1, 1, 1, 1]
    assert (found[0][0]["query"], found[1][0]["id"], found[2][0]["path"]) == (
        "red",
        {"n": [1]},
        str(library / "red.png"),
    )
    assert found[3][0]["query"] is None and found[3][0]["query_image"] == "photos/white.png"
    assert found[3][0]["id"] is None and not found[3][0]["verified"]
    assert found[4][0]["verified"] and "id" not in found[4][0]
    assert bt("search", "--texts-from", "-", input=given).stdout == done.stdout


def test_paths_are_relative_to_the_file(bt: Bt, library: Path) -> None:
    Path("sub").mkdir()
    done = bt("search", "--texts-from", file('{"image": "../photos/red.png"}', "sub/q.jsonl"), "--top", 1)
    assert done.exit_code == 0, done.stderr


def test_options_hold_for_each_query(bt: Bt, library: Path) -> None:
    queries = file("red\nblue\n")
    assert len(rows(bt("search", "--texts-from", queries, "--under", library / "red.png"))) == 2
    assert {row["verified"] for row in rows(bt("search", "--texts-from", queries, "--no-rerank"))} == {False}
    assert [row["rank"] for row in rows(bt("search", "--texts-from", queries, "--offset", 3))] == [4, 4]
    against = rows(bt("search", "--texts-from", queries, "--not", "white"))
    assert all(len(row["against"]) == 1 for row in against)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": 3}', '"text" is no text'),
        ('{"texts": "a"}', '"texts" is no field of a query: text, image, top, min_match, id'),
        ('{"id": 3}', '"text" is missing'),
        ('{"text": " "}', "the text is empty"),
        ('{"text": "a"', "not JSON from column"),
        ('{"text": "a", "top": 0}', "'0': a whole number of at least 1"),
        ('{"text": "a", "top": true}', "'True': a whole number of at least 1"),
        ('{"text": "a", "min_match": 2}', "'2': a probability is between 0 and 1"),
        ('{"image": "photos/red.png", "min_match": 0.5}', "a least match cuts what was verified: it needs a text"),
        ('{"image": "nowhere.png"}', "nowhere.png: no such file"),
        ('{"image": ["photos/red.png"]}', '"image" is no path'),
        ('{"text": "a", "id": [NaN]}', '"id" has a number that is infinite, or NaN'),
        ('{"text": "a", "id": 1e999}', '"id" has a number that is infinite, or NaN'),
        (b"\xff\xfea\0", "not UTF-8"),
        (b"x" * 1_000_001, "longer than 1 MB"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_asked(
    line: str | bytes, why: str, bt: Bt, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "photos" / "red.png", "red")
    given = b"red\n\n" + (line if isinstance(line, bytes) else line.encode()) + b"\nblue\n"
    done = bt("search", "--texts-from", file(given))
    assert (done.exit_code, done.stdout) == (6, "")
    assert (
        json.loads(done.stderr)["error"].startswith("queries.txt, line 3: ") and why in json.loads(done.stderr)["error"]
    )
    assert models.loaded == []


def test_a_wrong_line_of_stdin_ends_the_run_when_its_turn_comes(bt: Bt, library: Path) -> None:
    done = bt("search", "--texts-from", "-", "--top", 1, input='red\n\n{"text": 3}\nblue\n')
    assert done.exit_code == 6 and [row["query"] for row in rows(done)] == ["red"]
    assert json.loads(done.stderr)["error"] == 'stdin, line 3: "text" is no text'


def test_an_id_comes_back_as_it_was_given(bt: Bt, library: Path) -> None:
    ids = [123456.789, "1.50", 2**70, {"é": [0.123456789, None]}]
    given = file("".join(json.dumps({"text": "red", "id": one}) + "\n" for one in ids))
    assert [row["id"] for row in rows(bt("search", "--texts-from", given, "--top", 1))] == ids


def test_a_picture_that_cannot_be_read_is_named_with_its_line(bt: Bt, library: Path) -> None:
    Path("bad.png").write_text("no picture")
    done = bt("search", "--texts-from", file('red\n{"image": "bad.png"}'), "--top", 1)
    assert done.exit_code == 6 and len(rows(done)) == 1
    assert json.loads(done.stderr)["error"].startswith("queries.txt, line 2: ") and "bad.png" in done.stderr


def test_queries_without_a_hit_are_counted_once_at_the_end(bt: Bt, library: Path) -> None:
    some = file('red\n{"text": "blue", "min_match": 0.99}\n{"text": "red", "min_match": 0.99}\n')
    done = bt("search", "--texts-from", some)
    assert (done.exit_code, done.stderr) == (0, "note: 2 of 3 queries have no hit\n")
    assert {row["query_number"] for row in rows(done)} == {1}
    for given, why in {"red\nblue\n": "none of the 2 queries has a hit", "red": "the query has no hit"}.items():
        none = bt("search", "--texts-from", file(given), "--min-match", 0.99)
        assert (none.exit_code, none.stdout) == (1, "")
        assert json.loads(none.stderr)["no_match"] == why
    assert (
        json.loads(bt("search", "--texts-from", file("\n")).stderr)["no_match"]
        == "no queries came in: queries.txt is empty"
    )


def test_a_budget_says_once_how_many_were_verified(bt: Bt, library: Path) -> None:
    done = bt("search", "--texts-from", file("red\nblue\n"), "--budget", "0s")
    assert (done.exit_code, done.stderr) == (0, "verified 8 pictures of at most 40 in the time given\n")


def test_a_note_is_said_once(bt: Bt, library: Path) -> None:
    os.remove(library / "red.png")
    done = bt("search", "--texts-from", file("red\nblue\nred\n"))
    assert done.exit_code == 0
    assert done.stderr.count("passed over 1 picture whose files are gone") == 1


def test_an_unknown_place_and_an_empty_index_are_no_match(bt: Bt, library: Path, tmp_path: Path) -> None:
    done = bt("search", "--texts-from", file("red\n"), "--under", "nowhere")
    assert (done.exit_code, done.stdout) == (1, "")
    assert json.loads(done.stderr)["no_match"].startswith("nothing in the index lies under ")
    (tmp_path / "none").mkdir()
    assert bt("index", tmp_path / "none", "--index", "empty").exit_code == 0
    empty = bt("search", "--texts-from", "queries.txt", "--index", "empty")
    assert empty.exit_code == 1 and "is empty; fill it" in empty.stderr


def test_an_environment_with_a_least_match_is_for_texts(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_MIN_MATCH", "0.8")
    done = bt("search", "--texts-from", file('red\n{"image": "photos/red.png"}\n{"text": "red", "min_match": 0}'))
    assert [row["query_number"] for row in rows(done)].count(1) == 1
    assert [row["query_number"] for row in rows(done)].count(3) == 4
    monkeypatch.setenv("BT_MIN_MATCH", "much")
    assert bt("search", "--texts-from", "queries.txt").exit_code == 2


@pytest.mark.parametrize(
    "beside",
    [
        ["red"],
        ["--image", "a.png"],
        ["--query-vector", "a.npy"],
        ["--paths"],
        ["-0"],
        ["--weights", "1"],
        ["--html", "-"],
    ],
)
def test_it_takes_no_other_query_and_no_other_form(beside: list[str], bt: Bt) -> None:
    assert bt("search", "--texts-from", "queries.txt", *beside).exit_code == 2


def test_options_that_fit_no_query_are_wrong_usage(bt: Bt, library: Path) -> None:
    done = bt("search", "--texts-from", file("red"), "--since", "2024", "--before", "2023")
    assert done.exit_code == 2 and "line" not in done.stderr
    assert bt("search", "--texts-from", "queries.txt", "--min-similarity", 0.1).exit_code == 6  # fits a picture


def test_a_terminal_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stream(terminal=True))
    with pytest.raises(UsageError, match="--texts - reads from a pipe or a file: name a file"):
        texts_in(Path("-"))


def test_wrong_usage_of_the_command_is_no_error_of_a_line(bt: Bt, library: Path, models: Models) -> None:
    class Refusing(FakeEncoder):
        def embed_texts(self, texts: Any) -> Any:
            raise UsageError("there is no such device")

    models.encoder_type = Refusing
    done = bt("search", "--texts-from", "-", input="red\n")
    assert (done.exit_code, json.loads(done.stderr)["error"]) == (2, "there is no such device")


def test_a_missing_file_is_named(bt: Bt) -> None:
    done = bt("search", "--texts-from", "nowhere.txt")
    assert done.exit_code == 6 and "nowhere.txt: cannot be read: No such file" in done.stderr


def test_texts_of_a_file_are_encoded_together(bt: Bt, library: Path, models: Models) -> None:
    batches: list[int] = []

    class Counting(FakeEncoder):
        def embed_texts(self, texts: Any) -> Any:
            batches.append(len(texts))
            return super().embed_texts(texts)

    models.encoder_type = Counting
    texts = file("".join(f"{colour} {number}\n" for number in range(5) for colour in COLOURS))
    assert bt("search", "--texts-from", texts, "--no-rerank").exit_code == 0
    assert [number for number in batches if number > 1] == [16, 4]


def test_a_pipe_may_be_a_dialogue(library: Path) -> None:
    program = PROGRAM.replace("    while len(", "    return\n    while len(")
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, "search", "--texts-from", "-", "--top", "1", "--index", "index"],
        cwd=library.parent,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT}", "BT_SERVER": "off"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        for number, text in enumerate(["red", "blue", "white"], start=1):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            row = json.loads(process.stdout.readline())
            assert (row["query"], row["query_number"]) == (text, number)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_the_rest_is_answered_here_when_a_server_is_lost(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Server:
        def __init__(self, *_: object) -> None:
            asked.append("connected")

        def __enter__(self) -> "Server":
            return self

        def __exit__(self, *_: object) -> None: ...

        def __str__(self) -> str:
            return "a server"

        def ask(self, do: str, arguments: Any, **_: object) -> Any:
            asked.append(do)
            if asked.count("search") > 2:
                raise NoServer("it was lost")
            from bridgetower import Library

            with Library("index", "fake") as own:
                wanted = {name: arguments[name] for name in ("text", "top", "depth")}
                return own.search(**wanted) if do == "search" else len(own)

    queries = file("red\nblue\ngreen\nwhite\n")
    alone = bt("search", "--texts-from", queries, "--no-server")
    monkeypatch.setattr(libraries, "Server", Server)
    done = bt("search", "--texts-from", queries, "-v")
    assert done.stdout == alone.stdout and done.exit_code == 0
    assert asked.count("search") == 3  # no more are asked when one was lost
    assert done.stderr.splitlines()[-1] == "no server: it was lost" and len(done.stderr.splitlines()) == 2


def test_progress_is_shown_where_the_answers_go_elsewhere(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(Meter, "update", lambda meter, done, total: told.append((done, total)))
    monkeypatch.setattr(render, "talks_to_terminal", lambda: True)
    bt("search", "--texts-from", file("red\nblue\n"))
    assert told == [(1, 2), (2, 2)]
    bt("search", "--texts-from", "-", input="red\n")
    assert told[2:] == [(1, 0)]
    monkeypatch.setattr(render, "shows_live_tables", lambda: True)
    bt("search", "--texts-from", "queries.txt")
    assert len(told) == 3
