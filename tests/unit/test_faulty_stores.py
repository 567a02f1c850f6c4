"""Stores that do not hold their protocol: errors name the store, and results are those of the catalog."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower import DamagedIndexError, Library, Model, StoreError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.reader import IndexReader
from bridgetower.records import Filter, OnProgress
from tests.fakes import FakeEncoder, paint
from tests.indexes import build

pytestmark = pytest.mark.usefixtures("decode_here")

STEPS = 10
RED = np.array([1, 0, 0], np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures from green to red, r0 (green) to r9 (red)."""
    for step in range(STEPS):
        paint(tmp_path / "photos" / f"r{step}.png", (28 * step, 252 - 28 * step, 0))
    return tmp_path / "photos"


class Rows:
    """A store without files, as a database is one: rows of its own, which may be altered or gone."""

    def __init__(self, propose: "Callable[[list[int]], Any] | None" = None) -> None:
        self.propose = propose or (lambda ids: np.array(ids, np.int64))
        self.rows: dict[int, bytes] = {}
        self.searches = 0

    def open(self, directory: Path, catalog: Catalog) -> "RowsView":
        return RowsView(self, catalog)

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
        self.rows = self.truth(catalog)
        with catalog.transaction():
            catalog.publish(catalog.state().generation + 1, max(self.rows, default=0), bytes(32))

    def truth(self, catalog: Catalog) -> dict[int, bytes]:
        return {id: vector for some in catalog.vectors() for id, vector in some}

    def is_intact(self, directory: Path, catalog: Catalog, *, whole: bool) -> bool:
        return True

    def differences(self, directory: Path, catalog: Catalog) -> Iterator[str]:
        if self.rows != self.truth(catalog):
            yield "its rows are not those of the manifest"

    def clean(self, directory: Path, catalog: Catalog, *, everything: bool = False) -> None:
        if everything:
            self.rows = {}


class RowsView:
    is_there, damage = True, None

    def __init__(self, store: Rows, catalog: Catalog) -> None:
        self._store, self._catalog = store, catalog

    def connect(self) -> None:
        pass

    def search(
        self, query: npt.NDArray[np.float32], k: int, images: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.int64]:
        self._store.searches += 1
        found = set(self._store.rows) - set(self._catalog.orphans())
        return self._store.propose(sorted(found if images is None else found & set(images.tolist()), reverse=True))

    def close(self) -> None:
        pass


def filled_index(directory: Path, photos: Path, store: Rows) -> None:
    with Library(directory, Model.from_parts(FakeEncoder()), store=store) as library:
        library.index([photos])


def test_scores_and_order_are_those_of_the_catalog_whatever_a_store_proposes(photos: Path, tmp_path: Path) -> None:
    store, model = Rows(), Model.from_parts(FakeEncoder())
    filled_index(tmp_path / "rows", photos, store)
    store.rows = dict.fromkeys(store.rows, b"altered")  # what it holds is not believed
    with Library(tmp_path / "faiss", model) as faiss, Library(tmp_path / "rows", model, store=store) as rows:
        faiss.index([photos])
        for asked in ({"text": "red"}, {"image": photos / "r3.png"}, {"text": "green", "under": photos / "r3.png"}):
            found, expected = (library.search(**asked, depth=0, top=STEPS) for library in (rows, faiss))
            assert found.hits == expected.hits and found.hits
        with rows._readers.lend() as here, faiss._readers.lend() as there:
            for k in (1, 3, STEPS):
                assert here.recall(RED[None], k) == there.recall(RED[None], k)


PROPOSED: dict[str, Callable[[list[int]], Any]] = {
    "one that is unknown": lambda ids: [*ids, 999],
    "one twice": lambda ids: [*ids, ids[0]],
    "too few": lambda ids: ids[1:],
    "none": lambda ids: [],
    "fractions": lambda ids: np.array(ids, np.float32),
    "scores, too": lambda ids: (np.array(ids), np.ones(len(ids), np.float32)),
    "lists of different lengths": lambda ids: [ids, ids[1:]],
    "nothing": lambda ids: None,
}


@pytest.mark.parametrize("propose", PROPOSED.values(), ids=PROPOSED)
@pytest.mark.parametrize("limits", [{}, {"since": "2000"}])
def test_a_fault_of_a_store_names_the_store_and_no_damage(
    photos: Path, tmp_path: Path, propose: Callable[[list[int]], Any], limits: dict[str, Any]
) -> None:
    store = Rows(propose)
    filled_index(tmp_path / "index", photos, store)
    with (
        Library(tmp_path / "index", Model.from_parts(FakeEncoder()), store=store) as library,
        pytest.raises(StoreError, match=r"^Rows: ") as raised,
    ):
        library.search("red", depth=0, **limits)
    assert not isinstance(raised.value, DamagedIndexError)


def test_an_image_without_a_file_or_beyond_the_filter_is_a_fault_of_the_store(photos: Path, tmp_path: Path) -> None:
    store, model = Rows(), Model.from_parts(FakeEncoder())
    filled_index(tmp_path / "index", photos, store)
    everything = sorted(store.rows)
    store.propose = lambda ids: everything
    with Library(tmp_path / "index", model, store=store) as library:
        assert len(library.search("red", depth=0)) == STEPS
        with pytest.raises(StoreError, match=rf"^Rows: search proposed {STEPS - 1} images that it was not to look at"):
            library.search("red", depth=0, under=photos / "r3.png")
        (photos / "r4.png").unlink()
        library.index([photos])
        with pytest.raises(StoreError, match=r"^Rows: search proposed 1 images that it was not to look at"):
            library.search("red", depth=0)


def test_a_view_that_is_none_is_told(photos: Path, tmp_path: Path) -> None:
    class Viewless(Rows):
        def open(self, directory: Path, catalog: Catalog) -> Any:
            return self

    store = Viewless()
    filled_index(tmp_path / "index", photos, Rows())
    with (
        Library(tmp_path / "index", Model.from_parts(FakeEncoder()), store=store) as library,
        pytest.raises(StoreError, match=r"^Viewless: open gave .*lacks is_there, damage, connect, search, close"),
    ):
        library.search("red", depth=0)


def test_a_store_is_not_asked_where_the_filter_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    store, model = Rows(), Model.from_parts(FakeEncoder())
    filled_index(tmp_path / "index", photos, store)
    with Library(tmp_path / "index", model, store=store) as library:
        assert len(library.search("red", since="2090", depth=0)) == 0
        assert not store.searches
        with library._readers.lend() as reader:
            assert list(reader.nearest(RED[None], Filter(since=2**40))) == []


def test_a_store_without_files_is_checked_and_repaired(photos: Path, tmp_path: Path) -> None:
    store, model = Rows(), Model.from_parts(FakeEncoder())
    filled_index(tmp_path / "index", photos, store)
    with Library(tmp_path / "index", model, store=store) as library:
        assert not list(library.check())
        del store.rows[1]
        [found] = library.check()
        assert (found.part, found.problem, found.path) == ("vectors", "its rows are not those of the manifest", None)
        repaired = library.repair()
        assert repaired.findings == (found,) and repaired.left == ()
        assert len(library.search("red", depth=0)) == STEPS


def test_an_index_whose_vector_file_was_not_published_yet_is_in_order(tmp_path: Path) -> None:
    build(tmp_path / "index", 1, 2, 3, finish=False)
    with Library(tmp_path / "index") as library:
        assert (library.summary().images, library.summary().generation) == (3, 0)
        assert not list(library.check())
        assert library.repair().findings == ()


def test_a_reader_goes_from_thread_to_thread(photos: Path, tmp_path: Path) -> None:
    with Library(tmp_path / "index", Model.from_parts(FakeEncoder())) as library:
        library.index([photos])

    def here(task: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:  # a thread of its own
            return pool.submit(task).result(20)

    reader = here(lambda: IndexReader.open(tmp_path / "index"))
    for _ in range(3):
        assert len(here(lambda: reader.recall(RED[None], 3))[0]) == 3
        assert here(lambda: len(list(reader.nearest(RED[None], Filter(under=(photos,)))))) == STEPS
    here(reader.close)
