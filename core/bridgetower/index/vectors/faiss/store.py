"""The default `RecallStore`: FAISS files beside the manifest; exact search of few images, lists and codes for many."""

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.files.regular_files import is_own
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.index.vectors.faiss.generation import codes_bytes, published, published_names
from bridgetower.records import OnProgress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bridgetower.index.catalog.writer import CatalogWriter
    from bridgetower.index.vectors.faiss.search import FaissSearch
    from bridgetower.index.vectors.float16 import Scored

_FORM = re.compile(r"vectors-[0-9]+\.(faiss|codes)(\.tmp)?")


# A new vector file is published at the end of a run if the old one lacks more than 1/16 of the images; in the middle of
# a run if it lacks more than 1/2, and more than 8192. So searches stay fast, and all publications together take linear
# time.
_UNCOVERED_AT_END = 16
_UNCOVERED_MEANWHILE = 2
_UNCOVERED_MIN = 8192


class FaissStore:
    """A store whose data lies in the directory of the index. Methods that need numpy or FAISS import them."""

    def __repr__(self) -> str:
        return "<FaissStore>"

    def open(self, directory: Path, catalog: Catalog) -> "FaissView":
        return FaissView(directory, catalog)

    def files(self, directory: Path, catalog: Catalog) -> list[Path]:
        return published_names(directory, catalog)

    def require_reachable(self, directory: Path, catalog: Catalog) -> None:
        """The files lie beside the manifest."""

    def is_due(self, catalog: Catalog, uncovered: int, *, at_end: bool) -> bool:
        images = catalog.count_images()
        if at_end:
            return uncovered * _UNCOVERED_AT_END > images
        return uncovered > _UNCOVERED_MIN and uncovered * _UNCOVERED_MEANWHILE > images

    def publish(self, directory: Path, catalog: "CatalogWriter", on_progress: OnProgress) -> None:
        from bridgetower.index.vectors.faiss.build import publish

        publish(directory, catalog, on_progress)

    def is_intact(self, directory: Path, catalog: Catalog, *, whole: bool) -> bool:
        with closing(published(directory, catalog)) as files:
            if not whole:
                return files.whole
            state, coded = catalog.state(), catalog.tuning() is not None
            rows = state.images - catalog.count_images(after=state.covered) + catalog.count_pruned(state.covered)
            return files.intact(state.vectors_sha256, codes_bytes(catalog.fingerprint().dim, rows) if coded else None)

    def differences(self, directory: Path, catalog: Catalog) -> Iterator[str]:
        if not published_names(directory, catalog):  # searches read it all from the manifest
            return
        from bridgetower.index.vectors.faiss.check import differences

        yield from differences(directory, catalog)

    def vectors(
        self, directory: Path, catalog: Catalog, images: "NDArray[np.int64]"
    ) -> "Iterator[tuple[int, NDArray[np.float32]]]":
        return iter(())  # a repair writes the files again

    def clean(self, directory: Path, catalog: Catalog, *, everything: bool = False) -> None:
        named = f"vectors-{catalog.state().generation}"
        with explained(directory):
            found = [path for path in directory.iterdir() if _FORM.fullmatch(path.name) and is_own(path)]
        for path in found:
            if everything or path.stem != named or path.suffix not in (".faiss", ".codes"):
                with suppress(OSError):  # Windows keeps a file that a reader has open; the next writer removes it
                    path.unlink()


class FaissView:
    """A `RecallView` of the open files of one generation; they stay readable after a writer removes their names.

    Its scores are exact, so that the reader need not compute them again.
    """

    def __init__(self, directory: Path, catalog: Catalog) -> None:
        self._catalog, self._files = catalog, published(directory, catalog)
        self._engine: FaissSearch | None = None  # made by the first search

    @property
    def is_there(self) -> bool:
        return self._files.whole

    @property
    def damage(self) -> str | None:
        return None if self._engine is None else self._engine.damage

    def connect(self) -> None:
        """The files are open."""

    def search(
        self, query: "NDArray[np.float32]", k: int, images: "NDArray[np.int64] | None" = None
    ) -> "NDArray[np.int64]":
        return self.scored(query, k, images)[0]

    def scored(self, query: "NDArray[np.float32]", k: int, images: "NDArray[np.int64] | None" = None) -> "Scored":
        """As `search`, with the exact scores, which the search has computed already."""
        from bridgetower.index.vectors.faiss.search import FaissSearch

        self._engine = self._engine or FaissSearch(self._catalog, self._files)
        return self._engine.search(query, k, images)

    def close(self) -> None:
        self._files.close()
