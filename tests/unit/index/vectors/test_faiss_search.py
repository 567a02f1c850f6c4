"""Search among so many images that not all are compared: what is found, what it costs, what damage does to it."""

import dataclasses
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.clouds import Clouds
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.vectors.faiss.scalar_codes import ScalarCodes
from bridgetower.index.vectors.faiss.store import FaissStore
from bridgetower.index.vectors.float16 import pack
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File, Filter, Fingerprint
from tests.conftest import Zone

DIM = 32
N = 3000
FINGERPRINT = Fingerprint("some/model", "local", "f" * 64, "c" * 64, "hf", 1, "float", DIM)
CLOUDS = Clouds(DIM, themes=40, rank=20)
PICTURES = CLOUDS.pictures(0, 2 * N)
TEXTS = CLOUDS.texts(0, 64)
ASKED = CLOUDS.texts(1, 100)  # others than those it is tuned with
TRUTH = PICTURES.astype(np.float16).astype(np.float64)


def hash_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def path_of(number: int) -> Path:
    return Path(f"/photos/{number % 7}/{number}.jpg")


def add(writer: IndexWriter, numbers: Sequence[int]) -> None:
    """Picture `number` is taken at that second if it is even, and its file changed then if it is odd."""
    writer.commit(
        images=[NewImage(hash_of(i), 1, 1, None if i % 2 else i, PICTURES[i]) for i in numbers],
        files=[(File(path_of(i), 1, i * 10**9), hash_of(i)) for i in numbers],
    )


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", 500)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("many") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", 500)
        with IndexWriter.open(directory, FINGERPRINT) as writer:
            writer.set_queries(TEXTS)
            add(writer, range(N))
            writer.finish()
    return directory


@pytest.fixture
def directory(template: Path, tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    for path in template.iterdir():
        (tmp_path / "index" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "index"


def exact(query: NDArray[np.float32], k: int, numbers: Sequence[int] = range(N)) -> list[int]:
    """The numbers of the best pictures; image ids are one higher."""
    of = np.array(numbers, np.int64)
    scores = (TRUTH[of] * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    best: list[int] = of[np.lexsort((of, -scores))[:k]].tolist()
    return best


def recall_of(directory: Path, numbers: Sequence[int] = range(N), k: int = 100) -> float:
    with IndexReader.open(directory) as store:
        found = store.recall(ASKED, k)
    hits = sum(len({n.image - 1 for n in row} & set(exact(q, k, numbers))) for q, row in zip(ASKED, found, strict=True))
    return hits / (k * len(ASKED))


def tuning_of(directory: Path) -> Tuning:
    with IndexReader.open(directory) as store:
        tuning = store.summary().tuning
    assert tuning is not None
    return tuning


def test_the_effort_is_measured_with_texts_and_holds_for_others(directory: Path) -> None:
    tuning = tuning_of(directory)
    assert (tuning.texts, tuning.pictures, tuning.trained) == (64, 64, N)
    assert tuning.recall >= 0.99
    assert tuning.candidates < N / 3  # else it shows nothing
    assert recall_of(directory) >= 0.985


def tune(catalog: CatalogWriter, **changed: Any) -> None:
    """Say that the vector file is searched in another way."""
    state, tuning = catalog.state(), catalog.tuning()
    assert tuning is not None and state.vectors_sha256 is not None
    with catalog.transaction():
        catalog.publish(state.generation, state.covered, state.vectors_sha256, tuning._replace(**changed))


def test_less_effort_finds_less(directory: Path) -> None:
    """The measure itself: were the effort not what decides, the recall above would say nothing."""
    catalog = CatalogWriter.open(directory / "manifest.sqlite", FINGERPRINT)
    tune(catalog, effort=1, candidates=164)
    catalog.close()
    assert recall_of(directory) < 0.9


def test_similarities_are_those_of_the_exact_vectors(directory: Path) -> None:
    with IndexReader.open(directory) as store:
        for query, row in zip(ASKED, store.recall(ASKED, 20), strict=True):
            scores = [(TRUTH[n.image - 1] * query.astype(np.float64)).sum() for n in row]
            assert [n.similarity for n in row] == [np.float32(score) for score in scores]
            assert scores == sorted(scores, reverse=True)


def test_few_images_are_compared_one_by_one(tmp_path: Path) -> None:
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        add(writer, range(500))
        writer.finish()
        assert writer.wants_queries()  # twice as many are no longer few
    with IndexReader.open(tmp_path / "index") as store:
        assert store.summary().tuning is None
    assert recall_of(tmp_path / "index", range(500)) == 1


def test_texts_are_wanted_once_and_early(tmp_path: Path) -> None:
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        add(writer, range(200))
        assert not writer.wants_queries()
        add(writer, range(200, 300))
        assert writer.wants_queries()
        writer.set_queries(TEXTS)
        assert not writer.wants_queries()


def test_without_texts_pictures_far_from_pictures_stand_for_them(tmp_path: Path) -> None:
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        add(writer, range(N))
        writer.finish()
    tuning = tuning_of(tmp_path / "index")
    assert tuning.texts == 0 and tuning.pictures > 200
    assert recall_of(tmp_path / "index") >= 0.95


def test_everything_is_found_by_who_asks_for_everything(directory: Path) -> None:
    with IndexReader.open(directory) as store:
        assert [n.image - 1 for n in store.recall(ASKED[:1], 10 * N)[0]] == exact(ASKED[0], N)
        images = [candidate.files[0].path for candidate in store.nearest(ASKED[:1])]
    assert len(images) == len(set(images)) == N


def test_what_has_no_file_and_what_was_removed_is_left_out(directory: Path) -> None:
    best = exact(ASKED[0], 60)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        for number in best[:50]:
            writer.forget(path_of(number))
        with writer.catalog.transaction():
            writer.catalog._db.execute("DELETE FROM images WHERE id = ?", (best[0] + 1,))
        writer.finish()
    left = sorted(set(range(N)) - set(best[:50]))
    with IndexReader.open(directory) as store:
        found = [n.image - 1 for n in store.recall(ASKED[:1], 10)[0]]
    assert found == exact(ASKED[0], 10, left)
    assert recall_of(directory, left) >= 0.985


@pytest.mark.parametrize("more", [100, 600])  # the second is more than is held in memory beside the lists
def test_what_the_lists_lack_is_found_beside_them(directory: Path, more: int) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, range(N, N + more))
    with IndexReader.open(directory) as store:
        assert store.summary().uncovered == more
        for query in ASKED[:20]:
            new = [i for i in exact(query, 100, range(N + more)) if i >= N]
            assert set(new) <= {n.image - 1 for n in store.recall(query[None], 100)[0]}
    assert recall_of(directory, range(N + more)) >= 0.985


def test_lists_grow_and_are_chosen_anew_when_there_are_twice_as_many(directory: Path) -> None:
    before = tuning_of(directory)
    codes = (directory / "vectors-1.codes").read_bytes()
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, range(N, N + 600))
        writer.finish()
    assert tuning_of(directory).trained == before.trained == N
    assert (directory / "vectors-2.codes").read_bytes().startswith(codes)
    assert not (directory / "vectors-1.codes").exists() and not (directory / "vectors-1.faiss").exists()
    assert recall_of(directory, range(N + 600)) >= 0.985
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, range(N + 600, 2 * N))
        add(writer, [2 * N - 1])
        writer._images = writer._uncovered = 2 * N
        tune(writer.catalog, trained=N - 1)
        writer.finish()
    assert tuning_of(directory).trained == 2 * N
    assert recall_of(directory, range(2 * N)) >= 0.985


def test_what_was_removed_goes_from_the_files_when_it_is_much(directory: Path) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        gone = range(0, N, 5)
        for number in gone:
            writer.forget(path_of(number))
        with writer.catalog.transaction():
            writer.catalog._db.executemany("DELETE FROM images WHERE id = ?", [(i + 1,) for i in gone])
        writer._images = writer._uncovered = len(range(N)) - len(gone)
        writer.finish()
        assert not list(writer.catalog.pruned())
    left = sorted(set(range(N)) - set(gone))
    assert recall_of(directory, left) >= 0.985


@pytest.mark.parametrize(
    ("filter", "numbers"),
    [
        (Filter(under=(Path("/photos/3"),)), range(3, N, 7)),
        (Filter(under=(path_of(5),)), [5]),
        (Filter(since=1000, before=1040), range(1000, 1040)),
        (Filter(under=(Path("/photos/0"),), before=700), range(0, 700, 7)),
        (Filter(since=10**15), []),
        (Filter(under=(Path("/photos"),)), range(N)),
    ],
)
@pytest.mark.parametrize("scanned", [False, True])
def test_a_filter_costs_no_recall(
    directory: Path, filter: Filter, numbers: Sequence[int], scanned: bool, monkeypatch: pytest.MonkeyPatch, zone: Zone
) -> None:
    zone("UTC")
    if scanned:  # as with filters that many pass
        monkeypatch.setattr("bridgetower.index.vectors.faiss.search._ROWS", 40)
    with IndexReader.open(directory) as store:
        for query in ASKED[:5]:
            found = list(store.nearest(query[None], filter))
            assert [c.files[0].path for c in found] == [path_of(i) for i in exact(query, N, numbers)]


def test_a_filter_finds_what_an_exact_file_lacks(tmp_path: Path) -> None:
    """More than is held in memory beside it."""
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        add(writer, range(400))
        writer.finish()
        add(writer, range(400, 1000))
    with IndexReader.open(tmp_path / "index") as store:
        found = list(store.nearest(ASKED[:1], Filter(under=(Path("/photos/3"),))))
        assert [c.files[0].path for c in found] == [path_of(i) for i in exact(ASKED[0], N, range(3, 1000, 7))]


def test_a_filter_shows_the_files_that_pass_it(directory: Path) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(files=[(File(Path("/elsewhere/copy.jpg"), 1, 1), hash_of(4))])
    with IndexReader.open(directory) as store:
        (found,) = store.nearest(ASKED[:1], Filter(under=(Path("/elsewhere"),)))
        assert [photo.path for photo in found.files] == [Path("/elsewhere/copy.jpg")]


@pytest.mark.parametrize("name", ["vectors-1.faiss", "vectors-1.codes"])
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "longer", "bits", "zeros", "other"])
def test_damage_costs_time_and_no_answer(directory: Path, name: str, damage: str) -> None:
    path = directory / name
    content = bytearray(path.read_bytes())
    match damage:
        case "absent":
            path.unlink()
        case "empty":
            content.clear()
        case "cut":
            del content[-5000:]
        case "longer":
            content += b"x" * (8 + DIM + 4)
        case "bits":
            for place in range(0, len(content), 37):
                content[place] ^= 1 << place % 8
        case "zeros":
            content[4096 : len(content) // 2] = bytes(len(content) // 2 - 4096)
        case "other":
            content = bytearray(os.urandom(len(content)))
    if damage != "absent":
        path.write_bytes(content)
    with IndexReader.open(directory) as store:
        for query in ASKED[:10]:
            assert [n.image - 1 for n in store.recall(query[None], 100)[0]] == exact(query, 100)
        assert store.damage is not None or not store.summary().vectors_file


CUT_SHORT = """
import os, sys
from pathlib import Path
import numpy as np
from bridgetower.index.reader import IndexReader

directory, size, queries = Path(sys.argv[1]), int(sys.argv[2]), np.load(sys.argv[3])
with IndexReader.open(directory) as store:
    store.recall(queries[:1], 10)
    assert store.damage is None
    os.truncate(directory / "vectors-1.codes", size)
    for row in store.recall(queries, 10):
        print(*(n.image - 1 for n in row))
    assert store.damage is not None and "vectors-1.codes: it was cut short" in store.damage
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets nobody cut a mapped file")
@pytest.mark.parametrize("size", [0, 5000, -1])
def test_codes_that_are_cut_short_in_the_middle_of_a_search_are_done_without(directory: Path, size: int) -> None:
    """In a process of its own: reading beyond the end of a mapped file kills it."""
    np.save(directory / "asked.npy", ASKED[:5])
    size = size if size >= 0 else (directory / "vectors-1.codes").stat().st_size - 1
    script = [sys.executable, "-c", CUT_SHORT, str(directory), str(size), str(directory / "asked.npy")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [[int(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert found == [exact(query, 10) for query in ASKED[:5]]


def test_one_flipped_bit_never_changes_a_similarity(directory: Path) -> None:
    rng = np.random.default_rng(0)
    path = directory / "vectors-1.codes"
    whole = path.read_bytes()
    for _ in range(25):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        with IndexReader.open(directory) as store:
            for query in ASKED[:3]:
                found = [n.image - 1 for n in store.recall(query[None], 100)[0]]
                assert len(set(found) & set(exact(query, 100))) >= 95
                assert found == exact(query, 100, found)


def test_damaged_files_are_made_again_by_the_next_writer(directory: Path) -> None:
    (directory / "vectors-1.codes").write_bytes(b"")
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.finish()
    with IndexReader.open(directory) as store:
        assert (store.summary().generation, store.summary().vectors_file) == (2, True)
    assert recall_of(directory) >= 0.985


def test_vectors_of_odd_lengths_can_be_searched_too(tmp_path: Path) -> None:
    dim = 30
    clouds = Clouds(dim, themes=40, rank=20)
    fingerprint = Fingerprint("some/model", "local", "f" * 64, "c" * 64, "hf", 1, "float", dim)
    pictures, texts = clouds.pictures(0, 1000), clouds.texts(0, 20)
    with IndexWriter.open(tmp_path / "index", fingerprint) as writer:
        writer.commit(
            images=[NewImage(hash_of(i), 1, 1, None, pictures[i]) for i in range(1000)],
            files=[(File(path_of(i), 1, 1), hash_of(i)) for i in range(1000)],
        )
        writer.finish()
    with IndexReader.open(tmp_path / "index") as store:
        for text, row in zip(texts, store.recall(texts, 100), strict=True):
            best = np.argsort(-(pictures.astype(np.float16).astype(np.float64) @ text))[:100]
            assert len(set(best) & {n.image - 1 for n in row}) >= 90


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("codes", "a row is not as it was written"),
        ("lists", "the vector file is not as it was written"),
        ("absent", "the vector file is not there"),
        ("other", "vectors that are not those of the manifest"),
        ("fewer", "lacks 1 of the images that it should hold"),
        ("more", "holds 1 images that are not in the manifest"),
    ],
)
def test_what_is_wrong_with_lists_is_found_and_mended(directory: Path, damage: str, found: str) -> None:
    assert list(check_index(directory)) == []
    codes = next(directory.glob("vectors-*.codes"))
    if damage == "codes":
        with open(codes, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"\x55\xaa")
    elif damage == "lists":
        path = codes.with_suffix(".faiss")
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    elif damage == "absent":
        codes.unlink()
    with IndexWriter.resume(directory) as writer:
        database = writer.catalog._db
        if damage == "fewer":
            with writer.catalog.transaction():
                writer.catalog.add_image(hash_of(-1), 1, 1, None, 1, pack(PICTURES[0], DIM))
            writer.catalog._set_state(covered=writer.catalog.state().covered + 1)
        elif damage == "more":
            writer.drop([path_of(0)])
            assert sum(writer.prune()) == 1
            database.execute("DELETE FROM pruned")
        elif damage == "other":
            codes_of = ScalarCodes.open(codes)
            content = bytearray(codes.read_bytes())
            row = codes_of.coder.rows(codes_of.ids(np.array([5])), PICTURES[6:7])
            start = len(content) - (len(codes_of) - 5) * len(row)
            content[start : start + len(row)] = row
            codes.write_bytes(content)
    assert found in "".join(finding.problem for finding in check_index(directory))
    assert repair_index(directory).left == ()


def test_a_disk_that_cannot_read_the_files_is_found(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("bridgetower.index.vectors.faiss.ivf.read_faiss", unreadable)
    assert [finding.problem for finding in check_index(directory)] == [
        "the vector file cannot be read (Input/output error)"
    ]
    with IndexReader.open(directory) as store:
        assert [n.image - 1 for n in store.recall(ASKED[:1], 100)[0]] == exact(ASKED[0], 100)
        assert store.damage is not None and store.damage.endswith("vectors-1.faiss: Input/output error")


def test_what_is_left_out_around_a_query_blinds_no_search(directory: Path) -> None:
    gone = set(exact(ASKED[0], 800))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        for number in gone:
            writer.forget(path_of(number))
    left = sorted(set(range(N)) - gone)
    with IndexReader.open(directory) as store:
        found = [n.image - 1 for n in store.recall(ASKED[:1], 100)[0]]
        assert len(found) == 100 and len(set(found) & set(exact(ASKED[0], 100, left))) >= 98
        assert sum(1 for _ in store.nearest(ASKED[:1])) == len(left)


def test_an_effort_that_finds_too_few_is_raised(directory: Path) -> None:
    catalog = CatalogWriter.open(directory / "manifest.sqlite", FINGERPRINT)
    with catalog.transaction():
        tuning = catalog.tuning()
        assert tuning is not None
        state = catalog.state()
        catalog.publish(
            state.generation, state.covered, state.vectors_sha256 or b"", tuning._replace(effort=1, candidates=200)
        )
    catalog.close()
    with IndexReader.open(directory) as store:
        assert [len(row) for row in store.recall(ASKED[:20], 100)] == [100] * 20
        assert sum(1 for _ in store.nearest(ASKED[:1])) == N


def test_what_was_removed_before_any_file_held_it_is_not_missed_later(directory: Path) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, range(N, N + 100))
        for number in range(N, N + 50):
            writer.forget(path_of(number))
        with writer.catalog.transaction():
            writer.catalog._db.execute("DELETE FROM images WHERE id > ? AND id <= ?", (N, N + 50))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, range(N + 100, N + 500))
        writer.finish()
    with IndexReader.open(directory) as store:
        assert store.summary().generation == 2
        assert len(store.recall(ASKED[:1], 10 * N)[0]) == N + 450
    assert not list(check_index(directory))
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.finish()
    with IndexReader.open(directory) as store:
        assert store.summary().generation == 2  # all is as it should be: nothing was written anew


def test_a_damaged_row_is_not_carried_on(directory: Path) -> None:
    path = directory / "vectors-1.codes"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        add(writer, range(N, N + 400))
        writer.finish()
    assert not list(check_index(directory))
    assert tuning_of(directory).trained == N + 400


def test_pictures_that_are_all_alike_can_be_indexed(tmp_path: Path) -> None:
    vector = PICTURES[0]
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        writer.commit(
            images=[NewImage(hash_of(i), 1, 1, None, vector) for i in range(600)],
            files=[(File(path_of(i), 1, 1), hash_of(i)) for i in range(600)],
        )
        writer.finish()
    with IndexReader.open(tmp_path / "index") as store:
        assert len(store.recall(ASKED[:1], 10)[0]) == 10
        assert sum(1 for _ in store.nearest(ASKED[:1])) == 600


@pytest.mark.parametrize("kinds", [2, 5])
def test_of_equal_pictures_any_is_as_good_as_another(tmp_path: Path, kinds: int) -> None:
    """None of them is missed where another was found, and effort does not grow in search of it."""
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        writer.set_queries(TEXTS)
        writer.commit(
            images=[NewImage(hash_of(i), 1, 1, None, PICTURES[i % kinds]) for i in range(5000)],
            files=[(File(path_of(i), 1, 1), hash_of(i)) for i in range(5000)],
        )
        writer.finish()
    tuning = tuning_of(tmp_path / "index")
    assert (tuning.recall, tuning.candidates) == (1, 200)
    assert tuning.effort < tuning.lists
    with IndexReader.open(tmp_path / "index") as store:
        for query, row in zip(ASKED, store.recall(ASKED, 100), strict=True):
            scores = np.sort(np.repeat((TRUTH[:kinds] * query.astype(np.float64)).sum(axis=1), 5000 // kinds))[::-1]
            assert [n.similarity for n in row] == scores[:100].astype(np.float32).tolist()


def test_ids_with_large_gaps_cost_nothing(tmp_path: Path) -> None:
    with IndexWriter.open(tmp_path / "index", FINGERPRINT) as writer:
        add(writer, range(300))
        with writer.catalog.transaction():
            writer.catalog._db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'images'", (2**40,))
        add(writer, range(300, N))
        writer.finish()
    with IndexReader.open(tmp_path / "index") as store:
        found = store.recall(ASKED[:1], 100)[0]
    numbers = [n.image - 1 if n.image <= 300 else n.image - 2**40 + 299 for n in found]
    assert len(set(numbers) & set(exact(ASKED[0], 100))) >= 95


@pytest.mark.parametrize(
    "changed",
    [{"effort": 0}, {"effort": 10_000}, {"candidates": 0}, {"recall": 1.5}, {"recall": -0.5}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_search_that_cannot_be_is_found_and_mended(directory: Path, changed: dict[str, float]) -> None:
    with IndexWriter.resume(directory) as writer:
        tune(writer.catalog, **changed)
    assert [finding.part for finding in check_index(directory)] == ["vectors"]
    assert repair_index(directory).left == ()


def test_what_came_and_went_between_two_vector_files_is_in_none(directory: Path) -> None:
    with IndexWriter.resume(directory) as writer:
        writer.drop([path_of(0)])
        add(writer, range(N, N + 3))
        writer.drop([path_of(N)])
        assert sum(writer.prune()) == 2
        writer.publish()
        assert [*writer.catalog.pruned()] == [1]
        assert FaissStore().is_intact(directory, writer.catalog, whole=True)
    assert list(check_index(directory)) == []


@pytest.mark.parametrize("dim", [DIM, 2 * DIM])
def test_nothing_of_another_model_stays_in_an_index_that_has_lost_its_images(directory: Path, dim: int) -> None:
    with IndexWriter.resume(directory) as writer:
        writer.forget(Path("/photos"))
        assert sum(writer.prune()) == N
    with IndexWriter.open(directory, dataclasses.replace(FINGERPRINT, revision="other")) as writer:
        assert writer.catalog.has_queries()
    with IndexWriter.open(directory, dataclasses.replace(FINGERPRINT, weights_sha256="e" * 64, dim=dim)) as writer:
        assert not writer.catalog.has_queries() and writer.catalog.tuning() is None
    assert list(check_index(directory)) == []
