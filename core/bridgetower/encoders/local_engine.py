"""Turn the contents of picture files into vectors: decode them ahead in worker processes, encode them in batches."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import Embedded, Judge, RecallEncoder
from bridgetower.pictures.decode_pool import DecodePool, Picture
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.prefetch import ahead, workers
from bridgetower.records import FileContent, Refused

_Array = npt.NDArray[np.float32]
_FEATURES_SHARE = 4  # features of this part of a batch are in memory together: they are large
READ_AHEAD = 500 * 1000**2  # bytes of contents that may wait to be decoded


def size_of(content: FileContent) -> int:
    """Return the bytes of a content."""
    return len(content.data)


class LocalEngine:
    """The `ImageEngine` of this process. It loads its encoder after the first picture is decoded."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        load_encoder: Callable[[], RecallEncoder],
        batch_size: int,
        *,
        load_judge: Callable[[], Judge] | None = None,
        wants: Callable[[int], bool] = lambda place: False,
        processes: int | None = None,
    ) -> None:
        """`wants` returns whether the features of a content are wanted, by its place from 0. `load_judge` returns the
        encoder in its other role, which makes them. `processes` decode, by default one a processor."""
        self._preprocessing, self._load_encoder, self.batch_size = preprocessing, load_encoder, batch_size
        self._load_judge, self._wants, self._processes = load_judge, wants, processes

    def __repr__(self) -> str:
        return f"<LocalEngine, preprocessing {self._preprocessing.name}, batches of {self.batch_size}>"

    @cached_property
    def _encoder(self) -> RecallEncoder:
        return self._load_encoder()

    def embed(self, contents: Iterable[FileContent], *, max_pixels: int | None = None) -> Generator[Embedded | Refused]:
        """Decode at most two batches ahead: one fills while the other is encoded."""
        # The pool is closed before the threads, so that a thread that waits for a process ends at once.
        with workers(number=self._processes) as threads, DecodePool(self._preprocessing, max_pixels=max_pixels) as pool:
            window = 2 * self.batch_size

            def decode(content: FileContent) -> Picture | Refused:
                return pool.decode(content.data)

            batch: list[Picture | Refused] = []
            done = 0
            for decoded in ahead(threads, decode, contents, window, weigh=size_of, most=READ_AHEAD):
                batch.append(decoded)
                if isinstance(decoded, Picture):
                    _ = self._encoder  # load it while the pool decodes further pictures
                if len(batch) == self.batch_size:
                    yield from self._embedded(batch, done)
                    done += len(batch)
                    batch = []
            yield from self._embedded(batch, done)

    def _embedded(self, batch: Sequence[Picture | Refused], start: int) -> Generator[Embedded | Refused]:
        pixels = [decoded.pixels for decoded in batch if isinstance(decoded, Picture)]
        encoded: Iterator[tuple[_Array, bytes | None]]
        if any(self._wants(start + place) for place in range(len(batch))):
            encoded = self._with_features(pixels)
        else:
            encoded = ((vector, None) for vector in (self._encoder.embed_images(np.stack(pixels)) if pixels else ()))
        for decoded in batch:
            if isinstance(decoded, Refused):
                yield decoded
            else:
                yield Embedded(decoded.width, decoded.height, decoded.taken_at, *next(encoded))

    def _with_features(self, pixels: Sequence[_Array]) -> Iterator[tuple[_Array, bytes]]:
        assert self._load_judge is not None
        judge = self._load_judge()
        step = max(1, self.batch_size // _FEATURES_SHARE)
        for start in range(0, len(pixels), step):
            pictures = judge.encode_images(np.stack(pixels[start : start + step]))
            assert pictures.vectors is not None  # an encoder has an ITC head
            yield from zip(pictures.vectors, judge.pack(pictures), strict=True)
