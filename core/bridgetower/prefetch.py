"""Run tasks in threads, a bounded number of items ahead of the consumer of the results."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from bridgetower.resources import shortages

_T = TypeVar("_T")
_R = TypeVar("_R")


@contextmanager
def workers(most: int | None = None, *, number: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Provide `number` threads; by default as many as there are processors, but at most `most`.

    At the end of the block, waiting tasks are dropped. Running tasks are not awaited, because one may run for ever.
    Raises ResourceError if the block runs out of threads, memory or file handles.
    """
    processors = os.cpu_count() or 1
    threads = ThreadPoolExecutor(number or min(processors, most or processors), thread_name_prefix="ahead")
    try:
        with shortages():
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
    """Yield the results of `task` for each item, in order, computed in threads.

    At most `window` items are ahead of the consumer, and they weigh at most `most` together, or are a single item. An
    error of `task` is raised in place of its result.
    """
    pending: deque[tuple[Future[_R], int]] = deque()
    weight = 0

    def pop_first() -> _R:
        nonlocal weight
        future, item_weight = pending.popleft()
        weight -= item_weight
        return future.result()

    for item in items:
        new_weight = weigh(item)
        while pending and weight + new_weight > most:
            yield pop_first()
        pending.append((threads.submit(task, item), new_weight))
        weight += new_weight
        if len(pending) > window:
            yield pop_first()
    while pending:
        yield pop_first()
