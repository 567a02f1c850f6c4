"""Run the work of a request in the queue, and end it when its client goes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.requests import Request
from starlette.types import Receive

from bridgetower.records import quiet
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.http.errors import problem_of
from bridgetower.serving.request_queue import ClientGone, RequestQueue

_T = TypeVar("_T")

BEAT_S = 15.0  # the longest time without an event


class EventHearing(Hearing):
    """Gives what a task tells about itself as events, where somebody waits for them."""

    def __init__(self, on_event: Callable[[str, Any], object] | None = None) -> None:
        super().__init__()
        self._on_event = on_event
        self._progress = (0, 0)
        self._recalled = False

    def on_progress(self, done: int, total: int) -> None:
        """Take the numbers of verified pictures, and of those to verify."""
        super().on_progress(done, total)
        self._progress = done, total

    @property
    def on_hits(self) -> Callable[[Any], object]:
        """A callback for the hits as they stand, first those that are recalled; `quiet` if nobody waits for events."""
        return quiet if self._on_event is None else self._take_hits

    def _take_hits(self, hits: Any) -> None:
        self._check()
        assert self._on_event is not None
        self._on_event("verified" if self._recalled else "recalled", (hits, *self._progress))
        self._recalled = True


async def run(request: Request, queue: RequestQueue, work: Callable[[EventHearing], _T]) -> _T:
    """Return the result of `work`. Raises as it does, Busy, Draining, and ClientGone."""
    hearing = EventHearing()
    submitted = queue.submit(partial(work, hearing))
    future = asyncio.wrap_future(submitted)
    gone = asyncio.create_task(_until_gone(request.receive))
    try:
        await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ClientGone
        return future.result()
    finally:
        gone.cancel()
        await _end(submitted, future, hearing)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(submitted: Future[Any], future: "asyncio.Future[Any]", hearing: Hearing) -> None:
    """End work that nobody waits for. What runs holds its body until the next callback, and is waited for."""
    if future.done() or submitted.cancel():
        return
    hearing.leave()
    with anyio.CancelScope(shield=True):
        await asyncio.wait((future,))
    error = future.exception()  # asyncio logs an error that nobody takes
    if error is not None and not isinstance(error, ClientGone):
        problem_of(error)  # logs a defect


async def stream(
    request: Request, queue: RequestQueue, work: Callable[[EventHearing], _T]
) -> AsyncIterator[tuple[str, Any]]:
    """Yield the events of `work` as (name, what it tells), at last ("result", what it returns); else a "beat".

    No beat comes before the first event, as the status of a refusal is not sent yet; until then a client that goes is
    noticed. A client that reads slowly misses events between the first and the last. Closing the iterator ends the
    work. Raises as `run`.
    """
    loop = asyncio.get_running_loop()
    events: deque[tuple[str, Any]] = deque()
    there = asyncio.Event()

    def put(name: str, value: Any) -> None:
        if events and events[-1][0] == name == "verified":
            events.pop()
        events.append((name, value))
        there.set()

    hearing = EventHearing(lambda name, value: loop.call_soon_threadsafe(put, name, value))
    submitted = queue.submit(partial(work, hearing))
    future = asyncio.wrap_future(submitted)
    future.add_done_callback(lambda _: there.set())
    first, gone = asyncio.create_task(there.wait()), asyncio.create_task(_until_gone(request.receive))
    try:
        await asyncio.wait((first, gone), return_when=asyncio.FIRST_COMPLETED)
        if not there.is_set():
            raise ClientGone
        gone.cancel()  # the response reads `receive` from now on
        while not future.done() or events:
            try:
                await asyncio.wait_for(there.wait(), BEAT_S)
            except TimeoutError:
                yield "beat", None
            there.clear()
            while events:
                yield events.popleft()
        yield "result", future.result()
    finally:
        first.cancel()
        gone.cancel()
        await _end(submitted, future, hearing)
