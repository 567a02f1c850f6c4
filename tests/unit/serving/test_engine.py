"""Many requests share one engine: their work is batched, their numbers stay, and each sees one state of the index."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridgetower import Library, SearchRequest
from bridgetower.errors import ModelError
from bridgetower.records import Hit, quiet
from bridgetower.retrieval.candidates import Candidates
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
    import shutil

    shutil.copytree(index, tmp_path / "index")
    engine = Engine(Options(tmp_path / "index", precision="fp32"))
    assert engine.size() == 10
    with Library(tmp_path / "index", precision="fp32") as library:
        library.forget([library.search("a", depth=0)[0].path])
    assert engine.size() == 9
    assert len(engine.search(SearchRequest("a", depth=0, top=50))) == 9
    engine.close()
