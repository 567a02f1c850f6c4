"""The hits that a search shows while it verifies: as recalled at first, at last those of its result."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridgetower import Library, Model
from bridgetower.encoders.protocol import Judge
from bridgetower.errors import ModelError
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.records import Head, Hit
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE
from bridgetower.retrieval.indexing import index
from bridgetower.retrieval.results import Found
from bridgetower.retrieval.search.request import SearchRequest
from tests.clouds import evict, leave_stub
from tests.fakes import FakeEncoder, paint, search

pytestmark = pytest.mark.usefixtures("decode_here")

STEPS = 10
SECOND = {3: ".cr2", 6: ".cr2", 9: ".heic"}  # steps of which there is another file, one shade off


class Contrary(FakeEncoder):
    """Its matching head prefers what recall likes least."""

    def match(self, texts, images, pairs):  # type: ignore[no-untyped-def]
        return -super().match(texts, images, pairs)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of ten pictures from green to red, r0.jpg to r9.jpg; some are one of a pair."""
    folder, encoder = tmp_path_factory.mktemp("library"), FakeEncoder()
    for step in range(STEPS):
        paint(folder / "photos" / f"r{step}.jpg", (28 * step, 252 - 28 * step, 0))
        if step in SECOND:
            other = paint(folder / "other.png", (28 * step, 252 - 28 * step, 40))
            other.rename(folder / "photos" / f"r{step}{SECOND[step]}")
    with IndexWriter.open(folder / "index", encoder.fingerprint) as writer:
        index([folder / "photos"], writer, lambda: Model.from_parts(encoder))
    return folder / "index"


class Shown:
    """Holds what was shown, and "judge" where the judge was loaded."""

    def __init__(self, encoder: FakeEncoder) -> None:
        self.encoder = encoder
        self.calls: list[tuple[Hit, ...] | str] = []

    def load_judge(self) -> Judge:
        self.calls.append("judge")
        return self.encoder

    @property
    def hits(self) -> list[tuple[Hit, ...]]:
        return [call for call in self.calls if not isinstance(call, str)]

    def names(self) -> list[str]:
        """The names as they were shown, with a mark at those that are verified."""
        return [
            call if isinstance(call, str) else " ".join(hit.path.stem + "+" * hit.verified for hit in call)
            for call in self.calls
        ]


def find(directory: Path, shown: Shown | None = None, **asked: Any) -> Found:
    with IndexReader.open(directory) as reader:
        request = SearchRequest(**asked)
        if shown is None:
            return search(reader, request, FakeEncoder(), Contrary)
        return search(reader, request, FakeEncoder(), shown.load_judge, on_hits=shown.calls.append)


def test_the_recalled_ones_stand_before_the_judge_is_loaded_and_settle_batch_by_batch(directory: Path) -> None:
    shown = Shown(Contrary())
    found = find(directory, shown, text="red", top=5, depth=6)
    assert shown.names() == [
        "r9 r8 r7 r6 r5",
        "judge",
        "r6+ r7+ r8+ r9+ r5",
        "r4+ r5+ r6+ r7+ r8+",
        "r4+ r5+ r6+ r7+ r8+",
    ]
    assert all(hit.width and hit.paths for hits in shown.hits for hit in hits)
    assert shown.hits[-1] == found.hits


def test_with_a_least_match_the_ones_below_it_go_when_they_are_verified(directory: Path) -> None:
    shown = Shown(FakeEncoder())
    find(directory, shown, text="red", top=9, depth=7, min_match=0.5)
    assert shown.names() == [
        "r9 r8 r7 r6 r5 r4 r3",  # no more than are verified
        "judge",
        "r9+ r8+ r7+ r5 r4 r3",
        "r9+ r8+ r7+",
        "r9+ r8+ r7+",
    ]


def test_with_a_least_match_none_is_shown_that_is_never_verified(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evict(monkeypatch, directory.parent / "photos" / "r8.jpg")
    shown = Shown(FakeEncoder())
    find(directory, shown, text="red", top=9, depth=3, min_match=0.5)
    assert shown.names() == ["r9 r7", "judge", "r9+ r7+", "r9+ r7+"]


@pytest.mark.parametrize("asked", [{"text": "red", "depth": 0}, {"vector": [1, 0, 0]}])
def test_where_nothing_is_verified_the_hits_are_shown_once_and_no_judge_is_loaded(
    directory: Path, asked: dict[str, Any]
) -> None:
    shown = Shown(FakeEncoder())
    find(directory, shown, top=2, **asked)
    assert shown.names() == ["r9 r8"]


def test_a_judge_that_cannot_be_loaded_is_an_error_after_the_first_hits(directory: Path) -> None:
    shown = Shown(FakeEncoder(frozenset({Head.ITC})))
    with pytest.raises(ModelError, match="ITM"):
        find(directory, shown, text="red", top=2)
    assert shown.names() == ["r9 r8", "judge"]


def test_loading_the_judge_takes_nothing_of_the_budget(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for module in ("search.ranking", "matching"):
        monkeypatch.setattr(f"bridgetower.retrieval.{module}.time", SimpleNamespace(monotonic=lambda: now[0]))

    def load_judge() -> Judge:
        now[0] += 60
        return FakeEncoder()

    with IndexReader.open(directory) as reader:
        request = SearchRequest("red", depth=STEPS, budget=1)
        assert search(reader, request, FakeEncoder(), load_judge).verified == STEPS > PICTURES_AT_ONCE


STATES: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "there": lambda path, patch: None,
    "gone": lambda path, patch: path.unlink(),
    "unreadable": lambda path, patch: path.write_bytes(b"overwritten"),
    "remote": lambda path, patch: evict(patch, path),
    "a stub": lambda path, patch: leave_stub(path),
}


@contextmanager
def changed(photos: Path, states: dict[str, str]) -> Iterator[None]:
    """Inside, files are in these states, by name."""
    contents = {name: (photos / name).read_bytes() for name in states}
    statuses = {name: (photos / name).stat() for name in states}
    with pytest.MonkeyPatch.context() as patch:
        for name, state in states.items():
            STATES[state](photos / name, patch)
        yield
    for name, content in contents.items():
        (photos / name).with_name(f".{name}.icloud").unlink(missing_ok=True)
        (photos / name).write_bytes(content)
        times = statuses[name].st_atime_ns, statuses[name].st_mtime_ns
        os.utime(photos / name, ns=times)


FILES = [f"r{step}{end}" for step in range(STEPS) for end in (".jpg", *filter(None, [SECOND.get(step)]))]


@settings(max_examples=60, deadline=None)
@given(
    states=st.dictionaries(st.sampled_from(FILES), st.sampled_from(sorted(STATES)), max_size=8),
    top=st.integers(1, 15),
    depth=st.none() | st.integers(0, 15),
    text=st.sampled_from(["red", "green", "red green"]),
    min_match=st.none() | st.sampled_from([0.01, 0.2, 0.5]),
)
@example(states={"r0.jpg": "unreadable"}, top=1, depth=1, text="green", min_match=None)  # none of a batch is verified
def test_to_look_on_changes_no_result_and_the_last_look_is_the_result(
    directory: Path, states: dict[str, str], top: int, depth: int | None, text: str, min_match: float | None
) -> None:
    asked: dict[str, Any] = {"text": text, "top": top, "depth": depth}
    if depth != 0:
        asked["min_match"] = min_match
    shown = Shown(Contrary())
    with changed(directory.parent / "photos", states):
        found = find(directory, shown, **asked)
        assert found == find(directory, **asked)
        recalled = find(directory, text=text, top=top, depth=0)
        first_batch = find(directory, budget=0, **asked) if depth != 0 else found
    first, *later = shown.hits
    assert (later or [first])[-1] == found.hits
    if depth != 0 and min_match is None:
        assert first == recalled.hits
        assert later[0] == first_batch.hits  # each is what there is if verification ends there
    for hits in shown.hits:
        assert len(hits) <= top
        verified = [hit.verified for hit in hits]
        assert verified == sorted(verified, reverse=True)


def test_a_library_loads_no_judge_before_it_shows_hits_and_tells_once_that_the_text_is_cut(
    directory: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    events: list[object] = []

    class Watched(Model):
        @property
        def judge(self) -> Judge:
            events.append("judge")
            return super().judge

    model = Watched.from_parts(FakeEncoder(), Contrary(), say=told.append)

    def show(hits: tuple[Hit, ...]) -> None:
        events.append((len(told), len(hits), sum(hit.verified for hit in hits)))

    with Library(directory, model) as library:
        library.search("red" * 400, top=3, depth=2, on_hits=show)
        assert len(told) == 1
        assert events == [(1, 3, 0), "judge", (1, 3, 2), (1, 3, 2)]
    with Library(tmp_path / "empty", model) as library:
        library.index([tmp_path])
        assert library.search("red", on_hits=lambda hits: events.append(hits)).hits == events[-1] == ()
