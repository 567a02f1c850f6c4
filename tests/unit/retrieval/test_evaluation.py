import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import bridgetower.retrieval.evaluation
from bridgetower.encoders.protocol import Pictures, Texts
from bridgetower.errors import InputError, PictureError
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.captions.read import read_captions
from bridgetower.records import Skipped
from bridgetower.retrieval import evaluation
from bridgetower.retrieval.evaluation import Evaluation
from tests.fakes import FakeEncoder, paint


def evaluate(model: FakeEncoder, captioned: Sequence[Captioned], **options: Any) -> Iterator[Evaluation]:
    """Measure a model that plays both roles."""
    return evaluation.evaluate(model, model, captioned, **options)


def write(file: Path, *rows: dict[str, Any]) -> Path:
    """A captions file, and the pictures that it names."""
    for row in rows:
        (file.parent / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        (file.parent / row["image"]).touch()
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

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        logits = super().match(texts, images, pairs)
        for row, (text, picture) in enumerate(pairs):
            if texts.features[text] == "white":
                logits[row] = (0, 5) if self._colour(images.features)[picture][2] > 0.9 else (5, 0)
        return logits


def test_reranking_reorders_the_head_only(captioned: list[Captioned]) -> None:
    _, shallow, deep = evaluate(Judge(), captioned, depths=(1, 3))
    assert (shallow.method, shallow.depth) == ("rerank", 1)
    assert shallow.ir == (75.0, 100.0, 100.0)  # a head of one cannot change its order
    assert deep.ir == (100.0, 100.0, 100.0)


class Table(FakeEncoder):
    """What texts (named by their row) and pictures (in order) have to do with each other is written in tables."""

    def __init__(self, similarity: npt.NDArray[np.float32], margins: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.similarity, self.margins = similarity, margins  # [Q, B]

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self.similarity[[int(text) for text in texts]]

    def embed_images(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.eye(len(pixels), dtype=np.float32)

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        rows = np.array([int(text) for text in texts.features])
        margins = self.margins[rows[pairs[:, 0]], pairs[:, 1]]
        return np.stack([np.zeros_like(margins), margins], axis=1)


def test_a_picture_finds_any_of_its_captions_at_any_rank_that_counts(tmp_path: Path) -> None:
    owned = [("0", "1"), ("2", "3"), tuple(str(row) for row in range(4, 12))]
    captioned = [Captioned(paint(tmp_path / f"{i}.png", "red"), captions) for i, captions in enumerate(owned)]
    ranked = [  # for each picture all captions, best first: the best of its own is 3rd, 7th, 1st, and not its first one
        [4, 5, 1, 6, 7, 8, 9, 10, 11, 2, 3, 0],
        [4, 5, 6, 7, 8, 9, 3, 10, 11, 0, 1, 2],
        [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ]
    similarity, margins = np.zeros((12, 3), np.float32), np.zeros((12, 3), np.float32)
    for picture, order in enumerate(ranked):
        similarity[order, picture] = np.linspace(1, 0.1, 12)
        margins[[int(caption) for caption in owned[picture]], picture] = 5
    recall, shallow, deep = evaluate(Table(similarity, margins), captioned, depths=(3, 7))
    assert recall.tr == pytest.approx((100 / 3, 200 / 3, 100))
    assert shallow.tr == pytest.approx((200 / 3, 200 / 3, 100))  # the 7th is beyond its reach
    assert deep.tr == (100, 100, 100)


def test_no_pair_is_verified_twice(captioned: list[Captioned]) -> None:
    encoder = FakeEncoder()
    list(evaluate(encoder, captioned, depths=(1, 2, 3)))
    assert encoder.matched == 3 * 4


def test_verified_pairs_stay_above_the_rest_even_with_the_worst_logits(captioned: list[Captioned]) -> None:
    class Gloomy(FakeEncoder):
        def match(self, texts, images, pairs):  # type: ignore[no-untyped-def]
            return super().match(texts, images, pairs) - np.array([0, 1e4], np.float32)

    _, reranked = evaluate(Gloomy(), captioned, depths=(2,))
    _, usual = evaluate(FakeEncoder(), captioned, depths=(2,))
    assert (reranked.ir, reranked.tr) == (usual.ir, usual.tr)


def test_progress_counts_the_pictures_of_each_pass(captioned: list[Captioned]) -> None:
    seen: list[object] = []
    results = evaluate(FakeEncoder(), captioned, depths=(2,), on_progress=lambda *counts: seen.append(counts))
    seen += (result.method for result in results)
    assert seen == [(3, 3), "recall", (3, 3), "rerank"]


def test_batches_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioned = [Captioned(paint(tmp_path / f"{i}.png", (250, 10 * i, 0)), (f"red {i}",)) for i in range(7)]
    whole = list(evaluate(FakeEncoder(), captioned, depths=(2, 5)))
    monkeypatch.setattr(bridgetower.retrieval.evaluation, "_BATCH", 3)
    seen: list[tuple[int, int]] = []
    assert list(evaluate(FakeEncoder(), captioned, depths=(2, 5), on_progress=lambda *n: seen.append(n))) == whole
    assert seen == [(3, 7), (6, 7), (7, 7)] * 2


def test_captions_are_read_relative_to_their_file(tmp_path: Path) -> None:
    away = tmp_path / "away" / "b.png"
    file = write(
        tmp_path / "c.jsonl", {"image": "a.png", "captions": ["x", "y"]}, {"image": str(away), "captions": ["z"]}
    )
    assert read_captions(file) == [Captioned(tmp_path / "a.png", ("x", "y")), Captioned(away, ("z",))]


def test_several_lines_for_one_picture_are_one_picture(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(paint(tmp_path / "a.png", "red"))
    (tmp_path / "b").mkdir()
    rows = [("a.png", "w"), ("b.png", "x"), ("./b/../a.png", "y"), (str(tmp_path / "a.png"), "z"), ("link.png", "!")]
    file = write(tmp_path / "c.jsonl", *({"image": image, "captions": [caption]} for image, caption in rows))
    merged = [Captioned(tmp_path / "a.png", ("w", "y", "z", "!")), Captioned(tmp_path / "b.png", ("x",))]
    assert read_captions(file) == merged


def test_one_caption_a_line_measures_as_all_captions_in_one(tmp_path: Path, captioned: list[Captioned]) -> None:
    split = write(
        tmp_path / "split.jsonl",
        *({"image": item.image.name, "captions": [text]} for item in captioned for text in item.captions),
    )
    assert list(evaluate(FakeEncoder(), read_captions(split), depths=(20,))) == list(
        evaluate(FakeEncoder(), captioned, depths=(20,))
    )


def test_a_line_ends_where_a_line_ends(tmp_path: Path) -> None:
    r"""Not at the separators that JSON allows in a text; a byte order mark and \r\n are no part of a line."""
    file = tmp_path / "c.jsonl"
    (tmp_path / "a.png").touch()
    file.write_bytes(b"\xef\xbb\xbf" + '{"image": "a.png", "captions": ["a\u2028b\u0085c"]}\r\n\r\n'.encode())
    assert read_captions(file) == [Captioned(tmp_path / "a.png", ("a\u2028b\u0085c",))]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'image': 1}", "not JSON from column 2 on"),
        ('{"image": "a.png", "captions": ["a"]} x', "not JSON from column 39 on"),
        ("9" * 5000, "a number too long, or brackets too deep, to be read"),
        ("[" * 100_000, "a number too long, or brackets too deep, to be read"),
        ("[]", "not a JSON object"),
        ('{"image": "a.png"}', '"captions" is missing'),
        ('{"captions": ["a"]}', '"image" is missing'),
        ('{"image": 3, "captions": ["a"]}', '"image" is not a path'),
        ('{"image": "", "captions": ["a"]}', '"image" is not a path'),
        ('{"image": "a\\u0000", "captions": ["a"]}', '"image" is not a path'),
        ('{"image": "\\ud800", "captions": ["a"]}', '"image" is not a path'),
        ('{"image": "a.png", "captions": []}', '"captions" is not a list of at least one text'),
        ('{"image": "a.png", "captions": "a"}', '"captions" is not a list of at least one text'),
        (
            '{"image": "a.png", "captions": ["a", " "]}',
            '"captions" holds something that is no text, or an empty one',
        ),
        ('{"image": "a.png", "captions": [1]}', '"captions" holds something that is no text, or an empty one'),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_line_is_named_with_what_is_wrong(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text('{"image": "a.png", "captions": ["x"]}\n' + line)
    with pytest.raises(InputError) as raised:
        read_captions(file)
    form = '{"image": "path", "captions": ["text", ...]}'
    assert str(raised.value) == f"{file}, line 2: {complaint}; it should be {form}"


def test_files_that_are_no_captions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_captions(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="no captions"):
        read_captions(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no captions file: it is no text in UTF-8; "):
        read_captions(tmp_path / "binary.jsonl")
    with pytest.raises(InputError, match="not a file but a folder"):
        read_captions(tmp_path)
    with pytest.raises(PictureError, match="gone"):
        list(evaluate(FakeEncoder(), [Captioned(tmp_path / "gone.png", ("x",))], depths=(20,)))


def test_a_picture_that_is_not_there_is_named_with_its_line_or_left_out(tmp_path: Path) -> None:
    rows = [{"image": f"{name}.png", "captions": [name]} for name in ("a", "gone", "b", "gone", "away")]
    file = write(tmp_path / "c.jsonl", *rows)
    for name in ("gone", "away"):
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(InputError) as raised:
        read_captions(file)
    assert str(raised.value) == (
        f"{file}, line 2: {tmp_path / 'gone.png'}: no such file, and 1 more; correct the path, give the folder of the "
        "pictures with --images, or leave out what is missing with --skip-missing"
    )
    missing: list[Skipped] = []
    there = read_captions(file, on_missing=missing.append)
    assert [item.image.name for item in there] == ["a.png", "b.png"]
    assert missing == [
        Skipped(tmp_path / "gone.png", "no such file, in line 2 of c.jsonl"),
        Skipped(tmp_path / "away.png", "no such file, in line 5 of c.jsonl"),
    ]
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(InputError, match="none of its pictures is there"):
        read_captions(file, on_missing=missing.append)


@pytest.fixture
def alike(tmp_path: Path) -> list[Captioned]:
    """Two red pictures with the same text, of which the first is a little more so, and a blue one."""
    texts = {"a": ("red", " red "), "b": ("red",), "c": ("blue",)}
    colours = {"a": (255, 0, 0), "b": (255, 1, 0), "c": (0, 0, 255)}
    return [Captioned(paint(tmp_path / f"{name}.png", colours[name]), captions) for name, captions in texts.items()]


def test_a_text_at_several_pictures_is_right_for_each(alike: list[Captioned]) -> None:
    for result in evaluate(FakeEncoder(), alike, depths=(3,)):
        assert (result.ir, result.tr) == ((100, 100, 100), (100, 100, 100))
        assert (result.credit_same, result.same, result.texts) == (True, 3, 4)
    [recall, _] = evaluate(FakeEncoder(), alike, depths=(3,), credit_same=False)
    assert recall.ir == (75, 100, 100)
    assert recall.tr == pytest.approx((200 / 3, 100, 100))
    assert (recall.credit_same, recall.same) == (False, 3)


def test_a_text_twice_at_one_picture_is_not_at_several(captioned: list[Captioned]) -> None:
    again = [*captioned, Captioned(captioned[0].image, ("other", "other"))]
    assert [result.same for result in evaluate(FakeEncoder(), again, depths=())] == [0]


def test_texts_that_are_cut_are_counted(captioned: list[Captioned]) -> None:
    long = [*captioned, Captioned(captioned[0].image, ("red " * 300,))]
    assert [result.cut for result in evaluate(FakeEncoder(), long, depths=(1,))] == [1, 1]
