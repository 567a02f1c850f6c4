"""From the command to the prompt: whole processes, on an index of 10,000 pictures with the demo model.

    python benchmarks/starting.py --rounds 20

Beside them `python -c pass`, below which no Python program gets, and `import torch`, below which none with a network.
"""

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import processes
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Report, command_line, take_turns
from benchmarks.pictures import photo
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.torch_encoder import fingerprint_of
from bridgetower.index.catalog.schema import FORMAT_VERSION
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File

FIRST_ROW = "bt search, its first row on a terminal"
PYTHON, TORCH = "python -c pass", 'python -c "import torch"'
QUERY = "two cats on a couch"


def synthetic_index(model: Path, images: int, work: Path) -> Path:
    """An index of random vectors, written into `work` if it is not there, and files for the search to read.

    The files are one small JPEG under many names: 20 of them are decoded by a search that verifies.
    """
    fingerprint = fingerprint_of(resolve(str(model)), "fp32")
    folder = work / f"index-{FORMAT_VERSION}-{images}-{fingerprint.weights_sha256[:12]}"
    if (folder / "complete").exists():
        return folder / "index"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first = folder / "photo.jpg"
    photo(0).save(first, "JPEG")
    random = np.random.default_rng(0)
    vectors = random.standard_normal((images, fingerprint.dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    new, files = [], []
    for number, vector in enumerate(vectors):
        file = (folder / f"{number:06}.jpg").absolute()
        os.link(first, file)
        status = file.stat()
        hash = hashlib.sha256(str(number).encode()).digest()
        new.append(NewImage(hash, 640, 480, None, vector))
        files.append((File.of(file, status), hash))
    with IndexWriter.open(folder / "index", fingerprint) as writer:
        writer.commit(images=new, files=files)
        writer.finish()
    (folder / "complete").touch()
    return folder / "index"


def commands(index: Path) -> dict[str, list[str]]:
    """What is run, by name."""
    search = [processes.BT, "search", QUERY, "--index", str(index)]
    return {
        PYTHON: [sys.executable, "-c", "pass"],
        TORCH: [sys.executable, "-c", "import torch"],
        "bt --help": [processes.BT, "--help"],
        "bt status": [processes.BT, "status", "--index", str(index)],
        "bt search --no-rerank": [*search, "--no-rerank"],
        "bt search": search,
    }


def check(index: Path, images: int) -> None:
    """The commands do what they say. Raises SystemExit."""
    with IndexReader.open(index) as store:
        if len(store) != images:
            raise SystemExit(f"{index}: holds {len(store)} pictures, not {images}; remove it")
    *others, search = commands(index).values()
    for command in others:
        processes.run(command)
    verified = processes.run([*search, "--json"]).count('"verified": true')
    if verified != 10:
        raise SystemExit(f"bt search is wrong: {verified} of its 10 results are verified")


def images_for(size: str) -> int:
    """ "tiny" only shows that everything works."""
    return 100 if size == "tiny" else 10_000


def parser() -> argparse.ArgumentParser:
    return command_line(__doc__, sizes=["demo"], rounds=20)


def main() -> None:
    args = parser().parse_args()
    with Report(Path(__file__).stem, args) as report:
        for size in args.size:
            images = images_for(size)
            index = synthetic_index(checkpoint(size, args.work).absolute(), images, args.work)
            check(index, images)
            runs: dict[str, Callable[[], object]] = {
                name: partial(processes.run, command) for name, command in commands(index).items()
            }
            search = [processes.BT, "search", QUERY, "--index", str(index)]
            runs[FIRST_ROW] = partial(processes.until, search, b".jpg")
            times = take_turns(runs, args.rounds)
            for name, measured in times.items():
                report.add(
                    measured,
                    size=size,
                    contender=name,
                    images=images,
                    more_than_python=measured.median - times[PYTHON].median,
                    more_than_torch=measured.median - times[TORCH].median,
                    x_torch=measured.median / times[TORCH].median,
                )


if __name__ == "__main__":
    main()
