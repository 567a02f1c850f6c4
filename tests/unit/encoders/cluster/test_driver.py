"""The driver, on a Ray that is played by this process."""

import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from bridgetower.encoders.cluster import driver as module
from bridgetower.encoders.cluster.actor import VERSION, Loaded, NotLoaded
from bridgetower.encoders.cluster.driver import Driver
from bridgetower.encoders.cluster.messages import Alive, Joined, Left, Note, Start
from bridgetower.errors import ProcessError, ResourceError
from tests.fakes import FakeEncoder

FINGERPRINT = FakeEncoder().fingerprint


class Died(Exception):
    """Ray's error for an actor that is gone."""


class Reference:
    """A result that is there once it is set."""

    def __init__(self) -> None:
        self._future: Future[Any] = Future()

    def future(self) -> "Future[Any]":
        return self._future


@dataclass
class Handle:
    """An actor on a host."""

    host_name: str
    calls: dict[str, Reference] = field(default_factory=dict)

    def __getattr__(self, method: str) -> SimpleNamespace:
        def remote(*arguments: object) -> Reference:
            return self.calls.setdefault(method, Reference())

        return SimpleNamespace(remote=remote)


class Ray(SimpleNamespace):
    """Hosts with one processor each; those in `small` cannot load the model, nor is it loaded while in `slow`."""

    def __init__(self, *hosts: str) -> None:
        super().__init__(exceptions=SimpleNamespace(RayError=Died, RayTaskError=()))
        self.hosts, self.small, self.slow = list(hosts), set[str](), set[str]()
        self.reason: Callable[[], object] = lambda: NotLoaded(ResourceError("not enough memory"))
        self.actors: list[Handle] = []
        self.loads: list[tuple[str, float]] = []  # hosts on which the model was loaded, and when
        self.now = 0.0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": host, "Alive": True, "Resources": {"CPU": 1}} for host in self.hosts]

    def remote(self, **options: object) -> Callable[[type], SimpleNamespace]:
        return lambda kind: SimpleNamespace(remote=self._create)

    def _create(self, *arguments: object) -> Handle:
        taken = {actor.host_name for actor in self.actors}
        self.actors.append(Handle(next(host for host in self.hosts if host not in taken)))
        return self.actors[-1]

    def kill(self, actor: Handle) -> None:
        self.actors.remove(actor)

    def answer(self) -> None:
        """Let every actor answer that is not slow."""
        for actor in list(self.actors):
            for method, reference in list(actor.calls.items()):
                if reference.future().done() or (method == "load" and actor.host_name in self.slow):
                    continue
                result: object = actor.host_name
                if method == "load":
                    self.loads.append((actor.host_name, self.now))
                    result = self.reason() if actor.host_name in self.small else Loaded(FINGERPRINT, VERSION)
                if isinstance(result, Exception):
                    reference.future().set_exception(result)
                else:
                    reference.future().set_result(result)


class Run:
    """A driver, whose turns are taken one by one, a second each."""

    def __init__(self, ray: Ray) -> None:
        self._ray, self.told = ray, list[object]()
        start = Start(None, lambda device: FakeEncoder(), FINGERPRINT, "cpu", None, None, 60.0)
        self._driver = Driver(start, self.told.append)

    def go_on(self, seconds: int) -> None:
        for _ in range(seconds):
            self._driver._look()
            for _ in range(3):  # the answer to one event may be the next
                self._ray.answer()
                while not self._driver._events.empty():
                    handle = self._driver._events.get()
                    assert handle is not None
                    handle()
            self._ray.now += 1

    @property
    def notes(self) -> list[str]:
        return [message.line for message in self.told if isinstance(message, Note)]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    ray = Ray("big", "small")
    ray.small.add("small")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: ray.now))
    return ray


def times(ray: Ray, host: str) -> list[float]:
    return [at for name, at in ray.loads if name == host]


def test_a_machine_that_is_too_small_is_tried_a_few_times_and_told_once(ray: Ray) -> None:
    run = Run(ray)
    run.go_on(600)
    assert times(ray, "big") == [0]
    assert times(ray, "small") == [0, 1, 6, 66, 126]
    assert run.notes == [
        "a worker on small cannot start: not enough memory; "
        "it is tried a few times more, then when machines join or leave"
    ]
    assert [message for message in run.told if not isinstance(message, Alive | Note)] == [Joined("big-1")]


def test_a_worker_that_dies_as_it_starts_is_told_with_the_cause(ray: Ray) -> None:
    ray.reason = lambda: Died("The actor died.\n\tpid: 3\nIts machine ran low on memory. See the log of Ray.")
    run = Run(ray)
    run.go_on(2)
    [note] = run.notes
    assert note.startswith("a worker on small cannot start: Its machine ran low on memory; ")


def test_a_node_that_joins_gets_a_worker_at_once_and_the_others_are_tried_again(ray: Ray) -> None:
    run = Run(ray)
    run.go_on(300)
    before = len(times(ray, "small"))
    ray.hosts.append("other")
    run.go_on(1)
    assert times(ray, "other") == [300]
    assert len(times(ray, "small")) == before + 1
    assert len(run.notes) == 1


def test_a_worker_that_is_lost_is_replaced_at_once(ray: Ray) -> None:
    run = Run(ray)
    run.go_on(300)
    [worker] = [actor for actor in run._driver._actors if actor.is_ready]
    run._driver._lose(worker, "")
    run.go_on(1)
    assert times(ray, "big") == [0, 300]
    assert run.told[-2:] == [Left("big-1"), Joined("big-2")]


def test_many_workers_that_fail_together_count_once_and_the_others_are_awaited(ray: Ray) -> None:
    ray.hosts += [f"small{number}" for number in range(32)]
    ray.small.update(ray.hosts[1:])
    ray.slow.add("big")
    run = Run(ray)
    run.go_on(200)
    assert not any(isinstance(message, Joined) for message in run.told)
    ray.slow.clear()
    run.go_on(1)
    assert Joined("big-1") in run.told
    assert len(times(ray, "small7")) == 5


def test_no_machine_that_is_large_enough_ends_the_run(ray: Ray) -> None:
    ray.small.add("big")
    run = Run(ray)
    with pytest.raises(ProcessError, match=r"no worker can be started on the Ray cluster: .+-3: not enough memory"):
        run.go_on(100)
    assert ray.now == 6


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("lost\nthe head died. See the log.\n>", "the head died"),
        (">", "OSError"),
        ("", "OSError"),
        ("a cause.", "a cause"),
    ],
)
def test_a_cause_has_words(message: str, said: str) -> None:
    assert module._in_short(OSError(message)) == said
