"""The Python interface to an index: pictures to add, search, fill from and look after.

    with Library("photos.index", "demo") as library:
        library.index(["photos"])
        for hit in library.search("two cats on a couch", min_match=0.5):
            print(hit.match, hit.path)

Everything that `bt` does is done here. The stages do the work; they are imported when they are needed.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from bridgetower.errors import UsageError
from bridgetower.index.reader_pool import ReaderPool
from bridgetower.index.roots import known_place
from bridgetower.inputs import (
    AnyPath,
    Moment,
    list_of_paths,
    list_of_patterns,
    normalised,
    path,
    path_map,
    require_limits,
    require_part,
    times,
    whole,
)
from bridgetower.inputs import masked as masked
from bridgetower.models.index_models import IndexModels, ModelOptions, Notes
from bridgetower.models.model import DEFAULT_DEPTH as DEFAULT_DEPTH
from bridgetower.models.model import DEFAULT_MODEL as DEFAULT_MODEL
from bridgetower.models.model import Model as Model
from bridgetower.records import OnProgress, Say, Skipped, quiet

if TYPE_CHECKING:
    from bridgetower.encoders.protocol import Vectors
    from bridgetower.index.check import Finding, Repaired
    from bridgetower.index.maintenance import ForgetReport, Pruned
    from bridgetower.index.reader import Summary
    from bridgetower.index.vectors.protocol import RecallStore
    from bridgetower.index.writer import IndexWriter
    from bridgetower.queries import Queries
    from bridgetower.retrieval.encode_pictures import AnyPicture
    from bridgetower.retrieval.fill import Filled
    from bridgetower.retrieval.indexing import IndexReport, Progress
    from bridgetower.retrieval.search import Found, SearchRequest
    from bridgetower.retrieval.updating import Update
    from bridgetower.transfer.export import Exported
    from bridgetower.transfer.import_index import ImportReport
    from bridgetower.transfer.path_map import PathMap


class Library:
    """An index on disk and the model that made it: pictures to search.

    A search sees the index as it was at the first search, or after the last change by this object; what another process
    adds meanwhile is seen after `refresh`. One object may be used by several threads: each call has a reader of its
    own, which sees one state of the index to the end; all share one model; one thread at a time changes the index.
    """

    def __init__(
        self,
        directory: AnyPath,
        model: Model | str | None = None,
        *,
        device: str = "auto",
        precision: str | None = None,
        preprocessing: str | None = None,
        default_model: str | None = None,
        default_precision: str = "auto",
        features_cache: int = 2 * 1000**3,
        features_dir: AnyPath | None = None,
        store: "RecallStore | None" = None,
        progress: bool = False,
        say: Say = quiet,
    ) -> None:
        """Name the index, which need not exist yet. Nothing is read or fetched now.

        An index keeps the model that made it, by its name: it must be on this machine, as nothing is fetched because
        an index names it. `model` says where it is now, by name or ready; for a new index, which one to use, else
        `default_model`, else DEFAULT_MODEL. `precision` and `preprocessing` are insisted on, and refused by an index
        that was made otherwise; `default_precision` gives way. `device` is auto, cpu, cuda or mps.

        `features_cache` is the disk space in bytes for what the model saw in pictures, so that the next search need not
        look again, 0 for none; `features_dir` another place for it than the folder of the index. `store` recalls, FAISS
        by default. While a model is fetched, `progress` shows bars on stderr; `say` gets a line about what goes on.
        """
        self.directory = Path(os.path.abspath(os.path.expanduser(path(directory))))
        self._features_cache = whole("features_cache", features_cache, least=0)
        self._features_dir = (
            None if features_dir is None else Path(os.path.realpath(os.path.expanduser(path(features_dir))))
        )
        if store is not None:
            from bridgetower.index.vectors.protocol import RecallStore

            require_part(store, RecallStore)
        self._recall_store, self._say, self._notes = store, say, Notes(say)
        given = model if model is None or isinstance(model, Model) else os.fspath(path(model))
        self._options = ModelOptions(
            given, default_model, device, precision, default_precision, preprocessing, progress
        )
        self._models = IndexModels(self.directory, self._options, self._notes)
        self._readers = ReaderPool(self.directory, store)

    def __repr__(self) -> str:
        return f"<Library {str(self.directory)!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index. May be called twice; the next search opens it again."""
        self.refresh()

    def refresh(self) -> None:
        """Have every call that begins from now on see the index as it is then."""
        self._readers.refresh()

    # Models

    @property
    def model(self) -> Model:
        """The model of the index, or, where it has no pictures yet, that for them. Raises ModelError, StoreError."""
        from bridgetower.index.compatibility import made_by

        made = made_by(self.directory)
        return self._models.for_new() if made is None else self._models.that_made(made)

    # Reading

    def _queries(self) -> "Queries":
        from bridgetower.queries import Queries

        return Queries(self._models, self._features_cache, self._features_dir, self._notes)

    def search(
        self,
        text: "str | SearchRequest | None" = None,
        *,
        image: "AnyPicture | None" = None,
        vector: "Vectors | AnyPath | BinaryIO | None" = None,
        under: AnyPath | None = None,
        since: Moment | None = None,
        before: Moment | None = None,
        top: int = 10,
        depth: int | None = None,
        min_match: float | None = None,
        budget: float = math.inf,
        on_progress: OnProgress = quiet,
    ) -> "Found":
        """Find pictures for a text, for a picture, or for both; or give a `SearchRequest` in the place of all these.

        The text is verified: each result says how probably it is true of the picture. `image` is a path, a PIL image,
        an array uint8 [H, W, 3] or [H, W], or the bytes of a file. `vector`, [E] or an npy file of one, recalls by
        itself; it alone serves an index of foreign vectors. `under` is a folder or file of the index; `since` and
        `before` bound when pictures were taken: "2024-05", a date, a datetime. `depth` is how many candidates are
        verified, by default 20 on a CPU and 100 on a GPU; `budget` for how many seconds. `on_progress(done, total)`
        counts pictures that are being verified.

        Raises UsageError, ModelError, StoreError; InputError for an unreadable picture or vector, and for a place that
        the index does not know.
        """
        from bridgetower.retrieval.search import SearchRequest

        if isinstance(text, SearchRequest):
            usual = (None, None, None, None, 10, None, None, math.inf)
            if (image, vector, since, before, top, depth, min_match, budget) != usual:
                raise UsageError("a SearchRequest says all but `under`: nothing else can be given beside it")
            request = text
        else:  # checked before anything is opened
            request = SearchRequest(text, image, vector, top, depth, min_match, budget, times(since, before))
        with self._readers.lend() as store:
            return self._queries().search(store, request, under, on_progress)

    def locate(self, place: AnyPath) -> Path | None:
        """A folder or file as the index knows it, by its own name or by where its links lead; None if it does not."""
        with self._readers.lend() as store:
            return known_place(path(place), store.catalog.knows)

    def fill(self, text: str, *, top: int = 5, depth: int | None = None, on_progress: OnProgress = quiet) -> "Filled":
        """Words for each `<mask>` of `text`, from the `depth` pictures that it fits best, each weighed by its match.

        `depth` is by default that of a search. `on_progress(done, total)` counts pictures. Raises UsageError,
        ModelError, StoreError.
        """
        text = masked(text)
        require_limits(top=top, depth=depth)
        with self._readers.lend() as store:
            return self._queries().fill(store, text, top, depth, on_progress)

    def summary(self) -> "Summary":
        """The index at a glance. Raises StoreError."""
        with self._readers.lend() as store:
            return store.summary()

    def skipped(self) -> list[Skipped]:
        """The files that were passed over, and why. Raises StoreError."""
        with self._readers.lend() as store:
            return list(store.catalog.skipped())

    def strays(self) -> list[Path]:
        """Files in the folder of the index that are not part of it. Raises StoreError."""
        with self._readers.lend() as store:
            return store.strays()

    def __len__(self) -> int:
        """Pictures that can be found. Raises StoreError."""
        with self._readers.lend() as store:
            return len(store)

    def __bool__(self) -> bool:
        return True  # also where it is empty, or not there yet

    # Writing: each of these begins with the index as it is now, and has the next search see what it did

    def index(
        self,
        paths: Iterable[AnyPath],
        *,
        exclude: Iterable[str] = (),
        hidden: bool = False,
        follow_symlinks: bool = False,
        retry: bool = False,
        max_pixels: int | None = None,
        on_progress: "Callable[[Progress], None]" = quiet,
        on_publish: OnProgress = quiet,
    ) -> "IndexReport":
        """Bring the index up to date with these folders and files, creating it if need be.

        Only new and changed files are read. `exclude` holds patterns as in .gitignore, anchored at each folder; what
        they, `hidden` and `follow_symlinks` let in holds for this run. With `retry`, files that were skipped are tried
        again. Pictures that cannot be read, or have more than `max_pixels`, are named in the report. `on_progress` is
        told where the run stands, `on_publish(done, total)` how many images were arranged for search. Raises
        InputError, UsageError, ModelError, StoreError, ProcessError.
        """
        update = self._update(exclude, hidden, follow_symlinks, max_pixels, on_progress, on_publish)
        return update.run(list_of_paths(paths), retry=retry)

    def _update(
        self,
        exclude: Iterable[str],
        hidden: bool,
        follow_symlinks: bool,
        max_pixels: int | None,
        on_progress: "Callable[[Progress], None]",
        on_publish: OnProgress,
    ) -> "Update":
        from bridgetower.files.ignore import Rules
        from bridgetower.retrieval.updating import Update

        return Update(
            directory=self.directory,
            recall_store=self._recall_store,
            readers=self._readers,
            find_model=self._models.to_add,
            must_find=self._options.any_insisted_on,
            rules=Rules(list_of_patterns(exclude), hidden, follow_symlinks),
            max_pixels=None if max_pixels is None else whole("max_pixels", max_pixels, least=1),
            on_progress=on_progress,
            on_publish=on_publish,
        )

    def watch(
        self,
        paths: Iterable[AnyPath],
        *,
        exclude: Iterable[str] = (),
        hidden: bool = False,
        follow_symlinks: bool = False,
        retry: bool = False,
        max_pixels: int | None = None,
        on_progress: "Callable[[Progress], None]" = quiet,
        on_publish: OnProgress = quiet,
    ) -> "Iterator[IndexReport]":
        """As `index`, and again whenever something has changed below `paths`: a report for each run, for ever.

        A path that is away for a while is among the `absent` of the reports. Where another process writes the index,
        later runs wait until it ends. Raises as `index` does, InputError where the system cannot watch, and
        ResourceError.
        """
        update = self._update(exclude, hidden, follow_symlinks, max_pixels, on_progress, on_publish)
        return update.watch(list_of_paths(paths), retry=retry, say=self._say)

    def _resumed(self) -> "IndexWriter":
        from bridgetower.index.writer import IndexWriter

        return IndexWriter.resume(self.directory, recall_store=self._recall_store)

    def forget(self, paths: Iterable[AnyPath], *, dry_run: bool = False) -> "ForgetReport":
        """Take folders and files out of the index; with `dry_run` only say what that would do.

        Their vectors are kept until `prune`. Raises InputError for one that it does not know, StoreError.
        """
        from bridgetower.index.maintenance import forget, would_forget

        wanted = list_of_paths(paths)
        if dry_run:
            self.refresh()
            with self._readers.lend() as store:
                return would_forget(store, [known_place(one, store.catalog.knows) or one for one in wanted])
        with self._readers.changing(), self._resumed() as writer:
            return forget(writer, [known_place(one, writer.catalog.knows) or one for one in wanted])

    def prune(self, *, dry_run: bool = False, on_progress: OnProgress = quiet) -> "Pruned":
        """Drop files that are gone, remove images without a file, give the space back; or, `dry_run`, say how much.

        `on_progress(done, total)` counts files. Raises StoreError.
        """
        from bridgetower.index.maintenance import prune, would_prune

        if dry_run:
            self.refresh()
            with self._readers.lend() as store:
                return would_prune(store, on_progress=on_progress)
        with self._readers.changing(), self._resumed() as writer:
            return prune(writer, on_progress=on_progress)

    def check(self, *, on_progress: OnProgress = quiet) -> "Iterator[Finding]":
        """All that is wrong with the index, as it is found. Changes nothing. Raises StoreError.

        `on_progress(done, total)` counts images.
        """
        from bridgetower.index.check import check_index

        return check_index(self.directory, recall_store=self._recall_store, on_progress=on_progress)

    def repair(self, *, on_progress: OnProgress = quiet) -> "Repaired":
        """Mend what `check` finds; `index` then takes again what was lost. Raises StoreError.

        `on_progress(done, total)` counts images.
        """
        from bridgetower.index.check import repair_index

        with self._readers.changing():
            return repair_index(self.directory, recall_store=self._recall_store, on_progress=on_progress)

    def export(self, folder: AnyPath, *, on_progress: OnProgress = quiet) -> "Exported":
        """Write the index into a new folder, as npy and lines of JSON. `on_progress(done, total)` counts images.

        Raises UsageError where the folder holds something, OutputError, StoreError.
        """
        from bridgetower.transfer.export import export

        self.refresh()
        with self._readers.lend() as store:
            return export(store, path(folder), on_progress=on_progress)

    def import_folder(
        self, folder: AnyPath, *, moves: "PathMap | None" = None, on_progress: OnProgress = quiet
    ) -> "ImportReport":
        """Add what `export` wrote, here or elsewhere. A path that begins with a key of `moves` begins with its value.

        `on_progress(done, total)` counts rows. Raises InputError before anything is written, StoreError.
        """
        from bridgetower.transfer.import_index import import_folder

        with self._readers.changing():
            return import_folder(
                path(folder),
                self.directory,
                moves=path_map(moves),
                recall_store=self._recall_store,
                on_progress=on_progress,
            )

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
        """Add vectors of the model `name`, any model: `vectors` an npy file [N, E], `paths` a line of JSON for each.

        `queries` is an npy file [Q, E] of vectors of texts, by which recall is measured. A path that begins with a key
        of `moves` begins with its value. `on_progress(done, total)` counts rows. Raises InputError before anything is
        written, StoreError.
        """
        from bridgetower.transfer.import_index import import_vectors

        with self._readers.changing():
            return import_vectors(
                path(vectors),
                path(paths),
                normalised(name),
                self.directory,
                queries=None if queries is None else path(queries),
                moves=path_map(moves),
                recall_store=self._recall_store,
                on_progress=on_progress,
            )
