"""The best texts for a picture: those of `match`, the best first, whatever their number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bridgetower import Model
from bridgetower.encoders.protocol import Texts
from bridgetower.errors import MissingHeadError, PictureError, UsageError
from bridgetower.records import Head, PairScore
from bridgetower.retrieval import best_texts as module
from bridgetower.retrieval.encode_pictures import candidates_of
from tests.fakes import FakeEncoder, paint

TEXTS = ["red", "blue", "white", "red and white", "green", "green and white", "green and blue"]


class Counting(FakeEncoder):
    """Counts texts that were encoded, pictures that were, and pairs that were matched."""

    def __init__(self, heads: frozenset[Head] = frozenset(Head)) -> None:
        super().__init__(heads)
        self.texts = self.pictures = self.most = 0

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        self.texts, self.most = self.texts + len(texts), max(self.most, len(texts))
        return super().encode_texts(texts)

    def encode_images(self, pixels: Any) -> Any:
        self.pictures += len(pixels)
        return super().encode_images(pixels)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    colours = {f"{step}": (25 * step, 255 - 25 * step, 90) for step in range(6)}
    return [paint(tmp_path / f"{name}.png", colour) for name, colour in colours.items()]


def best(judge: FakeEncoder, pictures: Sequence[Path], texts: Sequence[str], top: int, depth: int) -> list[PairScore]:
    return list(module.best_texts(judge, candidates_of(pictures), texts, top=top, depth=depth))


@pytest.mark.parametrize("at_once", [2, 256])
def test_they_are_those_of_all_pairs_by_match(
    at_once: int, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", at_once)
    judge = Counting()
    every = Model.from_parts(None, FakeEncoder()).match(pictures, TEXTS)
    expected = []
    for picture in pictures:
        of_one = [pair for pair in every if pair.image == picture]
        expected += sorted(of_one, key=lambda pair: -(pair.itm_logits or (0, 0))[1])[:3]
    found = best(judge, pictures, TEXTS, top=3, depth=7)
    assert [(pair.image, pair.text) for pair in found] == [(pair.image, pair.text) for pair in expected]
    assert [pair.match for pair in found] == pytest.approx([pair.match for pair in expected])
    assert [pair.similarity for pair in found] == [pair.similarity for pair in expected]
    assert judge.pictures == len(pictures) and judge.most <= at_once


@pytest.mark.parametrize("at_once", [2, 256])
def test_only_the_most_similar_ones_are_matched(
    at_once: int, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", at_once)
    judge = Counting()
    every = Model.from_parts(None, FakeEncoder()).match(pictures, TEXTS)
    found = best(judge, pictures, TEXTS, top=2, depth=2)
    assert judge.matched == 2 * len(pictures)
    for picture in pictures:
        similarities = sorted((pair.similarity or 0 for pair in every if pair.image == picture), reverse=True)
        assert (
            sorted((pair.similarity or 0 for pair in found if pair.image == picture), reverse=True) == similarities[:2]
        )


def test_without_a_head_the_other_decides(pictures: list[Path]) -> None:
    by_similarity = best(Counting(frozenset({Head.ITC})), pictures[:1], TEXTS, top=3, depth=1)
    scores = [pair.similarity or 0 for pair in by_similarity]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert {pair.match for pair in by_similarity} == {None}
    judge = Counting(frozenset({Head.ITM}))
    by_match = best(judge, pictures[:1], TEXTS, top=3, depth=1)
    assert judge.matched == len(TEXTS)  # nothing says which are the most similar
    assert len(by_match) == 3 and {pair.similarity for pair in by_match} == {None}
    with pytest.raises(MissingHeadError):
        best(Counting(frozenset({Head.MLM})), pictures[:1], TEXTS, top=3, depth=1)


def test_a_text_given_twice_counts_once(pictures: list[Path]) -> None:
    found = best(Counting(), pictures[:1], ["red", "red", "blue"], top=3, depth=3)
    assert sorted(pair.text for pair in found) == ["blue", "red"]


def test_a_model_tells_which_are_left_out(pictures: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    model = Model.from_parts(None, FakeEncoder(), say=said.append)
    texts = [f"red {number}" for number in range(30)]
    told: list[tuple[int, int]] = []
    assert len(model.match(pictures, texts, top=5, on_progress=lambda *done: told.append(done))) == 5 * len(pictures)
    assert said == [
        "note: 20 of 30 texts are matched with each picture, the most similar ones; a larger --depth matches more"
    ]
    assert told[-1] == (6, 6)
    model.match(pictures, texts, top=5, depth=30)
    assert len(said) == 1
    for wrong in ({"top": 0}, {"top": 1, "depth": 0}, {"depth": 3}):
        with pytest.raises(UsageError):
            model.match(pictures, texts, **wrong)  # type: ignore[arg-type]
    with pytest.raises(PictureError):
        model.match([tmp_path / "nowhere.png"], texts, top=1)
