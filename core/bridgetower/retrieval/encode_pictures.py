"""Encode picture files; threads read and decode them ahead of the encoder."""

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import Judge, Pictures
from bridgetower.errors import PictureError, ResourceError, UsageError
from bridgetower.files.content import read
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.inputs import AnyPath, path
from bridgetower.pictures.decode import AnyImage, decode, in_memory, require_image
from bridgetower.pictures.preprocess import Preprocessing, preprocess
from bridgetower.prefetch import ahead, workers
from bridgetower.records import Candidate, Skipped

# Pictures in a batch: more gain nothing on a CPU, and progress is reported after each batch.
PICTURES_AT_ONCE = 4


# A path; or, in memory, a PIL image, an array uint8 [H, W, 3] (RGB) or [H, W] (grey), or the bytes of a file.
AnyPicture = AnyPath | bytes | bytearray | memoryview | npt.NDArray[np.uint8] | AnyImage


def candidates_of(pictures: Iterable[AnyPicture]) -> list[Candidate]:
    """Return a candidate for each picture; in memory, its path is `<picture N>`, by its place, or `<<picture N>>` if a
    file of the list is called so. Raises UsageError for a single picture."""
    if isinstance(pictures, str | bytes | os.PathLike | np.ndarray) or not isinstance(pictures, Iterable):
        raise UsageError(f"a list of pictures is wanted, not a single {type(pictures).__name__}")
    pictures = list(pictures)
    files = {path(picture) for picture in pictures if isinstance(picture, str | os.PathLike)}
    return [candidate_of(picture, place, files) for place, picture in enumerate(pictures)]


def candidate_of(picture: AnyPicture, place: int = 0, files: Container[Path] = ()) -> Candidate:
    """Return a candidate for a picture; in memory, its path is `<picture N>`, in more brackets if `files` has that.
    Raises UsageError for other types."""
    if isinstance(picture, str | os.PathLike):
        return Candidate(path(picture))
    name = Path(f"<picture {place}>")
    while name in files:
        name = Path(f"<{name}>")
    if isinstance(picture, bytes | bytearray | memoryview):
        return Candidate(name, picture=bytes(picture))
    require_image(picture, name)
    return Candidate(name, picture=picture)


def load(candidate: Candidate, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return the pixels of a picture, float32 [3, H, W]. Raises PictureError, or ResourceError if memory runs out."""
    try:
        return _load(candidate, preprocessing)
    except PictureError as error:
        if isinstance(error.__cause__, MemoryError):
            raise ResourceError(str(error)) from error
        raise


def _load(candidate: Candidate, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    picture, name = candidate.picture, candidate.path
    if picture is None or isinstance(picture, bytes):
        data = read(name) if picture is None else picture
        decoded = decode(data, name, min_side=preprocessing.min_side, convert=False)
    else:
        decoded = in_memory(cast("AnyImage | npt.NDArray[np.uint8]", picture), name)
    return preprocess(decoded, preprocessing)


def encoded(
    judge: Judge, candidates: Sequence[Candidate], skipped: list[Skipped], cache: FeatureCache | None = None
) -> Iterator[tuple[list[Candidate], Pictures]]:
    """Encode the pictures that can be read, in order, in batches of at most PICTURES_AT_ONCE.

    The others are added to `skipped`. For candidates with a known content, features are read from the `cache`, and new
    ones stored in it. Raises ResourceError if memory runs out.
    """

    def fetch(candidate: Candidate) -> Pictures | npt.NDArray[np.float32] | Skipped:
        """Return a picture with features from the cache, or its pixels [3, H, W], or why there are neither."""
        if cache is not None and candidate.content is not None:
            packed = cache.get(cache_name(judge, candidate.content))
            if packed is not None:
                with suppress(ValueError):
                    return judge.unpack(packed)
        try:
            return load(candidate, judge.preprocessing)
        except PictureError as error:
            return Skipped(candidate.path, error.reason)

    def store(fresh: Sequence[Candidate], pictures: Pictures) -> None:
        if cache is None or cache.is_full or all(candidate.content is None for candidate in fresh):
            return
        for candidate, packed in zip(fresh, judge.pack(pictures), strict=True):
            if candidate.content is not None:
                cache.put(cache_name(judge, candidate.content), packed)

    with workers(PICTURES_AT_ONCE) as threads:
        fetched = zip(candidates, ahead(threads, fetch, candidates, 2 * PICTURES_AT_ONCE), strict=True)
        while batch := list(islice(fetched, PICTURES_AT_ONCE)):
            skipped += [item for _, item in batch if isinstance(item, Skipped)]
            there = [candidate for candidate, item in batch if not isinstance(item, Skipped)]
            pixels = [item for _, item in batch if isinstance(item, np.ndarray)]
            if pixels and len(pixels) == len(there):
                fresh = judge.encode_images(np.stack(pixels))
                store(there, fresh)
                yield there, fresh
            elif there:  # one batch in this order, whichever features are from the cache: scores may depend on it
                parts: list[Pictures] = []
                for candidate, item in batch:
                    if isinstance(item, np.ndarray):
                        parts.append(judge.encode_images(item[None]))
                        store([candidate], parts[-1])
                    elif isinstance(item, Pictures):
                        parts.append(item)
                yield there, judge.join(parts)


def cache_name(judge: Judge, content: bytes) -> str:
    """Return the name of a picture's features in the cache."""
    return f"{content.hex()}-{judge.features_id}"
