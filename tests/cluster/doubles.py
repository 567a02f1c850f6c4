"""Encoders for the workers of a test cluster, which import this module: no weights, and bad manners on demand."""

import os
import signal
import time
from dataclasses import dataclass, replace

import numpy as np

from bridgetower.encoders.protocol import Pixels, Vectors
from bridgetower.errors import ResourceError
from tests.fakes import FakeEncoder


class Slow(FakeEncoder):
    """Takes its time over each batch, and dies of any red picture."""

    def __init__(self, seconds: float, *, dies: bool) -> None:
        super().__init__()
        self._seconds, self._dies = seconds, dies

    def embed_images(self, pixels: Pixels) -> Vectors:
        time.sleep(self._seconds)
        vectors = super().embed_images(pixels)
        if self._dies and (vectors @ np.array([1, 0, 0]) > 0.99).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return vectors


@dataclass(frozen=True)
class Load:
    """Loads a `Slow`; `weights` are those that it says it has."""

    seconds: float = 0.0
    dies: bool = False
    weights: str | None = None
    device: str = "cpu"  # that it must be asked for

    def __call__(self, device: str) -> Slow:
        if device != self.device:
            raise ResourceError(f"the device is {device}")
        encoder = Slow(self.seconds, dies=self.dies)
        if self.weights is not None:
            encoder.fingerprint = replace(encoder.fingerprint, weights_sha256=self.weights)
        return encoder
