"""A small index with all that there can be in one, searched exactly or by lists, and what it answers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File, Fingerprint

DIM = 16
FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", DIM)
IMAGES, OTHERS = range(60), range(60, 70)

KEPT = f"{hashlib.sha256(b'1').hexdigest()}-fake-1.features"

Answer = list[tuple[bytes, frozenset[File], float]]


@contextmanager
def searched(way: str) -> Iterator[None]:
    """`exact`, or by `lists`, as if already `IMAGES` were many; `OTHERS` are few."""
    few, scanned = (20, 0.01) if way == "lists" else (1000, 4)
    with (
        patch("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", few),
        patch("bridgetower.index.vectors.faiss.search._SCAN_SHARE", scanned),
    ):
        yield


def image(number: int) -> NewImage:
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return NewImage(hashlib.sha256(b"%d" % number).digest(), 640, 480, number, vector / np.linalg.norm(vector))


def photo(number: int) -> File:
    return File(Path(f"/photos/{number // 20}/{number:03}.jpg"), number, 7)


def bring_up_to_date(directory: Path) -> None:
    """As `bt index` does it for `IMAGES`: what is known by path and content is left alone."""
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.add_root(Path("/photos"))
        numbers = [n for n in IMAGES if (known := writer.catalog.known(photo(n).path)) is None or known.image is None]
        for start in range(0, len(numbers), 16):
            batch = numbers[start : start + 16]
            new = [image(n) for n in batch if writer.catalog.image_id(image(n).hash) is None]
            writer.commit(images=new, files=[(photo(n), image(n).hash) for n in batch])
        bad = File(Path("/photos/bad.jpg"), 3, 3)
        if writer.catalog.known(bad.path) is None:
            writer.commit(skipped=[(bad, "not a picture")])
        writer.finish()


def build(directory: Path) -> None:
    """An index with a copy, generations, orphans, pruned images, skipped files, queries, and what searches keep."""
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.set_queries(np.stack([image(number).vector for number in range(200, 203)]))
        writer.commit(images=[image(n) for n in OTHERS], files=[(photo(n), image(n).hash) for n in OTHERS])
        writer.finish()
    bring_up_to_date(directory)
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.forget(photo(OTHERS[0]).path)
        assert sum(writer.prune()) == 1
        writer.forget(*(photo(n).path for n in OTHERS[1:]))
        assert writer.back_up_if_behind() is None
    features = directory / "features"
    features.mkdir()
    (features / KEPT).write_bytes(hashlib.sha256(b"seen" * 100).digest()[:16] + b"seen" * 100)


def answer(directory: Path) -> Answer:
    """All that a search gives."""
    query = (np.eye(1, DIM) + 0.1) / np.linalg.norm(np.eye(1, DIM) + 0.1)
    with IndexReader.open(directory) as store:
        store.check(FINGERPRINT)
        store.summary()
        list(store.catalog.skipped())
        return [
            (candidate.content, frozenset(candidate.files), round(candidate.similarity, 5))
            for candidate in store.nearest(query.astype(np.float32))
        ]
