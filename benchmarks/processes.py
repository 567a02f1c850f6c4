"""Whole processes, as a person starts them: their time is taken from outside, their memory from the system."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

BT = str(Path(sys.executable).with_name("bt"))  # the one that is installed beside this Python
PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(" ", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, sep="")
sys.exit(done.returncode)
"""


def run(command: list[str]) -> str:
    """Run a command to its end and return what it printed; SystemExit, with what it complained of, if it failed."""
    return _done(command).stdout


def said(command: list[str]) -> str:
    """The same, but what it wrote to stderr."""
    return _done(command).stderr


def _done(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr}")
    return done


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BT_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode beside it
    return environment


def until(command: list[str], shown: bytes) -> None:
    """Run a command on a terminal until it shows this, then kill it. SystemExit if it ends before."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=subprocess.DEVNULL, env=_environment())
    os.close(terminal)
    output = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while shown not in output and (some := os.read(screen, 65536)):
            output += some
    process.kill()
    process.wait()
    os.close(screen)
    if shown not in output:
        raise SystemExit(f"{' '.join(command)} never showed {shown!r}")


def peak(command: list[str]) -> int:
    """The most memory, in bytes, that a command had in RAM at once."""
    return output_and_peak(command)[1]


def output_and_peak(command: list[str]) -> tuple[str, int]:
    """Return the output of a command, and the most memory, in bytes, that it had in RAM at once.

    It is started by a small process of its own: Linux counts what a process was before it became the command, too.
    """
    output, _, kilobytes = run([sys.executable, "-c", PEAK, *command]).rpartition(" ")
    return output, int(kilobytes) if sys.platform == "darwin" else 1024 * int(kilobytes)
