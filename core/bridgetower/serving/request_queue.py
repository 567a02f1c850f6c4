"""Run requests in a bounded number of threads, with a bounded queue in front of them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bridgetower.errors import ResourceError

_T = TypeVar("_T")

RUNNING = 16  # requests that run together: each waits for its turn at the model after every few pictures
WAITING = 64  # requests that wait for one of these to end


class Refusal(Exception):
    """A request that is not taken now; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(Refusal):
    """The queue is full."""


class Draining(Refusal):
    """The server ends: what runs is completed, nothing new begins."""


class ClientGone(Exception):
    """The client has ended, or takes nothing: the work of its request ends."""


class RequestQueue:
    """Threads that run requests, first come, first served."""

    def __init__(self, *, running: int = RUNNING, waiting: int = WAITING) -> None:
        self._threads = ThreadPoolExecutor(running, thread_name_prefix="request")
        self._most = running + waiting
        self._lock = threading.Condition()
        self._taken = 0  # requests that wait or run
        self._draining = False
        self.running = 0
        self.refused = 0  # since the start

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        return self._taken - self.running

    @property
    def is_draining(self) -> bool:
        return self._draining

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Run `work` in a thread when its turn comes. Raises Busy, Draining, ResourceError."""
        with self._lock:
            if self._draining:
                raise Draining("the server ends: ask again when it has started again", 5)
            if self._taken >= self._most:
                self.refused += 1
                raise Busy(f"{self._taken} requests wait or run: ask again later", 1 + self._taken // 16)
            self._taken += 1
        held = [work]  # the executor keeps a cancelled call until a thread is free, but not what it has to do
        try:
            future = self._threads.submit(self._run, held)
        except RuntimeError as error:  # no thread can be started; the executor has taken the call all the same
            held.clear()
            self._end()
            raise ResourceError(
                "no thread can be started: raise the limit of memory or of processes (`ulimit -u`)"
            ) from error

        def end(_: Future[_T]) -> None:  # called also for a request that is cancelled while it waits
            held.clear()
            self._end()

        future.add_done_callback(end)
        return future

    def _run(self, held: list[Callable[[], _T]]) -> _T:
        with self._lock:
            self.running += 1
        try:
            return held.pop()()
        finally:
            with self._lock:
                self.running -= 1

    def _end(self) -> None:
        with self._lock:
            self._taken -= 1
            self._lock.notify_all()

    def drain(self) -> None:
        """Take no further request."""
        with self._lock:
            self._draining = True
            self._lock.notify_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until no request waits or runs; return whether that is so."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._taken, seconds)
