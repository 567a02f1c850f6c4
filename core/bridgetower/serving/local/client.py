"""Ask a running server, as `Library` and `Model` are asked; needs neither NumPy nor PyTorch.

The client opens the files that the user names. It sends the bytes of one when the server asks for them, so that neither
side holds more than a few pictures. Every way in which a server may fail is a `NoServer`: the caller does the work
itself.
"""

import math
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from bridgetower import __version__
from bridgetower.errors import ModelError, ResourceError, StoreError
from bridgetower.records import DEMO, OnHits, OnProgress, PairScore, Say, quiet
from bridgetower.retrieval.results import Filled, Found, Results
from bridgetower.serving.local.named_files import VectorFile, content_of
from bridgetower.serving.local.place import NotOffered, is_ours, require_private, socket_path
from bridgetower.serving.local.wire import PROTOCOL, Broken, Message, receive, send

if TYPE_CHECKING:
    from bridgetower.moments import Moment

GREETING_S = 1.0  # in which a server must answer at first
SILENCE_S = 5.0  # after which a server is lost; one that works says so every second
MOST_PICTURES = 100_000  # of a request
INDEX, PICTURES = "index", "pictures"  # where the pictures of a request come from

# The fields of each event.
_EVENTS = {
    "alive": (),
    "say": ("line",),
    "progress": ("done", "total"),
    "hits": ("hits",),
    "picture": ("place",),
    "vector": ("size",),
    "result": ("result",),
    "error": ("error",),
    "refused": ("reason",),
}


class NoServer(Exception):
    """No server answers this request; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The index and the model that a command wants, as `Library` and `Model` would take them."""

    index: Path  # absolute
    named_model: str | None = None  # in the place of that of the index
    model: str = DEMO  # where no index gives one
    device: str = "auto"
    precision: str = "auto"
    features_cache: int | None = None  # bytes
    features_dir: Path | None = None  # its real path


@dataclass(frozen=True, slots=True)
class Greeting:
    """The facts that a server tells about itself."""

    version: str
    pid: int
    url: str
    since: int  # seconds since 1970
    awake: bool  # whether the weights may be in memory
    index: Path  # real path
    directory: Path  # as it was named
    named_model: str | None  # in the place of that of the index
    model: str  # where no index gives one
    device: str
    precision: str
    runtime: tuple[str, str] | None  # the device and the precision that it computes in, if that decides
    features_cache: int | None
    features_dir: Path | None
    zone: tuple[str, ...]  # the local time
    made_by: str | None  # the model of the index, if that decides whether the server fits
    foreign: bool  # whether the vectors of the index are foreign, if that decides
    default_preprocessing: bool | None  # whether it takes pictures as `Model` would, if that decides

    def misfit(self, wanted: Wanted, pictures: str) -> str | None:
        """Return why the server would not give the answer of the command itself; None if it would."""
        if self.version != __version__:
            return f"it is of version {self.version}, this is {__version__}"
        if self.zone != local_zone():
            return "it has another time zone"
        for name in ("device", "precision"):
            asked, given = getattr(wanted, name), getattr(self, name)
            resolved = None if self.runtime is None else self.runtime[name == "precision"]
            if asked not in (given, resolved):
                return f"it serves {name} {given}, not {asked}"
        return self._other_index(wanted) if pictures == INDEX else self._other_model(wanted)

    def _other_index(self, wanted: Wanted) -> str | None:
        if self.index != Path(os.path.realpath(wanted.index)):
            return f"it serves {self.index}"
        if (self.features_cache, self.features_dir) != (wanted.features_cache, wanted.features_dir):
            return "it keeps features elsewhere, or has another limit for them"
        named = None if wanted.named_model is None else model_id(wanted.named_model)
        if named not in (None, self.named_model, self.made_by):
            return f"it serves the model {self.named_model or self.made_by}, not {named}"
        if self.foreign and model_id(wanted.model) != self.model:  # it verifies
            return f"it serves the model {self.model}, not {wanted.model}"
        return None

    def _other_model(self, wanted: Wanted) -> str | None:
        served = self.named_model or self.made_by or self.model
        if served != model_id(wanted.model):
            return f"it serves the model {served}, not {wanted.model}"
        if not self.default_preprocessing:
            return "its index was made with another preprocessing than that of the model"
        return None


def model_id(name: str) -> str:
    """Return the name of a model as a fingerprint has it: the real path of a folder, or the name."""
    folder = os.path.expanduser(name)
    return os.path.realpath(folder) if name != DEMO and os.path.isdir(folder) else name


def local_zone() -> tuple[str, ...]:
    """Return the zone of the local time, by which dates are read."""
    import time

    return (str(time.timezone), *time.tzname)


class Server:
    """A server that fits. One request at a time."""

    def __init__(self, wanted: Wanted, pictures: str) -> None:
        """Connect and greet. Raises NoServer."""
        self._wanted, self._pictures = wanted, pictures
        self._connection: socket.socket | None = None
        self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def __str__(self) -> str:
        return f"bt serve, process {self.greeting.pid}"

    def _connect(self) -> socket.socket:
        connection, self.greeting = _greet(self._wanted, self._pictures)
        self._connection = connection
        if reason := self.greeting.misfit(self._wanted, self._pictures):
            connection.close()
            raise NoServer(reason)
        return connection

    def ask(
        self,
        do: str,
        arguments: Message,
        *,
        names: Sequence[Path] = (),
        content: Callable[[Path], tuple[Message, bytes]] | None = None,
        vector: VectorFile | None = None,
        say: Say = quiet,
        on_progress: OnProgress = quiet,
        on_hits: OnHits = quiet,
    ) -> Any:
        """Send a request, read the pictures and the vector that it needs, and return the answer.

        `content` returns the bytes of one of the `names`, or the error in their place; by default `content_of`. Raises
        the error of the request, or NoServer.
        """
        if len(names) > MOST_PICTURES:
            raise NoServer(f"{len(names)} pictures, more than the {MOST_PICTURES} of a request")
        connection = self._connection or self._connect()
        self._connection = None  # it carries one request
        with connection:
            connection.settimeout(SILENCE_S)
            try:
                send(connection, {"do": do, "names": list(names), **arguments})
                while True:
                    message, _ = receive(connection)
                    event = message.get("event")
                    if event not in _EVENTS or not all(name in message for name in _EVENTS[event]):
                        raise Broken("no message of this protocol")
                    if event == "result":
                        return message["result"]
                    if event == "error":
                        raise self._error(message["error"])
                    if event == "refused":
                        raise NoServer(str(message["reason"]))
                    if event == "say":
                        say(message["line"])
                    elif event == "progress":
                        on_progress(message["done"], message["total"])
                    elif event == "hits":
                        on_hits(message["hits"])
                    elif event == "picture":
                        _reply(connection, *(content or content_of)(names[message["place"]]))
                    elif event == "vector" and vector is not None:
                        _reply(connection, *vector.read(message["size"]))
            except Broken as error:
                raise NoServer(f"process {self.greeting.pid} was lost: {error}") from error
            finally:
                if vector is not None:
                    vector.close()

    def _error(self, error: Exception) -> Exception:
        """Return the error to raise; NoServer where the command itself may not meet it, or words it otherwise."""
        if isinstance(error, ModelError | ResourceError):  # it fetches other models, and has its own memory
            return NoServer(str(error))
        if isinstance(error, StoreError) and self.greeting.directory != self._wanted.index:
            return NoServer(f"it knows the index as {self.greeting.directory}")
        return error


def _reply(connection: socket.socket, message: Message, content: bytes) -> None:
    with suppress(Broken):  # its last word may still be there to be read
        send(connection, message, content)


def _greet(wanted: Wanted, pictures: str) -> tuple[socket.socket, Greeting]:
    """Connect to the server of an index; return its greeting. Raises NoServer."""
    connection: socket.socket | None = None
    try:
        path = socket_path(wanted.index)
        require_private(path.parent)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(GREETING_S)
        connection.connect(os.fspath(path))
    except (OSError, NotOffered) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            raise NoServer("none is running for this index") from None
        why = str(error) if isinstance(error, NotOffered) else f"no answer: {error.strerror or error}"
        raise NoServer(why) from error
    try:
        if not is_ours(connection):
            raise NoServer(f"{path}: it belongs to another user")
        hello = {
            "protocol": PROTOCOL,
            "pictures": pictures,
            "named_model": wanted.named_model,
            "model": model_id(wanted.model),
            "device": wanted.device,
            "precision": wanted.precision,
        }
        send(connection, hello)
        facts, _ = receive(connection)
        if facts.get("protocol") != PROTOCOL:
            raise NoServer(f"it is of version {facts.get('version')}, this is {__version__}")
        del facts["protocol"]
        return connection, Greeting(**facts)
    except Broken as error:
        connection.close()
        late = isinstance(error.__cause__, TimeoutError)
        raise NoServer(f"no answer in {GREETING_S:g} s" if late else f"no answer: {error}") from error
    except TypeError as error:
        connection.close()
        raise NoServer("it speaks another protocol") from error
    except BaseException:
        connection.close()
        raise


def look(index: Path) -> Greeting:
    """Return what the server of an index tells about itself. Raises NoServer."""
    connection, greeting = _greet(Wanted(index), INDEX)
    connection.close()
    return greeting


def stop(index: Path) -> Greeting:
    """Ask the server of an index to end when its requests are answered; return its greeting. Raises NoServer."""
    connection, greeting = _greet(Wanted(index), INDEX)
    with connection:
        try:
            send(connection, {"do": "stop"})
            receive(connection)
        except Broken as error:
            raise NoServer(f"process {greeting.pid} does not answer: {error}") from error
    return greeting


class RemoteLibrary:
    """The part of `Library` that a server answers. Each method raises as that of `Library`, and NoServer."""

    def __init__(self, server: Server, say: Say = quiet) -> None:
        self._server, self._say = server, say

    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Sequence[Path] | None = None,
        vector: Path | BinaryIO | None = None,
        under: Sequence[str] | None = None,
        not_under: Sequence[str] = (),
        since: "Moment | None" = None,
        before: "Moment | None" = None,
        taken: "Moment | None" = None,
        top: int = 10,
        depth: int | None = None,
        min_match: float | None = None,
        budget: float = math.inf,
        min_similarity: float | None = None,
        exact: bool = False,
        without: Sequence[str] = (),
        weights: Sequence[float] | None = None,
        keep_self: bool = False,
        offset: int = 0,
        unique: bool = False,
        on_progress: OnProgress = quiet,
        on_hits: OnHits = quiet,
    ) -> Found:
        """Find pictures, as `Library.search`."""
        sent = None if vector is None else VectorFile(vector)
        arguments = {
            "text": text if text is None or isinstance(text, str) else list(text),
            "vector": None if sent is None else sent.name,
            "under": None if under is None else _places(under),
            "not_under": _places(not_under),
            "since": since,
            "before": before,
            "taken": taken,
            "top": top,
            "depth": depth,
            "min_match": min_match,
            "budget": budget,
            "min_similarity": min_similarity,
            "exact": exact,
            "without": list(without),
            "weights": None if weights is None else list(weights),
            "keep_self": keep_self,
            "offset": offset,
            "unique": unique,
            "wants_hits": on_hits is not quiet,
        }
        found: Found = self._server.ask(
            "search",
            arguments,
            names=[one.absolute() for one in image or ()],
            vector=sent,
            say=self._say,
            on_progress=on_progress,
            on_hits=on_hits,
        )
        return found

    def encode_ahead(self, texts: Sequence[str]) -> None:
        """Do nothing: a server encodes a text when it is asked for."""

    def refresh(self) -> None:
        """Do nothing: a server sees the newest state of the index at each request."""

    def fill(
        self,
        text: str,
        *,
        top: int = 5,
        depth: int | None = None,
        each: bool = False,
        on_progress: OnProgress = quiet,
    ) -> Filled:
        """Predict words from the pictures of the index, as `Library.fill`."""
        arguments = {"text": text, "top": top, "depth": depth, "each": each}
        filled: Filled = self._server.ask("fill", arguments, say=self._say, on_progress=on_progress)
        return filled

    def __len__(self) -> int:
        """The number of pictures that can be found."""
        return int(self._server.ask("size", {}))

    def __bool__(self) -> bool:
        return True


class RemoteModel:
    """The part of `Model` that a server answers. Each method raises as that of `Model`, and NoServer."""

    def __init__(self, server: Server, say: Say = quiet) -> None:
        self._server, self._say = server, say

    def match(
        self,
        pictures: Iterable[Path],
        texts: Sequence[str],
        *,
        top: int | None = None,
        depth: int | None = None,
        on_progress: OnProgress = quiet,
    ) -> list[PairScore]:
        """Score pictures with texts, as `Model.match`."""
        arguments = {"texts": list(texts), "top": top, "depth": depth}
        scores: list[PairScore] = self._ask("match", arguments, pictures, on_progress)
        return scores

    def rerank(
        self,
        text: str,
        pictures: Iterable[Path],
        *,
        top: int | None = None,
        min_match: float | None = None,
        on_progress: OnProgress = quiet,
    ) -> Results:
        """Order pictures by match, as `Model.rerank`."""
        arguments = {"text": text, "top": top, "min_match": min_match}
        found: Results = self._ask("rerank", arguments, pictures, on_progress)
        return found

    def fill(self, text: str, pictures: Iterable[Path], *, top: int = 5, on_progress: OnProgress = quiet) -> Filled:
        """Predict words from these pictures, as `Model.fill`."""
        filled: Filled = self._ask("fill pictures", {"text": text, "top": top}, pictures, on_progress)
        return filled

    def _ask(self, do: str, arguments: Message, pictures: Iterable[Path], on_progress: OnProgress) -> Any:
        return self._server.ask(do, arguments, names=list(pictures), say=self._say, on_progress=on_progress)


def _places(given: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Return folders, files and globs as absolute paths, and as the globs that they may be, from the current folder."""
    if not given:
        return []
    from bridgetower.files.patterns import glob

    return [(Path(one).absolute(), glob(one)) for one in given]
