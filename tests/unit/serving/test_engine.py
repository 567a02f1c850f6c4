"""Many requests share one engine: their work is batched, their numbers stay, and each sees one state of the index."""

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bridgetower import Library, Model, Pictures, SearchRequest, Texts
from bridgetower.errors import ModelError
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.records import Candidate, Hit, quiet
from bridgetower.retrieval.candidates import Candidates
from bridgetower.retrieval.encode_pictures import cache_name
from bridgetower.retrieval.matching import every_pair, verify
from bridgetower.serving import batching
from bridgetower.serving.batching import BatchedEncoder, BatchedJudge, Batches, Turns
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.request_queue import Busy, Draining, RequestQueue
from tests.fakes import FakeEncoder


class Gate:
    """Work whose first call waits until `open`, so that others gather behind it."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        self.shared: list[list[int]] = []

    def share(self, works: list[int]) -> Sequence[int]:
        self.shared.append(list(works))
        if len(self.shared) == 1:
            self.begun.set()
            assert self.open.wait(10)
        if -1 in works:
            raise ModelError("of one request")
        return [2 * work for work in works]


def gathered(gate: Gate, works: list[int]) -> list[Any]:
    """The results of works that wait together behind a first one."""
    turns = Turns()
    turns.kinds["x"] = Batches()
    turns.kinds["x"].add(1, 1000, 0.001)  # a pace at which all fit into one pass
    with ThreadPoolExecutor(len(works) + 1) as threads:
        first = threads.submit(turns.take, "x", gate.share, 0, 1)
        assert gate.begun.wait(10)
        others = []
        for number, work in enumerate(works, start=1):
            others.append(threads.submit(turns.take, "x", gate.share, work, 1))
            while len(turns._waiting) < number:
                pass
        gate.open.set()
        assert first.result() == 0
        return [other.exception() or other.result() for other in others]


def test_calls_that_wait_share_a_pass_in_their_order() -> None:
    gate = Gate()
    assert gathered(gate, [1, 2, 3]) == [2, 4, 6]
    assert gate.shared == [[0], [1, 2, 3]]


def test_an_error_of_one_call_reaches_no_other() -> None:
    results = gathered(gate := Gate(), [1, -1, 3])
    assert results[0] == 2 and results[2] == 6 and isinstance(results[1], ModelError)
    assert gate.shared[1] == [1, -1, 3]


def test_a_shared_pass_gives_the_numbers_of_single_ones() -> None:
    judge = FakeEncoder()
    batched, encoder = BatchedJudge(judge, Turns()), BatchedEncoder(judge, Turns())
    rng = np.random.default_rng(3)
    pixels = [rng.standard_normal((number, 3, 32, 32)).astype(np.float32) for number in (2, 1, 3)]
    texts = [batched.encode_texts([text]) for text in ("red", "green", "blue")]
    pictures = [batched.encode_images(some) for some in pixels]
    pairs = [np.array([[0, 1]]), np.array([[0, 0]]), np.array([[0, 2], [0, 0]])]  # the first leaves a picture out
    works = list(zip(texts, pictures, pairs, strict=True))
    together, alone = batched._match(works), [batched._match([work])[0] for work in works]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)
    several = encoder._embed_texts([["red"], ["blue", "red"]])
    np.testing.assert_array_equal(several[1], judge.embed_texts(["blue", "red"]))
    np.testing.assert_array_equal(several[0], judge.embed_texts(["red"]))


def test_many_texts_that_become_vectors_leave_turns_to_others() -> None:
    fake, turns = FakeEncoder(), Turns()
    texts = [f"{number} {colour}" for number in range(10) for colour in ("red", "green", "blue")]
    np.testing.assert_array_equal(BatchedEncoder(fake, turns).embed_texts(texts), fake.embed_texts(texts))
    assert turns.kinds["texts"].items == 30 and turns.kinds["texts"].passes > 1


def test_pictures_that_become_vectors_tell_their_progress() -> None:
    fake, told = FakeEncoder(), list[tuple[int, int]]()
    pictures = [np.full((8, 8, 3), number, np.uint8) for number in range(5)]
    vectors = Model.from_parts(fake, fake).embed_images(pictures, on_progress=lambda *done: told.append(done))
    assert len(vectors) == 5 and told == [(4, 5), (5, 5)]


def test_pictures_that_recall_and_pictures_that_are_verified_share_no_pass() -> None:
    judge, turns, gate = FakeEncoder(), Turns(), Gate()
    encoder, batched = BatchedEncoder(judge, turns), BatchedJudge(judge, turns)
    pixels = np.random.default_rng(3).standard_normal((2, 3, 32, 32)).astype(np.float32)
    for kind in ("vectors", "pictures"):
        turns.kinds[kind] = Batches()
        turns.kinds[kind].add(1, 1000, 0.001)  # a pace at which both would fit into one pass
    with ThreadPoolExecutor(3) as threads:
        threads.submit(turns.take, "x", gate.share, 0, 1)
        assert gate.begun.wait(10)
        vectors, pictures = threads.submit(encoder.embed_images, pixels), threads.submit(batched.encode_images, pixels)
        while len(turns._waiting) < 2:
            pass
        gate.open.set()
        np.testing.assert_array_equal(vectors.result(), judge.embed_images(pixels))
        np.testing.assert_array_equal(pictures.result().features.pictures.features, pixels)


class CountedJudge(FakeEncoder):
    """Takes 1/128 s for each pair or text, by a clock that nothing else moves. Its first pass waits until `open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.open, self.begun = threading.Event(), threading.Event()
        self.passes: list[tuple[int, frozenset[Any]]] = []  # the items of each pass, and its texts
        self._seconds = 0.0
        monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: self._seconds))

    def _count(self, items: int, texts: Iterable[Any]) -> None:
        self.passes.append((items, frozenset(texts)))
        self._seconds += items / 128
        self.begun.set()
        assert self.open.wait(20)

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        self._count(len(texts), texts)
        return super().encode_texts(texts)

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        self._count(len(pairs), (texts.features[row] for row in pairs[:, 0]))
        return super().match(texts, images, pairs)


def in_turns(judge: CountedJudge, turns: Turns, first: Callable[[], Any], later: Callable[[], Any]) -> tuple[Any, Any]:
    """The results of two calls, of which the second comes while the first pass of the first one runs."""
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(first)
        assert judge.begun.wait(10)
        other = threads.submit(later)
        while not turns._waiting:
            pass
        judge.open.set()
        return one.result(), other.result()


def random_pictures(number: int) -> Pictures:
    pixels = np.random.default_rng(3).standard_normal((number, 3, 32, 32)).astype(np.float32)
    return BatchedJudge(FakeEncoder(), Turns()).encode_images(pixels)


def test_many_pairs_keep_few_that_come_later_waiting_for_a_slice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, turns, plain = CountedJudge(monkeypatch), Turns(), FakeEncoder()
    batched, colours = BatchedJudge(judge, turns), ("red", "green", "blue", "white")
    texts, pictures = plain.encode_texts([f"{colours[n % 4]} {n}" for n in range(100)]), random_pictures(4)
    text, every = plain.encode_texts(["later"]), pictures.features.pictures
    many, few = every_pair(100, 4), every_pair(1, 4)
    logits, later = in_turns(
        judge, turns, lambda: batched.match(texts, pictures, many), lambda: batched.match(text, pictures, few)
    )
    assert [items for items, _ in judge.passes[:3]] == [4, 4, 12]  # 12 fill SLICE_S
    assert judge.passes[1] == (4, frozenset(["later"]))
    assert sum(items for items, _ in judge.passes) == 404 and max(items for items, _ in judge.passes) == 12
    np.testing.assert_array_equal(logits, plain.match(texts, every, many))
    np.testing.assert_array_equal(later, plain.match(text, every, few))
    assert batched.match(text, pictures, few[:0]).shape == (0, 2)


def test_many_texts_keep_one_that_comes_later_waiting_for_a_slice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, turns = CountedJudge(monkeypatch), Turns()
    batched, texts = BatchedJudge(judge, turns), [f"red {n}" for n in range(100)]
    encoded, later = in_turns(
        judge, turns, lambda: batched.encode_texts(texts), lambda: batched.encode_texts(["later"])
    )
    assert [items for items, _ in judge.passes] == [16, 1, 16, 16, 16, 16, 16, 4]
    assert judge.passes[1] == (1, frozenset(["later"])) and later.features == ("later",)
    expected = FakeEncoder().encode_texts(texts)
    assert encoded.features == expected.features and encoded.masks == expected.masks
    assert encoded.vectors is not None and expected.vectors is not None
    np.testing.assert_array_equal(encoded.vectors, expected.vectors)


def test_a_hundred_candidates_of_one_search_do_not_hold_up_five_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small features in the cache, a search asks for 86 pairs in one call."""
    judge, turns = CountedJudge(monkeypatch), Turns()
    turns.kinds["pairs"] = Batches()
    turns.kinds["pairs"].add(1, 128, 1.0)
    batched, cache = BatchedJudge(judge, turns), FeatureCache(tmp_path, 10**7)
    candidates = [Candidate(Path(f"{place}.jpg"), content=bytes([place] * 32)) for place in range(100)]
    for one, packed in zip(candidates, judge.pack(random_pictures(100).features.pictures), strict=True):
        cache.put(cache_name(judge.features_id, one.content or b""), packed)
    many, few = FakeEncoder().encode_texts(["many"]), FakeEncoder().encode_texts(["few"])
    verified, later = in_turns(
        judge,
        turns,
        lambda: verify(batched, many, candidates, cache=cache),
        lambda: verify(batched, few, candidates[:5], cache=cache),
    )
    assert [len(verified[0]), len(later[0])] == [100, 5]
    assert judge.passes[:2] == [(12, frozenset(["many"])), (5, frozenset(["few"]))]
    assert max(items for items, _ in judge.passes) == 12


def test_the_queue_is_bounded_and_drains() -> None:
    queue, hold = RequestQueue(running=1, waiting=1), threading.Event()
    running, waiting = queue.submit(hold.wait), queue.submit(lambda: 2)
    with pytest.raises(Busy):
        queue.submit(lambda: 3)
    queue.drain()
    with pytest.raises(Draining):
        queue.submit(lambda: 4)
    assert not queue.wait(0.01)
    hold.set()
    assert running.result() and waiting.result() == 2 and queue.wait(10)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    gallery = Path(__file__).parents[3] / "examples" / "gallery"
    with Library(folder / "index", "demo", precision="fp32") as library:
        library.index(sorted(gallery.glob("*.jpg"))[:10])
    return folder / "index"


def test_requests_that_run_together_get_what_a_library_gives(index: Path) -> None:
    texts = [f"{number} {animal}" for number in ("two", "a small", "the") for animal in ("cats", "dog", "owl")]
    engine = Engine(Options(index, precision="fp32"))
    with ThreadPoolExecutor(9) as threads, Library(index, precision="fp32") as library:
        found = list(threads.map(lambda text: engine.search(SearchRequest(text)), texts))
        assert found == [library.search(text) for text in texts]
        pages = list(engine.pages(SearchRequest("cats", top=4, depth=2)))
        assert [len(page) for page in pages] == [4, 4, 2]
        whole = library.search("cats", top=50, depth=2)
        assert [hit for page in pages for hit in page] == list(whole)
        assert engine.find(whole[0].hash or "") is not None and engine.find("0" * 64) is None
    assert engine.batches()["pairs"][2] == 9 * 10 + 2
    engine.close()


def test_hits_before_the_last_are_computed_for_listeners_alone(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forks: list[Candidates] = []
    fork = Candidates.fork

    def counted(candidates: Candidates) -> Candidates:
        forks.append(candidates)
        return fork(candidates)

    monkeypatch.setattr(Candidates, "fork", counted)
    engine, request = Engine(Options(index, precision="fp32")), SearchRequest("cats", depth=2)
    found = engine.search(request)
    assert found.verified == 2 and not forks
    heard: list[tuple[Hit, ...]] = []
    notes: list[str] = []
    told: list[int] = []

    def hear(hits: tuple[Hit, ...]) -> None:
        heard.append(hits)
        told.append(len(notes))

    assert engine.search(request, say=notes.append, on_hits=hear) == found
    assert [sum(hit.verified for hit in hits) for hits in heard] == [0, 2, 2]
    assert heard[-1] == found.hits and len(forks) == 2
    assert told == [1, 1, 1]  # the note on the demo model comes first
    stages = engine.stages()
    assert stages["recall"][0] == stages["verify"][0] == 2 and min(seconds for _, seconds in stages.values()) > 0
    engine.close()


def test_it_sleeps_when_idle_and_wakes_again(index: Path) -> None:
    asleep = threading.Event()
    engine = Engine(Options(index, precision="fp32"), idle=0.05)
    engine.on_sleep = asleep.set
    notes: list[str] = []
    first = engine.search(SearchRequest("cats", depth=0), say=notes.append)
    assert engine.is_awake or asleep.is_set()
    assert asleep.wait(10) and not engine.is_awake
    assert engine.summary().images == 10 and not engine.is_awake
    assert engine.search(SearchRequest("cats", depth=0), say=notes.append) == first
    assert len(notes) == 2 and "demo model" in notes[0] and notes[0] == notes[1]
    engine.close()


def test_pages_that_wait_keep_nothing_awake(index: Path) -> None:
    engine = Engine(Options(index, precision="fp32"), idle=3600)
    engine.warm_up()
    runtime = engine.runtime
    pages = engine.pages(SearchRequest("cats", depth=2, top=3))
    first = next(pages)
    engine.on_sleep = pages.close
    assert engine.sleep() and not engine.is_awake
    assert not list(pages)
    assert engine.runtime == runtime and runtime is not None  # a client that wants this device is still served
    again = engine.pages(SearchRequest("cats", depth=2, top=3))
    assert next(again) == first
    engine.on_sleep = quiet
    assert engine.sleep()
    assert sum(len(page.hits) for page in again) == 7  # or they go on, from the state that they began with
    engine.close()


def test_an_index_in_the_place_of_another_is_seen(index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "index")
    engine = Engine(Options(tmp_path / "index", precision="fp32"))
    assert engine.size() == 10
    with Library(tmp_path / "index", precision="fp32") as library:
        library.forget([library.search("a", depth=0)[0].path])
    assert engine.size() == 9
    assert len(engine.search(SearchRequest("a", depth=0, top=50))) == 9
    engine.close()


def test_a_commit_is_seen_though_its_log_was_seen_before(index: Path, tmp_path: Path) -> None:
    """A commit is in the log before readers see it, so a look in between finds the size and time that it leaves."""
    shutil.copytree(index, tmp_path / "index")
    log = tmp_path / "index" / "manifest.sqlite-wal"
    engine = Engine(Options(tmp_path / "index", precision="fp32"))
    assert engine.size() == 10
    os.truncate(log, 1_000_000)  # longer than it will be
    assert engine.size() == 10
    files = [log, tmp_path / "index" / "manifest.sqlite"]
    before = [file.stat() for file in files]
    with Library(tmp_path / "index", precision="fp32") as library:
        library.forget([library.search("a", depth=0)[0].path])
    for file, status in zip(files, before, strict=True):
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert engine.size() == 9
    engine.close()
