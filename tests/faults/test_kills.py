"""`kill -9` at any instant: benchmarks/kills.py does the same hundreds of times."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ordeal import Ordeal
from tests.faults.victims import Victims

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as victims:
        yield victims


def test_nothing_that_was_committed_is_lost_by_kills(tmp_path: Path, victims: Victims) -> None:
    ordeal = Ordeal(tmp_path, victims, seed=1)
    ways = [*ordeal.ways, *[ordeal.index] * 4] * 3
    killed = 0
    while killed < 20:
        killed += (ways.pop() if ways else ordeal.choose())()
    ordeal.end()
