"""`bt match`, `bt rerank`, `bt eval`: the commands that need no index."""

import json
import os
from pathlib import Path

import pytest

from bridgetower.records import Head
from bridgetower_cli import progress
from tests.cli.conftest import Bt, Models


def test_every_picture_is_scored_with_every_text(bt: Bt, photos: Path) -> None:
    done = bt("match", "photos/red.png", "photos/blue.png", "--text", "red", "--text", "blue", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["image"], row["text"]) for row in rows] == [
        (str(photos / f"{picture}.png"), text) for picture in ("red", "blue") for text in ("red", "blue")
    ]
    assert set(rows[0]) == {"image", "text", "match", "itm_logits", "similarity"}
    assert rows[0]["itm_logits"] == [0, pytest.approx(2, abs=0.1)]
    assert [row["match"] > 0.5 for row in rows] == [True, False, False, True]


@pytest.mark.parametrize(("head", "absent"), [(Head.ITC, ["match", "itm_logits"]), (Head.ITM, ["similarity"])])
def test_a_head_that_a_model_lacks_is_null(bt: Bt, photos: Path, models: Models, head: Head, absent: list[str]) -> None:
    models.heads = frozenset({head})
    row = json.loads(bt("match", "photos/red.png", "--text", "red", "--json").stdout)
    assert [name for name, value in row.items() if value is None] == absent
    match, similarity, *_ = bt("match", "photos/red.png", "--text", "red").stdout.splitlines()[1].split()
    assert (match == "-", similarity == "-") == ("match" in absent, "similarity" in absent)


def test_the_table_of_matches(bt: Bt, photos: Path) -> None:
    header, row = bt("match", "photos/red.png", "--text", "red\x1b[0m wall").stdout.splitlines()
    assert header.split() == ["match", "similarity", "picture", "text"]
    assert row.split()[2:] == ["photos/red.png", "red\\x1b[0m", "wall"]


def test_a_picture_that_cannot_be_scored_is_an_error(bt: Bt, photos: Path) -> None:
    done = bt("match", "photos/red.png", "photos/nowhere.png", "--text", "red")
    assert (done.exit_code, done.stdout) == (6, "")
    assert "nowhere.png" in done.stderr


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["table", "json"])
def test_what_is_not_there_is_told_before_a_model_is_asked_for(
    bt: Bt, photos: Path, models: Models, json: list[str]
) -> None:
    away, here = photos / "nowhere.png", photos / "broken.png"
    here.write_bytes(b"no picture")
    for command in (["match", here, away, "--text", "red"], ["fill", "a <mask>", "--image", here, "--image", away]):
        done = bt(*command, *json)
        assert (done.exit_code, done.stdout) == (6, "") and f"{away}: no such file" in done.stderr
    given = "nowhere.png\n./gone.png\n"
    done = bt("rerank", "red", *json, input=given)
    assert (done.exit_code, done.stdout) == (1, "") and models.resolved == []
    also = bt("rerank", "red", *json, input=f"{given}photos/broken.png\n")  # as the model tells it
    assert models.resolved != [] and (also.exit_code, also.stdout) == (1, "")
    assert done.stderr.splitlines() == [line for line in also.stderr.splitlines() if "broken" not in line]
    assert bt("match", away, "--text", " ").exit_code == 2


@pytest.mark.parametrize("arguments", [["a.png"], ["--text", "a"], ["a.png", "--text", ""]], ids=" ".join)
def test_match_wants_pictures_and_texts(bt: Bt, photos: Path, arguments: list[str]) -> None:
    assert bt("match", *arguments).exit_code == 2


def test_the_best_texts_of_each_picture(bt: Bt, photos: Path) -> None:
    Path("texts").write_bytes(b'\xef\xbb\xbfgreen\r\n\r\n{"text": "blue", "source": 3}\n')
    done = bt("match", "photos/red.png", "photos/blue.png", "--text", "red", "--texts", "texts", "--top", 2, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["rank"], Path(row["image"]).name) for row in rows] == [
        (1, "red.png"), (2, "red.png"), (1, "blue.png"), (2, "blue.png"),
    ]  # fmt: skip
    assert rows[0]["text"] == "red" and rows[2]["text"] == "blue"
    assert list(rows[0])[1:] == ["image", "text", "match", "itm_logits", "similarity"]
    table = bt("match", "photos/red.png", "--texts", "-", "--top", 1, input="blue\nred\n").stdout.splitlines()
    assert len(table) == 2 and table[1].endswith("red")
    every = bt("match", "photos/red.png", "--texts", "texts", "--json").stdout.splitlines()
    assert [json.loads(line)["text"] for line in every] == ["green", "blue"] and "rank" not in every[0]


def test_of_many_texts_the_most_similar_are_matched_which_is_told(bt: Bt, photos: Path) -> None:
    many = "".join(f"blue {number}\n" for number in range(40)) + "red\n"
    done = bt("match", "photos/red.png", "--texts", "-", "--top", 1, "--depth", 3, "--json", input=many)
    assert json.loads(done.stdout)["text"] == "red"
    assert done.stderr.startswith("note: 3 of 41 texts are matched with each picture")


@pytest.mark.parametrize(
    ("given", "code", "why"),
    [
        (b'red\n{"text": 1}', 6, 'texts, line 2: "text" is no text'),
        (b'{"caption": "red"}', 6, 'texts, line 1: "text" is missing'),
        (b"\xff", 6, "texts, line 1: not UTF-8"),
        (b"\n \n", 6, "texts: no texts in it"),
    ],
)
def test_a_wrong_text_is_named_with_its_line(given: bytes, code: int, why: str, bt: Bt, photos: Path) -> None:
    Path("texts").write_bytes(given)
    done = bt("match", "photos/red.png", "--texts", "texts", "--top", 1)
    assert (done.exit_code, done.stdout) == (code, "") and why in done.stderr


@pytest.mark.parametrize("options", [["--depth", "3", "--text", "a"], ["--top", "0", "--text", "a"], ["--top", "1"]])
def test_the_best_texts_want_a_number_and_texts(options: list[str], bt: Bt, photos: Path) -> None:
    assert bt("match", "photos/red.png", *options).exit_code == 2


def test_rerank_orders_what_comes_in_and_keeps_the_paths_as_they_are(bt: Bt, photos: Path) -> None:
    done = bt("rerank", "blue", input=f"photos/red.png\nphotos/../photos/blue.png\n{photos / 'white.png'}\n")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"photos/../photos/blue.png\n{photos / 'white.png'}\nphotos/red.png\n"


def test_rerank_as_json(bt: Bt, photos: Path) -> None:
    done = bt("rerank", "blue", "--json", "--top", 1, input="photos/red.png\nphotos/blue.png")
    assert json.loads(done.stdout) == {"rank": 1, "path": "photos/blue.png", "match": pytest.approx(0.88, abs=0.02)}


def test_rerank_takes_any_name_with_nul_bytes(bt: Bt, photos: Path) -> None:
    name = b"photos/new\nline \xe9.png"
    os.rename(photos / "red.png", name)
    done = bt("rerank", "red", "-0", input=b"photos/blue.png\0" + name + b"\0")
    assert done.stdout_bytes == name + b"\0photos/blue.png\0"


@pytest.mark.parametrize(
    ("options", "given", "hint"),
    [
        ([], b"photos/red.png\0photos/blue.png\0", "add -0"),
        (["-0"], b"photos/red.png\nphotos/blue.png\n", "without -0"),
    ],
)
def test_rerank_hints_at_the_other_kind_of_line(
    bt: Bt, photos: Path, models: Models, options: list[str], given: bytes, hint: str
) -> None:
    done = bt("rerank", "red", *options, input=given)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the paths on stdin end with") and hint in done.stderr
    assert models.resolved == []


def test_rerank_takes_one_name_with_a_line_break_where_there_is_such_a_file(bt: Bt, photos: Path) -> None:
    os.rename(photos / "red.png", photos / "a\nb.png")
    assert bt("rerank", "red", "-0", input=b"photos/a\nb.png").stdout_bytes == b"photos/a\nb.png\0"


def test_rerank_names_what_it_cannot_read_and_orders_the_rest(bt: Bt, photos: Path) -> None:
    done = bt("rerank", "red", input="photos\nphotos/nowhere.png\nphotos/red.png\n")
    assert (done.exit_code, done.stdout) == (0, "photos/red.png\n")
    assert "skipped photos: not a file but a folder" in done.stderr
    assert "skipped photos/nowhere.png: no such file" in done.stderr


def test_rerank_with_a_threshold(bt: Bt, photos: Path) -> None:
    both = "photos/red.png\nphotos/blue.png\n"
    assert bt("rerank", "red", "--min-match", 0.5, input=both).stdout == "photos/red.png\n"
    done = bt("rerank", "red", "--min-match", 0.95, input=both)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("no match: the best of 2 verified pictures has 0.8")


def test_rerank_of_nothing(bt: Bt, photos: Path, models: Models) -> None:
    done = bt("rerank", "red", input="")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "stdin" in done.stderr
    assert models.resolved == []
    assert bt("rerank", "red", input="nowhere.png").exit_code == 1


def captions(photos: Path) -> Path:
    file = photos / "captions.jsonl"
    rows = [{"image": f"{colour}.png", "captions": [colour, f"all {colour}"]} for colour in ("red", "green", "blue")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_eval_prints_a_line_a_method_and_depth(bt: Bt, photos: Path) -> None:
    done = bt("eval", captions(photos), "--depth", 1, "--depth", 3, "--depth", 1, "--json")
    assert done.exit_code == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row.pop("method"), row.pop("depth")) for row in rows] == [("recall", 0), ("rerank", 1), ("rerank", 3)]
    names = ["ir@1", "ir@5", "ir@10", "tr@1", "tr@5", "tr@10"]
    rule = {"credit_same": True, "same_texts": 0, "cut_texts": 0}
    assert rows == [{**dict.fromkeys(names, 100.0), "rsum": 600.0, **rule}] * 3
    assert done.stderr == "3 pictures, 6 texts; texts at several pictures (0) are right for each (--credit-same on)\n"


def test_eval_names_its_rule_and_the_texts_that_are_cut(bt: Bt, photos: Path) -> None:
    file = captions(photos)
    with file.open("a") as more:
        more.write(json.dumps({"image": "white.png", "captions": ["red", "red " * 300]}) + "\n")
    done = bt("eval", file, "--credit-same", "off", "--json")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "note: 1 of 8 texts are longer than the model reads; their ends are left out",
        "4 pictures, 8 texts; texts at several pictures (2) are right for their own only (--credit-same off)",
    ]
    own = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(row["credit_same"], row["same_texts"], row["cut_texts"]) for row in own} == {(False, 2, 1)}
    each = [json.loads(line) for line in bt("eval", file, "--json").stdout.splitlines()]
    assert [row["ir@1"] for row in each] > [row["ir@1"] for row in own]
    done = bt("eval", file, "--credit-same", "maybe")
    assert (done.exit_code, done.stderr) == (2, "error: 'maybe': --credit-same is on or off\n")


def test_eval_names_a_missing_picture_with_its_line_before_a_model_is_looked_for(
    bt: Bt, photos: Path, models: Models
) -> None:
    file = captions(photos)
    (photos / "green.png").unlink()
    done = bt("eval", file)
    assert (done.exit_code, done.stdout, models.resolved) == (6, "", [])
    assert done.stderr.startswith(f"error: {file}, line 2: {photos / 'green.png'}: no such file; correct the path")
    done = bt("eval", file, "--skip-missing")
    assert done.exit_code == 0
    skipped, counts = done.stderr.splitlines()
    assert skipped == "skipped photos/green.png: no such file, in line 2 of captions.jsonl"
    assert counts.startswith("2 pictures, 4 texts; ")


def test_eval_as_a_table(bt: Bt, photos: Path) -> None:
    header, recall, rerank = bt("eval", captions(photos)).stdout.splitlines()
    assert header.split() == ["method", "depth", "IR@1", "IR@5", "IR@10", "TR@1", "TR@5", "TR@10", "rsum"]
    assert recall.split() == ["recall", "-", *["100.0"] * 6, "600.0"]
    assert rerank.split()[:2] == ["rerank", "20"]


def test_eval_of_a_model_without_matching_head_measures_recall_alone(bt: Bt, photos: Path, models: Models) -> None:
    models.heads = frozenset({Head.ITC})
    done = bt("eval", captions(photos), "--json")
    assert done.exit_code == 0
    assert [json.loads(line)["method"] for line in done.stdout.splitlines()] == ["recall"]
    note, counts = done.stderr.splitlines()
    assert note.startswith("note: ") and "no ITM head" in note and counts.startswith("3 pictures, 6 texts; ")


@pytest.mark.parametrize(("head", "arguments"), [(Head.ITM, []), (Head.ITC, ["--depth", 5])])
def test_eval_says_which_head_is_missing(
    bt: Bt, photos: Path, models: Models, head: Head, arguments: list[object]
) -> None:
    models.heads = frozenset({head})
    done = bt("eval", captions(photos), *arguments)
    [missing] = {Head.ITM, Head.ITC} - {head}
    assert (done.exit_code, done.stdout) == (4, "")
    assert f"no {missing.name} head" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["match", "photos/red.png", "photos/blue.png", "--text", "red"], ["matching: 2 of 2 pictures"]),
        (["rerank", "red"], ["verifying: 2 of 2 pictures"]),
        (["fill", "red <mask>", "--image", "photos/red.png"], ["reading: 1 of 1 pictures"]),
        (["fill", "red <mask>"], ["reading: 4 of 4 pictures"]),
        (["eval", "photos/captions.jsonl"], ["encoding: 3 of 3 pictures", "verifying: 3 of 3 pictures"]),
    ],
    ids=lambda value: value[0],
)
def test_how_far_it_is_is_told_on_stderr(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], shown: list[str]
) -> None:
    captions(library)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    done = bt(*arguments, input="photos/red.png\nphotos/blue.png\n")
    assert done.exit_code == 0
    assert [line.partition(",")[0] for line in done.stderr.splitlines() if " of " in line] == shown


@pytest.mark.parametrize("content", [None, "", "not json\n", '{"image": "nowhere.png", "captions": ["x"]}\n'])
def test_a_captions_file_that_cannot_be_used(bt: Bt, photos: Path, content: str | None) -> None:
    file = photos / "captions.jsonl"
    if content is not None:
        file.write_text(content)
    done = bt("eval", file)
    assert (done.exit_code, done.stdout) == (6, "")
    assert str(photos) in done.stderr


def test_rerank_gives_back_paths_as_they_were_spelled(bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "./-x.png" as "-x.png" would be an option to whatever reads it."""
    monkeypatch.chdir(photos)
    name = sorted(photos.iterdir())[0].name
    done = bt("rerank", "red", input=f"./{name}\n.//{name}\n{name}\n")
    assert done.stdout.splitlines() == [f"./{name}", f".//{name}", name]


def test_captions_are_read_before_a_model_is_looked_for(bt: Bt, photos: Path) -> None:
    done = bt("eval", photos / "nothing.jsonl", "--model", photos / "nothing")
    assert done.exit_code == 6 and "nothing.jsonl" in done.stderr
