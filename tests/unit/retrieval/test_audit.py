"""Captions against pictures of one colour, with a double that sees nothing but colour."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower import Audit, Model
from bridgetower.encoders.protocol import MaskedPrediction, Pictures, Pixels, Texts
from bridgetower.errors import InputError, ModelError, UsageError
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.captions.read import read_captions
from bridgetower.records import Head, Stamp
from tests.fakes import FakeEncoder, paint


class Watched(FakeEncoder):
    """Keeps the texts that it is asked for, and counts the pictures that it encodes."""

    def __init__(self, heads: frozenset[Head] = frozenset(Head)) -> None:
        super().__init__(heads)
        self.texts: list[str] = []
        self.seen = 0

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        self.texts += texts
        return super().encode_texts(texts)

    def encode_images(self, pixels: Pixels) -> Pictures:
        self.seen += len(pixels)
        return super().encode_images(pixels)


def pictures(folder: Path, **captions: Sequence[str]) -> list[Captioned]:
    """A picture of each colour with its captions."""
    return [Captioned(paint(folder / f"{colour}.png", colour), texts) for colour, texts in captions.items()]


def audited(captioned: Any, judge: FakeEncoder | None = None, **options: Any) -> Audit:
    judge = judge or FakeEncoder()
    return Model.from_parts(None if Head.ITC not in judge.heads else judge, judge).audit(captioned, **options)


def test_the_false_captions_are_shown_worst_first_and_each_caption_is_judged_by_itself(tmp_path: Path) -> None:
    captioned = pictures(tmp_path, red=["red", "a green wall"], blue=["a wall"], green=["green"])
    found = audited(captioned)
    assert (found.captions, found.pictures, found.below, found.cut, found.skipped) == (4, 3, 2, 0, ())
    assert [(row.image.name, row.caption) for row in found.rows] == [
        ("red.png", "a green wall"),
        ("blue.png", "a wall"),
    ]
    matches = [row.match for row in audited(captioned, worst=1.0).rows]
    assert matches == sorted(matches) and len(matches) == 4
    fake = FakeEncoder()
    alone = Model.from_parts(fake, fake).match([tmp_path / "red.png"], ["a green wall"])
    assert matches[0] == found.rows[0].match == alone[0].match


def test_the_word_is_the_one_whose_replacement_makes_the_caption_most_probable(tmp_path: Path) -> None:
    [row] = audited(pictures(tmp_path, red=["the big green wall"])).rows
    assert (row.word, row.at, row.suggestion) == ("green", 8, "red")
    fake = FakeEncoder()
    mended = Model.from_parts(fake, fake).match([tmp_path / "red.png"], ["the big red wall"])
    assert row.suggested_match == mended[0].match


def test_a_word_that_stands_twice_is_named_by_its_place(tmp_path: Path) -> None:
    class Second(FakeEncoder):
        """Says that only the second of two words is wrong."""

        def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            margins = [5.0 if text == "green, red" else -5.0 for text in texts.features]
            return np.array([[0, margins[text]] for text, _ in pairs], np.float32)

    [row] = audited(pictures(tmp_path, red=["green, green"]), Second()).rows
    assert (row.word, row.at, row.suggestion) == ("green", 7, "red")


def test_of_two_that_mend_alike_the_word_that_is_likelier_there_is_suggested(tmp_path: Path) -> None:
    class Alike(FakeEncoder):
        """MLM finds "blue" likelier than "white"; ITM prefers "white" by less than that, or by more."""

        by = 0.5

        def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            margins = [{"blue": 3.0, "white": 3.0 + self.by}.get(text, -3.0) for text in texts.features]
            return np.array([[0, margins[text]] for text, _ in pairs], np.float32)

        def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
            return MaskedPrediction(None, np.log(np.array([[[0.01, 0.02, 0.02, 0.7, 0.25]]], np.float32)))

    captioned, judge = pictures(tmp_path, red=["green"]), Alike()
    assert audited(captioned, judge).rows[0].suggestion == "blue"
    judge.by = 2.0
    assert audited(captioned, judge).rows[0].suggestion == "white"


def test_a_word_that_the_head_would_put_there_itself_is_left_alone(tmp_path: Path) -> None:
    judge = Watched()
    audited(pictures(tmp_path, red=["Red and green"]), judge)
    assert "white and green" not in judge.texts and "green and green" not in judge.texts  # in the place of "Red"
    assert "Red and red" in judge.texts


def test_no_word_is_named_where_no_other_makes_the_caption_more_probable(tmp_path: Path) -> None:
    [row] = audited(pictures(tmp_path, red=["red wall"]), worst=1).rows  # "red red" is as probable
    assert row.match > 0.5
    assert (row.word, row.at, row.suggestion, row.suggested_match) == (None, None, None, None)


def test_a_caption_with_a_mask_of_its_own_has_no_suggestion(tmp_path: Path) -> None:
    [row] = audited(pictures(tmp_path, red=["a <mask> green"])).rows
    assert row.word is None


def test_a_word_that_the_model_does_not_read_is_not_named(tmp_path: Path) -> None:
    class Short(FakeEncoder):
        """Reads no mask in the place of the last word."""

        def encode_texts(self, texts: Sequence[str]) -> Texts:
            encoded = super().encode_texts(texts)
            masks = tuple(
                () if text.endswith("<mask>") else mask for text, mask in zip(texts, encoded.masks, strict=True)
            )
            return Texts(encoded.vectors, masks, encoded.features)

        def truncates(self, text: str) -> bool:
            return True

    found = audited(pictures(tmp_path, red=["wall green"]), Short())
    assert (found.cut, found.rows[0].word) == (1, "wall")


def test_worst_is_a_number_or_a_share_and_leaves_the_threshold_to_the_count(tmp_path: Path) -> None:
    captioned = pictures(tmp_path, red=["red", "green", "blue"], blue=["blue", "red"])
    ordered = [(row.image.name, row.caption) for row in audited(captioned, worst=5).rows]
    for worst, number in ((1, 1), (99, 5), (1.0, 5), (0.2, 1), (0.21, 2)):
        found = audited(captioned, worst=worst, below=0.1)
        assert [(row.image.name, row.caption) for row in found.rows] == ordered[:number]
        assert found.below == 3


def test_rows_come_one_by_one_worst_first_after_the_pictures(tmp_path: Path) -> None:
    told: list[Any] = []
    captioned = pictures(tmp_path, red=["blue", "red"], green=["a wall"], blue=["red"])
    found = audited(
        captioned, on_progress=lambda *at: told.append(at), on_row=lambda row, total: told.append((row, total))
    )
    assert told == [(3, 3), *((row, 3) for row in found.rows)]


def test_a_picture_is_encoded_once_to_match_and_once_to_explain(tmp_path: Path) -> None:
    judge = Watched()
    audited(pictures(tmp_path, red=["green", "blue", "red", "white and green"], blue=["blue"]), judge)
    assert judge.seen == 2 + 1


def test_pictures_that_cannot_be_read_are_named_and_the_others_judged(tmp_path: Path) -> None:
    captioned = pictures(tmp_path, red=["green"], blue=["blue"])
    (tmp_path / "blue.png").write_bytes(b"no picture")
    told: list[tuple[int, int]] = []
    found = audited(captioned, on_progress=lambda *at: told.append(at))
    assert [skip.path.name for skip in found.skipped] == ["blue.png"]
    assert (found.captions, found.pictures, len(found.rows), told[-1]) == (1, 1, 1, (2, 2))
    (tmp_path / "red.png").unlink()
    told.clear()
    nothing = audited(captioned, on_progress=lambda *at: told.append(at))
    assert (nothing.captions, nothing.rows, len(nothing.skipped), told[-1]) == (0, (), 2, (2, 2))


def test_a_picture_that_goes_away_in_between_keeps_its_match(tmp_path: Path) -> None:
    [item] = pictures(tmp_path, red=["green"])
    found = audited([item], on_progress=lambda *_: item.image.unlink())
    assert (found.rows[0].caption, found.rows[0].word) == ("green", None)
    assert [skip.path for skip in found.skipped] == [item.image]


def test_without_words_head_the_word_is_left_out_and_that_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    judge = FakeEncoder(frozenset({Head.ITM}))
    found = Model.from_parts(None, judge, say=said.append).audit(pictures(tmp_path, red=["green", "blue"]))
    assert [row.word for row in found.rows] == [None, None]
    assert len(said) == 1 and "no MLM head" in said[0]
    with pytest.raises(ModelError, match="no ITM head"):
        audited(pictures(tmp_path, red=["green"]), FakeEncoder(frozenset({Head.MLM})))


def test_a_file_gives_each_caption_its_place_and_missing_pictures_are_skipped(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", "red")
    rows = [("red.png", ["red"]), ("gone.png", ["green"]), ("./red.png", ["blue", "green"])]
    file = tmp_path / "captions.jsonl"
    file.write_text("".join("\n" + json.dumps({"image": image, "captions": texts}) for image, texts in rows))
    found = audited(file)
    assert {(row.caption, row.place) for row in found.rows} == {("blue", "line 4"), ("green", "line 4")}
    assert [str(skip.path) for skip in found.skipped] == [str(tmp_path / "gone.png")]
    assert audited(read_captions(file, on_missing=lambda _: None)).rows == found.rows
    file.write_text("not json")
    with pytest.raises(InputError, match="line 1"):
        audited(file)


def test_pictures_in_memory_have_no_place(tmp_path: Path) -> None:
    content = paint(tmp_path / "red.png", "red").read_bytes()
    [row] = audited([Captioned(content, ["green"])]).rows
    assert (str(row.image), row.place, row.word) == ("<picture 0>", None, "green")


@pytest.mark.parametrize(
    "wrong",
    [
        {"worst": 0}, {"worst": -1}, {"worst": 0.0}, {"worst": 1.5}, {"worst": True}, {"worst": "5%"}, {"below": 2},
        {"below": None}, {"on_row": 1}, {"on_progress": None},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_are_checked_before_a_picture_is_read(tmp_path: Path, wrong: dict[str, Any]) -> None:
    judge = Watched()
    with pytest.raises(UsageError):
        audited(pictures(tmp_path, red=["green"]), judge, **wrong)
    assert judge.seen == 0
    with pytest.raises(UsageError, match="list of Captioned"):
        audited([tmp_path / "red.png"])


def test_places_of_captions_are_checked(tmp_path: Path) -> None:
    assert Captioned("a.png", ["x", "y"], ["line 3", "line 4"]).places == ("line 3", "line 4")
    assert Captioned("a.png", ["x"], ["line 3"]) == Captioned("a.png", ["x"])
    for places in (["line 3"], ["line 3", 4], "line 3"):
        with pytest.raises(UsageError):
            Captioned("a.png", ["x", "y"], cast(Any, places))


def test_the_stamp_says_what_judges() -> None:
    fake = FakeEncoder()
    assert Model.from_parts(fake, fake).stamp == Stamp("fake", None, None, "hf")
