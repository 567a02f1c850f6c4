"""The `ImageEngine` whose workers are actors of a Ray cluster; `driver`, in a process of its own, talks to Ray."""

import hashlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Self

from bridgetower.encoders.cluster.actor import Loader
from bridgetower.encoders.cluster.batches import Done, Located, Lost, Sent, Unread, in_order
from bridgetower.encoders.cluster.messages import Alive, Batch, Failed, Joined, Left, Note, Start, messages, write
from bridgetower.encoders.local_engine import READ_AHEAD, size_of
from bridgetower.encoders.protocol import Embedded
from bridgetower.errors import PictureError, ProcessError
from bridgetower.files.content import read
from bridgetower.pictures.decode_pool import DecodePool, Square, environment
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.prefetch import ahead, workers
from bridgetower.records import FileContent, Fingerprint, Refused, Say, quiet
from bridgetower.resources import shortage

PATIENCE_S = 60.0  # for which there may be no worker
_CONNECT_S = 60.0  # in which the driver must have connected
_SILENCE_S = 120.0  # after which the driver has a fault
_LEAVE_S = 10.0  # in which the driver must have left the cluster
_COMMAND = (sys.executable, "-P", "-m", "bridgetower.encoders.cluster.driver")  # -P: nothing from the current folder
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "5",  # seconds that actors outlive a lost connection
}


class RayEngine:
    """Encodes pictures on a Ray cluster. Each `embed` joins the cluster, and leaves it at the end."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        load: Loader,
        fingerprint: Fingerprint,
        *,
        address: str | None = None,
        device: str = "auto",
        number: int | None = None,
        shared_paths: bool = False,
        patience_s: float = PATIENCE_S,
        say: Say = quiet,
    ) -> None:
        """`load` is sent to each worker, and must make an encoder with this fingerprint there.

        `address` is "ray://HOST:PORT", or None for the cluster of RAY_ADDRESS or of this machine. `device` is "auto",
        "cpu" or "cuda". There are at most `number` workers, by default as many as Ray has GPUs, or else processors.
        With `shared_paths` workers read and decode the files. `say` gets a line for each worker that is lost, or cannot
        read a file, and for each host on which a worker cannot start.
        """
        self._preprocessing, self.batch_size = preprocessing, batch_size
        self._load, self._fingerprint, self._address, self._device = load, fingerprint, address, device
        self._number, self._shared_paths, self._patience_s, self._say = number, shared_paths, patience_s, say
        self._told: set[str] = set()  # workers that could not read a file

    def __repr__(self) -> str:
        return f"<RayEngine at {self._address or 'the cluster of this machine'}, batches of {self.batch_size}>"

    def embed(self, contents: Iterable[FileContent], *, max_pixels: int | None = None) -> Generator[Embedded | Refused]:
        """Keep two batches a worker under way. Raises ProcessError, ModelError, UsageError."""
        start = Start(
            self._address, self._load, self._fingerprint, self._device, self._number, max_pixels, self._patience_s
        )
        with _RayPool(start, self._say) as pool:
            if self._shared_paths:
                found = (Located(content.path, content.hash) for content in contents)
                yield from in_order(pool, self._batches(found), self._content)
                return
            with workers() as threads, DecodePool(self._preprocessing, max_pixels=max_pixels) as decoder:

                def decode(content: FileContent) -> Square | Refused:
                    return decoder.square(content.data)

                window = 2 * self.batch_size
                squares = ahead(threads, decode, contents, window, weigh=size_of, most=READ_AHEAD)
                yield from in_order(pool, self._batches(squares), self._content)

    def _batches(self, items: Iterable[Sent | Refused]) -> Iterator[list[Sent | Refused]]:
        items = iter(items)
        while batch := list(islice(items, self.batch_size)):
            yield batch

    def _content(self, unread: Unread, item: Sent) -> Sent | Refused:
        """Return the content of a file that a worker could not read."""
        assert isinstance(item, Located)  # nothing else is read there
        if unread.worker not in self._told:
            self._told.add(unread.worker)
            self._say(f"note: worker {unread.worker} cannot read {item.path}, so its content is sent: {unread.why}")
        try:
            content = read(item.path)
        except PictureError as error:
            return Refused(error.reason, lasting=False)
        if hashlib.sha256(content).digest() != item.hash:
            return Refused("it was changed while it was read", lasting=False)
        return content


def authentication() -> dict[str, str]:
    """Return what lets Ray send the token of the user. `ray start` wants it wherever there is one, `ray.init` does not
    send it unless it is told to; a cluster that wants none takes it."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return {"RAY_AUTH_MODE": "token"} if named or os.path.isfile(os.path.expanduser("~/.ray/auth_token")) else {}


class _RayPool:
    """The workers, through the driver."""

    def __init__(self, start: Start, say: Say) -> None:
        self.size = 0
        self._start, self._say = start, say
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._timeout = _CONNECT_S

    def __enter__(self) -> Self:
        try:
            self._driver = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**authentication(), **environment(), **_ENVIRONMENT},
                start_new_session=True,  # Ctrl-C in a terminal does not reach it: it ends when stdin is closed
            )
        except (OSError, ValueError) as error:
            raise shortage(error) or ProcessError(f"no process for Ray could be started: {error}") from error
        try:
            threading.Thread(target=self._receive, name="events of Ray", daemon=True).start()
            self._send(self._start)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        """Let the driver leave the cluster."""
        assert self._driver.stdin is not None and self._driver.stdout is not None
        with suppress(OSError):
            self._driver.stdin.close()
        try:
            self._driver.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._driver.kill()
            self._driver.wait()

    def _receive(self) -> None:
        assert self._driver.stdout is not None
        with self._driver.stdout as source:
            for event in messages(source):
                self._events.put(event)
        self._events.put(None)

    def _send(self, message: object) -> None:
        assert self._driver.stdin is not None
        with suppress(OSError):  # it has ended: `wait` tells why
            write(message, self._driver.stdin)

    def submit(self, ticket: int, batch: Sequence[Sent]) -> None:
        self._send(Batch(ticket, batch))

    def wait(self) -> Sequence[Done | Lost]:
        found: list[Done | Lost] = []
        try:
            event = self._events.get(timeout=self._timeout)
        except queue.Empty:
            raise ProcessError(f"the Ray cluster has not answered for {self._timeout:g} s: see `ray status`") from None
        self._timeout = _SILENCE_S
        while True:
            if event is None:
                raise ProcessError("the Ray cluster was lost: run it again when it is there")
            self._handle(event, found)
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return found

    def _handle(self, event: object, found: list[Done | Lost]) -> None:
        match event:
            case Done() | Lost():
                found.append(event)
            case Joined():
                self.size += 1
            case Left(worker):
                self.size -= 1
                self._say(f"note: worker {worker} is lost; its pictures are sent to others")
            case Note(line):
                self._say(f"note: {line}")
            case Failed(error):
                raise error
            case _:
                assert isinstance(event, Alive)
