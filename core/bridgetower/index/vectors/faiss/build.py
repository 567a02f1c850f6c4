"""Build the vector files of a generation from the manifest; they are complete and on the disk before they are named.

Few images are stored for exact search. Many are sorted into lists; each publication then tunes the effort of a search
against the exact answer, with texts as queries if the index has some, because people search with texts. New images go
into the present lists, until these no longer suit them: then lists and byte ranges are trained on all images.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
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
from bridgetower.index.vectors.catalog_vectors import all_vectors, few, unpacked
from bridgetower.index.vectors.faiss.flat import FlatVectors
from bridgetower.index.vectors.faiss.generation import codes_path, vectors_path
from bridgetower.index.vectors.faiss.ivf import RECALL_AT, Effort, IvfVectors, list_count, sample_size, serves, tune
from bridgetower.index.vectors.faiss.scalar_codes import Coder, ScalarCodes
from bridgetower.index.vectors.float16 import best, unpack
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

_PICTURE_QUERIES = 64  # vectors of the index used as queries, beside texts, for searches by picture
_PICTURE_QUERIES_ALONE = 256  # used as queries without texts, moved as far from the pictures as texts are
_LIKENESS = 0.35  # cosine between such a moved query and its centred picture
_SEED = 20
_NOISE = 1e-6  # of an inner product in float32: scores that differ by less tie
_TIES = 16_384  # images kept for an exact answer with ties; if more tie, recall is measured too low

_Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]  # ids [n] and vectors [n, E], of all images


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
        sample = _sample(catalog, sample_size(images))
        return cls(IvfVectors.train(sample, list_count(images)), Coder.train(sample), images, 0)


def _write_inverted(
    directory: Path, catalog: Catalog, generation: int, on_progress: OnProgress
) -> tuple[int, bytes, Tuning, bool]:
    """Add new images to the lists of the previous generation, or train lists if these do not suit the index."""
    queries, texts = _queries(catalog)
    nearest = _ExactNearest(queries)
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


def _write_codes(directory: Path, generation: int, lists: _Lists, batches: _Batches) -> tuple[int, ScalarCodes]:
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


class _ExactNearest:
    """The exact nearest images of some queries, computed batch by batch: RECALL_AT, and all that tie with the last."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._queries = queries
        self._least = np.full(len(queries), -np.inf)  # the lowest score in each answer
        self._scores = [np.zeros(0, np.float32) for _ in queries]
        self.ids = [np.zeros(0, np.int64) for _ in queries]

    def taking(self, batches: _Batches) -> _Batches:
        """Yield the batches and take them."""
        for ids, vectors in batches:
            self.take(ids, vectors)
            yield ids, vectors

    def take(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        for query, scores in enumerate(self._queries @ vectors.T):
            near = scores >= self._least[query]
            known = np.append(self.ids[query], ids[near]), np.append(self._scores[query], scores[near])
            nearest, scores = best(*known, _TIES)
            if len(scores) >= RECALL_AT:
                self._least[query] = scores[RECALL_AT - 1] - _NOISE
            near = scores >= self._least[query]
            self.ids[query], self._scores[query] = nearest[near], scores[near]


def _queries(catalog: Catalog) -> tuple[NDArray[np.float32], int]:
    """Return unit vectors `[Q, E]` to measure recall with, texts first, and the number of texts."""
    dim = catalog.fingerprint().dim
    texts = unpack(catalog.queries(), dim)
    pictures = _sample(catalog, _PICTURE_QUERIES if len(texts) else _PICTURE_QUERIES_ALONE)
    if not len(texts):
        away = pictures - pictures.mean(axis=0)
        away /= np.linalg.norm(away, axis=1, keepdims=True).clip(min=1e-6)  # zero if all pictures are equal
        anywhere = np.random.default_rng(_SEED).standard_normal(away.shape, np.float32)
        anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
        pictures = _LIKENESS * away + np.sqrt(1 - _LIKENESS**2, dtype=np.float32) * anywhere
    queries = np.concatenate([texts, pictures]).astype(np.float32)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True), len(texts)


def _sample(catalog: Catalog, number: int) -> NDArray[np.float32]:
    """Return `number` vectors `[n, E]`, or all if there are fewer, drawn from the whole index with a fixed seed."""
    there = np.sort(np.fromiter(catalog.image_ids(), np.int64))
    ids = np.sort(np.random.default_rng(_SEED).choice(there, min(number, len(there)), replace=False))
    found = [blob for rows in catalog.vectors_of(ids.tolist()) for _, blob in rows]
    return unpacked(catalog, found)


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
