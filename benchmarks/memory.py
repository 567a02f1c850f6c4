"""The most memory that each of the other benchmarks' contenders takes, each in a process of its own.

    python benchmarks/memory.py --size demo base large

Resident memory at its peak, Python and libraries included. Weights that are memory-mapped count as far as they were
read, though the system may drop those pages and read them again.
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import embedding, indexing, processes, reranking, starting, text
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Report, chosen, command_line

NETWORKS = {"embedding": embedding, "reranking": reranking, "text": text}  # run in their own process
BENCHMARKS = (*NETWORKS, "indexing", "starting")


def commands(benchmark: str, size: str, work: Path, out: Path) -> dict[str, list[str]]:
    """What the contenders of a benchmark are, by name; an index is written to `out`, which must not exist."""
    if benchmark in NETWORKS:
        script = NETWORKS[benchmark]
        options = ["--size", size, "--work", str(work)]
        args = script.parser().parse_args(options)
        names = [contender.name for contender in chosen(script.contenders(size, args), args)]
        return {name: [sys.executable, str(script.__file__), *options, "--only", name] for name in names}
    model = checkpoint(size, work).absolute()
    if benchmark == "indexing":
        photos = indexing.photos_for(size, indexing.parser().parse_args(["--work", str(work)]))
        return indexing.commands(photos, model, out)
    return starting.commands(starting.synthetic_index(model, starting.images_for(size), work))


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["demo", "base", "large"], rounds=1)
    options.add_argument("--of", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="whose contenders (all)")
    return options


def main() -> None:
    args = parser().parse_args()
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as scratch:
        for size in args.size:
            for of in args.of:
                peaks: dict[str, list[float]] = defaultdict(list)
                for number in range(args.rounds):
                    out = Path(scratch) / f"{size}-{number}"
                    for contender, command in commands(of, size, args.work, out).items():
                        peaks[contender].append(processes.peak(command) / 1e6)
                for contender, megabytes in peaks.items():
                    report.add(size=size, of=of, contender=contender, peak_mb=statistics.median(megabytes))


if __name__ == "__main__":
    main()
