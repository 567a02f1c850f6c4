"""The first search of an index, cold and after `bt index --keep-features`, against another build, cold.

    python benchmarks/kept.py --before 980869d --size large --precision fp32 bf16

Whole processes, which take turns. Each verifies 20 pictures; the weights are in the cache of the disk. Both builds give
the same matches within the limits of benchmarks/busy.py, or the run ends.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.busy import LIMITS, ROOT
from benchmarks.busy import build as tree_of
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import PRECISIONS, Report, command_line, take_turns
from benchmarks.pictures import photo_folder

BEFORE = "980869d"  # the last commit that kept no features at indexing
PICTURES = 20
TEXT = "two cats on a couch"
KEEP = "10GB"


class Build:
    """A build with an index of its own."""

    def __init__(self, tree: Path, model: Path, precision: str, photos: Path, index: Path, *options: str) -> None:
        paths = os.pathsep.join([str(tree / "core"), str(tree)])  # before what is installed
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("BT_")} | {"PYTHONPATH": paths}
        self._given = ["--index", str(index), "--precision", precision]
        self._bt("index", str(photos), "--model", str(model), *self._given, *options)

    def search(self, *options: str) -> dict[str, float]:
        """Return the match of each picture."""
        lines = self._bt("search", TEXT, "--json", "--top", str(PICTURES), *self._given, *options).splitlines()
        return {Path(row["path"]).name: row["match"] for row in map(json.loads, lines)}

    def _bt(self, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "bridgetower_cli", *arguments]  # not what is in the current folder
        return subprocess.run(command, env=self._environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def size_of(index: Path) -> float:
    """Return the megabytes that a picture takes of the features that are kept."""
    return sum(file.stat().st_size for file in (index / "features").iterdir()) / 1e6 / PICTURES


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["large"], rounds=3)
    options.add_argument("--before", default=BEFORE, metavar="BUILD", help="a folder or a commit (%(default)s)")
    options.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["bf16", "fp32"], help="(%(default)s)")
    return options


def main() -> None:
    args = parser().parse_args()
    photos = photo_folder(args.work, PICTURES, 640, 480).absolute()
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as scratch:
        before = tree_of(args.before, Path(scratch))
        for size in args.size:
            model = checkpoint(size, args.work).absolute()
            for precision in args.precision:
                place = Path(scratch) / f"{size}-{precision}"
                place.mkdir()
                old = Build(before, model, precision, photos, place / "before")
                cold = Build(ROOT, model, precision, photos, place / "cold")
                kept = Build(ROOT, model, precision, photos, place / "kept", "--keep-features", KEEP)
                contenders: dict[str, Callable[[], dict[str, float]]] = {
                    "before, cold": partial(old.search, "--features-cache", "0"),
                    "bt, cold": partial(cold.search, "--features-cache", "0"),
                    "bt, kept": kept.search,
                }
                found = {name: search() for name, search in contenders.items()}
                wrong = max(abs(found["before, cold"][name] - match) for name, match in found["bt, kept"].items())
                if wrong > LIMITS[precision] or found["bt, kept"] != found["bt, cold"]:
                    raise SystemExit(f"{size} {precision}: the matches differ by {wrong}")
                times = take_turns(contenders, args.rounds)
                for name, measured in times.items():
                    report.add(
                        measured,
                        size=size,
                        precision=precision,
                        contender=name,
                        x_before=times["before, cold"].median / measured.median,
                        mb_a_picture=size_of(place / "kept") if name == "bt, kept" else None,
                    )


if __name__ == "__main__":
    main()
