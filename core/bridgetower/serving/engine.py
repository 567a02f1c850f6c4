"""One index, one encoder and one judge for many requests that run together."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.errors import StoreError
from bridgetower.index.catalog.changes import Changes
from bridgetower.index.directory import MANIFEST
from bridgetower.library import Library, Model
from bridgetower.records import FOREIGN, Fingerprint, Head, Hit, OnHits, OnProgress, PairScore, Say, quiet

if TYPE_CHECKING:
    from bridgetower import (
        Filled,
        Folder,
        Found,
        GuardedDecoder,
        GuardedPicture,
        Results,
        Runtime,
        SearchRequest,
        Summary,
    )
    from bridgetower.encoders.protocol import Vectors
    from bridgetower.retrieval.encode_pictures import AnyPicture
    from bridgetower.serving.batching import Batches

_LOOK_EVERY_S = 1.0  # at most; how often an engine looks whether it has been idle for long enough
_LEAST_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Options:
    """The index and the model of a server, as `Library` takes them."""

    directory: Path  # absolute
    model: str | None = None
    device: str = "auto"
    precision: str | None = None
    default_model: str | None = None
    default_precision: str = "auto"
    features_cache: int | None = None  # bytes
    features_dir: Path | None = None
    store_password: "str | Callable[[], str | None] | None" = field(default=None, repr=False)


class Engine:
    """Answers requests; may be used by many threads. Every method raises as that of `Library` or `Model` does.

    It wakes with the first request that needs the model: the weights are read, and let go when no request has come for
    some time. Each request sees one committed state of the index, the newest when it begins.
    """

    def __init__(self, options: Options, *, idle: float = 900.0) -> None:
        """Nothing is read now. The weights are let go after `idle` seconds without a request."""
        self.options, self._idle = options, idle
        self.on_sleep: Callable[[], object] = quiet  # called when the weights are let go, to close open pages
        # The device and the precision of the model, once `warm_up` has found them; they stay while it sleeps. None
        # again if another index takes the place of this one.
        self.runtime: Runtime | None = None
        self._lock = threading.Lock()
        self._waking = threading.Lock()  # held while the model is found
        self._library = self._new_library()
        self._warm: _Warm | None = None
        self._changes = Changes(options.directory / MANIFEST)
        self._state: object = None  # of the index, when its readers were last told of a change
        self._is_foreign: bool | None = None  # whether its vectors are of another program; None: to be read
        self._standing: dict[str, None] = {}  # notes on the index and the model, which each request gets
        self._hearing = threading.local()  # `say`: where the notes of the request of this thread go
        self._active, self._last_use = 0, time.monotonic()
        self._stages: dict[str, tuple[int, float]] = {}
        self._kinds: dict[str, Batches] = {}  # of work for models
        self._closed = threading.Event()
        self._janitor: threading.Thread | None = None

    def _new_library(self) -> Library:
        return Library(**asdict(self.options), say=self._stand)

    # Requests

    def search(
        self, request: "SearchRequest", *, say: Say = quiet, on_progress: OnProgress = quiet, on_hits: OnHits = quiet
    ) -> "Found":
        """Find pictures, as `Library.search`. `say` gets the notes of this request.

        A callback may raise, which ends the search.
        """
        with closing(self.pages(request, say=say, on_progress=on_progress, on_hits=on_hits)) as pages:
            return next(pages)

    def pages(
        self, request: "SearchRequest", *, say: Say = quiet, on_progress: OnProgress = quiet, on_hits: OnHits = quiet
    ) -> "Generator[Found]":
        """Yield the results in pages of at most `request.top` hits, all from one state of the index.

        The first page is that of `search`. The others go on with hits that are not verified, until the end of the index
        or until the iterator is closed. One thread at a time may use it. They need no model, so an iterator that waits
        keeps nothing awake, but it holds the weights in memory: `on_sleep` is to close it.
        """
        with self._busy():
            began = time.perf_counter()
            recalled: float | None = None

            def progressed(done: int, total: int) -> None:
                nonlocal recalled
                recalled = recalled or time.perf_counter()
                on_progress(done, total)

            with self._heard_by(say):
                library = self._library_for(request)
                pages = library.pages(request, on_progress=progressed, on_hits=on_hits)
                first = next(pages)
            ended = time.perf_counter()
            self._count("recall", (recalled or ended) - began)
            if first.verified:
                self._count("verify", ended - (recalled or ended))
        with closing(pages):
            yield first
            yield from pages

    def fill(
        self,
        text: str,
        pictures: "Sequence[AnyPicture] | None" = None,
        *,
        top: int = 5,
        depth: int | None = None,
        each: bool = False,
        say: Say = quiet,
        on_progress: OnProgress = quiet,
    ) -> "Filled":
        """Predict the words of masks from these pictures (`Model.fill`), or from the index (`Library.fill`)."""
        with self._timed("fill"), self._heard_by(say):
            if pictures is not None:
                return self._model().fill(text, pictures, top=top, on_progress=on_progress)
            library = self._warmed().library if self.size() else self._library
            return library.fill(text, top=top, depth=depth, each=each, on_progress=on_progress)

    def match(
        self,
        pictures: "Sequence[AnyPicture]",
        texts: Sequence[str],
        *,
        top: int | None = None,
        depth: int | None = None,
        say: Say = quiet,
        on_progress: OnProgress = quiet,
    ) -> list[PairScore]:
        """Score pictures with texts, as `Model.match`."""
        with self._timed("match"), self._heard_by(say):
            return self._model().match(pictures, texts, top=top, depth=depth, on_progress=on_progress)

    def rerank(
        self,
        text: str,
        pictures: "Sequence[AnyPicture]",
        *,
        top: int | None = None,
        min_match: float | None = None,
        say: Say = quiet,
        on_progress: OnProgress = quiet,
    ) -> "Results":
        """Order pictures by match, as `Model.rerank`."""
        with self._timed("match"), self._heard_by(say):
            return self._model().rerank(text, pictures, top=top, min_match=min_match, on_progress=on_progress)

    def embed_texts(self, texts: Sequence[str], *, say: Say = quiet) -> "Vectors":
        """Return the vectors of texts, as `Model.embed_texts`."""
        with self._timed("embed"), self._heard_by(say):
            return self._model().embed_texts(texts)

    def embed_images(
        self, pictures: "Sequence[AnyPicture]", *, say: Say = quiet, on_progress: OnProgress = quiet
    ) -> "Vectors":
        """Return the vectors of pictures, as `Model.embed_images`."""
        with self._timed("embed"), self._heard_by(say):
            return self._model().embed_images(pictures, on_progress=on_progress)

    @cached_property
    def _decoder(self) -> "GuardedDecoder":
        from bridgetower import GuardedDecoder

        return GuardedDecoder()

    def picture(self, content: bytes, name: Path) -> "GuardedPicture":
        """Return an uploaded picture for the other methods; it is decoded in a worker process, when it is needed.

        `name` is for messages and results; no file of that name is opened.
        """
        with self._lock:
            return self._decoder.picture(content, name)

    # The index

    def find(self, id: str) -> Hit | None:
        """Return a picture of the index by its id, the SHA-256 of its content in 64 hexadecimal digits.

        The hit has no scores; `path` is the first of its files. None if the index has none, or none with a file.
        """
        self._refresh()
        return self._library.find(id)

    def folders(self, under: Path | None = None, *, most: int | None = None) -> "list[Folder]":
        """Return folders of the index, as `Library.folders`; wakes nothing."""
        self._refresh()
        return self._library.folders(under, most=most)

    def size(self) -> int:
        """Return how many pictures can be found; needs no model."""
        self._refresh()
        return len(self._library)

    def summary(self) -> "Summary":
        """Return the figures of the index; wakes nothing."""
        self._refresh()
        return self._library.summary()

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the vectors of the index; wakes nothing. Raises StoreError if it has none."""
        self._refresh()
        return _made_by(self._library)

    def _refresh(self) -> None:
        """Let the readers see the newest committed state of the index."""
        with self._lock:
            state = self._changes.state()
            if state == self._state:
                return
            self._state, self._is_foreign = state, None
            self._library.refresh()
            warm = self._warm
            if warm is not None:
                warm.library.refresh()
        if warm is not None and self._library.fingerprint != warm.fingerprint:  # another index has taken its place
            with self._lock:
                self._forget_model()
                self.runtime = None

    # The model

    @property
    def is_awake(self) -> bool:
        """Whether the weights may be in memory."""
        return self._warm is not None

    @property
    def model(self) -> str | None:
        """The name of the model, if a request has needed it since the last sleep."""
        warm = self._warm
        return None if warm is None else warm.model.name

    def has_default_preprocessing(self) -> bool:
        """Return whether `Model(name)` would preprocess pictures as the model of the index does."""
        return self._warmed().found.has_default_preprocessing

    def require_model(self) -> None:
        """Raise the error that every search would meet, as `Library.require_model`."""
        self._library.require_model()

    def warm_up(self) -> None:
        """Read the index and the weights now, so that the first request need not wait. Raises as a search does."""
        if not self.size():
            return
        with self._busy(), self._heard_by(quiet):
            model = self._model()
            model.encoder.embed_texts(["a"])
            if Head.ITM in model.heads:
                model.judge.encode_texts(["a"])
            self.runtime = self._warmed().found.runtime

    def _library_for(self, request: "SearchRequest") -> Library:
        """Return the library of the warm model; of none, if the request or the index needs none."""
        self._refresh()
        self._library.require_places(request)  # before a model is found, which says its notes
        if not (request.needs_encoder or request.verifies) or not len(self._library):
            return self._library
        if self._is_foreign is None:
            made = self._library.fingerprint
            self._is_foreign = made is not None and made.precision_family == FOREIGN
        if self._is_foreign:  # only vectors recall
            return self._library
        return self._warmed().library

    def _model(self) -> Model:
        self._refresh()
        return self._warmed().model

    def _warmed(self) -> "_Warm":
        with self._waking:
            warm = self._warm
            if warm is None:
                warm = self._warm = _Warm(self._library, self.options, self._kinds, self._stand, self._tell)
                if self._janitor is None:
                    self._janitor = threading.Thread(target=self._sleep_when_idle, name="idle", daemon=True)
                    self._janitor.start()
        for line in list(self._standing):
            self._tell(line)
        return warm

    def sleep(self) -> bool:
        """Let the weights go, unless a request needs them; return whether they are gone."""
        with self._lock:
            if self._active:
                return False
            self._forget_model()
            if "_decoder" in self.__dict__:
                self._decoder.close()
        self.on_sleep()
        return True

    def _forget_model(self) -> None:
        """Let a model go, with the library that has found it."""
        self._library.close()
        self._changes.close()
        self._library, self._warm, self._standing, self._state = self._new_library(), None, {}, None

    def _sleep_when_idle(self) -> None:
        while not self._closed.wait(min(_LOOK_EVERY_S, max(_LEAST_LOOK_S, self._idle / 4))):
            if self.is_awake and not self._active and time.monotonic() - self._last_use >= self._idle:
                self.sleep()

    def close(self) -> None:
        """Let everything go. Requests in progress must have ended."""
        self._closed.set()
        self.sleep()

    # Notes and figures

    def _tell(self, line: str) -> None:
        """Pass a note to the request of this thread."""
        getattr(self._hearing, "say", quiet)(line)

    def _stand(self, line: str) -> None:
        """Pass a note that holds for later requests, too."""
        self._standing[line] = None
        self._tell(line)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Stay awake in this block."""
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
            self._last_use = time.monotonic()

    @contextmanager
    def _heard_by(self, say: Say) -> Iterator[None]:
        """Pass the notes of this thread to `say` in this block, each once."""
        told: set[str] = set()

        def once(line: str) -> None:
            if line not in told:
                told.add(line)
                say(line)

        before, self._hearing.say = getattr(self._hearing, "say", quiet), once
        try:
            yield
        finally:
            self._hearing.say = before

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        with self._busy():
            began = time.perf_counter()
            yield
            self._count(stage, time.perf_counter() - began)

    def _count(self, stage: str, seconds: float) -> None:
        with self._lock:
            times, before = self._stages.get(stage, (0, 0.0))
            self._stages[stage] = times + 1, before + seconds

    def stages(self) -> dict[str, tuple[int, float]]:
        """Return for each stage (recall, verify, fill, match, embed) how often it ran, and its seconds in all."""
        return dict(self._stages)

    def batches(self) -> dict[str, tuple[int, int, int]]:
        """Return for each kind of work the passes of the model, the calls of requests in them, and the items."""
        return {kind: (done.passes, done.calls, done.items) for kind, done in list(self._kinds.items())}


def _made_by(index: Library) -> Fingerprint:
    fingerprint = index.fingerprint
    if fingerprint is None:
        raise StoreError(f"the index in {index.directory} is empty; index pictures there first")
    return fingerprint


class _Warm:
    """The model of an index, whose calls take turns, and the library that uses it."""

    def __init__(self, index: Library, options: Options, kinds: "dict[str, Batches]", stand: Say, tell: Say) -> None:
        """Find the model of `index`. Raises as `Library.model` does, and StoreError if there are no pictures."""
        from bridgetower.serving.batching import BatchedEncoder, BatchedJudge, Turns

        self.fingerprint = _made_by(index)
        self.found = index.model
        self.turns = Turns(kinds)
        encoder = BatchedEncoder(self.found.encoder, self.turns) if Head.ITC in self.found.heads else None
        self.model = Model.from_parts(encoder, BatchedJudge(self.found.judge, self.turns), say=tell)
        self.library = Library(
            options.directory,
            self.model,
            features_cache=options.features_cache,
            features_dir=options.features_dir,
            store_password=options.store_password,
            say=stand,
        )
