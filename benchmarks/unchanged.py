"""`bt index` on 10,000 files in 100 folders that it knows: unchanged, and below a folder that was renamed.

    python benchmarks/unchanged.py --rounds 9

Beside it `find`, which asks the system for the same names, sizes and times, and `bt index` of an empty folder, which is
what starting costs. The files hold a few bytes each and no picture: whatever was decoded would be skipped, and told.
"""

import argparse
import hashlib
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import processes
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Report, command_line, take_turns
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.torch_encoder import fingerprint_of
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import File

FIND, START = "find -printf '%s %T@ %p\\n'", "bt index, an empty folder"
UNCHANGED, RENAMED = "bt index, unchanged", "bt index, a folder renamed"
BATCH = 1000


def known_tree(model: Path, files: int, work: Path) -> Path:
    """A folder with `photos`, 100 folders of files below one, and `index`, which knows them; written into `work` anew.

    Beside them `empty`, a folder without files, and `index-empty`, which has been there before, too.
    """
    fingerprint = fingerprint_of(resolve(str(model)), "fp32")
    folder = (work / f"unchanged-{files}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    paths = [folder / "photos" / "2025" / f"{at % 100:02}" / f"{at:06}.jpg" for at in range(files)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (folder / "empty").mkdir()
    random = np.random.default_rng(0)
    with IndexWriter.open(folder / "index", fingerprint) as writer:
        for start in range(0, files, BATCH):
            batch = paths[start : start + BATCH]
            vectors = random.standard_normal((len(batch), fingerprint.dim), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            hashes = [hashlib.sha256(path.read_bytes()).digest() for path in batch]
            known = [File.of(path, path.stat()) for path in batch]
            writer.commit(
                images=[NewImage(hash, 8, 8, None, vector) for hash, vector in zip(hashes, vectors, strict=True)],
                files=list(zip(known, hashes, strict=True)),
            )
        writer.finish()
    first = hashlib.sha256(b"empty").digest()
    with IndexWriter.open(folder / "index-empty", fingerprint) as writer:
        writer.commit(images=[NewImage(first, 8, 8, None, np.eye(1, fingerprint.dim, dtype=np.float32)[0])])
        writer.finish()
    return folder


def commands(folder: Path) -> dict[str, list[str]]:
    """What is run, by name."""
    photos, empty = str(folder / "photos"), str(folder / "empty")
    return {
        FIND: ["find", photos, "-printf", "%s %T@ %p\\n"],
        START: [processes.BT, "index", empty, "--index", str(folder / "index-empty")],
        UNCHANGED: [processes.BT, "index", photos, "--index", str(folder / "index")],
    }


def rename(folder: Path) -> None:
    """Give the folder above all files its other name."""
    one, other = folder / "photos" / "2025", folder / "photos" / "2026"
    one.rename(other) if one.exists() else other.rename(one)


def run_renamed(folder: Path) -> str:
    rename(folder)
    return processes.said(commands(folder)[UNCHANGED])


def check(folder: Path, files: int) -> None:
    """The commands do what they say. Raises SystemExit."""
    find, start, unchanged = commands(folder).values()
    if processes.run(find).count(".jpg\n") != files:
        raise SystemExit("find does not find the files")
    expected = {
        processes.said(start): "indexed 0, reused 0, unchanged 0, removed 0, skipped 0: 0 files",
        processes.said(unchanged): f"indexed 0, reused 0, unchanged {files}, removed 0, skipped 0",
        run_renamed(folder): f"indexed 0, reused {files}, unchanged 0, removed {files}, skipped 0",  # none was decoded
    }
    for said, wanted in expected.items():
        if wanted not in said:
            raise SystemExit(f"bt index is wrong: it says {said}, not {wanted}")


def files_for(size: str) -> int:
    """ "tiny" only shows that everything works."""
    return 200 if size == "tiny" else 10_000


def parser() -> argparse.ArgumentParser:
    return command_line(__doc__, sizes=["demo"], rounds=9)


def main() -> None:
    args = parser().parse_args()
    with Report(Path(__file__).stem, args) as report:
        for size in args.size:
            files = files_for(size)
            folder = known_tree(checkpoint(size, args.work).absolute(), files, args.work)
            check(folder, files)
            runs = {name: partial(processes.run, command) for name, command in commands(folder).items()}
            times = take_turns({**runs, RENAMED: partial(run_renamed, folder)}, args.rounds)
            for name, measured in times.items():
                more = measured.median - times[START].median
                walks = name in (UNCHANGED, RENAMED)
                report.add(
                    measured,
                    size=size,
                    contender=name,
                    files=files,
                    more_than_start=more if walks else None,
                    x_find=more / times[FIND].median if walks else None,
                )


if __name__ == "__main__":
    main()
