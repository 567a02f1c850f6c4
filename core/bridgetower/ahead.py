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

    What has not begun when the block is left, never does.
    """
    processors = os.cpu_count() or 1
    with ThreadPoolExecutor(min(processors, most or processors), thread_name_prefix="ahead") as threads:
        try:
            yield threads
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def ahead(threads: ThreadPoolExecutor, task: Callable[[_T], _R], items: Iterable[_T], window: int) -> Iterator[_R]:
    """`map` in threads: results in order, at most `window` of them waiting or in the making.

    What `task` raises is raised in the place of its result.
    """
    pending: deque[Future[_R]] = deque()
    for item in items:
        pending.append(threads.submit(task, item))
        if len(pending) > window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
