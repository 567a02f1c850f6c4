"""A warm server beside commands that do the work themselves, on the drawn gallery, whose features are kept.

    python benchmarks/serving.py --rounds 15

Whole processes: `bt search` with a server and without. By HTTP: searches of 10,000 pictures that verify nothing, beside
the encoder and recall alone. In one process: 16 threads that ask an engine at once beside the same queries one after
the other; the median and the 99th percentile of a query. Then the memory of an engine after many queries beside that
after 100.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from benchmarks import processes
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Report, Times, command_line, take_turns
from benchmarks.starting import synthetic_index
from bridgetower import Library, SearchRequest
from bridgetower.index.reader import IndexReader
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.local.client import look

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
QUERY = "two cats on a couch"
CLIENTS = 16
HTTP_QUERIES = 200
TEXTS = [
    " ".join(words)
    for words in product(
        ("a", "two", "three", "an old", "one small"),
        ("cats", "dog", "owl at night", "giraffe"),
        ("on a couch", "in the desert", "in a car", "playing the piano by the window"),
    )
]


def index_of_gallery(model: Path, pictures: int, work: Path) -> Path:
    """An index of the first pictures of the gallery with their features, written into `work` if it is not there."""
    index = work / f"served-{pictures}-{model.name}"
    photos = sorted(GALLERY.glob("*.jpg"))[:pictures]
    command = [processes.BT, "index", *map(str, photos), "--model", str(model), "--index", str(index)]
    processes.run([*command, "--keep-features", "8GB"])
    return index


def served(index: Path, report: Report, size: str, rounds: int) -> None:
    """Commands with a server and without, in turns. Raises SystemExit unless they print the same."""
    at = ["--index", str(index)]
    search = [processes.BT, "search", QUERY, *at]
    commands = {
        "bt --help": [processes.BT, "--help"],
        "bt search --no-rerank, served": [*search, "--no-rerank"],
        "bt search --no-rerank": [*search, "--no-rerank", "--no-server"],
        "bt search, served": search,
        "bt search": [*search, "--no-server"],
    }
    processes.run([processes.BT, "serve", "--background", *at])
    try:
        for name in ("bt search", "bt search --no-rerank"):
            own, asked = (processes.run([*commands[one], "--json"]) for one in (name, f"{name}, served"))
            if own != asked or "served by" not in processes.said([*commands[f"{name}, served"], "-v"]):
                raise SystemExit(f"{name}: the server gives another answer, or none")
        runs: dict[str, Callable[[], object]] = {
            name: partial(processes.run, command) for name, command in commands.items()
        }
        times = take_turns(runs, rounds)
    finally:
        subprocess.run([processes.BT, "serve", "--stop", *at], check=True, stderr=subprocess.DEVNULL)
    for name, measured in times.items():
        of = times[name.removesuffix(", served")]
        report.add(
            measured,
            size=size,
            contender=name,
            x_help=measured.median / times["bt --help"].median,
            x_faster=of.median / measured.median,
        )


def by_http(model: Path, work: Path, report: Report, size: str, queries: int) -> None:
    """Searches by HTTP at depth 0 and the encoder and recall alone, in turns; texts that no one has asked before.

    Raises SystemExit unless both find the same.
    """
    index = synthetic_index(model, 100 if size == "tiny" else 10_000, work)
    at = ["--index", str(index)]
    processes.run([processes.BT, "serve", "--background", "--port", "0", *at])
    try:
        url = urlsplit(look(index).url)
        waits: dict[str, list[float]] = {name: [] for name in ("encoder and recall", "HTTP, depth 0")}
        with (
            closing(HTTPConnection(url.hostname or "", url.port)) as client,
            Library(index) as library,
            IndexReader.open(index) as reader,
        ):
            encoder = library.model.encoder
            for number in range(queries + 1):
                text = f"{TEXTS[number % len(TEXTS)]} {number}"
                began = time.perf_counter()
                [found] = reader.recall(encoder.embed_texts([text]), 10)
                middle = time.perf_counter()
                client.request("GET", f"/search?{urlencode({'text': text, 'depth': 0})}")
                answer = client.getresponse().read()
                seconds = middle - began, time.perf_counter() - middle
                told = [hit["similarity"] for hit in json.loads(answer)["hits"]]
                if told != [neighbour.similarity for neighbour in found]:
                    raise SystemExit("HTTP: the server gives another answer, or none")
                if number:  # the first one has read the index
                    for name, wait in zip(waits, seconds, strict=True):
                        waits[name].append(wait)
    finally:
        subprocess.run([processes.BT, "serve", "--stop", *at], check=True, stderr=subprocess.DEVNULL)
    alone = statistics.median(waits["encoder and recall"])
    for name, measured in waits.items():
        p50 = statistics.median(measured)
        report.add(
            Times((p50,)),
            size=size,
            contender=f"{queries} queries, {name}",
            p50_ms=1e3 * p50,
            more_ms=1e3 * (p50 - alone),
            x_alone=p50 / alone,
        )


def texts_for(size: str) -> list[str]:
    """The queries of the clients, fewer for a large network, which takes seconds for each; one each for "tiny"."""
    return TEXTS if size == "demo" else TEXTS[: CLIENTS if size == "tiny" else 32]


def asked(engine: Engine, texts: Sequence[str]) -> list[float]:
    """The seconds of each query, one after the other."""
    seconds = []
    for text in texts:
        began = time.perf_counter()
        engine.search(SearchRequest(text, depth=20))
        seconds.append(time.perf_counter() - began)
    return seconds


def together(engine: Engine, texts: Sequence[str]) -> list[float]:
    """The seconds of each query, by CLIENTS threads at once."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        parts = threads.map(lambda place: asked(engine, texts[place::CLIENTS]), range(CLIENTS))
        return [seconds for part in parts for seconds in part]


def shared(engine: Engine, report: Report, size: str, rounds: int) -> None:
    """Queries one after the other and by many clients at once, in turns."""
    waits: dict[str, list[float]] = {"one after the other": [], f"{CLIENTS} at once": []}
    texts = texts_for(size)

    def run(name: str, ask: Callable[[Engine, Sequence[str]], list[float]]) -> None:
        waits[name] += ask(engine, texts)

    one, many = waits
    times = take_turns({one: partial(run, one, asked), many: partial(run, many, together)}, rounds)
    for name, measured in times.items():
        p50, p99 = statistics.median(waits[name]), statistics.quantiles(waits[name], n=100)[98]
        report.add(
            measured,
            size=size,
            contender=f"{len(texts)} queries, {name}",
            x_throughput=times[one].median / measured.median,
            p50_ms=1e3 * p50,
            p99_ms=1e3 * p99,
            p99_of_p50=p99 / p50,
        )


def resident() -> int:
    """Bytes of memory of this process that are in RAM now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(engine: Engine, report: Report, size: str, queries: int) -> None:
    """The memory after many queries, beside that after 100."""
    after, began = [], time.perf_counter()
    for number in (100, queries):
        for place in range(number):
            engine.search(SearchRequest(f"{TEXTS[place % len(TEXTS)]} {place}", depth=2))
        after.append(resident())
    seconds = Times((time.perf_counter() - began,))
    name = f"memory after {queries} queries"
    report.add(seconds, size=size, contender=name, mb=after[1] / 1e6, x_after_100=after[1] / after[0])


def parser() -> argparse.ArgumentParser:
    found = command_line(__doc__, sizes=["demo"], rounds=15)
    found.add_argument("--queries", type=int, default=10_000, help="queries before memory is measured")
    return found


def main() -> None:
    args = parser().parse_args()
    if sys.platform == "win32":
        raise SystemExit("there is no server on Windows")
    with Report(Path(__file__).stem, args) as report:
        for size in args.size:
            pictures = 25 if size == "tiny" else 150
            model = checkpoint(size, args.work).absolute()
            index = index_of_gallery(model, pictures, args.work.absolute())
            served(index, report, size, args.rounds)
            by_http(model, args.work.absolute(), report, size, 5 if size == "tiny" else HTTP_QUERIES)
            engine = Engine(Options(index))
            engine.warm_up()
            asked(engine, texts_for(size))
            shared(engine, report, size, max(1, args.rounds // 5))
            memory(engine, report, size, 20 if size == "tiny" else args.queries)
            engine.close()


if __name__ == "__main__":
    main()
