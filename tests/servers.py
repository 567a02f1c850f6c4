"""Servers in processes of their own, for tests of `bt serve`."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridgetower.serving.local.client import NoServer, look


def start(index: Path) -> "subprocess.Popen[str]":
    """Start a server of the index in the environment, which is `index`, and wait until it answers."""
    command = [sys.executable, "-P", "-m", "bridgetower_cli", "serve"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            look(index)
        except NoServer:
            time.sleep(0.05)
        else:
            return process
    raise AssertionError("the server does not answer")


@contextmanager
def running(index: Path) -> "Iterator[subprocess.Popen[str]]":
    """A server as `start` makes it, which is killed at the end."""
    process = start(index)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
