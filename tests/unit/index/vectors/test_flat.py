"""FAISS against brute force: the same ids and the same scores, whatever came and went before."""

import io
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from bridgetower.index.vectors.faiss.flat import FlatVectors
from bridgetower.index.vectors.float16 import pack, unpack

DIM = 24


def unit_rows(count: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(
    ids: NDArray[np.int64], vectors: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> list[tuple[int, float]]:
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    return sorted(zip(ids.tolist(), scores.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))[:k]


def assert_same_as_brute_force(
    index: FlatVectors, ids: NDArray[np.int64], vectors: NDArray[np.float32], k: int
) -> None:
    queries = unit_rows(3, seed=99)
    found_ids, scores = index.search(queries, k)
    assert found_ids.shape == scores.shape == (3, min(k, len(ids)))
    assert found_ids.dtype == np.int64
    assert scores.dtype == np.float32
    for row, query in enumerate(queries):
        expected = brute_force(ids, vectors, query, k)
        assert found_ids[row].tolist() == [id for id, _ in expected]
        np.testing.assert_allclose(scores[row], [score for _, score in expected], rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7, 300])
@pytest.mark.parametrize("k", [1, 5, 300, 1000])
def test_search_equals_brute_force_with_negative_scores_and_any_k(count: int, k: int) -> None:
    vectors = unit_rows(count)
    ids = np.random.default_rng(1).permutation(np.arange(10, 10 + 3 * count, 3))
    index = FlatVectors(DIM)
    index.add(ids, vectors)
    assert len(index) == count
    assert index.ids().tolist() == sorted(ids.tolist())
    assert_same_as_brute_force(index, ids, vectors, k)
    if count == k == 300:
        assert (index.search(vectors[:1], k)[1] < 0).any()


def test_search_equals_brute_force_after_add_remove_and_reload(tmp_path: Path) -> None:
    vectors, ids = unit_rows(200), np.arange(200)
    index = FlatVectors(DIM)
    index.add(ids[:120], vectors[:120])
    index.remove(ids[30:90])
    index.add(ids[120:], vectors[120:])
    index.add(ids[40:50], vectors[40:50])  # ids that were removed may come back, out of order
    index.remove(np.array([5, 7_000_000]))
    present = np.array([id for id in ids.tolist() if not (30 <= id < 40 or 50 <= id < 90 or id == 5)])
    assert index.ids().tolist() == present.tolist()
    assert_same_as_brute_force(index, present, vectors[present], 20)

    loaded = reloaded(index, tmp_path / "a.faiss")
    assert loaded is not None
    assert_same_as_brute_force(loaded, present, vectors[present], 20)
    loaded.remove(present[::2])
    assert_same_as_brute_force(loaded, present[1::2], vectors[present[1::2]], 20)
    with pytest.raises(ValueError, match="one vector only"):
        loaded.add(present[1:2], vectors[present[1:2]])


def test_equal_vectors_come_in_the_order_of_their_ids_even_where_the_list_is_cut() -> None:
    vectors = unit_rows(100)
    vectors[20:90] = vectors[3]  # 71 ties, of which 5 are wanted
    ids = np.random.default_rng(2).permutation(1000)[:100]
    index = FlatVectors(DIM)
    index.add(ids, vectors)
    tied = sorted([int(ids[3]), *ids[20:90].tolist()])
    found, scores = index.search(vectors[3:4], 5)
    assert found[0].tolist() == tied[:5]
    assert len(set(scores[0].tolist())) == 1
    np.testing.assert_allclose(scores[0], 1, atol=1e-6)


def test_a_query_gets_the_same_answer_alone_and_in_a_batch() -> None:
    index, queries = FlatVectors(DIM), unit_rows(60, seed=5)
    index.add(np.arange(500), unit_rows(500))
    ids, scores = index.search(queries, 10)
    for row in range(len(queries)):
        alone_ids, alone_scores = index.search(queries[row : row + 1], 10)
        assert ids[row].tolist() == alone_ids[0].tolist()
        assert scores[row].tolist() == alone_scores[0].tolist()


def test_a_query_alone_is_searched_by_one_thread_and_the_number_comes_back() -> None:
    index = FlatVectors(DIM)
    index.add(np.arange(100), unit_rows(100))
    inner, seen = index._index, []

    class Watched:
        ntotal = inner.ntotal
        reconstruct_batch = inner.reconstruct_batch

        def search(self, queries: NDArray[np.float32], k: int) -> object:
            seen.append((len(queries), faiss.omp_get_max_threads()))
            return inner.search(queries, k)

    index._index = Watched()
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        index.search(unit_rows(1), 5)
        index.search(unit_rows(3), 5)
        assert seen == [(1, 1), (3, 2)]
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_no_queries_and_no_vectors_give_empty_answers() -> None:
    index = FlatVectors(DIM)
    index.add(np.arange(0), unit_rows(0))
    index.remove(np.arange(0))
    assert index.search(unit_rows(2), 5)[0].shape == (2, 0)
    index.add(np.arange(3), unit_rows(3))
    assert index.search(unit_rows(0), 2)[0].shape == (0, 2)
    assert index.search(unit_rows(2), 0)[0].shape == (2, 0)


@pytest.mark.parametrize("ids", [[7, 7], [5, 6], [9, 5]], ids=["twice", "there, ascending", "there, descending"])
def test_an_id_stands_for_one_vector_only(ids: list[int]) -> None:
    index = FlatVectors(DIM)
    index.add(np.array([5]), unit_rows(1))
    with pytest.raises(ValueError, match="one vector only"):
        index.add(np.array(ids), unit_rows(2))
    assert len(index) == 1


def test_shapes_that_do_not_fit_are_refused() -> None:
    index = FlatVectors(DIM)
    with pytest.raises(ValueError, match="shape"):
        index.add(np.arange(2), unit_rows(3))
    with pytest.raises(ValueError, match="shape"):
        index.add(np.arange(2), unit_rows(2, dim=DIM + 1))
    with pytest.raises(ValueError, match="shape"):
        index.search(unit_rows(2, dim=DIM + 1), 1)
    with pytest.raises(ValueError, match="shape"):
        index.search(unit_rows(1)[0], 1)


def test_pack_rounds_to_float16_and_unpack_gives_exactly_that() -> None:
    vectors = unit_rows(5)
    blobs = [pack(vector, DIM) for vector in vectors]
    assert all(len(blob) == 2 * DIM for blob in blobs)
    assert blobs[0][:2] == np.float16(vectors[0, 0]).astype("<f2").tobytes()
    np.testing.assert_array_equal(unpack(blobs, DIM), vectors.astype(np.float16).astype(np.float32))
    assert unpack([], DIM).shape == (0, DIM)


def test_pack_leaves_float16_as_it_is_also_where_rounding_has_moved_its_length() -> None:
    vector = (np.eye(1, 4)[0] * 1.0015).astype(np.float16)
    assert pack(vector, 4) == vector.astype("<f2").tobytes()
    with pytest.raises(ValueError, match="length"):
        pack(vector.astype(np.float32), 4)
    with pytest.raises(ValueError, match="length"):
        pack((np.eye(1, 4)[0] * 1.003).astype(np.float16), 4)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.ones(DIM - 1, dtype=np.float32), "shape"),
        (np.ones((1, DIM), dtype=np.float32), "shape"),
        (np.zeros(DIM, dtype=np.float32), "length 0.0000"),
        (1.01 * np.eye(DIM, dtype=np.float32)[0], "length 1.0100"),
        (np.where(np.arange(DIM) == 3, np.nan, 0.1).astype(np.float32), "not finite"),
        (np.where(np.arange(DIM) == 3, np.inf, 0.1).astype(np.float32), "not finite"),
    ],
)
def test_pack_refuses_what_is_no_unit_vector(vector: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(vector, DIM)


@pytest.mark.parametrize("blob", [b"", b"\0" * (2 * DIM), b"\xff" * (2 * DIM), b"\0" * (2 * DIM - 2)])
def test_unpack_notices_damage(blob: bytes) -> None:
    with pytest.raises(ValueError, match="vector"):
        unpack([pack(unit_rows(1)[0], DIM), blob], DIM)


def reloaded(index: FlatVectors, path: Path) -> FlatVectors | None:
    with open(path, "wb") as out:
        sha256 = index.save(out)
    with open(path, "rb") as back:
        return FlatVectors.load(back, sha256, index.dim)


def test_the_file_is_an_ordinary_faiss_index(tmp_path: Path) -> None:
    index = FlatVectors(DIM)
    index.add(np.array([4, 2]), unit_rows(2))
    reloaded(index, tmp_path / "a.faiss")
    plain = faiss.read_index(str(tmp_path / "a.faiss"))
    assert faiss.vector_to_array(plain.id_map).tolist() == [4, 2]
    np.testing.assert_array_equal(plain.reconstruct(2), unit_rows(2)[1])


def test_a_damaged_file_is_not_loaded(tmp_path: Path) -> None:
    index, path = FlatVectors(DIM), tmp_path / "a.faiss"
    index.add(np.arange(50), unit_rows(50))
    with open(path, "wb") as out:
        sha256 = index.save(out)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for bad in (b"", good[:-1], good[:100], good + b"\0", bytes(flipped)):
        path.write_bytes(bad)
        with open(path, "rb") as file:
            assert FlatVectors.load(file, sha256, DIM) is None
    path.write_bytes(good)
    with open(path, "rb") as file:
        assert FlatVectors.load(file, sha256, DIM + 1) is None
    with open(path, "rb") as file:
        assert FlatVectors.load(file, sha256, DIM) is not None


def test_a_failing_disk_is_reported_as_what_it_is() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    index = FlatVectors(DIM)
    index.add(np.arange(2), unit_rows(2))
    with pytest.raises(OSError, match="No space left"):
        index.save(Full())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error"), MemoryError()], ids=repr)
def test_what_ends_the_reading_or_writing_of_a_file_passes_through_faiss(error: BaseException) -> None:
    class Broken(io.BytesIO):
        def write(self, data: object) -> int:
            raise error

        def read(self, size: int | None = -1) -> bytes:
            if self.hashed:
                raise error
            return super().read(size)

        def seek(self, *place: int) -> int:
            self.hashed = True
            return super().seek(*place)

        hashed = False

    index = FlatVectors(DIM)
    index.add(np.arange(2), unit_rows(2))
    with pytest.raises(type(error)):
        index.save(Broken())
    whole = io.BytesIO()
    sha256 = index.save(whole)
    with pytest.raises(type(error)):
        FlatVectors.load(Broken(whole.getvalue()), sha256, DIM)  # type: ignore[arg-type]
