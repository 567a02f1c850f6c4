"""Encode picture files; threads read and decode them ahead of the encoder.

`Keeper` keeps the features of the newest pictures of an index for later searches.
"""

import hashlib
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Union, cast

import numpy as np
import numpy.typing as npt

from bridgetower.encoders.protocol import ImageEngine, Judge, Pictures
from bridgetower.errors import ModelError, PictureError, ResourceError, UsageError
from bridgetower.files.content import read
from bridgetower.files.regular_files import is_in_cloud
from bridgetower.index.catalog.rows import Keeping
from bridgetower.index.feature_cache import FeatureCache, KeptFeatures
from bridgetower.index.writer import IndexWriter
from bridgetower.inputs import AnyPath, path
from bridgetower.pictures.preprocess import FileSource, PictureSource, Preprocessing, preprocess
from bridgetower.prefetch import ahead, workers
from bridgetower.records import LARGEST, Candidate, File, Head, OnProgress, Say, Skipped, require_heads

if TYPE_CHECKING:  # Pillow, which a search that decodes nothing does without
    from bridgetower.pictures.decode import AnyImage

# A path; or, in memory, a PIL image, an array uint8 [H, W, 3] (RGB) or [H, W] (grey), or the bytes of a file; or an
# object that makes pixels, as `GuardedDecoder` does.
AnyPicture = Union[AnyPath, bytes, bytearray, memoryview, npt.NDArray[np.uint8], "AnyImage", PictureSource]

# Pictures in a batch: more gain nothing on a CPU, and progress is reported after each batch. With features from the
# cache a batch takes more of them up to these bytes: of a narrow network, for which a batch is mostly overhead.
PICTURES_AT_ONCE = 4
_FEATURES_AT_ONCE = 1 << 20  # bytes, packed


def candidates_of(pictures: "Iterable[AnyPicture]") -> list[Candidate]:
    """Return a candidate for each picture; in memory, its path is `<picture N>`, by its place, or `<<picture N>>` if a
    file of the list is called so. Raises UsageError for a single picture."""
    if isinstance(pictures, str | bytes | os.PathLike | np.ndarray) or not isinstance(pictures, Iterable):
        raise UsageError(f"a list of pictures is wanted, not a single {type(pictures).__name__}")
    pictures = list(pictures)
    files = {path(picture) for picture in pictures if isinstance(picture, str | os.PathLike)}
    return [candidate_of(picture, place, files) for place, picture in enumerate(pictures)]


def candidate_of(picture: "AnyPicture", place: int = 0, files: Container[Path] = ()) -> Candidate:
    """Return a candidate for a picture; in memory, its path is `<picture N>`, in more brackets if `files` has that, or
    its own name. Raises UsageError for other types."""
    if isinstance(picture, str | os.PathLike):
        return Candidate(path(picture))
    if isinstance(picture, PictureSource):
        return Candidate(picture.name, picture=picture)
    name = Path(f"<picture {place}>")
    while name in files:
        name = Path(f"<{name}>")
    if isinstance(picture, bytes | bytearray | memoryview):
        return Candidate(name, picture=bytes(picture))
    from bridgetower.pictures.decode import require_image

    require_image(picture, name)
    return Candidate(name, picture=picture)


def load(candidate: Candidate, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return the pixels of a picture, float32 [3, H, W]. Raises PictureError, or ResourceError if memory runs out."""
    with _short_of_memory():
        return _load(candidate, preprocessing)


def load_hashed(candidate: Candidate, preprocessing: Preprocessing) -> tuple[npt.NDArray[np.float32], bytes | None]:
    """Return the pixels of a picture as `load`, and the SHA-256 of its file; None if it comes from no file."""
    with _short_of_memory():
        if candidate.picture is None:
            candidate = replace(candidate, picture=read(candidate.path))
        pixels = _load(candidate, preprocessing)
    if isinstance(candidate.picture, bytes):
        return pixels, hashlib.sha256(candidate.picture).digest()
    return pixels, candidate.picture.content_hash() if isinstance(candidate.picture, FileSource) else None


@contextmanager
def _short_of_memory() -> Iterator[None]:
    """Raise ResourceError for a PictureError that is none of the picture."""
    try:
        yield
    except PictureError as error:
        if isinstance(error.__cause__, MemoryError):
            raise ResourceError(str(error)) from error
        raise


def _load(candidate: Candidate, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    from bridgetower.pictures.decode import decode, in_memory

    picture, name = candidate.picture, candidate.path
    if isinstance(picture, PictureSource):
        return picture.pixels(preprocessing)
    if picture is None or isinstance(picture, bytes):
        data = read(name) if picture is None else picture
        decoded = decode(data, name, min_side=preprocessing.min_side, convert=False)
    else:
        decoded = in_memory(cast("AnyImage | npt.NDArray[np.uint8]", picture), name)
    return preprocess(decoded, preprocessing)


def encoded(
    judge: Judge, candidates: Sequence[Candidate], skipped: list[Skipped], cache: FeatureCache | None = None
) -> Iterator[tuple[list[Candidate], Pictures]]:
    """Encode the pictures that can be read, in order, in batches.

    A batch has PICTURES_AT_ONCE, or more if the cache has small features of all of them. The pictures that cannot be
    read are added to `skipped`. For candidates with a known content, features are read from the `cache`, and new ones
    stored in it. Raises ResourceError if memory runs out.
    """

    made_by = "" if cache is None else judge.features_id

    def cached(candidate: Candidate) -> "_Fetched | None":
        """Return a picture with features from the cache, if it has them."""
        if cache is not None and candidate.content is not None:
            packed = cache.get(cache_name(made_by, candidate.content))
            if packed is not None:
                with suppress(ValueError):
                    return judge.unpack(packed), len(packed)
        return None

    def fetch(candidate: Candidate) -> "_Fetched":
        """Return a picture with features from the cache, or its pixels [3, H, W], or why there are neither."""
        if (found := cached(candidate)) is not None:
            return found
        try:
            return load(candidate, judge.preprocessing), _FEATURES_AT_ONCE
        except PictureError as error:
            return Skipped(candidate.path, error.reason), _FEATURES_AT_ONCE

    def fetched(threads: ThreadPoolExecutor) -> Iterator["_Fetched"]:
        """Fetch in threads, but small features, which take less time than the exchange of threads."""
        place = 0
        while place < len(candidates) and (found := cached(candidates[place])) is not None:
            yield found
            place += 1
            if found[1] >= _FEATURES_AT_ONCE // PICTURES_AT_ONCE:
                break
        yield from ahead(threads, fetch, candidates[place:], 2 * PICTURES_AT_ONCE)

    def store(fresh: Sequence[Candidate], pictures: Pictures) -> None:
        if cache is None or cache.is_full or all(candidate.content is None for candidate in fresh):
            return
        for candidate, packed in zip(fresh, judge.pack(pictures), strict=True):
            if candidate.content is not None:
                cache.put(cache_name(made_by, candidate.content), packed)

    with workers(PICTURES_AT_ONCE) as threads:
        for batch in _batches(zip(candidates, fetched(threads), strict=True)):
            skipped += [item for _, item in batch if isinstance(item, Skipped)]
            readable = [(candidate, item) for candidate, item in batch if not isinstance(item, Skipped)]
            parts: list[Pictures] = []  # in this order; neighbours without features are encoded together
            for _, neighbours in groupby(readable, key=lambda one: isinstance(one[1], Pictures)):
                some = list(neighbours)
                parts += [item for _, item in some if isinstance(item, Pictures)]
                if pixels := [item for _, item in some if isinstance(item, np.ndarray)]:
                    parts.append(judge.encode_images(np.stack(pixels)))
                    store([candidate for candidate, _ in some], parts[-1])
            if parts:
                yield [candidate for candidate, _ in readable], parts[0] if len(parts) == 1 else judge.join(parts)


# The features of a picture, its pixels [3, H, W], or the reason why there are neither; and what it takes of a batch.
_Item = Pictures | npt.NDArray[np.float32] | Skipped
_Fetched = tuple[_Item, int]


def _batches(fetched: Iterable[tuple[Candidate, _Fetched]]) -> Iterator[list[tuple[Candidate, _Item]]]:
    """End a batch with the first item that makes it PICTURES_AT_ONCE and _FEATURES_AT_ONCE, or more."""
    batch: list[tuple[Candidate, _Item]] = []
    size = 0
    for candidate, (item, item_size) in fetched:
        batch.append((candidate, item))
        size += item_size
        if len(batch) >= PICTURES_AT_ONCE and size >= _FEATURES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def cache_name(features_id: str, content: bytes) -> str:
    """Return the name of a picture's features in the cache."""
    return f"{content.hex()}-{features_id}"


class KeepingModel(Protocol):
    """The part of a model that keeping features needs."""

    @property
    def heads(self) -> frozenset[Head]: ...
    @property
    def judge(self) -> Judge: ...
    @property
    def has_one_pass(self) -> bool: ...
    def engine_with_features(self, wants: Callable[[int], bool]) -> ImageEngine: ...


class Keeper:
    """Keeps features of the newest pictures of an index, as many as fit under its capacity.

    During a run it takes those that come with the vectors of new pictures. Then `fill` computes those that are missing.
    A run that is broken off keeps what it has.
    """

    def __init__(self, writer: IndexWriter, keeping: Keeping, find_model: Callable[[], KeepingModel]) -> None:
        self._writer, self._keeping, self._find_model = writer, keeping, find_model
        self._kept: KeptFeatures | None = None  # of the model, once it was found
        self._model: KeepingModel | None = None
        self._wanted = bytearray()  # whether features of the contents of the engine are wanted, in order
        self._held: dict[bytes, bytes] = {}  # features by hash, until the index has the images
        self._mtime_ns: int | None = None  # of the oldest file that may be among the newest pictures

    def accept_model(self) -> KeepingModel:
        """Find the model, once; then store what is to be kept. Raises ModelError for a judge that verifies nothing."""
        if self._model is None:
            model = self._find_model()
            require_heads(model.heads, Head.ITM, way_out="; or keep no features: --keep-features 0")
            self._model = model
            self._store_keeping(self._keeping)
        return self._model

    # During a run

    def engine(self) -> ImageEngine:
        """Return the engine of the model, which also returns features if one pass gives both."""
        return self.accept_model().engine_with_features(lambda place: bool(self._wanted[place]))

    def expect(self, file: File) -> None:
        """Decide, by its mtime, whether the features of the next content of the engine are wanted.

        Its date is known only later. Where more new pictures come than fit, most features are so never written.
        """
        under, fits = self._keeping.place, None if self._kept is None else self._kept.number_that_fits()
        if self._mtime_ns is None and fits is not None:
            oldest = self._writer.catalog.newest_met(fits, under)
            self._mtime_ns = -LARGEST if oldest is None else oldest
        is_under = under is None or file.path.is_relative_to(under)
        self._wanted.append(is_under and (self._mtime_ns is None or file.mtime_ns >= self._mtime_ns))

    def hold(self, content: bytes, packed: bytes) -> None:
        """Take the features of a picture that the next commit adds to the index."""
        self._held[content] = packed

    def store(self) -> None:
        """Keep what is held, after the commit."""
        if self._held and self._kept is None:
            self._open(self.accept_model())
        for content, packed in self._held.items():
            date = self._date_of(content)
            if date is not None and self._kept is not None:
                self._kept.put(content, date, packed)
        self._held = {}

    # After the run

    def fill(self, *, say: Say, on_progress: OnProgress) -> None:
        """Compute the features that are missing, newest first. A model that was not needed yet is found only if some
        are missing; if it cannot be found, `say` gets a line.

        `on_progress(done, total)` counts pictures. Raises as `encoded` does, and ModelError for a judge that verifies
        nothing.
        """
        was_needed, kept = self._model is not None, self._kept
        if not was_needed and self._keeping.made_by is not None:
            kept = self._kept_of(self._keeping.made_by)
        if kept is None or self._are_missing(kept):
            try:
                model = self.accept_model()
                kept = self._kept or self._open(model)
            except ModelError as error:
                if was_needed:
                    raise
                say(f"note: the features of some pictures are missing: {error}")
                return
            if not model.has_one_pass and self._are_missing(kept):
                say(
                    "note: features do not come with the vectors of this model: to keep them, pictures are read once "
                    f"more, and go through the vision tower of {model.judge.name}, too"
                )
            self._compute(model.judge, kept, on_progress)
        if not kept and kept.too_large is not None:
            say(
                f"note: no features are kept from now on: those of a picture take {kept.too_large} bytes, more than "
                f"the {self._keeping.capacity} bytes that were given"
            )
            self._writer.keep(None)
            return
        cache = FeatureCache(self._directory, self._keeping.capacity)
        cache.make_room()
        if not kept and self._writer.catalog.count_live() and (why := cache.refusal) is not None:
            say(f"note: {self._directory}: no features are kept: {why}")

    def _compute(self, judge: Judge, kept: KeptFeatures, on_progress: OnProgress) -> None:
        total = self._writer.catalog.count_live()
        missing, fits = self._missing(kept), True
        while fits and (some := list(islice(missing, PICTURES_AT_ONCE))):
            candidates = [candidate for candidate, _ in some]
            for there, pictures in encoded(judge, candidates, []):
                packed = dict(zip((candidate.content for candidate in there), judge.pack(pictures), strict=True))
                for candidate, date in some:
                    if candidate.content is not None and candidate.content in packed:
                        fits = fits and kept.put(candidate.content, date, packed[candidate.content])
            on_progress(len(kept), min(total, kept.number_that_fits() or total))

    def _are_missing(self, kept: KeptFeatures) -> bool:
        return next(self._missing(kept), None) is not None

    def _missing(self, kept: KeptFeatures) -> Iterator[tuple[Candidate, int]]:
        """Yield the pictures whose features are missing, newest first, with their dates, while there is room for them.

        Pictures above the usual limit of pixels are left out: only a run that is given a higher one can read them.
        """
        catalog = self._writer.catalog
        for content, date in catalog.newest(self._keeping.place):
            if content in kept:
                continue
            if not kept.has_room(date):
                return
            from bridgetower.pictures.decode import MAX_PIXELS

            entry = catalog.entry(content)
            file = next(filter(_is_readable, entry.files), None)
            if file is not None and entry.width * entry.height <= MAX_PIXELS:
                yield Candidate(file.path, content=content), date

    def _open(self, model: KeepingModel) -> KeptFeatures:
        made_by = model.judge.features_id
        self._store_keeping(self._keeping._replace(made_by=made_by))
        self._kept = self._kept_of(made_by)
        return self._kept

    def _store_keeping(self, keeping: Keeping) -> None:
        self._keeping = keeping
        if keeping != self._writer.catalog.keeping():
            self._writer.keep(keeping)

    def _kept_of(self, made_by: str) -> KeptFeatures:
        kept = KeptFeatures(self._directory, self._keeping.capacity, made_by, self._date_of)
        kept.adopt_cached()
        return kept

    @property
    def _directory(self) -> Path:
        return self._writer.features().directory

    def _date_of(self, content: bytes) -> int | None:
        return self._writer.catalog.date_of(content, self._keeping.place)


def _is_readable(file: File) -> bool:
    """Return whether a file is as it was indexed, and its content is on this machine."""
    with suppress(OSError):
        status = file.path.stat()
        return not is_in_cloud(status) and file.is_unchanged(File.of(file.path, status))
    return False
