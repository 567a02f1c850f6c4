"""A small index of made-up pictures, what it should answer, and processes that work on it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import bridgetower
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File, Fingerprint

DIM = 16
FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", DIM)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(bridgetower.__file__).parents[1]), "OMP_NUM_THREADS": "1"}

# What the subprocesses of these tests begin with; `vector` and `image` as below.
PRELUDE = f"""
import hashlib, os, sys, time
from pathlib import Path
import numpy as np
from bridgetower.records import File, Fingerprint, WalkedFile
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import NewImage, IndexWriter
FINGERPRINT = {FINGERPRINT!r}
def image(number):
    vector = np.random.default_rng(number).normal(size={DIM}).astype(np.float32)
    return NewImage(hashlib.sha256(b"%d" % number).digest(), 640, 480, None, vector / np.linalg.norm(vector))
def file(number):
    return File(Path(f"/photos/{{number}}.jpg"), number, 7), image(number).hash
"""


def image(number: int) -> NewImage:
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return NewImage(hashlib.sha256(b"%d" % number).digest(), 640, 480, None, vector / np.linalg.norm(vector))


def path_of(number: int) -> Path:
    return Path(f"/photos/{number}.jpg")


def file(number: int) -> tuple[File, bytes]:
    return File(path_of(number), number, 7), image(number).hash


def add(writer: IndexWriter, *numbers: int) -> None:
    writer.commit(images=[image(n) for n in numbers], files=[file(n) for n in numbers])


def build(directory: Path, *numbers: int, finish: bool = True) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.add_root(Path("/photos"))
        add(writer, *numbers)
        if finish:
            writer.finish()


def answer(store: IndexReader, query: NDArray[np.float32], k: int = 1000) -> list[tuple[str, float]]:
    (neighbours,) = store.recall(query[None], k)
    return [(store.catalog.paths_of(image)[0].stem, similarity) for image, similarity in neighbours]


def assert_holds(directory: Path, *numbers: int) -> None:
    """The index finds exactly these pictures, with the scores of comparing one by one."""
    query = image(-1 % 2**32).vector
    with IndexReader.open(directory) as store:
        assert_answers(store, query, *numbers)


def assert_answers(store: IndexReader, query: NDArray[np.float32], *numbers: int) -> None:
    rounded = {n: image(n).vector.astype(np.float16).astype(np.float64) for n in numbers}
    scores = {n: float(rounded[n] @ query.astype(np.float64)) for n in numbers}
    expected = sorted(numbers, key=lambda n: -scores[n])
    found = answer(store, query)
    assert [name for name, _ in found] == [str(n) for n in expected]
    np.testing.assert_allclose([score for _, score in found], [scores[n] for n in expected], rtol=0, atol=1e-6)
    assert len(store) == len(numbers)


def vector_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("vectors*"))


def run(program: str, *arguments: str | Path) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout.splitlines()


def start(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
