"""The pairs of near vectors are those that comparing all with all gives."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.drift import FINGERPRINT, insert
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.retrieval.duplicates import near
from bridgetower.retrieval.duplicates.near import Pairs, near_pairs, near_through_store

LEAST = 0.9


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_ROWS": 7, "_COLUMNS": 5, "_QUERIES": 9}.items():
        monkeypatch.setattr(near, name, value)


def vectors(number: int = 60, dim: int = 512) -> npt.NDArray[np.float16]:
    """Unit vectors, of which some are near to others."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((number // 4, dim))
    found = centres[rng.integers(0, len(centres), number)] + 0.3 * rng.standard_normal((number, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def all_pairs(stored: npt.NDArray[np.float16], least: float = LEAST) -> dict[tuple[int, int], float]:
    scores = stored.astype(np.float64) @ stored.astype(np.float64).T
    return {
        (one, other): float(scores[one, other])
        for other in range(len(stored))
        for one in range(other)
        if scores[one, other] >= least
    }


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    rows = list(pairs.rows())
    assert [other for _, other, _ in rows] == sorted(other for _, other, _ in rows)
    found = {(one, other): similarity for one, other, similarity in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("number", [1, 2, 6, 7, 8, 60])
def test_near_pairs_are_those_of_all_with_all(number: int) -> None:
    stored, told = vectors(number=60)[:number], list[tuple[int, int]]()
    found = as_dict(near_pairs(stored, LEAST, lambda done, total: told.append((done, total))))
    assert found == pytest.approx(all_pairs(stored), abs=1e-6)
    assert number < 60 or len(found) > 20
    assert told[-1] == (number, number)


@pytest.mark.usefixtures("small_blocks")
def test_of_too_many_near_ones_the_nearest_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST_NEAR", 3)
    stored = vectors()
    true, found = all_pairs(stored, -1.0), as_dict(near_pairs(stored, -1.0))
    for other in range(len(stored)):
        best = sorted((similarity for (_, one), similarity in true.items() if one == other), reverse=True)[:3]
        mine = sorted((similarity for (_, one), similarity in found.items() if one == other), reverse=True)
        assert mine == pytest.approx(best, abs=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_a_large_index_is_asked_for_the_nearest_and_gives_the_same_pairs(tmp_path: Path) -> None:
    stored = vectors()
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        insert(writer, 0, stored.astype(np.float32))
    some = np.arange(len(stored))[::-1][:50]  # in another order, and not all of them
    with IndexReader.open(tmp_path / "index") as reader:
        found = as_dict(near_through_store(reader, some + 1, stored[some], LEAST))
    assert found == pytest.approx(all_pairs(stored[some]), abs=1e-6)
    assert len(found) > 20


def test_a_cosine_is_at_most_one() -> None:
    stored = np.ones((2, 3), np.float16) * np.float16(0.5776)
    assert list(near_pairs(stored, 1.0).rows()) == [(0, 1, 1.0)]
