"""A Ray cluster on this machine: a head without processors, and nodes of one processor each."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKER = "ray::Worker"  # the title of the process of an actor of ours


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `what` returns something true."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"not within {seconds:g} s"
        time.sleep(0.05)


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """Every process of it has its folder in the environment."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="bt-"))  # short: the path of a socket has at most 107 bytes
        self._gcs, self._client = free_ports(2)
        self.address, self.direct = f"ray://127.0.0.1:{self._client}", f"127.0.0.1:{self._gcs}"
        self.environment = {
            **os.environ,
            "BT_TEST_CLUSTER": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "core"), str(ROOT)]),
            "RAY_AUTH_MODE": "token",  # else anyone who reaches the ports may run code here
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "1000",  # a lost node is known in seconds
            "RAY_health_check_timeout_ms": "5000",
        }
        for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):
            self.environment.pop(name, None)

    def start(self) -> None:
        """Start the head and two nodes."""
        self._start(
            "--head",
            f"--port={self._gcs}",
            f"--ray-client-server-port={self._client}",
            "--num-cpus=0",
            "--include-dashboard=false",
            "--disable-usage-stats",
            f"--temp-dir={self.folder}/ray",
        )
        self._wait(1)
        for number in (2, 3):  # one after the other: Ray gives up on a node that has not started within 30 s
            self.nodes.append(self.add_node())
            self._wait(number)

    def _wait(self, number: int) -> None:
        """Wait until so many nodes have started."""
        log = self.folder / "log"

        def started() -> bool:
            assert all(node.poll() is None for node in self._started), log.read_text()
            return log.read_text().count("Ray runtime started") == number

        wait_for(started, 120)

    def add_node(self, *, gpus: int = 0) -> "subprocess.Popen[bytes]":
        """Start a node, which joins in a few seconds. Ray believes in any number of GPUs."""
        return self._start(f"--address={self.direct}", "--num-cpus=1", f"--num-gpus={gpus}")

    def _start(self, *options: str) -> "subprocess.Popen[bytes]":
        common = ("--block", "--node-ip-address=127.0.0.1", "--object-store-memory=100000000")
        ray = Path(sys.executable).with_name("ray")
        with open(self.folder / "log", "ab") as log:
            command = [str(ray), "start", *options, *common]
            self._started.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))
        return self._started[-1]

    def processes(self, title: str = "") -> list[int]:
        """The processes of the cluster whose command line begins with `title`."""
        mark = f"BT_TEST_CLUSTER={self.folder}".encode()
        return [pid for pid, line in _commands() if line.startswith(title) and mark in _environment(pid)]

    def workers(self) -> list[int]:
        """The processes of actors of ours."""
        return self.processes(WORKER)

    def kill_node(self, node: "subprocess.Popen[bytes]") -> None:
        """Kill a node with all its processes, as if its machine had lost power."""
        children = [node.pid]
        for pid in children:
            children += _children(pid)
        for pid in children:
            _kill(pid)
        node.wait()
        self._started.remove(node)

    def stop(self) -> None:
        for pid in self.processes():
            _kill(pid)
        for process in self._started:
            process.wait()
        wait_for(lambda: not self.processes())
        shutil.rmtree(self.folder, ignore_errors=True)


def _commands() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace")


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    return [
        child for child, _ in _commands() if (stat := _stat(child)) and int(stat.rpartition(")")[2].split()[1]) == pid
    ]


def _stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
