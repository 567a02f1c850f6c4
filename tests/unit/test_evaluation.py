import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower.encoder import Pixels
from bridgetower.errors import InputError, PictureError
from bridgetower.evaluation import Captioned, evaluate, read_captions
from tests.fakes import FakeEncoder, paint


def write(file: Path, *rows: object) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


@pytest.fixture
def captioned(tmp_path: Path) -> list[Captioned]:
    """Three pictures; "red" and "green" find their own first, "white" stands by mistake with the blue one."""
    texts = {"red": ("red", "very red"), "green": ("green",), "blue": ("white",)}
    return [Captioned(paint(tmp_path / f"{name}.png", name), captions) for name, captions in texts.items()]


def test_recall_is_what_brute_force_says(captioned: list[Captioned]) -> None:
    encoder = FakeEncoder()
    [recall] = evaluate(encoder, captioned, depths=())
    assert (recall.method, recall.depth, recall.pictures, recall.texts) == ("recall", 0, 3, 4)
    # "white" is as near to every picture: the first one wins the tie, so 3 of 4 texts find theirs.
    assert recall.ir == (75.0, 100.0, 100.0)
    # The blue picture is nearest to "white" (cosine 0.58 against 0).
    assert recall.tr == (100.0, 100.0, 100.0)
    assert recall.rsum == pytest.approx(575)


class Judge(FakeEncoder):
    """A matching head that knows better: "white" belongs to blue and to nothing else."""

    def match(self, texts: Sequence[str], pixels: Pixels, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        logits = super().match(texts, pixels, pairs)
        for row, (text, picture) in enumerate(pairs):
            if texts[text] == "white":
                logits[row] = (0, 5) if self._colour(pixels)[picture][2] > 0.9 else (5, 0)
        return logits


def test_reranking_reorders_the_head_only(captioned: list[Captioned]) -> None:
    _, shallow, deep = evaluate(Judge(), captioned, depths=(1, 3))
    assert (shallow.method, shallow.depth) == ("rerank", 1)
    assert shallow.ir == (75.0, 100.0, 100.0)  # a head of one cannot change its order
    assert deep.ir == (100.0, 100.0, 100.0)


def test_no_pair_is_verified_twice(captioned: list[Captioned]) -> None:
    encoder = FakeEncoder()
    list(evaluate(encoder, captioned, depths=(1, 2, 3)))
    assert encoder.matched == 3 * 4


def test_verified_pairs_stay_above_the_rest_even_with_the_worst_logits(captioned: list[Captioned]) -> None:
    class Gloomy(FakeEncoder):
        def match(self, texts, pixels, pairs):  # type: ignore[no-untyped-def]
            return super().match(texts, pixels, pairs) - np.array([0, 1e4], np.float32)

    _, reranked = evaluate(Gloomy(), captioned, depths=(2,))
    _, usual = evaluate(FakeEncoder(), captioned, depths=(2,))
    assert (reranked.ir, reranked.tr) == (usual.ir, usual.tr)


def test_progress_counts_both_passes(captioned: list[Captioned]) -> None:
    seen: list[tuple[int, int]] = []
    list(evaluate(FakeEncoder(), captioned, depths=(2,), on_progress=lambda done, total: seen.append((done, total))))
    assert seen == [(3, 6), (6, 6)]


def test_captions_are_read_relative_to_their_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "c.jsonl", {"image": "a.png", "captions": ["x", "y"]}, {"image": "/b.png", "captions": ["z"]}
    )
    assert read_captions(file) == [Captioned(tmp_path / "a.png", ("x", "y")), Captioned(Path("/b.png"), ("z",))]


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.png"},
        {"captions": ["a"]},
        {"image": "a.png", "captions": []},
        {"image": "a.png", "captions": "a"},
        {"image": "a.png", "captions": [""]},
        {"image": 3, "captions": ["a"]},
        [],
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: object) -> None:
    file = write(tmp_path / "c.jsonl", {"image": "a.png", "captions": ["x"]}, row)
    with pytest.raises(InputError, match=r"c\.jsonl, line 2"):
        read_captions(file)


def test_files_that_are_no_captions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_captions(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="no captions"):
        read_captions(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_captions(tmp_path / "binary.jsonl")
    with pytest.raises(PictureError, match="gone"):
        list(evaluate(FakeEncoder(), [Captioned(tmp_path / "gone.png", ("x",))]))
