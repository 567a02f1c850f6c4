"""The Python interface: a model, and a library of pictures that it indexes and searches.

    model = Model("demo")
    with Library("photos.index", model) as library:
        library.index(["photos"])
        for hit in library.search("two cats on a couch", min_match=0.5).hits:
            print(hit.match, hit.path)

Two classes over the stages, which do the work: every method here is a line or two, and documents what it adds.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from bridgetower import exporting, importing, indexing
from bridgetower.directory import made_by, require_ours
from bridgetower.encoder import TorchEncoder, fingerprint_of
from bridgetower.exporting import Exported
from bridgetower.fill import Filled, fill_images, fill_library
from bridgetower.importing import ImportReport
from bridgetower.indexing import IndexReport, Progress
from bridgetower.local_engine import LocalEngine
from bridgetower.matching import Results, match, rerank
from bridgetower.moves import Moves
from bridgetower.pictures import PICTURES_AT_ONCE, load
from bridgetower.protocol import ImageEngine, Judge, Vectors
from bridgetower.records import EVERYTHING, Filter, Fingerprint, Head, PairScore
from bridgetower.runtime import choose_runtime, precision_for
from bridgetower.scan import Rules
from bridgetower.search import Found, SearchRequest, search
from bridgetower.store import Store, Summary
from bridgetower.upkeep import Forgotten, Pruned, forget, prune
from bridgetower.verify import Finding, Repaired, repair, verify
from bridgetower.weights import resolve
from bridgetower.writer import Writer

AnyPath = str | os.PathLike[str]


class Model:
    """A checkpoint, and what it runs on. It is found at once; its weights are read when they are first needed."""

    def __init__(
        self,
        name: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        preprocessing: str | None = None,
        fetch: bool = True,
        progress: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Find the model: a repository of the Hugging Face Hub (fetched if need be), a folder, or "demo".

        Without `fetch`, for a name that no person gave, it must be on this machine; see `bridgetower.weights.resolve`.

        `device` is auto, cpu, cuda or mps; `precision` auto, fp32, bf16 or int8; `preprocessing` "hf", as the
        weights are served everywhere, "plain", as they were trained, or None for that of the checkpoint. While it is
        fetched, `progress` shows bars on stderr; `say` gets a line about what goes on, then and when the weights are
        prepared. Raises ModelError, and UsageError for what this machine cannot do.
        """
        self.runtime = choose_runtime(device, precision)  # first: it costs nothing, fetching may
        self._device, self._precision = device, precision
        checkpoint = resolve(name, fetch=fetch, progress=progress, say=say)
        self._say = say
        self.checkpoint = checkpoint if preprocessing is None else checkpoint.with_preprocessing(preprocessing)

    @property
    def heads(self) -> frozenset[Head]:
        """Of ITC (index, search), ITM (verify, match) and MLM (fill), those that the checkpoint has."""
        return self.checkpoint.heads

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes its vectors comparable. Raises ModelError without an ITC head."""
        return fingerprint_of(self.checkpoint, self.runtime.precision)

    @cached_property
    def encoder(self) -> TorchEncoder:
        """The network with its weights. Raises ModelError."""
        return TorchEncoder(self.checkpoint, self.runtime, say=self._say)

    @property
    def judge(self) -> Judge:
        """The network as it verifies and fills. Raises ModelError."""
        return self.encoder

    @property
    def engine(self) -> ImageEngine:
        """What adds to an index."""
        return LocalEngine(self.checkpoint.preprocessing, lambda: self.encoder, self.runtime.batch_size)

    def for_index(self, made_by: Fingerprint) -> "Model":
        """The model that adds to an index made by `made_by`: in int8 where the index is and nobody asked for another.

        Raises UsageError where int8 is not possible.
        """
        precision = precision_for(made_by.precision_family, self._precision)
        if precision == self._precision:
            return self
        other = copy(self)
        other.runtime = choose_runtime(self._device, precision)
        other.__dict__.pop("encoder", None)
        return other

    def match(self, images: Iterable[AnyPath], texts: Sequence[str]) -> list[PairScore]:
        """Score every picture with every text, by every head that there is; see `bridgetower.matching.match`."""
        return list(match(self.encoder, _paths(images), texts))

    def rerank(
        self, text: str, images: Iterable[AnyPath], *, top: int | None = None, min_match: float | None = None
    ) -> Results:
        """Order pictures from anywhere by how probably `text` is true of them; see `bridgetower.matching.rerank`."""
        return rerank(self.encoder, text, _paths(images), top=top, min_match=min_match)

    def fill(self, text: str, images: Iterable[AnyPath], *, top: int = 5) -> Filled:
        """Words for each `<mask>` of `text`, read out of these pictures; see `bridgetower.fill.fill_images`."""
        return fill_images(self.encoder, text, _paths(images), top=top)

    def embed_images(self, images: Iterable[AnyPath]) -> Vectors:
        """ITC vectors of pictures, float32 [B, E], unit length. Raises PictureError at the first unreadable one."""
        found = [np.zeros((0, self.fingerprint.dim), np.float32)]
        paths = _paths(images)
        for start in range(0, len(paths), PICTURES_AT_ONCE):
            batch = [load(path, self.checkpoint.preprocessing) for path in paths[start : start + PICTURES_AT_ONCE]]
            found.append(self.encoder.embed_images(np.stack(batch)))
        return np.concatenate(found)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """ITC vectors of texts, float32 [Q, E], unit length. Raises UsageError on an empty one."""
        return self.encoder.embed_texts(texts) if texts else np.zeros((0, self.fingerprint.dim), np.float32)


class Library:
    """An index on disk and the model that made it: pictures to search.

    Searching sees the index as it was at the first search, or after the last `index` of this object; what another
    process adds meanwhile is seen by a new `Library`. An object belongs to the thread that made it.
    """

    def __init__(self, directory: AnyPath, model: Model | None = None, *, features_cache: int = 2 * 1000**3) -> None:
        """Name the index, which need not exist yet; `model` is needed then. Without one, the index says its own.

        `features_cache` is the disk space in bytes, below the index, for what the model saw in pictures, so that the
        next search need not look again; 0 for none.

        Raises ModelError where the model of the index is not on this machine, as nothing is fetched because an index
        names it; StoreError where there is no index to say it.
        """
        self.directory = Path(directory).expanduser().absolute()
        self.features_cache = features_cache
        self._store: Store | None = None
        if model is None:
            with Store.open(self.directory) as store:
                made_by = store.fingerprint
            require_ours(self.directory, made_by)
            model = Model(made_by.model, preprocessing=made_by.preprocessing, fetch=False)
        self.model = model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index. May be called twice; the next search opens it again."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def index(
        self,
        paths: Iterable[AnyPath],
        *,
        exclude: Sequence[str] = (),
        hidden: bool = False,
        follow_symlinks: bool = False,
        retry: bool = False,
        max_pixels: int | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> IndexReport:
        """Bring the index up to date with these folders and files, creating it if need be; see `bridgetower.indexing`.

        `exclude` holds patterns as in .gitignore, anchored at each folder; what they, `hidden` and `follow_symlinks`
        let in is as described in `bridgetower.scan`, and holds for this run. With `retry`, files that were skipped are
        tried again. Pictures that cannot be read, or have more than `max_pixels`, are named in the report. They are
        decoded in processes of their own. Raises InputError, UsageError, ModelError, StoreError, ProcessError.
        """
        begun = made_by(self.directory)
        if begun is not None:
            require_ours(self.directory, begun)
        model = self.model if begun is None else self.model.for_index(begun)
        self.close()
        with Writer.open(self.directory, model.fingerprint) as writer:
            return indexing.index(
                _paths(paths),
                writer,
                lambda: model.engine,
                Rules(_patterns(exclude), hidden, follow_symlinks),
                retry=retry,
                max_pixels=max_pixels,
                on_progress=on_progress,
            )

    def search(
        self,
        text: str | None = None,
        *,
        image: AnyPath | None = None,
        vector: Vectors | None = None,
        top: int = 10,
        depth: int | None = None,
        min_match: float | None = None,
        budget: float = math.inf,
        filter: Filter = EVERYTHING,
    ) -> Found:
        """Find pictures for a text, a picture, or both; see `bridgetower.search.search`.

        A unit `vector` [E] recalls by itself. It alone serves an index of foreign vectors, of which the model is then
        no more than the judge of a text.
        `depth` is how many candidates are verified: by default 20 on a CPU and 100 on a GPU; `budget` for how many
        seconds.
        """
        store = self._checked() if vector is None else self._opened()
        request = SearchRequest(
            text, None if image is None else Path(image), vector, top, depth, min_match, budget, filter
        )
        encoder = self.model.encoder if vector is None else None
        judge = self.model.judge if request.verifies else None
        return search(store, request, encoder, judge, cache=store.feature_cache(self.features_cache))

    def fill(self, text: str, *, top: int = 5, depth: int | None = None) -> Filled:
        """Words for each `<mask>` of `text`, from the `depth` pictures that it fits best; see `bridgetower.fill`."""
        store = self._checked()
        cache = store.feature_cache(self.features_cache)
        return fill_library(store, self.model.encoder, self.model.judge, text, top=top, depth=depth, cache=cache)

    def export(self, folder: AnyPath) -> Exported:
        """Write the index into a new folder, as npy and lines of JSON; see `bridgetower.exporting.export`."""
        return exporting.export(self._opened(), Path(folder))

    def import_folder(self, folder: AnyPath, *, moves: Moves | None = None) -> ImportReport:
        """Add what `export` wrote, here or elsewhere; see `bridgetower.importing.import_folder`."""
        self.close()
        return importing.import_folder(Path(folder), self.directory, moves=moves)

    def import_vectors(
        self,
        vectors: AnyPath,
        paths: AnyPath,
        name: str,
        *,
        queries: AnyPath | None = None,
        moves: Moves | None = None,
    ) -> ImportReport:
        """Add vectors that another model made; see `bridgetower.importing.import_vectors`."""
        self.close()
        texts = None if queries is None else Path(queries)
        return importing.import_vectors(Path(vectors), Path(paths), name, self.directory, queries=texts, moves=moves)

    def verify(self) -> list[Finding]:
        """All that is wrong with the index; see `bridgetower.verify`. Changes nothing. Raises StoreError."""
        return list(verify(self.directory))

    def repair(self) -> Repaired:
        """Mend what `verify` finds; `index` then takes again what was lost. See `bridgetower.verify`."""
        self.close()
        return repair(self.directory)

    def prune(self) -> Pruned:
        """Drop files that are gone, remove images without a file, give the space back; see `bridgetower.upkeep`."""
        self.close()
        with Writer.resume(self.directory) as writer:
            return prune(writer)

    def forget(self, paths: Iterable[AnyPath]) -> list[Forgotten]:
        """Take folders and files out of the index. Raises InputError for one that it does not know."""
        self.close()
        with Writer.resume(self.directory) as writer:
            return forget(writer, _paths(paths))

    def summary(self) -> Summary:
        """What the index holds. Raises StoreError."""
        return self._opened().summary()

    def __len__(self) -> int:
        """Pictures that can be found. Raises StoreError."""
        return len(self._opened())

    def __bool__(self) -> bool:
        return True  # also where it is empty, or not there yet

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store.open(self.directory)
        return self._store

    def _checked(self) -> Store:
        store = self._opened()
        store.check(self.model.fingerprint)
        return store


def _patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise TypeError(f"a list of patterns is wanted, not the pattern {patterns!r}")
    return tuple(patterns)


def _paths(paths: Iterable[AnyPath]) -> list[Path]:
    if isinstance(paths, str | bytes | os.PathLike):
        raise TypeError(f"a list of paths is wanted, not the path {os.fspath(paths)!r}")
    return [Path(path) for path in paths]
