"""Ask a running `bt serve` of the index, or do the work in this process, with one answer: that of the commands."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bridgetower import Filled, Found, PairScore, SearchRequest
from bridgetower.errors import PictureError
from bridgetower.inputs import masked
from bridgetower.serving.engine import Engine
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.indexed import IndexedPicture, NoPicture, read_indexed
from bridgetower.serving.local.client import INDEX, NoServer, Server, Wanted
from bridgetower.serving.local.wire import Message

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bridgetower import Preprocessing

_T = TypeVar("_T")
_PREFIX = "picture "


class ProgressHearing(Hearing):
    """Gives the progress of a task to a callback, in the thread of the task."""

    def __init__(self, on_progress: Callable[[int, int], object]) -> None:
        super().__init__()
        self._on_progress = on_progress

    def say(self, note: str) -> None:
        """Take a note for the client, unless a server that was lost has said it."""
        if note not in self.notes:
            super().say(note)

    def on_progress(self, done: int, total: int) -> None:
        """Take the numbers of pictures that are done, and of all."""
        super().on_progress(done, total)
        self._on_progress(done, total)


class _GivenPicture(IndexedPicture):
    """A picture of the index whose every fault is a PictureError, as a server tells it."""

    def pixels(self, preprocessing: "Preprocessing") -> "npt.NDArray[np.float32]":
        try:
            return super().pixels(preprocessing)
        except NoPicture as error:
            raise PictureError(self.name, str(error)) from error


class Asking:
    """The tasks on pictures of one index, for many threads. Each raises as that of `Engine`, and NoPicture."""

    def __init__(self, engine: Engine, wanted: Wanted | None) -> None:
        """`wanted` is what a running server must have to be asked; None to ask none."""
        self.engine, self._wanted = engine, wanted

    def search(
        self, text: str | None, like: str | None, places: list[Any] | None, limits: Message, hearing: Hearing
    ) -> Found:
        """Find pictures in `places`, which are ResolvedPlaces. `limits` are further fields of a SearchRequest."""
        pictures = self._pictures([] if like is None else [like])
        # Checked here, so that a mistake is told in the same words with and without a server.
        request = SearchRequest(text, list(pictures) or None, under=places, **limits)
        asked = {**limits, "text": text, "under": places}
        return self._first(
            lambda server: server.ask("search", asked, **self._sent(pictures, hearing)),
            lambda: self.engine.search(request, say=hearing.say, on_progress=hearing.on_progress),
        )

    def match(self, ids: Sequence[str], texts: list[str], hearing: Hearing) -> list[PairScore]:
        """Score every picture with every text."""
        pictures = self._pictures(ids)
        return self._first(
            lambda server: server.ask("match", {"texts": texts}, **self._sent(pictures, hearing)),
            lambda: self.engine.match(pictures, texts, say=hearing.say, on_progress=hearing.on_progress),
        )

    def fill(self, text: str, ids: Sequence[str] | None, top: int, depth: int | None, hearing: Hearing) -> Filled:
        """Predict the words of masks, from these pictures or from those of the index that fit best.

        The given pictures are named in the answer as `id_of` understands it.
        """
        masked(text)  # may raise, so before a model is found
        pictures = None if ids is None else self._pictures(ids)
        asked: Message = {"text": text, "top": top}
        do = "fill pictures"
        if pictures is None:
            do, asked = "fill", {**asked, "depth": depth}
        return self._first(
            lambda server: server.ask(do, asked, **self._sent(pictures or [], hearing)),
            lambda: self.engine.fill(
                text, pictures, top=top, depth=depth, say=hearing.say, on_progress=hearing.on_progress
            ),
        )

    def _pictures(self, ids: Sequence[str]) -> list[_GivenPicture]:
        found = []
        for id in ids:
            try:
                found.append(_GivenPicture(self.engine, id, Path(_PREFIX + id)))
            except NoPicture as error:
                raise NoPicture(f"{_PREFIX}{id}: {error}") from error
        return found

    def _sent(self, pictures: Sequence[_GivenPicture], hearing: Hearing) -> dict[str, Any]:
        names = [picture.name for picture in pictures]
        return {
            "names": names,
            "content": self._content,
            "say": hearing.say,
            "on_progress": hearing.on_progress,
        }

    def _content(self, name: Path) -> tuple[Message, bytes]:
        """Return the bytes of a picture that a server asks for, or the error in their place."""
        try:
            return {}, read_indexed(self.engine, id_of(name) or "")
        except NoPicture as error:
            return {"error": PictureError(name, str(error))}, b""

    def _first(self, served: Callable[[Server], Any], own: Callable[[], _T]) -> _T:
        """Return the answer of a server, or that of this process if none answers or it is lost."""
        if self._wanted is not None:
            try:
                with Server(self._wanted, INDEX) as server:
                    found: _T = served(server)
                    return found
            except NoServer:
                pass
        return own()


def id_of(name: Path) -> str | None:
    """Return the id of a picture that was given, by its name in an answer; None for a file of the index."""
    text = str(name)
    return text.removeprefix(_PREFIX) if text.startswith(_PREFIX) else None
