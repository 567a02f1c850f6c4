"""Picture files -> encoded pictures, read and decoded in threads ahead of the encoder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.ahead import ahead, workers
from bridgetower.decode import decode, read
from bridgetower.encoder import Encoder, Pictures
from bridgetower.errors import PictureError
from bridgetower.features import FeatureCache
from bridgetower.preprocess import Preprocessing, preprocess
from bridgetower.records import Skipped

# Pictures that are encoded together: more gain nothing on a CPU, and progress is told after each such batch.
PICTURES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the features of pictures are kept between searches, and which pictures those are."""

    cache: FeatureCache
    contents: dict[Path, bytes] = field(default_factory=dict)  # hash of the content of each file that is known

    def name(self, encoder: Encoder, path: Path) -> str | None:
        """The name of a picture's features in the cache; None where the content of the file is not known."""
        content = self.contents.get(path)
        return None if content is None else f"{content.hex()}-{encoder.features_id}"


def load(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """A picture file as float32 [3, H, W]. Raises PictureError."""
    return preprocess(decode(read(path), path, min_side=preprocessing.min_side), preprocessing)


def encoded(
    encoder: Encoder, paths: Sequence[Path], skipped: list[Skipped], kept: Kept | None = None
) -> Iterator[tuple[list[Path], Pictures]]:
    """The pictures that can be read, encoded, in order, in batches of at most PICTURES_AT_ONCE.

    The others are added to `skipped` as they are met. What is `kept` is not read again; what is not, is kept then.
    """

    def fetch(path: Path) -> bytes | npt.NDArray[np.float32] | Skipped:
        """The features of a picture, or its pixels [3, H, W], or why there are neither."""
        name = None if kept is None else kept.name(encoder, path)
        if kept is not None and name is not None:
            content = kept.cache.get(name)
            if content is not None and len(content) == encoder.features_bytes:
                return content
        try:
            return load(path, encoder.preprocessing)
        except PictureError as error:
            return Skipped(path, error.reason)

    with workers(PICTURES_AT_ONCE) as threads:
        fetched = zip(paths, ahead(threads, fetch, paths, 2 * PICTURES_AT_ONCE), strict=True)
        while batch := list(islice(fetched, PICTURES_AT_ONCE)):
            skipped += [item for _, item in batch if isinstance(item, Skipped)]
            pixels = {path: item for path, item in batch if isinstance(item, np.ndarray)}
            stored = {path: item for path, item in batch if isinstance(item, bytes)}
            fresh = encoder.encode_images(np.stack(list(pixels.values()))) if pixels else None
            if kept is None:
                if fresh is not None:
                    yield list(pixels), fresh
                continue
            if fresh is not None:
                for path, content in zip(pixels, encoder.pack(fresh), strict=True):
                    stored[path] = content
                    if (name := kept.name(encoder, path)) is not None:
                        kept.cache.put(name, content)
            there = [path for path, _ in batch if path in stored]
            if there:  # all as they are kept, rounded and in one batch: the next search finds the same
                yield there, encoder.unpack([stored[path] for path in there])
