"""Show the progress of a long run on stderr: a bar on a terminal, else a line from time to time."""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from bridgetower_cli import render

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_BAR_EVERY_S = 0.1
_LINE_EVERY_S = 10.0
_MOST_WORKERS, _MOST_HOSTS = 6, 3  # that are shown one by one
_WINDOW_S = 30.0  # the pace of the last 30 s counts, as unchanged files pass much faster


class Pace:
    """The recent speed of a run, and the time that the rest takes at that speed."""

    def __init__(self, clock: Callable[[], float], done: int = 0) -> None:
        """Begin now, when `done` units are done."""
        self._clock = clock
        self._seen = deque([(clock(), done)])

    def update(self, done: int) -> None:
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW_S:
            self._seen.popleft()

    def rate(self) -> float:
        """Return units per second; 0 if it is not known yet."""
        (began, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - began) if now > began else 0.0

    def describe(self, total: int, unit: str) -> str:
        """ "12.5 files/s, 0:03:20 left"."""
        rate = self.rate()
        if not rate:
            return ""
        seconds = round((total - self._seen[-1][1]) / rate)
        digits = 1 if rate >= 0.1 else 3  # a step of training may take minutes
        return f"{rate:.{digits}f} {unit}/s, {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


def by_worker(counts: Mapping[str, int]) -> str:
    """Return the numbers of pictures by worker, "HOST-N", in few words: "node1: 48 + 32, node2: 64"."""
    hosts: dict[str, list[int]] = {}
    for worker, number in counts.items():
        hosts.setdefault(worker.rpartition("-")[0], []).append(number)
    if len(counts) > _MOST_WORKERS or len(hosts) > _MOST_HOSTS:
        least, most = min(counts.values()), max(counts.values())
        return f"{len(counts)} workers on {render.counted(len(hosts), 'host')}: {least} to {most} each"
    return ", ".join(f"{host}: {' + '.join(map(str, numbers))}" for host, numbers in hosts.items())


class Meter:
    """A context that shows progress; `update` may be called at any rate.

    For several runs, one after the other, `close` ends a run, and the next update begins another.
    """

    def __init__(self, doing: str, unit: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._doing, self._unit, self._clock = doing, unit, clock
        self._is_open = False
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, done: int = 0) -> None:
        self._is_open, self._pace = True, Pace(self._clock, done)
        self._began = self._shown_at = self._clock()

    def _show_bar(self) -> None:
        """Show the bar with the first update, so that it stands below earlier lines."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=Console(file=sys.stderr, force_terminal=True),
            transient=True,
            redirect_stdout=False,
        )
        self._bar = bar, bar.add_task(self._doing, total=None, pace="")
        bar.start()

    def close(self) -> float:
        """End the display of this run; return its seconds."""
        if self._bar is not None:
            self._bar[0].stop()
        seconds = self._clock() - self._began if self._is_open else 0.0
        self._bar, self._is_open = None, False
        return seconds

    def update(
        self,
        done: int,
        total: int,
        doing: str | None = None,
        unit: str = "pictures",
        *,
        workers: Mapping[str, int] = MappingProxyType({}),
        beside: str = "",
    ) -> None:
        """Show that `done` of `total` units are done; give `doing` and `unit` where they change.

        A `total` of 0 is not known yet. `workers` has the number of pictures by worker, "HOST-N". `beside` is shown
        after the pace.
        """
        if not self._is_open:
            self._open(done)
        if self._bar is None and render.talks_to_terminal():
            self._show_bar()
        now = self._clock()
        if doing not in (None, self._doing):
            self._doing, self._unit, self._pace = doing or "", unit, Pace(self._clock, done)
        if now - self._shown_at < (_BAR_EVERY_S if self._bar else _LINE_EVERY_S):
            return
        self._shown_at = now
        self._pace.update(done)
        pace = ", ".join(filter(None, (self._pace.describe(total, self._unit), by_worker(workers), beside)))
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, description=self._doing, completed=done, total=total or None, pace=pace)
        else:
            render.say(f"{self._doing}: {done} of {total} {self._unit}{pace and ', ' + pace}")
