"""One library and one model in several threads at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridgetower import Found, Library, Model
from bridgetower.errors import LockedError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.preprocess import preprocess
from tests.fakes import FakeEncoder, paint

pytestmark = pytest.mark.usefixtures("decode_here")

GALLERY = Path(__file__).parents[2] / "examples" / "gallery"
THREADS = 4
PATIENCE_S = 60


def at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """What each task gives, all of them begun together in threads of their own."""
    ready = threading.Barrier(len(tasks))

    def begun(task: Callable[[], Any]) -> Any:
        ready.wait(PATIENCE_S)
        return task()

    pool = ThreadPoolExecutor(len(tasks))
    try:
        futures = [pool.submit(begun, task) for task in tasks]
        return [future.result(PATIENCE_S) for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def names(found: Found) -> list[str]:
    return [hit.path.stem for hit in found]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for step in range(10):
        paint(tmp_path / "photos" / f"r{step}.png", (25 * step, 252 - 25 * step, 0))
    return tmp_path / "photos"


def test_threads_search_while_one_indexes(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(fake, fake)) as library:
        library.index([photos])
        before = names(library.search("red", top=3))
        paint(photos / "reddest.png", "red")
        after = ["reddest", *before[:2]]
        done = threading.Event()

        def search() -> list[list[str]]:
            seen: list[list[str]] = []
            ended = False
            while not ended:
                ended = done.is_set()  # then one more search, which sees all
                seen.append(names(library.search("red", top=3)))
            return seen

        def index() -> None:
            try:
                library.index([photos])
            finally:
                done.set()

        _, *searches = at_once(index, *[search] * THREADS)
        for seen in searches:
            assert all(found in (before, after) for found in seen)
            assert seen == sorted(seen, key=lambda found: found == after)  # no thread goes back
            assert seen[-1] == after


def test_threads_that_index_take_turns(tmp_path: Path) -> None:
    fake = FakeEncoder()
    folders = [paint(tmp_path / str(number) / "picture.png", (9 * number, 99, 0)).parent for number in range(THREADS)]
    with Library(tmp_path / "index", Model.from_parts(fake, fake)) as library:
        reports = at_once(*[lambda folder=folder: library.index([folder]) for folder in folders])
        assert [report.encoded for report in reports] == [1] * THREADS
        assert len(library) == THREADS


def test_a_library_is_left_by_another_thread_than_used_it(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    library = Library(tmp_path / "index", Model.from_parts(fake, fake))
    library.index([photos])
    found = at_once(*[lambda: names(library.search("red", top=3))] * THREADS)
    at_once(library.close, library.close)
    assert [names(library.search("red", top=3))] * THREADS == found
    library.close()


def test_one_network_gives_threads_what_it_gives_one() -> None:
    model = Model("demo", device="cpu", precision="fp32")
    paths = sorted(GALLERY.glob("two-*.jpg"))[: 2 * THREADS]
    texts = [path.stem.replace("-", " ") for path in paths]

    def work(part: int, encoder: Any) -> list[np.ndarray]:
        some, said = paths[part::THREADS], texts[part::THREADS]
        pixels = np.stack([preprocess(decode(p.read_bytes(), p), encoder.preprocessing) for p in some])
        pixels = np.concatenate([pixels] * 4)  # so many that all threads of PyTorch have a part
        encoded, pictures = encoder.encode_texts(said), encoder.encode_images(pixels)
        pairs = np.array([[row, row] for row in range(len(said))])
        one = encoder.encode_texts([f"{said[0]} and a <mask>"])
        kept = encoder.join([encoder.unpack(packed) for packed in encoder.pack(pictures)])
        reading = encoder.predict_masked(one, kept)
        return [
            encoder.embed_texts(said),
            encoder.embed_images(pixels),
            encoder.match(encoded, pictures, pairs),
            reading.log_probabilities,
        ]

    shared = at_once(*[lambda: model.encoder] * THREADS)  # loaded by several threads at once, and once
    assert len(set(map(id, shared))) == 1
    expected = [work(part, shared[0]) for part in range(THREADS)]
    for _ in range(2):
        results = at_once(*[lambda part=part: work(part, shared[0]) for part in range(THREADS)])
        for got, wanted in zip(results, expected, strict=True):
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one, other, atol=2e-4)


def test_threads_match_with_one_model() -> None:
    model = Model("demo", device="cpu", precision="fp32")
    paths = sorted(GALLERY.glob("three-*.jpg"))[:THREADS]
    expected = [model.match([path], ["three cats"])[0].itm_logits for path in paths]
    results = at_once(*[lambda path=path: model.match([path], ["three cats"])[0].itm_logits for path in paths])
    assert results == [pytest.approx(logits, abs=1e-4) for logits in expected]


class Interrupted(FakeEncoder):
    """Something happens while a call computes, after it has opened the index."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self.then = then

    def embed_texts(self, texts: Any) -> Any:
        self.then()
        return super().embed_texts(texts)


def test_a_call_keeps_its_reader_whatever_changes_meanwhile(photos: Path, tmp_path: Path) -> None:
    library: Library

    def change() -> None:
        library.refresh()
        len(library)
        library.close()

    fake = Interrupted(lambda: None)
    with Library(tmp_path / "index", Model.from_parts(fake, fake)) as library:
        library.index([photos])
        fake.then = change
        assert len(library.search("red", top=3)) == 3
        assert library.fill("a <mask>").words


def test_readers_of_threads_that_ended_are_used_again(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(fake, fake)) as library:
        library.index([photos])
        for _ in range(5):
            at_once(lambda: len(library))
        assert len(library._readers._idle) == 1
    assert library._readers._idle == []


def test_a_change_from_within_a_change_is_refused(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    library = Library(tmp_path / "index", Model.from_parts(fake, fake))

    def forget(progress: object) -> None:
        library.forget([photos])

    with library, pytest.raises(LockedError):
        library.index([photos], on_progress=forget)
