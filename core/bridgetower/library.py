"""The Python interface to an index: add pictures, search them, fill texts from them, and maintain the index.

    with Library("photos.index", "demo") as library:
        library.index(["photos"])
        for hit in library.search("two cats on a couch", min_match=0.5):
            print(hit.match, hit.path)

Every command of `bt` on an index calls this class. The stages do the work; they are imported when they are needed.
"""

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from bridgetower import inputs
from bridgetower.errors import UsageError
from bridgetower.index.reader_pool import ReaderPool
from bridgetower.index.roots import known_place
from bridgetower.index.stores.named import NamedStore
from bridgetower.inputs import AnyPath, listener, own_folder
from bridgetower.models.model import Model as Model
from bridgetower.models.model import engine_choice
from bridgetower.models.model_choice import ModelChoice, ModelOptions, Notes
from bridgetower.moments import Moment
from bridgetower.records import LARGEST, LOCAL, EngineChoice, Fingerprint, Hit, OnHits, OnProgress, Say, Skipped, quiet

if TYPE_CHECKING:
    from bridgetower.encoders.protocol import Vectors
    from bridgetower.index.catalog.rows import Folder
    from bridgetower.index.check import Finding, Repaired
    from bridgetower.index.maintenance import ForgetReport, Move, Pruned
    from bridgetower.index.reader import Summary
    from bridgetower.index.vectors.protocol import RecallStore
    from bridgetower.index.writer import IndexWriter
    from bridgetower.queries import Queries
    from bridgetower.retrieval.duplicates.result import Duplicates
    from bridgetower.retrieval.encode_pictures import AnyPicture
    from bridgetower.retrieval.indexing import IndexReport, Progress
    from bridgetower.retrieval.results import Filled, Found
    from bridgetower.retrieval.search.request import SearchRequest
    from bridgetower.retrieval.updating import Update
    from bridgetower.transfer.export import Exported
    from bridgetower.transfer.import_index import ImportReport
    from bridgetower.transfer.path_map import PathMap


class Library:
    """An index on disk, and the model that made it.

    A search sees the index as it was at the first search, or after the last change by this object; it sees changes by
    other processes after `refresh`. Several threads may use one object: each call has its own reader, which sees one
    state of the index to the end; all share one model; one thread at a time changes the index.
    """

    def __init__(
        self,
        directory: AnyPath,
        model: Model | AnyPath | None = None,
        *,
        device: str = "auto",
        precision: str | None = None,
        preprocessing: str | None = None,
        default_model: AnyPath | None = None,
        default_precision: str = "auto",
        features_cache: int | None = None,
        features_dir: AnyPath | None = None,
        store: "RecallStore | None" = None,
        store_password: "str | Callable[[], str | None] | None" = None,
        engine: str | EngineChoice = LOCAL,
        progress: bool = False,
        say: Say = quiet,
    ) -> None:
        """Name the index, which need not exist yet. Nothing is read or fetched now. "~" is a home in all three folders.

        An index keeps the name of the model that made it. That model must be on this machine: nothing is fetched
        because an index names it. `model` gives its place now, as a name or a `Model`. A new index uses `model`, else
        `default_model`, else DEFAULT_MODEL. An index that was made with another `precision` or `preprocessing` refuses
        these two, but overrides `default_precision`. `device` is auto, cpu, cuda or mps. A `Model` has all these, so
        none of them is given beside it.

        `features_cache` is the disk space in bytes for features of pictures, so that the next search need not compute
        them: 0 for none, None for that which the index keeps, else 2 GB. `features_dir` is a place for them outside
        the folder of the index. `store` recalls, by default what the index names: FAISS, or a database, for which
        `store_password` is, or a function that finds it when it is needed. `engine` is where `index` makes vectors:
        "local", "ray" or "ray://HOST:PORT", or an EngineChoice. While a model is fetched, `progress` shows bars on
        stderr; `say` gets notes for people. Raises UsageError.
        """
        self.directory = Path(os.path.abspath(own_folder(directory)))
        self._features_cache = inputs.whole_or_none("features_cache", features_cache)
        self._features_dir = None if features_dir is None else Path(os.path.realpath(own_folder(features_dir)))
        self._named_store = None
        if store is None:
            self._named_store = store = NamedStore(store_password)
        else:
            from bridgetower.index.vectors.protocol import RecallStore

            inputs.require_part(store, RecallStore)
        self._recall_store, self._say, self._notes = store, listener(say), Notes(say)
        given = model if model is None or isinstance(model, Model) else inputs.model_name(model)
        default = None if default_model is None else inputs.model_name(default_model)
        how = device, precision, default_precision, preprocessing, progress, engine_choice(engine)
        self._options = ModelOptions(given, default, *how)
        self._models = ModelChoice(self.directory, self._options, self._notes)
        self._readers = ReaderPool(self.directory, store)

    def __repr__(self) -> str:
        return f"<Library {str(self.directory)!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index. May be called twice; the next search opens it again."""
        self.refresh()

    def refresh(self) -> None:
        """Let later calls see the index as it is when they begin."""
        self._readers.refresh()

    # Models

    @property
    def model(self) -> Model:
        """The model of the index, or the model for a new one. Raises ModelError, StoreError."""
        made = self.fingerprint
        return self._models.for_new() if made is None else self._models.that_made(made)

    def require_model(self) -> None:
        """Raise the error that every search would meet, where no weights need be loaded and none fetched to know it.

        It is a UsageError for a device or precision that this machine lacks, ModelError, or StoreError.
        """
        self._models.require_usable(self.fingerprint)

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint of the vectors of the index as it is now; None if there are none yet. Raises StoreError."""
        from bridgetower.index.compatibility import made_by

        return made_by(self.directory)

    # Reading

    def _queries(self) -> "Queries":
        from bridgetower.queries import Queries

        return Queries(self._models, self._features_cache, self._features_dir, self._notes)

    def search(
        self,
        text: "str | Sequence[str] | SearchRequest | None" = None,
        *,
        image: "AnyPicture | Sequence[AnyPicture] | None" = None,
        vector: "Vectors | AnyPath | BinaryIO | None" = None,
        under: AnyPath | Iterable[AnyPath] | None = None,
        not_under: AnyPath | Iterable[AnyPath] = (),
        since: Moment | None = None,
        before: Moment | None = None,
        taken: Moment | None = None,
        top: int = 10,
        depth: int | None = None,
        min_match: float | None = None,
        budget: float = math.inf,
        min_similarity: float | None = None,
        exact: bool = False,
        without: str | Sequence[str] = (),
        weights: Sequence[float] | None = None,
        keep_self: bool = False,
        offset: int = 0,
        unique: bool = False,
        on_progress: OnProgress = quiet,
        on_hits: OnHits = quiet,
    ) -> "Found":
        """Find pictures for texts, pictures, or both.

        The arguments are the fields of a `SearchRequest`, which says what each is; one may replace them all. Each
        verified hit has the probability that the text is true of the picture; of a list of texts, the least one.
        `image` is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], the bytes of a file, or a list of these. An
        index of foreign vectors needs a `vector`. `depth` is 20 on a CPU and 100 on a GPU by default.
        `on_progress(done, total)` counts verified pictures, from (0, 0) when the judge is loaded. `on_hits` gets the
        hits as they stand: as recalled; after each verified batch; at last.
        Raises UsageError, ModelError, StoreError; InputError for an unreadable picture or vector, and for a place that
        the index does not know.
        """
        from bridgetower.retrieval.search.request import SearchRequest

        limits = (under, since, before, top, depth, min_match, budget, min_similarity, not_under, taken, exact)
        more = (without, weights, keep_self, offset, unique)
        request = SearchRequest.of(text, image, vector, *limits, *more)  # checked before anything is opened
        with closing(self.pages(request, on_progress=on_progress, on_hits=on_hits)) as pages:
            return next(pages)

    def pages(
        self, request: "SearchRequest", *, on_progress: OnProgress = quiet, on_hits: OnHits = quiet
    ) -> "Generator[Found]":
        """Search, and yield the results in pages of at most `request.top` hits, all of one state of the index.

        The first page is that of `search`. Later ones go on, unverified, until the end of the index or until the
        iterator is closed; one thread at a time uses it. Raises as `search` does, mostly with the first page.
        """
        return self._pages(request, listener(on_progress), listener(on_hits))

    def _pages(self, request: "SearchRequest", on_progress: OnProgress, on_hits: OnHits) -> "Generator[Found]":
        with self._readers.lend() as reader:
            yield from self._queries().pages(reader, request, on_progress, on_hits)

    def encode_ahead(self, texts: Sequence[str]) -> None:
        """Encode the texts of the next searches together, which takes less time than one by one.

        At most TEXTS_AHEAD texts are kept, and no result depends on it. Raises as `search` does.
        """
        texts = inputs.list_of_texts(texts)
        with self._readers.lend() as reader:
            self._queries().encode_ahead(reader, texts)

    def find(self, hash: str) -> Hit | None:
        """Return the picture of the index whose content has this `hash`, without scores; None if no file has it.

        Its `path` is the first of its files that exists. Raises UsageError, StoreError.
        """
        from bridgetower.retrieval.candidates import picture_with

        with self._readers.lend() as reader:
            return picture_with(reader.catalog, inputs.sha256(hash))

    def require_places(self, request: "SearchRequest") -> None:
        """Raise UnknownPlaceError for a place of a request that the index does not know; needs no model."""
        with self._readers.lend() as reader:
            request.filter_in(reader)

    def locate(self, place: AnyPath) -> Path | None:
        """Return a folder or file as the index knows it, by any of its names; None if unknown."""
        with self._readers.lend() as reader:
            return known_place(inputs.path(place), reader.catalog.knows)

    def folders(self, under: AnyPath | None = None, *, most: int | None = None) -> "list[Folder]":
        """Return the folders directly below `under` that hold files of the index, by name; without it, the roots.

        Each comes with the number of files at or below it. `under` is a path as the index has it (see `locate`): no
        file system is asked. An unknown one has no folders. `most` limits their number. Raises UsageError, StoreError.
        """
        from bridgetower.index.catalog.rows import Folder

        most = LARGEST if most is None else inputs.whole("most", most, least=1)
        folder = None if under is None else Path(os.path.abspath(inputs.path(under)))
        with self._readers.lend() as reader:
            catalog = reader.catalog
            if folder is not None:
                return catalog.folders_in(folder, most)
            return [Folder(root, catalog.count_under(root)) for root, _ in islice(catalog.roots(), most)]

    def fill(
        self,
        text: str,
        *,
        top: int = 5,
        depth: int | None = None,
        each: bool = False,
        on_progress: OnProgress = quiet,
    ) -> "Filled":
        """Predict words for each `<mask>` of `text` from the `depth` best pictures, weighted by match.

        With `each`, the `counts` of the result also say how many of these pictures have a word as their own. The
        default of `depth` is that for a search. `on_progress(done, total)` counts pictures. Raises UsageError,
        ModelError, StoreError.
        """
        text, top, depth = inputs.masked(text), inputs.count_of(top), inputs.depth_of(depth, least=1)
        each = inputs.flag("each", each)
        listener(on_progress)
        with self._readers.lend() as reader:
            return self._queries().fill(reader, text, top, depth, each, on_progress)

    def duplicates(
        self,
        *,
        similarity: float | None = None,
        under: AnyPath | Iterable[AnyPath] | None = None,
        not_under: AnyPath | Iterable[AnyPath] = (),
        equal: bool = True,
        similar: bool = True,
        on_progress: OnProgress = quiet,
        on_look: OnProgress = quiet,
    ) -> "Duplicates":
        """Find duplicates: equal files, and similar pictures, which show one view encoded again, scaled or cropped.

        Pictures whose vectors have a cosine of at least `similarity`, by default 0.85, are looked at, and only those
        that show the same view are duplicates. `under` and `not_under` are as for `search`. Nothing is removed; each
        group says what to keep. `on_progress(done, total)` counts vectors that are compared, `on_look(done, total)`
        pictures that are looked at. Raises UsageError, StoreError, ProcessError, ResourceError; InputError for a place
        that the index does not know.
        """
        from bridgetower.retrieval.duplicates.groups import NEAR, DuplicatesRequest, duplicates

        least = NEAR if similarity is None else similarity
        request = DuplicatesRequest(least, under, not_under, equal, similar)
        on_progress, on_look = listener(on_progress), listener(on_look)
        with self._readers.lend() as reader:
            return duplicates(reader, request, on_progress, on_look)

    def summary(self) -> "Summary":
        """Return the counts and the origin of the index. Raises StoreError."""
        with self._readers.lend() as reader:
            return reader.summary()

    def skipped(self) -> list[Skipped]:
        """Return the files that were skipped, each with the reason. Raises StoreError."""
        with self._readers.lend() as reader:
            return list(reader.catalog.skipped())

    def strays(self) -> list[Path]:
        """Return the files in the folder of the index that are not part of it. Raises StoreError."""
        with self._readers.lend() as reader:
            return reader.strays()

    def __len__(self) -> int:
        """The number of pictures that can be found. Raises StoreError."""
        with self._readers.lend() as reader:
            return len(reader)

    def __bool__(self) -> bool:
        return True  # also where the index is empty, or does not exist yet

    # Writing: each method begins with the index as it is now, and the next search sees its changes

    def index(
        self,
        paths: Iterable[AnyPath],
        *,
        exclude: Iterable[str] = (),
        hidden: bool = False,
        follow_symlinks: bool = False,
        default_excludes: bool = True,
        retry: bool = False,
        max_pixels: int | None = None,
        keep_features: int | None = None,
        keep_under: AnyPath | None = None,
        store: str | None = None,
        on_progress: "Callable[[Progress], None]" = quiet,
        on_publish: OnProgress = quiet,
        on_keep: OnProgress = quiet,
    ) -> "IndexReport":
        """Bring the index up to date with these folders and files, creating it if need be.

        Only new and changed files are read. `exclude` holds patterns as in .gitignore, anchored at each folder;
        `default_excludes` leaves out folders of thumbnails, recycle bins and their like. They, `hidden` and
        `follow_symlinks` hold for this run only. With `retry`, files that were skipped are tried again.
        Pictures that cannot be read, or have more than `max_pixels`, are named in the report.

        From now on `keep_features` bytes hold the features of the newest pictures, or of those at or below
        `keep_under`: 0 for none, None as the index says. `on_progress` gets the progress of the run;
        `store` lets another store recall from now on: "faiss", or the URL of a database without a password.
        `on_publish(done, total)` counts images that are arranged for search, `on_keep(done, total)` those whose
        features are kept. Raises InputError, UsageError, ModelError, StoreError, ProcessError.
        """
        rules, keep = (exclude, hidden, follow_symlinks, default_excludes), (keep_features, keep_under)
        update = self._update(rules, keep, store, max_pixels, on_progress, on_publish, on_keep)
        return update.run(inputs.paths_to_index(paths), retry=retry)

    def _update(
        self,
        rules: tuple[Iterable[str], bool, bool, bool],
        keep: tuple[int | None, AnyPath | None],
        store: str | None,
        max_pixels: int | None,
        on_progress: "Callable[[Progress], None]",
        on_publish: OnProgress,
        on_keep: OnProgress,
    ) -> "Update":
        from bridgetower.files.ignore import Rules
        from bridgetower.retrieval.updating import Keep, Update

        if keep[0] and self._options.engine.is_ray:
            raise UsageError(
                "workers of a cluster return no features, only vectors: index without --keep-features, then run "
                "`bt index --keep-features` without --engine"
            )
        return Update(
            directory=self.directory,
            recall_store=self._recall_store,
            readers=self._readers,
            find_model=self._models.to_add,
            must_compare=self._options.must_compare,
            rules=Rules(inputs.list_of_patterns(rules[0]), *rules[1:]),
            max_pixels=inputs.pixel_limit(max_pixels),
            keep=Keep(*inputs.room_to_keep(*keep)),
            move=None if store is None else self._move(store),
            on_progress=listener(on_progress),
            on_publish=listener(on_publish),
            on_keep=listener(on_keep),
            say=self._say,
        )

    def _move(self, store: str) -> "Move":
        """Return how to let a store recall. Raises UsageError."""
        from bridgetower.index.maintenance import Move
        from bridgetower.index.stores.address import address_of

        named, address = self._named_store, address_of(store)
        if named is None:
            raise UsageError("a RecallStore was given for this index: it cannot have another one")
        return Move(named, address)

    def move_store(self, store: str, *, on_publish: OnProgress = quiet) -> str | None:
        """Let another store recall, and fill it: "faiss", or the URL of a database without a password.

        Returns a note if the table in the database before could not be removed. `on_publish(done, total)` counts
        images. Raises UsageError, StoreError.
        """
        move, on_publish = self._move(store), listener(on_publish)
        with self._readers.changing(), self._resumed() as writer:
            writer.on_publish = on_publish
            return move(writer)

    def watch(
        self,
        paths: Iterable[AnyPath],
        *,
        exclude: Iterable[str] = (),
        hidden: bool = False,
        follow_symlinks: bool = False,
        default_excludes: bool = True,
        retry: bool = False,
        max_pixels: int | None = None,
        keep_features: int | None = None,
        keep_under: AnyPath | None = None,
        store: str | None = None,
        on_progress: "Callable[[Progress], None]" = quiet,
        on_publish: OnProgress = quiet,
        on_keep: OnProgress = quiet,
    ) -> "Iterator[IndexReport]":
        """Run `index`, and again whenever something has changed below `paths`: yield a report for each, without end.

        A path that is away for a while is in the `absent` of the reports. Where another process writes the index,
        later runs wait until it ends. Raises as `index` does, InputError where the system cannot watch, and
        ResourceError.
        """
        rules, keep = (exclude, hidden, follow_symlinks, default_excludes), (keep_features, keep_under)
        update = self._update(rules, keep, store, max_pixels, on_progress, on_publish, on_keep)
        return update.watch([inputs.lasting(one) for one in inputs.paths_to_index(paths)], retry=retry)

    def _resumed(self) -> "IndexWriter":
        from bridgetower.index.writer import IndexWriter

        return IndexWriter.resume(self.directory, recall_store=self._recall_store)

    def forget(self, paths: Iterable[AnyPath], *, dry_run: bool = False) -> "ForgetReport":
        """Take folders and files out of the index; with `dry_run`, only report what that would do.

        Their vectors are kept until `prune`. Raises UnknownPlaceError, StoreError.
        """
        from bridgetower.index.maintenance import forget, would_forget

        wanted = inputs.list_of_paths(paths)
        if dry_run:
            self.refresh()
            with self._readers.lend() as reader:
                return would_forget(reader, [known_place(one, reader.catalog.knows) or one for one in wanted])
        with self._readers.changing(), self._resumed() as writer:
            return forget(writer, [known_place(one, writer.catalog.knows) or one for one in wanted])

    def prune(self, *, dry_run: bool = False, on_progress: OnProgress = quiet) -> "Pruned":
        """Drop files that are gone, remove orphans, free their space; with `dry_run`, only report how much.

        `on_progress(done, total)` counts files. Raises StoreError.
        """
        from bridgetower.index.maintenance import prune, would_prune

        listener(on_progress)
        if dry_run:
            self.refresh()
            with self._readers.lend() as reader:
                return would_prune(reader, on_progress=on_progress)
        with self._readers.changing(), self._resumed() as writer:
            return prune(writer, on_progress=on_progress)

    def check(self, *, on_progress: OnProgress = quiet) -> "Iterator[Finding]":
        """Check the index, and yield each finding. Changes nothing. Raises StoreError.

        `on_progress(done, total)` counts images.
        """
        from bridgetower.index.check import check_index

        return check_index(self.directory, recall_store=self._recall_store, on_progress=listener(on_progress))

    def repair(self, *, on_progress: OnProgress = quiet) -> "Repaired":
        """Repair the findings of `check`; `index` then reads lost pictures again. Raises StoreError.

        `on_progress(done, total)` counts images.
        """
        from bridgetower.index.check import repair_index

        with self._readers.changing():
            return repair_index(self.directory, recall_store=self._recall_store, on_progress=listener(on_progress))

    def export(self, folder: AnyPath, *, on_progress: OnProgress = quiet) -> "Exported":
        """Write the index into a new folder, as npy and lines of JSON. `on_progress(done, total)` counts images.

        Raises UsageError where the folder is not empty, OutputError, StoreError.
        """
        from bridgetower.transfer.export import export

        place = inputs.path(folder)
        listener(on_progress)
        self.refresh()
        with self._readers.lend() as reader:
            return export(reader, place, on_progress=on_progress)

    def import_folder(
        self, folder: AnyPath, *, moves: "PathMap | None" = None, on_progress: OnProgress = quiet
    ) -> "ImportReport":
        """Add an export. A path that begins with a key of `moves` begins with its value here.

        `on_progress(done, total)` counts rows. Raises InputError before anything is written, StoreError.
        """
        from bridgetower.transfer.import_index import import_folder

        moved, store, told = inputs.path_map(moves), self._recall_store, listener(on_progress)
        with self._readers.changing():
            return import_folder(inputs.path(folder), self.directory, moves=moved, recall_store=store, on_progress=told)

    def import_vectors(
        self,
        vectors: AnyPath,
        paths: AnyPath,
        name: str,
        *,
        queries: AnyPath | None = None,
        moves: "PathMap | None" = None,
        on_progress: OnProgress = quiet,
    ) -> "ImportReport":
        """Add vectors of any model, called `name`: `vectors` an npy file [N, E], `paths` a line of JSON for each.

        `queries` is an npy file [Q, E] of vectors of texts, which measure recall. A path that begins with a key of
        `moves` begins with its value here. `on_progress(done, total)` counts rows. Raises InputError before anything is
        written, StoreError.
        """
        from bridgetower.transfer.import_index import import_vectors

        given = inputs.path(vectors), inputs.path(paths), inputs.spaced(name)
        asked, moved = None if queries is None else inputs.path(queries), inputs.path_map(moves)
        at, store, told = self.directory, self._recall_store, listener(on_progress)
        with self._readers.changing():
            return import_vectors(*given, at, queries=asked, moves=moved, recall_store=store, on_progress=told)
