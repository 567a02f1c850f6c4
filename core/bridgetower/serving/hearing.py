"""Hear what a task tells about itself, and end it when nobody waits for it any more."""

import threading

from bridgetower.serving.request_queue import ClientGone


class Hearing:
    """Gets what a task tells about itself, in its thread. After `leave`, each callback raises ClientGone."""

    def __init__(self) -> None:
        self._gone = threading.Event()
        self.notes: list[str] = []

    def say(self, note: str) -> None:
        """Take a note for the one who asks."""
        self._check()
        self.notes.append(note)

    def on_progress(self, done: int, total: int) -> None:
        """Take the numbers of pictures that are done, and of all."""
        self._check()

    def leave(self) -> None:
        """Let the next callback end the task."""
        self._gone.set()

    def _check(self) -> None:
        if self._gone.is_set():
            raise ClientGone
