"""The MCP server asks a running server of its index first, and does the work itself where that fails."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridgetower import Found, SearchRequest
from bridgetower.errors import ModelError, UsageError
from bridgetower.records import Hit
from bridgetower.serving.local.client import Wanted
from tests.unit.serving.local_server import FakeEngine, runtime_folder, serving
from tests.unit.serving.mcp_client import Place, colours_asked, names, structure, texts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("mcp")
    with runtime_folder(), colours_asked(folder, Wanted(folder / "index", model="demo")) as place:
        yield place


class Remote(FakeEngine):
    """A server's engine, whose hits are the first pictures of the index."""

    def __init__(self, hits: tuple[Hit, ...] = ()) -> None:
        super().__init__()
        self.hits = hits

    def search(self, request: SearchRequest, *, say: Any, on_progress: Any, on_hits: Any) -> Found:
        images: Any = request.images
        self.requests.append((request, [len(one.pixels(None)) for one in images]))
        self._begin(say, on_progress)
        return Found(self.hits[: request.top], 1, 0.75, (), 0, (), (), None, 20)


def hits(place: Place) -> tuple[Hit, ...]:
    return place.engine.colours.search("blue", depth=0).hits


def test_a_search_is_answered_by_the_server(place: Place) -> None:
    remote = Remote(hits(place))
    with serving(remote, place.photos.parent / "index", default_model="demo"):
        answer = place.ask("search", text="red", like=place.ids["red"], under=["*.png"], since="2000", top=1)
    [(request, sizes)] = remote.requests
    assert (request.text, request.top, request.depth) == ("red", 5, None)
    assert sizes == [len((place.photos / "red.png").read_bytes())]
    assert [(one.path, one.glob) for one in request._under] == [(None, "**/*.png")]
    assert names(answer) == ["blue"] and structure(answer)["best_match"] == 0.75
    assert structure(answer)["notes"] == ["note: it begins"]


def test_match_and_fill_are_answered_by_the_server(place: Place) -> None:
    size = len((place.photos / "red.png").read_bytes())
    with serving(Remote(), place.photos.parent / "index", default_model="demo"):
        [score] = structure(place.ask("match", ids=[place.ids["red"]], texts=["a"]))["scores"]
        assert (score["id"], score["match"]) == (place.ids["red"], size)
        line = place.refused("fill", text="a <mask>", ids=[place.ids["red"]])
        assert line == f"a <mask>: {size}"  # the double tells the bytes that it got as a skipped picture
        assert texts(place.ask("fill", text="a <mask>"))[0].startswith("no word")


def test_a_picture_that_has_changed_is_told_as_without_a_server(place: Place) -> None:
    white = place.photos / "white.png"
    before = white.read_bytes()
    white.write_bytes(b"other")
    try:
        with serving(Remote(), place.photos.parent / "index", default_model="demo"):
            line = place.refused("match", ids=[place.ids["white"]], texts=["a"])
        assert line == f"picture {place.ids['white']}: the file of this picture is gone or has changed"
    finally:
        white.write_bytes(before)


def test_without_a_fitting_server_the_work_is_done_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(place.ask("search", text="red", top=1)) == ["red"]
    remote = Remote(hits(place))
    with serving(remote, place.photos.parent / "index", default_model="demo", device="cuda"):
        assert names(place.ask("search", text="red", top=1)) == ["red"]
    with serving(remote, place.photos.parent / "index", default_model="demo"):
        monkeypatch.setattr("bridgetower.serving.local.client.__version__", "0.0")
        assert names(place.ask("search", text="red", top=1)) == ["red"]
    assert remote.requests == []


def test_a_server_that_is_lost_or_meets_a_fault_of_its_own_is_done_without(place: Place) -> None:
    remote = Remote(hits(place))
    for error in (RuntimeError("a defect"), ModelError("it is not there")):
        remote.error = error  # type: ignore[assignment]
        with serving(remote, place.photos.parent / "index", default_model="demo", defect=place.defects.append):
            assert names(place.ask("search", text="red", top=1)) == ["red"]
    remote.error = UsageError("it is refused")  # type: ignore[assignment]
    with serving(remote, place.photos.parent / "index", default_model="demo"):
        assert place.refused("search", text="red") == "it is refused"


def test_further_pages_go_on_when_the_server_ends(place: Place, tmp_path: Path) -> None:
    remote = Remote(hits(place))
    with serving(remote, place.photos.parent / "index", default_model="demo"):
        answer = place.ask("search", text="blue", top=1, depth=0)
    found = names(answer)
    while (cursor := structure(answer)["cursor"]) is not None:
        answer = place.ask("search", cursor=cursor)
        found += names(answer)
    assert found == [hit.path.stem for hit in hits(place)]
