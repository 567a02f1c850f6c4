import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower.encoders.protocol import MaskedPrediction, Pictures, Texts
from bridgetower.errors import ModelError, UsageError
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.records import Head
from bridgetower.retrieval import fill
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE, candidates_of
from bridgetower.retrieval.fill import fill_library
from bridgetower.retrieval.indexing import index
from bridgetower.retrieval.results import Filled
from tests.clouds import evict
from tests.fakes import FakeEncoder, paint

pytestmark = pytest.mark.usefixtures("decode_here")


def fill_images(judge: FakeEncoder, text: str, paths: list[Path], **options: Any) -> Filled:
    return fill.fill_images(judge, text, candidates_of(paths), **options)


def test_one_picture_says_what_it_is(tmp_path: Path) -> None:
    filled = fill_images(FakeEncoder(), "a <mask> thing", [paint(tmp_path / "a.png", "blue")], top=3)
    assert filled.words[0].token == "blue"
    assert [word.rank for word in filled.words] == [1, 2, 3]
    probabilities = [word.probability for word in filled.words]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)  # of blue, white and one more, the rest is nothing
    assert filled.words[0].images == (tmp_path / "a.png",)


def test_pictures_are_mixed_by_how_well_the_text_fits(tmp_path: Path) -> None:
    """p(word) = sum w_i p(word | i), w_i the ITM probabilities, normalised; by hand for two pictures."""
    paths = [paint(tmp_path / "red.png", "red"), paint(tmp_path / "pink.png", (255, 120, 120))]
    encoder = FakeEncoder()
    filled = fill_images(encoder, "red <mask>", paths, top=4)
    single = [fill_images(encoder, "red <mask>", [path], top=4) for path in paths]
    weights = np.array([one.best_match for one in single])
    weights /= weights.sum()
    for word in filled.words:
        parts = [next(w.probability for w in one.words if w.token == word.token) for one in single]
        assert word.probability == pytest.approx(float(weights @ np.array(parts)), rel=1e-4)
    assert filled.best_match == pytest.approx(max(one.best_match or 0 for one in single))
    assert filled.words[0].token == "red"
    assert filled.words[0].images[0] == tmp_path / "red.png"


def test_each_mask_has_its_own_words(tmp_path: Path) -> None:
    filled = fill_images(FakeEncoder(), "a <mask> and a <mask>", [paint(tmp_path / "a.png", "red")], top=2)
    assert [(word.mask, word.rank) for word in filled.words] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_word_with_and_without_a_space_is_shown_once_with_the_likelier_ones_probability(tmp_path: Path) -> None:
    class Doubled(FakeEncoder):
        def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
            probabilities = np.array([[[0.1, 0.3, 0.35, 0.25]]], np.float32)  # nothing, "red", "green", " red"
            return MaskedPrediction(np.array([[0, 9]], np.float32), np.log(probabilities))

        def word(self, token: int) -> str:
            return ("", "red", "green", "red")[token]

    filled = fill_images(Doubled(), "a <mask>", [paint(tmp_path / "a.png", "red")])
    assert [word.token for word in filled.words] == ["green", "red"]
    assert [word.probability for word in filled.words] == pytest.approx([0.35, 0.3])


def test_a_word_counts_the_pictures_that_say_it_first(tmp_path: Path) -> None:
    """Two masks and four pictures; token 0 is no word, and tokens 1 and 3 are the same word."""

    class Counted(FakeEncoder):
        def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
            first = [[0.1, 0.6, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6], [0.5, 0.1, 0.3, 0.1], [0.1, 0.2, 0.6, 0.1]]
            second = [[0.1, 0.1, 0.7, 0.1]] * 4
            probabilities = np.array([first, second], np.float32).swapaxes(0, 1)
            return MaskedPrediction(np.array([[0, 9]] * 4, np.float32), np.log(probabilities))

        def word(self, token: int) -> str:
            return ("", "red", "green", "red")[token]

    paths = [paint(tmp_path / f"{i}.png", (255, i, 0)) for i in range(4)]
    words = fill_images(Counted(), "a <mask> <mask>", paths).words
    assert {(word.mask, word.token): word.count for word in words} == {
        (0, "red"): 2, (0, "green"): 2, (1, "red"): 0, (1, "green"): 4,
    }  # fmt: skip
    assert {word.hashes for word in words} == {()}


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").touch()
    filled = fill_images(FakeEncoder(), "a <mask>", [tmp_path / "bad.png", paint(tmp_path / "a.png", "red")])
    assert [skip.path.name for skip in filled.skipped] == ["bad.png"]
    assert filled.words[0].token == "red"
    nothing = fill_images(FakeEncoder(), "a <mask>", [tmp_path / "bad.png"])
    assert (nothing.words, nothing.best_match) == ((), None)


def test_progress_counts_pictures(tmp_path: Path) -> None:
    there = [paint(tmp_path / f"{i}.png", (255, i, 0)) for i in range(PICTURES_AT_ONCE + 2)]
    paths = [there[0], tmp_path / "gone.png", *there[1:]]
    seen: list[tuple[int, int]] = []
    fill_images(FakeEncoder(), "a <mask>", paths, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(PICTURES_AT_ONCE, len(paths)), (len(paths), len(paths))]


def test_a_text_without_a_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="<mask>"):
        fill_images(FakeEncoder(), "a thing", [paint(tmp_path / "a.png", "red")])


def test_the_library_is_the_context(tmp_path: Path) -> None:
    """Only the pictures that the text recalls have a say."""
    for i in range(6):
        paint(tmp_path / "photos" / f"g{i}.png", (0, 255, i))
        paint(tmp_path / "photos" / f"r{i}.png", (255, 0, i))
    encoder = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", encoder.fingerprint) as writer:
        index([tmp_path / "photos"], writer, lambda: Model.from_parts(encoder))
    with IndexReader.open(tmp_path / "index") as store:
        filled = fill_library(store, encoder, encoder, "green <mask>", top=1, depth=6)
    assert filled.words[0].token == "green"
    assert {path.name[0] for path in filled.words[0].images} == {"g"}
    assert filled.words[0].count == 6
    assert filled.words[0].hashes == tuple(sha256(path.read_bytes()).hexdigest() for path in filled.words[0].images)
    assert encoder.matched == 6


def test_pictures_that_are_gone_make_room_for_copies_and_for_the_next_best(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name, green in (("best", 255), ("second", 250), ("third", 240), ("fourth", 200)):
        paint(photos / f"{name}.png", (255 - green, green, 0))
    shutil.copy(photos / "best.png", photos / "zz-copy-of-best.png")
    encoder = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", encoder.fingerprint) as writer:
        index([photos], writer, lambda: Model.from_parts(encoder))
    (photos / "best.png").unlink()
    (photos / "second.png").unlink()
    with IndexReader.open(tmp_path / "index") as store:
        filled = fill_library(store, encoder, encoder, "green <mask>", top=1, depth=2)
    assert [path.stem for path in filled.words[0].images] == ["zz-copy-of-best", "third"]
    assert (filled.skipped, filled.gone) == ((), 1)  # of "best" there is a copy


def test_pictures_in_the_cloud_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    for name, green in (("best", 255), ("second", 250), ("third", 240), ("fourth", 200)):
        paint(photos / f"{name}.png", (255 - green, green, 0))
    encoder = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", encoder.fingerprint) as writer:
        index([photos], writer, lambda: Model.from_parts(encoder))
    evict(monkeypatch, photos / "best.png")
    with IndexReader.open(tmp_path / "index") as store:
        filled = fill_library(store, encoder, encoder, "green <mask>", top=1, depth=3)
    assert [path.stem for path in filled.words[0].images] == ["second", "third"]
    assert (filled.skipped, filled.gone, filled.in_cloud) == ((), 0, 1)


def test_an_empty_library_gives_no_words(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", encoder.fingerprint):
        pass
    with IndexReader.open(tmp_path / "index") as store:
        assert fill_library(store, encoder, encoder, "a <mask>").words == ()


def test_one_picture_needs_no_matching_head_and_several_do(tmp_path: Path) -> None:
    class OnlyWords(FakeEncoder):
        def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
            return MaskedPrediction(None, super().predict_masked(text, images).log_probabilities)

    encoder = OnlyWords(frozenset({Head.MLM}))
    picture = paint(tmp_path / "a.png", "blue")
    filled = fill_images(encoder, "a <mask>", [picture])
    assert (filled.words[0].token, filled.best_match) == ("blue", None)
    with pytest.raises(ModelError, match="ITM"):
        fill_images(encoder, "a <mask>", [picture, picture])


class Sure(FakeEncoder):
    """Takes the text for true of every picture of which it names no other colour."""

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        logits = super().match(texts, images, pairs)
        logits[:, 1] += 3
        return logits


def counted(folder: Path, encoder: FakeEncoder, text: str, **options: Any) -> Filled:
    """Count words over the pictures of a folder."""
    with IndexWriter.open(folder / "index", encoder.fingerprint) as writer:
        index([folder / "photos"], writer, lambda: Model.from_parts(encoder))
    with IndexReader.open(folder / "index") as store:
        return fill_library(store, encoder, encoder, text, each=True, **options)


def paint_some(folder: Path) -> None:
    """Four red pictures, two green ones, a blue one; the first of each is the purest."""
    for i in range(4):
        paint(folder / "photos" / f"red{i}.png", (255, 20 * i, 0))
    for i in range(2):
        paint(folder / "photos" / f"green{i}.png", (0, 255, 20 * i))
    paint(folder / "photos" / "blue.png", "blue")


def test_each_picture_has_one_vote(tmp_path: Path) -> None:
    paint_some(tmp_path)
    filled = counted(tmp_path, Sure(), "a <mask>")
    assert (filled.fitting, filled.read) == (7, 7)
    found = [(one.mask, one.rank, one.token, one.count, one.share) for one in filled.counts]
    assert found == [(0, 1, "red", 4, 4 / 7), (0, 2, "green", 2, 2 / 7), (0, 3, "blue", 1, 1 / 7)]
    assert [path.name for path in filled.counts[0].images] == ["red0.png", "red1.png", "red2.png"]
    assert counted(tmp_path, Sure(), "a <mask>", top=1).counts == filled.counts[:1]
    assert counted(tmp_path, Sure(), "a <mask>", depth=3).read == 3


def test_a_picture_counts_only_where_the_text_with_its_own_word_is_true(tmp_path: Path) -> None:
    paint_some(tmp_path)
    filled = counted(tmp_path, FakeEncoder(), "green <mask>")  # "green red" is true of none
    assert [(one.token, one.count, one.share) for one in filled.counts] == [("green", 2, 1.0)]
    assert (filled.fitting, filled.read) == (2, 7)
    nothing = counted(tmp_path, FakeEncoder(), "green red blue <mask>")
    assert (nothing.counts, nothing.fitting, nothing.read) == ((), 0, 7)


def test_each_mask_is_counted_and_every_mask_is_filled_in(tmp_path: Path) -> None:
    asked: set[str] = set()

    class Listening(Sure):
        def encode_texts(self, texts: Sequence[str]) -> Texts:
            asked.update(texts)
            return super().encode_texts(texts)

    paint(tmp_path / "photos" / "blue.png", "blue")
    filled = counted(tmp_path, Listening(), "a<mask>, <mask>s")
    assert [(one.mask, one.rank, one.token) for one in filled.counts] == [(0, 1, "blue"), (1, 1, "blue")]
    assert asked == {"a<mask>, <mask>s", "a blue, blues"}


def test_a_mask_that_is_cut_off_has_no_count(tmp_path: Path) -> None:
    class Short(Sure):
        def encode_texts(self, texts: Sequence[str]) -> Texts:
            encoded = super().encode_texts(texts)
            return Texts(encoded.vectors, tuple(masks[:1] for masks in encoded.masks), encoded.features)

    paint(tmp_path / "photos" / "blue.png", "blue")
    assert [one.mask for one in counted(tmp_path, Short(), "a <mask> and a <mask>").counts] == [0]


def test_nothing_is_counted_unless_it_is_asked_for(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    filled = fill_images(encoder, "a <mask>", [paint(tmp_path / "a.png", "blue")])
    assert (filled.counts, filled.fitting, filled.read) == ((), 0, 1)
    assert encoder.matched == 1
