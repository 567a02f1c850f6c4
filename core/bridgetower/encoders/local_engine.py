"""Turn the contents of picture files into vectors: decode them ahead in worker processes, encode them in batches."""

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import cached_property

import numpy as np

from bridgetower.encoders.protocol import Embedded, RecallEncoder
from bridgetower.pictures.decode_pool import DecodePool, Picture
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.prefetch import ahead, workers
from bridgetower.records import Refused

READ_AHEAD = 500 * 1000**2  # bytes of contents that may wait to be decoded


class LocalEngine:
    """The `ImageEngine` of this process. It loads its encoder after the first picture is decoded."""

    def __init__(
        self, preprocessing: Preprocessing, load_encoder: Callable[[], RecallEncoder], batch_size: int
    ) -> None:
        self._preprocessing, self._load_encoder, self.batch_size = preprocessing, load_encoder, batch_size

    def __repr__(self) -> str:
        return f"<LocalEngine, preprocessing {self._preprocessing.name}, batches of {self.batch_size}>"

    @cached_property
    def _encoder(self) -> RecallEncoder:
        return self._load_encoder()

    def embed(self, contents: Iterable[bytes], *, max_pixels: int | None = None) -> Generator[Embedded | Refused]:
        """Decode at most two batches ahead: one fills while the other is encoded."""
        # The pool is closed before the threads, so that a thread that waits for a process ends at once.
        with workers() as threads, DecodePool(self._preprocessing, max_pixels=max_pixels) as pool:
            window = 2 * self.batch_size
            batch: list[Picture | Refused] = []
            for decoded in ahead(threads, pool.decode, contents, window, weigh=len, most=READ_AHEAD):
                batch.append(decoded)
                if isinstance(decoded, Picture):
                    _ = self._encoder  # load it while the pool decodes further pictures
                if len(batch) == self.batch_size:
                    yield from self._embedded(batch)
                    batch = []
            yield from self._embedded(batch)

    def _embedded(self, batch: Sequence[Picture | Refused]) -> Generator[Embedded | Refused]:
        pixels = [decoded.pixels for decoded in batch if isinstance(decoded, Picture)]
        vectors = iter(self._encoder.embed_images(np.stack(pixels)) if pixels else ())
        for decoded in batch:
            if isinstance(decoded, Refused):
                yield decoded
            else:
                yield Embedded(decoded.width, decoded.height, decoded.taken_at, next(vectors))
