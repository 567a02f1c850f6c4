"""A real Milvus 2.3.5 for tests, from the wheel `milvus`, in a network namespace of its own.

Milvus listens on many ports, on all interfaces. In a namespace that has nothing but a loopback interface they neither
clash with others nor can be reached from outside. One port on the loopback interface of this machine leads in: the
socket that listens there is made outside, and inherited by the process inside, which forwards its connections.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bridgetower.index.stores.address import Address
from bridgetower.index.stores.milvus import MilvusTable

ISOLATED = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.geteuid() != 0:
    ISOLATED.insert(1, "--map-root-user")

# Milvus reads settings from the environment, too. These let it load what is flushed, and notice a death, in seconds.
QUICK = {
    "QUERYCOORD_UPDATENEXTTARGETINTERVAL": "1",
    "QUERYCOORD_CHECKHANDOFFINTERVAL": "500",
    "QUERYCOORD_CHECKINTERVAL": "100",
    "QUERYCOORD_CHECKCHANNELINTERVAL": "100",
    "QUERYCOORD_CHECKSEGMENTINTERVAL": "100",
    "QUERYCOORD_CHECKINDEXINTERVAL": "100",
    "QUERYCOORD_DISTPULLINTERVAL": "100",
    "DATACOORD_COMPACTION_CHECK_INTERVAL": "1",
    "INDEXCOORD_SCHEDULER_INTERVAL": "100",
    "COMMON_SESSION_TTL": "5",
}

_STARTED = b"started\n"

PASSWORD = "Milvus"  # of the user root, until it is changed


def why_not() -> str | None:
    """Return why Milvus cannot be started here; None if it can."""
    if sys.platform != "linux":
        return "needs Linux"
    try:
        import milvus  # noqa: F401
    except ImportError:
        return "the package milvus is not installed"
    try:
        tried = subprocess.run([*ISOLATED, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unshare is not installed"
    return None if tried.returncode == 0 else f"no network namespace can be made: {tried.stderr.strip()}"


class Milvus:
    """A server with its data in a folder, from `start` to `kill`; it may be started again."""

    has_transactions, password = False, PASSWORD

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0  # on 127.0.0.1, the same after each start

    @property
    def address(self) -> Address:
        return Address("milvus", "127.0.0.1", self.port, "root", None)

    def table(self, name: str, dim: int) -> MilvusTable:
        return MilvusTable.connect(self.address, name, dim, PASSWORD)

    @property
    def url(self) -> str:
        return str(self.address)

    def start_again(self) -> None:
        if self._process is None:
            self.start()

    def start(self) -> None:
        """Start the server, and wait until it says that it is healthy."""
        with socket.socket() as listener, (self._folder / "log").open("ab") as log:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(64)
            self.port = listener.getsockname()[1]
            descriptor = listener.fileno()
            self._process = subprocess.Popen(
                [*ISOLATED, sys.executable, __file__, str(descriptor), str(self._folder / "data")],
                pass_fds=[descriptor],
                stdin=subprocess.PIPE,  # closed when this process ends, however it does
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _STARTED:
            self.kill()
            raise AssertionError((self._folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """Kill all processes in the namespace with SIGKILL, which closes the port."""
        if self._process is not None:
            self._process.kill()  # --kill-child
            self._process.communicate()
            self._process = None
            while self._accepts():
                time.sleep(0.01)

    def _accepts(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def milvus_server() -> Iterator[Milvus]:
    """Run a server in a temporary folder, or skip the test; at the end both are gone."""
    if (why := why_not()) is not None:
        pytest.skip(f"no Milvus: {why}")
    folder = Path(tempfile.mkdtemp(prefix="bt-milvus-"))
    server = Milvus(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 20):
            target.sendall(data)
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


def _end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # the first process of a namespace takes all others with it


def _let_in(listener: socket.socket, port: int) -> None:
    while True:
        outer, _ = listener.accept()
        try:
            inner = socket.create_connection(("127.0.0.1", port))
        except OSError:
            outer.close()
            continue
        for sides in ((outer, inner), (inner, outer)):
            for side in sides:
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_forward, args=sides, daemon=True).start()


def _run(descriptor: int, folder: Path) -> None:
    """Run Milvus in this namespace until the process is killed."""
    import milvus

    with socket.socket() as any_socket:  # loopback is down in a new namespace: set IFF_UP by SIOCSIFFLAGS
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
    config = milvus.MilvusServerConfig(data_dir=str(folder))
    config.set("authorization_enabled", True)
    config.set("log.level", "warn")
    config.set("log.stdout", "false")
    config.set("etcd_log_level", "warn")
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.environ.update(QUICK)
    server = milvus.MilvusServer(config, wait_for_started=False)
    server.start()
    threading.Thread(
        target=_let_in, args=(socket.socket(fileno=descriptor), config.get("proxy_port")), daemon=True
    ).start()
    server.wait_started()
    os.write(sys.stdout.fileno(), _STARTED)
    server.server_proc.wait()


if __name__ == "__main__":
    _run(int(sys.argv[1]), Path(sys.argv[2]))
