"""`bt audit`: captions that are false of their pictures."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower.encoders.protocol import Pictures, Texts
from bridgetower.records import Head
from bridgetower_cli import progress, render
from tests.cli.conftest import Bt, Models
from tests.fakes import FakeEncoder

FIELDS = ["image", "place", "caption", "match", "word", "at", "suggestion", "suggested_match"]
STAMP = ["model", "weights", "precision", "preprocessing", "version"]


def captions(photos: Path, **texts: list[str]) -> Path:
    """A captions file with a line for each picture."""
    file = photos / "captions.jsonl"
    rows = [{"image": f"{name}.png", "captions": some} for name, some in texts.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def file(photos: Path) -> Path:
    """Two of five captions are false, the second of them clearly."""
    return captions(photos, red=["red", "a wall"], green=["a green wall", "a blue wall"], blue=["blue"])


def test_the_false_ones_are_shown_with_the_word_and_what_would_be_true(bt: Bt, file: Path) -> None:
    done = bt("audit", file)
    assert done.exit_code == 1
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["match", "picture", "caption", "suggestion", "match", "then"]
    assert first.split() == ["0.000", "photos/green.png", "a", "[blue]", "wall", "green", "0.881"]
    assert second.split()[1:3] == ["photos/red.png", "[a]"]  # any word gives way: none is wrong, one is missing
    [counts] = done.stderr.splitlines()
    assert counts.startswith("5 captions of 3 pictures: 2 below 0.5 (model fake, weights ")
    assert ", preprocessing hf, version " in counts


def test_json_lines_say_what_they_depend_on(bt: Bt, photos: Path, file: Path, models: Models) -> None:
    done = bt("audit", file, "--json", "--below", 0.0001, "--precision", "fp32")
    assert done.exit_code == 1
    [row] = map(json.loads, done.stdout.splitlines())
    assert list(row) == FIELDS + STAMP
    assert (row["image"], row["place"], row["caption"]) == (str(photos / "green.png"), "line 2", "a blue wall")
    assert (row["word"], row["at"], row["suggestion"]) == ("blue", 2, "green")
    assert row["match"] < 0.0001 < 0.8 < row["suggested_match"]
    assert (row["model"], row["precision"], row["preprocessing"]) == ("fake", "fp32", "hf")
    assert len(row["weights"]) == 16 and row["version"].count(".") == 2


def test_csv_is_that_of_the_standard(bt: Bt, photos: Path) -> None:
    (photos / "red.png").rename(photos / 'a "b",\nc.png')
    file = captions(photos, **{'a "b",\nc': ["=green, \u00e4"], "blue": ["blue"]})
    done = bt("audit", file, "--csv")
    assert done.exit_code == 1
    assert done.stdout_bytes.count(b"\r\n") == 2 and done.stdout_bytes.endswith(b"\r\n")
    header, row = csv.reader(io.StringIO(done.stdout_bytes.decode("utf-8"), newline=""), strict=True)
    assert header == FIELDS + STAMP
    told = dict(zip(header, row, strict=True))
    assert (told["image"], told["caption"], told["place"]) == (
        str(photos / 'a "b",\nc.png'),
        "=green, \u00e4",
        "line 1",
    )
    assert (told["word"], told["suggestion"]) == ("green", "red")
    asked = json.loads(bt("audit", file, "--json").stdout)
    assert {name: "" if value is None else str(value) for name, value in asked.items()} == told


def test_a_table_of_values_has_its_header_where_nothing_is_shown(bt: Bt, photos: Path) -> None:
    done = bt("audit", captions(photos, red=["red"]), "--csv")
    assert (done.exit_code, done.stdout_bytes.decode()) == (0, ",".join(FIELDS + STAMP) + "\r\n")
    assert bt("audit", captions(photos, red=["red"])).stdout == ""
    assert bt("audit", captions(photos, red=["red"]), "--json").stdout == ""


@pytest.mark.parametrize(("worst", "shown"), [("1", 1), ("20%", 1), ("21 %", 2), ("60%", 3), ("100%", 5), ("9", 5)])
def test_the_worst_are_a_number_or_a_percentage(bt: Bt, file: Path, worst: str, shown: int) -> None:
    done = bt("audit", file, "--worst", worst, "--json")
    assert (done.exit_code, len(done.stdout.splitlines())) == (1, shown)
    matches = [json.loads(line)["match"] for line in done.stdout.splitlines()]
    assert matches == sorted(matches)


def test_the_exit_code_is_that_of_the_threshold_whatever_is_shown(bt: Bt, file: Path) -> None:
    assert bt("audit", file, "--worst", "1", "--below", 0).exit_code == 0
    assert bt("audit", file, "--worst", "1", "--below", 1).exit_code == 1
    assert bt("audit", file, "--below", 0).exit_code == 0


def test_pictures_that_cannot_be_read_are_named_and_the_rest_is_judged(bt: Bt, photos: Path) -> None:
    file = captions(photos, red=["red"], gone=["blue"], blue=["blue"])
    (photos / "blue.png").write_bytes(b"no picture")
    done = bt("audit", file)
    assert (done.exit_code, done.stdout) == (3, "")
    missing, unreadable, counts = done.stderr.splitlines()
    assert missing == "skipped photos/gone.png: no such file, in line 2 of captions.jsonl"
    assert unreadable.startswith("skipped photos/blue.png: ")
    assert counts.startswith("1 caption of 1 picture: 0 below 0.5 (")
    assert bt("audit", captions(photos, red=["red"], gone=["blue"])).exit_code == 3
    assert bt("audit", captions(photos, red=["red"], blue=["blue"])).exit_code == 3
    assert bt("audit", captions(photos, red=["green"], gone=["blue"])).exit_code == 1  # goes before 3


@pytest.mark.parametrize(
    "content", [None, "", "not json\n", '{"image": "red.png"}\n', '{"image": "x", "captions": ["x"]}\n']
)
def test_a_captions_file_that_cannot_be_used(bt: Bt, photos: Path, models: Models, content: str | None) -> None:
    file = photos / "captions.jsonl"
    if content is not None:
        file.write_text(content)
    done = bt("audit", file)
    assert (done.exit_code, done.stdout, models.resolved) == (6, "", [])
    assert str(file) in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--worst", "0"], ["--worst", "0%"], ["--worst", "101%"], ["--worst", "0.05"], ["--worst", "-1"],
        ["--worst", "some"], ["--below", "50%"], ["--below", "2"], ["--json", "--csv"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_values(bt: Bt, file: Path, models: Models, options: list[str]) -> None:
    done = bt("audit", file, *options)
    assert (done.exit_code, done.stdout, models.resolved) == (2, "", [])


def test_without_words_head_the_word_is_unknown(bt: Bt, file: Path, models: Models) -> None:
    models.heads = frozenset({Head.ITC, Head.ITM})
    done = bt("audit", file, "--json")
    assert {json.loads(line)["word"] for line in done.stdout.splitlines()} == {None}
    assert done.stderr.count("no MLM head") == 1
    table = bt("audit", file).stdout.splitlines()
    assert table[1].split() == ["0.000", "photos/green.png", "a", "blue", "wall", "-", "-"]
    models.heads = frozenset({Head.ITC, Head.MLM})
    done = bt("audit", file)
    assert (done.exit_code, done.stdout) == (4, "")


def test_how_far_it_is_is_told_on_stderr(bt: Bt, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    far = ["matching: 3 of 3 pictures", "explaining: 1 of 2 captions", "explaining: 2 of 2 captions"]
    for form in ([], ["--json"]):
        told = [line.partition(",")[0] for line in bt("audit", file, *form).stderr.splitlines()]
        assert told[:-1] == far
    monkeypatch.setattr(render, "shows_live_tables", lambda: True)
    told = [line.partition(",")[0] for line in bt("audit", file, "--csv").stderr.splitlines()]
    assert told[:-1] == far[:1]  # a bar would stand among the rows


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_an_interrupt_leaves_the_rows_that_were_printed(bt: Bt, file: Path, models: Models, form: str) -> None:
    class Interrupted(FakeEncoder):
        """Is interrupted while it explains the second row."""

        def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> Any:
            if "red wall" in texts.features or "a red" in texts.features:
                raise KeyboardInterrupt
            return super().match(texts, images, pairs)

    models.encoder_type = Interrupted
    done = bt("audit", file, form)
    assert done.exit_code == 130
    assert "a blue wall" in done.stdout and len(done.stdout.splitlines()) == (1 if form == "--json" else 2)


def test_paths_that_are_no_text_are_written_all_the_same(bt: Bt, photos: Path) -> None:
    (photos / "red.png").rename(photos / "\udce9.png")
    file = captions(photos, **{"\udce9": ["green \ud800"]})
    assert b"/\\udce9.png,line 1,green \\ud800," in bt("audit", file, "--csv").stdout_bytes


def test_other_forms_of_captions_and_another_folder(bt: Bt, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\nred.png,red\ngreen.png,blue\n")
    [row] = map(json.loads, bt("audit", table, "--images", photos, "--json").stdout.splitlines())
    assert (row["image"], row["place"], row["caption"]) == (str(photos / "green.png"), "line 3", "blue")
    pictures = [("red.png", "train", "green"), ("blue.png", "test", "green")]
    images = [{"filename": name, "split": split, "sentences": [{"raw": text}]} for name, split, text in pictures]
    document = photos / "dataset.json"
    document.write_text(json.dumps({"images": images}))
    [row] = map(json.loads, bt("audit", document, "--split", "test", "--json").stdout.splitlines())
    assert (row["image"], row["place"]) == (str(photos / "blue.png"), "images[1]")
    assert bt("audit", document, "--split", "val").exit_code == 6
