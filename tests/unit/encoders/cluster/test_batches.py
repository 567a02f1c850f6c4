"""The order, the window and the losses of batches, on workers that are played by this process."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bridgetower.encoders.cluster.batches import (
    AHEAD,
    MOST_DEATHS,
    Answer,
    Done,
    Located,
    Lost,
    Sent,
    Unread,
    in_order,
)
from bridgetower.encoders.protocol import Embedded
from bridgetower.errors import ProcessError
from bridgetower.records import Refused

VECTOR = np.ones(1, np.float32)


def embedded(item: bytes) -> Embedded:
    """The result of an item: its number is the width."""
    return Embedded(int(item), 1, None, VECTOR)


class Machines:
    """Workers that take turns by chance; one that meets a killer dies, and another one joins with the next turn."""

    def __init__(self, size: int = 2, killers: frozenset[bytes] = frozenset(), seed: int = 0) -> None:
        self._wanted, self._killers, self._random = size, killers, random.Random(seed)
        self.workers: list[list[tuple[int, Sequence[Sent]]]] = []  # the batches of each
        self.deaths = self.most = 0
        self.met: list[int] = []  # tickets, in the order in which they came back
        self.on_turn: Callable[[], object] = lambda: None

    @property
    def size(self) -> int:
        return len(self.workers)

    def submit(self, ticket: int, batch: Sequence[Sent]) -> None:
        assert batch
        min(self.workers, key=len).append((ticket, batch))
        self.most = max(self.most, sum(map(len, self.workers)))
        assert all(len(batches) <= AHEAD for batches in self.workers)

    def wait(self) -> list[Done | Lost]:
        self.on_turn()
        if self.size < self._wanted:
            self.workers.append([])
            return []
        batches = self._random.choice([batches for batches in self.workers if batches])
        ticket, batch = batches[0]
        if self._killers.intersection(item for item in batch if isinstance(item, bytes)):
            return self.lose(batches)
        del batches[0]
        self.met.append(ticket)
        return [Done(ticket, [self.answer(item) for item in batch])]

    def lose(self, batches: list[tuple[int, Sequence[Sent]]]) -> list[Done | Lost]:
        self.workers.remove(batches)
        self.deaths += 1
        return [Lost(ticket, died_on_it=place == 0, why="m-1") for place, (ticket, _) in enumerate(batches)]

    def answer(self, item: Sent) -> Answer:
        assert isinstance(item, bytes)
        return embedded(item)


def batches(number: int, size: int, taken: list[int] | None = None) -> Iterator[list[Sent | Refused]]:
    """Batches of the numbers from 0; `taken` counts those that were asked for."""
    for start in range(0, number, size):
        if taken is not None:
            taken.append(start)
        yield [b"%d" % place for place in range(start, min(start + size, number))]


def never(unread: Unread, item: Sent) -> Sent:
    raise AssertionError("everything can be read")


def widths(results: Iterator[Embedded | Refused]) -> list[int | str]:
    return [result.width if isinstance(result, Embedded) else result.reason for result in results]


@pytest.mark.parametrize("seed", range(20))
def test_results_are_in_order_in_whatever_order_batches_come_back(seed: int) -> None:
    machines = Machines(size=3, seed=seed)
    assert widths(in_order(machines, batches(100, 4), never)) == list(range(100))
    assert machines.met != sorted(machines.met)
    assert machines.most == 3 * AHEAD


def test_the_batches_in_memory_are_bounded_while_the_first_one_takes_long() -> None:
    taken: list[int] = []
    machines = Machines(size=2)
    machines.workers = [[], []]

    class Choice(random.Random):
        def choice(self, workers: Sequence[list[tuple[int, Sequence[Sent]]]]) -> list[tuple[int, Sequence[Sent]]]:  # type: ignore[override]
            others = [batches for batches in workers if batches[0][0] != 1]
            if len(taken) < 1000 and others and len(machines.met) < 50:
                return others[0]
            return workers[0]

    machines._random = Choice()
    results = in_order(machines, batches(400, 4, taken), never)
    assert next(results) is not None
    assert len(taken) <= 4 * 2  # batches a worker
    assert widths(results) == list(range(1, 400))


def test_nothing_is_taken_from_the_source_before_there_is_a_worker() -> None:
    taken: list[int] = []
    machines = Machines(size=1)
    machines.on_turn = lambda: taken and pytest.fail("no worker yet") if not machines.size else None
    assert widths(in_order(machines, batches(10, 4, taken), never)) == list(range(10))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("killer", [0, 17, 63, 99])
def test_a_killer_is_found_among_many_and_refused(killer: int, seed: int) -> None:
    machines = Machines(size=2, killers=frozenset({b"%d" % killer}), seed=seed)
    results = [*in_order(machines, batches(100, 16), never)]
    refused = [place for place, result in enumerate(results) if isinstance(result, Refused)]
    assert refused == [killer]
    found = results[killer]
    assert isinstance(found, Refused) and not found.lasting
    assert found.reason == f"the worker died on it {MOST_DEATHS} times, last m-1"
    assert [result.width for result in results if isinstance(result, Embedded)] == [
        *range(killer),
        *range(killer + 1, 100),
    ]
    assert machines.deaths <= MOST_DEATHS + 3 + MOST_DEATHS  # on the batch, on halves of 8, 4 and 2, on itself


@pytest.mark.parametrize("seed", range(5))
def test_several_killers_in_one_batch_are_all_found(seed: int) -> None:
    killers = frozenset({b"3", b"4", b"15", b"40"})
    results = widths(in_order(Machines(killers=killers, seed=seed), batches(50, 16), never))
    assert [place for place, result in enumerate(results) if isinstance(result, str)] == [3, 4, 15, 40]


@pytest.mark.parametrize("seed", range(10))
def test_workers_that_leave_by_themselves_cost_no_picture(seed: int) -> None:
    chance = random.Random(seed)

    class Leaving(Machines):
        def wait(self) -> list[Done | Lost]:
            if self.workers and self.deaths < 15 and chance.random() < 0.1:
                return self.lose(chance.choice(self.workers))
            return super().wait()

    machines = Leaving(size=3)
    assert widths(in_order(machines, batches(400, 4), never)) == list(range(400))
    assert machines.deaths > 5


def test_a_worker_that_joins_gets_batches() -> None:
    machines = Machines(size=1)
    results = in_order(machines, batches(100, 4), never)
    assert next(results) is not None
    machines._wanted = 4
    assert widths(results) == list(range(1, 100))
    assert machines.most == 4 * AHEAD


@pytest.mark.parametrize("size", [1, 2, 96])
def test_workers_that_die_on_everything_end_the_run(size: int) -> None:
    machines = Machines(size, killers=frozenset(b"%d" % place for place in range(20_000)))
    with pytest.raises(ProcessError, match="21 workers died one after the other: m-1"):
        list(in_order(machines, batches(20_000, 16), never))
    assert machines.deaths <= 21 * size


class Nodes(Machines):
    """96 workers on three machines, of which some are lost once so many batches are `done`: the youngest workers."""

    def __init__(self, losses: int, done: int, how: str) -> None:
        super().__init__(size=96)
        self._losses, self._done, self._how = losses, done, how

    def wait(self) -> list[Done | Lost]:
        if self.size < self._wanted or self.deaths == 32 * self._losses or len(self.met) < self._done:
            return super().wait()
        lost: list[Done | Lost] = []
        for batches in self.workers[-32:]:
            lost += self.lose(batches)
            if self._how == "reported one by one":
                break
        if self._how != "replaced":
            self._wanted = self.size
        return lost


@pytest.mark.parametrize("how", ["reported at once", "reported one by one", "replaced"])
@pytest.mark.parametrize("done", [0, 150])
@pytest.mark.parametrize("losses", [1, 2])
def test_machines_of_many_workers_may_be_lost(losses: int, done: int, how: str) -> None:
    machines = Nodes(losses, done, how)
    assert widths(in_order(machines, batches(2000, 4), never)) == list(range(2000))
    assert machines.deaths == 32 * losses


def test_an_item_that_is_refused_already_is_not_sent() -> None:
    no = Refused("no picture", lasting=True)
    given: list[list[Sent | Refused]] = [[b"0", no, b"2"], [no, no], [b"5"]]
    assert widths(in_order(Machines(), given, never)) == [0, "no picture", 2, "no picture", "no picture", 5]


def test_a_file_that_a_worker_cannot_read_is_sent_there_or_refused() -> None:
    class Apart(Machines):
        def answer(self, item: Sent) -> Answer:
            return Unread("m-1", "no such file") if isinstance(item, Located) else super().answer(item)

    def read(unread: Unread, item: Sent) -> Sent | Refused:
        assert isinstance(item, Located) and unread == ("m-1", "no such file")
        return Refused("changed", lasting=False) if item.path.name == "1" else item.path.name.encode()

    given: list[list[Sent | Refused]] = [[b"0", Located(Path("1"), b""), Located(Path("2"), b""), b"3"], [b"4"]]
    assert widths(in_order(Apart(), given, read)) == [0, "changed", 2, 3, 4]


def test_what_the_source_raises_is_raised() -> None:
    def broken() -> Iterator[list[Sent | Refused]]:
        yield [b"0"]
        raise ProcessError("no process to decode")

    with pytest.raises(ProcessError, match="no process to decode"):
        list(in_order(Machines(), broken(), never))
