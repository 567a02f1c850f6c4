"""Features that `bt index` keeps: of which pictures, how many, and what searches read of them."""

import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridgetower import Library, Model, ModelError, UnknownPlaceError, UsageError
from bridgetower.encoders.protocol import Pictures, Pixels
from bridgetower.index import feature_cache
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.network import int8
from bridgetower.records import Head
from tests.fakes import FakeEncoder, paint, stored

pytestmark = pytest.mark.usefixtures("decode_here")

ONE = 16 + 4 * 3 * 32 * 32  # bytes of the features of a picture


class Counting(FakeEncoder):
    """Counts pictures that are encoded with their features."""

    computed = 0

    def encode_images(self, pixels: Pixels) -> Pictures:
        self.computed += len(pixels)
        return super().encode_images(pixels)


def hash_of(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def add(folder: Path, *numbers: int) -> None:
    """Paint pictures in shades of red; the one with the highest number is the newest."""
    for number in numbers:
        path = paint(folder / f"p{number:02}.png", (100 + number, number, 0))
        os.utime(path, (1_600_000_000 + number,) * 2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    add(tmp_path / "photos", *range(10))
    return tmp_path / "photos"


def opened(
    directory: Path, encoder: FakeEncoder | None = None, judge: FakeEncoder | None = None, **options: Any
) -> Library:
    encoder = encoder or FakeEncoder()
    return Library(directory, Model.from_parts(encoder, judge or encoder), **options)


def kept(directory: Path) -> list[int]:
    """The numbers of the pictures whose features are kept."""
    found = []
    with IndexReader.open(directory) as reader:
        for file in reader.features().files():
            if file.kept:
                entry = reader.catalog.entry(file.hash)
                found += [int(entry.files[0].path.stem[1:])] if entry.files else [-1]
    return sorted(found)


def test_new_pictures_keep_the_features_of_the_pass_that_gives_their_vectors(tmp_path: Path, photos: Path) -> None:
    encoder = Counting()
    with opened(tmp_path / "index", encoder) as library:
        report = library.index([photos], keep_features=10**6)
    assert kept(tmp_path / "index") == [*range(10)]
    assert (encoder.computed, encoder.encoded) == (10, 0)
    assert report.kept is not None and (report.kept.images, report.kept.bytes) == (10, 10 * ONE)


def test_the_first_search_reads_no_picture(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "cold") as library:
        library.index([photos])
        cold = library.search("red", depth=10)
    encoder = Counting()
    with opened(tmp_path / "index", encoder) as library:
        library.index([photos], keep_features=10**6)

        def decoded(*_: object) -> None:
            pytest.fail("a picture was decoded")

        monkeypatch.setattr("bridgetower.retrieval.encode_pictures.load", decoded)
        found = library.search("red", depth=10)
    assert found.hits == cold.hits and found.verified == 10
    assert encoder.computed == 10


def test_the_newest_that_fit_are_kept(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=4 * ONE + 100)
        assert kept(tmp_path / "index") == [6, 7, 8, 9]
        add(photos, 20, 21)
        library.index([photos])  # as the index says
        assert kept(tmp_path / "index") == [8, 9, 20, 21]
        library.index([photos], keep_features=2 * ONE)
        assert kept(tmp_path / "index") == [20, 21]
        library.index([photos], keep_features=0)
        assert kept(tmp_path / "index") == []
        assert library.summary().kept is None
        library.index([photos])
        assert kept(tmp_path / "index") == []


def test_features_that_an_older_index_left_are_counted_once(tmp_path: Path, photos: Path) -> None:
    directory = tmp_path / "index"
    with opened(directory) as library:
        library.index([photos], keep_features=4 * ONE + 100)
    (directory / "features").rename(tmp_path / "features")
    shutil.rmtree(directory)
    directory.mkdir()
    with opened(directory) as library:
        library.index([photos / "p00.png"])
        (tmp_path / "features").rename(directory / "features")
        report = library.index([photos], keep_features=4 * ONE + 100)
    assert kept(directory) == [6, 7, 8, 9]
    assert report.kept is not None and report.kept.bytes == 4 * ONE


def test_pictures_that_are_indexed_already_are_read_once_more(tmp_path: Path, photos: Path) -> None:
    counts: list[tuple[int, int]] = []
    encoder = Counting()
    with opened(tmp_path / "index", encoder) as library:
        library.index([photos])
        library.index([photos], keep_features=6 * ONE, on_keep=lambda *count: counts.append(count))
    assert kept(tmp_path / "index") == [4, 5, 6, 7, 8, 9]
    assert counts[-1] == (6, 6)
    assert encoder.computed < 10


def test_features_that_a_search_has_cached_are_not_computed_again(tmp_path: Path, photos: Path) -> None:
    encoder = Counting()
    with opened(tmp_path / "index", encoder) as library:
        library.index([photos])
        library.search("red", depth=10)
        library.index([photos], keep_features=10**6)
    assert kept(tmp_path / "index") == [*range(10)] and encoder.computed == 10


def test_a_run_in_which_nothing_is_missing_needs_no_model(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=4 * ONE + 100)

    class Broken(FakeEncoder):
        @property
        def features_id(self) -> str:
            raise AssertionError("the judge was asked")

    with opened(tmp_path / "index", Broken()) as library:
        report = library.index([photos])
    assert report.kept is not None and report.kept.images == 4


class Unusable(FakeEncoder):
    @property
    def features_id(self) -> str:
        raise AssertionError("the judge was asked")


def test_a_size_below_that_of_a_picture_is_told_once_and_keeps_none(tmp_path: Path, photos: Path) -> None:
    said: list[str] = []
    for indexed in (False, True):
        directory = tmp_path / f"index{indexed}"
        with opened(directory, say=said.append) as library:
            if indexed:
                library.index([photos])
            library.index([photos], keep_features=ONE - 1)
            assert library.summary().kept is None
        with opened(directory, Unusable(), say=said.append) as library:
            library.index([photos])
        assert [line for line in said if f"take {ONE} bytes" in line and f"the {ONE - 1} bytes" in line] == said
        assert len(said) == 1
        said.clear()


def test_a_full_disk_needs_no_model(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LEFT_FREE", 2**62)
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6)
    with opened(tmp_path / "index", Unusable()) as library:
        report = library.index([photos])
    assert report.kept is not None and report.kept.images == 0


def test_pictures_above_the_limit_of_pixels_need_no_model(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(photos / "p20.png", "red", (100, 100))
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6)
        [file] = [file for file in caches(tmp_path / "index", None).files() if file.hash == hash_of(photos / "p20.png")]
        file.remove()
    monkeypatch.setattr("bridgetower.pictures.decode.MAX_PIXELS", 9_999)
    with opened(tmp_path / "index", Unusable()) as library:
        library.index([photos])
    assert kept(tmp_path / "index") == [*range(10)]


@pytest.mark.parametrize("model", [None, Model.from_parts(FakeEncoder())])
def test_a_missing_model_that_no_new_picture_needs_is_told(tmp_path: Path, photos: Path, model: Model | None) -> None:
    said: list[str] = []
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6)
    [file] = (tmp_path / "index" / "features").glob(f"{hash_of(photos / 'p05.png').hex()}*")
    file.unlink()
    (photos / "p00.png").unlink()
    with Library(tmp_path / "index", model, say=said.append) as library:
        report = library.index([photos])
    assert report.removed == 1 and report.kept is not None and report.kept.images == 8
    assert len(said) == 1 and "features of some pictures are missing: " in said[0]


def test_features_that_a_search_has_cached_are_kept_without_a_model(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6)
        for file in (tmp_path / "index" / "features").iterdir():
            file.unlink()
        library.search("red", depth=10)
    assert kept(tmp_path / "index") == []
    with opened(tmp_path / "index", Unusable()) as library:
        library.index([photos])
    assert kept(tmp_path / "index") == [*range(10)]


def test_deleted_and_damaged_features_are_computed_again(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6)
        one, other, *_ = sorted((tmp_path / "index" / "features").iterdir())
        one.unlink()
        other.write_bytes(b"x" * ONE)
        assert [finding.path for finding in library.check()] == [other]
        found = library.search("red", depth=10)
        library.repair()
        assert len(kept(tmp_path / "index")) == 8
        library.index([photos])
        assert list(library.check()) == []
        assert library.search("red", depth=10).hits == found.hits
    assert kept(tmp_path / "index") == [*range(10)]


def test_only_pictures_under_a_place_are_kept(tmp_path: Path, photos: Path) -> None:
    add(photos / "family", 3, 5, 30)
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6, keep_under=photos / "family")
        assert kept(tmp_path / "index") == [3, 5, 30]  # two are copies
        add(photos, 40)
        add(photos / "family", 41)
        library.index([photos])
        assert kept(tmp_path / "index") == [3, 5, 30, 41]
        summary = library.summary()
        assert summary.kept is not None and summary.kept.under == photos / "family"
        with pytest.raises(UsageError, match="no room for them"):
            library.index([photos], keep_features=0, keep_under=photos)


def test_a_place_is_known_by_any_of_its_names(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(photos / "été", 30)
    place = photos / "été"
    (tmp_path / "link").symlink_to(photos)
    (photos / "inner").symlink_to(place)
    monkeypatch.chdir(photos)
    names = [tmp_path / "link" / "été", photos / "inner", photos / unicodedata.normalize("NFD", "été"), Path("été")]
    for number, name in enumerate(names):
        with opened(tmp_path / f"index{number}") as library:
            for _ in range(2):  # of the walk, then of the index
                report = library.index([photos], keep_features=10**6, keep_under=name)
                assert report.kept is not None and (report.kept.images, report.kept.under) == (1, place)
    with opened(tmp_path / "index0") as library:
        report = library.index([place], keep_features=10**6, keep_under=tmp_path)
        assert report.kept is not None and (report.kept.images, report.kept.under) == (11, tmp_path)


@pytest.mark.parametrize("name", ["photos/none", "photos/.hidden", "elsewhere"])
def test_an_unknown_place_is_refused_before_anything_is_encoded(tmp_path: Path, photos: Path, name: str) -> None:
    add(photos / ".hidden", 1)
    add(tmp_path / "elsewhere", 2)
    encoder = Counting()
    with opened(tmp_path / "index", encoder) as library:
        for _ in range(2):
            with pytest.raises(UnknownPlaceError, match=f"lies under .*{name}"):
                library.index([photos], keep_features=10**6, keep_under=tmp_path / name)
            assert (encoder.computed, encoder.encoded) == (0, 0)
        assert library.index([photos]).kept is None


def test_a_place_needs_room(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library, pytest.raises(UsageError, match="no room for them"):
        library.index([photos], keep_under=photos)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_what_was_kept_before_ctrl_c_stays_and_the_next_run_goes_on(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos])
        replace = os.replace
        done: list[tuple[Any, ...]] = []

        def interrupted(*paths: Any) -> None:
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(paths)
            replace(*paths)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            patch.setattr("bridgetower.index.feature_cache.os.replace", interrupted)
            library.index([photos], keep_features=10**6)
        assert kept(tmp_path / "index") == [*range(10 - after, 10)]
        assert list(library.check()) == [] and not library.strays()
        library.index([photos])
    assert kept(tmp_path / "index") == [*range(10)]


def test_another_judge_is_told_and_its_features_are_kept(tmp_path: Path, photos: Path) -> None:
    encoder, judge = Counting(), Counting(weights="judge")
    said: list[str] = []
    with opened(tmp_path / "index", encoder, judge, say=said.append) as library:
        library.index([photos], keep_features=10**6)
        assert (encoder.computed, judge.computed) == (0, 10)
        assert [line for line in said if "vision tower of fake" in line]
        library.search("red", depth=10)
    assert judge.computed == 10


def test_the_features_of_another_judge_are_replaced(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6)
    judge = Counting(weights="judge")
    with opened(tmp_path / "index", FakeEncoder(), judge) as library:
        add(photos, 20)
        library.index([photos])
        assert kept(tmp_path / "index") == [*range(10), 20]
        library.search("red", depth=11)
    assert judge.computed == 11


def test_they_are_replaced_also_where_a_new_picture_is_too_old_to_be_kept(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=2 * ONE)
    paint(photos / "p99.png", "blue")
    os.utime(photos / "p99.png", (1000, 1000))
    judge = Counting(weights="judge")
    with opened(tmp_path / "index", FakeEncoder(), judge) as library:
        library.index([photos])
        assert kept(tmp_path / "index") == [8, 9]
        library.search("red", depth=2, under=[photos / "p08.png", photos / "p09.png"])
    assert judge.computed == 4  # a batch, of which two fit


def test_what_searches_have_cached_makes_room(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos])
        library.search("red", depth=10)
        library.index([photos], keep_features=4 * ONE + 1000)
    files = list(caches(tmp_path / "index", None).files())
    assert kept(tmp_path / "index") == [6, 7, 8, 9] and len(files) == 4


@pytest.mark.parametrize("judge", [None, FakeEncoder(heads=frozenset({Head.ITC, Head.MLM}))])
def test_a_judge_that_verifies_nothing_is_refused_before_anything_is_stored(
    tmp_path: Path, photos: Path, judge: FakeEncoder | None
) -> None:
    encoder = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(encoder, judge)) as library:
        with pytest.raises(ModelError, match=r"ITM.*--keep-features 0$"):
            library.index([photos], keep_features=10**6)
        assert encoder.encoded == 0
        assert library.index([photos]).kept is None
        with pytest.raises(ModelError, match=r"ITM.*--keep-features 0$"):
            library.index([photos], keep_features=10**6)
        assert library.index([photos], keep_features=0).encoded == 0


def test_prune_removes_what_is_gone_or_of_another_judge(tmp_path: Path, photos: Path) -> None:
    with opened(tmp_path / "index") as library:
        library.index([photos], keep_features=10**6)
        (photos / "p09.png").unlink()
        library.index([photos])
        assert kept(tmp_path / "index") == [*range(9)]  # an orphan has no date
        features = tmp_path / "index" / "features"
        [file, *_] = features.iterdir()
        (features / f"{file.stem}1.kept").write_bytes(b"of another judge")
        (photos / "p00.png").unlink()
        assert library.prune(dry_run=True).features == 2
        assert library.prune().features == 2
    assert kept(tmp_path / "index") == [*range(1, 9)]


def caches(directory: Path, capacity: int | None, folder: Path | None = None) -> FeatureCache:
    with IndexReader.open(directory) as reader:
        cache = reader.feature_cache(capacity, folder)
    assert cache is not None
    return cache


def test_searches_fill_the_rest_and_never_remove_what_is_kept(tmp_path: Path, photos: Path) -> None:
    directory, encoder = tmp_path / "index", Counting()
    with opened(directory, encoder) as library:
        library.index([photos], keep_features=6 * ONE, keep_under=photos / "p08.png")
        assert kept(directory) == [8]
        library.search("red", depth=10)
    cached = [file for file in caches(directory, None).files() if not file.kept]
    assert kept(directory) == [8] and 4 <= len(cached) <= 5
    with opened(directory, encoder, features_cache=3 * ONE) as library:
        library.search("white", depth=10)
    files = list(caches(directory, None).files())
    assert sum(file.size() for file in files) <= 3 * ONE and kept(directory) == [8]
    before = encoder.computed
    with opened(directory, encoder, features_cache=0) as library:
        library.search("red", depth=10)
    assert encoder.computed == before + 9 and kept(directory) == [8]


def test_a_cache_that_is_full_of_what_is_kept_packs_nothing(tmp_path: Path, photos: Path) -> None:
    class Packing(FakeEncoder):
        packed = 0

        def pack(self, images: Pictures) -> list[bytes]:
            self.packed += len(images.features)
            return super().pack(images)

    encoder = Packing()
    with opened(tmp_path / "index", encoder) as library:
        library.index([photos], keep_features=2 * ONE)
        before = encoder.packed
        library.search("red", depth=10)
    assert encoder.packed <= before + 4  # the first batch finds the room taken
    assert kept(tmp_path / "index") == [8, 9]
    assert all(file.kept for file in caches(tmp_path / "index", None).files())


def test_another_folder_for_the_cache_leaves_the_kept_ones_in_use(tmp_path: Path, photos: Path) -> None:
    encoder = Counting()
    with opened(tmp_path / "index", encoder, features_dir=tmp_path / "elsewhere") as library:
        library.index([photos], keep_features=5 * ONE)
        before = encoder.computed
        library.search("red", depth=10)
    assert encoder.computed == before + 5
    assert len(list((tmp_path / "elsewhere").iterdir())) == 5


def test_most_pictures_of_a_large_run_are_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures come in the order of their names, so in that of their dates: each would replace an older one."""
    add(tmp_path / "photos", *range(99))
    written: list[Path] = []
    write: Callable[[Path, bytes], bool] = feature_cache._write

    def counted(path: Path, content: bytes) -> bool:
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(feature_cache, "_write", counted)
    with opened(tmp_path / "index") as library:
        library.index([tmp_path / "photos"], keep_features=5 * ONE)
    assert kept(tmp_path / "index") == [94, 95, 96, 97, 98]
    assert len(written) < 99 - 16


def test_pictures_of_an_old_place_are_encoded_once(tmp_path: Path) -> None:
    photos, encoder = tmp_path / "photos", Counting()
    add(photos / "a-old", *range(80))
    add(photos / "b-new", *range(80, 155))
    with opened(tmp_path / "index", encoder) as library:
        library.index([photos], keep_features=75 * ONE, keep_under=photos / "a-old")
    assert kept(tmp_path / "index") == [*range(5, 80)]
    assert encoder.computed + encoder.encoded == 155


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_index_has_the_same_bits_with_and_without(tmp_path: Path, precision: str) -> None:
    if precision == "int8" and not int8.is_possible():
        pytest.skip("this processor has no int8")
    gallery = sorted((Path(__file__).parents[3] / "examples" / "gallery").glob("*.jpg"))[:9]
    model = Model("demo", device="cpu", precision=precision)
    found = []
    for name, room in (("without", 0), ("with", 10**7)):
        with Library(tmp_path / name, model, features_cache=0) as library:
            library.index(gallery, keep_features=room)
            vectors = []
            with IndexReader.open(tmp_path / name) as reader:
                vectors = [stored(reader, image) for image in sorted(reader.catalog.image_ids())]
            hits = library.search("a cat on a couch", depth=9).hits
            found.append((np.stack(vectors), [(hit.path, hit.match) for hit in hits]))
    (plain, cold), (kept, warm) = found
    np.testing.assert_array_equal(plain, kept)
    assert cold == warm
    assert len(list((tmp_path / "with" / "features").iterdir())) == 9


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path, photos: Path) -> None:
    encoder = Counting()
    (tmp_path / "elsewhere").mkdir()
    with opened(tmp_path / "index", encoder) as library:
        library.index([photos])
        (tmp_path / "index" / "features").symlink_to(tmp_path / "elsewhere")
        report = library.index([photos], keep_features=10**6)
    assert report.kept is not None and report.kept.images == 0
    assert encoder.computed == 0 and not list((tmp_path / "elsewhere").iterdir())


def test_the_setting_is_in_the_manifest_and_its_damage_is_found(tmp_path: Path, photos: Path) -> None:
    directory = tmp_path / "index"
    with opened(directory) as library:
        library.index([photos], keep_features=10**6)
    with IndexWriter.resume(directory) as writer:
        writer.catalog._db.execute("UPDATE keeping SET capacity = capacity + 1")
    with opened(directory) as library:
        [finding] = library.check()
        assert finding.part == "manifest" and "keeping" in finding.problem
        assert library.repair().left == ()  # from the copy
        assert library.summary().kept is not None


@pytest.mark.parametrize("obstacle", ["link", "file", "full disk"])
def test_a_run_that_can_keep_nothing_says_why(
    obstacle: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with opened(tmp_path / "index", say=said.append) as library:
        library.index([photos])
        features = tmp_path / "index" / "features"
        if obstacle == "link":
            features.symlink_to(tmp_path)
        elif obstacle == "file":
            features.touch()
        else:
            monkeypatch.setattr(feature_cache, "LEFT_FREE", 10**18)
        library.index([photos], keep_features=10**6)
    assert kept(tmp_path / "index") == []
    reasons = {"link": "it is a link", "file": "it is no folder", "full disk": "the disk has less than"}
    assert any("no features are kept" in line and reasons[obstacle] in line for line in said), said


def test_a_size_beyond_what_an_index_holds_is_wrong_usage(photos: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "index") as library, pytest.raises(UsageError, match=r"keep_features .*at most"):
        library.index([photos], keep_features=2**63)
    with pytest.raises(UsageError, match=r"features_cache .*at most"):
        opened(tmp_path / "index", features_cache=2**63)
