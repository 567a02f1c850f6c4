"""`bt search` with several texts, weights, texts that must not be true, an order and an offset."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.cli.conftest import Bt
from tests.fakes import paint


def lines(done: Result) -> list[Any]:
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def names(done: Result) -> list[str]:
    return [Path(row["path"]).stem for row in lines(done)]


def test_what_must_not_be_true_comes_last_of_the_verified(bt: Bt, library: Path) -> None:
    rows = lines(bt("search", "red", "--not", "red", "--not", "blue", "--depth", 2, "--json"))
    assert [row["ruled_out"] for row in rows] == [False, True, False, False]
    assert Path(rows[1]["path"]).stem == "red" and rows[1]["against"] == [rows[1]["match"], pytest.approx(0, abs=1e-6)]
    assert rows[3]["against"] is None and "matches" not in rows[0]
    header, *table = bt("search", "red", "--not", "red", "--depth", 3).stdout.splitlines()
    assert header.split() == ["match", "not", "similarity", "picture"]
    assert table[2].split()[0:3] == ["0.881", "x", "0.881"] and table[2].endswith("red.png")
    assert table[3].split()[0:2] == ["unverified", "unverified"] and " x " not in "".join(table[:2])


def test_a_least_match_leaves_out_what_must_not_be_true(bt: Bt, library: Path) -> None:
    assert names(bt("search", "red", "--not", "blue", "--min-match", 0.5, "--json")) == ["red"]
    done = bt("search", "red", "--not", "red", "--min-match", 0.5)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "no match: the best of 4 verified pictures has 0.002, and --not rules out 1\n"
    done = bt("search", "white", "--not", "white", "--min-match", 0.5, "--under", library / "white.png")
    assert done.stderr == "no match: --not rules out all of 1 verified picture\n"


def test_a_picture_with_what_it_must_not_show(bt: Bt, library: Path) -> None:
    header, *table = bt("search", "--image", library / "red.png", "--not", "white").stdout.splitlines()
    assert header.split() == ["not", "similarity", "picture"]
    assert table[-1].split()[:2] == ["x", "0.881"] and table[-1].endswith("white.png") and len(table) == 3
    rows = lines(bt("search", "--image", library / "red.png", "--not", "white", "--json"))
    assert {row["match"] for row in rows} == {None} and {row["verified"] for row in rows} == {True}


def test_several_texts_must_all_be_true(bt: Bt, library: Path) -> None:
    paint(library / "yellow.png", (255, 255, 0))
    assert bt("index", library).exit_code == 0
    rows = lines(bt("search", "red", "the green", "--json"))
    assert Path(rows[0]["path"]).stem == "yellow" and rows[0]["match"] == min(rows[0]["matches"])
    assert names(bt("search", "red", "the green", "--weights", "9,1", "--no-rerank", "--json"))[0] == "red"
    assert "<code>--weights 9,1</code>" in bt("search", "red", "the green", "--weights", "9,1", "--html", "-").stdout
    asked = ("search", "green", "--image", library / "red.png", "--json", "--no-rerank")
    assert names(bt(*asked, "--weights", "1,9"))[0] != names(bt(*asked, "--weights", "9,1"))[0] == "green"


def test_words_without_quotes_are_told(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "green", "--top", 1)
    assert done.stderr.startswith(
        'note: 2 texts, each of which must be true; for one text of these words: "red green"\n'
    )
    assert "2 texts" not in bt("search", "red wall", "green", "--top", 1).stderr


def test_the_picture_that_is_asked_with_is_left_out_and_kept(bt: Bt, library: Path) -> None:
    assert "red" not in names(bt("search", "--image", library / "red.png", "--json"))
    assert names(bt("search", "--image", library / "red.png", "--self", "--json"))[0] == "red"


def test_an_order_is_of_what_is_shown_and_ranks_stay(bt: Bt, library: Path) -> None:
    for number, name in enumerate(("red", "green")):
        (library / f"{name}.png").rename(library / f"IMG_2019070{number + 1}_101500_{name}.png")
    assert bt("index", library).exit_code == 0
    asked = ("search", "red", "--top", 4, "--json")
    plain = lines(bt(*asked))
    by_path, by_date = lines(bt(*asked, "--sort", "path")), lines(bt(*asked, "--sort", "date"))
    assert sorted(by_path, key=lambda row: row["rank"]) == plain == sorted(by_date, key=lambda row: row["rank"])
    assert [row["path"] for row in by_path] == sorted((row["path"] for row in plain), key=os.fsencode)
    dates = [row["taken_at"] for row in by_date]
    dated = [date for date in dates if date is not None]
    assert dated == sorted(dated, reverse=True) and dates == dated + [None] * 2 and len(dated) == 2
    shown = bt("search", "red", "--top", 4, "--sort", "path", "--paths").stdout.splitlines()
    assert shown == [row["path"] for row in by_path]
    table = bt("search", "red", "--top", 4, "--sort", "path").stdout.splitlines()[1:]
    assert [row.split()[-1] for row in table] == [os.path.relpath(row["path"]) for row in by_path]


def test_an_offset_skips_results(bt: Bt, library: Path) -> None:
    whole = lines(bt("search", "red", "--json"))
    assert lines(bt("search", "red", "--json", "--offset", 1, "--top", 2)) == whole[1:3]
    assert bt("search", "red", "--paths", "--offset", 3).stdout == whole[3]["path"] + "\n"
    done = bt("search", "red", "--offset", 4)
    assert (done.exit_code, done.stderr) == (1, "no match: there are no results after the first 4\n")


@pytest.mark.parametrize("unique", [[], ["--unique"]])
def test_more_than_there_is_may_be_shown_and_skipped(bt: Bt, library: Path, unique: list[str]) -> None:
    every = bt("search", "red", "--paths", *unique).stdout.splitlines()
    assert bt("search", "red", "--paths", "--top", 10**30, *unique).stdout.splitlines() == every
    for top in (1, 10**30):
        done = bt("search", "red", "--offset", 10**30, "--top", top, *unique)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["red", "--no-rerank", "--under", "white.png", "--offset", 1], "there are no results after the first 1"),
        (["--image", "red.png", "--under", "red.png"], "no other picture of the index passes --under"),
        (["--image", "red.png", "--not", "red", "--under", "red.png"], "no other picture of the index passes --under"),
        (
            ["--image", "red.png", "--under", "white.png", "--min-similarity", 0.99],
            "the most similar picture has 0.578",
        ),
        (
            ["--image", "red.png", "--not", "white", "--min-similarity", 0.99],
            "the most similar picture has 0.578, and --not rules out 1",
        ),
    ],
)
def test_no_results_have_a_true_reason(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], line: str
) -> None:
    monkeypatch.chdir(library)
    done = bt("search", *options)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"no match: {line}\n")


def test_a_picture_is_alone_in_its_index(bt: Bt, tmp_path: Path) -> None:
    alone = paint(tmp_path / "photos" / "red.png", "red")
    assert bt("index", alone.parent, "--index", tmp_path / "alone").exit_code == 0
    done = bt("search", "--image", alone, "--index", tmp_path / "alone")
    assert (done.exit_code, done.stderr) == (1, "no match: the index has no other picture\n")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["red", "--weights", "1,2"], "weights: 2 given, 1 wanted: for each text (1), then for each picture (0)"),
        (["red", "--weights", "1;2"], "'1;2': weights are positive numbers with commas between them, as 2,1,0.5"),
        (["red", "--weights=-1"], "weight -1: a number at least 0 is wanted"),
        (
            ["--not", "red"],
            "nothing to search for: give a text, a picture, or both, beside those that must not be true",
        ),
        (["red", "--not", " "], "--not: the text is empty; give at least one word"),
        (["red", "--not", "blue", "--no-rerank"], "texts that must not be true are verified: they need a depth of at"),
        (["red", "--sort", "size"], "--sort: 'size' is unknown: choose one of match, date, path"),
        (["red", "--offset", "-1"], "--offset: '-1': a whole number of at least 0 is wanted, as 10"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(bt: Bt, library: Path, options: list[str], line: str) -> None:
    done = bt("search", *options)
    assert (done.exit_code, done.stdout) == (2, "") and done.stderr.startswith(f"error: {line}")
