"""The Python interface to an index: pictures to add, search, fill from and look after.

    with Library("photos.index", "demo") as library:
        library.index(["photos"])
        for hit in library.search("two cats on a couch", min_match=0.5):
            print(hit.match, hit.path)

Everything that `bt` does is done here. The stages do the work; they are imported when they are needed.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from bridgetower.errors import BridgeTowerError, InputError, LockedError, StoreError, UnknownPlaceError, UsageError
from bridgetower.inputs import AnyPath, Moment, list_of_paths, list_of_patterns, moment, normalised
from bridgetower.models import DEFAULT_DEPTH as DEFAULT_DEPTH
from bridgetower.models import DEFAULT_MODEL as DEFAULT_MODEL
from bridgetower.models import Model as Model
from bridgetower.models import unheard
from bridgetower.records import FOREIGN, INT8, Filter, Fingerprint, Head, OnProgress, Say, Skipped, quiet

if TYPE_CHECKING:
    from bridgetower.exporting import Exported
    from bridgetower.features import FeatureCache
    from bridgetower.fill import Filled
    from bridgetower.importing import ImportReport
    from bridgetower.indexing import IndexReport, Progress
    from bridgetower.moves import Moves
    from bridgetower.pictures import AnyPicture
    from bridgetower.protocol import ImageEngine, Judge, RecallEncoder, Vectors
    from bridgetower.recall_store import RecallStore
    from bridgetower.scan import Rules
    from bridgetower.search import Found, SearchRequest
    from bridgetower.store import Store, Summary
    from bridgetower.upkeep import ForgetReport, Pruned
    from bridgetower.verify import Finding, Repaired
    from bridgetower.writer import Writer

LOCK_LOOK_S = 1.0  # between two looks at whether another process still writes the index


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
        self.directory = Path(os.path.abspath(os.path.expanduser(directory)))
        self._given, self._default_model = model, default_model
        self._device, self._precision, self._default_precision = device, precision, default_precision
        self._preprocessing = preprocessing
        self._features_cache = features_cache
        self._features_dir = None if features_dir is None else Path(os.path.realpath(os.path.expanduser(features_dir)))
        self._recall_store, self._progress, self._say = store, progress, say
        self._models: dict[tuple[str, str, str | None], Model] = {}
        self._told: set[str] = set()
        self._lock = threading.RLock()  # of the models, and of what was told
        self._change_lock = threading.RLock()  # a change from within a change meets the lock of the index
        self._version = 0  # of what this object has changed: readers of before are of no use
        self._idle: list[Store] = []  # readers of this version that no call has now

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
        with self._lock:
            self._version += 1
            idle, self._idle = self._idle, []
        for store in idle:
            store.close()

    # Models

    @property
    def model(self) -> Model:
        """The model of the index, or, where it has no pictures yet, that for them. Raises ModelError, StoreError."""
        made_by = self._made_by()
        return self._model_for_new() if made_by is None else self._model_of(made_by)

    def _made_by(self) -> Fingerprint | None:
        from bridgetower.directory import made_by

        return made_by(self.directory)

    def _find(self, name: str, *, precision: str, preprocessing: str | None, fetch: bool) -> Model:
        with self._lock:
            key = (name, precision, preprocessing)
            if key not in self._models:
                model = Model(
                    name,
                    device=self._device,
                    precision=precision,
                    preprocessing=preprocessing,
                    fetch=fetch,
                    progress=self._progress,
                    say=self._say,
                )
                self._models |= {key: model, (name, precision, model.preprocessing.name): model}
            return self._models[key]

    def _model_for_new(self) -> Model:
        if isinstance(self._given, Model):
            return self._given
        return self._find(
            self._given or self._default_model or DEFAULT_MODEL,
            precision=self._precision or self._default_precision,
            preprocessing=self._preprocessing,
            fetch=True,
        )

    def _model_of(self, made_by: Fingerprint, *, to_add: bool = False) -> Model:
        """The model that made an index: in its preprocessing, and, `to_add` pictures, in its precision."""
        from bridgetower.directory import require_ours
        from bridgetower.runtime import precision_for

        require_ours(self.directory, made_by)
        if isinstance(self._given, Model):
            self._tell_tokenizer(made_by, self._given)
            return self._given
        precision = self._precision or self._default_precision
        if to_add:
            precision = self._in_family(made_by.precision_family, precision)
            if self._given is None and self._default_model not in (None, made_by.model, DEFAULT_MODEL):
                self._tell(
                    f"note: the index keeps its model {made_by.model:.300}; {self._default_model} is for new ones"
                )
            precision = precision_for(made_by.precision_family, precision)
        name = self._given or made_by.model
        model = self._find(
            name,
            precision=precision,
            preprocessing=self._preprocessing or made_by.preprocessing,
            fetch=name in (self._given, self._default_model),
        )
        self._tell_tokenizer(made_by, model)
        return model

    def _in_family(self, family: str, precision: str) -> str:
        """The precision in which to add to an index of this family: the one that is insisted on, else one of it."""
        if self._precision is None and precision != "auto" and (precision == INT8) != (family == INT8):
            kept = INT8 if family == INT8 else "fp32 or bf16"
            self._tell(f"note: the index keeps its precision, {kept}; {precision} is for new ones")
            return "auto"
        return precision

    def _tell_tokenizer(self, made_by: Fingerprint, model: Model) -> None:
        if Head.ITC not in model.heads or made_by.tokenizer_sha256 is None:
            return
        now = model.fingerprint
        if now.tokenizer_sha256 not in (None, made_by.tokenizer_sha256):
            self._tell(
                f"note: the tokenizer of {now.model} is another than when the index was made: the same words may find "
                "other pictures; fetch the one that belongs to these weights, or build a new index"
            )

    def _tell(self, line: str) -> None:
        """Say it once."""
        with self._lock:
            if line in self._told:
                return
            self._told.add(line)
        self._say(line)

    def _judge(self, store: "Store") -> Model:
        """The model that only verifies what a vector has recalled: any that is given, else that of the index, else,
        where its vectors are foreign, that for new ones."""
        if self._given is None and store.fingerprint.precision_family != FOREIGN:
            return self._checked(store)
        return self._model_for_new()

    def _checked(self, store: "Store") -> Model:
        model = self._model_of(store.fingerprint)
        store.check(model.fingerprint)
        return model

    # Reading

    @contextmanager
    def _reading(self) -> "Iterator[Store]":
        """A reader of the index for one call, which keeps it whatever others change meanwhile. Raises StoreError."""
        from bridgetower.store import Store

        with self._lock:
            version = self._version
            store = self._idle.pop() if self._idle else None
        if store is None:
            store = Store.open(self.directory, self._recall_store)
        try:
            yield store
        finally:
            with self._lock:
                is_current = version == self._version
                if is_current:
                    self._idle.append(store)
            if not is_current:
                store.close()

    def _cache(self, store: "Store") -> "FeatureCache | None":
        """Where searches keep what the model saw in pictures."""
        cache = store.feature_cache(self._features_cache, self._features_dir)
        if cache is not None and cache.is_link:
            self._tell(
                f"note: {cache.directory}: a link, and not used, so that every search reads its pictures again: remove "
                "it; to keep what the model saw elsewhere, use --features-dir DIR"
            )
        return cache

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
        on_progress: OnProgress = unheard,
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
        from bridgetower.search import SearchRequest

        if isinstance(text, SearchRequest):
            if (image, vector, since, before, top, depth, min_match, budget) != (None,) * 4 + (
                10,
                None,
                None,
                math.inf,
            ):
                raise UsageError("a SearchRequest says all but `under`: nothing else can be given beside it")
            request = text
        else:  # checked before anything is opened
            filter = self._dates(since, before)
            request = SearchRequest(text, image, vector, top, depth, min_match, budget, filter)
        with self._reading() as store:
            return self._search(store, request, under, on_progress)

    def _search(
        self, store: "Store", request: "SearchRequest", under: AnyPath | None, on_progress: OnProgress
    ) -> "Found":
        from bridgetower.search import NOTHING, search

        if under is not None:
            request = replace(request, filter=replace(request.filter, under=self._place(store, under)))
        if not len(store):  # it may have no model yet
            return NOTHING
        if request.vector is not None:
            request = replace(request, vector=self._vector(request.vector, store.fingerprint.dim))
        encoder: RecallEncoder | None = None
        judge: Judge | None = None
        if request.needs_encoder or request.verifies:
            model = self._checked(store) if request.needs_encoder else self._judge(store)
            self._require_heads(model, request)
            encoder = model.encoder if request.needs_encoder else None
            judge = model.judge if request.verifies else None
            if request.text is not None:
                model.tell_truncated(request.text)
        return search(store, request, encoder, judge, cache=self._cache(store), on_progress=on_progress)

    @staticmethod
    def _require_heads(model: Model, request: "SearchRequest") -> None:
        from bridgetower.errors import ModelError
        from bridgetower.heads import require_heads

        recall = [Head.ITC] if request.needs_encoder else []
        if not request.verifies:
            require_heads(model.heads, *recall)
            return
        try:
            require_heads(model.heads, *recall, Head.ITM)
        except ModelError as error:
            raise ModelError(f"{error}; or verify nothing: --no-rerank, or a depth of 0") from error

    def _vector(self, vector: "Vectors | AnyPath | BinaryIO", dim: int) -> "Vectors":
        """A vector [E], from an npy file if that is given. Raises InputError."""
        import numpy as np

        from bridgetower.npy import read_vector
        from bridgetower.os_errors import unreadable
        from bridgetower.regular import open_regular

        if isinstance(vector, np.ndarray | list | tuple):
            return np.asarray(vector)
        if not isinstance(vector, str | os.PathLike):
            return read_vector(vector, "stdin", dim)
        try:
            with open_regular(vector) as file:
                return read_vector(file, os.fspath(vector), dim)
        except OSError as error:
            raise unreadable(Path(vector), error) from error

    @staticmethod
    def _dates(since: Moment | None, before: Moment | None) -> Filter:
        first = None if since is None else moment(since)
        after = None if before is None else moment(before)
        if first is not None and after is not None and first >= after:
            raise UsageError(
                "since must be earlier than before, which is left out itself: all of 2024 is since 2024, before 2025"
            )
        return Filter(None, first, after)

    def _place(self, store: "Store", under: AnyPath) -> Path:
        place = self._located(store, under)
        if place is None:
            raise UnknownPlaceError(
                f"nothing in the index lies under {os.fspath(under)}; `bt status` names its folders"
            )
        return place

    def locate(self, path: AnyPath) -> Path | None:
        """A folder or file as the index knows it, by its own name or by where its links lead; None if it does not."""
        with self._reading() as store:
            return self._located(store, path)

    @staticmethod
    def _located(store: "Store", path: AnyPath) -> Path | None:
        for known in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
            if store.manifest.knows(known):
                return known
        return None

    def fill(self, text: str, *, top: int = 5, depth: int | None = None, on_progress: OnProgress = unheard) -> "Filled":
        """Words for each `<mask>` of `text`, from the `depth` pictures that it fits best, each weighed by its match.

        `depth` is by default that of a search. `on_progress(done, total)` counts pictures. Raises UsageError,
        ModelError, StoreError.
        """
        from bridgetower.fill import Filled, fill_library

        text = normalised(text)
        if "<mask>" not in text:
            raise UsageError(
                'there is no <mask> in the text: write it where a word is wanted, as in "a <mask> looking out"'
            )
        with self._reading() as store:
            if not len(store):  # it may have no model yet
                return Filled((), None, ())
            model = self._checked(store)
            model.tell_truncated(text)
            return fill_library(
                store,
                model.encoder,
                model.judge,
                text,
                top=top,
                depth=depth,
                cache=self._cache(store),
                on_progress=on_progress,
            )

    def summary(self) -> "Summary":
        """The index at a glance. Raises StoreError."""
        with self._reading() as store:
            return store.summary()

    def skipped(self) -> list[Skipped]:
        """The files that were passed over, and why. Raises StoreError."""
        with self._reading() as store:
            return list(store.manifest.skipped())

    def strays(self) -> list[Path]:
        """Files in the folder of the index that are not part of it. Raises StoreError."""
        with self._reading() as store:
            return store.strays()

    def __len__(self) -> int:
        """Pictures that can be found. Raises StoreError."""
        with self._reading() as store:
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
        on_progress: "Callable[[Progress], None]" = lambda progress: None,
        on_publish: OnProgress = unheard,
    ) -> "IndexReport":
        """Bring the index up to date with these folders and files, creating it if need be.

        Only new and changed files are read. `exclude` holds patterns as in .gitignore, anchored at each folder; what
        they, `hidden` and `follow_symlinks` let in holds for this run. With `retry`, files that were skipped are tried
        again. Pictures that cannot be read, or have more than `max_pixels`, are named in the report. `on_progress` is
        told where the run stands, `on_publish(done, total)` how many images were arranged for search. Raises
        InputError, UsageError, ModelError, StoreError, ProcessError.
        """
        from bridgetower.scan import Rules

        rules = Rules(list_of_patterns(exclude), hidden, follow_symlinks)
        return self._index(list_of_paths(paths), rules, retry, max_pixels, on_progress, on_publish)

    def _index(
        self,
        paths: list[Path],
        rules: "Rules",
        retry: bool,
        max_pixels: int | None,
        on_progress: "Callable[[Progress], None]",
        on_publish: OnProgress,
    ) -> "IndexReport":
        from bridgetower import indexing
        from bridgetower.directory import require_apart, require_ours, require_place
        from bridgetower.scan import scan
        from bridgetower.writer import Writer

        self._require_there(paths)
        scan(paths, rules)  # raises for what cannot be walked, before a model is fetched for it
        made_by = self._made_by()
        if made_by is None:
            require_place(self.directory)
        else:
            require_ours(self.directory, made_by)
        require_apart(self.directory, paths)

        def find() -> Model:
            return self._model_for_new() if made_by is None else self._model_of(made_by, to_add=True)

        # Where nothing says that it may be another one, the model is looked for when there is something to encode.
        may_wait = self._given is None and self._precision is None and self._preprocessing is None
        fingerprint = made_by if made_by is not None and may_wait else find().fingerprint

        def find_engine() -> "ImageEngine":
            model = find()
            writer.take(model.fingerprint)
            return model.engine

        with self._changing(), Writer.open(self.directory, fingerprint, recall_store=self._recall_store) as writer:
            writer.on_publish = on_publish
            return indexing.index(
                paths, writer, find_engine, rules, retry=retry, max_pixels=max_pixels, on_progress=on_progress
            )

    def _require_there(self, paths: list[Path]) -> None:
        """Raise InputError for a path that is not there though the index knows it: that need be no slip of the pen."""
        from bridgetower.roots import nothing_in

        for path in paths:
            try:
                path.stat()
            except FileNotFoundError as error:
                if self._knows(Path(os.path.abspath(path))):
                    raise InputError(nothing_in(path)) from error
            except (OSError, ValueError):  # ValueError: a NUL in the name
                pass  # `scan` says it better

    def _knows(self, path: Path) -> bool:
        with suppress(StoreError), self._reading() as store:
            return store.manifest.knows(path)
        return False

    def watch(
        self,
        paths: Iterable[AnyPath],
        *,
        exclude: Iterable[str] = (),
        hidden: bool = False,
        follow_symlinks: bool = False,
        retry: bool = False,
        max_pixels: int | None = None,
        on_progress: "Callable[[Progress], None]" = lambda progress: None,
        on_publish: OnProgress = unheard,
    ) -> "Iterator[IndexReport]":
        """As `index`, and again whenever something has changed below `paths`: a report for each run, for ever.

        A path that is away for a while is among the `absent` of the reports. Where another process writes the index,
        later runs wait until it ends. Raises as `index` does, InputError where the system cannot watch, and
        ResourceError.
        """
        from bridgetower.scan import Rules
        from bridgetower.watch import watching

        wanted = list_of_paths(paths)
        rules = Rules(list_of_patterns(exclude), hidden, follow_symlinks)
        # From before the first run on: a change meanwhile is not missed.
        with watching(wanted, rules, apart=self.directory, holds=self._may_hold) as bursts:
            yield self._index(wanted, rules, retry, max_pixels, on_progress, on_publish)
            for _ in bursts:
                there = [path for path in wanted if os.path.exists(path)]
                try:
                    report = self._when_free(
                        partial(self._index, there, rules, False, max_pixels, on_progress, on_publish)
                    )
                except InputError:  # a path that has gone since: that is a change, too
                    continue
                gone = {Path(os.path.abspath(path)) for path in wanted if path not in there}
                yield replace(report, absent=tuple(sorted({*report.absent, *gone})))

    def _when_free(self, run: "Callable[[], IndexReport]") -> "IndexReport":
        told = False
        while True:
            try:
                return run()
            except LockedError as error:
                if not told:
                    self._say(f"note: {error.holder}: waiting until it ends")
                told = True
            time.sleep(LOCK_LOOK_S)

    def _may_hold(self, path: Path) -> bool:
        """Whether the index has a picture at or below `path`; in doubt it may. Called in another thread."""
        from bridgetower.store import Store

        try:
            with Store.open(self.directory, self._recall_store) as store:
                return store.manifest.holds(path)
        except BridgeTowerError:
            return True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One thread of this object at a time changes the index; whoever reads after it sees that."""
        with self._change_lock:
            self.refresh()
            try:
                yield
            finally:
                self.refresh()

    def _resumed(self) -> "Writer":
        from bridgetower.writer import Writer

        return Writer.resume(self.directory, recall_store=self._recall_store)

    def forget(self, paths: Iterable[AnyPath], *, dry_run: bool = False) -> "ForgetReport":
        """Take folders and files out of the index; with `dry_run` only say what that would do.

        Their vectors are kept until `prune`. Raises InputError for one that it does not know, StoreError.
        """
        from bridgetower.upkeep import forget, would_forget

        if dry_run:
            self.refresh()
            with self._reading() as store:
                return would_forget(store, list_of_paths(paths))
        with self._changing(), self._resumed() as writer:
            return forget(writer, list_of_paths(paths))

    def prune(self, *, dry_run: bool = False, on_progress: OnProgress = unheard) -> "Pruned":
        """Drop files that are gone, remove images without a file, give the space back; or, `dry_run`, say how much.

        `on_progress(done, total)` counts files. Raises StoreError.
        """
        from bridgetower.upkeep import prune, would_prune

        if dry_run:
            self.refresh()
            with self._reading() as store:
                return would_prune(store, on_progress=on_progress)
        with self._changing(), self._resumed() as writer:
            return prune(writer, on_progress=on_progress)

    def verify(self, *, on_progress: OnProgress = unheard) -> "Iterator[Finding]":
        """All that is wrong with the index, as it is found. Changes nothing. Raises StoreError.

        `on_progress(done, total)` counts images.
        """
        from bridgetower.verify import verify

        return verify(self.directory, recall_store=self._recall_store, on_progress=on_progress)

    def repair(self, *, on_progress: OnProgress = unheard) -> "Repaired":
        """Mend what `verify` finds; `index` then takes again what was lost. Raises StoreError.

        `on_progress(done, total)` counts images.
        """
        from bridgetower.verify import repair

        with self._changing():
            return repair(self.directory, recall_store=self._recall_store, on_progress=on_progress)

    def export(self, folder: AnyPath, *, on_progress: OnProgress = unheard) -> "Exported":
        """Write the index into a new folder, as npy and lines of JSON. `on_progress(done, total)` counts images.

        Raises UsageError where the folder holds something, OutputError, StoreError.
        """
        from bridgetower.exporting import export

        self.refresh()
        with self._reading() as store:
            return export(store, Path(folder), on_progress=on_progress)

    def import_folder(
        self, folder: AnyPath, *, moves: "Moves | None" = None, on_progress: OnProgress = unheard
    ) -> "ImportReport":
        """Add what `export` wrote, here or elsewhere. A path that begins with a key of `moves` begins with its value.

        `on_progress(done, total)` counts rows. Raises InputError before anything is written, StoreError.
        """
        from bridgetower.importing import import_folder

        with self._changing():
            return import_folder(
                Path(folder), self.directory, moves=moves, recall_store=self._recall_store, on_progress=on_progress
            )

    def import_vectors(
        self,
        vectors: AnyPath,
        paths: AnyPath,
        name: str,
        *,
        queries: AnyPath | None = None,
        moves: "Moves | None" = None,
        on_progress: OnProgress = unheard,
    ) -> "ImportReport":
        """Add vectors of the model `name`, any model: `vectors` an npy file [N, E], `paths` a line of JSON for each.

        `queries` is an npy file [Q, E] of vectors of texts, by which recall is measured. A path that begins with a key
        of `moves` begins with its value. `on_progress(done, total)` counts rows. Raises InputError before anything is
        written, StoreError.
        """
        from bridgetower.importing import import_vectors

        with self._changing():
            return import_vectors(
                Path(vectors),
                Path(paths),
                name,
                self.directory,
                queries=None if queries is None else Path(queries),
                moves=moves,
                recall_store=self._recall_store,
                on_progress=on_progress,
            )
