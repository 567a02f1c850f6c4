"""The process that talks to Ray: `python -m bridgetower.encoders.cluster.driver`, started and ended by `ray_engine`.

Ray prints to stdout, replaces signal handlers, and ends its process when the cluster is lost: here that harms no writer
of an index. When stdin is closed, also because its parent has died, it leaves the cluster, and so ends all actors.

Each actor is created with one GPU or one processor, and Ray decides where. An actor that is lost is replaced by another
one; its batches are returned as lost, so that `batches` decides what becomes of them. A start that fails is tried again
after longer and longer pauses, because each try loads the model.
"""

import logging
import math
import os
import queue
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from bridgetower.encoders.cluster.actor import VERSION, Loaded, NotLoaded, Worker
from bridgetower.encoders.cluster.batches import AHEAD, Done, Lost
from bridgetower.encoders.cluster.messages import Alive, Batch, Failed, Joined, Left, Note, Start, messages, write
from bridgetower.errors import BridgeTowerError, ModelError, ProcessError, ResourceError, UsageError

_LOOK_S = 1.0  # between two looks at the nodes of the cluster
_CONNECT_S = 5.0  # in which a host must accept a connection
_LEAVE_S = 5.0  # in which the cluster is left once stdin is closed
_MOST_FAILED_STARTS = 3  # in a row, without any worker
_PAUSES_S = (1.0, 5.0, 60.0, 60.0)  # after each failed start in a row; then none is made until the nodes change

_Report = Callable[[object], None]


class Defect(Exception):
    """Our code on a worker raised an error that is not expected; the message has its traceback."""


class _Actor:
    """An actor, from the request to Ray on."""

    def __init__(self, handle: Any, failed_starts: int) -> None:
        """`failed_starts` is how many starts had failed in a row when it was requested."""
        self.handle, self.failed_starts = handle, failed_starts
        self.host = self.name = ""  # once it has a place
        self.is_ready = False  # whether it has loaded the model
        self.batches: dict[int, Any] = {}  # references to the results, by ticket; it works on the first


class Driver:
    """Keeps as many actors as are wanted, and passes batches to them."""

    def __init__(self, start: Start, report: _Report) -> None:
        import ray

        self._ray, self._start, self._report = ray, start, report
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._actors: list[_Actor] = []
        self._hosts: Counter[str] = Counter()  # workers that each has had
        self._nodes: frozenset[str] = frozenset()  # that are alive
        self._failed_starts = 0  # in a row; those of actors that were requested together count as one
        self._next_start = 0.0  # before then no actor is requested
        self._told: set[str] = set()  # hosts on which a start has failed
        self._on_gpus: bool | None = None
        self._slots = self._idle_since = 0.0

    # Called by other threads

    def take(self, batch: Batch) -> None:
        """Pass a batch to an actor."""
        self._events.put(lambda: self._submit(batch))

    def end(self) -> None:
        """Let `run` return."""
        self._events.put(None)

    # Called by the main thread

    def run(self) -> None:
        """Handle events until `end`. Raises ProcessError, ModelError, UsageError."""
        self._idle_since = time.monotonic()
        looked = 0.0
        while True:
            if time.monotonic() - looked >= _LOOK_S:
                self._look()
                self._report(Alive())
                looked = time.monotonic()
            try:
                handle = self._events.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if handle is None:
                return
            handle()

    def leave(self) -> None:
        """End the actors, and leave the cluster."""
        with suppress(Exception):  # the cluster may be lost
            for actor in self._actors:
                self._ray.kill(actor.handle)
        self._ray.shutdown()

    def _look(self) -> None:
        """Create the actors that are missing; a node may have joined. Raises ProcessError after a time without any."""
        now = time.monotonic()
        if any(actor.name for actor in self._actors):
            self._idle_since = now
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        nodes = frozenset(node["NodeID"] for node in alive)
        if nodes != self._nodes:
            self._nodes = nodes
            self._start_afresh()
        resources = [node["Resources"] for node in alive]
        gpus, processors = (int(sum(node.get(kind, 0) for node in resources)) for kind in ("GPU", "CPU"))
        on_gpus = self._start.device == "cuda" or (self._start.device == "auto" and gpus > 0)
        if on_gpus != self._on_gpus and not any(actor.name for actor in self._actors):
            for actor in self._actors:  # it waits for what is not there any more
                self._ray.kill(actor.handle)
            self._actors, self._on_gpus = [], on_gpus
        self._slots = gpus if self._on_gpus else processors
        wanted = self._start.workers or int(self._slots)
        if now - self._idle_since > self._start.patience_s:
            kind = "GPUs" if self._on_gpus else "processors"
            raise ProcessError(
                f"no worker has found a place on the Ray cluster for {self._start.patience_s:g} s, which has "
                f"{self._slots:g} {kind}: `ray status` says what they do"
            )
        threads = max(1, processors // gpus) if self._on_gpus and gpus else 1
        if now >= self._next_start:
            for _ in range(wanted - len(self._actors)):
                self._create(threads)

    def _start_afresh(self) -> None:
        """Request actors again at once, as there may be a place now where one can start."""
        self._failed_starts, self._next_start = 0, 0.0

    def _create(self, threads: int) -> None:
        needs = {"num_gpus": 1, "num_cpus": 0} if self._on_gpus else {"num_cpus": 1}
        kind = self._ray.remote(max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **needs)(Worker)
        handle = kind.remote("cuda" if self._on_gpus else "cpu", threads, self._start.max_pixels)
        actor = _Actor(handle, self._failed_starts)
        self._actors.append(actor)
        self._then(actor, actor.handle.host.remote(), self._placed)

    def _then(self, actor: _Actor, reference: Any, handle: Callable[[_Actor, Any], None]) -> Any:
        """Let the main thread handle a result when it is there; return the reference."""

        def finished(future: Any) -> None:
            self._events.put(lambda: self._finished(actor, future, handle))

        reference.future().add_done_callback(finished)
        return reference

    def _finished(self, actor: _Actor, future: Any, handle: Callable[[_Actor, Any], None]) -> None:
        if actor not in self._actors:  # it was lost
            return
        error = future.exception()
        if error is None:
            handle(actor, future.result())
            return
        cause = getattr(error, "cause", None)  # of an exception that our code raised
        if isinstance(cause, ResourceError):
            self._lose(actor, str(cause))
        elif isinstance(cause, BridgeTowerError):
            raise _on(actor.name, cause)
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            raise Defect(f"worker {actor.name}: {error}")
        elif isinstance(error, self._ray.exceptions.RayError):
            self._lose(actor, "" if actor.is_ready else _in_short(error))
        else:
            raise error

    def _placed(self, actor: _Actor, host: str) -> None:
        self._hosts[host] += 1
        actor.host = host
        actor.name = f"{host}-{self._hosts[host]}"
        reference = actor.handle.load.remote(self._start.load, actor.name)
        actor.batches[0] = self._then(actor, reference, self._loaded)

    def _loaded(self, actor: _Actor, found: Loaded | NotLoaded) -> None:
        del actor.batches[0]
        if isinstance(found, NotLoaded):
            if isinstance(found.error, ResourceError):
                self._lose(actor, str(found.error))
                return
            raise _on(f"{actor.name} cannot load the model, which must be there as it is here", found.error)
        if found.version != VERSION:
            raise ModelError(
                f"worker {actor.name} runs bt {found.version[0]}, which decodes as version {found.version[1]}; this is "
                f"bt {VERSION[0]}, version {VERSION[1]}: install the same one there"
            )
        if differing := found.fingerprint.differences(self._start.fingerprint):
            changes = "; ".join(differing.values())
            raise ModelError(f"worker {actor.name} has another model ({changes}): put the one of this machine there")
        actor.is_ready = True
        self._report(Joined(actor.name))

    def _submit(self, batch: Batch) -> None:
        ready = [actor for actor in self._actors if actor.is_ready and len(actor.batches) < AHEAD]
        if not ready:  # they were lost meanwhile
            self._report(Lost(batch.ticket, died_on_it=False, why=""))
            return
        actor = min(ready, key=lambda actor: len(actor.batches))

        def done(actor: _Actor, answers: Any) -> None:
            del actor.batches[batch.ticket]
            self._report(Done(batch.ticket, answers))

        actor.batches[batch.ticket] = self._then(actor, actor.handle.embed.remote(batch.items), done)

    def _lose(self, actor: _Actor, cause: str) -> None:
        """Forget an actor, and report its batches as lost. Raises ProcessError if no worker can be started."""
        self._actors.remove(actor)
        self._ray.kill(actor.handle)  # its machine may only be out of reach
        why = ": ".join(filter(None, (actor.name, cause)))
        if not actor.is_ready:
            self._count_failed_start(actor, cause)
            if self._failed_starts >= _MOST_FAILED_STARTS and not any(one.name for one in self._actors):
                raise ProcessError(f"no worker can be started on the Ray cluster: {why}; the logs of Ray say more")
            return
        for place, ticket in enumerate(actor.batches):
            self._report(Lost(ticket, died_on_it=place == 0, why=why))
        self._report(Left(actor.name))
        self._start_afresh()

    def _count_failed_start(self, actor: _Actor, cause: str) -> None:
        """Set the pause before the next start, and tell the first failure on each host."""
        if actor.failed_starts == self._failed_starts:
            pause = _PAUSES_S[self._failed_starts] if self._failed_starts < len(_PAUSES_S) else math.inf
            self._failed_starts, self._next_start = self._failed_starts + 1, time.monotonic() + pause
        if actor.host not in self._told:
            self._told.add(actor.host)
            where = f"on {actor.host}" if actor.host else "on the Ray cluster"
            again = "it is tried a few times more, then when machines join or leave"
            self._report(Note(f"a worker {where} cannot start: {cause}; {again}"))


def _on(worker: str, error: BridgeTowerError) -> BridgeTowerError:
    kind = UsageError if isinstance(error, UsageError) else ModelError
    return kind(f"worker {worker}: {error}")


def _in_short(error: BaseException) -> str:
    """Return the first sentence of the last line of a message that has words."""
    lines = [line.strip() for line in str(error).splitlines() if re.search("[A-Za-z]{2}", line)]
    last = lines[-1] if lines else type(error).__name__
    return last.partition(". ")[0].removesuffix(".")


def connect(address: str | None) -> None:
    """Connect to a cluster: None for that of RAY_ADDRESS or of this machine. Raises ProcessError."""

    named = address or os.environ.get("RAY_ADDRESS")
    try:
        if named and (place := urlsplit(named if "//" in named else f"//{named}")).port:
            socket.create_connection((place.hostname or "", place.port), _CONNECT_S).close()
        _join(address or "auto")
    except Exception as error:
        if address is not None and "timeout" in str(error).lower():
            raise ProcessError(
                f"no Ray cluster at {address}: what listens there is not Ray's client server, whose port is 10001 "
                "unless `ray start --ray-client-server-port` says another"
            ) from error
        start = "start one with `ray start --head`, or name it: --engine ray://HOST:10001"
        where = f"at {named}" if named else "on this machine"
        raise ProcessError(f"no Ray cluster {where}: {_in_short(error)}: {start}") from error


def _join(address: str) -> None:
    """Call `ray.init`; once more where the head was too busy to start a process for this client in its time."""
    import ray

    try:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
    except ConnectionError as error:
        if "Starting Ray client server failed" not in str(error):
            raise
        ray.shutdown()
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)


def main() -> None:
    """Serve the parent process until it closes stdin."""
    to = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:  # output of Ray must not mix with messages
        os.dup2(nowhere.fileno(), 1)
    received = messages(sys.stdin.buffer)
    start = next(received, None)
    if start is None:
        return
    driver = Driver(start, lambda message: write(message, to))

    def receive() -> None:
        for batch in received:
            driver.take(batch)
        driver.end()
        time.sleep(_LEAVE_S)
        os._exit(1)

    threading.Thread(target=receive, daemon=True).start()
    try:
        connect(start.address)
        driver.run()
    except BridgeTowerError as error:
        write(Failed(error), to)
    except BrokenPipeError:
        pass
    except Defect as error:
        write(Failed(RuntimeError(str(error))), to)
    except Exception as error:  # noqa: BLE001 - Ray raises errors of many kinds where the connection is lost
        write(Failed(ProcessError(f"the Ray cluster was lost: {_in_short(error)}")), to)
    finally:
        driver.leave()


if __name__ == "__main__":
    main()
