"""The connection of one request on the side of the server, and what the client sends on it when it is needed."""

import hashlib
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.errors import BridgeTowerError
from bridgetower.records import Hit
from bridgetower.serving.engine import Engine
from bridgetower.serving.local.wire import Broken, Message, receive, send
from bridgetower.serving.request_queue import ClientGone

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bridgetower.pictures.preprocess import Preprocessing

LAST_S = 5.0  # in which a client must go when it has its answer


class Channel:
    """The connection of a request, on which several threads may tell and ask. Raises ClientGone."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._sending, self._asking = threading.Lock(), threading.Lock()
        self._gone = False

    def tell(self, event: Message) -> None:
        """Send an event."""
        with self._sending:
            if self._gone:
                raise ClientGone
            try:
                send(self._client, event)
            except Broken as error:
                self._gone = True
                raise ClientGone from error

    def ask(self, event: Message) -> bytes:
        """Ask the client for bytes. Raises the error that it sends in their place."""
        with self._asking:
            self.tell(event)
            try:
                reply, content = receive(self._client)
            except Broken as error:
                self._gone = True
                raise ClientGone from error
        lack = reply.get("error")
        if isinstance(lack, BridgeTowerError):
            raise lack
        return content

    def end(self) -> None:
        """Wait until the client has gone with its answer. Threads that read ahead may still ask it for pictures."""
        self._client.settimeout(LAST_S)
        with self._asking:
            self._gone = True
            with suppress(OSError):
                while self._client.recv(1 << 16):
                    pass

    def say(self, line: str) -> None:
        self.tell({"event": "say", "line": line})

    def progress(self, done: int, total: int) -> None:
        self.tell({"event": "progress", "done": done, "total": total})

    def hits(self, hits: tuple[Hit, ...]) -> None:
        self.tell({"event": "hits", "hits": hits})


class SentPicture:
    """A picture whose bytes the client sends when its pixels are needed."""

    def __init__(self, name: Path, place: int, channel: Channel, engine: Engine) -> None:
        self.name, self._place, self._channel, self._engine = name, place, channel, engine
        self._hash = b""

    def pixels(self, preprocessing: "Preprocessing") -> "npt.NDArray[np.float32]":
        """Return pixels [3, H, W]. Raises PictureError, also for a file that the client cannot read."""
        content = self._channel.ask({"event": "picture", "place": self._place})
        self._hash = hashlib.sha256(content).digest()
        return self._engine.picture(content, self.name).pixels(preprocessing)

    def content_hash(self) -> bytes:
        """Return the SHA-256 of the file, once it was sent."""
        return self._hash


class NotSent(OSError):
    """The client cannot read the file of a vector; `error` says why."""

    def __init__(self, error: BridgeTowerError) -> None:
        super().__init__(str(error))
        self.error = error


class SentVector:
    """The file of a vector, which the client reads."""

    def __init__(self, name: str, channel: Channel) -> None:
        self.name, self._channel = name, channel

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`. Raises NotSent."""
        try:
            return self._channel.ask({"event": "vector", "size": size})
        except BridgeTowerError as error:
            raise NotSent(error) from error  # an OSError, as a reader of npy files takes others for a damaged header
