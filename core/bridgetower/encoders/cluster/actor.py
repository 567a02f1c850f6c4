"""The part of the engine that runs on a machine of the cluster: load the model once, then decode and embed batches."""

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np

from bridgetower.encoders.cluster.batches import Answer, Sent, Unread
from bridgetower.encoders.protocol import Embedded, RecallEncoder
from bridgetower.errors import BridgeTowerError, PictureError
from bridgetower.files.content import read
from bridgetower.pictures.decode_pool import DecodePool, Picture, Square
from bridgetower.prefetch import ahead, workers
from bridgetower.records import DECODING_VERSION, Fingerprint, Refused


class Loader(Protocol):
    """Loads an encoder on the machine that it was sent to."""

    def __call__(self, device: str) -> RecallEncoder:
        """Load it on the device "cpu" or "cuda". Raises ModelError, ResourceError, UsageError."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointLoader:
    """Loads the encoder of a checkpoint that is on that machine, by its name; nothing is fetched."""

    name: str  # a repository, "demo", or the absolute path of a folder
    precision: str  # as on the machine of the driver, not "auto"
    preprocessing: str

    def __call__(self, device: str) -> RecallEncoder:
        from bridgetower.checkpoints.find import resolve
        from bridgetower.encoders.runtime import choose_runtime
        from bridgetower.encoders.torch_encoder import TorchEncoder

        checkpoint = resolve(self.name, fetch=False).with_preprocessing(self.preprocessing)
        encoder = TorchEncoder(checkpoint, choose_runtime(device, self.precision))
        encoder.load()
        return encoder


class NotLoaded(NamedTuple):
    """The report of a worker that cannot load its model. Ray Client would raise an error that is returned as it is."""

    error: BridgeTowerError


class Loaded(NamedTuple):
    """The report of a worker that has loaded its model."""

    fingerprint: Fingerprint
    version: tuple[str, int]  # of bt, and of its decoding


# The package is imported by name: it is above this module.
VERSION = (import_module("bridgetower").__version__, DECODING_VERSION)


class Worker:
    """One actor: it embeds one batch at a time."""

    def __init__(self, device: str, threads: int, max_pixels: int | None) -> None:
        """`threads` is the number of pictures that are decoded at once, each in a process."""
        self._device, self._threads, self._max_pixels = device, threads, max_pixels
        self._pool: DecodePool | None = None
        self.name = ""

    def host(self) -> str:
        """Return the name of this machine."""
        return socket.gethostname()

    def load(self, load: Loader, name: str) -> Loaded | NotLoaded:
        """Load the model; return what it is, or why it cannot be loaded. From now on the worker is called `name`."""
        self.name = name
        try:
            self._encoder = load(self._device)
            return Loaded(self._encoder.fingerprint, VERSION)
        except BridgeTowerError as error:
            return NotLoaded(error)

    def embed(self, batch: Sequence[Sent]) -> list[Answer]:
        """Return an answer for each item. Raises ModelError, and ResourceError where this machine lacks something."""
        with workers(number=self._threads) as threads:
            found = [*ahead(threads, self._picture, batch, len(batch))]
        pixels = [picture.pixels for picture in found if isinstance(picture, Picture)]
        vectors = iter(self._encoder.embed_images(np.stack(pixels)) if pixels else ())
        return [
            Embedded(one.width, one.height, one.taken_at, next(vectors), worker=self.name)
            if isinstance(one, Picture)
            else one
            for one in found
        ]

    def _picture(self, item: Sent) -> Picture | Refused | Unread:
        if isinstance(item, Square):
            return item.normalised(self._encoder.preprocessing)
        if isinstance(item, bytes):
            return self._decode(item)
        try:
            content = read(item.path)
        except PictureError as error:
            return Unread(self.name, error.reason)
        if hashlib.sha256(content).digest() != item.hash:
            return Unread(self.name, "it has another content there")
        return self._decode(content)

    def _decode(self, content: bytes) -> Picture | Refused:
        if self._pool is None:
            self._pool = DecodePool(self._encoder.preprocessing, max_pixels=self._max_pixels)
        return self._pool.decode(content)
