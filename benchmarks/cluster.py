"""`bt index` on a folder of photographs by three workers, whole process: on a Ray cluster, and without.

    python benchmarks/cluster.py --photos 800

The workers of the cluster decode the files, one thread each; the process decodes with three. The demo model is small,
so that decoding decides. The files are WebP files of 2 megapixels: each takes about as long to decode as a JPEG file
of 12, which is decoded at an eighth of its size, and has a tenth of its bytes. A run on 800 of them takes some 25 s
on two cores, so that the start of either side is a small part. The cluster is there before the clock starts, its
workers are not: they start with each run. A run on a single file is timed, too. "x beyond" compares the seconds
beyond those of that run.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks import processes
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Report, command_line, take_turns
from benchmarks.pictures import photo_folder
from bridgetower.index.reader import IndexReader

WORKERS = 3
LOCAL, RAY = "--engine local", "--engine ray"
SHAPE = (1600, 1200)
_START_S = 120.0


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Start Ray with a processor for each worker; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        port, client = (free.getsockname()[1] for free in (first, second))
    log = folder / "log"
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--num-cpus={WORKERS}"]
    command += [f"--port={port}", f"--ray-client-server-port={client}", "--node-ip-address=127.0.0.1"]
    command += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with open(log, "wb") as output:
        head = subprocess.Popen([*command, f"--temp-dir={folder}"], stdout=output, stderr=output, env=environment)
    try:
        until = time.monotonic() + _START_S
        while b"Ray runtime started" not in log.read_bytes():
            if head.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"Ray did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait()


def commands(photos: Path, model: Path, out: Path) -> dict[str, list[str]]:
    """The commands, by name; each writes to `out`, which must not exist."""
    index = [processes.BT, "index", str(photos), "--model", str(model), "--index", str(out), f"--workers={WORKERS}"]
    return {LOCAL: index, RAY: [*index, "--engine", "ray", "--shared-paths"]}


def start(name: str, photos: Path, model: Path, scratch: Path) -> Path:
    """Run one of the commands; return its index."""
    out = Path(tempfile.mkdtemp(dir=scratch)) / "index"
    processes.run(commands(photos, model, out)[name])
    return out


def vectors(index: Path) -> dict[bytes, bytes]:
    """The vectors of an index, by content."""
    with IndexReader.open(index) as reader:
        return {entry.hash: entry.vector for entry in reader.catalog.entries()}


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["demo"], rounds=3)
    options.add_argument("--photos", type=int, default=800, help="how many (%(default)s)")
    return options


def main() -> None:
    args = parser().parse_args()
    if find_spec("ray") is None:
        raise SystemExit("Ray is not installed: pip install -c constraints.txt '.[ray]'")
    # A short folder: Ray keeps sockets in it, whose paths have at most 107 bytes.
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        scratch = Path(folder)
        with cluster(scratch) as os.environ["RAY_ADDRESS"]:
            for size in args.size:
                photos = photo_folder(args.work, args.photos, *SHAPE, suffix="webp", quality=50)
                model = checkpoint(size, args.work).absolute()
                folders = {1: next(photos.iterdir()), len(list(photos.iterdir())): photos}
                runs = {
                    (number, name): partial(start, name, folder, model, scratch)
                    for number, folder in folders.items()
                    for name in (LOCAL, RAY)
                }
                many = max(folders)
                if vectors(runs[many, LOCAL]()) != vectors(runs[many, RAY]()):
                    raise SystemExit("--engine ray is wrong: its vectors are others than those of --engine local")
                times = take_turns(runs, args.rounds)
                beyond = {name: times[many, name].median - times[1, name].median for name in (LOCAL, RAY)}
                for (number, name), measured in times.items():
                    report.add(
                        measured,
                        size=size,
                        contender=name,
                        pictures=number,
                        x_local=times[number, LOCAL].median / measured.median,
                        x_beyond=beyond[LOCAL] / beyond[name] if number == many else None,
                    )


if __name__ == "__main__":
    main()
