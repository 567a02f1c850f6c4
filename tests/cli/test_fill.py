"""`bt fill`: words from named pictures, or from the whole index."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Bt, Models
from tests.fakes import paint


def test_a_picture_says_what_it_shows(bt: Bt, photos: Path) -> None:
    done = bt("fill", "a <mask> blue wall", "--image", photos / "blue.png", "--json", "--top", 2)
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {
        "mask": 0,
        "rank": 1,
        "token": "blue",
        "probability": pytest.approx(1, abs=0.01),
        "images": [str(photos / "blue.png")],
        "count": 1,
    }
    assert (second["rank"], second["probability"] < 0.01) == (2, True)


def test_several_pictures_and_several_masks(bt: Bt, photos: Path) -> None:
    images = ["--image", "photos/red.png", "--image", photos / "blue.png"]
    done = bt("fill", "red and blue: <mask>, <mask>", *images, "--top", 2, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["mask"], row["rank"]) for row in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert {row["token"] for row in rows} == {"red", "blue"}
    assert all(Path(image).is_absolute() for row in rows for image in row["images"])


def test_the_index_is_the_context_where_no_picture_is_named(
    bt: Bt, library: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BT_MODEL", "other")  # the model is that of the index
    done = bt("fill", "a green <mask>")
    assert (done.exit_code, done.stderr) == (0, "")
    header, first, *_ = done.stdout.splitlines()
    assert header.split() == ["word", "probability", "seen", "in"]
    assert first.split()[0] == "green" and first.endswith("photos/green.png")
    assert models.loaded[-1] == ("fake", "cpu")


def test_named_pictures_need_no_index_and_take_the_model_of_the_settings(bt: Bt, photos: Path, models: Models) -> None:
    assert bt("fill", "<mask>", "--image", photos / "red.png", "--model", "mine").exit_code == 0
    assert models.loaded == [("mine", "cpu")]


def test_masks_are_numbered_for_people_where_there_are_several(bt: Bt, library: Path) -> None:
    header, *rows = bt("fill", "<mask> <mask>", "--top", 1).stdout.splitlines()
    assert header.split()[0] == "mask"
    assert [row.split()[:3] for row in rows] == [["1", "of", "2"], ["2", "of", "2"]]  # in JSON they are 0 and 1


def test_neither_picture_nor_index_names_both_ways_out(bt: Bt, photos: Path) -> None:
    done = bt("fill", "a <mask>", "--index", "absent")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "bt index" in done.stderr and "--image" in done.stderr


def test_an_empty_index_says_what_a_search_of_it_says(bt: Bt, photos: Path, models: Models, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    bt("index", "nothing")
    done = bt("fill", "a <mask>")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == bt("search", "a thing").stderr.rstrip() + ", or name a picture with --image FILE\n"
    assert models.loaded == []


def test_pictures_that_cannot_be_read_say_nothing_and_that_is_told(bt: Bt, library: Path) -> None:
    for picture in library.iterdir():
        picture.unlink()
    for form in ([], ["--json"]):
        done = bt("fill", "a <mask>", *form)
        assert (done.exit_code, done.stdout) == (1, "")
        said = done.stderr.splitlines()[-1]
        why = json.loads(said)["no_match"] if form else said.removeprefix("no match: ")
        assert why == "none of the pictures could be read"


def test_words_from_pictures_that_have_nothing_to_do_with_the_text_come_all_the_same(bt: Bt, library: Path) -> None:
    done = bt("fill", "a red and green <mask>", "--image", library / "blue.png", "--top", 1)
    assert (done.exit_code, done.stdout.splitlines()[1].split()[0], done.stderr) == (0, "blue", "")


def test_a_text_without_mask_is_wrong_usage(bt: Bt, library: Path, models: Models) -> None:
    models.loaded.clear()
    done = bt("fill", "a cat")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "<mask>" in done.stderr
    assert models.loaded == []


def test_a_named_picture_that_cannot_be_read_is_an_error(bt: Bt, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    done = bt("fill", "a <mask>", "--image", photos / "red.png", "--image", photos / "bad.png")
    assert (done.exit_code, done.stdout) == (6, "")
    assert "bad.png" in done.stderr


def test_pictures_of_the_index_that_vanished_are_left_out(bt: Bt, library: Path) -> None:
    (library / "green.png").unlink()
    done = bt("fill", "a green <mask>", "--json")
    assert done.exit_code == 0
    assert "passed over 1 picture whose files are gone" in done.stderr
    assert str(paint(library / "green.png", "green")) not in done.stdout


def test_a_text_without_mask_is_wrong_usage_before_a_model_is_looked_for(bt: Bt, photos: Path) -> None:
    done = bt("fill", "a blue wall", "--image", photos / "blue.png", "--model", photos / "nothing")
    assert done.exit_code == 2 and "there is no <mask> in the text" in done.stderr


def test_each_picture_says_its_own_word_and_they_are_counted(bt: Bt, library: Path) -> None:
    paint(library / "deep.png", (250, 10, 0))
    assert bt("index", library).exit_code == 0
    done = bt("fill", "<mask>", "--each")
    assert done.exit_code == 0
    assert done.stderr == "counted 5 of 5 pictures: the sentence with its own word is true of each\n"
    header, first, *rest = done.stdout.splitlines()
    assert header.split() == ["word", "count", "share", "as", "in"]
    assert first.split() == ["red", "2", "40.0%", "photos/red.png"]
    assert {line.split()[0] for line in rest} == {"green", "blue", "white"}
    rows = [json.loads(line) for line in bt("fill", "<mask>", "--each", "--json", "--top", 1).stdout.splitlines()]
    images = [str(library / "red.png"), str(library / "deep.png")]
    assert rows == [{"mask": 0, "rank": 1, "token": "red", "count": 2, "share": 0.4, "images": images}]


def test_depth_is_how_many_pictures_are_read(bt: Bt, library: Path) -> None:
    assert "counted 2 of 2 pictures" in bt("fill", "<mask>", "--each", "--depth", 2).stderr
    rows = [json.loads(line) for line in bt("fill", "<mask>", "--depth", 1, "--json").stdout.splitlines()]
    assert sum(row["count"] for row in rows) == 1
    assert bt("fill", "<mask>", "--depth", 0).exit_code == 2


def test_where_no_picture_fits_there_is_nothing_to_count(bt: Bt, photos: Path) -> None:
    (photos / "white.png").unlink()  # all colours fit it
    assert bt("index", photos).exit_code == 0
    done = bt("fill", "red green <mask>", "--each")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "no match: none of 3 pictures fits the sentence with its own word in it\n"


@pytest.mark.parametrize("option", [["--each"], ["--depth", "3"]], ids=lambda option: option[0])
def test_counts_are_of_the_index(bt: Bt, photos: Path, models: Models, option: list[str]) -> None:
    done = bt("fill", "<mask>", "--image", photos / "red.png", *option)
    assert (done.exit_code, models.resolved) == (2, [])
    assert done.stderr == f"error: {option[0]} is for the pictures of the index: leave it out, or --image\n"
