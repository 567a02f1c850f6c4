"""`bt index` on a folder of 12-megapixel JPEG files, whole process, against decoding and embedding in turn.

    python benchmarks/indexing.py --photos 64

Against plain_indexing.py, which does the same one after the other. The demo model is small, so that decoding decides;
with --size base or large, the network does. The files were read before: the disk's cache is warm for both.
"""

import argparse
import hashlib
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import processes
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Array, Report, command_line, take_turns
from benchmarks.pictures import photo_folder
from bridgetower.index.reader import IndexReader

PLAIN = "Pillow and the network in turn"
LIMIT = 1e-3  # of 1 - cosine: files may be decoded in another way, as long as the vectors stay


def commands(photos: Path, model: Path, out: Path) -> dict[str, list[str]]:
    """What is run, by name; both write to `out`, which must not exist."""
    plain = Path(__file__).with_name("plain_indexing.py")
    return {
        PLAIN: [sys.executable, str(plain), str(photos), str(model), f"{out}.npy"],
        "bt index": [processes.BT, "index", str(photos), "--model", str(model), "--index", str(out)],
    }


def check(photos: Path, model: Path, out: Path) -> None:
    """Both give the same vectors. Raises SystemExit."""
    for command in commands(photos, model, out).values():
        processes.run(command)
    reference: Array = np.load(f"{out}.npy")
    with IndexReader.open(out) as store:
        hashes = [hashlib.sha256(file.read_bytes()).digest() for file in sorted(photos.glob("*.jpg"))]
        stored = {entry.hash: np.frombuffer(entry.vector, "<f2") for entry in store.catalog.entries()}
    vectors = [stored[hash].astype(np.float32) for hash in hashes if hash in stored]
    if len(vectors) != len(reference):
        raise SystemExit(f"bt index is wrong: it has {len(vectors)} of {len(reference)} pictures")
    error = 1 - (np.stack(vectors) * reference).sum(axis=1).min()
    if not error <= LIMIT:
        raise SystemExit(f"bt index is wrong: a vector is {error:.1e} from that of {PLAIN}")


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["demo"], rounds=5)
    options.add_argument("--photos", type=int, help="how many (64)")
    return options


def photos_for(size: str, args: argparse.Namespace) -> Path:
    """12 megapixels, but for "tiny", which only shows that everything works."""
    if size == "tiny":
        return photo_folder(args.work, args.photos or 4, 640, 480)
    return photo_folder(args.work, args.photos or 64, 4000, 3000)


def start(name: str, photos: Path, model: Path, scratch: Path) -> None:
    """Run one of the commands, into a folder of its own."""
    processes.run(commands(photos, model, Path(tempfile.mkdtemp(dir=scratch)) / "index")[name])


def main() -> None:
    args = parser().parse_args()
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for size in args.size:
            photos, model = photos_for(size, args), checkpoint(size, args.work).absolute()
            number = len(list(photos.iterdir()))
            check(photos, model, scratch / size)
            runs = {name: partial(start, name, photos, model, scratch) for name in (PLAIN, "bt index")}
            times = take_turns(runs, args.rounds)
            for name, measured in times.items():
                report.add(
                    measured,
                    size=size,
                    contender=name,
                    pictures_per_s=number / measured.median,
                    x_plain=times[PLAIN].median / measured.median,
                )


if __name__ == "__main__":
    main()
