"""What the benchmarks share: their command line, turns on the clock, and the report.

Contenders take turns, A B C A B C, so that whatever else the machine does falls on all of them alike; figures are
medians over the rounds. Before the clock starts each contender runs once, and its result is compared with that of the
reference: a wrong result is not timed.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks import machine
from benchmarks.checkpoints import NAMES

Array = npt.NDArray[np.float32]
_Name = TypeVar("_Name")

WORK = Path("runs/benchmarks")
PRECISIONS = ("fp32", "bf16", "int8")
DOCUMENTED = "transformers, documented"
EXPERT = "transformers, expert"


# The command line


def command_line(doc: str | None, *, sizes: Sequence[str], rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have; `sizes` and `rounds` are the defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=NAMES, default=sizes, help="of the network (%(default)s)")
    parser.add_argument("--rounds", type=int, default=rounds, help="that are timed (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    parser.add_argument("--work", type=Path, default=WORK, help="what is made once is kept here (%(default)s)")
    return parser


def network_command_line(doc: str | None) -> argparse.ArgumentParser:
    """The options of the benchmarks that run networks in their own process."""
    parser = command_line(doc, sizes=["base", "large"], rounds=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="for both sides (%(default)s)")
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, help="those to run (all that the device computes in natively)"
    )
    parser.add_argument("--only", metavar="NAME", help="run this contender once, alone and unchecked: for profilers")
    return parser


# The clock


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one contender, round by round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """From the fastest round to the slowest, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def take_turns(contenders: Mapping[_Name, Callable[[], object]], rounds: int) -> dict[_Name, Times]:
    """Time each contender once a round, in order."""
    seconds: dict[_Name, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: Times(tuple(measured)) for name, measured in seconds.items()}


# The report


class Report:
    """Collects rows: each is a JSON line at once, all are a Markdown table at the end."""

    def __init__(self, benchmark: str, args: argparse.Namespace) -> None:
        self.rows: list[dict[str, Any]] = []
        self._file: Path | None = args.json
        facts = machine.describe(getattr(args, "device", "cpu"))
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._common = {"benchmark": benchmark, "at": at, "rounds": args.rounds, "machine": facts}
        self._heading = ", ".join(f"{name} {value}" for name, value in facts.items())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.rows:  # also of a run that broke off
            sys.stdout.write(f"{self._common['benchmark']}: {self._heading}\n\n{as_table(self.rows)}\n\n")

    def add(self, times: Times | None = None, /, **fields: Any) -> None:
        """A row; its `times` become a median, a spread and, in JSON, all the rounds."""
        row = fields | ({"seconds": times.median, "spread": times.spread} if times else {})
        self.rows.append(row)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            line = self._common | row | ({"all_seconds": times.seconds} if times else {})
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, legible as it is; the fields of all rows, in the order in which they first occur."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    header = [column.replace("_", " ") for column in columns]
    cells = [header, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [all(not isinstance(row.get(column), str) for row in rows) for column in columns]
    lines = [
        " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True))
        for line in cells
    ]
    rule = "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True))
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


# Networks against each other


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work."""

    side: str  # "bt", DOCUMENTED or EXPERT, with what sets it apart
    precision: str
    prepare: Callable[[], Callable[[], Array]]  # loads what is needed and returns what is timed
    items: int  # that one run does
    flop: int  # that one run needs, by benchmarks/flops.py

    @property
    def name(self) -> str:
        return f"{self.side}, {self.precision}"


def chosen(contenders: Iterable[Contender], args: argparse.Namespace) -> list[Contender]:
    """Those in the precisions that were asked for, after the first, which is the reference.

    What a device does not compute in natively is not compared unless asked for: bf16 on such a processor takes ten
    times as long as fp32.
    """
    reference, *others = contenders
    precisions = args.precision or machine.precisions(args.device)
    return [reference, *(contender for contender in others if contender.precision in precisions)]


def compare_each_size(
    benchmark: str,
    args: argparse.Namespace,
    contenders: Callable[[str, argparse.Namespace], Iterable[Contender]],
    *,
    unit: str,
    error: Callable[[Array, Array], float],
    limits: Mapping[str, float],
) -> None:
    """Report `compare` of the contenders of each size."""
    with Report(benchmark, args) as report:
        for size in args.size:
            compare(report, contenders(size, args), args, size=size, unit=unit, error=error, limits=limits)


def compare(
    report: Report,
    contenders: Iterable[Contender],
    args: argparse.Namespace,
    *,
    size: str,
    unit: str,
    error: Callable[[Array, Array], float],
    limits: Mapping[str, float],
) -> None:
    """Run the contenders against the first of them, and all of them against the ceilings of their precisions.

    `error` says how far a result is from that of the first; SystemExit where it exceeds the limit of the precision.
    """
    if args.only is not None:
        named = {contender.name: contender for contender in contenders}
        if args.only not in named:
            raise SystemExit(f"{args.only} is none of: {'; '.join(named)}")
        named[args.only].prepare()()
        return
    contenders = chosen(contenders, args)
    runs = {contender.name: contender.prepare() for contender in contenders}
    results = {name: run() for name, run in runs.items()}
    first = contenders[0]
    reference = results[first.name]
    if not error(np.roll(reference, 1, axis=0), reference) > limits["fp32"]:
        raise SystemExit(f"{size}: the items are too alike: rows in a wrong order would pass for right")
    errors = {name: error(result, reference) for name, result in results.items()}
    for contender in contenders:
        if len(results[contender.name]) != contender.items:
            raise SystemExit(f"{size}: {contender.name} is wrong: {len(results[contender.name])} results")
        if not errors[contender.name] <= limits[contender.precision]:  # NaN is wrong, too
            raise SystemExit(f"{size}: {contender.name} is wrong: {errors[contender.name]:.1e} from {first.name}")

    side = 512 if size in ("tiny", "demo") else 4096
    products = {p: machine.product(p, args.device, side) for p in dict.fromkeys(c.precision for c in contenders)}
    ceilings = {f"ceiling, {p}": run for p, run in products.items() if run is not None}
    for run in ceilings.values():
        run()
    times = take_turns({**runs, **ceilings}, args.rounds)

    rates = {name: 2 * side**3 / times[name].median for name in ceilings}
    for contender in contenders:
        measured, ceiling = times[contender.name], rates.get(f"ceiling, {contender.precision}")
        rate = contender.flop / measured.median
        per_item = measured.median / contender.items
        report.add(
            measured,
            size=size,
            contender=contender.name,
            error=errors[contender.name],
            **{f"{unit}_per_s": 1 / per_item},
            x_documented=times[first.name].median / first.items / per_item,
            gflop_per_s=rate / 1e9,
            of_ceiling=None if ceiling is None else rate / ceiling,
        )
    for name, rate in rates.items():
        report.add(times[name], size=size, contender=name, gflop_per_s=rate / 1e9)
