"""Many texts by `bt search --texts-from`, against the forward passes that they need.

    python benchmarks/many_texts.py --size base --texts 100

Both sides run in this process, after the weights are loaded, on an index that keeps the features of its pictures. The
passes are those of the text tower, 16 texts at a time, and those of the matching head, in batches of the same shape as
the command's; on one batch of pictures, which is in memory. The command's rest is recall, features, and JSON lines.
"""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import machine
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import PRECISIONS, Report, command_line, take_turns
from benchmarks.pictures import photo_folder
from bridgetower import Library, Model
from bridgetower.records import TEXTS_AHEAD
from bridgetower.retrieval.matching import every_pair

PICTURES = 40
DEPTH = 20
COUNTS = ("a", "one", "two", "an old")
KINDS = ("red", "small", "wooden", "wet", "bright")
THINGS = ("cat", "car", "lake", "bird", "cup")
PLACES = ("at night", "in the snow", "on a table", "by the sea")


def texts(number: int) -> list[str]:
    """Different texts of four to six words."""
    return [" ".join(words) for words in islice(product(COUNTS, KINDS, THINGS, PLACES), number)]


def command(library: Library, file: Path) -> Callable[[], list[dict[str, Any]]]:
    """Return what runs the command on a library that is ready, and returns its rows."""
    from bridgetower_cli.asking import many_queries
    from bridgetower_cli.parser import app

    @contextlib.contextmanager
    def ready(settings: object) -> Iterator[Callable[[Callable[[Library], Any]], Any]]:
        yield lambda ask: ask(library)

    def run() -> list[dict[str, Any]]:
        printed = io.TextIOWrapper(io.BytesIO())
        options = ["--top", str(DEPTH), "--depth", str(DEPTH), "--index", str(library.directory)]
        with patch.object(many_queries, "open_library", ready), contextlib.redirect_stdout(printed):
            app(["search", "--texts-from", str(file), *options], standalone_mode=False)
        printed.seek(0)
        return [json.loads(line) for line in printed]

    return run


def passes(model: Model, asked: Sequence[str], batches: Sequence[int]) -> Callable[[], None]:
    """Return what runs the passes of these texts, each with batches of so many pairs."""
    preprocessing = model.preprocessing
    side = preprocessing.crop_size
    pixels = np.random.default_rng(0).standard_normal((max(batches), 3, side, side)).astype(np.float32)
    pictures = model.judge.join([model.judge.encode_images(pixels)])

    def run() -> None:
        for start in range(0, len(asked), TEXTS_AHEAD):
            some = asked[start : start + TEXTS_AHEAD]
            model.encoder.embed_texts(some)
            for text in some:
                encoded = model.judge.encode_texts([text])
                for number in batches:
                    model.judge.match(encoded, pictures, every_pair(1, number))

    return run


def batches_of(library: Library, model: Model) -> list[int]:
    """Return how many pairs each pass of one search has."""
    judge = type(model.judge)
    seen: list[int] = []
    match = judge.match

    def counted(self: Any, encoded: Any, pictures: Any, pairs: Any) -> Any:
        seen.append(len(pairs))
        return match(self, encoded, pictures, pairs)

    with patch.object(judge, "match", counted):
        library.search("a first text", depth=DEPTH)
    return seen


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["base"], rounds=3)
    options.add_argument("--texts", type=int, default=100, help="that are asked, at most 400 (%(default)s)")
    options.add_argument("--precision", nargs="+", choices=PRECISIONS, help="(all that the processor computes in)")
    return options


def main() -> None:
    args = parser().parse_args()
    photos = photo_folder(args.work, PICTURES, 640, 480)
    asked = texts(args.texts)
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "texts.txt"
        file.write_text("\n".join(asked), "utf-8")
        for size in args.size:
            for precision in args.precision or machine.precisions("cpu"):
                model = Model(checkpoint(size, args.work), device="cpu", precision=precision)
                with Library(Path(scratch) / f"{size}-{precision}", model) as library:
                    library.index([photos], keep_features=10**10)
                    batches = batches_of(library, model)
                    run_command = command(library, file)
                    contenders: dict[str, Callable[[], object]] = {
                        "passes": passes(model, asked, batches),
                        "bt": run_command,
                    }
                    require_same(library, run_command(), asked)
                    times = take_turns(contenders, args.rounds)
                for name, measured in times.items():
                    report.add(
                        measured,
                        size=size,
                        precision=precision,
                        contender=name,
                        texts=len(asked),
                        ms_a_text=1000 * measured.median / len(asked),
                        x_passes=measured.median / times["passes"].median,
                    )


def require_same(library: Library, rows: list[dict[str, Any]], asked: Sequence[str]) -> None:
    """End the run unless the first and the last text have the matches of a search of their own."""
    for text in (asked[0], asked[-1]):
        alone = [(str(hit.path), hit.match or 0.0) for hit in library.search(text, top=DEPTH, depth=DEPTH).hits]
        mine = [(row["path"], row["match"]) for row in rows if row["query"] == text]
        if [path for path, _ in alone] != [path for path, _ in mine] or not np.allclose(
            [match for _, match in alone], [match for _, match in mine], rtol=1e-5
        ):
            raise SystemExit(f"{text}: the answers differ from those of a single search")


if __name__ == "__main__":
    main()
