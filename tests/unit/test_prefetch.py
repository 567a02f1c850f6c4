"""Work in threads: in order, bounded, and given up with whoever wanted it."""

import threading
import time
from collections.abc import Iterator

import pytest

from bridgetower.prefetch import ahead, workers


def test_results_come_in_order_and_work_goes_on_at_most_a_window_ahead() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    with workers() as threads:
        results = ahead(threads, lambda number: number * number, numbers(), window=3)
        for number, result in enumerate(results):
            assert result == number * number
            assert len(taken) <= number + 4  # this one, and three more
    assert len(taken) == 20


def test_what_is_ahead_weighs_no_more_than_allowed_unless_one_does_alone() -> None:
    weights = [3, 4, 5, 1, 20, 1, 1, 9, 2, 2, 2]
    taken: list[int] = []

    def items() -> Iterator[int]:
        for place, weight in enumerate(weights):
            taken.append(place)
            yield weight

    with workers() as threads:
        results = ahead(threads, lambda weight: weight, items(), 100, weigh=lambda weight: weight, most=10)
        for done, result in enumerate(results):
            assert result == weights[done]
            *waiting, _ = weights[done : taken[-1] + 1]  # the last one is taken, and begun only if there is room
            assert sum(waiting) <= 10 or len(waiting) == 1
    assert len(taken) == len(weights)


def test_what_a_task_raises_comes_in_its_place() -> None:
    with workers() as threads:
        results = ahead(threads, lambda number: 1 // number, [1, 0, 1], window=3)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_leaving_gives_up_what_has_not_begun() -> None:
    begun: list[int] = []

    def task(number: int) -> int:
        begun.append(number)
        time.sleep(0.02)
        return number

    with workers(4) as threads:
        assert next(ahead(threads, task, range(1000), window=500)) == 0
    assert len(begun) < 250  # of 501 that were asked for


def test_leaving_does_not_wait_for_what_has_begun() -> None:
    begun, over = threading.Event(), threading.Event()

    def task() -> bool:
        begun.set()
        return over.wait(60)

    with workers() as threads:
        waiting = threads.submit(task)
        assert begun.wait(60)
    assert not waiting.done()
    over.set()
    assert waiting.result()
