"""A `bt` for many short runs: one process imports what is heavy once, and forks for each command.

A command runs in a process of its own, as `bt` does, with the arguments, folder, environment, streams and exit code of
the caller. Only the imports were done before.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Hands a command over to the process that is warm, and waits for its exit code.
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as warm:
    warm.connect({address!r})
    command = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(warm, [len(command).to_bytes(8, "big")], [0, 1, 2])
    warm.sendall(command)
    for descriptor in (0, 1):
        os.close(descriptor)
    code = warm.recv(1)
sys.exit(code[0] if code else 70)
"""


@contextmanager
def warm_bt(folder: Path) -> Iterator[Path]:
    """Yield a program `bt` in `folder`, whose path is short enough for a Unix socket."""
    address, program = folder / "warm", folder / "bt"
    program.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    with subprocess.Popen([sys.executable, "-P", __file__, address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield program
        finally:
            process.kill()


def main(address: str) -> None:
    from bridgetower_cli import app

    app.wait_without_spinning()  # before PyTorch is loaded
    for heavy in ("bridgetower.library", "bridgetower.encoders.torch_network", "bridgetower.index.vectors.faiss.flat"):
        importlib.import_module(heavy)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b"ready\n")
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _run(connection)
            connection.close()


def _run(connection: socket.socket) -> None:
    """Be the command that the client was called for, and end."""
    from bridgetower_cli import app

    code = 70
    try:
        size, streams, _, _ = socket.recv_fds(connection, 8, 3)
        arguments, folder, environment = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        for descriptor, stream in enumerate(streams):
            os.dup2(stream, descriptor)
            os.close(stream)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        sys.argv = ["bt", *arguments]
        code = app.run()
    finally:
        connection.sendall(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
