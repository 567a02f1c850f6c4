"""Searches beside other programs that keep every core busy: this build against another one, usually the one before.

    python benchmarks/busy.py --before e3f6369 --size demo base

A process of each build, warm, takes turns with the other; first on the machine as it is, then beside one busy process
for each core. The builds share the libraries that are installed, and nothing else.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.checkpoints import checkpoint
from benchmarks.harness import PRECISIONS, Report, Times, command_line
from benchmarks.pictures import photo_folder
from bridgetower.encoders.runtime import choose_runtime

ROOT = Path(__file__).parents[1]
BEFORE = "e3f6369"  # the last commit that left waiting and threads to the libraries
LIMITS = {"fp32": 1e-4, "bf16": 0.02, "int8": 0.05}  # of the difference between the builds in a similarity or a match


class Warm:
    """A process of the build in `tree`, which does on demand what warm.py says."""

    def __init__(self, tree: Path, photos: Path, model: Path, precision: str, index: Path, searches: int) -> None:
        arguments = [str(photos), str(model), precision, str(index), str(searches)]
        paths = os.pathsep.join([str(tree / "core"), str(tree)])  # before what is installed
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py")), *arguments],
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer = json.loads(self._line())
        if not Path(self._answer["build"]).is_relative_to(tree):
            raise SystemExit(f"{self._answer['build']} runs, not the build in {tree}")
        self.found: dict[str, dict[str, float]] = self._answer["found"]  # score by picture, by job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def seconds(self, job: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{job}\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"warm.py ended with {self._process.wait()}")
        return line


# Ends with its parent, also where that is killed.
SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can."""
    started = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def check(before: Warm, now: Warm, precision: str) -> None:
    """Both builds find the same. Raises SystemExit."""
    for job, scores in before.found.items():
        both = scores.keys() & now.found[job].keys()
        if len(both) < 0.9 * len(scores):  # the last of the best may change places
            raise SystemExit(f"{job}: the builds find other pictures")
        error = max(abs(now.found[job][name] - scores[name]) for name in both)
        if not error <= LIMITS[precision]:
            raise SystemExit(f"{job}: the builds differ by {error:.1e}")


def build(before: str, scratch: Path) -> Path:
    """The folder of the other build: `before` itself, or what git has of that commit, below `scratch`."""
    if Path(before).is_dir():
        return Path(before).absolute()
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", before], capture_output=True, check=False)
    if packed.returncode:
        raise SystemExit(f"--before {before}: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(scratch / "before", filter="data")
    return scratch / "before"


def photos_for(size: str, work: Path) -> Path:
    """The gallery for "demo"; few small pictures for the others, as the large network takes a second for each."""
    return ROOT / "examples" / "gallery" if size == "demo" else photo_folder(work, 4, 640, 480).absolute()


def main() -> None:
    options = command_line(__doc__, sizes=["demo"], rounds=9)
    options.add_argument("--before", default=BEFORE, metavar="BUILD", help="a folder or a commit (%(default)s)")
    options.add_argument("--precision", nargs="+", choices=PRECISIONS, help="(that of `auto`)")
    args = options.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        trees = {"before": build(args.before, scratch), "now": ROOT}
        for size in args.size:
            photos, model = photos_for(size, args.work), checkpoint(size, args.work).absolute()
            searches = 1 if size in ("base", "large") else 5
            for precision in args.precision or [choose_runtime("cpu").precision]:
                given = (photos, model, precision)
                with contextlib.ExitStack() as running:
                    sides = {
                        name: running.enter_context(
                            Warm(tree, *given, scratch / f"{size}-{precision}-{name}", searches)
                        )
                        for name, tree in trees.items()
                    }
                    check(sides["before"], sides["now"], precision)
                    for load in (0, cores):
                        with busy(load):
                            measure(report, sides, args.rounds, size=size, precision=precision, busy=load)


def measure(report: Report, sides: dict[str, Warm], rounds: int, **fields: str | int) -> None:
    """Each side does each job once a round."""
    seconds: dict[tuple[str, str], list[float]] = {(job, side): [] for job in sides["now"].found for side in sides}
    for _ in range(rounds):
        for job, side in seconds:
            seconds[job, side].append(sides[side].seconds(job))
    times = {key: Times(tuple(measured)) for key, measured in seconds.items()}
    for (job, side), measured in times.items():
        report.add(measured, **fields, job=job, contender=side, x_before=times[job, "before"].median / measured.median)


if __name__ == "__main__":
    main()
