"""The side of the server: accept connections of this user on the Unix socket of an index, and answer their requests.

    hello -> greeting -> request -> events: alive, say, progress, hits, picture, vector -> result, error or refused

Each connection has a thread, which greets at once, even while all threads for requests are busy, and carries one
request. The requests run in the queue.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from bridgetower import __version__
from bridgetower.errors import BridgeTowerError, StoreError
from bridgetower.inputs import ResolvedPlace
from bridgetower.records import DEFAULT_MODEL, FOREIGN, Fingerprint, quiet
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.local.channel import LAST_S, Channel, NotSent, SentPicture, SentVector
from bridgetower.serving.local.client import PICTURES, local_zone, model_id
from bridgetower.serving.local.place import NotOffered, is_ours, make_private, socket_path
from bridgetower.serving.local.wire import PROTOCOL, Broken, Message, receive, send
from bridgetower.serving.request_queue import ClientGone, Refusal, RequestQueue

ALIVE_S = 1.0  # between two signs of life to a client that waits
PATIENCE_S = 60.0  # in which a client must send or take what it is to; it may read from a slow disk
MOST_CLIENTS = 256


class Listener:
    """Answers the command line on the Unix socket of an index until `close`."""

    def __init__(
        self,
        engine: Engine,
        queue: RequestQueue,
        options: Options,
        *,
        url: str,
        stop: Callable[[], object],
        defect: Callable[[BaseException], object] = quiet,
    ) -> None:
        """Take the socket of the index, and answer from now on. The process must not be forked afterwards.

        `url` is told to clients; `stop` is called when one asks the process to end, and returns at once; `defect` gets
        errors that are no BridgeTowerError. Raises NotOffered; StoreError if another process serves the index.
        """
        self._engine, self._queue, self._options = engine, queue, options
        self._url, self._stop, self._defect = url, stop, defect
        self._since = int(time.time())
        self.path = socket_path(options.directory)
        make_private(self.path.parent)
        self._descriptor = _lock(self.path.with_suffix(".lock"), options.directory, url)
        try:
            self._socket = _bound(self.path)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._socket.settimeout(ALIVE_S)
        self._inode = _inode(self.path)
        self._clients: set[socket.socket] = set()
        self._answering = 0
        self._changed = threading.Condition()  # guards the two
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="local clients", daemon=True)
        self._thread.start()

    def close(self, seconds: float = LAST_S) -> None:
        """Take no further connection, send the answers that are there, and let the socket go. May be called twice.

        Answers that are not there after `seconds` are lost: drain the queue before.
        """
        if self._closing:
            return
        self._closing = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends `accept` at once on Linux
        self._thread.join()
        with suppress(OSError):
            if _inode(self.path) == self._inode:  # else another server has bound the path, after it was removed
                os.unlink(self.path)
        self._socket.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._answering, seconds)
            for client in self._clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        os.close(self._descriptor)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:  # no file handle is left, or `close` is called
                if not self._closing:
                    time.sleep(ALIVE_S)
                continue
            with self._changed:
                takes = len(self._clients) < MOST_CLIENTS
                if takes:
                    self._clients.add(client)
            try:
                if not takes:
                    raise RuntimeError("too many clients")
                threading.Thread(target=self._serve, args=(client,), name="local client", daemon=True).start()
            except RuntimeError:  # or no thread is left: the command does the work itself
                self._forget(client)

    def _forget(self, client: socket.socket) -> None:
        with self._changed:
            self._clients.discard(client)
        client.close()

    def _serve(self, client: socket.socket) -> None:
        """Greet a client and answer its request."""
        try:
            if not is_ours(client):
                return
            client.settimeout(PATIENCE_S)
            hello, _ = receive(client)
            send(client, self._greeting(hello))
            request, _ = receive(client)
            with self._changed:
                self._answering += 1
            channel = Channel(client)
            try:
                self._answer(request, channel)
            finally:
                with self._changed:
                    self._answering -= 1
                    self._changed.notify_all()
            channel.end()
        except (Broken, ClientGone):
            pass
        except Exception as error:  # noqa: BLE001 - a thread of its own: it would be lost
            self._defect(error)
        finally:
            self._forget(client)

    def _greeting(self, hello: Message) -> Message:
        """Return the fields of `client.Greeting`, and the protocol. Facts that take time are left out unless they
        decide whether this server fits."""
        options, made_by, runtime, default_preprocessing = self._options, None, None, None
        model = model_id(options.model or options.default_model or DEFAULT_MODEL)
        named = None if options.model is None else model_id(options.model)
        precision = options.precision or options.default_precision
        with suppress(BridgeTowerError):  # the request raises it
            if hello.get("pictures") == PICTURES or hello.get("named_model") is not None or hello.get("model") != model:
                made_by = self._made_by()
            if (hello.get("device"), hello.get("precision")) != (options.device, precision):
                runtime = self._engine.runtime
            if hello.get("pictures") == PICTURES:
                default_preprocessing = self._engine.has_default_preprocessing()
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "pid": os.getpid(),
            "url": self._url,
            "since": self._since,
            "awake": self._engine.is_awake,
            "index": Path(os.path.realpath(options.directory)),
            "directory": options.directory,
            "named_model": named,
            "model": model,
            "device": options.device,
            "precision": precision,
            "runtime": None if runtime is None else (runtime.device, runtime.precision),
            "features_cache": options.features_cache,
            "features_dir": options.features_dir,
            "zone": local_zone(),
            "made_by": None if made_by is None else made_by.model,
            "foreign": made_by is not None and made_by.precision_family == FOREIGN,
            "default_preprocessing": default_preprocessing,
        }

    def _made_by(self) -> Fingerprint | None:
        from bridgetower.index.compatibility import made_by

        return made_by(self._options.directory)

    def _answer(self, request: Message, channel: Channel) -> None:
        """Send signs of life until the request is answered, then its result or error."""
        do = request.pop("do", None)
        if do == "stop":
            channel.tell({"event": "result", "result": None})
            self._stop()
            return
        names = [Path(name) for name in request.pop("names", ())]
        pictures = [SentPicture(name, place, channel, self._engine) for place, name in enumerate(names)]
        works: dict[str, Callable[..., Any]] = {
            "search": self._search,
            "fill": self._fill,
            "fill pictures": self._fill_pictures,
            "match": self._match,
            "rerank": self._rerank,
            "size": self._size,
        }
        if (work := works.get(str(do))) is None:
            raise Broken(f"{do}: unknown")
        try:
            future = self._queue.submit(partial(work, pictures, channel, **request))
        except Refusal as refusal:
            channel.tell({"event": "refused", "reason": str(refusal)})
            return
        try:
            while not wait([future], ALIVE_S).done:
                channel.tell({"event": "alive"})
            channel.tell(self._last_event(future))
        finally:  # also if the client is gone: the request meets that at its next word
            wait([future])

    def _last_event(self, future: Future[Any]) -> Message:
        try:
            return {"event": "result", "result": future.result()}
        except NotSent as lack:
            return {"event": "error", "error": lack.error}
        except BridgeTowerError as error:
            return {"event": "error", "error": error}
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - the command does the work itself
            self._defect(error)
            return {"event": "refused", "reason": f"it met a defect of its own: {type(error).__name__}"}

    # The requests, each in a thread of the queue

    def _search(
        self,
        pictures: list[SentPicture],
        channel: Channel,
        *,
        vector: str | None = None,
        under: Any = None,
        not_under: Any = (),
        wants_hits: bool = False,
        **limits: Any,
    ) -> Any:
        from bridgetower.retrieval.search.request import SearchRequest

        request = SearchRequest(
            image=pictures or None,
            vector=None if vector is None else cast(BinaryIO, SentVector(vector, channel)),  # it is only read
            under=None if under is None else _resolved(under),
            not_under=_resolved(not_under),
            **limits,
        )
        on_hits = channel.hits if wants_hits else quiet
        return self._engine.search(request, say=channel.say, on_progress=channel.progress, on_hits=on_hits)

    def _fill(self, pictures: list[SentPicture], channel: Channel, **arguments: Any) -> Any:
        return self._engine.fill(**arguments, say=channel.say, on_progress=channel.progress)

    def _fill_pictures(self, pictures: list[SentPicture], channel: Channel, text: str, top: int) -> Any:
        return self._engine.fill(text, pictures, top=top, say=channel.say, on_progress=channel.progress)

    def _match(self, pictures: list[SentPicture], channel: Channel, texts: list[str], **limits: Any) -> Any:
        return self._engine.match(pictures, texts, **limits, say=channel.say, on_progress=channel.progress)

    def _rerank(self, pictures: list[SentPicture], channel: Channel, text: str, **limits: Any) -> Any:
        return self._engine.rerank(text, pictures, **limits, say=channel.say, on_progress=channel.progress)

    def _size(self, pictures: list[SentPicture], channel: Channel) -> Any:
        return self._engine.size()


def _resolved(places: list[tuple[Path, str | None]]) -> Any:
    """Return places as the client has resolved them."""
    return [ResolvedPlace(*place) for place in places]


def _lock(path: Path, index: Path, url: str) -> int:
    """Lock the socket of an index for this process; return a descriptor, which holds the lock until it is closed.

    The file stays: if it were removed, two processes could each lock a file of this name.
    """
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotOffered(f"{path}: cannot be locked: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "url": url}).encode("ascii"))
    except BlockingIOError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise StoreError(f"{index}: {holder} already: `bt serve --stop` ends it") from error
    except OSError as error:
        os.close(descriptor)
        raise NotOffered(f"{path}: cannot be locked: {error.strerror or error}") from error
    return descriptor


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.read(descriptor, 4096))
        return f"process {found['pid']} serves it"
    except (OSError, ValueError, KeyError, TypeError):  # it has not written that yet
        return "another process serves it"


def _inode(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a socket; None if it is gone."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _bound(path: Path) -> socket.socket:
    """Return a listening socket, in the place of one that a killed server left. Raises NotOffered."""
    found = socket.socket(socket.AF_UNIX)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        found.bind(os.fspath(path))
        os.chmod(path, 0o600)
        found.listen(128)
    except OSError as error:
        found.close()
        raise NotOffered(f"{path}: no socket can be made: {error.strerror or error}") from error
    return found
