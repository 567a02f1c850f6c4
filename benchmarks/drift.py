"""A large index that gets pictures of another kind: this build against another one, usually the one before.

    python benchmarks/drift.py --before 980869d --images 52000 --added 8000

Each build publishes vector files four times: of the pictures of one cloud (benchmarks/clouds.py), with the added ones,
and twice with one picture more. Added are pictures of another cloud, of other themes in the first one, or of the first
one. Half of the texts that search is tuned with, and of others that recall and times are measured with, are from each
cloud. A process of each build takes turns with the other, step by step. The builds share the libraries that are
installed, and nothing else.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import bridgetower
from benchmarks.busy import build as tree_of
from benchmarks.clouds import Clouds
from benchmarks.harness import Array, Report
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File, Fingerprint

ROOT = Path(__file__).parents[1]
BEFORE = "980869d"  # the last commit that kept lists until the index had doubled
KINDS = ("cloud", "themes", "none")
DIM, K, BLOCK = 512, 100, 20_000
TUNING, QUERIES = 256, 200  # texts
STEPS = 4
FINGERPRINT = Fingerprint("clouds", "local", "c" * 64, "c" * 64, "hf", 1, "float", DIM)


def other(kind: str) -> Clouds:
    """The cloud of the added pictures."""
    first, second = Clouds(DIM), Clouds(DIM, seed=1)
    if kind == "themes":
        first._themes = second._themes
    return second if kind == "cloud" else first


def texts(clouds: tuple[Clouds, Clouds], block: int, number: int) -> Array:
    return np.concatenate([cloud.texts(block + at, number // 2) for at, cloud in enumerate(clouds)])


def insert(writer: IndexWriter, first: int, vectors: Array) -> None:
    """Commit pictures with ascending numbers from `first`; their ids are one higher."""
    for start in range(0, len(vectors), BLOCK):
        block = enumerate(vectors[start : start + BLOCK], first + start)
        new = [NewImage(hashlib.sha256(b"%d" % at).digest(), 640, 480, None, vector) for at, vector in block]
        files = [(File(Path(f"/clouds/{image.hash.hex()}.jpg"), 1, 1), image.hash) for image in new]
        writer.commit(images=new, files=files)


def steps(index: Path, kind: str, images: int, added: int) -> Iterator[dict[str, Any]]:
    """Publish and search, in this process and build."""
    clouds = Clouds(DIM), other(kind)
    vectors = np.concatenate(
        [
            clouds[0].pictures(0, images),
            clouds[1].pictures(1, added),
            clouds[0].pictures(2, 1),
            clouds[1].pictures(3, 1),
        ]
    )
    queries = texts(clouds, 2, QUERIES)
    scores = queries @ vectors.astype(np.float16).astype(np.float32).T
    counts = (0, images, images + added, images + added + 1, images + added + 2)
    for first, last in itertools.pairwise(counts):
        with IndexWriter.open(index, FINGERPRINT) as writer:
            if not first:
                writer.set_queries(texts(clouds, 0, TUNING))
            insert(writer, first, vectors[first:last])
            begin, computed = time.perf_counter(), time.process_time()
            writer.publish()
            publishing, computing = time.perf_counter() - begin, time.process_time() - computed
        nearest = np.argpartition(-scores[:, :last], K - 1, axis=1)[:, :K]
        with IndexReader.open(index) as reader:
            reader.recall(queries[:1], K)  # loads the files
            hits, seconds = 0, []
            for query, true in zip(queries, nearest, strict=True):
                begin = time.perf_counter()
                found = reader.recall(query[None], K)[0]
                seconds.append(time.perf_counter() - begin)
                hits += len({neighbour.image - 1 for neighbour in found} & set(true.tolist()))
            tuning = reader.summary().tuning
        yield {
            "images": last,
            "publish_s": publishing,
            "publish_cpu_s": computing,
            "lists": tuning and f"{tuning.effort} of {tuning.lists}",
            "candidates": tuning and tuning.candidates,
            "trained": tuning and tuning.trained,
            "recall": hits / nearest.size,
            "p50_ms": 1000 * float(np.median(seconds)),
        }


class Build:
    """A process of the build in `tree`, which does a step at a time."""

    def __init__(self, tree: Path, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *options],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(tree / "core"), str(tree)])},  # before what is installed
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not Path(build := self._line()).is_relative_to(tree):
            raise SystemExit(f"{build} runs, not the build in {tree}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def step(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        row: dict[str, Any] = self._line()
        return row

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a build ended with {self._process.wait()}")
        return json.loads(line)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE, metavar="BUILD", help="a folder or a commit (%(default)s)")
    parser.add_argument("--images", type=int, default=52_000, help="of the first cloud (%(default)s)")
    parser.add_argument("--added", type=int, default=8_000, help="pictures (%(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what differs in these (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)  # in the process of a `Build`
    parser.set_defaults(rounds=QUERIES)
    return parser


def main() -> None:
    args = parser().parse_args()
    if args.index is not None:
        print(json.dumps(bridgetower.__file__), flush=True)
        for _, row in zip(sys.stdin, steps(args.index, args.kinds[0], args.images, args.added), strict=False):
            print(json.dumps(row), flush=True)
        return
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        trees = {"before": tree_of(args.before, scratch), "now": ROOT}
        sizes = ["--images", str(args.images), "--added", str(args.added)]
        for kind in args.kinds:
            with contextlib.ExitStack() as running:
                builds = {
                    name: running.enter_context(
                        Build(tree, "--index", str(scratch / f"{kind}-{name}"), "--kinds", kind, *sizes)
                    )
                    for name, tree in trees.items()
                }
                for _ in range(STEPS):
                    for name, build in builds.items():
                        report.add(differs=kind, contender=name, **build.step())


if __name__ == "__main__":
    main()
