"""Doubles stand at the seams of the public interface: an encoder, a judge, an engine, a store. Nothing is patched."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower import (
    Embedded,
    FileContent,
    Found,
    Head,
    Library,
    Model,
    ModelError,
    RecallEncoder,
    RecallStore,
    RecallView,
    Refused,
    Texts,
    UsageError,
)
from bridgetower.encoders.protocol import Pixels
from bridgetower.errors import PictureError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.pictures.decode import decode
from bridgetower.pictures.preprocess import preprocess
from bridgetower.records import OnProgress
from bridgetower.retrieval.calibration_texts import TEXTS
from tests.fakes import FakeEncoder, paint

STEPS = 10


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures from green to red, r0 (green) to r9 (red)."""
    for step in range(STEPS):
        paint(tmp_path / "photos" / f"r{step}.png", (28 * step, 252 - 28 * step, 0))
    return tmp_path / "photos"


def names(found: Found) -> list[str]:
    return [hit.path.stem for hit in found]


# An encoder and a judge


def test_an_index_is_built_searched_and_filled_from_by_doubles(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(fake, fake)) as library:
        assert library.index([photos]).encoded == STEPS
        assert fake.encoded == STEPS
        found = library.search("red", top=3, depth=4)
        assert names(found) == ["r9", "r8", "r7"]
        assert (found.verified, fake.matched) == (4, 4)
        assert library.fill("a red <mask>", depth=1, top=1).words[0].token == "red"
        assert library.summary().fingerprint == fake.fingerprint


class Contrary(FakeEncoder):
    """A judge of its own: it prefers what recall likes least."""

    def __init__(self, heads: frozenset[Head] = frozenset(Head)) -> None:
        super().__init__(heads, weights="contrary")
        self.name = "contrary"

    def match(self, texts, images, pairs):  # type: ignore[no-untyped-def]
        return -super().match(texts, images, pairs)


def test_one_object_recalls_and_another_judges(photos: Path, tmp_path: Path) -> None:
    encoder, judge = FakeEncoder(), Contrary()
    assert encoder.fingerprint != judge.fingerprint
    model = Model.from_parts(encoder, judge)
    with Library(tmp_path / "index", model) as library:
        library.index([photos])
        assert library.summary().fingerprint == encoder.fingerprint
        assert names(library.search("red", depth=3, top=4)) == ["r7", "r8", "r9", "r6"]
    assert (encoder.matched, judge.encoded) == (0, 0)
    assert model.name == "contrary" and "contrary" in repr(model)


def test_the_vector_that_recalls_is_that_of_the_encoder(photos: Path, tmp_path: Path) -> None:
    class Colourblind(FakeEncoder):
        """Its vectors recall nothing that was meant; it need not be asked for them."""

        def encode_texts(self, texts: Sequence[str]) -> Texts:
            return replace(super().encode_texts(texts), vectors=super().embed_texts(["green"] * len(texts)))

    both = Colourblind()
    with Library(tmp_path / "index", Model.from_parts(both, both)) as library:
        library.index([photos])
        assert set(names(library.search("red", depth=1, top=2))) == {"r9", "r8"}
        assert library.fill("a red <mask>", depth=1, top=1).words[0].images[0].stem == "r9"


def test_a_judge_without_a_head_and_one_that_is_missing_are_told_by_name(photos: Path, tmp_path: Path) -> None:
    only = Model.from_parts(FakeEncoder())
    with Library(tmp_path / "index", only) as library:
        library.index([photos])
        assert names(library.search("red", depth=0, top=1)) == ["r9"]
        with pytest.raises(ModelError):
            library.search("red")
        with pytest.raises(ModelError, match=r"^fake: this model only makes vectors"):
            only.match([photos / "r1.png"], ["red"])
    judge = Model.from_parts(None, Contrary())
    assert judge.heads == {Head.ITM, Head.MLM}
    assert [hit.path.stem for hit in judge.rerank("red", [photos / "r9.png", photos / "r0.png"])] == ["r0", "r9"]
    with pytest.raises(ModelError):
        judge.embed_texts(["red"])
    with pytest.raises(UsageError, match="no parts"):
        Model.from_parts(None)


def test_another_judge_verifies_what_a_vector_recalls(photos: Path, tmp_path: Path) -> None:
    with Library(tmp_path / "index", Model.from_parts(FakeEncoder())) as library:
        library.index([photos])
    with Library(tmp_path / "index", Model.from_parts(None, Contrary())) as library:
        found = library.search("red", vector=np.array([1, 0, 0], np.float32), depth=2, top=2)
        assert names(found) == ["r8", "r9"]


# An engine


class ThreadedEngine:
    """Keeps three batches under way in a pool of threads, and gives back in order."""

    batch_size = 2
    _AHEAD = 3

    def __init__(self, encoder: RecallEncoder) -> None:
        self._encoder = encoder
        self._both = threading.Barrier(2)  # the first two batches wait for each other
        self._lock, self._now, self.most = threading.Lock(), 0, 0

    def embed(self, contents: Iterable[FileContent], *, max_pixels: int | None = None) -> Generator[Embedded | Refused]:
        contents = iter(contents)
        under_way: deque[Future[list[Embedded | Refused]]] = deque()
        started = 0
        with ThreadPoolExecutor(self._AHEAD) as pool:
            while True:
                while len(under_way) < self._AHEAD and (batch := list(islice(contents, self.batch_size))):
                    under_way.append(pool.submit(self._batch, batch, meets=started < 2))
                    started += 1
                if not under_way:
                    return
                yield from under_way.popleft().result(20)

    def _batch(self, contents: Sequence[FileContent], *, meets: bool) -> list[Embedded | Refused]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        if meets:
            self._both.wait(20)
        results = [self._one(content) for content in contents]
        with self._lock:
            self._now -= 1
        return results

    def _one(self, content: FileContent) -> Embedded | Refused:
        try:
            decoded = decode(content.data, content.path, min_side=self._encoder.preprocessing.min_side)
        except PictureError as error:
            return Refused(error.reason, lasting=True)
        pixels: Pixels = preprocess(decoded, self._encoder.preprocessing)[None]
        [vector] = self._encoder.embed_images(pixels)
        return Embedded(decoded.width, decoded.height, decoded.taken_at, vector)


def rows(directory: Path) -> list[tuple[object, ...]]:
    """All that an index says of its pictures, in the order in which they were added."""
    with Library(directory) as library:
        skipped = [(skip.path, skip.reason) for skip in library.skipped()]
        with library._readers.lend() as store:
            return [*store.catalog.entries(), *skipped]


def test_an_engine_with_several_batches_under_way_makes_the_same_index(photos: Path, tmp_path: Path) -> None:
    (photos / "r5.bad.png").write_bytes(b"no picture")
    fake = FakeEncoder()
    engine = ThreadedEngine(fake)
    with Library(tmp_path / "threaded", Model.from_parts(fake, engine=engine)) as library:
        assert library.index([photos]).encoded == STEPS
    with Library(tmp_path / "local", Model.from_parts(fake)) as library:
        library.index([photos])
    assert engine.most > 1
    assert rows(tmp_path / "threaded") == rows(tmp_path / "local")
    assert len(rows(tmp_path / "local")) == STEPS + 1


def test_recall_is_calibrated_by_the_encoder_where_an_engine_knows_pictures_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", 2 * STEPS - 1)
    fake = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(fake, engine=ThreadedEngine(fake))) as library:
        library.index([photos])
        with library._readers.lend() as store:
            assert len(store.catalog.queries()) == len(TEXTS)


# A store

MARKER = 7  # the generation that the double has the manifest name


class BruteForce:
    """Compares a query with every vector of the manifest; keeps no file, and counts what it was asked."""

    def __init__(self) -> None:
        self.published = self.searches = 0

    def open(self, directory: Path, catalog: Catalog) -> RecallView:
        return BruteForceView(self, catalog)

    def files(self, directory: Path, catalog: Catalog) -> list[Path]:
        return []

    def require_reachable(self, directory: Path, catalog: Catalog) -> None:
        pass

    def is_due(self, catalog: Catalog, uncovered: int, *, at_end: bool) -> bool:
        return at_end and uncovered > 0

    def vectors(
        self, directory: Path, catalog: Catalog, images: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        return iter(())

    def publish(self, directory: Path, catalog: CatalogWriter, on_progress: OnProgress) -> None:
        self.published += 1
        newest = max(catalog.image_ids(), default=0)
        with catalog.transaction():
            catalog.publish(MARKER, newest, bytes(32))
        on_progress(newest, newest)

    def is_intact(self, directory: Path, catalog: Catalog, *, whole: bool) -> bool:
        return True

    def differences(self, directory: Path, catalog: Catalog) -> Iterator[str]:
        return iter(())

    def clean(self, directory: Path, catalog: Catalog, *, everything: bool = False) -> None:
        pass


class BruteForceView:
    is_there = True
    damage = None

    def __init__(self, store: BruteForce, catalog: Catalog) -> None:
        self._store, self._catalog = store, catalog

    def connect(self) -> None:
        pass

    def search(
        self, query: npt.NDArray[np.float32], k: int, images: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.int64]:
        self._store.searches += 1
        orphans = set(self._catalog.orphans())
        stored = [row for batch in self._catalog.vectors() for row in batch if row[0] not in orphans]
        if images is not None:
            stored = [row for row in stored if row[0] in images]
        ids = np.array([id for id, _ in stored], np.int64)
        scores = np.array([np.frombuffer(vector, "<f2") for _, vector in stored], np.float32) @ query
        return ids[np.argsort(-scores, kind="stable")[:k]]

    def close(self) -> None:
        pass


def recalled(
    library: Library, query: npt.NDArray[np.float32], k: int, within: npt.NDArray[np.int64] | None
) -> tuple[list[int], list[float]]:
    with library._readers.lend() as store:
        [near] = store.recall(query, k, within)
    return [one.image for one in near], [one.similarity for one in near]


def test_a_store_double_finds_what_faiss_finds(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    model = Model.from_parts(fake, fake)
    double = BruteForce()
    store: RecallStore = double
    with Library(tmp_path / "double", model, store=store) as ours, Library(tmp_path / "faiss", model) as faiss:
        for library in (ours, faiss):
            library.index([photos])
        (photos / "r4.png").unlink()  # an orphan: no search may find it
        for library in (ours, faiss):
            library.index([photos])
        assert ours.summary().generation == MARKER and double.published
        assert not list((tmp_path / "double").glob("vectors-*"))
        for asked in (
            {"text": "red"},
            {"text": "green"},
            {"image": photos / "r3.png", "keep_self": True},
            {"text": "red", "depth": 0},
        ):
            found, expected = (library.search(**asked, top=STEPS) for library in (ours, faiss))
            assert len(found) == STEPS - 1
            assert found.hits == expected.hits
        query = np.array([[0.6, 0.8, 0]], np.float32)
        for k, within in ((3, None), (STEPS, None), (5, np.array([2, 3, 7], np.int64))):
            found_here, found_there = (recalled(library, query, k, within) for library in (ours, faiss))
            assert found_here == found_there
        assert double.searches
        assert not list(ours.check())


def test_a_store_double_serves_those_who_look_after_the_index(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    double = BruteForce()
    with Library(tmp_path / "index", Model.from_parts(fake, fake), store=double) as library:
        library.index([photos])
        published = double.published
        library.forget([photos / "r9.png"])
        assert library.prune().images == 1
        assert double.published > published
        assert library.repair().left == ()
        assert names(library.search("red", top=1)) == ["r8"]
        assert library.export(tmp_path / "export").images == STEPS - 1
        assert not list((tmp_path / "index").glob("vectors-*"))
