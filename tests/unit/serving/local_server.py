"""A server for the tests of `bridgetower.serving.local`: its engine computes nothing, and can be held back."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridgetower.errors import PictureError
from bridgetower.records import Hit, PairScore, Skipped
from bridgetower.retrieval.results import Filled, Found, Results
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.local.listener import Listener
from bridgetower.serving.request_queue import RequestQueue

URL = "http://127.0.0.1:7860"


class FakeEngine:
    """Answers with what it was asked. A request waits at `gate` once it has begun."""

    def __init__(self) -> None:
        self.is_awake, self.error = False, None
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.requests: list[Any] = []
        self.ended: list[BaseException] = []  # errors that callbacks raised
        self.runtime: SimpleNamespace | None = None  # as before `warm_up`
        self.default_preprocessing, self.note = True, "note: it begins"

    def has_default_preprocessing(self) -> bool:
        return self.default_preprocessing

    def _begin(self, say: Any, on_progress: Any) -> None:
        say(self.note)
        self.begun.set()
        self.gate.wait(20)
        try:
            on_progress(1, 2)
        except BaseException as error:
            self.ended.append(error)
            raise
        if self.error is not None:
            raise self.error

    def search(self, request: Any, *, say: Any, on_progress: Any, on_hits: Any) -> Found:
        self.requests.append(request)
        self._begin(say, on_progress)
        hits = tuple(Hit(one.name, 0.5, None, verified=True) for one in request.images)
        on_hits(hits)
        return Found(hits, 1, 0.1, (), 0, (), (), None, 20)

    def fill(self, text: str, pictures: Any = None, *, say: Any, on_progress: Any, **limits: Any) -> Filled:
        self._begin(say, on_progress)
        return Filled((), None, tuple(Skipped(Path(text), str(len(one.pixels(None)))) for one in pictures or ()))

    def match(self, pictures: Any, texts: list[str], *, say: Any, on_progress: Any, **limits: Any) -> list[PairScore]:
        self._begin(say, on_progress)
        return [PairScore(one.name, text, len(one.pixels(None)), None, None) for one in pictures for text in texts]

    def rerank(self, text: str, pictures: Any, *, say: Any, on_progress: Any, **limits: Any) -> Results:
        """Each hit has the size of its picture for a match."""
        self._begin(say, on_progress)
        hits, skipped = [], []
        for one in pictures:
            try:
                hits.append(Hit(one.name, float(len(one.pixels(None))), None, verified=True))
            except PictureError as error:
                skipped.append(Skipped(one.name, error.reason))
        return Results(tuple(hits), len(hits), None, tuple(skipped))

    def picture(self, content: bytes, name: Path) -> SimpleNamespace:
        return SimpleNamespace(name=name, pixels=lambda preprocessing: content)

    def size(self) -> int:
        return 7


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A folder for sockets, whose path is short enough."""
    folder = Path(tempfile.mkdtemp(prefix="bt-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder
    shutil.rmtree(folder)


@contextmanager
def serving(engine: Any, directory: Path, **given: Any) -> Iterator[Listener]:
    """A listener for this index, whose queue runs `running` requests at once."""
    queue = RequestQueue(running=given.pop("running", 2), waiting=given.pop("waiting", 2))
    stop, defect = given.pop("stop", list), given.pop("defect", list)
    options = Options(directory, **given)
    listener = Listener(cast(Engine, engine), queue, options, url=URL, stop=stop, defect=defect)
    listener_queue[listener] = queue
    try:
        yield listener
    finally:
        with suppress(AttributeError):
            engine.gate.set()
        queue.drain()
        queue.wait(5)
        listener.close()


listener_queue: dict[Listener, RequestQueue] = {}
