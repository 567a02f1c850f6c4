"""Work in threads, a bounded number of items ahead of whoever uses the results."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


@contextmanager
def workers(most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """As many threads as there are processors, but no more than `most`.

    When the block is left, tasks that wait are dropped, and tasks that run are not waited for: one may take for ever.
    """
    processors = os.cpu_count() or 1
    threads = ThreadPoolExecutor(min(processors, most or processors), thread_name_prefix="ahead")
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def ahead(
    threads: ThreadPoolExecutor,
    task: Callable[[_T], _R],
    items: Iterable[_T],
    window: int,
    *,
    weigh: Callable[[_T], int] = lambda item: 0,
    most: int = 0,
) -> Iterator[_R]:
    """`map` in threads: results in order, at most `window` of them waiting or in the making.

    Nor do these weigh more than `most` in all, unless a single one does. An error of `task` is raised in the place
    of its result.
    """
    pending: deque[tuple[Future[_R], int]] = deque()
    weight = 0

    def first() -> _R:
        nonlocal weight
        future, lighter = pending.popleft()
        weight -= lighter
        return future.result()

    for item in items:
        heavier = weigh(item)
        while pending and weight + heavier > most:
            yield first()
        pending.append((threads.submit(task, item), heavier))
        weight += heavier
        if len(pending) > window:
            yield first()
    while pending:
        yield first()
