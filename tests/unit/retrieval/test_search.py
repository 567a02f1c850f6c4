import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from bridgetower.encoders.protocol import Pictures, Pixels
from bridgetower.errors import InputError, ModelError, PictureError, UsageError
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.records import Head, quiet
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE
from bridgetower.retrieval.indexing import index
from bridgetower.retrieval.results import Found, Results
from bridgetower.retrieval.search.request import SearchRequest
from tests.clouds import evict, leave_stub
from tests.fakes import FakeEncoder, paint, search

pytestmark = pytest.mark.usefixtures("decode_here")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Ten pictures from green to red, r0 (green) to r9 (red)."""
    for step in range(10):
        paint(tmp_path / "photos" / f"r{step}.png", (28 * step, 252 - 28 * step, 0))
    encoder = FakeEncoder()
    with IndexWriter.open(tmp_path / "index", encoder.fingerprint) as writer:
        index([tmp_path / "photos"], writer, lambda: Model.from_parts(encoder))
    return tmp_path / "index"


class Contrary(FakeEncoder):
    """Its matching head prefers what recall likes least."""

    def match(self, texts, images, pairs):  # type: ignore[no-untyped-def]
        return -super().match(texts, images, pairs)


def find(
    library: Path,
    encoder: FakeEncoder | None = None,
    *,
    cache: FeatureCache | None = None,
    on_progress: Any = quiet,
    **asked: Any,
) -> Found:
    encoder = encoder or FakeEncoder()
    with IndexReader.open(library) as store:
        return search(store, SearchRequest(**asked), encoder, lambda: encoder, cache=cache, on_progress=on_progress)


def names(results: Results) -> list[str]:
    return [hit.path.stem for hit in results.hits]


def test_recall_alone_orders_by_similarity(library: Path) -> None:
    results = find(library, text="red", top=3, depth=0)
    assert names(results) == ["r9", "r8", "r7"]
    assert [hit.similarity for hit in results.hits] == sorted((h.similarity for h in results.hits), reverse=True)  # type: ignore[type-var]
    assert {(hit.match, hit.verified) for hit in results.hits} == {(None, False)}
    assert results.verified == 0


def test_the_head_is_verified_and_reordered_and_the_rest_follows_by_similarity(library: Path) -> None:
    results = find(library, Contrary(), text="red", top=10, depth=4)
    assert names(results) == ["r6", "r7", "r8", "r9", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert [hit.verified for hit in results.hits] == [True] * 4 + [False] * 6
    matches = [hit.match for hit in results.hits[:4]]
    assert matches == sorted(matches, reverse=True)  # type: ignore[type-var]
    assert all(0 <= match <= 1 for match in matches if match is not None)


def test_a_short_list_is_a_prefix_of_a_long_one(library: Path) -> None:
    long = find(library, Contrary(), text="red", top=9, depth=5)
    for top in range(1, 9):
        assert find(library, Contrary(), text="red", top=top, depth=5).hits == long.hits[:top]


def test_depth_is_clamped_to_what_there_is(library: Path) -> None:
    results = find(library, text="red", top=50, depth=1000)
    assert (len(results.hits), results.verified) == (10, 10)


def test_min_match_keeps_only_verified_pictures_that_reach_it(library: Path) -> None:
    results = find(library, text="red", top=10, depth=4, min_match=0.5)
    assert names(results) == ["r9", "r8", "r7"]  # cosine with red >= 0.9
    assert all(hit.verified and hit.match is not None and hit.match >= 0.5 for hit in results.hits)


def test_no_match_is_an_answer_and_says_what_came_closest(library: Path) -> None:
    results = find(library, text="blue", min_match=0.5)
    assert results.hits == ()
    assert results.verified == 10
    assert results.best_match is not None
    assert results.best_match < 1e-3


def test_a_picture_is_a_query_and_is_not_verified(library: Path, tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", "green")
    results = find(library, image=query, top=2)
    assert names(results) == ["r0", "r1"]
    assert not any(hit.verified for hit in results.hits)


def test_text_and_picture_recall_together_and_the_text_verifies(library: Path, tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", "green")
    results = find(library, text="red", image=query, top=3, depth=3)
    assert all(hit.verified for hit in results.hits)
    assert set(names(results)) <= {"r3", "r4", "r5", "r6"}  # between green and red
    assert names(results)[0] == max(names(results))  # and of those the reddest first


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall goes on after each picture."""
    monkeypatch.setattr("bridgetower.index.reader._NEAREST_AT_FIRST", 1)


@pytest.mark.usefixtures("few_at_once")
def test_a_vector_recalls_and_the_text_only_verifies(library: Path) -> None:
    green = FakeEncoder().embed_texts(["green"])[0]
    results = find(library, vector=green, top=3)
    assert (names(results), results.verified) == (["r0", "r1", "r2"], 0)
    results = find(library, text="red", vector=green, depth=4)
    assert names(results)[:5] == ["r3", "r2", "r1", "r0", "r4"]
    judge = FakeEncoder(heads=frozenset({Head.ITM}))
    assert find(library, judge, text="red", vector=green, depth=4) == results  # it need not make vectors


def test_a_vector_needs_no_model_where_nothing_is_verified(library: Path) -> None:
    green = FakeEncoder().embed_texts(["green"])[0]
    with IndexReader.open(library) as store:
        assert names(search(store, SearchRequest(vector=green, top=2), None, None)) == ["r0", "r1"]
        assert names(search(store, SearchRequest(text="red", vector=green, top=2, depth=0), None, None)) == ["r0", "r1"]
        with pytest.raises(UsageError, match="needs a model"):
            search(store, SearchRequest(text="red", vector=green), None, None)
        with pytest.raises(UsageError, match="needs a model"):
            search(store, SearchRequest(text="red", depth=0), None, None)


def test_a_vector_that_does_not_fit_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="length 4, those of the index have 3 numbers"):
        find(library, vector=np.array([1, 0, 0, 0], np.float32))
    np.save(tmp_path / "long.npy", np.ones(4))
    with pytest.raises(InputError, match=r"long\.npy: a vector of length 4, those of the index have 3"):
        find(library, vector=tmp_path / "long.npy")
    with pytest.raises(UsageError, match="choose one"):
        find(library, vector=np.array([1, 0, 0], np.float32), image=tmp_path / "photos" / "r1.png")


def test_the_next_pictures_take_the_place_of_those_that_are_gone(library: Path, tmp_path: Path) -> None:
    for name in ("r9", "r8", "r6", "r3"):
        (tmp_path / "photos" / f"{name}.png").unlink()
    results = find(library, text="red", top=4, depth=3)
    assert names(results) == ["r7", "r5", "r4", "r2"]
    assert [hit.verified for hit in results.hits] == [True, True, True, False]
    assert (results.verified, results.gone, results.skipped) == (3, 4, ())
    assert names(find(library, text="red", top=4, depth=0)) == ["r7", "r5", "r4", "r2"]
    kept = find(library, text="red", top=4, depth=3, min_match=0.01)
    assert (names(kept), kept.verified, kept.gone) == (["r7", "r5"], 3, 3)


@pytest.mark.usefixtures("few_at_once")
def test_the_next_pictures_take_the_place_of_those_that_cannot_be_read(library: Path, tmp_path: Path) -> None:
    for name in ("r9", "r7"):
        (tmp_path / "photos" / f"{name}.png").write_bytes(b"overwritten")
    results = find(library, text="red", top=4, depth=3)
    assert names(results) == ["r8", "r6", "r5", "r4"]
    assert (results.verified, results.gone) == (3, 0)
    assert [skip.path.stem for skip in results.skipped] == ["r9", "r7"]


@pytest.mark.usefixtures("few_at_once")
def test_a_short_list_is_a_prefix_also_where_files_are_gone(library: Path, tmp_path: Path) -> None:
    for name in ("r9", "r8", "r6"):
        (tmp_path / "photos" / f"{name}.png").unlink()
    long = find(library, Contrary(), text="red", top=9, depth=4)
    assert names(long) == ["r3", "r4", "r5", "r7", "r2", "r1", "r0"]
    for top in range(1, 7):
        assert find(library, Contrary(), text="red", top=top, depth=4).hits == long.hits[:top]


def test_pictures_in_the_cloud_are_shown_unverified_and_never_opened(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    evict(monkeypatch, photos / "r8.png", photos / "r4.png")
    leave_stub(photos / "r6.png")
    results = find(library, text="red", top=7, depth=5)
    assert names(results) == ["r9", "r7", "r5", "r8", "r6", "r4", "r3"]
    assert [hit.verified for hit in results.hits] == [True] * 3 + [False] * 4
    assert (results.verified, results.in_cloud, results.gone, results.skipped) == (3, 2, 0, ())
    kept = find(library, text="red", top=7, depth=5, min_match=0.01)
    assert (names(kept), kept.in_cloud) == (["r9", "r7", "r5"], 2)
    recalled = find(library, text="red", top=4, depth=0)
    assert (names(recalled), recalled.in_cloud) == (["r9", "r8", "r7", "r6"], 0)


def test_of_a_picture_in_the_cloud_another_file_is_taken(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    (photos / "zz-copy.png").write_bytes((photos / "r9.png").read_bytes())
    encoder = FakeEncoder()
    with IndexWriter.open(library, encoder.fingerprint) as writer:
        index([photos], writer, lambda: Model.from_parts(encoder))
    evict(monkeypatch, photos / "r9.png")
    results = find(library, text="red", top=1, depth=1)
    assert (names(results), results.verified, results.in_cloud) == (["zz-copy"], 1, 0)


def test_where_every_file_is_gone_there_is_no_result(library: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    results = find(library, text="red", depth=3)
    assert (results.hits, results.verified, results.best_match) == ((), 0, None)
    assert (results.gone, results.away) == (0, (tmp_path / "photos",))


def test_progress_counts_the_pictures_that_are_verified(library: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "r9.png").write_bytes(b"overwritten")
    seen: list[tuple[int, int]] = []
    find(library, text="red", depth=3, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 0), (3, 3), (3, 3)]  # first that the judge is there


def test_copies_are_one_result(library: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "again.png").write_bytes((tmp_path / "photos" / "r9.png").read_bytes())
    encoder = FakeEncoder()
    with IndexWriter.open(library, encoder.fingerprint) as writer:
        index([tmp_path / "photos"], writer, lambda: Model.from_parts(encoder))
    assert names(find(library, text="red", top=2)) == ["again", "r8"]  # the first path stands for the picture


def test_a_copy_stands_in_for_a_file_that_is_gone(library: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "zcopy.png").write_bytes((tmp_path / "photos" / "r9.png").read_bytes())
    encoder = FakeEncoder()
    with IndexWriter.open(library, encoder.fingerprint) as writer:
        index([tmp_path / "photos"], writer, lambda: Model.from_parts(encoder))
    (tmp_path / "photos" / "r9.png").unlink()
    results = find(library, text="red", top=2)
    assert names(results) == ["zcopy", "r8"]
    assert results.skipped == ()


def test_an_empty_index_has_no_results(tmp_path: Path) -> None:
    with IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint):
        pass
    assert find(tmp_path / "index", text="red").hits == ()


def test_what_cannot_go_together_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to search for"):
        find(library)
    with pytest.raises(UsageError, match="a least match"):
        find(library, text="red", depth=0, min_match=0.5)
    with pytest.raises(UsageError, match="a least match"):
        find(library, image=paint(tmp_path / "q.png", "red"), min_match=0.5)
    with pytest.raises(PictureError, match=r"missing\.png"):
        find(library, image=tmp_path / "missing.png")


def test_a_checkpoint_without_the_head_is_refused_before_any_work(library: Path) -> None:
    with pytest.raises(ModelError, match="ITM"):
        find(library, FakeEncoder(frozenset({Head.ITC})), text="red")
    assert names(find(library, FakeEncoder(frozenset({Head.ITC})), text="red", depth=0, top=1)) == ["r9"]


class Counting(FakeEncoder):
    """Counts the pictures whose features it computes."""

    computed = 0

    def encode_images(self, pixels: Pixels) -> Pictures:
        self.computed += len(pixels)
        return super().encode_images(pixels)


def test_features_are_computed_once_and_found_again(library: Path) -> None:
    encoder, cache = Counting(), FeatureCache(library / "features", 10**6)
    first = find(library, encoder, text="red", top=4, depth=4, cache=cache)
    assert encoder.computed == 4
    again = find(library, encoder, text="red", top=5, depth=5, cache=cache)
    assert encoder.computed == 5
    assert again.hits[:4] == first.hits


def test_a_picture_that_has_changed_is_read_again(library: Path, tmp_path: Path) -> None:
    cache = FeatureCache(library / "features", 10**6)
    find(library, text="red", top=3, depth=3, cache=cache)
    paint(tmp_path / "photos" / "r9.png", "blue", size=(50, 50))
    results = find(library, text="red", top=3, depth=3, cache=cache)
    assert names(results)[-1] == "r9"
    assert names(find(library, text="red", top=3, depth=3, cache=cache))[-1] == "r9"


def test_damaged_features_are_computed_again(library: Path) -> None:
    encoder, cache = Counting(), FeatureCache(library / "features", 10**6)
    first = find(library, encoder, text="red", top=2, depth=2, cache=cache)
    for path in (library / "features").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    assert find(library, encoder, text="red", top=2, depth=2, cache=cache).hits == first.hits
    assert encoder.computed == 4


def test_out_of_time_the_best_candidates_are_verified_and_the_rest_follow(library: Path) -> None:
    results = find(library, Contrary(), text="red", top=8, depth=8, budget=0)
    assert results.verified == PICTURES_AT_ONCE  # a batch is always begun
    assert names(results)[:PICTURES_AT_ONCE] == ["r6", "r7", "r8", "r9"]
    assert names(results)[PICTURES_AT_ONCE:] == ["r5", "r4", "r3", "r2"]
    assert [hit.verified for hit in results.hits] == [True] * PICTURES_AT_ONCE + [False] * (8 - PICTURES_AT_ONCE)
    enough = find(library, Contrary(), text="red", top=8, depth=8, budget=60)
    assert enough.verified == 8


@pytest.mark.parametrize(
    "limits",
    [{"min_match": float("nan")}, {"min_match": 2}, {"min_match": -0.1}, {"depth": -1}, {"top": -1}, {"top": 0}],
)
def test_limits_out_of_range_are_refused(library: Path, limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(limits))):
        find(library, text="red", **limits)


def test_a_request_holds_several_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = SearchRequest(image=["a.png", b"content"])
    assert request.images == (tmp_path / "a.png", b"content")
    with pytest.raises(UsageError, match="nothing to search for"):
        SearchRequest(image=[])
    with pytest.raises(UsageError, match="min_similarity 2: a number from -1 to 1 is wanted"):
        SearchRequest(image="a.png", min_similarity=2)
    with pytest.raises(UsageError, match="with a text, give a least match"):
        SearchRequest("red", image="a.png", min_similarity=0.5)


def run(directory: Path, *roots: Path) -> None:
    encoder = FakeEncoder()
    with IndexWriter.open(directory, encoder.fingerprint) as writer:
        index(list(roots), writer, lambda: Model.from_parts(encoder))


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    """A picture whose name does not say what it is."""
    paint(path.with_name("painted.png"), colour).rename(path)
    return path


def test_a_hit_says_what_the_index_knows_of_its_picture(library: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    dated, copy, other = photos / "IMG_20190704_101500.jpg", photos / "a.jpg", photos / "z.jpg"
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2018:01:02 03:04:05"
    Image.new("RGB", (60, 40), "blue").save(dated)
    Image.new("RGB", (40, 60), "navy").save(other, exif=exif)
    copy.write_bytes(dated.read_bytes())
    run(library, photos)
    first, second, *rest = find(library, text="blue", top=4).hits
    digest = hashlib.sha256(dated.read_bytes()).hexdigest()
    assert (first.width, first.height, first.hash, first.paths) == (60, 40, digest, (dated, copy))
    assert first.taken_at == datetime(2019, 7, 4, 10, 15)  # of the name of this file
    assert (second.width, second.height, second.paths) == (40, 60, (other,))
    assert second.taken_at == datetime(2018, 1, 2, 3, 4, 5)
    assert {hit.taken_at for hit in rest} == {None}  # not the times of the files
    [asked] = find(library, text="blue", top=1, depth=0, under=copy).hits
    assert (asked.path, asked.taken_at, asked.paths) == (copy, None, (copy, dated))


def test_the_path_of_a_query_picture_is_the_one_that_is_shown(library: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "z.png"):
        (photos / name).write_bytes((photos / "r9.png").read_bytes())
    run(library, photos)
    for name in ("a.png", "r9.png", "z.png"):
        [hit] = find(library, image=photos / name, top=1, keep_self=True).hits
        assert (hit.path, hit.paths[0]) == (photos / name, photos / name)
        assert {path.name for path in hit.paths} == {"a.png", "r9.png", "z.png"}
    assert names(find(library, image=(photos / "z.png").read_bytes(), top=1, keep_self=True)) == ["a"]


@pytest.mark.parametrize("query", ["blue", "red", "green"])
def test_all_files_of_a_shot_are_one_row_whatever_the_query(library: Path, tmp_path: Path, query: str) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    colours = {"Q.tif": (0, 0, 255), "Q.HEIC": (250, 0, 0), "Q.DNG": (0, 250, 0), "Q.JPG": (90, 90, 90)}
    for name, colour in colours.items():
        picture(folder / name, colour)
    run(library, folder)
    shot = [hit for hit in find(library, text=query, top=50, depth=0).hits if hit.path.parent == folder]
    assert len(shot) == 1
    assert {path.name for path in shot[0].paths} == set(colours)


@pytest.mark.parametrize(
    ("better", "worse", "is_pair"),
    [
        ("IMG_1.CR2", "IMG_1.JPG", True),
        ("IMG_1.jpg", "IMG_1.dng", True),
        ("IMG_1.HEIC", "IMG_1.jpeg", True),
        ("IMG_1.v2.png", "IMG_1.v2.nef", True),
        ("IMG_1.CR2", "IMG_2.JPG", False),
        ("IMG_1.CR2", "IMG_1.v2.jpg", False),
        ("IMG_1.CR2", "IMG_1.DNG", False),
        ("IMG_1.jpg", "IMG_1.png", False),
        ("IMG_1.HEIC", "IMG_1.png", False),
        ("IMG_1.CR2", "more/IMG_1.JPG", False),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2, 9])
def test_a_pair_is_one_row(library: Path, tmp_path: Path, better: str, worse: str, is_pair: bool, depth: int) -> None:
    folder = tmp_path / "camera"
    (folder / "more").mkdir(parents=True)
    first, second = picture(folder / better, (0, 0, 255)), picture(folder / worse, (0, 20, 250))
    run(library, folder)
    long = find(library, text="blue", top=12, depth=depth)
    assert long[0].path == first
    assert (second in [hit.path for hit in long]) != is_pair
    assert long[0].paths == ((first, second) if is_pair else (first,))
    assert len(long) == (11 if is_pair else 12)
    assert long.verified == min(depth, len(long))
    for top in range(1, 5):
        assert find(library, text="blue", top=top, depth=depth).hits == long.hits[:top]
    [alone] = find(library, text="blue", depth=depth, under=second).hits
    assert (alone.path, alone.paths) == (second, (second, first) if is_pair else (second,))


@pytest.mark.usefixtures("few_at_once")
def test_the_other_of_a_pair_stands_for_the_one_that_cannot_be_read(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    raw = picture(folder / "IMG_1.CR2", (0, 0, 255))
    jpeg, heif = picture(folder / "IMG_1.JPG", (0, 5, 254)), picture(folder / "IMG_1.HEIC", (0, 9, 253))
    run(library, folder)
    assert find(library, text="blue", depth=2)[0].paths == (raw, heif, jpeg)
    raw.write_bytes(b"overwritten")
    for depth in (2, 9):
        results = find(library, text="blue", depth=depth, top=3)
        assert results[0].path == jpeg
        assert {hit.path.parent.name for hit in results[1:]} == {"photos"}
        assert [skip.path for skip in results.skipped] == [raw]
    raw.unlink()
    results = find(library, text="blue", top=2)
    assert (results[0].path, results[1].path.parent.name, results.gone) == (jpeg, "photos", 1)
