"""The messages between `ray_engine` and its `driver`, pickled one after the other: `Start`, then `Batch` and events."""

import pickle
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from bridgetower.encoders.cluster.actor import Loader
from bridgetower.encoders.cluster.batches import Sent
from bridgetower.records import Fingerprint


class Start(NamedTuple):
    """The first message to the driver."""

    address: str | None  # "ray://HOST:PORT"; None for the cluster of RAY_ADDRESS or of this machine
    load: Loader
    fingerprint: Fingerprint  # the model that the workers must load
    device: str  # "auto", "cpu" or "cuda"
    workers: int | None  # None for as many as Ray has GPUs, or else processors
    max_pixels: int | None
    patience_s: float  # for which there may be no worker


class Batch(NamedTuple):
    """A batch for a worker."""

    ticket: int
    items: Sequence[Sent]


class Joined(NamedTuple):
    """A worker has loaded the model."""

    worker: str


class Left(NamedTuple):
    """A worker is gone."""

    worker: str


class Note(NamedTuple):
    """A line for the user."""

    line: str


class Failed(NamedTuple):
    """The driver has ended with an error."""

    error: Exception


class Alive(NamedTuple):
    """Sent from time to time, so that silence means a fault."""


def write(message: object, to: IO[bytes]) -> None:
    """Write a message. Raises OSError if the other process has ended."""
    pickle.dump(message, to, protocol=pickle.HIGHEST_PROTOCOL)
    to.flush()


def messages(source: IO[bytes]) -> Iterator[Any]:
    """Yield messages until the other process has ended."""
    while True:
        try:
            yield pickle.load(source)
        except (EOFError, OSError, pickle.UnpicklingError):
            return
