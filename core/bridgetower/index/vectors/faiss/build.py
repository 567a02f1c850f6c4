"""Build the vector files of a generation from the manifest; they are complete and on the disk before they are named.

Few images are stored for exact search. Many are sorted into lists; each publication then tunes the effort of a search
against the exact answer, with texts as queries if the index has some, because people search with texts. New images go
into the present lists, until these no longer suit them: then lists and byte ranges are trained on all images.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import DamagedFileError
from bridgetower.files.atomic import fsync_directory
from bridgetower.files.regular_files import is_own, open_own
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Tuning
from bridgetower.index.catalog.sqlite_errors import explained
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.vectors.catalog_vectors import all_vectors, few
from bridgetower.index.vectors.faiss.flat import FlatVectors
from bridgetower.index.vectors.faiss.generation import codes_path, vectors_path
from bridgetower.index.vectors.faiss.ivf import Effort, IvfVectors, list_count, sample_size, serves, tune
from bridgetower.index.vectors.faiss.scalar_codes import Coder, ScalarCodes
from bridgetower.index.vectors.measure import Batches, ExactNearest, measuring_queries, sample
from bridgetower.records import OnProgress

# Lists and byte ranges are trained again when the index has more than twice as many images as at their training, or
# when the removed images are more than 1/8 of the present ones.
_GROWN = 2
_PRUNED_SHARE = 8
# They are also trained again when they do not suit what was added: more than 1/16 of the images at their training, the
# growth at which a run publishes. Smaller publications keep lists that miss, as new ones may miss, too.
_ADDED_SHARE = 16
# The largest share of numbers of added vectors outside the byte ranges. A number lies outside the range of n others
# like it with a probability of 2/(n + 1): 1/6 of this or less, as a large index has a sample of 12,288 or more.
_CLIPPED_MOST = 0.001


def publish(directory: Path, catalog: CatalogWriter, on_progress: OnProgress) -> None:
    """Write the next generation and publish it, in the order of the format: files, final names, transaction."""
    generation = catalog.state().generation + 1
    try:
        if few(catalog.count_images()):
            covered, sha256 = _write_exact(directory, catalog, generation, on_progress)
            tuning, rebuilt = None, True
        else:
            covered, sha256, tuning, rebuilt = _write_inverted(directory, catalog, generation, on_progress)
        with explained(directory):
            for path in [vectors_path] if tuning is None else [codes_path, vectors_path]:
                os.replace(_temporary(path(directory, generation)), path(directory, generation))
            fsync_directory(directory)
    except BaseException:
        for path in (codes_path, vectors_path):
            if is_own(beside := _temporary(path(directory, generation))):
                beside.unlink()
        raise
    with catalog.transaction():
        catalog.publish(generation, covered, sha256, tuning, holds_pruned=not rebuilt)


def _write_exact(directory: Path, catalog: Catalog, generation: int, on_progress: OnProgress) -> tuple[int, bytes]:
    index = FlatVectors(catalog.fingerprint().dim)
    covered = 0
    for ids, vectors in all_vectors(catalog, on_progress=on_progress):
        index.add(ids, vectors)
        covered = int(ids[-1])
    return covered, _save(index, vectors_path(directory, generation))


class _Lists(NamedTuple):
    """Lists with the byte ranges that were trained with them."""

    inverted: IvfVectors
    coder: Coder
    trained: int  # images in the index at the training
    held: int  # the lists have the images with ids up to this

    @classmethod
    def train(cls, catalog: Catalog) -> "_Lists":
        """Train empty lists on a sample of all images."""
        images = catalog.count_images()
        vectors = sample(catalog, sample_size(images))
        return cls(IvfVectors.train(vectors, list_count(images)), Coder.train(vectors), images, 0)


def _write_inverted(
    directory: Path, catalog: Catalog, generation: int, on_progress: OnProgress
) -> tuple[int, bytes, Tuning, bool]:
    """Add new images to the lists of the previous generation, or train lists if these do not suit the index."""
    queries, texts = measuring_queries(catalog)
    nearest = ExactNearest(queries)
    batches = nearest.taking(all_vectors(catalog, on_progress=on_progress))
    lists = _load_present(directory, catalog) or _Lists.train(catalog)
    covered, codes = _write_codes(directory, generation, lists, batches)
    effort = _tune(lists, codes, queries, nearest.ids)
    if effort is None:
        del lists, codes  # to free their memory
        read = catalog.count_images()
        batches = all_vectors(catalog, on_progress=lambda done, total: on_progress(read + done, read + total))
        lists = _Lists.train(catalog)
        covered, codes = _write_codes(directory, generation, lists, batches)
        effort = tune(lists.inverted, codes, queries, nearest.ids)
    sha256 = _save(lists.inverted, vectors_path(directory, generation))
    tuning = Tuning(lists.inverted.lists, lists.trained, *effort, texts, len(queries) - texts)
    return covered, sha256, tuning, not lists.held


def _write_codes(directory: Path, generation: int, lists: _Lists, batches: Batches) -> tuple[int, ScalarCodes]:
    """Write the codes of all images in `batches`, and add to the lists those that they lack.

    Returns the last id, and the codes. The file begins as a copy of that of the generation before if the lists do.
    """
    covered, path = lists.held, _temporary(codes_path(directory, generation))
    with explained(path), _create(path) as file:
        if lists.held:
            _copy(codes_path(directory, generation - 1), file)
        else:
            file.write(lists.coder.header())
        for ids, vectors in batches:
            new = ids > lists.held
            if new.any():
                lists.inverted.add(vectors[new])
                file.write(lists.coder.rows(ids[new], vectors[new]))
                covered = int(ids[-1])
        file.flush()
        os.fsync(file.fileno())
    return covered, ScalarCodes.open(path)


def _tune(
    lists: _Lists, codes: ScalarCodes, queries: NDArray[np.float32], truth: Sequence[NDArray[np.int64]]
) -> Effort | None:
    """Return the effort of a search, as `tune`; None if lists that grew do not suit what was added."""
    has_grown = (len(codes) - lists.trained) * _ADDED_SHARE > lists.trained
    if has_grown and codes.clipped(lists.trained) > _CLIPPED_MOST:
        return None
    effort = tune(lists.inverted, codes, queries, truth)
    return None if has_grown and not serves(lists.inverted, effort) else effort


def _load_present(directory: Path, catalog: Catalog) -> _Lists | None:
    """Return the lists of the present generation.

    None if there are none, the index has grown or shrunk too much since their training, or a file is damaged.
    """
    state, dim, tuning = catalog.state(), catalog.fingerprint().dim, catalog.tuning()
    if tuning is None or state.images > _GROWN * tuning.trained:
        return None
    if catalog.count_pruned(state.covered) * _PRUNED_SHARE > state.images:
        return None
    with suppress(OSError, DamagedFileError):
        codes = ScalarCodes.open(codes_path(directory, state.generation))
        codes.check()
        with open_own(vectors_path(directory, state.generation)) as file:
            index = IvfVectors.load(file, state.vectors_sha256 or b"", dim)
        if index is not None and len(index) == len(codes) and codes.coder.dim == dim:
            return _Lists(index, codes.coder, tuning.trained, state.covered)
    return None


def _save(index: FlatVectors | IvfVectors, path: Path) -> bytes:
    with explained(path), _create(_temporary(path)) as file:
        sha256 = index.save(file)
        file.flush()
        os.fsync(file.fileno())
    return sha256


def _copy(path: Path, file: BinaryIO) -> None:
    with open_own(path) as before:
        shutil.copyfileobj(before, file, 1 << 24)


def _create(path: Path) -> BinaryIO:
    """Create a file, and remove a file that a crash left there. Raises FileExistsError if anything else is there."""
    if is_own(path):
        path.unlink()
    return open(path, "xb")


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
