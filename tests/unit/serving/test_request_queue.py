"""The queue of requests: what a cancelled one leaves, and a machine that starts no thread."""

import gc
import threading
import weakref

import pytest

from bridgetower.errors import ResourceError
from bridgetower.serving.request_queue import Busy, RequestQueue


class Body:
    """Stands for a large body."""


def test_a_cancelled_request_leaves_its_place_and_nothing_in_memory() -> None:
    queue, go = RequestQueue(running=1, waiting=1), threading.Event()
    running = queue.submit(lambda: go.wait(10))
    body = Body()
    held = weakref.ref(body)
    waiting = queue.submit(lambda body=body: body)  # type: ignore[misc]
    with pytest.raises(Busy):
        queue.submit(lambda: None)
    del body
    assert waiting.cancel()
    gc.collect()
    assert held() is None and queue.waiting == 0
    again = queue.submit(lambda: 1)  # its place is free
    go.set()
    assert running.result(10) and again.result(10) == 1
    assert queue.wait(10) and queue.running == 0


def test_want_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = RequestQueue(running=1, waiting=0)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ran: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(ResourceError, match="thread"):
            queue.submit(lambda: ran.append(1))
    assert queue.submit(lambda: ran.append(2)).result(10) is None
    assert ran == [2] and queue.wait(10)
