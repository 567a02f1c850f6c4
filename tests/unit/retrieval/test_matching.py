from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridgetower.encoders.protocol import match_probability
from bridgetower.errors import ModelError, PictureError, UsageError
from bridgetower.records import Head, PairScore
from bridgetower.retrieval import matching
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE, candidates_of
from bridgetower.retrieval.results import Results
from tests.fakes import FakeEncoder, paint


def rerank(judge: FakeEncoder, text: str, paths: Sequence[Path], **options: Any) -> Results:
    return matching.rerank(judge, text, candidates_of(paths), **options)


def match(judge: FakeEncoder, paths: Sequence[Path], texts: Sequence[str], **options: Any) -> Iterator[PairScore]:
    return matching.match(judge, candidates_of(paths), texts, **options)


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    return {name: paint(tmp_path / f"{name}.png", name) for name in ("red", "green", "blue", "white")}


def test_rerank_orders_by_probability(pictures: dict[str, Path]) -> None:
    results = rerank(FakeEncoder(), "white", [pictures[name] for name in ("red", "white", "blue")])
    assert results.hits[0].path == pictures["white"]
    assert results.hits[0].match == pytest.approx(1 / (1 + np.exp(-20 * 0.1)), abs=1e-3)
    assert {(hit.verified, hit.similarity) for hit in results.hits} == {(True, None)}
    assert results.best_match == results.hits[0].match


def test_rerank_takes_more_pictures_than_fit_in_memory_at_once(tmp_path: Path) -> None:
    paths = [paint(tmp_path / f"{i}.png", (i, 0, 255 - i)) for i in range(2 * PICTURES_AT_ONCE + 1)]
    results = rerank(FakeEncoder(), "red", paths)
    assert [hit.path for hit in results.hits] == paths[::-1]
    assert results.verified == len(paths)


def test_rerank_names_what_it_could_not_read_and_counts_a_path_once(pictures: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no")
    paths = [pictures["red"], tmp_path / "bad.jpg", pictures["red"], tmp_path / "gone.png"]
    results = rerank(FakeEncoder(), "red", paths)
    assert [hit.path for hit in results.hits] == [pictures["red"]]
    assert [skip.path.name for skip in results.skipped] == ["bad.jpg", "gone.png"]


def test_rerank_cuts_at_a_threshold(pictures: dict[str, Path]) -> None:
    results = rerank(FakeEncoder(), "red", list(pictures.values()), min_match=0.5)
    assert [hit.path for hit in results.hits] == [pictures["red"]]
    nothing = rerank(FakeEncoder(), "red", [pictures["blue"]], min_match=0.5)
    assert (nothing.hits, nothing.verified) == ((), 1)
    assert nothing.best_match is not None


def test_match_scores_every_pair_in_order(pictures: dict[str, Path]) -> None:
    texts = ["red", "blue"]
    scores = list(match(FakeEncoder(), [pictures["red"], pictures["white"]], texts))
    assert [(score.image.stem, score.text) for score in scores] == [
        ("red", "red"), ("red", "blue"), ("white", "red"), ("white", "blue"),
    ]  # fmt: skip
    assert [score.similarity for score in scores] == pytest.approx([1, 0, 3**-0.5, 3**-0.5], abs=0.02)
    for score in scores:
        assert score.itm_logits is not None
        assert score.similarity is not None
        # The similarity is that of an index, which rounds vectors to float16.
        assert score.itm_logits[1] == pytest.approx(20 * (score.similarity - 0.9), abs=2e-2)
        assert score.match == pytest.approx(match_probability(np.array(score.itm_logits)), abs=1e-6)


def test_match_leaves_out_the_scores_of_heads_that_are_not_there(pictures: dict[str, Path]) -> None:
    [only_itm] = match(FakeEncoder(frozenset({Head.ITM})), [pictures["red"]], ["red"])
    assert only_itm.similarity is None
    assert only_itm.match is not None
    [only_itc] = match(FakeEncoder(frozenset({Head.ITC})), [pictures["red"]], ["red"])
    assert (only_itc.match, only_itc.itm_logits) == (None, None)
    assert only_itc.similarity is not None
    with pytest.raises(ModelError, match="ITM"):
        next(match(FakeEncoder(frozenset({Head.MLM})), [pictures["red"]], ["red"]))


def test_match_stops_at_a_picture_that_cannot_be_read(pictures: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.png: no such file"):
        list(match(FakeEncoder(), [pictures["red"], tmp_path / "gone.png"], ["red"]))
    with pytest.raises(UsageError, match="empty"):
        list(match(FakeEncoder(), [pictures["red"]], [" "]))


@pytest.mark.parametrize(
    ("logits", "probability"), [((0, 0), 0.5), ((-1000, 1000), 1), ((1000, -1000), 0), ((2.0, 1.0), 0.26894143)]
)
def test_match_probability_is_the_softmax(logits: tuple[float, float], probability: float) -> None:
    assert match_probability(np.array(logits, np.float32)) == pytest.approx(probability, abs=1e-6)


def test_progress_counts_every_picture(pictures: dict[str, Path], tmp_path: Path) -> None:
    paths = [tmp_path / "gone.png", *(paint(tmp_path / f"{i}.png", "red") for i in range(PICTURES_AT_ONCE + 1))]
    seen: list[tuple[int, int]] = []
    rerank(FakeEncoder(), "red", paths, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(PICTURES_AT_ONCE, len(paths)), (len(paths), len(paths))]
    seen.clear()
    list(match(FakeEncoder(), paths[1:], ["red", "blue"], on_progress=lambda *counts: seen.append(counts)))
    assert seen == [(len(paths) - 2, len(paths) - 1), (len(paths) - 1, len(paths) - 1)]
