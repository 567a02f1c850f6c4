"""Recall among very many vectors: what it finds, how long it takes, what it costs on disk and in memory.

    python benchmarks/scale.py --images 10000 100000 1000000
    python benchmarks/scale.py --images 10000000 --bulk --peers

Vectors of pictures and of texts lie in two clouds apart (benchmarks/clouds.py); searched is with texts that the index
was not tuned with. Recall is the share of the true 100 nearest among the 100 that are found. Every contender runs in
a process of its own, whose peak memory it is; times are of single searches for 100 images, one after the other, after
three to warm up. Beside the index of `bt`, as its commands write and read it, stand the two of plain FAISS that
people use, in memory and without what an index of files has to do besides.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.clouds import Clouds
from benchmarks.harness import WORK, Report
from bridgetower.index.catalog.schema import crc32_of
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import DECODING_VERSION, METADATA_VERSION, File, Fingerprint

DIM, K = 512, 100
BLOCK = 20_000
QUERIES, TUNING = 200, 256  # texts that search, and others that recall is tuned with
WARM = 3
PEERS = ("faiss flat", "faiss HNSW")
EF = (64, 128, 256, 512, 1024)
FINGERPRINT = Fingerprint("clouds", "local", "c" * 64, "c" * 64, "hf", 1, "float", DIM)

Array = npt.NDArray[Any]
Row = dict[str, Any]


# What is searched


def blocks(images: int) -> list[tuple[int, int]]:
    """Number of each block of pictures, and how many it has."""
    return [(start // BLOCK, min(BLOCK, images - start)) for start in range(0, images, BLOCK)]


def rounded(clouds: Clouds, block: int, number: int) -> Array:
    """Pictures as the index keeps them, in float16, so that all contenders search the same numbers."""
    return clouds.pictures(block, number).astype(np.float16).astype(np.float32)


def truth(images: int, work: Path) -> Array:
    """The numbers of the true nearest pictures of each query `[QUERIES, K]`, kept in `work`."""
    file = work / f"truth-{images}.npy"
    if file.exists():
        known: Array = np.load(file)
        return known
    clouds = Clouds(DIM)
    queries = clouds.texts(0, QUERIES)
    scores, numbers = np.full((QUERIES, K), -np.inf, np.float32), np.zeros((QUERIES, K), np.int64)
    for block, number in blocks(images):
        more = queries @ rounded(clouds, block, number).T
        scores = np.concatenate([scores, more], axis=1)
        numbers = np.concatenate([numbers, np.broadcast_to(np.arange(number) + block * BLOCK, more.shape)], axis=1)
        best = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, numbers)
    return numbers


# The contenders, each in a process of its own


def build(images: int, index: Path, *, in_bulk: bool) -> Row:
    """Write the index of `bt`, by the calls that `bt index` makes after encoding."""
    clouds = Clouds(DIM)
    with IndexWriter.open(index, FINGERPRINT) as writer:
        writer.set_queries(clouds.texts(1, TUNING))
        begin = time.perf_counter()
        if in_bulk:
            insert_in_bulk(writer.catalog, images, clouds)
        else:
            for block, number in blocks(images):
                vectors = clouds.pictures(block, number)
                new = [NewImage(_hash(block, at), 640, 480, None, vector) for at, vector in enumerate(vectors)]
                files = [(File(_path(block, at), 1, 1), image.hash) for at, image in enumerate(new)]
                writer.commit(images=new, files=files)
        inserting = time.perf_counter() - begin
    with IndexWriter.open(index, FINGERPRINT) as writer:
        begin = time.perf_counter()
        writer.finish()
        publishing = time.perf_counter() - begin
    return {"insert_s": inserting, "publish_s": publishing}


FILE = (1, 1, 0, 0, None, 0, METADATA_VERSION)  # the columns of each file from `size` to `metadata`


def insert_in_bulk(
    catalog: CatalogWriter,
    images: int,
    clouds: Clouds,
    path: Callable[[int, int], Path] | None = None,
    hash_of: Callable[[int], bytes] = lambda at: at.to_bytes(32, "big"),
) -> None:
    """The same rows, ids and hashes in ascending order unless these are given, without the triggers, whose counts are
    written at the end, and without a vector file meanwhile: what takes an hour by commits takes minutes."""
    path_of = path or _path
    db = catalog._db
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    with catalog.transaction():
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
    for block, number in blocks(images):
        numbers = range(block * BLOCK, block * BLOCK + number)
        vectors = clouds.pictures(block, number).astype("<f2")
        new = [
            (hash_of(at), 640, 480, None, DECODING_VERSION, row.tobytes())
            for at, row in zip(numbers, vectors, strict=True)
        ]
        paths = [os.fsencode(path_of(block, at)) for at in range(number)]
        with catalog.transaction():
            db.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                ((at + 1, *row, crc32_of(*row)) for at, row in zip(numbers, new, strict=True)),
            )
            db.executemany(
                f"INSERT INTO files VALUES (?{', ?' * len(FILE)}, NULL, ?, NULL, ?)",
                (
                    (path, *FILE, at + 1, crc32_of(path, *FILE, None, row[0], None))
                    for path, at, row in zip(paths, numbers, new, strict=True)
                ),
            )
    with catalog.transaction():
        db.execute("UPDATE state SET images = ?", (images,))
        for _, sql in triggers:
            db.execute(sql)


def search(images: int, index: Path, nearest: Array) -> Row:
    """Search the index of `bt`, as `bt search` does before it verifies."""
    queries = Clouds(DIM).texts(0, QUERIES)
    begin = time.perf_counter()
    with IndexReader.open(index) as store:
        store.recall(queries[:1], K)
        first = time.perf_counter() - begin
        found, row = timed(lambda query: [n.image - 1 for n in store.recall(query[None], K)[0]], queries)
        tuning = store.summary().tuning
    size = sum(path.stat().st_size for path in index.glob("vectors-*"))
    return row | {
        "recall": recall(found, nearest),
        "first_s": first,
        "file_kb_a_vector": size / images / 1000,
        "all_kb_a_vector": sum(path.stat().st_size for path in index.iterdir()) / images / 1000,
        "lists": tuning and f"{tuning.effort} of {tuning.lists}",
        "candidates": tuning and tuning.candidates,
        "recall_said": tuning and tuning.recall,
    }


def flat(images: int, nearest: Array) -> Row:
    """Every vector compared, in float32."""
    return _peer(faiss.IndexFlatIP(DIM), images, nearest, None)


def hnsw(images: int, nearest: Array) -> Row:
    """A graph, searched with the least effort of EF that finds as much as `bt` promises, or the greatest."""
    index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    return _peer(index, images, nearest, index.hnsw)


def _peer(index: faiss.Index, images: int, nearest: Array, graph: Any) -> Row:
    clouds, building = Clouds(DIM), 0.0
    for block, number in blocks(images):
        vectors = rounded(clouds, block, number)
        begin = time.perf_counter()
        index.add(vectors)
        building += time.perf_counter() - begin
    queries = clouds.texts(0, QUERIES)
    row: Row = {}
    for effort in EF if graph is not None else (0,):
        if graph is not None:
            graph.efSearch = effort
        found, row = timed(lambda query: index.search(query[None], K)[1][0].tolist(), queries)
        row |= {"recall": recall(found, nearest), "candidates": effort or None}
        if row["recall"] >= 0.99:
            break
    return row | {"build_s": building, "file_kb_a_vector": len(faiss.serialize_index(index)) / images / 1000}


def timed(find: Callable[[Array], list[int]], queries: Array) -> tuple[list[list[int]], Row]:
    for query in queries[:WARM]:
        find(query)
    found, seconds = [], []
    for query in queries:
        begin = time.perf_counter()
        found.append(find(query))
        seconds.append(time.perf_counter() - begin)
    return found, {"p50_ms": 1000 * float(np.median(seconds)), "p99_ms": 1000 * float(np.quantile(seconds, 0.99))}


def recall(found: list[list[int]], nearest: Array) -> float:
    return sum(len(set(some) & set(true.tolist())) for some, true in zip(found, nearest, strict=True)) / nearest.size


def _hash(block: int, at: int) -> bytes:
    return hashlib.sha256(b"%d" % (block * BLOCK + at)).digest()


def _path(block: int, at: int) -> Path:
    return Path(f"/clouds/{block:04}/{at:05}.jpg")


# Running them


def apart(contender: str, images: int, work: Path, *options: str) -> Row:
    """Run a contender in a process of its own. Raises SystemExit with what it said if it failed."""
    command = [sys.executable, "-m", "benchmarks.scale", "--contender", contender, "--images", str(images)]
    done = subprocess.run([*command, "--work", str(work), *options], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"{contender} failed with {images} images")
    row: Row = json.loads(done.stdout)
    return row


def contend(contender: str, images: int, work: Path, in_bulk: bool) -> Row:
    index = work / f"index-{images}"
    match contender:
        case "build":
            row = build(images, index, in_bulk=in_bulk)
        case "bt":
            row = search(images, index, truth(images, work))
        case "faiss flat":
            row = flat(images, truth(images, work))
        case _:
            row = hnsw(images, truth(images, work))
    return row | {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000], help="(%(default)s)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="beside bt (%(default)s)")
    parser.add_argument("--bulk", action="store_true", help="insert in the quickest way, for ten million")
    parser.add_argument("--keep", action="store_true", help="keep the index, and search one that was kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    parser.add_argument("--work", type=Path, default=WORK / "scale", help="where the index is written (%(default)s)")
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # what `apart` runs
    parser.set_defaults(rounds=QUERIES)
    return parser


def main() -> None:
    args = parser().parse_args()
    if args.contender:
        print(json.dumps(contend(args.contender, args.images[0], args.work, args.bulk)))
        return
    with Report(Path(__file__).stem, args) as report:
        for images in args.images:
            truth(images, args.work)
            index = args.work / f"index-{images}"
            built: Row = {}
            if not (args.keep and index.exists()):
                shutil.rmtree(index, ignore_errors=True)
                built = apart("build", images, args.work, *(["--bulk"] if args.bulk else []))
            row = apart("bt", images, args.work)
            build_memory = built.pop("memory_mb", None)
            report.add(images=images, contender="bt", **row, **built, build_memory_mb=build_memory)
            if not args.keep:
                shutil.rmtree(index)
            for peer in args.peers:
                report.add(images=images, contender=peer, **apart(peer, images, args.work))


if __name__ == "__main__":
    main()
