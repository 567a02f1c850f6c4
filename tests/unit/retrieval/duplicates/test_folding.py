"""Hits that show the same view are one row, under the best-ranked of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photo
from bridgetower.encoders.protocol import Vectors
from bridgetower.errors import UsageError
from bridgetower.library import Library
from bridgetower.models.model import Model
from bridgetower.pictures.likeness.grids import Grid
from bridgetower.records import File, Hit, Skipped
from bridgetower.retrieval.duplicates import folding
from bridgetower.retrieval.duplicates.folding import Folded
from bridgetower.retrieval.duplicates.looks import looks
from bridgetower.retrieval.duplicates.near import similarities
from bridgetower.retrieval.duplicates.there import Content
from bridgetower.retrieval.results import Found
from bridgetower.retrieval.search.request import SearchRequest
from tests.clouds import evict
from tests.fakes import FakeEncoder

pytestmark = pytest.mark.usefixtures("decode_here")

TEXT = "red"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Six views of 1 to 4 pictures each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for view in range(6):
        picture = photo(view, 160, 120)
        forms: list[Image.Image] = [picture, picture.resize((100, 75)), picture.crop((12, 9, 150, 112)), picture]
        for number, form in enumerate(forms[: 1 + view % 4]):
            form.save(folder / f"{view}-{number}.jpg", quality=90 - 10 * number)
    encoder = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(encoder, encoder)) as library:
        library.index([folder])
        yield library


def view(path: Path) -> str:
    return path.name[0]


def rows(found: Found) -> list[tuple[str, list[str]]]:
    return [(hit.path.name, [path.name for path in hit.like]) for hit in found]


@pytest.mark.parametrize("depth", [0, 5])
def test_each_view_is_one_row(library: Library, depth: int) -> None:
    every = library.search(TEXT, top=100, depth=depth)
    assert len(every) == 13 and all(hit.like == () for hit in every)
    folded = library.search(TEXT, top=100, depth=depth, unique=True)
    views = list(dict.fromkeys(view(hit.path) for hit in every))
    assert rows(folded) == [
        (names[0], names[1:]) for one in views for names in [[hit.path.name for hit in every if view(hit.path) == one]]
    ]
    best = {view(hit.path): hit for hit in reversed(every.hits)}
    assert [(hit.match, hit.similarity, hit.hash) for hit in folded] == [
        (best[one].match, best[one].similarity, best[one].hash) for one in views
    ]


def test_top_counts_rows_and_all_hits_before_the_next_row_are_folded(library: Library) -> None:
    every = [hit.path for hit in library.search(TEXT, top=100)]
    views = list(dict.fromkeys(map(view, every)))
    for top in range(1, 6):
        found = library.search(TEXT, top=top, unique=True)
        assert [view(hit.path) for hit in found] == views[:top]
        seen = every[: next(at for at, path in enumerate(every) if view(path) == views[top])]
        assert {view(hit.path): set(hit.like) for hit in found} == {
            one: {path for path in seen if view(path) == one} - {next(path for path in seen if view(path) == one)}
            for one in views[:top]
        }


def test_pages_and_offset_go_on_with_further_rows(library: Library) -> None:
    request = SearchRequest(TEXT, top=2, unique=True)
    pages = list(library.pages(request))
    whole = [view(hit.path) for hit in library.search(TEXT, top=100, unique=True)]
    assert [view(hit.path) for page in pages for hit in page] == whole
    assert [len(page) for page in pages] == [2, 2, 2]
    for offset in range(7):
        found = library.search(TEXT, top=2, offset=offset, unique=True)
        assert [view(hit.path) for hit in found] == whole[offset : offset + 2]


def test_hits_are_told_folded_at_last(library: Library) -> None:
    told: list[tuple[Hit, ...]] = []
    found = library.search(TEXT, top=4, unique=True, on_hits=told.append)
    assert told[-1] == found.hits and any(hit.like for hit in found)
    assert not any(hit.like for hits in told[:-1] for hit in hits)


def test_it_folds_what_duplicates_finds(library: Library) -> None:
    groups = {frozenset([group.keep.path, *(other.path for other in group.others)]) for group in library.duplicates()}
    folded = library.search(TEXT, top=100, unique=True)
    assert {frozenset([hit.path, *hit.like]) for hit in folded if hit.like} == groups


def test_a_least_similarity_cuts_before_hits_are_folded(library: Library, tmp_path: Path) -> None:
    picture = tmp_path / "photos" / "3-0.jpg"
    every = library.search(image=picture, top=100, keep_self=True)
    least = every[2].similarity
    assert least is not None
    found = library.search(image=picture, top=100, keep_self=True, min_similarity=least, unique=True)
    assert {path for hit in found for path in (hit.path, *hit.like)} == {hit.path for hit in every[:3]}


def test_what_has_changed_or_is_in_the_cloud_is_like_no_other(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, away = tmp_path / "photos" / "3-1.jpg", tmp_path / "photos" / "2-1.jpg"
    changed.write_bytes(changed.read_bytes() + b" ")
    evict(monkeypatch, away)
    found = {hit.path: hit.like for hit in library.search(TEXT, top=100, unique=True)}
    assert found[changed] == found[away] == ()


def test_a_picture_is_looked_at_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []

    def look(contents: Sequence[Content]) -> Iterator[Grid | Skipped]:
        looked.extend(content.hash for content in contents)
        return looks(contents)

    monkeypatch.setattr(folding, "_AT_ONCE", 2)
    monkeypatch.setattr(folding, "looks", look)
    assert sum(map(len, library.pages(SearchRequest(TEXT, top=1, unique=True)))) == 6
    assert len(looked) == len(set(looked)) > 5


def test_a_hit_is_compared_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def compare(ones: Vectors, others: Vectors) -> Vectors:
        compared.append(len(ones))
        return similarities(ones, others)

    monkeypatch.setattr(folding, "_AT_ONCE", 2)
    monkeypatch.setattr(folding, "similarities", compare)
    assert sum(map(len, library.pages(SearchRequest(TEXT, top=1, unique=True)))) == 6
    assert len(compared) <= 13


def test_as_many_hits_are_looked_at_together_as_rows_are_wanted(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def look(contents: Sequence[Content]) -> Iterator[Grid | Skipped]:
        calls.append(len(contents))
        return looks(contents)

    monkeypatch.setattr(folding, "_AT_ONCE", 1)
    monkeypatch.setattr(folding, "looks", look)
    assert len(library.search(TEXT, top=100, unique=True)) == 6
    assert calls[0] > 5 and sum(calls[1:]) == 0


Numbers = list[list[int]]


def fold(
    monkeypatch: pytest.MonkeyPatch, angles: list[float], same: set[tuple[int, int]], widths: Sequence[int] = (9, 8, 7)
) -> tuple[Numbers, Numbers]:
    """Return rows of hits by their numbers, and the pairs that were compared. Vectors are at `angles`; `same` is."""
    compared: Numbers = []

    def are_same(grids: Grid, ones: Grid, others: Grid) -> list[bool]:
        compared.append([int(grid[0, 0, 0]) for grid in grids])
        return [tuple(compared[-1]) in same]

    def find(self: Folded, hit: Hit) -> folding._Known:
        number = int(hit.path.name)
        content = Content(bytes([number]), widths[number], 8, (None,), (File(hit.path, 1, 1),))
        return folding._Known(content, np.array([np.cos(angles[number]), np.sin(angles[number])], np.float32))

    monkeypatch.setattr(folding, "are_same", are_same)
    monkeypatch.setattr(folding, "looks", lambda some: [np.full((1, 1, 3), one.hash[0], np.uint8) for one in some])
    monkeypatch.setattr(Folded, "_find", find)
    hits = (Hit(Path(str(number)), None, 0.5, verified=False) for number in range(len(angles)))
    found = Folded(None, str, hits).take(9)  # type: ignore[arg-type]  # the index is not asked
    return [[int(path.name) for path in (hit.path, *hit.like)] for hit in found], compared


def test_each_folded_hit_is_like_the_one_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fold(monkeypatch, [0, 0.1, 0.2], {(0, 1), (1, 2)}) == ([[0, 1], [2]], [[0, 1], [0, 2]])


def test_a_hit_is_folded_into_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fold(monkeypatch, [0, 0.3, 0.2], {(0, 2), (1, 2)}) == ([[0], [1, 2]], [[0, 1], [1, 2]])
    assert fold(monkeypatch, [0.1, -0.1, 0], {(0, 2), (1, 2)})[0] == [[0, 2], [1]]  # as near: the better rank


def test_the_picture_that_would_be_kept_is_compared_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fold(monkeypatch, [0, 0.1, 2], {(1, 0)}, [8, 9, 9]) == ([[0, 1], [2]], [[1, 0]])


def test_pictures_of_other_shapes_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fold(monkeypatch, [0, 0.1, 0.2], {(0, 1), (1, 2)}, [9, 30, 60]) == ([[0], [1], [2]], [])


def test_without_it_nothing_is_looked_at(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "looks", None)
    assert len(library.search(TEXT, top=100)) == 13


def test_it_is_true_or_false() -> None:
    with pytest.raises(UsageError, match="unique is True or False"):
        SearchRequest(TEXT, unique=1)  # type: ignore[arg-type]
