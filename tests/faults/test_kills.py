"""`kill -9` at any instant: benchmarks/kills.py does the same hundreds of times."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import pytest

from bridgetower.errors import NoIndexError
from bridgetower.index.check import check_index
from bridgetower.index.reader import IndexReader
from tests.faults.ordeal import Ordeal, contents
from tests.faults.victims import Victims

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as victims:
        yield victims


def test_an_index_of_lists_survives_kills(tmp_path: Path) -> None:
    with Victims(many=100) as victims:
        ordeal = Ordeal(tmp_path, victims, seed=3)
        ordeal.lasts = victims.run("index", ordeal.files, "--index", ordeal.directory)
        with IndexReader.open(ordeal.directory) as store:
            assert store.catalog.tuning() is not None
        assert list(check_index(ordeal.directory)) == []
        assert sum(way() for way in [ordeal.index, ordeal.prune, ordeal.repair, ordeal.index] * 2)
        ordeal.end()


def test_nothing_that_was_committed_is_lost_by_kills(tmp_path: Path, victims: Victims) -> None:
    ordeal = Ordeal(tmp_path, victims, seed=1)
    ways = [*ordeal.ways, *[ordeal.index] * 4] * 3
    killed = 0
    while killed < 20:
        killed += (ways.pop() if ways else ordeal.choose())()
    ordeal.end()


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_at_once_and_in_order(tmp_path: Path, victims: Victims, by: int, code: int) -> None:
    ordeal, numbers = Ordeal(tmp_path, victims, seed=2), random.Random(by)
    index: list[str | Path] = ["index", ordeal.files]
    commands: Iterator[list[str | Path]] = cycle([index, index, ["prune"], ["verify", "--repair"]])
    stopped = 0
    while stopped < 4:
        command = next(commands)
        if command[0] != "index" and not contents(ordeal.directory):
            continue
        after = numbers.uniform(0, 0.9 if command[0] == "index" else 0.1) * ordeal.lasts
        ended = victims.kill(*command, "--index", ordeal.directory, after=after, by=by)
        assert ended in (0, code)
        if ended == 0:  # too late: the machine may have been busier when `lasts` was measured
            ordeal.lasts /= 2
        stopped += ended == code
        with suppress(NoIndexError):
            assert list(check_index(ordeal.directory)) == []
    ordeal.end()
