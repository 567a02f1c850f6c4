"""Searches with several texts, with weights, with texts that must not be true, and from a place on."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridgetower.errors import UsageError
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.pictures.decode_pool import GuardedDecoder
from bridgetower.records import quiet
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE
from bridgetower.retrieval.indexing import index
from bridgetower.retrieval.matching import RULES_OUT
from bridgetower.retrieval.results import Found
from bridgetower.retrieval.search.pages import pages
from bridgetower.retrieval.search.request import SearchRequest
from tests.fakes import FakeEncoder, paint, search

pytestmark = pytest.mark.usefixtures("decode_here")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures from green to red, r0 (green) to r9 (red)."""
    for step in range(10):
        paint(tmp_path / "photos" / f"r{step}.png", (28 * step, 252 - 28 * step, 0))
    return tmp_path / "photos"


@pytest.fixture
def library(photos: Path) -> Path:
    return indexed(photos)


def indexed(photos: Path) -> Path:
    directory = photos.with_name("index")
    with IndexWriter.open(directory, FakeEncoder().fingerprint) as writer:
        index([photos], writer, lambda: Model.from_parts(FakeEncoder()))
    return directory


def find(library: Path, encoder: FakeEncoder | None = None, **asked: Any) -> Found:
    encoder = encoder or FakeEncoder()
    parts = {name: asked.pop(name, usual) for name, usual in {"cache": None, "on_hits": quiet}.items()}
    with IndexReader.open(library) as store:
        return search(store, SearchRequest(**asked), encoder, lambda: encoder, **parts)


def names(found: Found) -> list[str]:
    return [hit.path.stem for hit in found.hits]


def matches(library: Path, text: str) -> dict[str, float | None]:
    return {hit.path.stem: hit.match for hit in find(library, text=text, top=10, depth=10).hits}


# Texts that must not be true


def test_a_picture_that_is_ruled_out_follows_the_other_verified_ones(library: Path) -> None:
    against = matches(library, "red green")  # r3 to r6 are both, r9 is red
    assert {name for name, match in against.items() if (match or 0) >= RULES_OUT} == {"r3", "r4", "r5", "r6"}
    plain = find(library, text="red", top=10, depth=7)
    found = find(library, text="red", without="red green", top=10, depth=7)
    assert names(plain) == ["r9", "r8", "r7", "r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert names(found) == ["r9", "r8", "r7", "r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert [hit.ruled_out for hit in found] == [False] * 3 + [True] * 4 + [False] * 3
    probabilities = [hit.against[0] for hit in found[:7]]
    assert probabilities == pytest.approx([against[hit.path.stem] for hit in found[:7]])
    assert [(hit.match, hit.similarity) for hit in found] == [(hit.match, hit.similarity) for hit in plain]
    assert [hit.against for hit in found[7:]] == [()] * 3 and found.ruled_out == 4
    found = find(library, text="red", without=["blue", "red"], top=10, depth=7)
    assert names(found) == ["r6", "r5", "r4", "r3", "r9", "r8", "r7", "r2", "r1", "r0"]
    assert found[0].match == found.best_match == matches(library, "red")["r6"]
    assert [len(hit.against) for hit in found] == [2] * 7 + [0] * 3


def test_a_least_match_leaves_out_what_is_ruled_out(library: Path) -> None:
    assert names(find(library, text="red", min_match=0.01)) == ["r9", "r8", "r7", "r6", "r5"]
    assert names(find(library, text="red", without="red green", min_match=0.01)) == ["r9", "r8", "r7"]
    found = find(library, text="red", without="red", min_match=0.5)
    assert (found.hits, found.verified, found.ruled_out) == ((), 10, 3)
    assert found.best_match == matches(library, "red")["r6"]


def test_beside_a_picture_alone_only_what_must_not_be_true_is_verified(library: Path, tmp_path: Path) -> None:
    judge, query = FakeEncoder(), paint(tmp_path / "query.png", "red")
    found = find(library, judge, image=query, without="red", top=10, depth=5)
    assert names(found) == ["r6", "r5", "r9", "r8", "r7", "r4", "r3", "r2", "r1", "r0"]
    assert {(hit.match, hit.verified) for hit in found[:5]} == {(None, True)} and judge.matched == 5
    assert [hit.ruled_out for hit in found[:5]] == [False, False, True, True, True]
    assert (found.best_match, found.verified, found.ruled_out) == (None, 5, 3)
    least = float(found[5].similarity or 0)
    cut = find(library, image=query, without="red", top=10, depth=5, min_similarity=least)
    assert names(cut) == ["r6", "r5", "r4"] and cut.best_similarity == found[2].similarity
    by_vector = FakeEncoder().embed_texts(["red"])[0]
    assert names(find(library, vector=by_vector, without="red", top=10, depth=5)) == names(found)


def test_a_budget_counts_pictures_however_many_texts(library: Path) -> None:
    judge = FakeEncoder()
    found = find(library, judge, text=["red", "red"], without=["green", "blue"], top=10, depth=8, budget=0)
    assert found.verified == PICTURES_AT_ONCE and judge.matched == 4 * PICTURES_AT_ONCE
    assert [hit.verified for hit in found] == [True] * PICTURES_AT_ONCE + [False] * (10 - PICTURES_AT_ONCE)


def test_hits_as_they_stand_and_pages_know_what_is_ruled_out(library: Path) -> None:
    shown: list[Any] = []
    found = find(library, text="red", without="red", top=6, depth=8, on_hits=shown.append)
    assert [[hit.path.stem for hit in hits] for hits in shown] == [
        ["r9", "r8", "r7", "r6", "r5", "r4"],
        ["r6", "r9", "r8", "r7", "r5", "r4"],
        ["r6", "r5", "r4", "r3", "r2", "r9"],
        ["r6", "r5", "r4", "r3", "r2", "r9"],
    ]
    assert shown[-1] == found.hits
    whole = find(library, text="red", without="red", top=10, depth=8)
    encoder = FakeEncoder()
    with IndexReader.open(library) as store:
        some = list(pages(store, SearchRequest("red", without="red", top=4, depth=8), encoder, lambda: encoder))
    assert [len(page) for page in some] == [4, 4, 2]
    assert tuple(hit for page in some for hit in page) == whole.hits


def test_kept_features_give_the_same_hits(library: Path) -> None:
    cache = FeatureCache(library / "features", 10**6)
    asked: dict[str, Any] = {"text": ["red", "red green"], "without": "green", "depth": 6, "cache": cache}
    assert find(library, **asked) == find(library, **asked)


# Several texts, and weights


def test_of_several_texts_the_least_true_one_counts(library: Path) -> None:
    found = find(library, text=["red", "green"], top=10, depth=10)
    red, green = matches(library, "red"), matches(library, "green")
    assert [hit.matches for hit in found] == [(red[hit.path.stem], green[hit.path.stem]) for hit in found]
    assert [hit.match for hit in found] == [min(hit.matches) for hit in found]
    assert [hit.match for hit in found] == sorted((hit.match or 0 for hit in found), reverse=True)
    assert set(names(found)[:2]) == {"r4", "r5"} and found.best_match == found[0].match


def test_one_text_is_the_same_alone_and_in_a_list(library: Path) -> None:
    alone = find(library, text="red", top=10, depth=5)
    assert find(library, text=["red"], top=10, depth=5) == alone
    assert find(library, text="red", weights=[3], top=10, depth=5) == alone
    assert alone[0].matches == () and not alone[0].ruled_out


def test_weights_steer_recall(library: Path) -> None:
    equal = find(library, text=["red", "green"], top=10, depth=0)
    for weight in (2, 1e-9, 1e30):
        assert find(library, text=["red", "green"], weights=[weight, weight], top=10, depth=0) == equal
    assert set(names(equal)[:2]) == {"r4", "r5"}
    assert names(find(library, text=["red", "green"], weights=(8, 1), depth=0))[0] == "r8"
    wanted = FakeEncoder().embed_texts(["red", "green"]).T @ [3, 1]
    by_hand = find(library, vector=wanted, top=10)
    steered = find(library, text=["red", "green"], weights=[3, 1], top=10, depth=0)
    assert names(steered) == names(by_hand)
    np.testing.assert_allclose([h.similarity for h in steered], [h.similarity for h in by_hand], rtol=1e-6)  # type: ignore[arg-type]


def test_weights_are_of_the_texts_and_then_of_the_pictures(library: Path, tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", "green")
    assert names(find(library, text="red", image=[query], weights=[9, 1], depth=0))[0] in ("r8", "r9")
    assert names(find(library, text="red", image=[query], weights=[1, 9], depth=0))[0] in ("r0", "r1")


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"text": ["red", "green"], "weights": [1]}, r"weights: 1 given, 2 wanted: for each text \(2\)"),
        ({"text": "red", "image": "a.png", "weights": [1, 2, 3]}, "3 given, 2 wanted"),
        ({"text": "red", "weights": [0]}, "weight 0: a positive number"),
        ({"text": "red", "weights": [float("inf")]}, "weight inf: a positive number"),
        ({"text": "red", "weights": ["2"]}, "weight '2': a number is wanted"),
        ({"text": "red", "weights": "2"}, "a list of weights is wanted"),
        ({"text": "red", "vector": [1, 0, 0], "weights": [1]}, "a vector recalls alone"),
        ({"text": ["red", " "]}, "the text is empty"),
        ({"text": []}, "nothing to search for"),
        ({"without": "red"}, "beside those that must not be true"),
        ({"text": "red", "without": ""}, "the text is empty"),
        ({"text": "red", "without": "green", "depth": 0}, "they need a depth of at least 1"),
        ({"image": "a.png", "without": "green", "min_match": 0.5}, "it needs a text"),
        ({"text": "red", "offset": -1}, "offset -1: at least 0"),
        ({"image": "a.png", "keep_self": 1}, "keep_self is True or False"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        SearchRequest(**asked)


# The picture that is asked with


def test_the_picture_that_is_asked_with_is_no_hit_of_its_own(library: Path, photos: Path, tmp_path: Path) -> None:
    asked = photos / "r9.png"
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(asked.read_bytes())
    decoder = GuardedDecoder()
    for image in (asked, copy, asked.read_bytes(), decoder.picture(copy.read_bytes(), Path("upload"))):
        assert names(find(library, image=image, top=10)) == [f"r{step}" for step in range(8, -1, -1)]
        assert names(find(library, image=image, top=1, keep_self=True)) == ["r9"]
    decoder.close()
    found = find(library, image=[asked, photos / "r8.png"], text="red", top=10, depth=3)
    assert names(found) == [f"r{step}" for step in range(7, -1, -1)] and found.verified == 3
    assert find(library, image=asked, min_similarity=0).best_similarity == find(library, image=asked)[0].similarity
    asked.write_bytes(asked.read_bytes() + b"\0")  # another content, which the index does not know
    assert hashlib.sha256(asked.read_bytes()).hexdigest() not in [hit.hash for hit in find(library, image=copy, top=10)]
    assert names(find(library, image=asked, top=1)) == ["r9"]


def test_the_other_files_of_its_shot_are_left_out_too(library: Path, photos: Path) -> None:
    (photos / "r9.png").unlink()
    folder = photos / "camera"
    folder.mkdir()
    paint(photos / "painted.png", (255, 0, 0)).rename(folder / "a.CR2")
    paint(photos / "painted.png", (250, 0, 0)).rename(folder / "a.JPG")
    indexed(photos)
    assert names(find(library, image=folder / "a.JPG", top=3)) == ["r8", "r7", "r6"]
    assert names(find(library, image=folder / "a.JPG", top=2, keep_self=True))[0] == "a"


# From a place on


@pytest.mark.parametrize("limits", [{}, {"min_match": 0.01}, {"without": "red green"}])
def test_an_offset_skips_hits_and_verifies_the_same(library: Path, limits: dict[str, Any]) -> None:
    whole = find(library, text="red", top=20, depth=6, **limits)
    for offset in (0, 1, 4, 9, 30):
        shown: list[Any] = []
        found = find(library, text="red", top=3, depth=6, offset=offset, on_hits=shown.append, **limits)
        assert found.hits == shown[-1] == shown[-2] == whole.hits[offset : offset + 3]
        assert (found.verified, found.best_match) == (whole.verified, whole.best_match)
