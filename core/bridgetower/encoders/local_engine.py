"""Contents of picture files -> vectors, in this process: decoded in processes ahead, encoded batch by batch."""

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import cached_property

import numpy as np

from bridgetower.encoders.protocol import Embedded, RecallEncoder
from bridgetower.pictures.decode_pool import DecodePool, Picture
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.prefetch import ahead, workers
from bridgetower.records import Refused

READ_AHEAD = 500 * 1000**2  # bytes of contents that wait to be decoded


class LocalEngine:
    """The `ImageEngine` of this process. Its encoder is loaded with the first picture that was decoded."""

    def __init__(
        self, preprocessing: Preprocessing, load_encoder: Callable[[], RecallEncoder], batch_size: int
    ) -> None:
        self._preprocessing, self._load_encoder, self.batch_size = preprocessing, load_encoder, batch_size

    @cached_property
    def _encoder(self) -> RecallEncoder:
        return self._load_encoder()

    def embed(self, contents: Iterable[bytes], *, max_pixels: int | None = None) -> Generator[Embedded | Refused]:
        """Decode at most two batches ahead: one is being filled while the other is encoded."""
        # The processes are left first: a thread that waits for one then ends at once.
        with workers() as waiting, DecodePool(self._preprocessing, max_pixels=max_pixels) as decoders:
            window = 2 * self.batch_size
            batch: list[Picture | Refused] = []
            for decoded in ahead(waiting, decoders.decode, contents, window, weigh=len, most=READ_AHEAD):
                batch.append(decoded)
                if isinstance(decoded, Picture):
                    _ = self._encoder  # loaded while further ones are decoded
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
